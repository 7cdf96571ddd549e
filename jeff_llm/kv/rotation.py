"""Walsh-Hadamard rotation of queries and keys: the same logits, no outlier channels.

A few channels of the keys are much larger than the rest. Where a group of the quantiser
is a run of channels of one token, such a channel sets the step of all of them. An
orthonormal H applied to both sides leaves ``(H q) . (H k) = q . k``, and spreads an
outlier evenly over the channels: each holds ``1 / sqrt(n)`` of it.

The rotation comes after the rotary embedding, with which it does not commute, and so it
cannot be merged into the weights. Groups that keep to one channel gain nothing from it.
QuaRot also rotates the residual stream and the values; this module rotates heads alone.

References:
  Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", 2024.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jeff.checks import check_floating

__all__ = ["check_width", "rotate"]


def rotate(x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
    """Orthonormal Walsh-Hadamard transform along the last axis.

    ``y_i = sum_j (-1)^popcount(i & j) x_j / sqrt(n)``, in float32 at least. It is its
    own inverse. The width need not be a power of two: n is the largest power of two
    that divides it, and each run of n channels is transformed by itself. Widths of 64,
    128 and 256 are mixed as a whole, 96 in three runs of 32.

    Args:
      x: queries or keys, after the rotary embedding; the width is even.

    Returns:
      The rotated array, in the dtype of ``x``.

    Raises:
      TypeError: if ``x`` is not floating point.
      ValueError: if the width is odd, so that nothing would be mixed.

    References:
      Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", 2024.

    >>> rotate(jnp.array([4.0, 0.0, 0.0, 0.0]))
    Array([2., 2., 2., 2.], dtype=float32)
    """
    check_floating(x=x)
    width = x.shape[-1] if x.ndim else 0
    check_width(width)
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    size = width & -width  # the lowest bit that is set
    # One dense product in place of log2(n) butterfly passes: heads are narrow.
    runs = x.reshape(*x.shape[:-1], width // size, size).astype(dtype)
    # A GPU or TPU would round float32 factors of a product to fewer bits.
    mixed = jnp.matmul(runs, jnp.asarray(_hadamard(size), dtype), precision="highest")
    return mixed.reshape(x.shape).astype(x.dtype)


def check_width(width: int) -> None:
    """Check that a rotation mixes anything.

    Args:
      width: channels of a head.

    Raises:
      ValueError: if the width is odd or 0.
    """
    if width < 1 or width % 2:
        raise ValueError(
            f"rotate: expected an even number of channels, got {width}; runs of a "
            "power of two of them are mixed"
        )


def _hadamard(size: int) -> Float[np.ndarray, "size size"]:
    """The symmetric orthonormal matrix in Sylvester's order."""
    index = np.arange(size)
    odd = np.bitwise_count(index[:, None] & index) % 2
    return np.where(odd, -1, 1) * size**-0.5
