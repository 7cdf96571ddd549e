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
from jaxtyping import Array, Bool, Float, Int, Shaped

from jeff_llm.models.attention import attend, visible
from jeff_llm.models.config import DecoderConfig

__all__ = [
    "Cache",
    "PlainCache",
    "init_cache",
    "store",
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
    """

    # Leaves may be shapes as well, as `jax.eval_shape` gives them.
    keys: Any
    values: Any
    lengths: Any
    fresh: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def capacity(self) -> int:
        """Slots of a sequence."""
        return self.keys.shape[3]

    def begin(
        self,
        positions: Int[Array, "batch tokens"],
        mask: Bool[Array, "batch tokens"],
    ) -> "PlainCache":
        """Nothing to do; see `Cache.begin`.

        Args:
          positions: position of each new token in its sequence.
          mask: the new tokens that are real.

        Returns:
          The same cache.
        """
        return self

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
        # A slot past the end drops the write, so padding is not stored.
        slots = jnp.where(mask, positions, self.capacity)
        new = dataclasses.replace(
            self,
            keys=store(self.keys, layer, slots, key),
            values=store(self.values, layer, slots, value),
        )
        if self.fresh:
            seen = visible(positions, positions, window) & mask[:, None]
            return attend(query, key.swapaxes(1, 2), value.swapaxes(1, 2), seen), new
        keys, values = (
            jax.lax.dynamic_index_in_dim(stored, layer, keepdims=False)
            for stored in (new.keys, new.values)
        )
        seen = visible(positions, jnp.arange(self.capacity)[None], window)
        return attend(query, keys, values, seen), new

    def advance(self, count: Int[Array, " batch"]) -> "PlainCache":
        """Count new tokens in; see `Cache.advance`.

        Args:
          count: new real tokens of each sequence.

        Returns:
          The cache.
        """
        # `fresh` is static: the next call is another program, which reads the cache.
        return dataclasses.replace(self, lengths=self.lengths + count, fresh=False)

    def repeat_rows(self, rows: Int[Array, " new_batch"]) -> "PlainCache":
        """Copy sequences; see `Cache.repeat_rows`.

        Args:
          rows: for each new sequence the one that it continues.

        Returns:
          The new cache.
        """
        keys, values = self.keys[:, rows], self.values[:, rows]
        return PlainCache(keys, values, self.lengths[rows], self.fresh)


def store(
    stored: Shaped[Array, "layers batch kv_heads slots *rest"],
    layer: Int[Array, ""] | int | None,
    slots: Int[Array, "batch tokens"],
    new: Shaped[Array, "batch tokens *layers_and_rest"],
) -> Shaped[Array, "layers batch kv_heads slots *rest"]:
    """Write entries in place: ``stored[layer, b, :, slots[b, t]] = new[b, t]``.

    Args:
      stored: entries of all layers.
      layer: the layer to write to, or None for all of them.
      slots: slot of each new entry; one past the end drops it.
      new: the entries, [batch, tokens, kv_heads, ...], or with all layers
        [batch, tokens, layers, kv_heads, ...].

    Returns:
      The entries with the new ones among them.
    """
    # Rows are a batching axis of the scatter. With indices of rows instead, the
    # compiler would not know that a cache split by rows over devices can stay split.
    chosen = () if layer is None else (0,)
    dimensions = jax.lax.ScatterDimensionNumbers(
        update_window_dims=tuple(range(2, new.ndim)),
        inserted_window_dims=(*chosen, 3),
        scatter_dims_to_operand_dims=(*chosen, 3),
        operand_batching_dims=(1,),
        scatter_indices_batching_dims=(0,),
    )
    index = slots[..., None]
    if layer is not None:
        index = jnp.concatenate([jnp.full_like(index, layer), index], axis=-1)
    return jax.lax.scatter(
        stored, index, new.astype(stored.dtype), dimensions, mode="drop"
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
