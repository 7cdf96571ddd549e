"""New keys and values on their way into a cache."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

__all__ = ["Pending", "store"]


class Pending(NamedTuple):
    """New tokens of all layers, until they are stored.

    They are kept apart from the arrays that a layer reads. Where a loop over layers
    both reads and writes an array, the compiler copies all of it in every layer.

    Attributes:
      keys: [layers, batch, tokens, kv_heads, head_width].
      values: likewise.
      positions: position of each token.
      kept: the tokens to store.
    """

    keys: Any
    values: Any
    positions: Any
    kept: Any

    @staticmethod
    def empty(
        stored: Shaped[Array, "layers batch kv_heads slots head_width"],
        positions: Int[Array, "batch tokens"],
        kept: Bool[Array, "batch tokens"],
    ) -> "Pending":
        """Room for new tokens.

        Args:
          stored: gives sizes and dtype.
          positions: position of each token.
          kept: the tokens to store.

        Returns:
          Zeros for keys and values.
        """
        layers, batch, kv_heads, _, width = stored.shape
        shape = (layers, batch, positions.shape[1], kv_heads, width)
        empty = jnp.zeros(shape, stored.dtype)
        return Pending(empty, empty, positions, kept)

    def put(
        self,
        layer: Int[Array, ""],
        key: Float[Array, "batch tokens kv_heads head_width"],
        value: Float[Array, "batch tokens kv_heads head_width"],
    ) -> "Pending":
        """Hold a layer's new tokens.

        Args:
          layer: number of the layer.
          key: their keys.
          value: their values.

        Returns:
          The pending tokens with them.
        """

        def put(held: Array, new: Array) -> Array:
            new = new.astype(held.dtype)
            return jax.lax.dynamic_update_index_in_dim(held, new, layer, 0)

        return self._replace(keys=put(self.keys, key), values=put(self.values, value))


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
