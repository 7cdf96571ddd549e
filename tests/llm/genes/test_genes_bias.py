"""Test measures of bias: by hand, against the simulator's formula, and the remedy."""

import jax
import numpy as np
import pytest

from jeff_llm.genes import bias, conquer
from jeff_llm.genes.biased import Biased
from jeff_llm.genes.ranking import Phenotypes, by_score

KEY = jax.random.key(0)


def candidates(count, number, seed=0):
    """Patients whose causal gene is G0 among others, in random order."""
    rng = np.random.default_rng(seed)
    names = np.array([f"G{i}" for i in range(count)])
    cases = []
    for patient in range(number):
        order = rng.permutation(count)
        who = Phenotypes((f"HP:{patient:07d}",))
        cases.append(
            bias.Candidates(who, names[order].tolist(), int(np.argmin(order)), order)
        )
    return cases


def test_position_slope_by_hand():
    """First case: hits at 0 and 0.5 of 0, 0.5, 1; second: a hit at 1 of 0 and 1."""
    position = [np.array([0, 0.5, 1]), np.array([0.0, 1.0])]
    hit = [np.array([True, True, False]), np.array([False, True])]
    found = bias.position_slope(position, hit, key=KEY)
    # Sums of products -0.5 and 0.5, of squares 0.5 and 0.5.
    np.testing.assert_allclose(found, [0, -1, 1], atol=1e-6)
    found = bias.position_slope([position[0]] * 2, [hit[0]] * 2, key=KEY)
    np.testing.assert_allclose(found, -1, atol=1e-6)


def test_order_stability_by_hand():
    """Three orders of three genes: taus of 1, 1/3 and 1/3; and a reversed pair."""
    ranks = [np.array([[1, 2, 3], [1, 2, 3], [2, 1, 3]]), np.array([[1, 2], [2, 1]])]
    found = bias.order_stability(ranks, key=KEY)
    np.testing.assert_allclose(found.estimate, (5 / 9 - 1) / 2, atol=1e-6)
    np.testing.assert_allclose(found[1:], [-1, 5 / 9], atol=1e-6)


def test_popularity_correlation_by_hand():
    """The causal gene, at the top and best known, does not count."""
    ranks = [np.array([[1, 2, 3, 4], [1, 4, 3, 2]]), np.array([[2, 3, 1]])]
    popularity = [np.array([99, 30, 20, 10]), np.array([5, 7, 6])]
    found = bias.popularity_correlation(ranks, popularity, [0, 2], key=KEY)
    # First case: -1 and 1; second: the better known of two is last.
    np.testing.assert_allclose(found, [0.5, 0, 1], atol=1e-6)


def test_the_position_slope_of_the_simulator_is_measured_back():
    """All shifts of 8 genes: the expected slope is that of a softmax over places."""
    quality = {f"G{i}": 2.0 * (i == 0) for i in range(8)}
    places = np.arange(8)
    for size in (0.0, 1.0):
        ranker = Biased(quality, position_bias=size, noise=0.4, key=KEY)
        utility = -size * np.log1p(places)[None] + 2.0 * np.eye(8)
        power = np.exp(utility / (0.4 * np.log(8)))
        first = np.diag(power) / power.sum(1)
        expected = np.polyfit(places / 7, first, 1)[0]
        found = bias.measure(ranker, candidates(8, 150), key=KEY).position
        assert found.low <= expected <= found.high
        assert found.high - found.low < 0.2
        assert size == 0 or found.high < -0.5


def test_the_popularity_correlation_of_the_simulator_is_measured_back():
    """Two other genes: Luce's choice between them gives the expected correlation."""
    popularity = {"G0": 0, "G1": 10, "G2": 500}
    cases = [
        case._replace(popularity=np.array([popularity[gene] for gene in case.genes]))
        for case in candidates(3, 150)
    ]
    logs = np.log1p(list(popularity.values()))
    apart = (logs[2] - logs[1]) / logs.std()
    for size in (0.0, 1.5):
        ranker = Biased(
            dict.fromkeys(popularity, 0.0),
            popularity=popularity,
            popularity_bias=size,
            key=KEY,
        )
        expected = 1 - 2 / (1 + np.exp(-size * apart / np.log(3)))
        found = bias.measure(ranker, cases, key=KEY).popularity
        assert found.low <= expected <= found.high
        assert size == 0 or found.high < -0.3


