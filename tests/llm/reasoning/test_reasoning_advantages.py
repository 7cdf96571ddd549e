"""Test advantages: by hand, against loops, at the edges, and the samples kept."""

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given, settings

from jeff_llm.reasoning import advantages

# Two prompts, interleaved, and one of a single sample.
GROUP = np.array([5, 2, 5, 2, 5, 9, 5])
REWARD = np.array([1.0, 3.0, 0.0, 3.0, 0.0, 7.0, 1.0])


def test_grpo_by_hand() -> None:
    found = advantages.group_normalised(REWARD, GROUP, epsilon=0.0)
    np.testing.assert_allclose(found, [1, 0, -1, 0, -1, 0, 1], atol=1e-6)
    plain = advantages.group_normalised(REWARD, GROUP, scale=False)
    np.testing.assert_allclose(plain, [0.5, 0, -0.5, 0, -0.5, 0, 0.5], atol=1e-6)


def test_rloo_by_hand() -> None:
    found = advantages.leave_one_out(REWARD, GROUP)
    # 1 - (0 + 0 + 1) / 3 and 0 - (1 + 0 + 1) / 3; a group of one has no baseline.
    np.testing.assert_allclose(
        found, [2 / 3, 0, -2 / 3, 0, -2 / 3, 0, 2 / 3], atol=1e-6
    )


def test_batch_by_hand() -> None:
    reward = np.array([1.0, 3.0, 0.0, 9.0, 0.0, 7.0, 1.0])
    found = advantages.batch_normalised(reward, GROUP, epsilon=0.0)
    centred = np.array([0.5, -3, -0.5, 3, -0.5, 0, 0.5])
    scale = np.sqrt((4 * 0.25 + 2 * 9) / 6)
    np.testing.assert_allclose(found.advantage, centred / scale, rtol=1e-6)
    assert found.kept.tolist() == [True] * 5 + [False, True]


def test_groups_without_spread_do_not_dilute_the_batch() -> None:
    """As many solved prompts as you like: the advantages of the others stay."""
    alone = advantages.batch_normalised(np.array([1.0, 0.0]), np.array([0, 0]))
    padded = advantages.batch_normalised(
        np.concatenate([[1.0, 0.0], np.full(30, 0.1)]),
        np.concatenate([[0, 0], np.repeat(np.arange(1, 11), 3)]),
    )
    np.testing.assert_array_equal(padded.advantage[:2], alone.advantage)
    assert not padded.advantage[2:].any() and not padded.kept[2:].any()


