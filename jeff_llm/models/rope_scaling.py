"""Scalings of rotary frequencies, read from the files of transformers and llama.cpp."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jeff_llm.models import fields
from jeff_llm.models.known_fields import Known, check_known

__all__ = ["RopeScaling"]

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
