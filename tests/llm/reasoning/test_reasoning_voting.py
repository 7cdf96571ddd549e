"""Test votes and stopping rules: by hand, against loops, simulation and a peer."""

from collections import Counter

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from jeff_llm.reasoning import voting, voting_adaptive, voting_parallel
from jeff_llm.reasoning.votes import check_votes, fold

# Questions by 7 samples: clear, late, a tie, no answer at all, and a ragged one.
ANSWER = np.array(
    [
        [5, 5, 5, 5, 5, 5, 5],
        [1, 2, 2, 2, 2, 1, 1],
        [3, -1, 0, 0, 3, -1, -1],
        [-1, -1, -1, -1, -1, -1, -1],
        [7, 7, 8, 0, 0, 0, 0],
    ]
)
WHERE = np.arange(7) < np.array([7, 7, 7, 7, 3])[:, None]
LENGTH = np.array(
    [
        [9, 8, 7, 6, 5, 4, 3],
        [1, 1, 1, 1, 1, 1, 1],
        [50, 1, 30, 40, 20, 1, 1],
        [2, 2, 2, 2, 2, 2, 2],
        [5, 4, 3, 99, 99, 99, 99],
    ]
)

RULES = {
    "majority": voting.majority_vote,
    "early_stopping": lambda a, **o: voting.early_stopping(a, window=2, **o),
    "adaptive": voting_adaptive.adaptive_consistency,
    "certaindex": lambda a, **o: voting_adaptive.certaindex_stopping(a, least=3, **o),
    "short": lambda a, **o: voting_parallel.short_m_of_k(a, finish=2, **o),
}


def test_majority_by_hand() -> None:
    found = voting.majority_vote(ANSWER, length=LENGTH, where=WHERE)
    # Question 2 ties: 3 was seen first.
    assert found.answer.tolist() == [5, 2, 3, -1, 7]
    assert found.samples.tolist() == [7, 7, 7, 7, 3]
    assert found.tokens.tolist() == [42, 7, 143, 14, 12]


def test_weights_by_hand() -> None:
    weight = np.ones((5, 7))
    weight[1] = [3, 1, 1, 1, 1, 3, 3]
    weight[2] = [0.1, 9, 1, 1, 0.2, 9, 9]
    found = voting.confidence_weighted_vote(ANSWER, weight, where=WHERE)
    assert found.answer.tolist() == [5, 1, 0, -1, 7]
    none = voting.confidence_weighted_vote(ANSWER, 0 * weight, where=WHERE)
    assert none.answer.tolist() == [-1] * 5


def test_early_stopping_by_hand() -> None:
    found = voting.early_stopping(ANSWER, window=2, length=LENGTH, where=WHERE)
    # The second windows of questions 1 and 2 agree, against the vote of all in the
    # latter; windows without answers never do; the ragged question stops at its first.
    assert found.answer.tolist() == [5, 2, 0, -1, 7]
    assert found.samples.tolist() == [2, 4, 4, 7, 2]
    assert found.tokens.tolist() == [17, 4, 121, 14, 9]


def test_a_window_outvotes_those_before_it() -> None:
    answer = np.array([[1, 1, 2, 1, 3, 3]])
    assert voting.early_stopping(answer[:, 2:], window=2).answer == 3
    assert voting.early_stopping(answer, window=3).answer == 1  # none agrees: majority
    # A window that is longer than the row never stops.
    assert voting.early_stopping(answer, window=9)[:2] == (1, 6)


def test_adaptive_consistency_by_hand() -> None:
    """4 votes to none, or 5 to 1: P = 1 - 2^-5 and 1 - 2^-7 (1 + 7)."""
    found = voting_adaptive.adaptive_consistency(ANSWER, length=LENGTH, where=WHERE)
    assert found.answer.tolist() == [5, 2, 3, -1, 7]
    assert found.samples.tolist() == [4, 7, 7, 7, 3]
    assert found.tokens.tolist() == [30, 7, 143, 14, 12]
    late = voting_adaptive.adaptive_consistency(np.array([[1, 2, 2, 2, 2, 2, 2, 1]]))
    assert late[:2] == (2, 7)


def test_one_question_stops_as_one_of_many() -> None:
    """With fewer questions than samples no table of counts is made."""
    many = voting_adaptive.adaptive_consistency(np.tile(ANSWER, (2, 1)))
    for row, code, used in zip(ANSWER, many.answer, many.samples, strict=False):
        found = voting_adaptive.adaptive_consistency(row[None])
        assert (found.answer, found.samples) == (code, used)