ALL = {
    "grpo": advantages.group_normalised,
    "dr_grpo": lambda r, g: advantages.group_normalised(r, g, scale=False),
    "rloo": advantages.leave_one_out,
    "dler": lambda r, g: advantages.batch_normalised(r, g).advantage,
    "gfpo": lambda r, g: advantages.group_normalised(
        r, g, where=advantages.gfpo_keep(r + 1, g, keep=2)
    ),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
def test_equal_rewards_have_no_advantage(name, value) -> None:
    """All wrong, all right, or all the same score; also in a group of one."""
    found = ALL[name](np.full(4, value), np.array([0, 0, 0, 1]))
    np.testing.assert_array_equal(found, 0)


@jax.jit
def jitted(reward, group):
    return {name: advantage(reward, group) for name, advantage in ALL.items()}


@settings(deadline=None)  # the first example compiles
@given(
    st.lists(st.integers(-3, 3), min_size=6, max_size=6),
    st.lists(st.integers(-2, 1), min_size=6, max_size=6),
)
def test_against_loops(reward, group) -> None:
    reward, group = np.array(reward, float), np.array(group)
    found = jitted(reward + 3, group)
    grpo, rloo, kept = np.zeros(6), np.zeros(6), []
    for name in np.unique(group):
        (place,) = np.nonzero(group == name)
        rows = reward[place]
        grpo[place] = (rows - rows.mean()) / (rows.std() + 1e-6)
        for one in place:
            others = place[place != one]
            rloo[one] = reward[one] - reward[others].mean() if len(others) else 0
        kept += list(place) if rows.std() else []
    np.testing.assert_allclose(found["grpo"], grpo, atol=1e-4)
    np.testing.assert_allclose(found["rloo"], rloo, atol=1e-5)
    for advantage in found.values():
        for name in np.unique(group):
            assert abs(advantage[group == name].sum()) < 1e-4
    if kept:
        assert np.std(found["dler"][np.array(kept)]) == pytest.approx(1, abs=1e-4)


def test_the_shortest_are_kept() -> None:
    length = np.array([4, 1, 2, 1, 2, 8, 2])
    found = advantages.gfpo_keep(length, GROUP, keep=2)
    # Three samples of prompt 5 tie at 2 tokens: the first two of them are kept.
    assert found.tolist() == [False, True, True, True, True, True, False]
    one = advantages.gfpo_keep(length, GROUP, keep=1)
    assert one.tolist() == [False, True, True, False, False, True, False]


def test_the_most_reward_per_token_is_kept() -> None:
    length, group = np.array([10, 4, 0, 5]), np.zeros(4, int)
    reward = np.array([1.0, 1.0, 0.1, 0.0])
    found = advantages.gfpo_keep(
        length, group, keep=2, by="reward_per_token", reward=reward
    )
    # 0.1, 0.25, 0.1 (no token counts as one) and 0: the earlier of the tie is kept.
    assert found.tolist() == [True, True, False, False]


def test_advantages_over_the_samples_kept() -> None:
    reward, group = np.array([1.0, 0.0, 5.0]), np.zeros(3, int)
    kept = np.array([True, True, False])
    found = advantages.group_normalised(reward, group, where=kept, epsilon=0)
    assert found.tolist() == [1, -1, 0]
    alone = advantages.group_normalised(reward[:2], group[:2], epsilon=0)
    np.testing.assert_array_equal(found[:2], alone)


@settings(deadline=None)  # the first example compiles
@given(
    st.lists(st.integers(0, 5), min_size=8, max_size=8),
    st.lists(st.integers(0, 2), min_size=8, max_size=8),
    st.integers(1, 4),
)
def test_exactly_as_many_are_kept(length, group, keep) -> None:
    length, group = np.array(length), np.array(group)
    found = np.asarray(advantages.gfpo_keep(length, group, keep=keep))
    for name in np.unique(group):
        (place,) = np.nonzero(group == name)
        order = place[np.argsort(length[place], kind="stable")]
        assert set(place[found[place]]) == set(order[:keep])


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "dler"])
def test_nan_rewards_are_not_hidden(name) -> None:
    """Under jit no value can be refused: it must not become an advantage of 0."""
    reward = np.array([1.0, np.nan, 0.0, 1.0])
    found = jax.jit(ALL[name])(reward, np.array([0, 0, 1, 1]))
    assert np.isnan(found[:2]).all()
    with pytest.raises(ValueError, match="reward: expected finite numbers"):
        ALL[name](reward, np.array([0, 0, 1, 1]))


@pytest.mark.parametrize(
    "call", [advantages.group_normalised, advantages.batch_normalised]
)
def test_epsilon_is_not_negative(call) -> None:
    for value in (-1.0, np.nan):
        with pytest.raises(
            ValueError, match=f"epsilon: expected at least 0, got {value}"
        ):
            call(REWARD, GROUP, epsilon=value)


def test_a_mask_is_bool() -> None:
    with pytest.raises(TypeError, match="where: expected a bool array, got int"):
        advantages.group_normalised(REWARD, GROUP, where=GROUP)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0}, "keep: expected at least 1 sample, got 0"),
        ({"keep": 1, "by": "luck"}, "by: expected one of"),
        ({"keep": 1, "by": "reward_per_token"}, "reward: expected one number a sample"),
    ],
)
def test_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        advantages.gfpo_keep(np.array([1]), np.array([0]), **options)
