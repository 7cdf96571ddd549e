"""CelluFormer: a Transformer over the genes that a cell expresses.

A cell is the set of its expressed genes. A gene's token is its embedding scaled by its
expression; there are no positions. Post-norm layers follow, then the mean over tokens
and a linear head.

Different from the official code: padding is masked in attention and in the mean, so it
never changes an output; attention is that of each layer's own input (there, every layer
receives the embedding when attention is read); training and reading use the same gene
ids (there, they differ by one). Embeddings start with unit variance, which the
paper leaves open.

Nothing else in `jeff_graph.cells` needs this network: the interaction map takes any
``attention_fn(params, tokens)``.

References:
  "Weighted Diversified Sampling for Efficient Data-Driven Single-Cell Gene-Gene
  Interaction Discovery", arXiv 2410.15616, section 3.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from jeff_graph.cells.tokens import Tokens

__all__ = ["ApplyFn", "CelluFormer", "Config", "init", "make_apply", "make_attention"]

# apply_fn(params, tokens, key=None) -> logits [cells, classes].
ApplyFn: TypeAlias = Callable[..., Array]

# Finite, so that the softmax of a cell without genes is no NaN.
_UNSEEN = -1e30


class Config(NamedTuple):
    """Sizes of the network; those of the paper by default.

    Attributes:
      num_genes: genes, the vocabulary of tokens.
      num_classes: labels.
      width: of a token, a multiple of ``heads``.
      heads: of attention, in each layer.
      layers: of attention and feed-forward.
      hidden: width of the feed-forward layer.
      dropout_rate: probability of dropping a unit, in [0, 1).
    """

    num_genes: int
    num_classes: int
    width: int = 128
    heads: int = 8
    layers: int = 4
    hidden: int = 512
    dropout_rate: float = 0.1


class Layer(nnx.Module):
    """Attention and feed-forward, each added to its input and normalised."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        """Create the kernels.

        Args:
          config: sizes.
          rngs: random keys for the initial parameters.
        """
        width = config.width
        self.heads, self.rate = config.heads, float(config.dropout_rate)
        self.project = nnx.Linear(width, 3 * width, rngs=rngs)
        self.output = nnx.Linear(width, width, rngs=rngs)
        self.up = nnx.Linear(width, config.hidden, rngs=rngs)
        self.down = nnx.Linear(config.hidden, width, rngs=rngs)
        self.attention_norm = nnx.LayerNorm(width, rngs=rngs)
        self.mlp_norm = nnx.LayerNorm(width, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "cells tokens width"],
        mask: Bool[Array, "cells tokens"],
        key: Array | None,
    ) -> tuple[
        Float[Array, "cells tokens width"], Float[Array, "cells heads tokens tokens"]
    ]:
        """The layer's output, and its attention of each token to each."""
        keys = [None] * 2 if key is None else list(jax.random.split(key))
        cells, tokens = mask.shape
        split = self.project(x).reshape(cells, tokens, 3, self.heads, -1)
        query, key_, value = jnp.moveaxis(split, (2, 3), (0, 2))  # C N T H each
        scores = (query * query.shape[-1] ** -0.5) @ key_.swapaxes(2, 3)
        scores = jnp.where(mask[:, None, None, :], scores, _UNSEEN)
        weights = jax.nn.softmax(scores.astype(jnp.float32))
        out = (weights.astype(x.dtype) @ value).swapaxes(1, 2).reshape(x.shape)
        x = self.attention_norm(x + _dropout(self.output(out), self.rate, keys[0]))
        hidden = self.down(jax.nn.relu(self.up(x)))
        return self.mlp_norm(x + _dropout(hidden, self.rate, keys[1])), weights


