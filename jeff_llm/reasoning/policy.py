"""A policy for reinforcement learning: how to sample completions and how to score them.

`jeff_llm.reasoning.grpo` needs two functions of a model, `Policy.sample` and
`Policy.log_probs`. `decoder_policy` makes them from a decoder of jeff. For a model of
your own, write the two functions; nothing else of `grpo` knows the model.

Completions have one static width, so a rollout compiles once, whatever the lengths are.
The sampling loop stops when the last row has ended.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from jeff_llm.generate import decoding
from jeff_llm.generate.sampling import RowSampling
from jeff_llm.models import decoder
from jeff_llm.models.cache import PlainCache, init_cache
from jeff_llm.models.config import DecoderConfig

__all__ = ["Policy", "Prompts", "Rollout", "decoder_policy", "repeat_rows"]


class Prompts(NamedTuple):
    """A batch of prompts, and what a reward must know about them.

    Attributes:
      tokens: ids, padded on either side.
      mask: the real ones, at least one per row.
      context: pytree of arrays with a row per prompt, such as right answers.
    """

    tokens: Int[Array, "prompts tokens"]
    mask: Bool[Array, "prompts tokens"]
    context: PyTree = None


class Rollout(NamedTuple):
    """Sampled completions.

    Attributes:
      tokens: ids; 0 after the end.
      log_probs: natural log-probability of each token under the policy that sampled it;
        0 after the end.
      length: tokens of each completion, the end token counted in.
      finished: whether the end token was met; the others were cut.
    """

    tokens: Int[Array, "samples new_tokens"]
    log_probs: Float[Array, "samples new_tokens"]
    length: Int[Array, " samples"]
    finished: Bool[Array, " samples"]

    @property
    def mask(self) -> Bool[Array, "samples new_tokens"]:
        """The tokens that were drawn."""
        return jnp.arange(self.tokens.shape[1]) < self.length[:, None]


class Policy(NamedTuple):
    """The two functions of a model that reinforcement learning needs.

    Attributes:
      sample: ``(params, prompts, key) -> Rollout``, at temperature 1 and without cuts,
        since the ratio of the update is that of the model's own distribution.
      log_probs: ``(params, prompts, rollout) -> [samples, new_tokens]``, differentiable
        in ``params``; arbitrary but finite after the end.
    """

    sample: Callable[[PyTree, Prompts, PRNGKeyArray], Rollout]
    log_probs: Callable[[PyTree, Prompts, Rollout], Float[Array, "samples new_tokens"]]


def decoder_policy(
    config: DecoderConfig,
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    make_cache: decoding.MakeCache = init_cache,
    remat: bool = False,
) -> Policy:
    """The policy of a decoder.

    Args:
      config: the decoder's configuration.
      max_new_tokens: largest length of a completion, in tokens.
      stop_ids: tokens that end a completion.
      make_cache: makes the cache of the sampling loop, as in
        `jeff_llm.generate.generate`.
      remat: as in `jeff_llm.models.decoder.apply`: saves memory in the update.

    Returns:
      The policy, on parameters as `jeff_llm.models.decoder.init` gives them, also with
      LoRA's factors beside them.

    Raises:
      ValueError: if ``max_new_tokens`` is not positive or there is no stop token.
    """
    if max_new_tokens < 1 or not stop_ids:
        raise ValueError(
            "max_new_tokens, stop_ids: expected a positive number and at least one "
            f"token, got {max_new_tokens} and {list(stop_ids)}"
        )

    def sample(params: PyTree, prompts: Prompts, key: PRNGKeyArray) -> Rollout:
        rows = prompts.tokens.shape[0]
        plan = decoding.Plan(
            keys=jax.random.split(key, rows),
            sampling=RowSampling(jnp.ones(rows), None, None, None),
            stop_ids=jnp.asarray(stop_ids, jnp.int32),
            processors=(),
        )
        width = prompts.tokens.shape[1]
        # A step reads the whole cache, so the plain one grows on the way; any other is
        # made at once.
        stages = _stages(max_new_tokens) if make_cache is init_cache else []

        def first_cache(
            config: DecoderConfig, batch: int, room: int, dtype: Any
        ) -> Any:
            room = width + stages[0] if stages else room
            return make_cache(config, batch, room, dtype)

        state = decoding.start(
            config,
            params,
            prompts.tokens,
            prompts.mask,
            plan,
            buffer=max_new_tokens,
            make_cache=first_cache,
        )
        for end, after in itertools.pairwise(stages):
            state = decoding.advance(config, params, state, plan, end)
            state = state._replace(cache=_grow(state.cache, after - end))
        state = decoding.advance(config, params, state, plan, max_new_tokens)
        return Rollout(state.tokens, state.log_probs, state.lengths, state.finished)

    def log_probs(params: PyTree, prompts: Prompts, rollout: Rollout) -> Array:
        return _log_probs(config, params, prompts, rollout, remat)

    return Policy(sample, log_probs)


def repeat_rows(tree: Any, times: int) -> Any:
    """Repeat each row of a pytree: the samples of a prompt follow each other.

    Args:
      tree: pytree of arrays with a row per prompt.
      times: samples per prompt.

    Returns:
      The pytree with ``times`` rows for each one.
    """
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, times, axis=0), tree)


def _stages(max_new_tokens: int) -> list[int]:
    """Tokens after which the cache grows, and their largest number."""
    parts = {-(-max_new_tokens * part // 4) for part in range(1, 5)}
    return sorted(parts)


def _grow(cache: PlainCache, slots: int) -> PlainCache:
    """The cache with more empty slots."""
    room = [(0, 0)] * 3 + [(0, slots), (0, 0)]
    return dataclasses.replace(
        cache, keys=jnp.pad(cache.keys, room), values=jnp.pad(cache.values, room)
    )


def _log_probs(
    config: DecoderConfig,
    params: PyTree,
    prompts: Prompts,
    rollout: Rollout,
    remat: bool,
) -> Float[Array, "samples new_tokens"]:
    width, count = prompts.tokens.shape[1], rollout.tokens.shape[1]
    tokens = jnp.concatenate([prompts.tokens, rollout.tokens], axis=1)
    mask = jnp.concatenate([prompts.mask, rollout.mask], axis=1)
    # The logits of a token come from the one before it: the prompt's last real token,
    # then the completion's own. The head is not run on the prompt.
    last = jnp.max(jnp.where(prompts.mask, jnp.arange(width), 0), axis=1)[:, None]
    own = jnp.broadcast_to(jnp.arange(width, width + count - 1), (len(last), count - 1))
    logits = decoder.apply(
        config,
        params,
        tokens,
        mask=mask,
        select=jnp.concatenate([last, own], axis=1),
        remat=remat,
    ).logits
    chosen = jnp.take_along_axis(logits, rollout.tokens[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)
