"""Coconut on the small model: the steps of minimal chains become latent thoughts."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jeff import training
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.reasoning import arithmetic, latent
from train_scripts.running import machines

__all__ = ["accuracy", "fit_latent"]

_STEPS = 5  # most operations of a question
_STAGES = (1, 3, _STEPS)
_BATCH = 64


class _Batch(NamedTuple):
    prompts: np.ndarray
    mask: np.ndarray
    rest: np.ndarray
    rest_mask: np.ndarray


def fit_latent(
    base: LanguageModel,
    questions: arithmetic.Questions,
    *,
    num_steps: int,
    key: jax.Array,
    workdir: Path,
) -> LanguageModel:
    """Train through the curriculum; resumes in its folder.

    Args:
      base: the base.
      questions: training questions.
      num_steps: optimiser steps of each stage.
      key: random key.
      workdir: a folder a stage, for logs and checkpoints.

    Returns:
      The model whose chains are latent.
    """
    chains = arithmetic.worked(
        questions,
        seed=0,
        error_rate=0.0,
        check_rate=0.0,
        budget_share=0.0,
        interrupted_share=0.0,
    )
    params, optimizer = base.params, optax.adam(1e-3, b2=0.98)
    for stage in _STAGES:
        data = _batch(questions, [chain.tokens for chain in chains], stage)
        rows = min(_BATCH, len(data.rest))

        def loss(params, batch, _, thoughts=stage):
            return latent.coconut_loss(
                base.config, params, *batch, num_thoughts=thoughts
            )

        keys = jax.random.split(jax.random.fold_in(key, stage))
        fitted = training.fit(
            training.make_step(loss, optimizer),
            machines.placed(training.init_state(params, optimizer, key=keys[0])),
            training.Shuffled(jax.tree.map(jnp.asarray, data), rows, keys[1]),
            batch_sharding=machines.batch_sharding(rows, whole=True),
            num_steps=num_steps,
            chunk_steps=min(50, num_steps),
            workdir=machines.kept(workdir / f"stage{stage}"),
            progress=False,
        )
        params = fitted.state.params
    return base._replace(params=params)


def accuracy(
    model: LanguageModel, questions: arithmetic.Questions
) -> tuple[np.ndarray, int]:
    """Answers after latent thoughts alone.

    Args:
      model: from `fit_latent`.
      questions: test questions.

    Returns:
      Whether each answer is right, and the length of each: latent thoughts, the closing
      token, the answer and the end token.
    """
    close = jnp.full((len(questions.answer), 1), arithmetic.CLOSE)
    logits = jax.jit(
        lambda params, prompts, mask: latent.latent_logits(
            model.config,
            params,
            prompts,
            mask,
            close,
            jnp.ones(close.shape, bool),
            num_thoughts=_STEPS,
        )
    )(model.params, questions.tokens, questions.mask)
    digit = np.asarray(logits[:, 0].argmax(-1)) - arithmetic.encode("0")[0]
    return digit == questions.answer, _STEPS + 3


def _batch(
    questions: arithmetic.Questions, chains: list[list[int]], stage: int
) -> _Batch:
    """Prompts, and what follows the latent thoughts of a stage."""
    numbers = arithmetic.encode("abcdefgh")
    rests = []
    for prompt, chain in zip(questions.prompts, chains, strict=True):
        tokens = chain[len(prompt) :]
        thought = tokens[: tokens.index(arithmetic.CLOSE)]
        starts = [n for n, token in enumerate(thought) if token in numbers]
        steps = [
            thought[begin:end]
            for begin, end in zip(starts, [*starts[1:], len(thought)], strict=True)
        ]
        _, left = latent.curriculum(steps, stage, 1)
        rests.append(left + tokens[len(thought) :])
    width = max(map(len, rests))
    rest = np.zeros((len(rests), width), np.int32)
    for row, tokens in enumerate(rests):
        rest[row, : len(tokens)] = tokens
    return _Batch(questions.tokens, questions.mask, rest, rest > 0)
