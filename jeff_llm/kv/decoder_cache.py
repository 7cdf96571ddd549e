"""The quantised cache of jeff's decoder: a drop-in for the plain one.

`jeff_llm.kv.MakeCache` makes it. Layers may have different widths: layers of equal
widths form one stack of arrays, and a table finds a layer in its stack.
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
from jeff_llm.kv.rotation import rotate
from jeff_llm.models.attention import attend as attend_plain
from jeff_llm.models.attention import attend_part
from jeff_llm.models.partial import Partial
from jeff_llm.models.pending import Pending
from jeff_llm.models.view import NEVER, View, of_rows

__all__ = ["DecoderCache"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecoderCache:
    """Keys and values of all layers; implements `jeff_llm.models.cache.Cache`.

    Invariants: as in `jeff_llm.kv.storage`; a layer is in exactly one stack.

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
      pending: new tokens, between `begin` and `advance`.
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
    pending: Pending | None = None

    def begin(
        self,
        positions: Int[Array, "batch tokens"],
        mask: Bool[Array, "batch tokens"],
    ) -> "DecoderCache":
        """Make room for many new tokens; see `jeff_llm.models.cache.Cache.begin`.

        Args:
          positions: position of each new token in its sequence.
          mask: the new tokens that are real.

        Returns:
          The cache.
        """
        # A prompt into an empty cache, and a single token, are written layer by layer.
        if self.fresh or mask.shape[1] == 1:
            return self
        kept = mask & (positions < self.capacity)
        pending = Pending.empty(self.recent.keys, positions, kept)
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
    ) -> tuple[Float[Array, "batch tokens heads head_width"], "DecoderCache"]:
        """Store and attend; see `jeff_llm.models.cache.Cache.attend`.

        New tokens see each other exactly, and earlier tokens as they are stored.

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
        view = View(positions, jnp.where(mask, positions, NEVER), window)
        if self.fresh:  # nothing is stored: exact attention within the prompt
            out = attend_plain(query, keys, values, view)
            return out, self._write_prompt(layer, new, positions, kept)

        # Stored tokens and the new chunk are two parts, joined by log-sum-exp.
        def chunk(rows: Array) -> Partial:
            shared = rows.shape[2] // query.shape[1]
            return attend_part(rows, keys, values, of_rows(view, shared))

        nothing = jnp.zeros_like(mask)
        out = self._attend(layer, query, positions, window, nothing, chunk)
        return out, self._wait(layer, new)

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
        # Under jit a full cache cannot raise; it drops what has no room.
        lengths = jnp.minimum(self.lengths + count, self.capacity)
        count = lengths - self.lengths
        if self.pending is not None:
            return self._store(self.pending).advance(count)
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
        # Words are copied: a shared prefix is not quantised again.
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

    def _write_prompt(
        self, layer: Array, new: ring.Recent, positions: Array, kept: Array
    ) -> "DecoderCache":
        def write(stack: int, place: Array) -> tuple:
            config, blocks = self.configs[stack], self.blocks[stack]
            blocks = storage.write_prompt(config, blocks, place, new, positions, kept)
            return (*self.blocks[:stack], blocks, *self.blocks[stack + 1 :])

        blocks = self._in_stack(layer, write)
        after = dataclasses.replace(self, blocks=blocks)
        # The cache was empty, so the new tokens are all there are.
        total = kept.sum(1, dtype=self.lengths.dtype)
        return after._write_last(layer, new, total, positions, kept)

    def _wait(self, layer: Array, new: ring.Recent) -> "DecoderCache":
        """Hold a layer's new tokens until `advance`."""
        if self.pending is None:
            raise ValueError(
                "cache: expected begin() ahead of several tokens' attend()"
            )
        return dataclasses.replace(self, pending=self.pending.put(layer, *new))

    def _store(self, pending: Pending) -> "DecoderCache":
        """Store the pending tokens of all layers."""
        *pair, positions, kept = pending
        tokens = ring.Recent(*pair)
        blocks = tuple(
            storage.write_chunk(
                config,
                stack,
                self.recent,
                tokens,
                self.lengths,
                positions,
                kept,
                place if len(self.places) > 1 else None,
            )
            for config, stack, place in zip(
                self.configs, self.blocks, self.places, strict=True
            )
        )
        total = self.lengths + kept.sum(1, dtype=self.lengths.dtype)
        new = ring.Recent(*(x.transpose(1, 2, 0, 3, 4) for x in tokens))
        after = dataclasses.replace(self, blocks=blocks, pending=None)
        return after._write_last(None, new, total, positions, kept)

    def _write_last(
        self,
        layer: Array | None,
        new: ring.Recent,
        total: Array,
        positions: Array,
        kept: Array,
    ) -> "DecoderCache":
        config, slots = self.configs[0], self.recent.keys.shape[3]
        kept = kept & ring.stays_recent(config, slots, total, positions)
        recent = ring.write_recent(config, self.recent, layer, new, positions, kept)
        return dataclasses.replace(self, recent=recent)

    def _attend(
        self,
        layer: Array,
        query: Array,
        positions: Array,
        window: Array | None,
        new: Bool[Array, "batch tokens"],
        more: Any,
    ) -> Array:
        """Attend over the stored tokens, of which ``new`` are not yet counted."""
        config = self.configs[0]
        count = storage.stored_blocks(config, self.lengths)
        # Lengths count in `advance`; a token that was just written is seen already.
        held = ring.recent_positions(
            config,
            self.recent.keys.shape[3],
            self.lengths + new.sum(1, dtype=self.lengths.dtype),
            count,
        )

        def attend(stack: int, place: Array) -> Array:
            # No block exists yet, so the packed part is left out of the program.
            blocks = (None, None) if self.fresh else self.blocks[stack]
            # A layer is read where it lies: cut out of its stack it would be copied.
            return attend_stored(
                query,
                Stored(*blocks, count, *self.recent, held, layer, place),
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
        # The layer is a tracer in the decoder's scan, so a switch picks its stack.
        table = jnp.array([found[number] for number in range(len(found))])
        branches = [functools.partial(branch, s) for s in range(len(self.places))]
        return jax.lax.switch(table[layer, 0], branches, table[layer, 1])