class CelluFormer(nnx.Module):
    """Embedding, layers, mean over the tokens, head."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        """Create random parameters.

        Args:
          config: sizes.
          rngs: random keys for the initial parameters.
        """
        embed = jax.random.normal(rngs.params(), (config.num_genes, config.width))
        self.embedding = nnx.Param(embed)
        self.layers = nnx.List([Layer(config, rngs=rngs) for _ in range(config.layers)])
        self.head = nnx.Linear(config.width, config.num_classes, rngs=rngs)

    def __call__(
        self, tokens: Tokens, key: Array | None = None
    ) -> tuple[
        Float[Array, "cells classes"], list[Float[Array, "cells heads tokens tokens"]]
    ]:
        """Logits, and the attention of every layer."""
        mask = jnp.asarray(tokens.values) > 0
        # Padding may hold any gene: its value is 0, so any row will do.
        embedding = self.embedding[...].at[tokens.genes].get(mode="clip")
        x = embedding * tokens.values[..., None]
        keys = [None] * len(self.layers)
        if key is not None:
            keys = list(jax.random.split(key, len(self.layers)))
        maps = []
        for layer, layer_key in zip(self.layers, keys, strict=True):
            x, weights = layer(x, mask, layer_key)
            maps.append(weights)
        real = mask[..., None].astype(x.dtype)
        mean = (x * real).sum(1) / jnp.maximum(real.sum(1), 1)
        return self.head(mean).astype(jnp.float32), maps


def _dropout(x: Array, rate: float, key: Array | None) -> Array:
    if key is None or not rate:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def init(config: Config, *, key: PRNGKeyArray) -> PyTree:
    """Random parameters.

    Args:
      config: sizes.
      key: random key.

    Returns:
      Nested dictionaries of float32 arrays.

    Raises:
      ValueError: if a size is below 1, the width is not a multiple of the heads, or
        ``dropout_rate`` is outside [0, 1).
    """
    if min(config[:6]) < 1 or config.width % config.heads:
        raise ValueError(
            "config: expected sizes of at least 1 and a width that the heads divide, "
            f"got {config}"
        )
    if not 0 <= config.dropout_rate < 1:
        raise ValueError(
            f"dropout_rate: expected a share below 1, got {config.dropout_rate}"
        )
    return _init(config, key)


@functools.partial(jax.jit, static_argnames="config")
def _init(config: Config, key: PRNGKeyArray) -> PyTree:
    return nnx.to_pure_dict(nnx.split(CelluFormer(config, rngs=nnx.Rngs(key)))[1])


@functools.lru_cache(maxsize=16)
def make_apply(config: Config) -> ApplyFn:
    """The network as a pure function of its parameters.

    Args:
      config: sizes.

    Returns:
      ``apply_fn(params, tokens, key=None) -> logits [cells, classes]``; a key turns
      dropout on. One object for one configuration, so nothing is compiled twice.
    """

    def apply_fn(params: PyTree, tokens: Tokens, key: Array | None = None) -> Array:
        return _merged(config, params)(tokens, key)[0]

    return apply_fn


@functools.lru_cache(maxsize=16)
def make_attention(config: Config) -> Callable[[PyTree, Tokens], Array]:
    """The network's attention as a pure function of its parameters.

    Args:
      config: sizes.

    Returns:
      ``attention_fn(params, tokens) -> [cells, tokens, tokens]``: from each token of a
      cell to each, the mean over layers and heads. Over a cell's genes every row sums
      to 1; padding gets no attention.
    """

    def attention_fn(params: PyTree, tokens: Tokens) -> Array:
        _, maps = _merged(config, params)(tokens)
        mean = functools.reduce(jnp.add, (part.mean(1) for part in maps)) / len(maps)
        # A cell without genes attends to nothing; the softmax alone would give its
        # padding equal shares.
        return jnp.where((tokens.values > 0)[:, None, :], mean, 0.0)

    return attention_fn


def _merged(config: Config, params: PyTree) -> CelluFormer:
    # The structure is made once, from shapes alone.
    return nnx.merge(_graphdef(config), nnx.State(params))


@functools.lru_cache(maxsize=16)
def _graphdef(config: Config) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: CelluFormer(config, rngs=nnx.Rngs(0))))[0]
