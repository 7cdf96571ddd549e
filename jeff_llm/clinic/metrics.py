"""How well picks agree with the evidence and its order.

Functions of one maze; `jax.vmap` them over many. Picks and gold are places in the list
of sentences. Both may be padded with -1 at the end, so that mazes of different lengths
fit into one array; the two widths may differ.

References:
  Liu et al., "Dialogue is Better Than Monologue: Instructing Medical LLMs via
  Strategical Conversations", 2025 (arXiv 2501.17860; POS, ADJ).
"""

from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

__all__ = ["adjacency_score", "order_tau", "position_score", "set_f1"]

Picks: TypeAlias = Integer[Array | np.ndarray, " picks"]
Gold: TypeAlias = Integer[Array | np.ndarray, " gold"]
Scalar: TypeAlias = Float[Array, ""]


def position_score(picks: Picks, gold: Gold) -> Scalar:
    """Share of positions with the right pick (POS).

    ``sum_i 1[picks_i = gold_i] / n`` over the ``n`` positions of the gold order. A
    position without a pick is wrong.

    Args:
      picks: chosen places, each at most once, int, -1 at the end where there is none.
      gold: right places in their order, int, -1 at the end where there is none.

    Returns:
      The share, in [0, 1]; NaN if gold is empty.

    Raises:
      TypeError: if an argument is not an integer array.
      ValueError: if an argument is not a vector.

    References:
      Liu et al., 2025 (arXiv 2501.17860).

    >>> position_score(jnp.array([4, 0, 2]), jnp.array([4, 2, 0])).round(4)
    Array(0.3333, dtype=float32)
    """
    _check(picks=picks, gold=gold)
    width = min(len(picks), len(gold))
    picks, gold = jnp.asarray(picks), jnp.asarray(gold)
    right = (picks[:width] == gold[:width]) & (gold[:width] >= 0)
    return right.sum() / (gold >= 0).sum()


def adjacency_score(picks: Picks, gold: Gold) -> Scalar:
    """Share of neighbours in the gold order that are neighbours in the picks (ADJ).

    Of the ``n - 1`` pairs ``(gold_i, gold_i+1)``, those of which the second is picked
    directly after the first. The direction counts: reversed neighbours are none.

    Args:
      picks: as in `position_score`.
      gold: as in `position_score`.

    Returns:
      The share, in [0, 1]; NaN if gold has fewer than two places, since there is then
      no pair.

    Raises:
      TypeError: if an argument is not an integer array.
      ValueError: if an argument is not a vector.

    References:
      Liu et al., 2025 (arXiv 2501.17860).

    >>> adjacency_score(jnp.array([2, 0, 4]), jnp.array([4, 2, 0]))
    Array(0.5, dtype=float32)
    """
    _check(picks=picks, gold=gold)
    place, found = _found(picks, gold)
    follows = found[:-1] & found[1:] & (place[1:] == place[:-1] + 1)
    # A single place has no pair: 0 / 0 is the NaN that is meant.
    return follows.sum() / jnp.maximum((jnp.asarray(gold) >= 0).sum() - 1, 0)


def set_f1(picks: Picks, gold: Gold) -> Scalar:
    """F1 of the picks as a set, whatever their order.

    ``2 |picks and gold| / (|picks| + |gold|)``.

    Args:
      picks: as in `position_score`.
      gold: as in `position_score`.

    Returns:
      F1, in [0, 1]; NaN if both are empty.

    Raises:
      TypeError: if an argument is not an integer array.
      ValueError: if an argument is not a vector.

    >>> set_f1(jnp.array([2, 4, 7, -1]), jnp.array([4, 2, 0])).round(4)
    Array(0.6667, dtype=float32)
    """
    _check(picks=picks, gold=gold)
    _, found = _found(picks, gold)
    sizes = (jnp.asarray(picks) >= 0).sum() + (jnp.asarray(gold) >= 0).sum()
    return 2 * found.sum() / sizes


def order_tau(picks: Picks, gold: Gold) -> Scalar:
    """Kendall's tau of the picks over all pairs of the gold order.

    A pair counts +1 if it was picked in its order, -1 if in the other, and 0 if one of
    the two was not picked; the sum is divided by all ``n (n - 1) / 2`` pairs. So
    evidence that is missed costs as much as evidence in random order.

    Args:
      picks: as in `position_score`.
      gold: as in `position_score`.

    Returns:
      Tau, in [-1, 1]; NaN if gold has fewer than two places.

    Raises:
      TypeError: if an argument is not an integer array.
      ValueError: if an argument is not a vector.

    References:
      Kendall, "A New Measure of Rank Correlation", 1938.

    >>> order_tau(jnp.array([0, 2, 4]), jnp.array([4, 2, 0]))
    Array(-1., dtype=float32)
    """
    _check(picks=picks, gold=gold)
    place, found = _found(picks, gold)
    signs = jnp.sign(place[None, :] - place[:, None])
    both = found[None, :] & found[:, None]
    number = (jnp.asarray(gold) >= 0).sum()
    return jnp.triu(signs * both, 1).sum() / (number * (number - 1) // 2)


def _found(
    picks: Picks, gold: Gold
) -> tuple[Integer[Array, " gold"], Bool[Array, " gold"]]:
    """Where among the picks each gold place is, and whether it is there."""
    picks, gold = jnp.asarray(picks), jnp.asarray(gold)
    same = (gold[:, None] == picks[None, :]) & (gold[:, None] >= 0)
    # Not argmax: it has no value for an empty vector of picks.
    return (same * jnp.arange(len(picks))).sum(1), same.any(1)


def _check(**vectors: Array | np.ndarray) -> None:
    for name, vector in vectors.items():
        if not jnp.issubdtype(jnp.result_type(vector), jnp.integer):
            raise TypeError(
                f"{name}: expected an integer array, got {jnp.result_type(vector)}"
            )
        if jnp.ndim(vector) != 1:
            raise ValueError(
                f"{name}: expected a vector, got shape {jnp.shape(vector)}; jax.vmap it"
            )
