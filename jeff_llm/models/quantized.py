"""Frozen kernels in eight bits: a base for LoRA or decoding at a quarter of the size.

Symmetric, with one scale per output channel: ``kernel ~ codes * scale`` with ``scale =
max |column| / 127``. The product ``x @ kernel`` multiplies by the scales afterwards, so
only `Int8Kernel.astype` restores a whole kernel.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8, PyTree

from jeff_llm.models.lora import LINEAR, choose

__all__ = ["Int8Kernel", "quantize_kernels"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8Kernel:
    """A kernel in eight bits, for use as ``x @ kernel``.

    Invariant: ``|codes| <= 127``; the error of a weight is at most half its scale.

    Attributes:
      codes: [in, out], with leading axes where layers are stacked.
      scale: [1, out]; its dtype is the kernel's.
    """

    codes: Int8[Array, "... fan_in fan_out"]
    scale: Float[Array, "... 1 fan_out"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the kernel."""
        return self.codes.shape

    @property
    def dtype(self) -> Any:
        """Of the kernel."""
        return self.scale.dtype

    def __rmatmul__(self, x: Array) -> Array:
        # One row of scales, whatever the rank of x is.
        return (x @ self.codes.astype(x.dtype)) * self.scale[0].astype(x.dtype)

    def astype(self, dtype: Any) -> Array:
        """The kernel as a plain array.

        Args:
          dtype: of the array.

        Returns:
          ``codes * scale``.
        """
        return (self.codes.astype(jnp.float32) * self.scale).astype(dtype)


def quantize_kernels(params: PyTree, where: Sequence[str] = LINEAR) -> PyTree:
    """Replace kernels by their eight-bit form.

    Args:
      params: parameters of a model that multiplies with ``x @ kernel``.
      where: regular expressions, searched in the paths of leaves joined with "/".

    Returns:
      A pytree like ``params`` with `Int8Kernel` for the kernels found.

    Raises:
      ValueError: if a pattern finds nothing, or a leaf that is not a matrix.
    """
    chosen = choose(params, where)

    def change(path: jax.tree_util.KeyPath, leaf: Array) -> Array | Int8Kernel:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return _quantize(leaf) if name in chosen else leaf

    return jax.tree_util.tree_map_with_path(change, params)


def _quantize(kernel: Float[Array, "... fan_in fan_out"]) -> Int8Kernel:
    wide = kernel.astype(jnp.float32)
    scale = jnp.max(jnp.abs(wide), axis=-2, keepdims=True) / 127
    # A column of zeros has scale 0 and codes 0.
    codes = jnp.round(wide / jnp.where(scale == 0, 1, scale))
    return Int8Kernel(codes.astype(jnp.int8), scale.astype(kernel.dtype))
