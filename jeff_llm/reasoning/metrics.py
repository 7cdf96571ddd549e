"""Measures of reasoning efficiency: how many tokens an accuracy costs.

Functions of arrays over responses, safe under jit. Correctness is bool, or a score in
[0, 1]; lengths are in tokens.

The efficiency score `aes` follows its equation. The table of O1-Pruner, which
introduces it, adds three times the loss of accuracy where the equation subtracts five
times: for Marco-o1 on MATH it prints 0.42 and 0.15, which are 0.21 and -0.15.
"""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Shaped

from jeff.checks import check_binary
from jeff_llm.reasoning.groups import Samples, check_samples

__all__ = [
    "accuracy_at_budget",
    "aes",
    "area_under_budget",
    "compression_rate",
    "outcome_efficiency",
    "process_efficiency",
    "tokens_per_correct",
]

Solutions = (
    Shaped[Array, "responses solutions"] | Shaped[np.ndarray, "responses solutions"]
)
Responses = Shaped[Array, " responses"] | Shaped[np.ndarray, " responses"]
Numbers = Shaped[Array, "..."] | Shaped[np.ndarray, "..."] | float | int | np.number


def outcome_efficiency(
    solution_correct: Solutions, solution_length: Solutions, length: Responses
) -> Float[Array, ""]:
    """Share of a response's tokens that lead to its first right solution.

    ``xi_O = mean over i of right_i first_i / T_i``, with ``first_i`` the tokens up to
    and including the first right solution of response i, ``T_i`` its length, and
    ``right_i`` whether it has a right solution at all. 1 where every response ends with
    its first right solution.

    Args:
      solution_correct: whether each solution in a response is right, in their order.
      solution_length: tokens of each solution, at least 0; 0 for padding.
      length: tokens of each response, positive.

    Returns:
      The efficiency, in [0, 1] where solutions are parts of their response.

    Raises:
      ValueError: if shapes differ, there is no response or a value is out of range.
      TypeError: if ``solution_correct`` is not binary.

    References:
      Chen et al., "Do NOT Think That Much for 2+3=? On the Overthinking of o1-Like
      LLMs", 2024 (arXiv 2412.21187), eq. 1.

    >>> right, parts = jnp.array([[False, True, True]]), jnp.array([[2, 3, 5]])
    >>> outcome_efficiency(right, parts, jnp.array([10]))
    Array(0.5, dtype=float32)
    """
    _check_solutions("solution_correct", solution_correct, solution_length, length)
    check_binary(solution_correct=jnp.asarray(solution_correct))
    # Padding has no tokens, but could be marked as right.
    right = jnp.asarray(solution_correct, bool) & (jnp.asarray(solution_length) > 0)
    through = jnp.cumsum(jnp.asarray(solution_length, float), axis=1)
    first = jnp.take_along_axis(through, right.argmax(1)[:, None], axis=1)[:, 0]
    return jnp.mean(jnp.where(right.any(1), first, 0.0) / jnp.asarray(length, float))