def test_a_ranker_without_noise_or_bias_is_stable():
    quality = {f"G{i}": -float(i) for i in range(6)}
    ranker = Biased(quality, noise=0.0, key=KEY)
    found = bias.measure(ranker, candidates(6, 5), num_shifts=3, key=KEY)
    # Popularity is the number of the gene here, and it ranks by that.
    expected = [[0] * 3, [1] * 3, [1] * 3]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    noise = Biased(dict.fromkeys(quality, 0.0), key=KEY)
    stability = bias.measure(noise, candidates(6, 40), num_shifts=2, key=KEY).stability
    assert stability.low < 0 < stability.high


def test_divide_and_conquer_shrinks_position_bias_and_steadies_the_order():
    cases = candidates(20, 40)
    quality = {f"G{i}": 3.0 * (i == 0) - 0.1 * i for i in range(20)}
    model = Biased(quality, position_bias=1.0, noise=0.3, key=KEY)
    divided = conquer.as_ranker(
        conquer.divide_and_conquer,
        model,
        group_size=5,
        keep=2,
        permutations=5,
        key=KEY,
    )
    before, after = (
        bias.measure(ranker, cases, num_shifts=10, num_permutations=3, key=KEY)
        for ranker in (conquer.as_ranker(conquer.full_list, model), divided)
    )
    assert before.position.high < -0.3
    assert after.position.low > before.position.high
    assert abs(after.position.estimate) < 0.3 * abs(before.position.estimate)
    assert after.stability.low > before.stability.high


def test_a_case_asks_for_shifts_and_permutations_together():
    batches = []

    class Recorder:
        def __call__(self, phenotypes, genes, /):
            raise AssertionError("one by one")

        def many(self, requests):
            batches.append([genes for _, genes in requests])
            return [by_score(np.zeros(len(genes))) for _, genes in requests]

    cases = candidates(5, 2)
    bias.measure(Recorder(), cases, num_shifts=2, num_permutations=3, key=KEY)
    (asked,) = batches
    assert len(asked) == 2 * 5
    first = cases[0].genes
    assert asked[0] == first and asked[1] == first[2:] + first[:2]
    assert all(sorted(genes) == sorted(first) for genes in asked)
    assert len({tuple(genes) for genes in asked[2:5]}) == 3


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"popularity": np.array([1, 7, 7])}, {}, "got .7, 7. for case 1; leave"),
        ({"popularity": np.array([1, 2])}, {}, r"popularity: expected shape \(3,\)"),
        ({"causal": 3}, {}, "causal: expected a position from 0 to 2, got 3"),
        ({"genes": ["A", "A", "B"]}, {}, "got 'A' again"),
        ({"genes": ["A"], "popularity": np.array([1]), "causal": 0}, {}, r"got \[\]"),
        ({}, {"num_shifts": 1}, "num_shifts: expected at least 2, got 1"),
        ({}, {"num_permutations": 1}, "num_permutations: expected at least 2"),
    ],
)
def test_bad_cases_are_refused_before_a_call(change, options, message):
    def ranker(phenotypes, genes):
        raise AssertionError("asked")

    good = bias.Candidates(Phenotypes(()), ["A", "B", "C"], 0, np.array([1, 2, 3]))
    with pytest.raises(ValueError, match=message):
        bias.measure(ranker, [good, good._replace(**change)], key=KEY, **options)


def test_undefined_measures_are_refused():
    place, hit = np.array([0.5, 0.5]), np.array([True, False])
    ranks = np.array([[1, 2, 3], [1, 1, 1]])
    for call, message in [
        (lambda: bias.position_slope([place] * 2, [hit] * 2, key=KEY), "two or more"),
        (lambda: bias.position_slope([place], [hit], key=KEY), "at least two cases"),
        (lambda: bias.position_slope([place], [hit] * 2, key=KEY), "hit: expected 1"),
        (
            lambda: bias.position_slope(
                [np.array([0.0, 1.0])] * 2, [hit, hit[:1]], key=KEY
            ),
            "as in position for case 1",
        ),
        (lambda: bias.order_stability([ranks] * 2, key=KEY), "ties in case 0"),
        (lambda: bias.order_stability([ranks[:1]] * 2, key=KEY), "at least 2 orders"),
        (lambda: bias.order_stability([ranks / 0.0] * 2, key=KEY), "finite ranks"),
        (lambda: bias.order_stability([ranks[:, :1]] * 2, key=KEY), "2 genes"),
        (
            lambda: bias.popularity_correlation(
                [ranks] * 2, [np.arange(3)] * 2, [0, 0], key=KEY
            ),
            "ties in case 0",
        ),
    ]:
        with pytest.raises(ValueError, match=message), np.errstate(divide="ignore"):
            call()
