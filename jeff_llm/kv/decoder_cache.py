"""The quantised cache of jeff's decoder: a drop-in for the plain one.

`jeff_llm.kv.MakeCache` makes it. Layers may have widths of their own: those of equal
widths are one stack of arrays, and a table finds a layer in its stack.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jeff_llm.kv import ring, storage
from jeff_llm.kv.attention import (
    Implementation,
    Stored,
    attend_stored,
)
from jeff_llm.kv.checks import check_room
from jeff_llm.kv.config import CacheConfig
from jeff_llm.kv.partial import Partial, partial_attention
from jeff_llm.kv.rotation import rotate
from jeff_llm.models.cache import attend as attend_plain
from jeff_llm.models.cache import visible

__all__ = ["DecoderCache"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecoderCache:
    """Keys and values of all layers, as `jeff_llm.models.cache.Cache` wants them.

    Invariants: as in `jeff_llm.kv.storage`; a layer stands in exactly one stack.

    Attributes:
      blocks: packed keys and values of each stack, [layers of the stack, batch,
        kv_heads, blocks, ...].
      recent: tokens in full precision, of all layers.
      lengths: tokens of each sequence, [batch].
      capacity: tokens of a sequence at most.
      configs: widths and layout of each stack.
      places: numbers of the layers of each stack.
      implementation: of attention over packed tokens.
      fresh: nothing is stored yet, so the first tokens attend among themselves alone.
    """

    blocks: tuple[storage.Blocks, ...]
    # Leaves may be shapes as well, as `jax.eval_shape` gives them.
    recent: ring.Recent
    lengths: Any
    capacity: int = dataclasses.field(metadata={"static": True})
    configs: tuple[CacheConfig, ...] = dataclasses.field(metadata={"static": True})
    places: tuple[tuple[int, ...], ...] = dataclasses.field(metadata={"static": True})
    implementation: Implementation | None = dataclasses.field(metadata={"static": True})
    fresh: bool = dataclasses.field(metadata={"static": True})

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
    ) -> tuple[Float[Array, "batch tokens heads head_width"], "DecoderCache"]:
        """Store and attend; see `jeff_llm.models.cache.Cache.attend`.

        New tokens see each other as they are, and what came before as it is stored.

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
        if self.configs[0].rotate:
            query, key = rotate(query), rotate(key)
        single = query.shape[1] == 1
        kept = mask & (positions < self.capacity)
        new = ring.Recent(key, value)
        if single:
            after = self._write_one(layer, new, positions, kept)
            out = after._attend(layer, query, positions, window, kept, None)
            return out, after
        # Heads before tokens: B K T H.
        keys, values = key.swapaxes(1, 2), value.swapaxes(1, 2)
        seen = visible(positions, positions, window) & mask[:, None]
        if self.fresh:
            out = attend_plain(query, keys, values, seen)
            return out, self._write_many(layer, new, positions, kept)

        def chunk(rows: Array) -> Partial:
            groups = rows.shape[2] // seen.shape[1]
            return partial_attention(rows, keys, values, jnp.tile(seen, (1, groups, 1)))

        nothing = jnp.zeros_like(mask)
        out = self._attend(layer, query, positions, window, nothing, chunk)
        # Written after all is read, or the compiler would copy the cache.
        new, out = jax.lax.optimization_barrier((new, out))
        return out, self._write_many(layer, new, positions, kept)

    def advance(self, count: Int[Array, " batch"]) -> "DecoderCache":
        """Count new tokens in, and quantise the blocks that left the window.

        Args:
          count: new real tokens of each sequence.

        Returns:
          The cache.

        Raises:
          ValueError: if lengths are known and exceed the capacity; see
            `jeff_llm.kv.append`.
        """
        check_room(self.lengths + count, self.capacity)
        lengths = jnp.minimum(self.lengths + count, self.capacity)
        count = lengths - self.lengths
        blocks = tuple(
            storage.flush(
                config,
                stack,
                self.recent,
                lengths,
                count,
                place if len(self.places) > 1 else None,
            )
            for config, stack, place in zip(
                self.configs, self.blocks, self.places, strict=True
            )
        )
        return dataclasses.replace(self, blocks=blocks, lengths=lengths, fresh=False)

    def repeat_rows(self, rows: Int[Array, " new_batch"]) -> "DecoderCache":
        """Copy sequences; see `jeff_llm.models.cache.Cache.repeat_rows`.

        Args:
          rows: for each new sequence the one that it continues.

        Returns:
          The new cache.
        """
        blocks, recent = jax.tree.map(lambda x: x[:, rows], (self.blocks, self.recent))
        lengths = self.lengths[rows]
        return dataclasses.replace(self, blocks=blocks, recent=recent, lengths=lengths)

    def _write_one(
        self, layer: Array, new: ring.Recent, positions: Array, kept: Array
    ) -> "DecoderCache":
        recent = ring.write_recent(
            self.configs[0], self.recent, layer, new, positions, kept
        )
        return dataclasses.replace(self, recent=recent)

    def _write_many(
        self, layer: Array, new: ring.Recent, positions: Array, kept: Array
    ) -> "DecoderCache":
        def write(stack: int, place: Array) -> tuple[tuple, ring.Recent]:
            blocks, recent = storage.write_chunk(
                self.configs[stack],
                self.blocks[stack],
                self.recent,
                place,
                layer,
                new,
                self.lengths,
                positions,
                kept,
            )
            return (*self.blocks[:stack], blocks, *self.blocks[stack + 1 :]), recent

        blocks, recent = self._in_stack(layer, write)
        return dataclasses.replace(self, blocks=blocks, recent=recent)

    def _attend(
        self,
        layer: Array,
        query: Array,
        positions: Array,
        window: Array | None,
        new: Bool[Array, "batch tokens"],
        more: Any,
    ) -> Array:
        """Attend over what is stored, ``new`` tokens of it not yet counted."""
        config = self.configs[0]
        count = storage.stored_blocks(config, self.lengths)
        recent = ring.Recent(
            *(
                jax.lax.dynamic_index_in_dim(x, layer, keepdims=False)
                for x in self.recent
            )
        )
        held = ring.recent_positions(
            config,
            recent.keys.shape[2],
            self.lengths + new.sum(1, dtype=self.lengths.dtype),
            count,
        )

        def attend(stack: int, place: Array) -> Array:
            keys, values = jax.tree.map(
                lambda x: jax.lax.dynamic_index_in_dim(x, place, keepdims=False),
                self.blocks[stack],
            )
            if self.fresh:
                keys = values = None
            return attend_stored(
                query,
                Stored(keys, values, count, *recent, held),
                positions,
                sinks=config.sinks,
                window=window,
                more=more,
                implementation=self.implementation,
            )

        return self._in_stack(layer, attend)

    def _in_stack(self, layer: Array, branch: Any) -> Any:
        """Call ``branch(stack, place)`` for the stack and place of a layer."""
        if len(self.places) == 1:
            return branch(0, layer)
        found = {
            number: (stack, place)
            for stack, numbers in enumerate(self.places)
            for place, number in enumerate(numbers)
        }
        table = jnp.array([found[number] for number in range(len(found))])
        branches = [functools.partial(branch, s) for s in range(len(self.places))]
        return jax.lax.switch(table[layer, 0], branches, table[layer, 1])
