"""Rules that end a thought early, as pure functions of probes.

A probe closes the thought at some place and looks at the answer that the model would
give there (`jeff_llm.reasoning.probing.probe`). A rule takes the probes of many
chains, [chains, probes] with a mask ``where``, and returns for each chain the index of
the first probe at which it stops, or -1. No rule looks at later probes. A rule applied
to finished chains therefore gives exactly what it would have given while they were
written.

Numpy and JAX arrays are taken, and all functions work under jit.
"""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from jeff.checks import check_floating, check_mask

__all__ = [
    "answer_convergence",
    "deer",
    "entropy_after_think",
    "first_probe",
    "trial_confidence",
]

AnyArray: TypeAlias = Array | np.ndarray
_State = TypeVar("_State")


def first_probe(
    stop: Bool[AnyArray, "chains probes"], where: Bool[AnyArray, "chains probes"]
) -> Int[Array, " chains"]:
    """Index of the first probe that stops a chain.

    Args:
      stop: whether a rule stops at each probe.
      where: probes that exist.

    Returns:
      The index, or -1 where no probe stops the chain.

    Raises:
      TypeError: if an argument is not bool.
      ValueError: if the shapes differ or are not [chains, probes].

    >>> first_probe(jnp.array([[False, True, True]]), jnp.ones((1, 3), bool))
    Array([1], dtype=int32)
    """
    check_mask(stop=jnp.asarray(stop), where=jnp.asarray(where))
    _check_same_shape(stop=stop, where=where)
    hit = jnp.asarray(stop) & jnp.asarray(where)
    # An array without probes has no largest element.
    if not hit.shape[1]:
        return jnp.full(hit.shape[0], -1, jnp.int32)
    return jnp.where(hit.any(axis=1), hit.argmax(axis=1), -1).astype(jnp.int32)


def trial_confidence(
    log_probs: Float[AnyArray, "... tokens"],
    where: Bool[AnyArray, "... tokens"],
    *,
    geometric: bool = False,
) -> Float[Array, "..."]:
    """Confidence in a trial answer that was decoded greedily.

    The mean over the trial's tokens of the largest probability. The first and the last
    token are left out, since they belong to the form of an answer and are nearly
    certain. A trial of one or two tokens has nothing else, so all its tokens count.

    Args:
      log_probs: natural logarithm of the largest probability at each token, which under
        greedy decoding is that of the token itself.
      where: tokens of the trial, without its end token.
      geometric: the geometric mean, ``exp(mean log p)``, in place of the arithmetic.

    Returns:
      Confidence in [0, 1]; 0 for a trial without tokens, so that no rule stops at it.

    Raises:
      TypeError: if ``log_probs`` is not floating point, or ``where`` is not bool.

    References:
      Yang et al., "Dynamic Early Exit in Reasoning Models", 2025, arXiv 2504.15895.

    >>> trial_confidence(jnp.log(jnp.array([1.0, 0.5, 1.0])), jnp.ones(3, bool))
    Array(0.5, dtype=float32)
    """
    log_probs, where = jnp.asarray(log_probs), jnp.asarray(where)
    check_floating(log_probs=log_probs)
    check_mask(where=where)
    place = jnp.cumsum(where, axis=-1)
    count = where.sum(axis=-1, keepdims=True)
    inner = where & (place > 1) & (place < count)
    counted = jnp.where(count < 3, where, inner)
    weight = counted / jnp.maximum(counted.sum(axis=-1, keepdims=True), 1)
    # Padding may hold anything; minus infinity times 0 would be NaN.
    log_probs = jnp.where(counted, log_probs, 0)
    if geometric:
        mean = jnp.exp(jnp.sum(weight * log_probs, axis=-1))
    else:
        mean = jnp.sum(weight * jnp.exp(log_probs), axis=-1)
    return jnp.where(count[..., 0] > 0, mean, 0)


def deer(
    confidence: Float[AnyArray, "chains probes"],
    where: Bool[AnyArray, "chains probes"],
    *,
    threshold: float | int = 0.95,
) -> Int[Array, " chains"]:
    """Stop at the first probe whose trial answer is confident.

    ``confidence > threshold``, as in the paper: an equal confidence goes on.

    Args:
      confidence: `trial_confidence` of each probe, in [0, 1].
      where: probes that exist.
      threshold: in [0, 1].

    Returns:
      The index of the probe, or -1.

    Raises:
      TypeError: if ``confidence`` is not floating point, or ``where`` is not bool.
      ValueError: if the shapes differ, or a number is outside [0, 1] or NaN.

    References:
      Yang et al., "Dynamic Early Exit in Reasoning Models", 2025, arXiv 2504.15895.

    >>> deer(jnp.array([[0.5, 0.97, 0.99]]), jnp.ones((1, 3), bool))
    Array([1], dtype=int32)
    """
    check_floating(confidence=jnp.asarray(confidence))
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected a number in [0, 1], got {threshold}")
    _check_same_shape(confidence=confidence, where=where)
    check_mask(where=jnp.asarray(where))
    # A mean of probabilities may round to just above 1.
    _check_values("confidence", confidence, where, 0.0, 1.01)
    return first_probe(jnp.asarray(confidence) > threshold, where)


