"""Rotary position embeddings, and the scalings of published models.

Frequencies are ``theta^(-2i / H)`` for i = 0 ... H/2 - 1. The two halves of a head are
rotated against each other (the layout of transformers; llama.cpp interleaves them).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jeff_llm.models import fields
from jeff_llm.models.known_fields import Known, check_known

__all__ = ["RopeScaling", "angles", "frequencies", "rotate"]

# Fields of the kinds that have fewer than YaRN; a kind with another's field is unclear.
_BY_KIND = {
    "default": (),
    "linear": ("factor", "original_max_position_embeddings"),
    "llama3": (
        *("factor", "original_max_position_embeddings"),
        *("low_freq_factor", "high_freq_factor"),
    ),
    "yarn": (
        *("factor", "original_max_position_embeddings", "attention_factor"),
        *("beta_fast", "beta_slow", "truncate", "mscale", "mscale_all_dim"),
    ),
}


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched to reach contexts beyond the training's.

    Attributes:
      kind: "linear" divides all by ``factor``; "llama3" and "yarn" divide the slow ones
        and keep the fast ones.
      factor: context reached over context trained for.
      original_positions: context trained for, in tokens.
      low: turns within that context up to which a frequency is divided fully ("yarn":
        ``beta_slow``).
      high: turns from which a frequency is kept ("yarn": ``beta_fast``).
      attention_factor: "yarn": factor on cosine and sine; None derives it from
        ``factor``.
      truncate: "yarn": round the ends of the ramp to whole dimensions.
    """

    kind: str
    factor: float
    original_positions: int = 8192
    low: float = 1.0
    high: float = 4.0
    attention_factor: float | None = None
    truncate: bool = True

    def __post_init__(self):
        """Check ranges."""
        if self.kind not in ("linear", "llama3", "yarn"):
            raise ValueError(
                f"rope scaling: expected linear, llama3 or yarn, got {self.kind!r}; "
                "this decoder does not support it"
            )
        fields.check_real("rope scaling factor", self.factor)
        if self.factor < 1:
            raise ValueError(
                f"rope scaling factor: expected at least 1, got {self.factor}"
            )
        fields.check_whole("original_positions", self.original_positions)
        fields.check_real("rope scaling low", self.low)
        # The ramp between the two divides by their distance.
        fields.check_real("rope scaling high", self.high, above=self.low)
        if self.attention_factor is not None:
            fields.check_real("attention_factor", self.attention_factor)

    @property
    def reach(self) -> int:
        """The context that the scaling reaches, in tokens."""
        return int(self.factor * self.original_positions)

    @staticmethod
    def from_transformers(
        values: Mapping[str, Any], max_positions: int
    ) -> "RopeScaling | None":
        """Read ``rope_scaling`` or ``rope_parameters`` of a ``config.json``.

        Args:
          values: the field; empty where there is none.
          max_positions: ``max_position_embeddings``.

        Returns:
          The scaling, or None for plain RoPE.
        """
        kind = fields.text(values, "rope_type", fields.text(values, "type", "default"))
        # Other kinds are refused as a whole.
        if kind in _BY_KIND:
            check_known(
                values,
                Known(
                    ("rope_type", "type", "rope_theta", *_BY_KIND[kind]),
                    {"partial_rotary_factor": (1,)},
                    # As it is written beside YaRN's first models.
                    {"where the file comes from": ("finetuned",)},
                ),
                prefix="rope_scaling.",
            )
        if kind == "default":
            return None
        if "mscale" in values or "mscale_all_dim" in values:
            raise ValueError(
                "rope scaling: expected YaRN without mscale, which this decoder does "
                "not support"
            )
        original = fields.whole(
            values, "original_max_position_embeddings", max_positions
        )
        amplitude = values.get("attention_factor")
        low, high = ("low_freq_factor", "high_freq_factor")
        if kind == "yarn":
            low, high = ("beta_slow", "beta_fast")
        return RopeScaling(
            kind=kind,
            factor=fields.real(values, "factor", max_positions / original),
            original_positions=original,
            low=fields.real(values, low, 1.0),
            high=fields.real(values, high, 32.0 if kind == "yarn" else 4.0),
            attention_factor=(
                None if amplitude is None else fields.real(values, "attention_factor")
            ),
            truncate=fields.flag(values, "truncate", True),
        )

    def to_transformers(self) -> dict[str, Any]:
        """The field ``rope_scaling`` of a ``config.json``.

        Returns:
          Its entries.
        """
        values: dict[str, Any] = {"rope_type": self.kind, "factor": self.factor}
        if self.kind != "linear":
            values["original_max_position_embeddings"] = self.original_positions
        if self.kind == "llama3":
            values |= {"low_freq_factor": self.low, "high_freq_factor": self.high}
        if self.kind == "yarn":
            values |= {"beta_slow": self.low, "beta_fast": self.high}
            values["truncate"] = self.truncate
            if self.attention_factor is not None:
                values["attention_factor"] = self.attention_factor
        return values

    @staticmethod
    def from_gguf(metadata: Mapping[str, Any], family: str) -> "RopeScaling | None":
        """Read the ``rope.scaling`` fields of a GGUF file.

        Args:
          metadata: the key-value fields.
          family: prefix of the fields.

        Returns:
          The scaling, or None for plain RoPE.
        """
        stem = f"{family}.rope."
        factor = _gguf_factor(metadata, stem)
        # As llama.cpp has it, a file with a factor alone is linear.
        plain = "none" if factor is None else "linear"
        kind = fields.text(metadata, f"{stem}scaling.type", plain)
        amplitude = 1.0
        for name in ("attn_factor", "yarn_attn_factor"):
            amplitude *= fields.real(metadata, f"{stem}scaling.{name}", 1.0)
        if kind != "yarn" and amplitude != 1:
            raise ValueError(
                f"{stem}scaling.attn_factor: expected 1 with scaling {kind!r}, got "
                f"{amplitude}; this decoder does not support it"
            )
        if kind == "none":
            return None
        factor = 1.0 if factor is None else factor
        if kind == "linear":
            return RopeScaling("linear", factor)
        for name, neutral in (
            ("yarn_ext_factor", (1, -1)),
            ("yarn_log_multiplier", (0,)),
        ):
            value = metadata.get(f"{stem}scaling.{name}", neutral[0])
            if value not in neutral:
                raise ValueError(
                    f"{stem}scaling.{name}: expected {neutral[0]}, got "
                    f"{fields.shown(value)}; this decoder does not support it"
                )
        default = 0.1 * math.log(factor) + 1 if factor >= 1 else 1.0
        return RopeScaling(
            kind=kind,
            factor=factor,
            original_positions=fields.whole(
                metadata,
                f"{stem}scaling.original_context_length",
                metadata.get(f"{family}.context_length"),
            ),
            low=fields.real(metadata, f"{stem}scaling.yarn_beta_slow", 1.0),
            high=fields.real(
                metadata,
                f"{stem}scaling.yarn_beta_fast",
                32.0 if kind == "yarn" else 4.0,
            ),
            # llama.cpp multiplies YaRN's own factor with the file's.
            attention_factor=None if amplitude == 1 else amplitude * default,
        )

    @staticmethod
    def from_factors(factors: np.ndarray, theta: float) -> "RopeScaling":
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


def _gguf_factor(metadata: Mapping[str, Any], stem: str) -> float | None:
    """The factor, under its name or the one of the first GGUF files; 0 for none."""
    found = {}
    for name in (f"{stem}scaling.factor", f"{stem}scale_linear"):
        if metadata.get(name) is not None and metadata[name] != 0:
            found[name] = fields.real(metadata, name)
    if len(set(found.values())) > 1:
        raise ValueError(
            f"{stem}scale_linear: expected the same as {stem}scaling.factor, got "
            f"{' and '.join(f'{value:g}' for value in found.values())}"
        )
    return next(iter(found.values()), None)


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
