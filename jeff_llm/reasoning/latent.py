"""Coconut: thoughts that are hidden states instead of tokens.

The last hidden state of the decoder is fed back as the input embedding of the next
position. A curriculum replaces the first steps of worked solutions by such thoughts,
stage by stage, until the whole chain is latent.

References:
  Hao et al., "Training Large Language Models to Reason in a Continuous Latent Space",
  2024 (arXiv 2412.06769).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jeff_llm.models import decoder
from jeff_llm.models.cache import Cache, init_cache
from jeff_llm.models.config import DecoderConfig
from jeff_llm.tuning.finetune import token_loss

__all__ = ["Latent", "coconut_loss", "coconut_step", "curriculum", "latent_logits"]


class Latent(NamedTuple):
    """State after a latent thought.

    Attributes:
      hidden: the last hidden state, normalised: the next thought's input.
      cache: keys and values of the prompt and of the thoughts so far.
    """

    hidden: Float[Array, "batch width"]
    cache: Cache


def coconut_step(config: DecoderConfig, params: PyTree, state: Latent) -> Latent:
    """One latent thought: ``h_{t+1} = f(..., h_t)``, with no token in between.

    Args:
      config: the decoder's configuration; static under jit.
      params: its parameters.
      state: after the prompt or a thought.

    Returns:
      The next state. Differentiable in ``params`` and in ``state.hidden``.
    """
    batch = state.hidden.shape[0]
    out = decoder.apply(
        config,
        params,
        jnp.zeros((batch, 1), jnp.int32),
        mask=jnp.ones((batch, 1), bool),
        cache=state.cache,
        hidden_layers=(-1,),
        embedded=state.hidden[:, None],
    )
    return Latent(out.hidden[0, :, 0], out.cache)


def latent_logits(
    config: DecoderConfig,
    params: PyTree,
    prompts: Int[Array, "batch prompt_tokens"],
    mask: Bool[Array, "batch prompt_tokens"],
    rest: Int[Array, "batch tokens"],
    rest_mask: Bool[Array, "batch tokens"],
    *,
    num_thoughts: int,
) -> Float[Array, "batch tokens vocabulary"]:
    """Logits after prompt, latent thoughts and the tokens that follow them.

    Args:
      config: the decoder's configuration; static under jit.
      params: its parameters.
      prompts: prompts, padded on the right.
      mask: their real tokens, at least one per row.
      rest: tokens after the thoughts.
      rest_mask: their real ones.
      num_thoughts: latent thoughts; static. 0 is the plain model.

    Returns:
      Logits of the token after each token of ``rest``.

    Raises:
      ValueError: if ``num_thoughts`` is negative.
    """
    if num_thoughts < 0:
        raise ValueError(f"num_thoughts: expected at least 0, got {num_thoughts}")
    batch, width = prompts.shape
    capacity = width + num_thoughts + rest.shape[1]
    dtype = params["embedding"].dtype
    last = jnp.max(jnp.where(mask, jnp.arange(width), 0), axis=1)[:, None]
    out = decoder.apply(
        config,
        params,
        prompts,
        mask=mask,
        cache=init_cache(config, batch, capacity, dtype),
        select=last,
        hidden_layers=(-1,),
    )
    hidden = jnp.take_along_axis(out.hidden[0], last[..., None], axis=1)[:, 0]
    state, _ = jax.lax.scan(
        lambda state, _: (coconut_step(config, params, state), None),
        Latent(hidden, out.cache),
        None,
        length=num_thoughts,
    )
    return decoder.apply(config, params, rest, mask=rest_mask, cache=state.cache).logits


def coconut_loss(
    config: DecoderConfig,
    params: PyTree,
    prompts: Int[Array, "batch prompt_tokens"],
    mask: Bool[Array, "batch prompt_tokens"],
    rest: Int[Array, "batch tokens"],
    rest_mask: Bool[Array, "batch tokens"],
    *,
    num_thoughts: int,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Mean negative log-likelihood of the tokens after the latent thoughts, in nats.

    The first token of ``rest`` closes the thoughts and is given; those after it are
    learned. Gradients flow through all thoughts.

    Args:
      config: as in `latent_logits`.
      params: likewise.
      prompts: likewise.
      mask: likewise.
      rest: likewise, at least two tokens.
      rest_mask: likewise.
      num_thoughts: likewise.

    Returns:
      ``(loss, {"accuracy", "tokens"})`` as `jeff_llm.tuning.loss`.
    """
    logits = latent_logits(
        config, params, prompts, mask, rest, rest_mask, num_thoughts=num_thoughts
    )
    weight = rest_mask[:, 1:].astype(jnp.float32)
    return token_loss(logits[:, :-1], rest[:, 1:], weight)


def curriculum(
    steps: Sequence[Sequence[int]], stage: int, thoughts_per_step: int
) -> tuple[int, list[int]]:
    """Replace the first steps of a worked solution by latent thoughts.

    Args:
      steps: token ids of each step.
      stage: steps that are replaced; all of them where there are fewer.
      thoughts_per_step: latent thoughts for each one, the paper's c.

    Returns:
      ``(thoughts, tokens)``: ``stage * thoughts_per_step``, the same for every solution
      of a stage so that a batch has one shape, and the tokens of the remaining steps.

    Raises:
      ValueError: if a number is negative.

    >>> curriculum([[1, 2], [3], [4, 5]], stage=2, thoughts_per_step=1)
    (2, [4, 5])
    """
    if stage < 0 or thoughts_per_step < 0:
        raise ValueError(
            "stage, thoughts_per_step: expected numbers of at least 0, got "
            f"{stage} and {thoughts_per_step}"
        )
    return stage * thoughts_per_step, [
        token for step in steps[stage:] for token in step
    ]
