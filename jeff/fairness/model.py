"""Binary classifiers on a line in weight space, and their predictions.

A network is a function ``apply_fn(params, inputs) -> logits`` with a pytree of
parameters, from any library. Two such pytrees make a `Line`.
"""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Shaped

from jeff import line as lines
from jeff.as_arrays import as_array
from jeff.calls import call
from jeff.fairness import gaps
from jeff.fairness.examples import (
    Column,
    Examples,
    as_examples,
    as_inputs,
)

__all__ = [
    "GAPS",
    "ApplyFn",
    "Examples",
    "GapFn",
    "Line",
    "error_and_gap",
    "gap_of",
    "named_gap",
    "predict",
    "predict_each",
    "weighted_mean",
]

ApplyFn: TypeAlias = Callable[..., Float[Array, " people"]]
GapFn: TypeAlias = Callable[..., Float[Array, ""]]

# Gaps by name; a gap is any differentiable function of (prob, group, label), and of
# weight= where people have weights.
GAPS: dict[str, GapFn] = {
    "demographic_parity": lambda prob, group, label, **options: (
        gaps.demographic_parity_gap(prob, group, **options)
    ),
    "equal_opportunity": gaps.equal_opportunity_gap,
    "equalized_odds": gaps.equalized_odds_gap,
}


class Line(NamedTuple):
    """A trained family of models: the parameters at its two ends.

    Invariant: both pytrees have the same structure, shapes and dtypes.

    Attributes:
      start: parameters of the accurate end, alpha = 0.
      end: parameters of the fair end, alpha = 1.
    """

    start: PyTree
    end: PyTree


