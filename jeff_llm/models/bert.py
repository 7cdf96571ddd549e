"""BERT as a sentence encoder, in Flax NNX: mean of the last layer, unit length.

Post-norm blocks with biases and the exact GELU, as Devlin et al. published them and
all-MiniLM-L6-v2 has them. The layers' parameters are stacked and run by
`jax.lax.scan`. The pooler and the second token type, which sentence encoders do not
use, are left out.

References:
  Devlin et al., "BERT", NAACL 2019.
  Reimers and Gurevych, "Sentence-BERT", EMNLP 2019.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from jeff_llm.models.mapping import Rule

__all__ = [
    "IGNORED",
    "RULES",
    "Encoder",
    "EncoderConfig",
    "embed",
    "from_transformers",
    "init",
    "shapes",
]


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Sizes of an encoder; those of all-MiniLM-L6-v2 by default.

    Attributes:
      vocab_size: rows of the embedding.
      num_layers: blocks.
      width: width of the residual stream, and of the result.
      num_heads: heads of the attention.
      mlp_width: hidden width of the MLP.
      max_positions: longest text, in tokens.
      num_types: rows of the embedding of token types; the first is added everywhere.
      norm_eps: epsilon of LayerNorm.
    """

    vocab_size: int = 30522
    num_layers: int = 6
    width: int = 384
    num_heads: int = 12
    mlp_width: int = 1536
    max_positions: int = 512
    num_types: int = 2
    norm_eps: float = 1e-12


# What is asked of ``config.json`` beside sizes, with BERT's defaults.
_HONOURED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
}
_SIZES = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "width": "hidden_size",
    "num_heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "num_types": "type_vocab_size",
    "norm_eps": "layer_norm_eps",
}


def from_transformers(values: Mapping[str, Any]) -> EncoderConfig:
    """Read the ``config.json`` of a BERT.

    Args:
      values: its content.

    Returns:
      The configuration.

    Raises:
      ValueError: if a size is missing, or the model is no BERT of this kind.
    """
    for name, wanted in _HONOURED.items():
        if values.get(name, wanted) != wanted:
            raise ValueError(f"{name}: expected {wanted!r}, got {values[name]!r}")
    if missing := [name for name in _SIZES.values() if name not in values]:
        raise ValueError(f"{missing[0]}: expected the size, the configuration has none")
    config = EncoderConfig(**{ours: values[name] for ours, name in _SIZES.items()})
    if config.width % config.num_heads:
        raise ValueError(
            f"num_attention_heads: expected a divisor of hidden_size {config.width}, "
            f"got {config.num_heads}"
        )
    return config


_BLOCK = (
    ("attention/query", "attention.self.query"),
    ("attention/key", "attention.self.key"),
    ("attention/value", "attention.self.value"),
    ("attention/output", "attention.output.dense"),
    ("attention_norm", "attention.output.LayerNorm"),
    ("up", "intermediate.dense"),
    ("down", "output.dense"),
    ("mlp_norm", "output.LayerNorm"),
)


def _pair(theirs: str, ours: str) -> tuple[Rule, Rule]:
    """Weight and bias of a layer norm or of a linear layer."""
    weight = Rule(f"{theirs}.weight", f"{ours}/kernel", "transpose")
    if "norm" in ours:
        weight = Rule(f"{theirs}.weight", f"{ours}/scale")
    return weight, Rule(f"{theirs}.bias", f"{ours}/bias")


RULES: tuple[Rule, ...] = (
    Rule("embeddings.word_embeddings.weight", "embedding/tokens"),
    Rule("embeddings.position_embeddings.weight", "embedding/positions"),
    Rule("embeddings.token_type_embeddings.weight", "embedding/types"),
    *_pair("embeddings.LayerNorm", "embedding/norm"),
    *(
        rule
        for ours, theirs in _BLOCK
        for rule in _pair(f"encoder.layer.{{layer}}.{theirs}", f"layers/{ours}")
    ),
)
IGNORED = (r"^embeddings\.position_ids$", r"^pooler\.")

_kernel_init = nnx.initializers.normal(0.02)


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
        """Embed."""
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
        """Attend."""
        heads = (*x.shape[:2], self.num_heads, -1)  # B T N H
        out = jax.nn.dot_product_attention(
            self.query(x).reshape(heads),
            self.key(x).reshape(heads),
            self.value(x).reshape(heads),
            mask=mask[:, None, None, :],
        )
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
    length = jnp.linalg.norm(mean, axis=-1, keepdims=True)
    return mean / jnp.maximum(length, 1e-12)


def init(config: EncoderConfig, *, key: PRNGKeyArray) -> PyTree:
    """Random parameters: normal kernels of standard deviation 0.02.

    Args:
      config: sizes.
      key: random key.

    Returns:
      Nested dictionaries of float32 arrays; those of the layers are stacked along a
      first axis.
    """
    return nnx.to_pure_dict(nnx.split(Encoder(config, rngs=nnx.Rngs(key)))[1])


def shapes(config: EncoderConfig) -> PyTree:
    """Shapes of the parameters, without making them.

    Args:
      config: sizes.

    Returns:
      A pytree like that of `init`, of `jax.ShapeDtypeStruct`.
    """
    return _template(config)[1]


@functools.lru_cache(maxsize=8)
def _template(config: EncoderConfig) -> tuple[nnx.GraphDef, PyTree]:
    module = nnx.eval_shape(lambda: Encoder(config, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(module)
    return graphdef, nnx.to_pure_dict(state)
