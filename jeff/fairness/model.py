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
from jeff.checks import check_binary
from jeff.fairness import gaps

__all__ = [
    "GAPS",
    "ApplyFn",
    "Examples",
    "GapFn",
    "Line",
    "call",
    "check_codes",
    "error_and_gap",
    "named_gap",
    "predict",
    "predict_each",
]

ApplyFn: TypeAlias = Callable[..., Float[Array, " people"]]
GapFn: TypeAlias = Callable[[Array, Array, Array], Float[Array, ""]]

# Gaps by name; a gap is any differentiable function of (prob, group, label).
GAPS: dict[str, GapFn] = {
    "demographic_parity": lambda prob, group, label: gaps.demographic_parity_gap(
        prob, group
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


class Examples(NamedTuple):
    """People with their outcomes and groups; every leaf has a leading axis ``people``.

    Attributes:
      inputs: inputs of the network, any pytree of arrays.
      label: 1 for the favourable outcome, else 0; shape [people].
      group: 1 for the protected group, else 0; shape [people].
    """

    inputs: PyTree
    label: Shaped[Array, " people"]
    group: Shaped[Array, " people"]


def call(
    apply_fn: ApplyFn, params: PyTree, inputs: PyTree, key: PRNGKeyArray | None
) -> Array:
    """Call a network, with a random key if one is given and the network accepts it.

    Args:
      apply_fn: ``apply_fn(params, inputs)``. If it has a parameter named ``key``, it
        gets the key; if it has one named ``rngs``, as Linen's ``module.apply`` has,
        ``rngs={"dropout": key}``.
      params: parameters of the network.
      inputs: inputs of the network.
      key: random key, or None to run without noise.

    Returns:
      Logits, shape [people].
    """
    if key is None:
        return apply_fn(params, inputs)
    # Look for the parameter by name, so that a network without dropout need not have
    # an unused one.
    parameters = inspect.signature(apply_fn).parameters
    if "key" in parameters:
        return apply_fn(params, inputs, key=key)
    if "rngs" in parameters:
        return apply_fn(params, inputs, rngs={"dropout": key})
    return apply_fn(params, inputs)


def error_and_gap(
    apply_fn: ApplyFn,
    params: PyTree,
    batch: Examples,
    *,
    gap: str | GapFn,
    key: PRNGKeyArray | None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean cross-entropy and soft gap of one model on one batch.

    Args:
      apply_fn: as in `call`.
      params: parameters of one model.
      batch: the people.
      gap: a name in `GAPS`, or a function of (prob, group, label).
      key: as in `call`.

    Returns:
      ``(error, gap)``, scalars; the error in nats.

    Raises:
      ValueError: if the logits are not [people], the gap's name is unknown, or a label
        or group is neither 0 nor 1.
    """
    check_codes(batch.label, batch.group)
    gap_fn = gap if callable(gap) else named_gap(gap)
    logit = call(apply_fn, params, batch.inputs, key)
    if logit.shape != batch.label.shape:
        raise ValueError(
            f"apply_fn: expected one logit a person, shape {batch.label.shape}, got "
            f"{logit.shape}; squeeze the last axis of a network with one output"
        )
    label = batch.label.astype(logit.dtype)
    # Computed from logits: the logarithm of a saturated sigmoid would be infinite.
    error = optax.sigmoid_binary_cross_entropy(logit, label).mean()
    return error, gap_fn(jax.nn.sigmoid(logit), batch.group, batch.label)


def check_codes(
    label: Shaped[Array, " people"], group: Shaped[Array, " people"]
) -> None:
    """Check that labels and groups are 0 or 1, if their values are concrete.

    Args:
      label: outcomes; floating point is also accepted.
      group: groups.

    Raises:
      TypeError: if the groups are not bool or integers.
      ValueError: if an argument has another value; names the argument.
    """
    check_binary(group=group)
    if jnp.issubdtype(jnp.result_type(label), jnp.floating):
        # The comparison is exact: a valid float label is 0.0 or 1.0. NaN equals
        # neither, becomes -1 and is rejected.
        check_binary(
            label=jnp.where((label == 0) | (label == 1), label, -1).astype(int)
        )
    else:
        check_binary(label=label)


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


@functools.partial(jax.jit, static_argnames=("apply_fn", "alphas_at_once"))
def predict(
    apply_fn: ApplyFn,
    line: Line,
    inputs: PyTree,
    alphas: Float[Array, "*levels"] | float,
    *,
    alphas_at_once: int = 1,
) -> Float[Array, "*levels people"]:
    """Probability of the favourable outcome at one or many levels.

    Args:
      apply_fn: ``apply_fn(params, inputs) -> logits [people]``; compiled once per
        function object, so pass the same object in every call.
      line: the two ends.
      inputs: inputs of the network, leading axis ``people``.
      alphas: a scalar, or levels of shape [levels]; in [0, 1].
      alphas_at_once: number of levels computed in parallel. A larger number needs more
        memory, and is faster on an accelerator.

    Returns:
      Probabilities, shape [people] or [levels, people].

    Raises:
      ValueError: if ``alphas`` has more than one axis.
    """
    alphas = jnp.asarray(alphas, jnp.float32)

    def at(alpha: Array) -> Array:
        return jax.nn.sigmoid(
            apply_fn(lines.interpolate(line.start, line.end, alpha), inputs)
        )

    if alphas.ndim == 0:
        return at(alphas)
    if alphas.ndim != 1:
        raise ValueError(f"alphas: expected a scalar or vector, got {alphas.shape}")
    # One level at a time by default: a single level keeps a CPU busy, and memory stays
    # at one model. batch_size=1 would add a batch axis of size 1, which is slower.
    if alphas_at_once == 1:
        return jax.lax.map(at, alphas)
    return jax.lax.map(at, alphas, batch_size=alphas_at_once)


@functools.partial(jax.jit, static_argnames=("apply_fn", "people_at_once"))
def predict_each(
    apply_fn: ApplyFn,
    line: Line,
    inputs: PyTree,
    alphas: Float[Array, " people"],
    *,
    people_at_once: int = 32,
) -> Float[Array, " people"]:
    """Probability of the favourable outcome, with a separate level for each person.

    Args:
      apply_fn: as in `predict`.
      line: the two ends.
      inputs: inputs of the network, leading axis ``people``.
      alphas: level of each person, in [0, 1].
      people_at_once: number of models interpolated in parallel; limits the memory to
        this number of copies of the parameters.

    Returns:
      Probabilities, shape [people].

    Raises:
      ValueError: if there is not exactly one level per person.
    """
    alphas = jnp.asarray(alphas, jnp.float32)
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