def answer_convergence(
    answer: Int[AnyArray, "chains probes"],
    where: Bool[AnyArray, "chains probes"],
    *,
    repeats: int,
) -> Int[Array, " chains"]:
    """Stop once the trial answer has been the same several times in a row.

    Args:
      answer: code of each trial answer; equal answers of a chain have equal codes, and
        negative ones are no answer and never count as the same.
      where: probes that exist; the others are passed over.
      repeats: probes in a row with the same answer, at least 1.

    Returns:
      The index of the last of those probes, or -1.

    Raises:
      TypeError: if ``answer`` is not integer or ``where`` is not bool.
      ValueError: if the shapes differ, ``repeats`` is below 1, or a code has more than
        32 bits.

    References:
      Liu and Wang, "Answer Convergence as a Signal for Early Stopping in Reasoning",
      2025, arXiv 2506.02536.

    >>> answer_convergence(jnp.array([[4, 7, 7]]), jnp.ones((1, 3), bool), repeats=2)
    Array([2], dtype=int32)
    """
    if not repeats >= 1:
        raise ValueError(f"repeats: expected at least 1, got {repeats}")
    _check_same_shape(answer=answer, where=where)
    check_mask(where=jnp.asarray(where))
    if not jnp.issubdtype(jnp.result_type(answer), jnp.integer):
        raise TypeError(
            f"answer: expected integer codes, got {jnp.result_type(answer)}"
        )
    # JAX would cut longer codes, and different answers could become equal.
    _check_values("answer", answer, where, -(2**31), 2**31 - 1)

    def step(state: tuple[Array, Array], code: Array) -> tuple[Array, Array]:
        last, run = state
        run = jnp.where(code < 0, 0, jnp.where(code == last, run + 1, 1))
        return code, run

    codes = jnp.asarray(answer)
    chains = codes.shape[0]
    start = jnp.full(chains, -1, codes.dtype), jnp.zeros(chains, int)
    _, run = _along(step, start, codes, jnp.asarray(where))
    return first_probe(run >= repeats, where)


def entropy_after_think(
    entropy: Float[AnyArray, "chains probes"],
    where: Bool[AnyArray, "chains probes"],
    *,
    threshold: float | int,
    decay: float | int = 0.8,
    warm_up: int = 4,
) -> Int[Array, " chains"]:
    """Stop once the entropy of the token after a closed thought no longer moves.

    With ``h_n`` the entropy at probe n::

        m_n = decay m_{n-1} + (1 - decay) h_n,            m_1 = h_1
        v_n = decay v_{n-1} + (1 - decay) (h_n - m_n)^2,  v_1 = 0

    and the rule stops where ``v_n / (1 - decay^(n-1)) < threshold``. The weights of the
    squares sum to the denominator, so their mean is not pulled towards the zero at
    which it starts. The official code does not divide, and waits ``4 / (1 - decay)``
    probes instead.

    Args:
      entropy: entropy of the next token after the closed thought, in nats.
      where: probes that exist; the others are passed over.
      threshold: variance below which to stop, in nats squared, at least 0.
      decay: weight of the past, in [0, 1).
      warm_up: probes before which the rule never stops, at least 2: one probe has no
        variance.

    Returns:
      The index of the probe, or -1.

    Raises:
      TypeError: if ``entropy`` is not floating point, or ``where`` is not bool.
      ValueError: if the shapes differ, or a number is out of its range.

    References:
      Wang et al., "Entropy After </Think> for Reasoning Model Early Exiting", 2025,
      arXiv 2509.26522.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay: expected a number in [0, 1), got {decay}")
    for name, value, least in (("threshold", threshold, 0), ("warm_up", warm_up, 2)):
        if not value >= least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    _check_same_shape(entropy=entropy, where=where)
    check_floating(entropy=jnp.asarray(entropy))
    check_mask(where=jnp.asarray(where))
    # Rounding may take an entropy of 0 below it; infinity is none.
    _check_values("entropy", entropy, where, -0.01, 1e9)
    new = 1 - decay

    def step(state: tuple[Array, ...], value: Array) -> tuple[Array, ...]:
        mean, variance, weight, count = state
        mean = jnp.where(count == 0, value, decay * mean + new * value)
        variance = decay * variance + new * (value - mean) ** 2
        weight = jnp.where(count == 0, 0.0, decay * weight + new)
        return mean, variance, weight, count + 1

    values = jnp.asarray(entropy)
    zeros = jnp.zeros(values.shape[0], values.dtype)
    start = (zeros, zeros, zeros, jnp.zeros(values.shape[0], int))
    _, variance, weight, count = _along(step, start, values, jnp.asarray(where))
    # In products: the weight of the first probe is 0.
    return first_probe((variance < threshold * weight) & (count >= warm_up), where)


def _along(
    step: Callable[[_State, Array], _State], start: _State, values: Array, where: Array
) -> _State:
    """States of a recurrence after each probe, [chains, probes]; others are skipped."""

    def body(state: _State, probe: tuple[Array, Array]) -> tuple[_State, _State]:
        value, there = probe
        after = jax.tree.map(
            lambda new, old: jnp.where(there, new, old), step(state, value), state
        )
        return after, after

    _, states = jax.lax.scan(body, start, (values.T, where.T))
    return jax.tree.map(jnp.transpose, states)


def _check_values(
    name: str, array: AnyArray, where: AnyArray, low: float | int, high: float | int
) -> None:
    """Refuse numbers out of range at the probes that exist, if they are concrete."""
    if isinstance(array, Tracer) or isinstance(where, Tracer):
        return
    values = np.asarray(array)[np.asarray(where)]
    # Negated, so that NaN is found as well.
    if (bad := ~((values >= low) & (values <= high))).any():
        raise ValueError(
            f"{name}: expected numbers in [{low:.2g}, {high:.2g}], got "
            f"{values[bad.argmax()]}"
        )


def _check_same_shape(**arrays: AnyArray) -> None:
    shapes = {name: jnp.shape(array) for name, array in arrays.items()}
    (first, shape), (second, other) = shapes.items()
    if len(shape) != 2:
        raise ValueError(f"{first}: expected [chains, probes], got shape {shape}")
    if other != shape:
        raise ValueError(f"{second}: expected shape {shape} as {first}, got {other}")
