"""Test strategies over short lists: the best gene first, calls, rounds, bad rankers."""

import math

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given, settings

from jeff_llm.genes import conquer, rounds
from jeff_llm.genes.pairing import pair
from jeff_llm.genes.ranking import Phenotypes, Ranking, by_score

KEY = jax.random.key(0)
WHO = Phenotypes(("HP:0001250",), ("HP:0001263",))


class Strict:
    """Follows a strict total order, the number in a gene's name; keeps a record."""

    def __init__(self):
        self.asked, self.batches = [], []

    def __call__(self, phenotypes, genes, /):
        assert phenotypes is WHO
        self.asked.append(list(genes))
        scores = np.array([-float(gene[1:]) for gene in genes])
        return by_score(scores, calls=1, tokens=len(genes))

    def many(self, requests):
        self.batches.append(len(requests))
        return [self(*request) for request in requests]


def shuffled(count, seed=0):
    return [f"G{i}" for i in np.random.default_rng(seed).permutation(count)]


def named(genes, ranking):
    return [genes[i] for i in ranking.order]


def strategies(size, keep, permutations):
    """Every strategy, with options from three numbers."""
    division = {"group_size": size, "keep": min(keep, size - 1)}
    for points in ("borda", "plackett_luce"):
        options = division | {"permutations": permutations, "points": points}
        yield conquer.divide_and_conquer, options | {"key": KEY}
    yield conquer.sliding_window, {"window": size, "step": min(keep, size - 1)}
    yield conquer.swiss, {"key": KEY}
    yield conquer.full_list, {}


@settings(deadline=None)
@given(
    st.integers(1, 40),
    st.integers(2, 12),
    st.integers(1, 11),
    st.integers(1, 4),
    st.integers(0, 1000),
)
def test_the_best_gene_is_first(count, size, keep, permutations, seed):
    genes = shuffled(count, seed)
    for strategy, options in strategies(size, keep, permutations):
        ranker = Strict()
        found = strategy(ranker, WHO, genes, **options)
        assert named(genes, found)[0] == "G0", strategy
        assert sorted(found.order) == list(range(count))
        assert found.scores.argmax() == found.order[0] or count == 1
        assert (np.diff(found.scores[found.order]) <= 0).all()
        assert found.calls == len(ranker.asked)
        assert found.tokens == sum(len(group) for group in ranker.asked)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(2, 12), st.integers(1, 11), st.integers(1, 3))
def test_calls_are_those_of_the_formula(count, size, keep, permutations):
    options = {"group_size": size, "keep": min(keep, size - 1)}
    options["permutations"] = permutations
    ranker = Strict()
    found = conquer.divide_and_conquer(ranker, WHO, shuffled(count), **options, key=KEY)
    assert len(ranker.asked) == conquer.num_calls(count, **options) == found.calls
    assert all(2 <= len(group) <= size for group in ranker.asked)


def test_calls_by_hand():
    """100 in tens: 10 groups, 20 left, 2 groups, 4 left, 1 group."""
    assert conquer.num_calls(100, group_size=10, keep=2) == 13
    # 11 in fives, keep 2: two groups and one gene that goes on; 5 left, one group.
    assert conquer.num_calls(11, group_size=5, keep=2, permutations=3) == 9
    # 13 in fives, keep 2: the three that are left over lose one too.
    assert conquer.num_calls(13, group_size=5, keep=2) == 3 + 1 + 1
    assert conquer.num_calls(1, group_size=5, keep=2) == 0


def test_a_round_of_all_permutations_is_one_call_of_the_ranker():
    ranker = Strict()
    conquer.divide_and_conquer(
        ranker, WHO, shuffled(100), group_size=10, keep=2, permutations=4, key=KEY
    )
    assert ranker.batches == [40, 8, 4]


def test_genes_that_leave_later_stand_before_those_that_left_earlier():
    genes = shuffled(27)
    ranker = Strict()
    found = conquer.divide_and_conquer(
        ranker, WHO, genes, group_size=3, keep=1, key=KEY
    )
    first, second, last = ranker.asked[:9], ranker.asked[9:12], ranker.asked[12]
    number = {gene: int(gene[1:]) for gene in genes}
    order = named(genes, found)
    assert order[:3] == sorted(last, key=number.get)
    assert set(order[:9]) == {gene for group in second for gene in group}
    # Those that left first: seconds of their groups, then thirds.
    assert set(order[9:18]) == {sorted(g, key=number.get)[1] for g in first}


def test_permutations_shuffle_anew_and_depend_on_the_request():
    genes, ranker = shuffled(20), Strict()
    conquer.divide_and_conquer(
        ranker, WHO, genes, group_size=20, keep=1, permutations=2, key=KEY
    )
    assert ranker.asked[0] != ranker.asked[1]
    again = Strict()
    conquer.divide_and_conquer(
        again, WHO, genes, group_size=20, keep=1, permutations=2, key=KEY
    )
    assert again.asked == ranker.asked
    other = Strict()
    conquer.divide_and_conquer(
        other, WHO, genes[::-1], group_size=20, keep=1, permutations=2, key=KEY
    )
    assert other.asked[0] != ranker.asked[0][::-1] and other.asked != ranker.asked