def error_and_gap(
    apply_fn: ApplyFn,
    params: PyTree,
    batch: Examples,
    *,
    gap: str | GapFn,
    key: PRNGKeyArray | None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean cross-entropy and soft gap of one model on one batch.

    Both are weighted where the people have weights.

    Args:
      apply_fn: as in `call`.
      params: parameters of one model.
      batch: the people.
      gap: a name in `GAPS`, or a function of (prob, group, label), and of ``weight=``
        where the people have weights.
      key: as in `call`.

    Returns:
      ``(error, gap)``, scalars; the error in nats.

    Raises:
      ValueError: if the logits are not [people], the gap's name is unknown, a gap that
        takes no weights would need them, or as `jeff.fairness.examples.as_examples`.
    """
    batch = as_examples(batch)
    logit = call(apply_fn, params, batch.inputs, key)
    if logit.shape != batch.label.shape:
        raise ValueError(
            f"apply_fn: expected one logit a person, shape {batch.label.shape}, got "
            f"{logit.shape}; squeeze the last axis of a network with one output"
        )
    label = batch.label.astype(logit.dtype)
    # Computed from logits: the logarithm of a saturated sigmoid would be infinite.
    each = optax.sigmoid_binary_cross_entropy(logit, label)
    value = gap_of(gap, jax.nn.sigmoid(logit), batch.group, batch)
    return weighted_mean(each, batch.weight), value


def weighted_mean(
    values: Float[Array, " people"], weight: Float[Array, " people"] | None
) -> Float[Array, ""]:
    """Mean over people, weighted where there are weights.

    Args:
      values: a number a person.
      weight: weight of each person, or None.

    Returns:
      ``sum(w v) / sum(w)``; 0 where all weights are 0, as in an unlucky batch.
    """
    if weight is None:
        return values.mean()
    total = weight.sum()
    return (weight * values).sum() / jnp.where(total > 0, total, 1)


def gap_of(
    gap: str | GapFn,
    prob: Float[Array, " people"],
    group: Shaped[Array, " people"],
    batch: Examples,
) -> Float[Array, ""]:
    """A gap of probabilities, weighted where the people have weights.

    Args:
      gap: a name in `GAPS`, or a function of (prob, group, label).
      prob: probability of the favourable outcome.
      group: the groups, which may be one column of several in ``batch``.
      batch: the people.

    Returns:
      The gap.

    Raises:
      ValueError: if the name is unknown, or the function takes no weights and the
        people have some.
    """
    gap_fn = gap if callable(gap) else named_gap(gap)
    if batch.weight is None:
        return gap_fn(prob, group, batch.label)
    if callable(gap) and not _takes(gap, "weight"):
        raise ValueError(
            "gap: expected a function with a parameter weight, since the people have "
            "weights, got one without; add it, or leave out Examples.weight"
        )
    return gap_fn(prob, group, batch.label, weight=batch.weight)


def _takes(function: Callable[..., object], name: str) -> bool:
    parameters = inspect.signature(function).parameters
    return name in parameters or any(
        p.kind is p.VAR_KEYWORD for p in parameters.values()
    )


def named_gap(name: str) -> GapFn:
    """Look up a gap by name.

    Args:
      name: a key of `GAPS`.

    Returns:
      A function of (prob, group, label).

    Raises:
      ValueError: if ``name`` is not a key of `GAPS`.
    """
    if name not in GAPS:
        raise ValueError(f"gap: expected one of {sorted(GAPS)}, got {name!r}")
    return GAPS[name]


def predict(
    apply_fn: ApplyFn,
    line: Line,
    inputs: PyTree,
    alphas: Float[Array, "*levels"] | Column | float,
    *,
    alphas_at_once: int = 1,
) -> Float[Array, "*levels people"]:
    """Probability of the favourable outcome at one or many levels.

    Args:
      apply_fn: ``apply_fn(params, inputs) -> logits [people]``; compiled once per
        function object, so pass the same object in every call.
      line: the two ends.
      inputs: inputs of the network, leading axis ``people``; arrays of any kind.
      alphas: a scalar, or levels of shape [levels]; in [0, 1].
      alphas_at_once: number of levels computed in parallel. A larger number needs more
        memory, and is faster on an accelerator.

    Returns:
      Probabilities, shape [people] or [levels, people].

    Raises:
      ValueError: if ``alphas`` has more than one axis.
    """
    levels = as_array(alphas, "alphas").astype(jnp.float32)
    return _predict(apply_fn, line, as_inputs(inputs), levels, alphas_at_once)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _predict(apply_fn, line, inputs, alphas, alphas_at_once):
    def at(alpha: Array) -> Array:
        logit = apply_fn(lines.interpolate(line.start, line.end, alpha), inputs)
        # Compiled into one loop with the sigmoid, a NaN that the network has as a
        # constant can come out as 1e-34 on a CPU (jax 0.12.0), and pass for a chance.
        return jax.nn.sigmoid(jax.lax.optimization_barrier(logit))

    if alphas.ndim == 0:
        return at(alphas)
    if alphas.ndim != 1:
        raise ValueError(f"alphas: expected a scalar or vector, got {alphas.shape}")
    # One level at a time by default: a single level keeps a CPU busy, and memory stays
    # at one model. batch_size=1 would add a batch axis of size 1, which is slower.
    if alphas_at_once == 1:
        return jax.lax.map(at, alphas)
    return jax.lax.map(at, alphas, batch_size=alphas_at_once)


def predict_each(
    apply_fn: ApplyFn,
    line: Line,
    inputs: PyTree,
    alphas: Float[Array, " people"] | Column,
    *,
    people_at_once: int = 32,
) -> Float[Array, " people"]:
    """Probability of the favourable outcome, with a separate level for each person.

    Args:
      apply_fn: as in `predict`.
      line: the two ends.
      inputs: inputs of the network, leading axis ``people``; arrays of any kind.
      alphas: level of each person, in [0, 1].
      people_at_once: number of models interpolated in parallel; limits the memory to
        this number of copies of the parameters.

    Returns:
      Probabilities, shape [people].

    Raises:
      ValueError: if there is not exactly one level per person.
    """
    levels = as_array(alphas, "alphas").astype(jnp.float32)
    return _predict_each(apply_fn, line, as_inputs(inputs), levels, people_at_once)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _predict_each(apply_fn, line, inputs, alphas, people_at_once):
    people = {leaf.shape[0] for leaf in jax.tree.leaves(inputs)}
    if alphas.ndim != 1 or people != {alphas.shape[0]}:
        raise ValueError(
            f"alphas: expected one level a person, of {sorted(people)} people, got "
            f"shape {alphas.shape}"
        )

    def one(person: tuple[PyTree, Array]) -> Array:
        row, alpha = person
        single = jax.tree.map(lambda leaf: leaf[None], row)
        return apply_fn(lines.interpolate(line.start, line.end, alpha), single)[0]

    # Not a vmap over all people, which would hold a copy of the parameters per person.
    logit = jax.lax.map(one, (inputs, alphas), batch_size=people_at_once)
    return jax.nn.sigmoid(logit)
