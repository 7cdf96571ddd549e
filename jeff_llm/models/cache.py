"""The interface of a key-value cache, and the plain one.

The decoder scans over its layers with the cache as carry and uses only the interface
`Cache`. Any class with that interface is a drop-in, such as the quantised cache
(`jeff_llm.kv`), whose layers may have different widths.

Slots are filled without gaps: the slot of a token is its position in its sequence, so
padding on either side takes no room and sequences of a batch may differ in length.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jeff_llm.models.attention import attend, attend_part
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.partial import join
from jeff_llm.models.pending import Pending, store
from jeff_llm.models.view import NEVER, View, from_rows, of_rows, to_rows

__all__ = [
    "Cache",
    "PlainCache",
    "init_cache",
]


@runtime_checkable
class Cache(Protocol):
    """A pytree that stores keys and values of all layers."""

    @property
    def lengths(self) -> Int[Array, " batch"]:
        """Tokens stored for each sequence."""
        ...

    @property
    def capacity(self) -> int:
        """Slots of a sequence."""
        ...

    def begin(
        self,
        positions: Int[Array, "batch tokens"],
        mask: Bool[Array, "batch tokens"],
    ) -> "Cache":
        """Prepare for new tokens, before the first layer.

        Args:
          positions: position of each new token in its sequence.
          mask: the new tokens that are real.

        Returns:
          The cache, of the structure that it keeps until `advance`.
        """
        ...

    def attend(
        self,
        layer: Int[Array, ""],
        query: Float[Array, "batch tokens heads head_width"],
        key: Float[Array, "batch tokens kv_heads head_width"],
        value: Float[Array, "batch tokens kv_heads head_width"],
        *,
        positions: Int[Array, "batch tokens"],
        mask: Bool[Array, "batch tokens"],
        window: Int[Array, ""] | None,
    ) -> tuple[Float[Array, "batch tokens heads head_width"], "Cache"]:
        """Store new keys and values of a layer, and attend over all stored ones.

        A token sees its sequence up to itself, at most ``window`` tokens of it.

        Args:
          layer: number of the layer.
          query: rotated queries of the new tokens.
          key: their rotated keys.
          value: their values.
          positions: position of each new token in its sequence, ``lengths`` for the
            first.
          mask: the new tokens that are real; the others are not stored, and their
            output is arbitrary but finite.
          window: tokens seen, or None for all.

        Returns:
          The attention's output, and the cache with the layer's new entries.
        """
        ...

    def advance(self, count: Int[Array, " batch"]) -> "Cache":
        """Count new tokens in, once all layers have stored them.

        Args:
          count: new real tokens of each sequence.

        Returns:
          The cache.
        """
        ...

    def repeat_rows(self, rows: Int[Array, " new_batch"]) -> "Cache":
        """Copy sequences into a new cache, such as a prefix shared by many.

        Args:
          rows: for each new sequence the one that it continues.

        Returns:
          The new cache.
        """
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PlainCache:
    """Keys and values in full precision, in one array each.

    Invariant: slots ``lengths[b] ..`` of sequence b are arbitrary and never read.

    Attributes:
      keys: [layers, batch, kv_heads, slots, head_width]; a head's slots are contiguous
        for its matrix products.
      values: likewise.
      lengths: tokens stored for each sequence, [batch].
      fresh: nothing is stored yet, so the first tokens attend among themselves alone;
        known when the program is compiled.
      pending: new tokens, between `begin` and `advance`.
    """

    # Leaves may be shapes as well, as `jax.eval_shape` gives them.
    keys: Any
    values: Any
    lengths: Any
    fresh: bool = dataclasses.field(default=False, metadata={"static": True})
    pending: Pending | None = None

    @property
    def capacity(self) -> int:
        """Slots of a sequence."""
        return self.keys.shape[3]

    def begin(
        self,
        positions: Int[Array, "batch tokens"],
        mask: Bool[Array, "batch tokens"],
    ) -> "PlainCache":
        """Make room for new tokens; see `Cache.begin`.

        Args:
          positions: position of each new token in its sequence.
          mask: the new tokens that are real.

        Returns:
          The cache.
        """
        if self.fresh:  # nothing is read, so each layer is written at once
            return self
        pending = Pending.empty(self.keys, positions, mask)
        return dataclasses.replace(self, pending=pending)

    def attend(
        self,
        layer: Int[Array, ""],
        query: Float[Array, "batch tokens heads head_width"],
        key: Float[Array, "batch tokens kv_heads head_width"],
        value: Float[Array, "batch tokens kv_heads head_width"],
        *,
        positions: Int[Array, "batch tokens"],
        mask: Bool[Array, "batch tokens"],
        window: Int[Array, ""] | None,
    ) -> tuple[Float[Array, "batch tokens heads head_width"], "PlainCache"]:
        """Store and attend; see `Cache.attend`.

        Args:
          layer: number of the layer.
          query: rotated queries of the new tokens.
          key: their rotated keys.
          value: their values.
          positions: position of each new token in its sequence.
          mask: the new tokens that are real.
          window: tokens seen, or None for all.

        Returns:
          The attention's output, and the cache with the layer's new entries.
        """
        # Heads before tokens: B K T H.
        keys, values = key.swapaxes(1, 2), value.swapaxes(1, 2)
        among = View(positions, jnp.where(mask, positions, NEVER), window)
        if self.fresh:
            return attend(query, keys, values, among), self._write(
                layer, key, value, positions, mask
            )
        if self.pending is None:
            raise ValueError("cache: expected begin() ahead of attend()")
        # Stored tokens and the new ones are two parts, joined by log-sum-exp.
        slots = jnp.arange(self.capacity)
        slots = jnp.where(slots < self.lengths[:, None], slots, NEVER)
        rows, shared = to_rows(query, key.shape[2]), query.shape[2] // key.shape[2]
        before = of_rows(View(positions, slots, window), shared)
        parts = [
            attend_part(rows, self.keys, self.values, before, layer=layer),
            attend_part(rows, keys, values, of_rows(among, shared)),
        ]
        pending = self.pending.put(layer, key, value)
        return from_rows(join(parts), query), dataclasses.replace(self, pending=pending)

    def advance(self, count: Int[Array, " batch"]) -> "PlainCache":
        """Count new tokens in; see `Cache.advance`.

        Args:
          count: new real tokens of each sequence.

        Returns:
          The cache.
        """
        after = self
        if self.pending is not None:
            keys, values, *where = self.pending
            # Layers behind tokens, as `store` takes them.
            keys, values = (x.transpose(1, 2, 0, 3, 4) for x in (keys, values))
            after = self._write(None, keys, values, *where)
        # `fresh` is static: the next call is another program, which reads the cache.
        return dataclasses.replace(
            after, lengths=self.lengths + count, fresh=False, pending=None
        )

    def repeat_rows(self, rows: Int[Array, " new_batch"]) -> "PlainCache":
        """Copy sequences; see `Cache.repeat_rows`.

        Args:
          rows: for each new sequence the one that it continues.

        Returns:
          The new cache.
        """
        keys, values = self.keys[:, rows], self.values[:, rows]
        return PlainCache(keys, values, self.lengths[rows], self.fresh)

    def _write(
        self,
        layer: Int[Array, ""] | None,
        key: Array,
        value: Array,
        positions: Int[Array, "batch tokens"],
        mask: Bool[Array, "batch tokens"],
    ) -> "PlainCache":
        # A slot past the end drops the write, so padding is not stored.
        slots = jnp.where(mask, positions, self.capacity)
        return dataclasses.replace(
            self,
            keys=store(self.keys, layer, slots, key),
            values=store(self.values, layer, slots, value),
        )


def init_cache(
    config: DecoderConfig,
    batch_size: int,
    capacity: int,
    dtype: jnp.dtype | type = jnp.float32,
) -> PlainCache:
    """An empty cache.

    Args:
      config: the decoder's configuration.
      batch_size: sequences.
      capacity: slots of a sequence, in tokens.
      dtype: of keys and values.

    Returns:
      The cache, with all lengths 0.

    Raises:
      ValueError: if a size is not positive.
    """
    for name, size in (("batch_size", batch_size), ("capacity", capacity)):
        if size < 1:
            raise ValueError(f"{name}: expected at least 1, got {size}")
    shape = (
        config.num_layers,
        batch_size,
        config.num_kv_heads,
        capacity,
        config.head_width,
    )
    # An array each, so that a cache can be donated.
    keys, values = jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)
    return PlainCache(keys, values, jnp.zeros(batch_size, jnp.int32), fresh=True)
