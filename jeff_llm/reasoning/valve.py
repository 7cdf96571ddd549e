"""CoT-Valve: one weight that turns a chain of thought from long to short.

Two sets of LoRA factors, one trained on long chains and one on short chains, are ends
of a line. At position ``t`` the kernels change by ``(1 - t) A_l B_l + t A_s B_s``: the
updates are interpolated, not the factors, whose product would have cross terms. The
factors of both ends are put side by side, so that the line is one in weight space
(`jeff.line`), and can be gridded, vmapped and searched like that of YODO.

Departure: Ma et al. scale one update, the base being its other end. That is the line
from zero factors, ``valve(zero, short)``.

References:
  Ma et al., "CoT-Valve: Length-Compressible Chain-of-Thought Tuning", 2025 (arXiv
  2502.09601), eq. 3.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jeff import line
from jeff_llm.models.lora import Lora

__all__ = ["valve", "valve_line"]


def valve_line(start: Lora, end: Lora) -> tuple[Lora, Lora]:
    """Both ends with the factors of both, side by side.

    The ends have the same ``a = [A_start, A_end]``, and ``b`` is ``[B_start, 0]`` at
    the start and ``[0, B_end]`` at the end, so a point between them has exactly the
    interpolated update.

    Args:
      start: factors at position 0.
      end: factors at position 1, of the same kernels and scale; ranks may differ.

    Returns:
      Two sets of factors, of the summed rank, for `jeff.line`.

    Raises:
      ValueError: if kernels, their shapes or scales differ, or rows of the embedding
        are trained.
    """
    if set(start.factors) != set(end.factors):
        odd = sorted(set(start.factors) ^ set(end.factors))
        raise ValueError(f"end: expected factors of the same kernels, got {odd} apart")
    if start.scale != end.scale:
        raise ValueError(f"end: expected the scale {start.scale}, got {end.scale}")
    if start.rows is not None or end.rows is not None:
        raise ValueError(
            "start, end: expected no trained rows of the embedding, got some"
        )
    first, last = {}, {}
    for name, one in start.factors.items():
        other = end.factors[name]
        _check_kernel(name, one, other)
        a = jnp.concatenate([one["a"], other["a"]], axis=-1)
        zeros = jnp.zeros_like
        first[name] = {"a": a, "b": _stack(one["b"], zeros(other["b"]))}
        last[name] = {"a": a, "b": _stack(zeros(one["b"]), other["b"])}
    return (
        dataclasses.replace(start, factors=first),
        dataclasses.replace(end, factors=last),
    )


def valve(start: Lora, end: Lora, t: Float[Array, ""] | float) -> Lora:
    """Factors at a position between long and short chains.

    Args:
      start: factors for long chains.
      end: factors for short chains; see `valve_line`.
      t: position, 0 at the start and 1 at the end; others extrapolate.

    Returns:
      The factors, for `jeff_llm.models.lora.apply` or ``merge``.

    Raises:
      ValueError: as `valve_line`.
    """
    return line.interpolate(*valve_line(start, end), t)


def _check_kernel(name: str, one: dict[str, Array], other: dict[str, Array]) -> None:
    """Refuse factors of kernels of different shapes; their ranks may differ."""
    shapes = [
        (each["a"].shape[:-1], each["b"].shape[:-2] + each["b"].shape[-1:])
        for each in (one, other)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"end: expected {name!r} with shapes {shapes[0]} beside the rank, got "
            f"{shapes[1]}"
        )


def _stack(first: jax.Array, second: jax.Array) -> jax.Array:
    return jnp.concatenate([first, second], axis=-2)
