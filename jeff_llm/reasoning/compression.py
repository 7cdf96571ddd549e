"""Which tokens of a solution to keep, so that a model learns to write the others less.

A compressed solution trains a model together with its ratio, which the prompt then asks
for. `token_importance` reads the importance from a decoder of jeff; `compress_tokens`
takes any other just as well.

References:
  Xia et al., "TokenSkip: Controllable Chain-of-Thought Compression in LLMs", EMNLP
  2025, arXiv 2502.12067.
"""

from collections.abc import Sequence
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from jeff.checks import check_floating, check_mask, check_same_length
from jeff_llm.generate import batching, scoring
from jeff_llm.models.language_model import LanguageModel

__all__ = ["compress_tokens", "token_importance"]

AnyArray: TypeAlias = Array | np.ndarray


def compress_tokens(
    importance: Float[AnyArray, " tokens"],
    *,
    ratio: float | int,
    where: Bool[AnyArray, " tokens"] | None = None,
) -> Bool[Array, " tokens"]:
    """Tokens of a solution to keep: the most important ones, in their order.

    ``ceil(ratio n)`` of n tokens are kept; of equally important ones the earlier.

    Args:
      importance: of each token, such as that of `token_importance`.
      ratio: share to keep, in (0, 1].
      where: the tokens that are real; all by default.

    Returns:
      Whether each token is kept. Under jit and vmap like any function of arrays.

    Raises:
      TypeError: if ``importance`` is not floating point, or ``where`` is not bool.
      ValueError: if lengths differ, an importance is NaN, or the ratio is outside
        (0, 1].

    References:
      Xia et al., "TokenSkip: Controllable Chain-of-Thought Compression in LLMs", EMNLP
      2025, arXiv 2502.12067.

    >>> compress_tokens(jnp.array([0.1, 3.0, 2.0]), ratio=0.5)
    Array([False,  True,  True], dtype=bool)
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio: expected a number in (0, 1], got {ratio}")
    importance = jnp.asarray(importance)
    where = jnp.ones(importance.shape, bool) if where is None else jnp.asarray(where)
    check_same_length(importance=importance, where=where)
    check_floating(importance=importance)
    check_mask(where=where)
    missing = jnp.isnan(importance) & where
    if not isinstance(missing, Tracer) and missing.any():
        raise ValueError("importance: expected numbers, got NaN")
    # Padding last, also behind tokens of importance minus infinity.
    order = jnp.lexsort((-importance, ~where))
    rank = jnp.zeros(order.shape, int).at[order].set(jnp.arange(order.shape[0]))
    # A product such as 0.3 * 10 is a rounding above 3, and must not keep a fourth.
    keep = jnp.maximum(jnp.ceil(ratio * where.sum() - 1e-4), 1)
    return where & (rank < keep)


def token_importance(
    model: LanguageModel,
    prompts: Sequence[batching.Prompt],
    solutions: Sequence[batching.Prompt],
    *,
    batch_size: int = 8,
) -> list[Float[np.ndarray, " tokens"]]:
    """Surprisal of each token of a solution, ``-log p(token | prompt, before)``.

    A token that the model foresees says little. TokenSkip uses LLMLingua-2 instead, a
    classifier trained on compressed texts, and argues that surprisal depends on a
    token's position; surprisal needs no other model than the one at hand.

    Args:
      model: the model.
      prompts: questions, texts or token ids.
      solutions: their solutions, texts or token ids.
      batch_size: questions at a time.

    Returns:
      An array for each solution, in nats.

    Raises:
      ValueError: as `jeff_llm.generate.score`.

    References:
      Li et al., "Compressing Context to Enhance Inference Efficiency of Large Language
      Models", EMNLP 2023, arXiv 2310.06201 (Selective Context).
    """
    scores = scoring.score(
        model, prompts, [[each] for each in solutions], batch_size=batch_size
    )
    return [-each.log_probs for (each,) in scores]
