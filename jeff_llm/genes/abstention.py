"""When to answer: measures of a probability that the top gene is right, a threshold.

The probabilities come from `jeff_llm.genes.top_probability`, or from anywhere else.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Shaped

from jeff import metrics
from jeff.bootstrap import RandomKey
from jeff_llm.confidence import with_guarantee

__all__ = ["Quality", "Threshold", "answer_threshold", "evaluate"]


class Quality(NamedTuple):
    """How well probabilities tell right top genes from wrong ones.

    Attributes:
      accuracy: share of cases whose top gene is right.
      calibration_error: expected calibration error, in bins of equal width.
      auroc: area under the ROC curve.
      brier: mean squared error of the probability.
      coverage: share of the cases answered, ascending, [cases].
      risk: share of errors among these, the surest cases being answered, [cases].
    """

    accuracy: float
    calibration_error: float
    auroc: float
    brier: float
    coverage: Float[np.ndarray, " cases"]
    risk: Float[np.ndarray, " cases"]


class Threshold(NamedTuple):
    """When to answer so that few answers are wrong.

    Attributes:
      threshold: answer if the probability is above it; infinite if nothing can be
        proved, so that no case is answered.
      answered: share of the cases above it.
      wrong: share of errors among these; 0 if there are none.
      max_error: bound on the error rate of new answers.
      delta: probability that the bound may fail.
    """

    threshold: float
    answered: float
    wrong: float
    max_error: float
    delta: float


def evaluate(
    prob: Float[np.ndarray, " cases"],
    correct: Bool[np.ndarray, " cases"],
    *,
    num_bins: int = 10,
) -> Quality:
    """Measure probabilities of right top genes.

    Args:
      prob: probability by case, of cases that the model was not trained on.
      correct: whether the top gene is right.
      num_bins: bins of the calibration error.

    Returns:
      The measures, and the risk-coverage curve.

    Raises:
      ValueError: if there are no cases, or lengths differ.
    """
    if not len(prob):
        raise ValueError("prob: expected at least one case, got none")
    sure, right = jnp.asarray(prob, jnp.float32), jnp.asarray(correct)
    error = metrics.expected_calibration_error(sure, right, num_bins=num_bins)
    coverage, risk = metrics.risk_coverage_curve(sure, right)
    return Quality(
        float(right.mean()),
        float(error),
        float(metrics.auroc(sure, right)),
        float(metrics.brier_score(sure, right)),
        np.asarray(coverage),
        np.asarray(risk),
    )


def answer_threshold(
    prob: Float[np.ndarray, " cases"],
    correct: Bool[np.ndarray, " cases"],
    cluster: Shaped[np.ndarray, " cases"],
    *,
    max_error: float = 0.2,
    delta: float = 0.1,
    key: RandomKey,
) -> Threshold:
    """Probability above which an answer may be given, with a guarantee.

    Of all answers above the threshold at most ``max_error`` are wrong, with probability
    ``1 - delta`` over the draw of the cases. The bound needs independent cases, so one
    case of each cluster is drawn; it holds for new cases of new clusters.

    Args:
      prob: probability by case, of cases that the model was not trained on.
      correct: whether the top gene is right.
      cluster: what is independent, usually the causal gene.
      max_error: largest error rate, in (0, 1).
      delta: probability that the bound may fail, in (0, 1).
      key: random key of the draw.

    Returns:
      The threshold, and what it does to all cases given.

    Raises:
      ValueError: if there are fewer than two clusters, lengths differ, or a number is
        out of range.

    References:
      Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks",
      NeurIPS 2017.
    """
    prob, correct = np.asarray(prob), np.asarray(correct, bool)
    if not prob.shape == correct.shape == np.shape(cluster) or prob.ndim != 1:
        raise ValueError(
            f"prob: expected one number for each case, got shapes {prob.shape}, "
            f"{correct.shape} and {np.shape(cluster)} of prob, correct and cluster"
        )
    order = np.asarray(jax.random.permutation(key, len(prob)))
    names, first = np.unique(np.asarray(cluster)[order], return_index=True)
    if len(names) < 2:
        raise ValueError(f"cluster: expected at least 2 clusters, got {len(names)}")
    chosen = np.sort(order[first])
    found = with_guarantee(
        jnp.asarray(prob[chosen], jnp.float32),
        jnp.asarray(correct[chosen]),
        max_error=max_error,
        delta=delta,
    )
    kept = prob.astype(np.float32) > found.threshold
    wrong = float((~correct[kept]).mean()) if kept.any() else 0.0
    return Threshold(found.threshold, float(kept.mean()), wrong, max_error, delta)