def test_the_beta_tail_is_scipy_s() -> None:
    first, second = np.meshgrid(np.arange(41), np.arange(41))
    ours = voting_adaptive.majority_probability(first, second)
    theirs = stats.beta.sf(0.5, first + 1.0, second + 1.0)
    np.testing.assert_allclose(ours, theirs, atol=3e-5)
    for threshold in (0.8, 0.9, 0.95, 0.99):  # and decides alike
        np.testing.assert_array_equal(ours >= threshold, theirs >= threshold)


def test_certaindex_by_hand() -> None:
    found = voting_adaptive.certaindex(ANSWER, where=WHERE)
    parts = {"1": (4, 3), "2": (2, 2), "4": (2, 1)}
    for place, counts in parts.items():
        share = np.array(counts) / sum(counts)
        expected = 1 + (share * np.log(share)).sum() / np.log(sum(counts))
        assert found[int(place)] == pytest.approx(expected, abs=1e-6)
    assert found[0] == 1 and found[3] == 0
    assert voting_adaptive.certaindex(np.array([[4]])) == 0, "one answer shows nothing"


def test_certaindex_stopping_by_hand() -> None:
    found = voting_adaptive.certaindex_stopping(
        ANSWER, threshold=1, least=3, where=WHERE
    )
    assert found.samples.tolist() == [3, 7, 7, 7, 3]
    low = voting_adaptive.certaindex_stopping(
        ANSWER, threshold=0.3, least=4, where=WHERE
    )
    # With 1 and 3 votes it is 1 - 0.562 / 1.386 = 0.594, with 2 and 2 it is 0.5; only
    # three samples of the last question exist.
    assert low.samples.tolist() == [4, 4, 5, 7, 3] and low.answer[1] == 2


def test_short_m_of_k_by_hand() -> None:
    found = voting_parallel.short_m_of_k(ANSWER, finish=2, length=LENGTH, where=WHERE)
    assert found.answer.tolist() == [5, 1, 3, -1, 8]
    assert found.samples.tolist() == [7, 7, 7, 7, 3], "all of them were started"
    # Question 2 waits for answers, at 20 and 30 tokens: 20 + 30 + 2 x 30 + 3 x 1.
    assert found.tokens.tolist() == [27, 7, 113, 14, 11]
    three = voting_parallel.short_m_of_k(ANSWER, finish=3, length=LENGTH, where=WHERE)
    # Now 0 has two of three votes; all four tie, and 3 finished first.
    assert three.answer[2] == 0
    four = voting_parallel.short_m_of_k(ANSWER, finish=4, length=LENGTH, where=WHERE)
    assert (four.answer[2], four.tokens[2]) == (3, 143)


def test_the_order_of_finishing() -> None:
    """The long sample ended first in time, so it costs its whole length."""
    answer, length = np.array([[1, 2, 2]]), np.array([[90, 10, 100]])
    order = np.array([[1, 2, 3]])
    first = voting_parallel.first_finish(answer, length=length, order=order)
    assert (first.answer, first.tokens) == (1, 90 + 10 + 90)
    by_length = voting_parallel.first_finish(answer, length=length)
    assert (by_length.answer, by_length.tokens) == (2, 30)
    plain = voting_parallel.first_finish(answer)
    assert (plain.answer, plain.tokens) == (1, 3)


@pytest.mark.parametrize("start", [1732800000.0, 1732800000 * 10**9])
def test_times_of_finishing_are_told_apart(start) -> None:
    """Times since 1970 in seconds or nanoseconds, closer than float32 can tell."""
    order = start + np.array([[3, 2, 1]])
    found = voting_parallel.first_finish(np.array([[5, 6, 7]]), order=order)
    assert found.answer == 7


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint64])
def test_unsigned_codes(name, dtype) -> None:
    """A question without a sample has no answer, though -1 is no unsigned number."""
    answer, where = np.array([[5, 5, 6], [255, 255, 255]]), np.array([[True], [False]])
    where = np.broadcast_to(where, answer.shape)
    assert RULES[name](answer.astype(dtype), where=where).answer.tolist() == [5, -1]
    assert RULES[name](answer.astype(dtype)).answer.tolist() == [5, 255]


