"""A small reasoning task: chained arithmetic, verifiable answers, verbose chains.

A question is a chain of operations modulo 10, read from left to right; letters number
them: ``^3a+4b-2?`` has the answer 5. A worked solution calculates one operation after
another and checks some of them again, up to three times::

    <a3+4=7W3+4=7b7-2=4W7-2=5>5$

The task mimics what the survey finds in long chains of large models. First attempts
are sometimes wrong, a check usually mends them, and most checks are redundant. Three
kinds of examples make the controls of this room meaningful for a trained model:

* plain ones;
* ones with a token budget, ``^E3a+4b-2?``: the letter states the length of the thought
  in steps of eight tokens, as prompts with a budget do for large models;
* interrupted ones: the thought is cut at a random place and the right answer follows.
  Only the answer is learned there, so that a trial answer in the middle of a thought is
  calibrated, and a thought is not closed early.

Nothing here is published; the shares are arguments of `worked`.
"""

import jax
from jaxtyping import Array, PRNGKeyArray, PyTree

from jeff_llm.models import decoder
from jeff_llm.models.config import DecoderConfig
from jeff_llm.reasoning.arithmetic_questions import (
    BUDGET_STEP,
    CLOSE,
    END,
    OPEN,
    VOCABULARY,
    WAIT,
    Questions,
    budget_letter,
    decode,
    draw,
    encode,
    with_budget,
)
from jeff_llm.reasoning.arithmetic_solutions import NO_ANSWER, Solutions, read, worked

__all__ = [
    "BUDGET_STEP",
    "CLOSE",
    "END",
    "NO_ANSWER",
    "OPEN",
    "VOCABULARY",
    "WAIT",
    "Questions",
    "Solutions",
    "budget_letter",
    "decode",
    "draw",
    "encode",
    "init",
    "model_config",
    "read",
    "with_budget",
    "worked",
]


def model_config(width: int = 128, num_layers: int = 4) -> DecoderConfig:
    """Configuration of a decoder for this task.

    Args:
      width: width of the residual stream, a multiple of 32.
      num_layers: blocks.

    Returns:
      The configuration; 0.85 million parameters by default.
    """
    return DecoderConfig(
        vocab_size=len(VOCABULARY),
        num_layers=num_layers,
        width=width,
        mlp_width=3 * width,
        num_heads=max(1, width // 32),
        num_kv_heads=max(1, width // 32),
        head_width=32,
        max_positions=512,
        tied=True,
    )


def init(config: DecoderConfig, *, key: PRNGKeyArray) -> PyTree:
    """Random parameters for a small model: kernels of deviation ``1 / sqrt(fan in)``.

    The decoder's own 0.02 suits wide models; a narrow one learns slowly from it.

    Args:
      config: as `model_config` makes it.
      key: random key.

    Returns:
      Parameters, as `jeff_llm.models.decoder.init` gives them.
    """

    def scale(path: jax.tree_util.KeyPath, leaf: Array) -> Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("kernel"):
            return leaf * (leaf.shape[-2] ** -0.5 / 0.02)
        return leaf * 5 if name == "embedding" else leaf

    return jax.tree_util.tree_map_with_path(scale, decoder.init(config, key=key))