def process_efficiency(
    kind: Solutions, solution_length: Solutions, length: Responses
) -> Float[Array, ""]:
    """Share of a response's tokens in solutions of a kind not seen before in it.

    ``xi_P = mean over i of D_i / T_i``, with ``D_i`` the tokens of the first solution
    of each distinct kind in response i and ``T_i`` its length.

    Args:
      kind: way of solving of each solution, any integers, in their order.
      solution_length: tokens of each solution, at least 0; 0 for padding.
      length: tokens of each response, positive.

    Returns:
      The efficiency, in [0, 1] where solutions are parts of their response.

    Raises:
      ValueError: if shapes differ, there is no response or a value is out of range.
      TypeError: if ``kind`` is not integer.

    References:
      Chen et al., "Do NOT Think That Much for 2+3=? On the Overthinking of o1-Like
      LLMs", 2024 (arXiv 2412.21187), eq. 2.

    >>> kind, parts = jnp.array([[4, 4, 1]]), jnp.array([[2, 3, 5]])
    >>> process_efficiency(kind, parts, jnp.array([10]))
    Array(0.7, dtype=float32)
    """
    _check_solutions("kind", kind, solution_length, length)
    if jnp.issubdtype(jnp.result_type(kind), jnp.floating):
        raise TypeError(f"kind: expected integers, got {jnp.result_type(kind)}")
    kind, tokens = jnp.asarray(kind), jnp.asarray(solution_length, float)
    same = (kind[:, :, None] == kind[:, None, :]) & (tokens[:, None, :] > 0)
    earlier = jnp.tril(jnp.ones((kind.shape[1],) * 2, bool), -1)
    repeated = (same & earlier).any(2)
    fresh = jnp.sum(jnp.where(repeated, 0.0, tokens), axis=1)
    return jnp.mean(fresh / jnp.asarray(length, float))


def aes(
    accuracy: Numbers,
    length: Numbers,
    baseline_accuracy: Numbers,
    baseline_length: Numbers,
    *,
    gain_weight: float | int = 3.0,
    loss_weight: float | int = 5.0,
) -> Float[Array, "..."]:
    """Accuracy-efficiency score against a baseline.

    ``dL + 3 dA`` where the accuracy has not fallen, ``dL - 5 |dA|`` where it has, with
    the relative changes ``dL = (Lb - L) / Lb`` and ``dA = (A - Ab) / Ab``.

    Args:
      accuracy: A, in any unit.
      length: L, mean tokens.
      baseline_accuracy: Ab, positive, in the unit of ``accuracy``.
      baseline_length: Lb, positive.
      gain_weight: of a relative gain of accuracy.
      loss_weight: of a relative loss of accuracy.

    Returns:
      The score, of the broadcast shape; 0 for the baseline itself.

    References:
      Luo et al., "O1-Pruner: Length-Harmonizing Fine-Tuning for O1-Like Reasoning
      Pruning", 2025 (arXiv 2501.12570), section 4.1.

    >>> aes(0.8, 50.0, 0.8, 100.0)
    Array(0.5, dtype=float32)
    """
    accuracy, length = jnp.asarray(accuracy, float), jnp.asarray(length, float)
    saved = 1 - length / jnp.asarray(baseline_length, float)
    change = accuracy / jnp.asarray(baseline_accuracy, float) - 1
    return saved + jnp.where(change >= 0, gain_weight, loss_weight) * change


def tokens_per_correct(correct: Samples, length: Samples) -> Float[Array, ""]:
    """Tokens spent for each right answer, those of wrong answers included.

    ``sum(L) / sum(c)``.

    Args:
      correct: whether each answer is right, or how right, in [0, 1].
      length: tokens of each sample, at least 0.

    Returns:
      Tokens; infinity where no answer is right.

    Raises:
      ValueError: if lengths differ, there is no sample or a value is out of range.

    >>> tokens_per_correct(jnp.array([True, False]), jnp.array([10, 30]))
    Array(40., dtype=float32)
    """
    check_samples(correct=correct, length=length)
    right = jnp.sum(jnp.asarray(correct, float))
    total = jnp.sum(jnp.asarray(length, float))
    # Compared with 0 so that NaN, which is not 0, stays NaN.
    return jnp.where(right == 0, jnp.inf, total / jnp.where(right == 0, 1.0, right))


def compression_rate(length: Samples, baseline_length: Samples) -> Float[Array, ""]:
    """Tokens of compressed chains over those of the chains they replace.

    ``sum(L) / sum(Lb)``, over the same questions.

    Args:
      length: tokens of each compressed chain, at least 0.
      baseline_length: tokens of each original chain; they must not all be 0.

    Returns:
      The rate, at least 0; below 1 where chains are shorter.

    Raises:
      ValueError: if lengths differ, there is no sample or a value is out of range.

    References:
      Xia et al., "TokenSkip: Controllable Chain-of-Thought Compression in LLMs", 2025
      (arXiv 2502.12067), section 5 (actual compression ratio).

    >>> compression_rate(jnp.array([5, 10]), jnp.array([10, 20]))
    Array(0.5, dtype=float32)
    """
    check_samples(length=length, baseline_length=baseline_length)
    total = jnp.sum(jnp.asarray(baseline_length, float))
    return jnp.sum(jnp.asarray(length, float)) / total


