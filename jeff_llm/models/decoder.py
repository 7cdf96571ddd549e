"""The decoder of the Llama family, in Flax NNX.

RMSNorm, rotary positions, grouped-query attention, SwiGLU: SmolLM2, Llama 2 and 3,
Mistral, Qwen2, Qwen2.5 and Qwen3 differ in sizes and in the options of `DecoderConfig`.
The layers' parameters are stacked and run by `jax.lax.scan`, so thirty layers compile
as fast as one. Axis order is B T N H (batch, tokens, heads, head width), K for heads
of keys and values, D for the residual stream.

As everywhere in jeff the parameters are a pytree, nested dictionaries of arrays:
`init` makes them, `jeff_llm.models.weights.load` reads published ones, `apply` is the
pure function. Kernels are [in, out] and are used only as ``x @ kernel``, so a leaf may
be any object with that product (`jeff_llm.models.lora`).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from jeff_llm.models import rope
from jeff_llm.models.blocks import Block, Linear, RMSNorm, Tokens, kernel_init
from jeff_llm.models.cache import Cache
from jeff_llm.models.config import DecoderConfig

__all__ = ["Decoder", "Output", "apply", "init", "shapes", "unembed"]


class Output(NamedTuple):
    """Output of the decoder.

    Attributes:
      logits: logits of the next token after each token, or after each selected one,
        float32.
      hidden: hidden states of the chosen layers, in the requested order; numbered as in
        transformers: 0 is the embedding, i the output of layer i, -1 the normalised
        output of the last layer, from which the logits are made.
      cache: the cache with the tokens in it, or None.
    """

    logits: Float[Array, "batch tokens vocabulary"]
    hidden: Float[Array, "chosen batch tokens width"]
    cache: Any


class Decoder(nnx.Module):
    """Embedding, stacked blocks, final norm, head."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        """Create random parameters.

        Args:
          config: sizes and options.
          rngs: random keys for the initial parameters.
        """
        self.config = config
        rows, width = config.vocab_size, config.width
        self.embedding = nnx.Param(kernel_init(rngs.params(), (rows, width)))
        make = nnx.vmap(lambda key: Block(config, rngs=nnx.Rngs(key)))
        self.layers = make(jax.random.split(rngs.params(), config.num_layers))
        self.norm = RMSNorm(width, config.norm_eps)
        self.head = None if config.tied else Linear(width, rows, False, rngs=rngs)

    def __call__(
        self,
        tokens: Int[Array, "batch tokens"],
        *,
        mask: Bool[Array, "batch tokens"] | None = None,
        positions: Int[Array, "batch tokens"] | None = None,
        segments: Int[Array, "batch tokens"] | None = None,
        cache: Cache | None = None,
        select: Int[Array, "batch selected"] | None = None,
        hidden_layers: tuple[int, ...] = (),
        remat: bool = False,
        embedded: Float[Array, "batch tokens width"] | None = None,
    ) -> Output:
        """Logits, hidden states and cache; see `apply`."""
        if mask is None:
            mask = jnp.ones(tokens.shape, bool)
        if positions is None:
            before = 0 if cache is None else cache.lengths[:, None]
            positions = jnp.maximum(before + jnp.cumsum(mask, axis=1) - 1, 0)
        config = self.config
        cosine, sine = rope.angles(
            positions, config.head_width, config.rope_theta, config.rope_scaling
        )
        shared = Tokens(positions, mask, segments, cosine, sine)
        table = self.embedding.get_value()
        if cache is not None:
            cache = cache.begin(positions, mask)
        x = table[tokens] if embedded is None else embedded
        x, hidden, cache = self._scan(x, shared, cache, hidden_layers, remat)
        if cache is not None:
            cache = cache.advance(mask.sum(axis=1, dtype=jnp.int32))
        # Before norm and head, so that neither is run on the other tokens.
        if select is not None:
            x = jnp.take_along_axis(x, select[..., None], axis=1)
        return Output(self._unembed(self.norm(x)), hidden, cache)

    def _scan(
        self,
        x: Float[Array, "batch tokens width"],
        tokens: Tokens,
        cache: Cache | None,
        hidden_layers: tuple[int, ...],
        remat: bool,
    ) -> tuple[Array, Array, Cache | None]:
        """Run the layers, and collect the chosen hidden states on the way."""
        count = self.config.num_layers
        chosen = [layer % (count + 1) for layer in hidden_layers]
        wanted = jnp.asarray(chosen, jnp.int32)
        graphdef, params = nnx.split(self.layers)
        windows = _windows(self.config)

        def body(carry, layer):
            x, hidden, cache = carry
            number, params, window = layer
            block = nnx.merge(graphdef, params)
            x, cache = block(x, tokens, number, window, cache)
            # Kept in the carry, for chosen layers alone: stacking the outputs of the
            # scan would hold the states of all layers.
            here = (wanted == number + 1)[:, None, None, None]
            return (x, jnp.where(here, x, hidden), cache), None

        hidden = jnp.broadcast_to(x, (len(chosen), *x.shape))
        numbers = jnp.arange(count)
        # Products are kept for the backward pass; elementwise results are computed
        # again, which is quicker than storing and reading them.
        policies = jax.checkpoint_policies
        kept = policies.save_from_both_policies(
            policies.dots_saveable, policies.save_only_these_names("attention")
        )
        policy = policies.nothing_saveable if remat else kept
        carry, _ = jax.lax.scan(
            jax.checkpoint(body, prevent_cse=False, policy=policy),
            (x, hidden, cache),
            (numbers, params, windows),
        )
        x, hidden, cache = carry
        last = (wanted == count)[:, None, None, None]
        return x, jnp.where(last, self.norm(x), hidden), cache

    def _unembed(
        self, x: Float[Array, "batch tokens width"]
    ) -> Float[Array, "batch tokens vocabulary"]:
        if self.head is not None:
            return self.head(x).astype(jnp.float32)
        table = self.embedding.get_value()
        if not isinstance(table, jax.Array):
            return table.unembed(x).astype(jnp.float32)
        return unembed(table, x).astype(jnp.float32)


def unembed(
    table: Float[Array, "vocabulary width"], x: Float[Array, "batch tokens width"]
) -> Float[Array, "batch tokens vocabulary"]:
    """Logits of a tied head, ``x @ table.T``.

    Args:
      table: the embedding.
      x: normalised hidden states.

    Returns:
      The logits.
    """
    if x.shape[1] > 1:
        return x @ table.T
    # For single tokens XLA's CPU back end is faster with the table first.
    logits = jax.lax.dot_general(table, x, (((1,), (2,)), ((), ())))  # V B T
    return jnp.moveaxis(logits, 0, -1)


def apply(
    config: DecoderConfig,
    params: PyTree,
    tokens: Int[Array, "batch tokens"],
    *,
    mask: Bool[Array, "batch tokens"] | None = None,
    positions: Int[Array, "batch tokens"] | None = None,
    segments: Int[Array, "batch tokens"] | None = None,
    cache: Cache | None = None,
    select: Int[Array, "batch selected"] | None = None,
    hidden_layers: tuple[int, ...] = (),
    remat: bool = False,
    embedded: Float[Array, "batch tokens width"] | None = None,
) -> Output:
    """The decoder as a pure function.

    Args:
      config: sizes and options; static under jit.
      params: parameters, as `init` gives them.
      tokens: token ids, in ``[0, vocab_size)``.
      mask: the tokens that are real; padding may be on either side and changes no
        logits of real tokens. All by default.
      positions: position of each token in its sequence; counted from the mask, behind
        the cache's tokens, by default.
      segments: number of the text that each token belongs to where several are packed
        in a row; a token sees its own text alone. Needs ``positions``, and goes without
        a cache.
      cache: keys and values of the earlier tokens; the new tokens are stored in it.
      select: indices of the tokens after which to return logits; the head is not run on
        the others. All by default.
      hidden_layers: hidden states to return, numbered as in `Output`; static.
      remat: keep only each layer's input for the backward pass and compute the rest
        again, which saves memory in training; static.
      embedded: input of the layers in place of the tokens' rows of the embedding: soft
        prompts, or hidden states of frozen lower layers.

    Returns:
      Logits, hidden states and cache.

    Raises:
      ValueError: if shapes or options do not fit together.
    """
    _check(config, tokens, positions, segments, cache, hidden_layers)
    graphdef, _ = _template(config)
    module = nnx.merge(graphdef, nnx.State(params))
    return module(
        tokens,
        mask=mask,
        positions=positions,
        segments=segments,
        cache=cache,
        select=select,
        hidden_layers=hidden_layers,
        remat=remat,
        embedded=embedded,
    )


def init(config: DecoderConfig, *, key: PRNGKeyArray) -> PyTree:
    """Random parameters: normal kernels of standard deviation 0.02.

    Args:
      config: sizes and options.
      key: random key.

    Returns:
      Nested dictionaries of float32 arrays; those of the layers are stacked along a
      first axis.
    """
    return nnx.to_pure_dict(nnx.split(Decoder(config, rngs=nnx.Rngs(key)))[1])


def shapes(config: DecoderConfig) -> PyTree:
    """Shapes of the parameters, without making them.

    Args:
      config: sizes and options.

    Returns:
      A pytree like that of `init`, of `jax.ShapeDtypeStruct`.
    """
    return _template(config)[1]


@functools.lru_cache(maxsize=32)
def _template(config: DecoderConfig) -> tuple[nnx.GraphDef, PyTree]:
    module = nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(module)
    return graphdef, nnx.to_pure_dict(state)


def _windows(config: DecoderConfig) -> Int[Array, " layers"] | None:
    """Each layer's sliding window, or None where no layer has one."""
    if config.sliding_window is None:
        return None
    # A layer without a window gets the largest one: all layers share one program.
    largest = jnp.iinfo(jnp.int32).max
    return jnp.asarray([window or largest for window in config.windows], jnp.int32)


def _check(
    config: DecoderConfig,
    tokens: Array,
    positions: Array | None,
    segments: Array | None,
    cache: Cache | None,
    hidden_layers: tuple[int, ...],
) -> None:
    if tokens.ndim != 2:
        raise ValueError(f"tokens: expected [batch, tokens], got shape {tokens.shape}")
    if segments is not None and (positions is None or cache is not None):
        raise ValueError(
            "segments: expected positions beside them and no cache; number the tokens "
            "of each text from 0"
        )
    if cache is not None and tokens.shape[1] > cache.capacity:
        raise ValueError(
            f"cache: expected a capacity of at least {tokens.shape[1]} tokens, got "
            f"{cache.capacity}"
        )
    for layer in hidden_layers:
        if not -config.num_layers - 1 <= layer <= config.num_layers:
            raise ValueError(
                f"hidden_layers: expected numbers from {-config.num_layers - 1} to "
                f"{config.num_layers}, got {layer}"
            )
