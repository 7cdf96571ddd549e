"""One score from several: fusion of detectors or encoders without labels.

Character style finds spam that a sentence encoder does not see, and the reverse. Their
scores have different units, so each is compared first with its *reference*: the scores
of the training texts, each scored without itself. A fused score depends on its own
text and the references, never on the other texts that are scored with it.

The references are those of the training texts. Scores of the calibration texts are to
be fused like those of any other text; as a reference they would break the guarantee of
`jeff_llm.anomaly.conformal`.

References:
  Fisher, "Statistical Methods for Research Workers", 1932, section 21.1 (sum of logs).
  Aggarwal and Sathe, "Theoretical Foundations and Algorithms for Outlier Ensembles",
  ACM SIGKDD Explorations 2015 (averages of standardised scores).
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Float32

from jeff.checks import check_choice
from jeff_llm.anomaly.score_checks import check_finite_scores

__all__ = ["fuse", "standard_score", "tail_surprise"]

Scores: TypeAlias = Float[Array, " texts"] | Float[np.ndarray, " texts"]
Reference: TypeAlias = Float[Array, " reference"] | Float[np.ndarray, " reference"]
# Of any length: references of several views differ in theirs.
AnyReference: TypeAlias = Float[Array, " _"] | Float[np.ndarray, " _"]

# Share of the reference, the highest scores, that the tail beyond it is fitted to.
_TAIL = 0.1


def tail_surprise(scores: Scores, reference: Reference) -> Float32[Array, " texts"]:
    """Negative log of the share of a reference that scores as high, in nats.

    At a reference score ``r`` it is ``-log((1 + #{reference >= r}) / (n + 1))``, and
    linear in the score between two of them. Beyond the highest the share could fall no
    further and all clear anomalies would tie; there the tail is taken as exponential:
    ``(score - highest) / scale`` is added, with ``scale`` the mean excess of the
    highest tenth of the reference over the score below it (the standard deviation of
    the reference, where that tenth is tied). Pure and jittable; NaN under jit where
    the score is NaN.

    Args:
      scores: of the texts, higher for a more anomalous text.
      reference: scores of training texts, each scored without itself; at least two
        different ones.

    Returns:
      The surprise, at least 0, never decreasing in the score; above the lowest
      reference score it increases strictly.

    Raises:
      ValueError: if the reference has no two different scores, or a score is not
        finite.
      TypeError: if scores are not floating point.

    >>> reference = jnp.array([1.0, 2.0, 3.0])
    >>> found = tail_surprise(jnp.array([1.0, 3.0, 4.0]), reference)
    >>> [round(float(surprise), 3) for surprise in found]
    [0.0, 0.693, 1.693]
    """
    check_finite_scores(scores=scores, reference=reference)
    _check_reference("reference", reference)
    count = reference.shape[0]
    ordered = jnp.sort(jnp.asarray(reference, jnp.float32))
    value = jnp.asarray(scores, jnp.float32)
    at_least = count - jnp.searchsorted(ordered, ordered, side="left")
    surprise = jnp.log((count + 1) / (1 + at_least))
    tail = max(1, round(_TAIL * count))
    excess = ordered[count - tail :].mean() - ordered[count - tail - 1]
    scale = jnp.where(excess > 0, excess, ordered.std())
    beyond = jnp.maximum(value - ordered[-1], 0) / scale
    return jnp.interp(value, ordered, surprise) + beyond


def standard_score(scores: Scores, reference: Reference) -> Float32[Array, " texts"]:
    """Distance from the mean of a reference, in its standard deviations.

    ``z = (s - mean) / std``. Pure and jittable.

    Args:
      scores: of the texts.
      reference: scores of training texts, each scored without itself; at least two
        different ones.

    Returns:
      The standardised scores.

    Raises:
      ValueError: if the reference has no two different scores, or a score is not
        finite.
      TypeError: if scores are not floating point.

    >>> standard_score(jnp.array([3.0]), jnp.array([0.0, 2.0]))
    Array([2.], dtype=float32)
    """
    check_finite_scores(scores=scores, reference=reference)
    _check_reference("reference", reference)
    known = jnp.asarray(reference, jnp.float32)
    # Subtracting one of its scores first keeps the digits of a narrow reference.
    origin = known[0]
    known = known - origin
    return (jnp.asarray(scores, jnp.float32) - origin - known.mean()) / known.std()


def fuse(
    scores: Float[Array, "views texts"] | Float[np.ndarray, "views texts"],
    references: Sequence[AnyReference],
    *,
    method: Literal["fisher", "z"] = "fisher",
    weights: Sequence[float] | None = None,
) -> Float32[Array, " texts"]:
    """One score a text from the scores of several views.

    ``"fisher"``: ``sum_v w_v tail_surprise_v``, Fisher's statistic up to a factor of 2:
    robust to the shape of a view's scores, and high where any view is very surprised.
    ``"z"``: ``sum_v w_v z_v / sum_v w_v``. With one view both keep its order, Fisher's
    with ties below the lowest reference score.

    Args:
      scores: of the texts, one row a view (a detector, an encoder or both).
      references: for each view the scores of its training texts, each scored without
        itself; lengths may differ.
      method: how views are put on one scale.
      weights: of the views, not negative and not all 0; equal by default.

    Returns:
      The fused scores, higher for a more anomalous text.

    Raises:
      ValueError: if shapes or numbers of views differ, a reference has no two different
        scores, a score is not finite, a weight is negative or not finite or all are 0,
        or ``method`` is unknown.
      TypeError: if scores are not floating point.

    >>> views = jnp.array([[3.0, 0.0], [5.0, 5.0]])
    >>> fuse(views, [jnp.array([0.0, 2.0]), jnp.array([4.0, 6.0])], method="z")
    Array([ 1. , -0.5], dtype=float32)
    """
    check_choice("method", method, ("fisher", "z"))
    if jnp.ndim(scores) != 2 or not scores.shape[0]:
        raise ValueError(
            f"scores: expected shape [views, texts], got {jnp.shape(scores)}"
        )
    if len(references) != scores.shape[0]:
        raise ValueError(
            f"references: expected one for each of {scores.shape[0]} views, got "
            f"{len(references)}"
        )
    share = _weights(weights, scores.shape[0])
    for view, reference in enumerate(references):
        check_finite_scores(**{f"references[{view}]": reference})
        _check_reference(f"references[{view}]", reference)
    scale = tail_surprise if method == "fisher" else standard_score
    views = [scale(s, r) for s, r in zip(scores, references, strict=True)]
    # Added one by one: a reduction's order may depend on the number of texts.
    total = views[0] * share[0]
    for view, weight in zip(views[1:], share[1:], strict=True):
        total = total + view * weight
    return total if method == "fisher" else total / sum(share)


def _weights(weights: Sequence[float] | None, count: int) -> list[float]:
    found = [1.0] * count if weights is None else [float(w) for w in weights]
    if len(found) != count:
        raise ValueError(
            f"weights: expected one for each of {count} views, got {len(found)}"
        )
    if not all(0 <= w < float("inf") for w in found) or not sum(found):
        raise ValueError(
            f"weights: expected numbers of at least 0, one above 0, got {found}"
        )
    return found


def _check_reference(name: str, reference: AnyReference) -> None:
    if reference.shape[0] < 2:
        raise ValueError(
            f"{name}: expected scores of at least 2 texts, got {reference.shape[0]}"
        )
    if isinstance(reference, Tracer):
        return
    found = np.asarray(reference, np.float32)
    if (found == found[0]).all():
        raise ValueError(
            f"{name}: expected at least two different scores, got {len(found)} times "
            f"{found[0]}; leave the view out"
        )