def loop(row, weight=None):
    """Majority of a row by a dictionary, which keeps the order of first appearance."""
    votes = {}
    for place, code in enumerate(row):
        if code >= 0:
            votes[code] = votes.get(code, 0) + (1 if weight is None else weight[place])
    return max(votes, key=votes.get) if votes else -1


ROWS = st.lists(
    st.lists(st.integers(-1, 2), min_size=9, max_size=9), min_size=4, max_size=4
)


@settings(deadline=None)  # the first example compiles
@given(ROWS, st.lists(st.integers(0, 9), min_size=4, max_size=4))
def test_against_loops(rows, counts) -> None:
    answer, where = np.array(rows), np.arange(9) < np.array(counts)[:, None]
    majority = voting.majority_vote(answer, where=where)
    windows = voting.early_stopping(answer, window=3, where=where)
    adaptive = voting_adaptive.adaptive_consistency(answer, threshold=0.8, where=where)
    sure = voting_adaptive.certaindex_stopping(answer, least=3, where=where)
    for place, count in enumerate(counts):
        row = rows[place][:count]
        assert majority.answer[place] == loop(row)
        stop = next(
            (
                end
                for end in range(3, count + 1, 3)
                if len({*row[end - 3 : end]}) == 1 and row[end - 1] >= 0
            ),
            count,
        )
        assert windows.samples[place] == stop
        for found, enough in ((adaptive, clear), (sure, certain)):
            ends = (end for end in range(1, count + 1) if enough(row[:end]))
            stop = next(ends, count)
            assert found.samples[place] == stop
            assert found.answer[place] == loop(row[:stop])
            assert found.tokens[place] == stop


def top_two(row):
    counts = [count for _, count in Counter(c for c in row if c >= 0).most_common(2)]
    return (*counts, 0, 0)[:2]


def clear(row):
    first, second = top_two(row)
    return stats.beta.sf(0.5, first + 1, second + 1) >= 0.8


def certain(row):
    counts = np.array(list(Counter(c for c in row if c >= 0).values()))
    if counts.sum() < 3:
        return False
    return 1 - stats.entropy(counts) / np.log(counts.sum()) >= 0.9


