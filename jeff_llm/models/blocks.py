"""The parts of a decoder's layer; `jeff_llm.models.decoder` stacks them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jeff_llm.models import rope
from jeff_llm.models.attention import attend
from jeff_llm.models.cache import Cache
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.view import NEVER, View

__all__ = ["Attention", "Block", "Linear", "RMSNorm", "Tokens", "kernel_init"]

kernel_init = nnx.initializers.normal(0.02)


class Tokens(NamedTuple):
    """Shared by all layers: positions, masks and rotary angles.

    Attributes:
      positions: place of each token in its sequence.
      mask: the real tokens.
      segments: number of each token's text in its row, or None.
      cosine: of position times frequency.
      sine: likewise.
    """

    positions: Int[Array, "batch tokens"]
    mask: Bool[Array, "batch tokens"]
    segments: Int[Array, "batch tokens"] | None
    cosine: Float[Array, "batch tokens half"]
    sine: Float[Array, "batch tokens half"]


class Linear(nnx.Module):
    """``x @ kernel + bias``."""

    def __init__(self, fan_in: int, fan_out: int, bias: bool, *, rngs: nnx.Rngs):
        """Create the kernel, and the bias where there is one.

        Args:
          fan_in: width of the input.
          fan_out: width of the output.
          bias: add a bias.
          rngs: random keys for the initial parameters.
        """
        self.kernel = nnx.Param(kernel_init(rngs.params(), (fan_in, fan_out)))
        self.bias = nnx.Param(jnp.zeros(fan_out)) if bias else None

    def __call__(self, x: Float[Array, "... fan_in"]) -> Float[Array, "... fan_out"]:
        """Multiply, in the dtype of ``x``."""
        out = x @ self.kernel.get_value()
        if self.bias is not None:
            out = out + self.bias.get_value()
        return out.astype(x.dtype)


class RMSNorm(nnx.Module):
    """``x / sqrt(mean(x^2) + eps) * scale``, in float32."""

    def __init__(self, width: int, eps: float):
        """Create the scale.

        Args:
          width: width of the last axis.
          eps: added to the mean square.
        """
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(width))

    def __call__(self, x: Float[Array, "... width"]) -> Float[Array, "... width"]:
        """Normalise the last axis."""
        # Squares of bfloat16 activations would lose the small ones in the sum.
        wide = x.astype(jnp.float32)
        root = jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + self.eps)
        return (wide * root).astype(x.dtype) * self.scale.get_value().astype(x.dtype)


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        """Create the projections.

        Args:
          config: the decoder's configuration.
          rngs: random keys for the initial parameters.
        """
        query = config.num_heads * config.head_width
        shared = config.num_kv_heads * config.head_width
        bias = config.attention_bias
        self.head_width = config.head_width
        self.query = Linear(config.width, query, bias, rngs=rngs)
        self.key = Linear(config.width, shared, bias, rngs=rngs)
        self.value = Linear(config.width, shared, bias, rngs=rngs)
        self.output = Linear(query, config.width, config.output_bias, rngs=rngs)
        norm = config.qk_norm
        self.query_norm = RMSNorm(config.head_width, config.norm_eps) if norm else None
        self.key_norm = RMSNorm(config.head_width, config.norm_eps) if norm else None

    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        tokens: Tokens,
        layer: Int[Array, ""],
        window: Int[Array, ""] | None,
        cache: Cache | None,
    ) -> tuple[Float[Array, "batch tokens width"], Cache | None]:
        """Attend, over the cache if one is given."""
        heads = (*x.shape[:2], -1, self.head_width)  # B T N H
        query = self.query(x).reshape(heads)
        key, value = self.key(x).reshape(heads), self.value(x).reshape(heads)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        query = rope.rotate(query, tokens.cosine, tokens.sine)
        key = rope.rotate(key, tokens.cosine, tokens.sine)
        if cache is None:
            view = _view(tokens, window)
            # Heads before tokens: B K T H.
            out = attend(query, key.swapaxes(1, 2), value.swapaxes(1, 2), view)
        else:
            out, cache = cache.attend(
                layer,
                query,
                key,
                value,
                positions=tokens.positions,
                mask=tokens.mask,
                window=window,
            )
        return self.output(out.reshape(*x.shape[:2], -1)), cache


class Block(nnx.Module):
    """Attention and SwiGLU, each behind a norm and added to the residual stream."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        """Create the parts.

        Args:
          config: the decoder's configuration.
          rngs: random keys for the initial parameters.
        """
        width, hidden = config.width, config.mlp_width
        self.attention_norm = RMSNorm(width, config.norm_eps)
        self.attention = Attention(config, rngs=rngs)
        self.mlp_norm = RMSNorm(width, config.norm_eps)
        self.gate = Linear(width, hidden, False, rngs=rngs)
        self.up = Linear(width, hidden, False, rngs=rngs)
        self.down = Linear(hidden, width, False, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        tokens: Tokens,
        layer: Int[Array, ""],
        window: Int[Array, ""] | None,
        cache: Cache | None,
    ) -> tuple[Float[Array, "batch tokens width"], Cache | None]:
        """One layer."""
        attended, cache = self.attention(
            self.attention_norm(x), tokens, layer, window, cache
        )
        x = x + attended
        hidden = self.mlp_norm(x)
        hidden = jax.nn.silu(self.gate(hidden)) * self.up(hidden)
        return x + self.down(hidden), cache


def _view(tokens: Tokens, window: Int[Array, ""] | None) -> View:
    """Which tokens of the same row each token sees."""
    segments = None if tokens.segments is None else (tokens.segments, tokens.segments)
    slots = jnp.where(tokens.mask, tokens.positions, NEVER)
    return View(tokens.positions, slots, window, segments)