def accuracy_at_budget(
    correct: Samples,
    length: Samples,
    budgets: Float[Array, " budgets"] | Shaped[np.ndarray, " budgets"],
) -> Float[Array, " budgets"]:
    """Accuracy if every answer had to end within a budget of tokens.

    ``mean of c [L <= budget]``: an answer that takes longer counts as wrong.

    Args:
      correct: whether each answer is right, or how right, in [0, 1].
      length: tokens of each sample, at least 0.
      budgets: tokens; infinity is no limit.

    Returns:
      The accuracy at each budget; grows with the budget up to the plain accuracy.

    Raises:
      ValueError: if lengths differ, there is no sample or a value is out of range.

    >>> right, length = jnp.array([True, True]), jnp.array([10, 30])
    >>> accuracy_at_budget(right, length, jnp.array([5.0, 20.0, 40.0]))
    Array([0. , 0.5, 1. ], dtype=float32)
    """
    check_samples(correct=correct, length=length)
    if not isinstance(budgets, Tracer) and np.isnan(np.asarray(budgets)).any():
        raise ValueError("budgets: expected numbers of tokens, got NaN")
    within = jnp.asarray(length, float) <= jnp.asarray(budgets, float)[:, None]
    return jnp.mean(jnp.asarray(correct, float) * within, axis=1)


def area_under_budget(
    correct: Samples, length: Samples, *, max_budget: float | int
) -> Float[Array, ""]:
    """Mean accuracy over all budgets from 0 to a largest one.

    The area under `accuracy_at_budget`, over ``max_budget``. It is exact, since that
    curve is a sum of steps: ``mean of c max(0, 1 - L / max_budget)``.

    Args:
      correct: whether each answer is right, or how right, in [0, 1].
      length: tokens of each sample, at least 0.
      max_budget: the largest budget in tokens, positive; compare areas at the same one.

    Returns:
      The area in [0, 1]; 1 for right answers without a token.

    Raises:
      ValueError: if lengths differ, there is no sample, a value is out of range, or the
        budget is not positive.

    >>> right, length = jnp.array([True, True]), jnp.array([10, 30])
    >>> area_under_budget(right, length, max_budget=40)
    Array(0.5, dtype=float32)
    """
    check_samples(correct=correct, length=length)
    if not max_budget > 0:
        raise ValueError(f"max_budget: expected positive tokens, got {max_budget}")
    left = jnp.maximum(1 - jnp.asarray(length, float) / max_budget, 0.0)
    return jnp.mean(jnp.asarray(correct, float) * left)


def _check_solutions(
    name: str, values: Numbers, solution_length: Numbers, length: Numbers
) -> None:
    shape = np.shape(solution_length)
    for other, expected in (
        (name, (values, shape)),
        ("length", (length, shape[:1])),
    ):
        if np.shape(expected[0]) != expected[1] or len(shape) != 2:
            raise ValueError(
                f"{other}: expected shape {expected[1]} as in solution_length, "
                f"[responses, solutions], got {np.shape(expected[0])}"
            )
    if not shape[1]:
        raise ValueError("solution_length: expected at least 1 solution, got 0")
    check_samples(length=jnp.asarray(length))
    if not isinstance(length, Tracer) and not np.all(np.asarray(length) > 0):
        raise ValueError(f"length: expected positive tokens, got {np.min(length)}")
    check_samples(length=jnp.ravel(jnp.asarray(solution_length)))
