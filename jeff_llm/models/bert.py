"""BERT as a sentence encoder, in Flax NNX: mean of the last layer, unit length.

Post-norm blocks with biases and the exact GELU, as Devlin et al. published them and
all-MiniLM-L6-v2 has them. The layers' parameters are stacked and run by
`jax.lax.scan`. The pooler and the second token type, which sentence encoders do not
use, are left out.

References:
  Devlin et al., "BERT", NAACL 2019.
  Reimers and Gurevych, "Sentence-BERT", EMNLP 2019.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree

from jeff_llm.models.bert_config import EncoderConfig

__all__ = ["Encoder", "embed", "shapes"]


_kernel_init = nnx.initializers.normal(0.02)
# Finite, so that a row without real tokens is no NaN.
_UNSEEN = -1e30


def _norm(config: EncoderConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # The fast variance, E[x^2] - E[x]^2, loses digits.
    return nnx.LayerNorm(
        config.width, epsilon=config.norm_eps, use_fast_variance=False, rngs=rngs
    )


class Embedding(nnx.Module):
    """Sum of the embeddings of token, position and type, normalised."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        """Create the tables.

        Args:
          config: the encoder's configuration.
          rngs: random keys for the initial parameters.
        """

        def table(rows: int) -> nnx.Param:
            return nnx.Param(_kernel_init(rngs.params(), (rows, config.width)))

        self.tokens = table(config.vocab_size)
        self.positions = table(config.max_positions)
        self.types = table(config.num_types)
        self.norm = _norm(config, rngs)

    def __call__(
        self, tokens: Int[Array, "batch tokens"]
    ) -> Float[Array, "batch tokens width"]:
        """Embed the tokens."""
        positions = self.positions.get_value()[: tokens.shape[1]]
        x = self.tokens.get_value()[tokens] + positions + self.types.get_value()[0]
        return self.norm(x)


class Attention(nnx.Module):
    """Attention of every token to every real one."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        """Create the projections.

        Args:
          config: the encoder's configuration.
          rngs: random keys for the initial parameters.
        """
        make = functools.partial(
            nnx.Linear, config.width, config.width, kernel_init=_kernel_init, rngs=rngs
        )
        self.num_heads = config.num_heads
        self.query, self.key, self.value, self.output = make(), make(), make(), make()

    def __call__(
        self, x: Float[Array, "batch tokens width"], mask: Bool[Array, "batch tokens"]
    ) -> Float[Array, "batch tokens width"]:
        """Attend to all real tokens."""
        split = (*x.shape[:2], self.num_heads, -1)
        query, key, value = (
            part(x).reshape(split).swapaxes(1, 2)  # B N T H
            for part in (self.query, self.key, self.value)
        )
        scores = (query * query.shape[-1] ** -0.5) @ key.swapaxes(2, 3)
        scores = jnp.where(mask[:, None, None, :], scores, _UNSEEN)
        weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
        # Divided after the product, where there are fewer numbers.
        out = weights @ value / weights.sum(axis=-1, keepdims=True)
        out = out.swapaxes(1, 2)
        return self.output(out.reshape(x.shape))


class Block(nnx.Module):
    """Attention and MLP, each added to its input and normalised."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        """Create the parts.

        Args:
          config: the encoder's configuration.
          rngs: random keys for the initial parameters.
        """
        width, hidden = config.width, config.mlp_width
        self.attention = Attention(config, rngs=rngs)
        self.attention_norm = _norm(config, rngs)
        self.up = nnx.Linear(width, hidden, kernel_init=_kernel_init, rngs=rngs)
        self.down = nnx.Linear(hidden, width, kernel_init=_kernel_init, rngs=rngs)
        self.mlp_norm = _norm(config, rngs)

    def __call__(
        self, x: Float[Array, "batch tokens width"], mask: Bool[Array, "batch tokens"]
    ) -> Float[Array, "batch tokens width"]:
        """One layer."""
        x = self.attention_norm(x + self.attention(x, mask))
        hidden = jax.nn.gelu(self.up(x), approximate=False)
        return self.mlp_norm(x + self.down(hidden))


class Encoder(nnx.Module):
    """Embedding and stacked blocks."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        """Create random parameters.

        Args:
          config: sizes.
          rngs: random keys for the initial parameters.
        """
        self.embedding = Embedding(config, rngs=rngs)
        make = nnx.vmap(lambda key: Block(config, rngs=nnx.Rngs(key)))
        self.layers = make(jax.random.split(rngs.params(), config.num_layers))

    def __call__(
        self, tokens: Int[Array, "batch tokens"], mask: Bool[Array, "batch tokens"]
    ) -> Float[Array, "batch tokens width"]:
        """Hidden states of the last layer."""
        graphdef, params = nnx.split(self.layers)
        x, _ = jax.lax.scan(
            lambda x, layer: (nnx.merge(graphdef, layer)(x, mask), None),
            self.embedding(tokens),
            params,
        )
        return x


def embed(
    params: PyTree,
    config: EncoderConfig,
    tokens: Int[Array, "batch tokens"],
    mask: Bool[Array, "batch tokens"],
    *,
    normalize: bool = True,
) -> Float[Array, "batch width"]:
    """Embed texts: the mean of their tokens' last hidden states, at unit length.

    ``m = sum_t mask_t h_t / sum_t mask_t``, then ``m / |m|``.

    Args:
      params: parameters, as `init` gives them.
      config: sizes; static under jit.
      tokens: ids in ``[0, vocab_size)``; where there is padding, any.
      mask: the tokens that are real; padding stands behind them and changes nothing.
      normalize: scale to unit length; static.

    Returns:
      The embeddings.

    Raises:
      ValueError: if there are more tokens than positions.
    """
    if tokens.shape[1] > config.max_positions:
        raise ValueError(
            f"tokens: expected at most {config.max_positions} tokens a text, got "
            f"{tokens.shape[1]}; cut the texts"
        )
    graphdef, _ = _template(config)
    hidden = nnx.merge(graphdef, nnx.State(params))(tokens, mask)
    real = mask[..., None].astype(hidden.dtype)
    mean = (hidden * real).sum(axis=1) / jnp.maximum(real.sum(axis=1), 1)
    if not normalize:
        return mean
    squares = jnp.sum(mean**2, axis=-1, keepdims=True)
    # Not 0 under the root, so that a row without tokens has a finite gradient.
    return mean * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def shapes(config: EncoderConfig) -> PyTree:
    """Shapes of the parameters, without making them.

    Args:
      config: sizes.

    Returns:
      Nested dictionaries of `jax.ShapeDtypeStruct`; those of the layers are stacked
      along a first axis.
    """
    return _template(config)[1]


@functools.lru_cache(maxsize=8)
def _template(config: EncoderConfig) -> tuple[nnx.GraphDef, PyTree]:
    module = nnx.eval_shape(lambda: Encoder(config, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(module)
    return graphdef, nnx.to_pure_dict(state)
