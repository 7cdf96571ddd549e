"""The quality of a language model with a quantised cache, as the paper measures it.

Prefill attends to exact keys and values, so a text that is read in one pass never shows
the error of its cache. `perplexity` therefore reads a text piece by piece, as decoding
would, with everything behind the window as the cache stores it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jeff_llm.generate.decoding import MakeCache
from jeff_llm.kv.quantize import BLOCK, Axis, dequantize, quantize
from jeff_llm.models import decoder
from jeff_llm.models.cache import init_cache
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel

__all__ = ["activations", "perplexity", "squared_errors"]


def perplexity(
    model: LanguageModel,
    tokens: Int[Array, "rows tokens"],
    *,
    make_cache: MakeCache = init_cache,
    piece: int = BLOCK,
) -> Float[Array, " rows"]:
    """Perplexity of texts that are read piece by piece through a cache.

    ``exp(-mean log p(token | those before))`` over the tokens behind the first piece.

    Args:
      model: the model.
      tokens: token ids, rows of one length, a multiple of ``piece``.
      make_cache: makes the cache; the plain one by default.
      piece: tokens read at a time. They see each other exactly.

    Returns:
      Perplexity of each row.

    Raises:
      ValueError: if the rows are not two pieces or more, or longer than the context.
    """
    length = tokens.shape[1]
    if length % piece or length < 2 * piece:
        raise ValueError(
            f"tokens: expected rows of two pieces of {piece} or more, got {length}"
        )
    if length > model.config.max_positions:
        raise ValueError(
            f"tokens: expected at most {model.config.max_positions} in a row, the "
            f"model's context, got {length}"
        )
    return _perplexity(
        model.config, model.params, tokens, make_cache=make_cache, piece=piece
    )


def activations(
    model: LanguageModel, tokens: Int[Array, "rows tokens"]
) -> tuple[
    Float[Array, "layers rows kv_heads tokens head_width"],
    Float[Array, "layers rows kv_heads tokens head_width"],
]:
    """Keys (rotated by their positions) and values of all layers.

    Args:
      model: the model.
      tokens: token ids, rows of one length.

    Returns:
      Keys and values, as a cache sees them.
    """
    return _activations(model.config, model.params, tokens)


@functools.partial(jax.jit, static_argnames=("bits", "group_size", "axis"))
def squared_errors(
    x: Float[Array, "layers rows kv_heads tokens head_width"],
    bits: int,
    group_size: int,
    axis: Axis,
) -> Float[Array, " layers"]:
    """Squared error of quantisation per token, ``||x - x^||^2``.

    Args:
      x: keys or values of all layers, a multiple of 128 tokens.
      bits: width of a code.
      group_size: values that share a scale.
      axis: see `jeff_llm.kv.quantize`.

    Returns:
      Of each layer, the sum over heads and channels, and the mean over tokens.
    """

    def error(layer: Array) -> Array:
        restored = dequantize(quantize(layer, bits, group_size, axis))
        return jnp.sum((layer - restored) ** 2) / (layer.shape[0] * layer.shape[2])

    # Layer by layer, to hold the codes and restored values of one at a time.
    return jax.lax.map(error, x.astype(jnp.float32))


@functools.partial(jax.jit, static_argnames=("config", "make_cache", "piece"))
def _perplexity(
    config: DecoderConfig,
    params: PyTree,
    tokens: Int[Array, "rows tokens"],
    *,
    make_cache: MakeCache,
    piece: int,
) -> Float[Array, " rows"]:
    rows, length = tokens.shape
    cache: Any = make_cache(config, rows, length, params["embedding"].dtype)
    pieces = tokens.reshape(rows, -1, piece).swapaxes(0, 1)
    # The first piece gives only the logits of its last token: it sees no stored keys.
    last = jnp.full((rows, 1), piece - 1)
    first = decoder.apply(config, params, pieces[0], cache=cache, select=last)

    def read(carry: Any, tokens: Array) -> tuple[Any, Array]:
        before, cache = carry
        out = decoder.apply(config, params, tokens, cache=cache)
        # The last logits of a piece predict the first token of the next one.
        logits = jnp.concatenate([before, out.logits[:, :-1]], axis=1)
        chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
        loss = jnp.sum(jax.nn.logsumexp(logits, axis=-1) - chosen, axis=1)
        return (out.logits[:, -1:], out.cache), loss

    _, losses = jax.lax.scan(read, (first.logits, first.cache), pieces[1:])
    return jnp.exp(losses.sum(0) / (length - piece))


@functools.partial(jax.jit, static_argnames="config")
def _activations(
    config: DecoderConfig, params: PyTree, tokens: Int[Array, "rows tokens"]
) -> tuple[Array, Array]:
    rows, length = tokens.shape
    cache: Any = init_cache(config, rows, length, params["embedding"].dtype)
    # The head is not needed: one selected place keeps its product small.
    out = decoder.apply(
        config, params, tokens, cache=cache, select=jnp.zeros((rows, 1), jnp.int32)
    )
    return out.cache.keys, out.cache.values