def test_more_permutations_rank_the_whole_list_better():
    """With a strict ranker, joined orders agree more with the true one."""
    genes = shuffled(30)
    truth = np.array([int(gene[1:]) for gene in genes])
    errors = {}
    for permutations in (1, 20):
        for points in ("borda", "plackett_luce"):
            found = conquer.divide_and_conquer(
                Strict(), WHO, genes, permutations=permutations, points=points, key=KEY
            )
            errors[permutations, points] = np.abs(truth[found.order] - range(30)).mean()
    assert errors[20, "borda"] < 0.5 * errors[1, "borda"]
    assert errors[20, "plackett_luce"] < 0.5 * errors[1, "plackett_luce"]


def test_equal_points_do_not_follow_the_input():
    """Two permutations of two genes, by a ranker that always takes the first."""
    wins = 0
    for seed in range(60):
        found = conquer.divide_and_conquer(
            lambda _, genes: (np.arange(len(genes)), np.zeros(len(genes))),
            WHO,
            ["A", "B"],
            permutations=2,
            key=jax.random.key(seed),
        )
        wins += found.order[0] == 0
    assert 15 < wins < 45


def test_sliding_window_by_hand():
    """Window 3, step 2: the two best of the back rise to the front."""
    genes, ranker = ["G3", "G4", "G5", "G2", "G1"], Strict()
    found = conquer.sliding_window(ranker, WHO, genes, window=3, step=2)
    assert ranker.asked == [["G5", "G2", "G1"], ["G3", "G4", "G1"]]
    assert named(genes, found) == ["G1", "G3", "G4", "G2", "G5"]
    assert found.scores.tolist() == [-2, -3, -5, -4, -1]
    assert found.calls == 2


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 24), st.integers(0, 1000))
def test_swiss_pairs_equals_and_repeats_no_pair(count, seed):
    ranker, genes = Strict(), shuffled(count, seed)
    most = max(count // 2, 1)
    found = conquer.swiss(ranker, WHO, genes, rounds=most, key=KEY)
    met = [frozenset(group) for group in ranker.asked]
    assert len(set(met)) == len(met) == most * (count // 2) == found.calls
    assert ranker.batches == [count // 2] * most
    played = np.bincount([int(g[1:]) for pairs in ranker.asked for g in pairs])
    # A bye each at most while some gene has had none.
    assert set(played) <= ({most} if count % 2 == 0 else {most, most - 1})


def test_swiss_needs_no_more_rounds_than_it_says():
    """One round less is not enough for 17 genes: two genes are undefeated."""
    enough = math.ceil(math.log2(17))
    firsts = []
    for seed in range(20):
        genes = shuffled(17, seed)
        found = conquer.swiss(
            Strict(), WHO, genes, rounds=enough - 1, key=jax.random.key(seed)
        )
        firsts.append(np.sum(np.floor(found.scores) == enough - 1))
        default = conquer.swiss(Strict(), WHO, genes, key=jax.random.key(seed))
        assert np.sum(np.floor(default.scores) == enough) == 1
        assert default.calls == enough * 8
    assert max(firsts) == 2


def test_pairs_meet_again_only_where_they_must():
    none, met = np.zeros(4, bool), ~np.eye(4, dtype=bool)
    met[2, 3] = met[3, 2] = False
    assert pair([0, 1, 2, 3], met, none, none) == ([(2, 3), (1, 0)], None)
    # 2 and 3 have met; 0 and 1, paired first, are exchanged with them.
    met = np.zeros((4, 4), bool)
    met[2, 3] = met[3, 2] = True
    assert pair([0, 1, 2, 3], met, none, none) == ([(3, 0), (2, 1)], None)
    # But not if both are undefeated.
    undefeated = np.array([True, True, False, False])
    assert pair([0, 1, 2, 3], met, none, undefeated)[0] == [(0, 1), (3, 2)]
    had = np.array([False, False, True])
    assert pair([0, 1, 2], np.zeros((3, 3), bool), had, had) == ([(0, 2)], 1)


@pytest.mark.parametrize(("strategy", "options"), [*strategies(4, 2, 2)])
def test_a_strategy_as_ranker_gives_the_same_together_and_alone(strategy, options):
    ranker = Strict()
    wrapped = conquer.as_ranker(strategy, ranker, **options)
    requests = [(WHO, shuffled(count, count)) for count in (9, 1, 14, 9)]
    together = wrapped.many(requests)
    size = len(ranker.batches)
    for (phenotypes, genes), found in zip(requests, together, strict=True):
        alone = strategy(ranker, phenotypes, genes, **options)
        for one, other in zip(found, alone, strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(wrapped(WHO, genes).order, found.order)
    # As many rounds as the longest request has, and no more.
    single = Strict()
    strategy(single, WHO, requests[2][1], **options)
    assert size == len(single.batches)


def test_strategies_compose():
    """Groups of four by a tournament of pairs, all permutations' pairs together."""
    ranker = Strict()
    inner = conquer.as_ranker(conquer.swiss, ranker, key=KEY)
    genes = shuffled(16)
    found = conquer.divide_and_conquer(
        inner, WHO, genes, group_size=4, keep=1, permutations=3, key=KEY
    )
    assert named(genes, found)[0] == "G0"
    assert found.calls == len(ranker.asked) == 3 * 5 * 4
    assert ranker.batches == [24, 24, 6, 6]


def test_a_plain_pair_is_an_answer():
    def ranker(phenotypes, genes):
        return np.argsort(genes), np.zeros(len(genes))

    found = conquer.full_list(ranker, WHO, ["B", "C", "A"])
    assert found.order.tolist() == [2, 0, 1]
    assert (found.calls, found.tokens) == (1, 0)
    free = conquer.full_list(lambda _, g: by_score(np.zeros(len(g))), WHO, ["A", "B"])
    assert free.calls == 0


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (([0, 0, 1], np.zeros(3)), ValueError, r"from 0 to 2 once, got \[0, 0, 1\]"),
        (([1, 0], np.zeros(3)), ValueError, r"got \[1, 0\]"),
        (([1.0, 0.0, 2.0], np.zeros(3)), ValueError, "each position"),
        (([2, 1, 0], np.zeros(2)), ValueError, r"expected 3 scores.*got shape \(2,\)"),
        (None, TypeError, "expected an order and scores, got NoneType"),
        ("ABC", TypeError, "expected an order and scores, got str"),
    ],
)
def test_a_wrong_answer_of_a_ranker_is_refused(answer, error, message):
    with pytest.raises(error, match=f"ranker: .*{message}"):
        conquer.full_list(lambda *_: answer, WHO, ["A", "B", "C"])


def test_too_few_answers_are_refused():
    class Forgetful(Strict):
        def many(self, requests):
            return super().many(requests)[:-1]

    with pytest.raises(ValueError, match=r"expected 4 rankings .* got 3"):
        conquer.divide_and_conquer(Forgetful(), WHO, shuffled(20), key=KEY)


@pytest.mark.parametrize(
    ("strategy", "options", "error", "message"),
    [
        ("divide_and_conquer", {"group_size": 3, "keep": 3}, ValueError, "keep: .* 3"),
        ("divide_and_conquer", {"group_size": 1}, ValueError, "group_size: .* got 1"),
        ("divide_and_conquer", {"keep": 0}, ValueError, "keep: expected at least 1"),
        ("divide_and_conquer", {"permutations": 0}, ValueError, "permutations"),
        ("divide_and_conquer", {"size": 3}, TypeError, "size"),
        ("sliding_window", {"window": 4, "step": 4}, ValueError, "step: .* window = 4"),
        ("sliding_window", {"window": 1}, ValueError, "window: expected at least 2"),
        ("sliding_window", {"step": 0}, ValueError, "step: expected at least 1"),
        ("swiss", {"rounds": 0}, ValueError, "rounds: expected at least 1"),
    ],
)
def test_bad_options_are_refused_before_a_call(strategy, options, error, message):
    function, ranker = getattr(conquer, strategy), Strict()
    if strategy != "sliding_window":
        options = options | {"key": KEY}
    with pytest.raises(error, match=message):
        conquer.as_ranker(function, ranker, **options)
    if error is ValueError:
        with pytest.raises(error, match=message):
            function(ranker, WHO, ["A", "B"], **options)
    assert not ranker.asked


def test_other_bad_arguments():
    with pytest.raises(ValueError, match="strategy: expected one of full_list, "):
        conquer.as_ranker(lambda *_: Ranking(np.arange(1), np.zeros(1)), Strict())
    with pytest.raises(TypeError, match="key"):
        conquer.as_ranker(conquer.swiss, Strict())
    with pytest.raises(ValueError, match="points: expected one of"):
        conquer.divide_and_conquer.__wrapped__(
            Strict(), WHO, ["A"], points="elo", key=KEY
        )
    for genes, message in [([], "got none"), (["A", "B", "A"], "got 'A' again")]:
        for strategy, options in strategies(4, 2, 1):
            with pytest.raises(ValueError, match=f"genes: .*{message}"):
                strategy(Strict(), WHO, genes, **options)
    with pytest.raises(TypeError, match=r"genes: expected a list .* 'BRCA1'"):
        rounds.check_genes("BRCA1")
    with pytest.raises(ValueError, match="count: expected at least 1, got 0"):
        conquer.num_calls(0, group_size=5, keep=2)


def test_typed_and_raw_keys_draw_the_same():
    raw = jax.random.key_data(KEY)
    genes = shuffled(9)
    draws = [rounds.generator(key, WHO, genes).random() for key in (KEY, raw)]
    assert draws[0] == draws[1]
    others = [
        rounds.generator(jax.random.key(1), WHO, genes).random(),
        rounds.generator(KEY, Phenotypes(WHO.observed), genes).random(),
        rounds.generator(KEY, WHO, genes[::-1]).random(),
    ]
    assert len({draws[0], *others}) == 4
