"""Test length rewards: by hand on groups of four, bounds, monotonicity, numpy, jit."""

import functools
import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jeff_llm.reasoning import advantages, rewards, rewards_budget, rewards_target
from jeff_llm.reasoning.groups import check_samples

# Two prompts of four, interleaved: the first with lengths 10, 20, 30, 40 and the two
# shortest right; the second all wrong.
GROUP = np.array([7, -1, 7, -1, 7, -1, 7, -1])
CORRECT = np.array([True, False, True, False, False, False, False, False])
LENGTH = np.array([10, 5, 20, 5, 30, 5, 40, 5])
FIRST = GROUP == 7


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


# Every reward as a function of (correct, length, group), and what the first prompt's
# four samples and the second's earn, worked by hand.
BY_HAND = {
    "arora_zanette": (
        rewards.arora_zanette,  # mean 15, standard deviation 5 of the right ones
        [1 - 0.1 * sigmoid(-1), 1 - 0.1 * sigmoid(1), 0, 0],
        [0, 0, 0, 0],
    ),
    "o1_pruner": (
        lambda c, n, g: rewards.o1_pruner(
            c, n, reference_length=2.0 * n, reference_correct=0 * n + 0.25
        ),
        [1 + 2 * 0.75, 1 + 2 * 0.75, 1 - 0.5, 1 - 0.5],
        [0.5, 0.5, 0.5, 0.5],
    ),
    "kimi": (rewards.kimi, [0.5, 1 / 6, -1 / 6, -0.5], [0, 0, 0, 0]),
    "cosine": (
        lambda c, n, g: rewards.cosine(c, n, max_length=40),
        [
            1 + (1 + math.cos(math.pi / 4)) / 2,
            1.5,
            -5 * (1 + math.cos(3 * math.pi / 4)),
            -10,  # at the limit
        ],
        [-5 * (1 + math.cos(math.pi / 8))] * 4,
    ),
    "adaptive_length_penalty": (
        functools.partial(rewards.adaptive_length_penalty, scale=0.01),
        [1 - 0.05, 1 - 0.1, -0.15, -0.2],  # solve rate 1/2
        [-0.0125] * 4,  # never solved: 1/4 instead
    ),
    "l1_exact": (
        lambda c, n, g: rewards_target.l1_exact(c, n, target=25, scale=0.01),
        [0.85, 0.95, -0.05, -0.15],
        [-0.2] * 4,
    ),
    "l1_max": (
        lambda c, n, g: rewards_target.l1_max(c, n, target=15, scale=0.02),
        [0.6, 0.4, 0, 0],
        [0] * 4,
    ),
    "laser": (
        lambda c, n, g: rewards_target.laser(c, n, target=15),
        [1.5, 1, 0, 0],
        [0] * 4,
    ),
    "soft_overlong": (
        lambda c, n, g: rewards_budget.soft_overlong(n, max_length=35, buffer=10),
        [0, 0, -0.5, -1],
        [0] * 4,
    ),
    "dast": (
        # Budgets 0.5 * 15 + 0.5 * 65 = 40, and 65 where none is right.
        lambda c, n, g: rewards_budget.dast(c, n, g, max_length=65),
        [0.5 + 0.5 * 0.75, 0.5 + 0.5 * 0.5, -0.9 * 0.25 - 0.1, -0.1],
        [-0.9 * 60 / 65 - 0.1] * 4,
    ),
    "truncation": (
        lambda c, n, g: rewards_budget.truncation(c, n, limit=15),
        [1, 0, 0, 0],
        [0] * 4,
    ),
    "thinkprune": (
        lambda c, n, g: rewards_budget.thinkprune(c, n, stage=1, limits=(50, 20)),
        [1, 1, 0, 0],
        [0] * 4,
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name) -> None:
    """Numpy arrays in, one prompt's samples apart from each other."""
    reward, first, second = BY_HAND[name]
    found = reward(CORRECT, LENGTH, GROUP)
    np.testing.assert_allclose(found[FIRST], first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[~FIRST], second, rtol=1e-5, atol=1e-6)


def test_all_in_one_jit() -> None:
    @jax.jit
    def run(correct, length, group):
        return {n: row[0](correct, length, group) for n, row in BY_HAND.items()}

    found = run(CORRECT, LENGTH, GROUP)
    for name, (_, first, second) in BY_HAND.items():
        both = np.zeros(8)
        both[FIRST], both[~FIRST] = first, second
        np.testing.assert_allclose(found[name], both, rtol=1e-5, atol=1e-6)


SIZE = 6
SAMPLES = st.tuples(
    st.lists(st.booleans(), min_size=SIZE, max_size=SIZE),
    st.lists(st.integers(0, 200), min_size=SIZE, max_size=SIZE),
    st.lists(st.integers(0, 2), min_size=SIZE, max_size=SIZE),
)
BOUNDS = {
    "arora_zanette": (0, 1),
    "o1_pruner": (-3, np.inf),
    "kimi": (-0.5, 0.5),
    "cosine": (-10, 2),
    "adaptive_length_penalty": (-np.inf, 1),
    "l1_exact": (-np.inf, 1),
    "l1_max": (0, 1),
    "laser": (0, 1.5),
    "soft_overlong": (-1, 0),
    "dast": (-1, 1),
    "truncation": (0, 1),
    "thinkprune": (0, 1),
}


@jax.jit
def all_rewards(correct, length, group):
    return {name: row[0](correct, length, group) for name, row in BY_HAND.items()}


@settings(deadline=None)  # the first example compiles
@given(SAMPLES)
def test_bounds(samples) -> None:
    found = all_rewards(*map(np.array, samples))
    for name, (low, high) in BOUNDS.items():
        values = np.asarray(found[name])
        assert np.isfinite(values).all(), name
        assert (values >= low - 1e-5).all() and (values <= high + 1e-5).all(), name


# A longer right answer never earns more; "l1_exact" wants a length, not brevity.
SHORTER_IS_BETTER = set(BY_HAND) - {"l1_exact"}


@settings(deadline=None)  # the first example compiles
@given(SAMPLES)
def test_right_answers_of_one_prompt_never_gain_by_length(samples) -> None:
    correct, length, group = map(np.array, samples)
    found = all_rewards(correct, length, group)
    for one in range(SIZE):
        for other in range(SIZE):
            same = group[one] == group[other] and correct[one] and correct[other]
            if same and length[one] < length[other]:
                for name in SHORTER_IS_BETTER - {"o1_pruner"}:  # its reference differs
                    row = np.asarray(found[name])
                    assert row[one] >= row[other] - 1e-5, name


@settings(deadline=None)  # the first example compiles
@given(st.integers(0, 39), st.integers(0, 39))
def test_wrong_answers_gain_by_thinking(one, other) -> None:
    """The cosine and DAST pay a wrong answer for the tokens that it spends."""
    short, long = sorted((one, other))
    wrong, length = np.zeros(2, bool), np.array([short, long])
    for found in (
        rewards.cosine(wrong, length, max_length=40),
        rewards_budget.dast(wrong, length, np.zeros(2, int), max_length=40),
    ):
        assert found[0] <= found[1] + 1e-6


def test_unfinished_samples() -> None:
    finished = np.array([True, True, False, True, True, True, True, True])
    found = rewards.arora_zanette(CORRECT, LENGTH, GROUP, finished=finished)
    # The other right answer is now alone: it is its own mean.
    np.testing.assert_allclose(found[FIRST], [0.95, 0, 0, 0], rtol=1e-6)
    found = rewards.cosine(CORRECT, LENGTH, max_length=400, finished=finished)
    assert found[2] == -10 and found[0] > 1.9
    found = rewards_budget.truncation(CORRECT, LENGTH, limit=25, finished=finished)
    assert found.tolist() == [1, 0, 0, 0, 0, 0, 0, 0]


def test_groups_of_one_and_zero_lengths() -> None:
    one, zero, prompt = np.array([True]), np.array([0]), np.array([3])
    assert rewards.kimi(one, zero, prompt) == 0
    assert rewards.arora_zanette(one, zero, prompt) == pytest.approx(0.95)
    assert rewards_budget.dast(one, zero, prompt, max_length=10) == pytest.approx(0.5)
    assert rewards.adaptive_length_penalty(one, zero, prompt, scale=1.0) == 1
    reference = {"reference_length": np.array([8.0]), "reference_correct": one * 1.0}
    assert rewards.o1_pruner(one, zero, **reference) == 7


def test_a_score_lies_between_wrong_and_right() -> None:
    length, group = np.array([10, 30]), np.array([0, 0])
    for reward in (
        lambda c: rewards.kimi(c, length, group),
        lambda c: rewards.cosine(c, length, max_length=40),
    ):
        wrong, right = reward(np.zeros(2)), reward(np.ones(2))
        np.testing.assert_allclose(reward(np.full(2, 0.25)), 0.75 * wrong + right / 4)


def test_equal_lengths_cost_half_whatever_the_scores() -> None:
    """A weighted mean of equal lengths rounds; that is no deviation."""
    rng = np.random.default_rng(0)
    score, group = rng.random(60), np.repeat(np.arange(30), 2)
    length = np.repeat(rng.integers(1, 30_000, 30), 2)
    found = rewards.arora_zanette(score, length, group, scale=0.4)
    np.testing.assert_allclose(found, score * 0.8, rtol=1e-6)


@pytest.mark.parametrize(
    "reward", [rewards.arora_zanette, rewards.kimi, rewards_budget.dast]
)
def test_nan_stays_nan_where_values_cannot_be_checked(reward) -> None:
    options = {"max_length": 9} if reward is rewards_budget.dast else {}
    length, group = np.array([1.0, np.nan, 3.0]), np.array([0, 0, 1])
    found = jax.jit(lambda x: reward(np.ones(3), x, group, **options))(length)
    assert np.isnan(found).tolist() == [True, True, False]
    # The length of a wrong answer as well.
    found = jax.jit(lambda x: reward(np.array([1, 0, 1]), x, group, **options))(length)
    assert np.isnan(found).tolist() == [True, True, False]
    found = jax.jit(lambda x: rewards.cosine(np.ones(3), x, max_length=9))(length)
    assert np.isnan(found).tolist() == [False, True, False]


def test_a_target_for_each_sample() -> None:
    target = np.array([10, 30])
    found = rewards_target.laser(np.ones(2), np.array([20, 20]), target=target)
    assert found.tolist() == [1.0, 1.5]


def test_the_limit_falls_stage_by_stage() -> None:
    found = [float(rewards_budget.thinkprune_limit(s, (9, 6, 4))) for s in range(5)]
    assert found == [9, 6, 4, 4, 4]
    assert jax.jit(rewards_budget.thinkprune_limit)(jnp.array(2)) == 2000
    with pytest.raises(ValueError, match="limits: expected limits that fall, got"):
        rewards_budget.thinkprune_limit(0, (1, 2))
    with pytest.raises(ValueError, match="expected positive tokens a stage"):
        rewards_budget.thinkprune_limit(0, ())


def test_targets_of_laser_grow_with_difficulty() -> None:
    """Four samples a prompt: easy, medium, hard and never solved."""
    correct = np.array([1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], bool)
    group = np.repeat(np.arange(4), 4)
    length = np.array([8, 9, 18, 19] * 4)
    lengths = (10, 20, 40)
    found = rewards_target.laser_target(correct, length, group, lengths=lengths)
    # Easy: half of 4 right answers within 10. Medium: half of 2, also enough. Hard:
    # both hard prompts have 1/2 right answer each, never one: the longest.
    assert found.reshape(4, 4)[:, 0].tolist() == [10, 10, 40, 40]
    found = rewards_target.laser_target(
        correct, length, group, lengths=lengths, expected=1.5
    )
    assert found.reshape(4, 4)[:, 0].tolist() == [10, 20, 40, 40]
    unfinished = length < 15
    found = jax.jit(
        lambda c, n, g, f: rewards_target.laser_target(
            c, n, g, lengths=lengths, expected=1.5, finished=f
        )
    )(correct, length, group, unfinished)
    assert found.reshape(4, 4)[:, 0].tolist() == [10, 40, 40, 40]


def test_thirds_are_on_the_harder_side() -> None:
    """A solve rate of exactly 1/3 is hard and 2/3 medium, for any group size."""
    for count in (3, 6, 12):
        right = np.arange(2 * count) % count < np.repeat(
            [count // 3, 2 * count // 3], count
        )
        found = rewards_target.laser_target(
            right,
            np.repeat([5, 15], count),
            np.repeat([0, 1], count),
            lengths=(1, 10, 20),
            expected=1.0,
        )
        assert found[0] == 10 and found[-1] == 20


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        (
            {"correct": np.ones(2), "length": np.ones(3)},
            ValueError,
            "length: expected 2",
        ),
        ({"length": np.array([1.0, -1.0])}, ValueError, r"length: .* got -1.0 .* 1"),
        ({"length": np.array([np.nan])}, ValueError, "length: .* got nan"),
        ({"correct": np.array([2])}, ValueError, r"correct: .*\[0, 1\], got 2"),
        ({"length": np.array([])}, ValueError, "at least 1 sample, got 0"),
        ({"group": np.array([0.5])}, TypeError, "group: expected integers"),
        ({"group": np.array(["a", "a"])}, TypeError, r"got <U1; numpy.unique\(group"),
        ({"group": ["u1", None]}, TypeError, "group: expected integers .* got object"),
        ({"length": np.ones(1), "finished": np.ones(1)}, TypeError, "expected a bool"),
        ({"group": np.array([1, 2**40])}, ValueError, "32 bits, got 1099511627776"),
        ({"reward": np.array([np.inf])}, ValueError, "reward: expected finite"),
    ],
)
def test_refused(samples, error, message) -> None:
    # The function without the tests' check of shapes: what a user meets.
    with pytest.raises(error, match=message):
        check_samples.__wrapped__(**samples)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rewards.cosine(CORRECT, LENGTH, max_length=0), "max_length: expected"),
        (
            lambda: rewards_budget.dast(CORRECT, LENGTH, GROUP, max_length=-1),
            "max_length: expected positive tokens, got -1",
        ),
        (
            lambda: rewards_budget.soft_overlong(LENGTH, max_length=5, buffer=6),
            "buffer: expected tokens in",
        ),
        (
            lambda: rewards_target.laser(CORRECT, LENGTH, target=-1),
            "target: expected at least 0 tokens, got -1",
        ),
        (
            lambda: rewards_target.laser_target(CORRECT, LENGTH, GROUP, lengths=(2, 2)),
            "lengths: expected positive rising candidates",
        ),
        (
            lambda: rewards.adaptive_length_penalty(CORRECT, LENGTH, GROUP, scale=-1),
            "scale: expected at least 0",
        ),
        (
            lambda: rewards.arora_zanette(CORRECT, LENGTH, GROUP, scale=1.5),
            r"scale: expected a share in \[0, 1\], got 1.5",
        ),
        (
            lambda: rewards_target.laser(CORRECT, LENGTH, target=9, bonus=-1),
            "bonus: expected at least 0, got -1",
        ),
        (
            lambda: rewards_target.laser_target(
                CORRECT, LENGTH, GROUP, lengths=(-1, 2)
            ),
            "lengths: expected positive rising",
        ),
        (
            lambda: rewards_target.laser_target(
                CORRECT, LENGTH, GROUP, lengths=(1,), expected=np.nan
            ),
            "expected: expected a positive number, got nan",
        ),
        (
            lambda: rewards.cosine(CORRECT, LENGTH, max_length=np.nan),
            "max_length: expected positive tokens, got nan",
        ),
        (
            lambda: rewards_budget.dast(CORRECT, LENGTH, GROUP, max_length=np.nan),
            "max_length: expected positive tokens, got nan",
        ),
        (
            lambda: rewards.o1_pruner(
                CORRECT, LENGTH, reference_length=LENGTH, reference_correct=2 + LENGTH
            ),
            r"reference_correct: expected finite numbers in \[0, 1\]",
        ),
        (
            lambda: rewards.o1_pruner(
                CORRECT, LENGTH, reference_length=-1 - LENGTH, reference_correct=CORRECT
            ),
            r"reference_length: expected finite numbers in \[0, inf\]",
        ),
    ],
)
def test_options_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.usefixtures("unchecked")
def test_lists_are_taken_as_arrays() -> None:
    """As in the notebook, where nothing is annotated."""
    arrays = CORRECT, LENGTH, GROUP
    lists = [np.asarray(each).tolist() for each in arrays]
    for reward in (rewards.arora_zanette, rewards.kimi):
        np.testing.assert_array_equal(reward(*lists), reward(*arrays))
    found = advantages.group_normalised(lists[1], lists[2])
    np.testing.assert_array_equal(found, advantages.group_normalised(LENGTH, GROUP))
