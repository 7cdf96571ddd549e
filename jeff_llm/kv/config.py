"""Configuration of a quantised cache: widths, groups and layout."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from jeff.checks import check_choice
from jeff_llm.kv.quantize import BLOCK, SCALE_DTYPES, WIDTHS, Axis, check_layout
from jeff_llm.kv.rotation import check_width

__all__ = ["CacheConfig", "EffectiveBits", "effective_bits"]


@dataclasses.dataclass(frozen=True)
class CacheConfig:
    """Widths and layout of a quantised cache.

    The first ``sinks`` tokens and at least the last ``window`` tokens stay in full
    precision. What leaves the window is quantised in blocks of 128 tokens, so up to 127
    tokens more than the window are held in full precision.

    Attributes:
      key_bits: width of keys: 2, 4, 8, or 16 for full precision.
      value_bits: width of values, likewise.
      group_size: values that share a scale; a divisor of 128 where keys are grouped by
        channel, and of a head's width.
      window: last tokens in full precision.
      sinks: first tokens in full precision; attention sinks are among them.
      key_axis: groups of keys are tokens of one "channel" (KIVI), or channels of one
        "token" (the paper's).
      scale_dtype: of scales and zeros: "bfloat16", or "float32" where a channel's
        values lie hundreds of their ranges from 0, as biases of keys can put them: a
        bfloat16 zero is off by up to 1/128 of itself, and that widens the scale.
      rotate: turn queries and keys by a Hadamard matrix before keys are stored, which
        spreads outlying channels; for `key_axis` "token".
    """

    key_bits: int = 4
    value_bits: int = 2
    group_size: int = 64
    window: int = 128
    sinks: int = 4
    key_axis: Axis = "channel"
    scale_dtype: str = "bfloat16"
    rotate: bool = False

    def __post_init__(self):
        """Check what can be checked without a head's width."""
        for name in ("key_bits", "value_bits"):
            if getattr(self, name) not in WIDTHS:
                raise ValueError(
                    f"{name}: expected one of {WIDTHS}, got {getattr(self, name)}"
                )
        for name in ("window", "sinks"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"{name}: expected at least 0 tokens, got {value!r}")
        if self.group_size < 1:
            raise ValueError(
                f"group_size: expected at least 1 value, got {self.group_size}"
            )
        # The head's width is unknown here; the group itself replaces it.
        check_layout(16, self.group_size, self.key_axis, self.group_size)
        check_choice("scale_dtype", self.scale_dtype, SCALE_DTYPES)

    def check_heads(self, head_width: int) -> None:
        """Check that the groups fit a head.

        Args:
          head_width: channels of a head.

        Raises:
          ValueError: if they do not.
        """
        # Values are always grouped by token, whatever the keys do.
        for axis in {self.key_axis, "token"}:
            check_layout(16, self.group_size, axis, head_width)
        if self.rotate:
            check_width(head_width)

    def recent_slots(self, capacity: int) -> int:
        """Number of slots in full precision: sinks, window, and one filling block.

        Args:
          capacity: tokens of a sequence at most.

        Returns:
          ``sinks + window + 128``, or the capacity where that is less.
        """
        return min(self.sinks + self.window + BLOCK, capacity)

    def block_slots(self, capacity: int) -> int:
        """Packed blocks of a sequence at full length, at least one.

        Args:
          capacity: tokens of a sequence at most.

        Returns:
          The number of blocks.
        """
        return max(1, (capacity - self.sinks - self.window) // BLOCK)


class EffectiveBits(NamedTuple):
    """Bits of a quantised element, scales and zeros counted in.

    Attributes:
      keys: of a key.
      values: of a value.
    """

    keys: float
    values: float

    @property
    def mean(self) -> float:
        """Of keys and values together."""
        return (self.keys + self.values) / 2


def effective_bits(config: CacheConfig) -> EffectiveBits:
    """Bits per stored element, ``bits + (bits of scale and zero) / group_size``.

    Sinks and window are not counted, since their share falls with the length;
    `jeff_llm.kv.nbytes` counts all that a cache holds.

    Args:
      config: the cache's configuration.

    Returns:
      Bits of a key and of a value.

    >>> effective_bits(CacheConfig(key_bits=4, value_bits=2, group_size=64))
    EffectiveBits(keys=4.5, values=2.5)
    """
    more = 2 * 8 * jnp.dtype(config.scale_dtype).itemsize / config.group_size
    return EffectiveBits(
        *(
            float(bits) if bits == 16 else bits + more
            for bits in (config.key_bits, config.value_bits)
        )
    )
