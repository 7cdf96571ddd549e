"""Shared parts of networks: a module as a pure function, and cheap dropout.

Random bits for dropout take a noticeable part of a training step on a CPU, so few are
drawn: one per unit at rate 1/2, two at 1/4, at most eight instead of the usual 32. The
rate is therefore rounded to a multiple of 1/256, and the kept units are scaled by the
rounded rate.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PyTree, UInt32

__all__ = ["dropout", "functional"]


def dropout(x: Float[Array, "..."], rate: float, *, key: Array) -> Float[Array, "..."]:
    """Zero each unit with probability ``rate`` and rescale the rest.

    ``x m / (1 - rate)`` with ``m ~ Bernoulli(1 - rate)``; the rate is rounded to a
    multiple of 1/256.

    Args:
      x: activations, any shape.
      rate: probability of dropping a unit, in [0, 1).
      key: random key.

    Returns:
      An array like ``x`` with the same expectation.

    Raises:
      ValueError: if ``rate`` lies outside [0, 1) after rounding.

    References:
      Srivastava et al., "Dropout", JMLR 2014.
    """
    of_256 = round(rate * 256)
    if not 0 <= of_256 < 256:
        raise ValueError(f"rate: expected a probability in [0, 1), got {rate}")
    if of_256 == 0:
        return x
    # The fewest bits that can express the rate.
    width = next(bits for bits in (1, 2, 4, 8) if of_256 % (256 >> bits) == 0)
    threshold = of_256 >> (8 - width)
    # By the rounded rate, so that the expectation is exact.
    scale = jnp.asarray(256 / (256 - of_256), x.dtype)
    drawn = _small_integers(x.size, width, key).reshape(x.shape)
    return jnp.where(drawn >= threshold, x * scale, 0)


def _small_integers(count: int, width: int, key: Array) -> UInt32[Array, " count"]:
    """Uniform integers below ``2**width``, cut out of 32-bit words."""
    shifts = jnp.arange(0, 32, width, dtype=jnp.uint32)
    words = jax.random.bits(key, (-(-count // len(shifts)),), jnp.uint32)
    fields = (words[:, None] >> shifts[None]) & jnp.uint32(2**width - 1)
    return fields.reshape(-1)[:count]


def functional(module: nnx.Module) -> tuple[Callable[..., Array], PyTree]:
    """Split a flax.nnx module into a pure function and its parameters.

    Args:
      module: a module whose only state is its parameters.

    Returns:
      ``(apply_fn, params)``: ``apply_fn(params, inputs, **kwargs)`` calls the module
      and has the signature of the module, and ``params`` is a nested dictionary of
      arrays.

    Raises:
      ValueError: if the module holds state that is not a parameter (batch statistics,
        random streams), which a line in weight space cannot interpolate.
    """
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)
    if jax.tree.leaves(rest):
        raise ValueError(
            "module: expected parameters alone, got other state at "
            f"{[path for path, _ in nnx.to_flat_state(rest)]}; use layers without it"
        )

    def apply_fn(params: PyTree, inputs: Any, **kwargs: Any) -> Array:
        return nnx.merge(graphdef, nnx.State(params))(inputs, **kwargs)

    # Whoever calls a network with a key looks whether it has a parameter of that name.
    first = inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    called = inspect.signature(module).parameters.values()
    apply_fn.__signature__ = inspect.Signature([first, *called])
    return apply_fn, nnx.to_pure_dict(params)
