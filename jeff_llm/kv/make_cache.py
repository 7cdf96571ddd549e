"""A factory of the decoder's quantised cache.

`MakeCache` replaces `jeff_llm.models.cache.init_cache` in `jeff_llm.generate.generate`
or beside `jeff_llm.models.decoder.apply`.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from jeff_llm.kv import ring, storage
from jeff_llm.kv.attention import Implementation
from jeff_llm.kv.checks import check_sizes
from jeff_llm.kv.config import CacheConfig
from jeff_llm.kv.decoder_cache import DecoderCache
from jeff_llm.models.config import DecoderConfig

__all__ = ["MakeCache"]


@dataclasses.dataclass(frozen=True)
class MakeCache:
    """Makes a decoder's quantised cache; pass it as ``make_cache``.

    It is hashable: equal values are one static argument, so a program is compiled once.

    Attributes:
      config: widths and layout.
      bits: widths of keys and values of each layer, [layers, 2], as
        `jeff_llm.kv.allocate_bits` gives them; those of ``config`` by default.
      implementation: of attention over packed tokens; see `jeff_llm.kv.attend`.
    """

    config: CacheConfig = dataclasses.field(default_factory=CacheConfig)
    bits: Any = None
    implementation: Implementation | None = None

    def __post_init__(self):
        """Keep the widths as tuples, which can be compared and hashed."""
        if self.bits is not None:
            table = np.asarray(self.bits)
            if table.ndim != 2 or table.shape[1] != 2 or table.dtype.kind not in "iu":
                raise ValueError(
                    "bits: expected whole numbers of shape [layers, 2], got shape "
                    f"{table.shape} of {table.dtype}"
                )
            object.__setattr__(self, "bits", tuple(map(tuple, table.tolist())))

    def __call__(
        self, config: DecoderConfig, batch_size: int, capacity: int, dtype: Any
    ) -> DecoderCache:
        """An empty cache.

        Args:
          config: the decoder's configuration.
          batch_size: sequences.
          capacity: tokens of a sequence at most.
          dtype: of the tokens in full precision.

        Returns:
          The cache, with all lengths 0.

        Raises:
          ValueError: if a size is not positive, the widths are not one pair per layer,
            or groups do not fit.
        """
        check_sizes(batch_size=batch_size, capacity=capacity)
        layers = config.num_layers
        if self.bits is not None and len(self.bits) != layers:
            raise ValueError(
                f"bits: expected a pair for each of {layers} layers, got "
                f"{len(self.bits)}"
            )
        self.config.check_heads(config.head_width)
        rows = self.bits or ((self.config.key_bits, self.config.value_bits),) * layers
        # Layers of equal widths share one stack: arrays of one shape and one dtype.
        kinds = tuple(sorted(set(rows)))
        configs = tuple(
            dataclasses.replace(self.config, key_bits=key, value_bits=value)
            for key, value in kinds
        )
        shape = (batch_size, config.num_kv_heads, capacity, config.head_width)
        places = [
            [layer for layer, row in enumerate(rows) if row == kind] for kind in kinds
        ]
        blocks = tuple(
            storage.empty_blocks(config, (len(place), *shape), dtype)
            for config, place in zip(configs, places, strict=True)
        )
        # Recent tokens have full precision in every layer, so one array holds them all.
        recent = ring.empty_recent(self.config, (layers, *shape), dtype)
        return DecoderCache(
            blocks,
            recent,
            jnp.zeros(batch_size, jnp.int32),
            capacity,
            configs,
            tuple(tuple(place) for place in places),
            self.implementation,
            fresh=True,
        )