@settings(deadline=None)  # the first example compiles
@given(ROWS)
def test_names_of_answers_do_not_matter(rows) -> None:
    answer = np.array(rows)
    renamed = np.where(answer < 0, -1, 1000 - 7 * answer)
    for rule in RULES.values():
        one, other = rule(answer), rule(renamed)
        back = np.where(other.answer < 0, -1, (1000 - other.answer) // 7)
        np.testing.assert_array_equal(one.answer, back)
        np.testing.assert_array_equal(one.samples, other.samples)


@pytest.mark.parametrize("name", RULES)
def test_padding_costs_and_says_nothing(name) -> None:
    """Whatever stands in the padding; and jit of a caller changes nothing."""
    rule = RULES[name]
    found = rule(ANSWER, length=LENGTH, where=WHERE)
    answer, length = np.where(WHERE, ANSWER, 8), np.where(WHERE, LENGTH, 1)
    other = rule(answer, length=length, where=WHERE)
    jitted = jax.jit(lambda a, n, w: rule(a, length=n, where=w))(answer, length, WHERE)
    for one, two, three in zip(found, other, jitted, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)
    cut = rule(ANSWER[4:, :3], length=LENGTH[4:, :3])
    for one, two in zip(found, cut, strict=True):
        assert one[4] == two[0]


@pytest.mark.parametrize("name", ["early_stopping", "adaptive", "certaindex"])
def test_stopping_saves_and_never_adds(name) -> None:
    rng = np.random.default_rng(0)
    answer = np.where(rng.random((200, 20)) < 0.7, 3, rng.integers(0, 5, (200, 20)))
    found, full = RULES[name](answer), voting.majority_vote(answer)
    assert (found.samples <= full.samples).all()
    assert found.samples.mean() < 0.7 * 20
    assert (found.answer == full.answer).mean() > 0.85


@pytest.mark.parametrize(
    ("probability", "window", "limit"),
    [([0.6, 0.3], 3, 12), ([0.25] * 4, 2, 20), ([1.0], 5, 40), ([0.1], 2, 4)],
)
def test_expected_samples_against_simulation(probability, window, limit) -> None:
    """The closed form as printed, and 20,000 questions; the rest is no answer."""
    p = np.array(probability)
    found = float(voting.esc_expected_samples(p, window=window, limit=limit))
    q, n = (p**window).sum(), limit // window
    printed = sum(q * (1 - q) ** i * (i + 1) for i in range(n - 1))
    assert found == pytest.approx(window * (printed + (1 - q) ** (n - 1) * n), rel=1e-5)
    rng = np.random.default_rng(0)
    codes = rng.choice([*range(len(p)), -1], (20_000, limit), p=[*p, 1 - p.sum()])
    used = np.asarray(voting.early_stopping(codes, window=window).samples)
    error = used.std() / np.sqrt(len(used))
    assert abs(used.mean() - found) <= 4 * error + 1e-4


def test_the_authors_package_stops_at_the_same_samples() -> None:
    package = pytest.importorskip("adaptive_consistency")
    rng = np.random.default_rng(1)
    answer = rng.choice(4, (40, 15), p=[0.6, 0.2, 0.1, 0.1])
    found = voting_adaptive.adaptive_consistency(answer)
    rule = package.AC(max_gens=15, stop_criteria=package.BetaStoppingCriteria(0.95))
    for row, code, used in zip(answer, found.answer, found.samples, strict=True):
        seen = [int(x) for x in row]
        ends = (n for n in range(1, 16) if rule.should_stop(seen[:n]))
        assert used == next(ends, 15)
        assert code == Counter(seen[: int(used)]).most_common(1)[0][0]


def test_fold() -> None:
    group = np.array(["b", "a", "b", "b"])
    folded = fold(group, np.arange(4), np.array([0.5, 1.5, 2.5, 3.5]))
    assert folded.group.tolist() == ["b", "a"]
    assert folded.where.tolist() == [[True, True, True], [True, False, False]]
    assert folded.arrays[0].tolist() == [[0, 2, 3], [1, 0, 0]]
    assert folded.arrays[1].dtype == float
    with pytest.raises(ValueError, match="group: expected one a sample"):
        fold(np.array([]))
    with pytest.raises(ValueError, match="array 1: expected 4 values as in group"):
        fold.__wrapped__(group, np.arange(4), np.arange(3))
    with pytest.raises(ValueError, match=r"group: expected the question .* got NaN"):
        fold(np.array([1.0, np.nan, np.nan]), np.arange(3))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"answer": np.zeros((0, 3), int)}, ValueError, r"\[questions, samples\]"),
        ({"answer": np.zeros((1, 3))}, TypeError, "answer: expected integer codes"),
        (
            {"answer": [["7", "8"]]},
            TypeError,
            "answer: expected integer codes, got <U1",
        ),
        ({"answer": np.full((1, 2), -2)}, ValueError, "at least -1, got -2"),
        ({"answer": np.array([[0, 2**32]])}, ValueError, "below 2.31, got 4294967296"),
        ({"where": np.ones((2, 3))}, TypeError, "where: expected a bool array"),
        ({"where": np.ones((1, 3), bool)}, ValueError, r"where: expected shape \(2, 3"),
        (
            {"where": np.eye(2, 3, k=1, dtype=bool)},
            ValueError,
            "where: expected padding",
        ),
        ({"length": np.full((2, 3), np.nan)}, ValueError, "length: .* got nan"),
        ({"length": np.full((2, 3), -1)}, ValueError, "length: .* got -1"),
    ],
)
def test_refused(options, error, message) -> None:
    arguments = {"answer": np.zeros((2, 3), int), "where": None} | options
    with pytest.raises(error, match=message):
        check_votes.__wrapped__(**arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: voting.early_stopping(a, window=0), "window: expected at least 1"),
        (
            lambda a: voting_adaptive.adaptive_consistency(a, threshold=0.5),
            r"threshold: expected a number in \(0.5, 1\), got 0.5",
        ),
        (
            lambda a: voting_adaptive.certaindex_stopping(a, threshold=0),
            "threshold: expected a number in",
        ),
        (
            lambda a: voting_adaptive.certaindex_stopping(a, least=1),
            "least: expected at least 2 answers",
        ),
        (
            lambda a: voting_parallel.short_m_of_k(a, finish=0),
            "finish: expected at least 1 answer",
        ),
        (
            lambda a: voting.esc_expected_samples(jnp.ones(1), window=3, limit=10),
            "limit: expected a multiple of window = 3, got 10",
        ),
        (
            lambda a: voting.esc_expected_samples(jnp.ones(2), window=1, limit=1),
            "probability: expected numbers of at least 0 with a sum of at most 1",
        ),
    ],
)
def test_options_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call(ANSWER)
