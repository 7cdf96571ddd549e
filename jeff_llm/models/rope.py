"""Rotary position embeddings, and the scalings of published models.

Frequencies are ``theta^(-2i / H)`` for i = 0 ... H/2 - 1. The two halves of a head are
rotated against each other (the layout of transformers; llama.cpp interleaves them).
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jeff_llm.models.rope_scaling import RopeScaling

__all__ = ["RopeScaling", "angles", "frequencies", "rotate", "scaling_of_factors"]


def frequencies(
    head_width: int, theta: float, scaling: RopeScaling | None
) -> tuple[np.ndarray, float]:
    """Rotary frequencies of a head.

    Args:
      head_width: width H of a head.
      theta: base.
      scaling: how they are stretched.

    Returns:
      ``(radians a token [H/2] float32, factor on cosine and sine)``.

    References:
      Su et al., "RoFormer", 2021; Peng et al., "YaRN", 2023, sections 3.2 to 3.4;
      Llama 3.1's reference implementation.
    """
    # In float64 on the host: at position 100,000 a float32 rounding of the frequency is
    # an angle that shows.
    exponent = np.arange(0, head_width, 2) / head_width
    plain = theta**-exponent
    if scaling is None:
        return plain.astype(np.float32), 1.0
    if scaling.kind == "linear":
        return (plain / scaling.factor).astype(np.float32), 1.0
    # Fast frequencies turn often within the trained context and are kept; slow ones are
    # divided; between the two a ramp blends.
    if scaling.kind == "llama3":
        turns = scaling.original_positions * plain / (2 * math.pi)
        kept = np.clip((turns - scaling.low) / (scaling.high - scaling.low), 0, 1)
        amplitude = 1.0
    else:
        kept = 1 - _yarn_ramp(head_width, theta, scaling)
        amplitude = scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1
    stretched = (1 - kept) * plain / scaling.factor + kept * plain
    return stretched.astype(np.float32), amplitude


def _yarn_ramp(head_width: int, theta: float, scaling: RopeScaling) -> np.ndarray:
    """0 for the dimensions that are kept, 1 for those that are divided."""

    def dimension(turns: float) -> float:
        span = scaling.original_positions / (2 * math.pi * turns)
        return head_width * math.log(span) / (2 * math.log(theta))

    first, last = dimension(scaling.high), dimension(scaling.low)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_width - 1)
    if first == last:  # as in the published code: a ramp of no width divides by 0
        last += 0.001
    return np.clip((np.arange(head_width // 2) - first) / (last - first), 0, 1)


def scaling_of_factors(factors: np.ndarray, theta: float) -> RopeScaling:
    """Recognise the Llama-3 scaling in a GGUF file's table of divisors.

    Args:
      factors: one divisor a frequency, the tensor ``rope_freqs.weight``.
      theta: base of the frequencies.

    Returns:
      The scaling with those divisors.

    Raises:
      ValueError: if it is not Llama 3's with a whole factor.
    """
    plain = frequencies(2 * len(factors), theta, None)[0]
    factor = max(1.0, float(np.round(factors.max())))
    scaling = RopeScaling("llama3", factor)
    stretched = frequencies(2 * len(factors), theta, scaling)[0]
    if not np.allclose(plain / stretched, factors, rtol=1e-3):
        raise ValueError(
            "rope_freqs.weight: expected the divisors of Llama 3's scaling, got "
            f"{factors[:4]} ... {factors[-4:]}; this decoder supports no others"
        )
    return scaling


def rotate(
    x: Float[Array, "batch tokens heads head_width"],
    cosine: Float[Array, "batch tokens half"],
    sine: Float[Array, "batch tokens half"],
) -> Float[Array, "batch tokens heads head_width"]:
    """Rotate the two halves of each head against each other, in float32.

    ``[a, b] -> [a cos - b sin, b cos + a sin]``.

    Args:
      x: queries or keys.
      cosine: cosine of position times frequency.
      sine: sine of the same.

    Returns:
      The rotated heads, in the dtype of ``x``.
    """
    # In float32: cosine and sine in bfloat16 would place near tokens alike.
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cosine, sine = cosine[:, :, None], sine[:, :, None]
    rotated = (first * cosine - second * sine, second * cosine + first * sine)
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


def angles(
    positions: Int[Array, "batch tokens"],
    head_width: int,
    theta: float,
    scaling: RopeScaling | None,
) -> tuple[Float[Array, "batch tokens half"], Float[Array, "batch tokens half"]]:
    """Cosine and sine of every position and frequency.

    Args:
      positions: position of each token.
      head_width: width of a head.
      theta: base of the frequencies.
      scaling: how they are stretched.

    Returns:
      ``(cosine, sine)``, in float32.
    """
    radians, amplitude = frequencies(head_width, theta, scaling)
    turned = positions[..., None].astype(jnp.float32) * radians
    return jnp.cos(turned) * amplitude, jnp.sin(turned) * amplitude
