"""Rates of the cells that gaps compare: people of one group, or of one label and group.

The arguments of every function of `jeff.fairness.gaps` are converted and checked here.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from jeff.as_arrays import as_array
from jeff.checks import (
    check_binary,
    check_floating,
    check_mask,
    check_same_length,
    check_weights,
)
from jeff.fairness.examples import Column, as_codes

__all__ = [
    "AxisName",
    "Flag",
    "Mask",
    "Prob",
    "Weight",
    "cell_rates",
    "prepare",
    "present",
]

Prob: TypeAlias = Float[Array, " people"] | Column
Flag: TypeAlias = Bool[Array, " people"] | Integer[Array, " people"] | Column
Mask: TypeAlias = Bool[Array, " people"] | Column
Weight: TypeAlias = Float[Array, " people"] | Column
AxisName: TypeAlias = str | tuple[str, ...]


def present(
    group: Flag, label: Flag, *, weight: Weight | None = None
) -> Bool[Array, "labels groups"]:
    """Whether each cell of a label and a group has members.

    Args:
      group: membership of the protected group, shape [people], bool or 0/1.
      label: true outcomes, shape [people], bool or 0/1.
      weight: non-negative sample weights, shape [people]; a weight of 0 is no member.

    Returns:
      Flags, shape [2, 2], indexed by label and group.

    Raises:
      ValueError: if an argument is not a vector, lengths differ, or a group or label is
        neither 0 nor 1.

    >>> present(jnp.array([0, 0]), jnp.array([0, 1]))
    Array([[ True, False],
           [ True, False]], dtype=bool)
    """
    group = as_array(group, "group")
    nothing = jnp.zeros(group.shape, jnp.float32)
    return cell_rates(nothing, group, label, None, weight, axis_name=None)[1]


def prepare(
    prob: Prob,
    group: Flag,
    label: Flag | None,
    where: Mask | None,
    weight: Weight | None,
) -> tuple[Array, Array, Array | None, Array]:
    """Convert and check arguments; masked people get weight and probability 0.

    Args:
      prob: as in `jeff.fairness.gaps.group_rates`.
      group: likewise.
      label: likewise.
      where: likewise.
      weight: likewise.

    Returns:
      ``(prob, group, label, weight)``, in at least float32, and as bool.

    Raises:
      ValueError: as there.
      TypeError: as there.
    """
    prob, group = as_array(prob, "prob"), as_array(group, "group")
    label, where, weight = (
        None if value is None else as_array(value, name)
        for name, value in (("label", label), ("where", where), ("weight", weight))
    )
    check_same_length(prob=prob, group=group, label=label, where=where, weight=weight)
    check_mask(where=where)
    group = as_codes(group, "group", where=where)
    label = None if label is None else as_codes(label, "label", where=where)
    if weight is not None and jnp.issubdtype(weight.dtype, jnp.integer):
        weight = weight.astype(jnp.float32)  # weights of a survey are often whole
    check_floating(prob=prob, weight=weight)
    check_binary(where, group=group, label=label)
    check_weights(where, weight=weight)
    dtype = jnp.promote_types(prob.dtype, jnp.float32)
    prob = prob.astype(dtype)
    weight = jnp.ones_like(prob) if weight is None else weight.astype(dtype)
    if where is not None:
        # The weight alone would not do, since 0 times NaN is NaN.
        prob, weight = jnp.where(where, prob, 0), jnp.where(where, weight, 0)
    label = None if label is None else label.astype(bool)
    return prob, group.astype(bool), label, weight


def cell_rates(
    prob: Prob,
    group: Flag,
    label: Flag | None,
    where: Mask | None,
    weight: Weight | None,
    *,
    axis_name: AxisName | None,
) -> tuple[Float[Array, "*cells"], Bool[Array, "*cells"]]:
    """Rate of each cell, and whether it has members; cells are (label,) group.

    Args:
      prob: as in `jeff.fairness.gaps.group_rates`.
      group: likewise.
      label: likewise.
      where: likewise.
      weight: likewise.
      axis_name: likewise.

    Returns:
      ``(rates, present)``, of shape [2] or [2, 2]; an empty cell has rate 0.

    Raises:
      ValueError: as there.
      TypeError: as there.
    """
    prob, group, label, weight = prepare(prob, group, label, where, weight)
    member = jnp.stack([~group, group])
    if label is not None:
        member = jnp.stack([~label, label])[:, None] & member[None]
    total = jnp.sum(jnp.where(member, weight * prob, 0), axis=-1)
    count = jnp.sum(jnp.where(member, weight, 0), axis=-1)
    if axis_name is not None:
        # Add before dividing: the mean of the rates of the parts is not the rate of
        # the whole batch.
        total, count = jax.lax.psum((total, count), axis_name)
    # Replace the divisor as well: 0 / 0 would make the gradient NaN even where the
    # outer where discards the value.
    present = count > 0
    return jnp.where(present, total / jnp.where(present, count, 1), 0), present
