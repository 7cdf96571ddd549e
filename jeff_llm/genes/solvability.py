"""Labels that separate patients whose gene can be found from hard ones.

A label is "yes", "maybe" or "no": whether the phenotypes point to one gene. It comes
from agents, calls of a language model with different roles (`jeff_llm.genes.agents`),
or, without a model, from ontology measures that agree on the top gene or do not.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real, Shaped

from jeff.bootstrap import RandomKey
from jeff_llm.genes.evaluation import Interval, evaluate

__all__ = [
    "LABELS",
    "UNREADABLE",
    "LabelAccuracy",
    "accuracy_by_label",
    "agreement",
    "committee_labels",
    "consensus",
]

LABELS = ("yes", "maybe", "no")
UNREADABLE = "unreadable"


class LabelAccuracy(NamedTuple):
    """Accuracy among the cases of one label.

    Attributes:
      cases: number of cases.
      accuracy: share of cases whose top gene is right, with a 95% interval over genes.
    """

    cases: int
    accuracy: Interval


def consensus(labels: Sequence[str | None]) -> str:
    """Label on which most agents agree.

    Args:
      labels: one of `LABELS` from each agent; None where its answer is unreadable, and
        does not count.

    Returns:
      The label of more than half of the readable answers; "maybe" if none has so many;
      `UNREADABLE` if no answer is readable.

    Raises:
      ValueError: if a label is unknown.

    >>> consensus(["yes", "no", "yes", None]), consensus(["yes", "no"])
    ('yes', 'maybe')
    """
    counts = Counter(label for label in labels if label is not None)
    if unknown := sorted(set(counts) - set(LABELS)):
        raise ValueError(f"labels: expected {LABELS} or None, got {unknown[0]!r}")
    if not counts:
        return UNREADABLE
    label, count = counts.most_common(1)[0]
    return label if 2 * count > counts.total() else "maybe"


def agreement(
    scores: Real[np.ndarray, "measures cases genes"],
    top: Int[np.ndarray, " cases"],
) -> Float[np.ndarray, " cases"]:
    """Share of measures whose top gene is the given one.

    A measure with several best genes counts for each of them by one over their number.

    Args:
      scores: scores by measure, case and gene, larger is better.
      top: position of the gene that is asked about, by case.

    Returns:
      The share by case, in [0, 1].

    Raises:
      ValueError: if there is no measure or gene, shapes do not fit, a gene is outside
        the list, or a score is NaN.

    >>> agreement(np.array([[[3.0, 1.0]], [[2.0, 2.0]]]), np.array([0]))
    array([0.75])
    """
    scores, top = np.asarray(scores), np.asarray(top)
    if scores.ndim != 3 or not (scores.shape[0] and scores.shape[2]):
        raise ValueError(
            f"scores: expected measures, cases and genes, got shape {scores.shape}"
        )
    if top.shape != scores.shape[1:2]:
        raise ValueError(f"top: expected shape {scores.shape[1:2]}, got {top.shape}")
    if len(top) and not (top.min() >= 0 and top.max() < scores.shape[2]):
        raise ValueError(
            f"top: expected positions from 0 to {scores.shape[2] - 1}, got "
            f"{top.min()} to {top.max()}"
        )
    if np.isnan(scores).any():
        raise ValueError("scores: expected numbers, got NaN")
    best = scores == scores.max(-1, keepdims=True)
    own = np.take_along_axis(best, top[None, :, None], axis=2)[..., 0]
    return (own / best.sum(-1)).mean(0)


def committee_labels(
    share: Float[np.ndarray, " cases"], *, yes: float = 0.75, maybe: float = 0.25
) -> tuple[str, ...]:
    """Labels from the agreement of measures.

    Args:
      share: share of measures that agree, in [0, 1], as from `agreement`.
      yes: smallest share for "yes".
      maybe: smallest share for "maybe", at most ``yes``.

    Returns:
      A label by case.

    Raises:
      ValueError: if a share is outside [0, 1], or not 0 < ``maybe`` <= ``yes`` <= 1.

    >>> committee_labels(np.array([1.0, 0.5, 0.1]))
    ('yes', 'maybe', 'no')
    """
    share = np.asarray(share, np.float64)
    if not ((share >= 0) & (share <= 1)).all():
        raise ValueError(f"share: expected numbers in [0, 1], got {share}")
    if not 0 < maybe <= yes <= 1:
        raise ValueError(
            f"maybe: expected 0 < maybe <= yes <= 1, got {maybe} and {yes}"
        )
    # Shares are sums of fractions, so 0.75 may come out a rounding below 0.75.
    places = (share < yes - 1e-9).astype(int) + (share < maybe - 1e-9)
    return tuple(LABELS[place] for place in places)


def accuracy_by_label(
    labels: Sequence[str],
    correct: Bool[np.ndarray, " cases"],
    cluster: Shaped[np.ndarray, " cases"],
    *,
    key: RandomKey,
    num_resamples: int = 2000,
) -> dict[str, LabelAccuracy]:
    """Accuracy among the cases of each label.

    Args:
      labels: any label of each case: `LABELS`, an organ, a third.
      correct: whether the top gene is right.
      cluster: what is resampled, usually the causal gene.
      key: random key.
      num_resamples: number of resamples, at least 1.

    Returns:
      Cases and accuracy by label: `LABELS` first, then others in order of appearance;
      labels without a case are left out.

    Raises:
      ValueError: if there are no cases, lengths differ, or ``num_resamples`` is not
        positive.
    """
    correct, cluster = np.asarray(correct, bool), np.asarray(cluster)
    if not len(labels):
        raise ValueError("labels: expected at least one case, got none")
    for name, values in (("correct", correct), ("cluster", cluster)):
        if values.shape != (len(labels),):
            raise ValueError(
                f"{name}: expected shape ({len(labels)},) as labels, got {values.shape}"
            )
    found = {}
    for label in dict.fromkeys([*LABELS, *labels]):
        own = np.array([each == label for each in labels])
        if own.any():
            measured = evaluate(
                np.where(correct[own], 1.0, np.inf),
                cluster[own],
                key=key,
                num_resamples=num_resamples,
            )
            found[label] = LabelAccuracy(int(own.sum()), measured.top1)
    return found
