"""Test the metrics of picks: values by hand, identities, padding, refusals."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jeff_llm.clinic.metrics import (
    adjacency_score,
    order_tau,
    position_score,
    set_f1,
)

METRICS = (position_score, adjacency_score, set_f1, order_tau)
WIDTH = 8


def padded(places, width=WIDTH):
    return np.array([*places, *[-1] * (width - len(places))], np.int32)


@jax.jit
def all_four(picks, gold):
    return jnp.stack([metric(picks, gold) for metric in METRICS])


@pytest.mark.parametrize(
    ("picks", "gold", "expected"),
    [
        # position, adjacency, F1, tau
        ([3, 1, 4], [3, 1, 4], [1, 1, 1, 1]),
        ([4, 1, 3], [3, 1, 4], [1 / 3, 0, 1, -1]),
        ([1, 4, 3], [3, 1, 4], [0, 1 / 2, 1, -1 / 3]),
        # 0 is a distractor: of the pairs only (3, 4) was picked.
        ([3, 0, 4], [3, 1, 4], [2 / 3, 0, 2 / 3, 1 / 3]),
        ([3, 1], [3, 1, 4], [2 / 3, 1 / 2, 4 / 5, 1 / 3]),
        ([7, 6, 5], [3, 1, 4], [0, 0, 0, 0]),
        ([], [3, 1, 4], [0, 0, 0, 0]),
        ([2], [2], [1, np.nan, 1, np.nan]),
        ([0], [2], [0, np.nan, 0, np.nan]),
        ([2, 3, 0, 1], [0, 1, 2, 3], [0, 2 / 3, 1, -1 / 3]),
    ],
)
def test_by_hand(picks, gold, expected):
    found = all_four(padded(picks), padded(gold))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@given(st.permutations(range(WIDTH)), st.integers(1, WIDTH))
def test_perfect_and_reversed_orders(order, size):
    gold = order[:size]
    perfect = all_four(padded(gold), padded(gold))
    np.testing.assert_array_equal(perfect[::2], 1)
    np.testing.assert_array_equal(perfect[1::2], 1 if size > 1 else np.nan)
    turned = all_four(padded(gold[::-1]), padded(gold))
    # The middle of an odd number stays where it was.
    np.testing.assert_allclose(turned[0], (size % 2) / size, rtol=1e-6)
    if size > 1:
        np.testing.assert_array_equal(turned[1:], [0, 1, -1])


@given(
    st.permutations(range(WIDTH)),
    st.permutations(range(WIDTH)),
    st.integers(0, WIDTH),
    st.integers(2, WIDTH),
)
def test_ranges_and_names_of_places(order, other, chosen, size):
    """Values stay in range, and do not change when all sentences are renumbered."""
    picks, gold = other[:chosen], order[:size]
    found = np.asarray(all_four(padded(picks), padded(gold)))
    assert (found >= [0, 0, 0, -1]).all() and (found <= 1).all()
    hits = len(set(picks) & set(gold))
    np.testing.assert_allclose(found[2], 2 * hits / (chosen + size), rtol=1e-6)
    assert abs(found[3]) <= hits * (hits - 1) / (size * (size - 1)) + 1e-6
    renamed = all_four(
        padded([order[each] for each in picks]), padded([order[each] for each in gold])
    )
    np.testing.assert_array_equal(found, renamed)


def test_padding_jit_and_vmap_change_nothing():
    picks, gold = [5, 0, 2], [0, 2, 7, 1]
    loose = [metric(np.array(picks), np.array(gold)) for metric in METRICS]
    np.testing.assert_allclose(loose, all_four(padded(picks), padded(gold)), rtol=1e-6)
    rows = np.stack([padded(picks), padded(gold)])
    both = jax.vmap(all_four)(rows, np.stack([padded(gold)] * 2))
    np.testing.assert_allclose(both, [loose, np.ones(4)], rtol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_refusals(metric):
    """As a user sees them, whose types are not checked."""
    plain, right = inspect.unwrap(metric), np.array([0, 1])
    with pytest.raises(TypeError, match="picks: expected an integer array, got float"):
        plain(np.array([0.0, 1.0]), right)
    with pytest.raises(
        ValueError, match=r"gold: expected a vector, got shape \(1, 2\)"
    ):
        plain(right, right[None])
