"""Parameters in eight bits, and products that read them so.

Symmetric, with one scale per output channel: ``kernel ~ (codes * scale).T`` with
``scale = max |row| / 127``. Decoding reads every weight once a token, so a quarter of
the bytes is most of its speed. On a CPU few rows of inputs are multiplied as integers;
many, and all on other devices, by codes that are widened on the way into the product.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8, PyTree

from jeff_llm.models.lora import LINEAR, choose

__all__ = ["PACKED", "Int8Kernel", "Int8Table", "pack_leaf", "quantize_kernels"]

# What a packed model has in eight bits: all kernels, the head's too, and the embedding.
PACKED = (*LINEAR, r"^head/kernel$", r"^embedding$")

# Rows of inputs that are multiplied as integers: above, one pass over widened codes is
# quicker than integer products.
_FEW_ROWS = 8
# Independent products run on different threads; one alone runs on a single one.
_PARTS = 1
# Rows of codes in one product: what a core's cache holds.
_MOST_CODES = 2**20


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8Kernel:
    """A kernel in eight bits, for use as ``x @ kernel``.

    Invariant: ``|codes| <= 127``; the error of a weight is at most half its scale.

    Attributes:
      codes: [out, in], with leading axes where layers are stacked.
      scale: [out], float32.
      dtype: that the kernel had, which its products and `jeff_llm.models.lora` go by.
    """

    codes: Int8[Array, "... fan_out fan_in"]
    scale: Float[Array, "... fan_out"]
    dtype: Any = dataclasses.field(default=jnp.float32, metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the kernel, [..., in, out]."""
        *stack, fan_out, fan_in = self.codes.shape
        return (*stack, fan_in, fan_out)

    @property
    def size(self) -> int:
        """Weights of the kernel."""
        return self.codes.size

    def __rmatmul__(self, x: Array) -> Array:
        return _multiply(x, self.codes, self.scale)

    def astype(self, dtype: Any) -> Array:
        """The kernel as a plain array.

        Args:
          dtype: of the array.

        Returns:
          The codes times their scales, [..., in, out].
        """
        return _widened(self.codes, self.scale, dtype).swapaxes(-1, -2)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8Table:
    """An embedding in eight bits, for look-ups and as a tied head.

    Attributes:
      codes: [vocabulary, width].
      scale: [vocabulary], float32.
      dtype: of the rows that are looked up.
    """

    codes: Int8[Array, "vocabulary width"]
    scale: Float[Array, " vocabulary"]
    dtype: Any = dataclasses.field(default=jnp.float32, metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the table."""
        return self.codes.shape

    @property
    def T(self) -> Int8Kernel:  # noqa: N802
        """As the kernel of a tied head, for use as ``x @ table.T``."""
        return Int8Kernel(self.codes, self.scale, self.dtype)

    @property
    def size(self) -> int:
        """Weights of the table."""
        return self.codes.size

    def __getitem__(self, index: Array) -> Array:
        return _widened(self.codes[index], self.scale[index], self.dtype)

    def unembed(self, x: Float[Array, "... width"]) -> Float[Array, "... vocabulary"]:
        """Logits of a tied head.

        Args:
          x: normalised hidden states.

        Returns:
          ``x @ table.T``.
        """
        return x @ self.T

    def astype(self, dtype: Any) -> Array:
        """The table as a plain array.

        Args:
          dtype: of the array.

        Returns:
          The codes times their scales.
        """
        return _widened(self.codes, self.scale, dtype)


def quantize_kernels(params: PyTree, where: Sequence[str] = LINEAR) -> PyTree:
    """Replace kernels, and the embedding, by their eight-bit form.

    Args:
      params: parameters of a model that multiplies with ``x @ kernel``.
      where: regular expressions, searched in the paths of leaves joined with "/".

    Returns:
      A pytree like ``params`` with `Int8Kernel` for the kernels found, and `Int8Table`
      for a leaf called ``embedding``.

    Raises:
      ValueError: if a pattern finds nothing, or a leaf that is not a matrix.
    """
    chosen = choose(params, where)

    def change(path: jax.tree_util.KeyPath, leaf: Array) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return pack_leaf(name, leaf) if name in chosen else leaf

    return jax.tree_util.tree_map_with_path(change, params)


def pack_leaf(name: str, leaf: Array | np.ndarray) -> Int8Kernel | Int8Table:
    """A kernel or the embedding in eight bits; on the host, one leaf at a time.

    Args:
      name: path of the leaf; one that ends with ``embedding`` is a table.
      leaf: the weights.

    Returns:
      Its eight-bit form.
    """
    table = name.rsplit("/", 1)[-1] == "embedding"
    wide = np.asarray(leaf, np.float32)
    wide = wide if table else wide.swapaxes(-1, -2)
    scale = np.abs(wide).max(-1) / np.float32(127)
    # A channel of zeros has scale 0 and codes 0.
    codes = np.divide(wide, np.where(scale == 0, 1, scale)[..., None])
    np.rint(codes, out=codes)
    kind = Int8Table if table else Int8Kernel
    return kind(
        jnp.asarray(codes.astype(np.int8)), jnp.asarray(scale), np.dtype(leaf.dtype)
    )


def _widened(codes: Array, scale: Array, dtype: Any) -> Array:
    return (codes.astype(jnp.float32) * scale[..., None]).astype(dtype)


def _multiply(x: Array, codes: Array, scale: Array) -> Array:
    """``x @ (codes * scale).T`` in the dtype of ``x``."""
    rows = x.reshape(-1, x.shape[-1])
    if jax.default_backend() == "cpu" and len(rows) <= _FEW_ROWS:
        out = _by_integers(rows.astype(jnp.float32), codes)
    else:
        out = rows @ codes.astype(x.dtype).T
    out = (out * scale.astype(out.dtype)).astype(x.dtype)
    return out.reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def _by_integers(
    rows: Float[Array, "rows fan_in"], codes: Int8[Array, "fan_out fan_in"]
) -> Float[Array, "rows fan_out"]:
    """``rows @ codes.T`` with rows in twice eight bits, exact sums between them.

    The second eight bits are what the first leave: 2e-5 of a row's largest value is
    lost at most, where one step of eight bits alone would lose the small values beside
    an outlier.
    """
    scale = jnp.max(jnp.abs(rows), axis=-1, keepdims=True) / 127
    scale = jnp.where(scale == 0, 1, scale)
    coarse = jnp.round(rows / scale)
    fine = jnp.round((rows - coarse * scale) * (254 / scale))
    both = jnp.concatenate([coarse, fine]).astype(jnp.int8)
    first, second = jnp.split(_integers(codes, both).astype(jnp.float32), 2)
    return first * scale + second * (scale / 254)


def _forward(rows: Array, codes: Array) -> tuple[Array, Array]:
    return _by_integers(rows, codes), codes


def _backward(codes: Array, grad: Array) -> tuple[Array, None]:
    # That of the product which the integers stand for; codes have none.
    return grad @ codes.astype(grad.dtype), None


_by_integers.defvjp(_forward, _backward)


def _integers(
    codes: Int8[Array, "fan_out fan_in"], rows: Int8[Array, "rows fan_in"]
) -> Int[Array, "rows fan_out"]:
    """``rows @ codes.T``."""
    fan_out, fan_in = codes.shape

    def product(codes: Array) -> Array:
        # Codes first: the compiler's loop then runs along their rows.
        axes = (((1,), (1,)), ((), ()))
        return jax.lax.dot_general(codes, rows, axes, preferred_element_type=jnp.int32)

    least = -(-fan_out * fan_in // _MOST_CODES)
    # A head is cut into pieces of equal size where it can be.
    count = next((n for n in range(least, 2 * least) if fan_out % n == 0), 1)
    if count == 1:
        return product(codes).T
    pieces = codes.reshape(count, -1, fan_in)
    return jax.lax.map(product, pieces).reshape(fan_out, -1).T
