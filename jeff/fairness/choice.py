"""The choice of a level on validation data, with a guarantee on its gap.

Levels are tested in a fixed order, from the fair end to the accurate one, each at the
whole confidence, and the test stops at the first level that is not certain enough
(fixed sequence testing). A level with too large a gap is accepted only if the first
such level in the order is, so the error is that of one test, however many levels there
are; among the accepted ones the most accurate may be chosen. `jeff.fairness.bounds` has
the tests. The paper has no such choice.

References:
  Angelopoulos et al., "Learn then Test: Calibrating Predictive Algorithms to Achieve
  Risk Control", 2021, section 3.2.2 (fixed sequence testing).
  Hsu and Berger, "Stepwise Confidence Intervals without Multiplicity Adjustment for
  Dose-Response and Toxicity Studies", JASA 1999 (the bound that goes with it).
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jeff import metrics
from jeff.as_arrays import as_array
from jeff.fairness import gaps
from jeff.fairness.bounds import gap_bound, gap_is_within, weighted_gap_bound
from jeff.fairness.examples import Column, as_examples
from jeff.fairness.model import ApplyFn, Examples, Line, gap_of, named_gap, predict

__all__ = ["Choice", "EmptyCellError", "NoLevelError", "choose_alpha"]


class Choice(NamedTuple):
    """The level that `choose_alpha` picked.

    Attributes:
      alpha: the level.
      accuracy: its accuracy on the validation data.
      gap: its gap on the validation data.
      gap_upper: upper confidence bound of its gap that accounts for the choice: the
        limit, or, where all levels passed, the largest of their bounds.
    """

    alpha: float
    accuracy: float
    gap: float
    gap_upper: float


class EmptyCellError(ValueError):
    """Raised when nobody belongs to a cell whose rate the gap compares."""


class NoLevelError(ValueError):
    """Raised when no level keeps the gap within the limit at the given confidence."""


def choose_alpha(
    apply_fn: ApplyFn,
    line: Line,
    examples: Examples,
    alphas: Float[Array, " levels"] | Column,
    *,
    key: PRNGKeyArray,
    metric: str = "demographic_parity",
    at_most: float | int,
    confidence: float = 0.95,
) -> Choice:
    """Choose the most accurate level whose gap is within a limit, with confidence.

    ``P(true gap of the chosen level > at_most) <= 1 - confidence``, over the draw of
    the validation people, at any number of members of the groups and any number of
    levels. Levels are tested from the largest alpha down, until the bound of one is
    above the limit.

    The bound of a gap between two rates is exact (`jeff.fairness.bounds.gap_bound`).
    Equalized odds is a sum of two gaps, each bounded with half of the error. With
    weights it is `jeff.fairness.bounds.weighted_gap_bound`, which takes the largest
    weight given for the largest of the population.

    Args:
      apply_fn: as in `jeff.fairness.predict`.
      line: the two ends.
      examples: validation people, used neither in training nor in testing; their
        outcomes and groups, 0 or 1. Independent draws from the population.
      alphas: candidate levels, shape [levels].
      key: random key of the order in which weighted people are counted; without
        weights the result does not depend on it.
      metric: a name in `jeff.fairness.model.GAPS`, computed on hard decisions.
      at_most: limit on the gap, in (0, 1].
      confidence: probability that the gap is within the limit, in (0, 1).

    Returns:
      A `Choice`.

    Raises:
      ValueError: if an argument is out of range, an outcome or group is neither 0 nor
        1, a weight is negative or NaN, or the model predicts NaN.
      EmptyCellError: if a group whose rate the gap compares has no members; a
        ValueError too.
      NoLevelError: if not even the fair end satisfies the limit; the message gives its
        gap and bound, and what helps.
    """
    named_gap(metric)
    if not 0 < at_most <= 1:
        raise ValueError(f"at_most: expected a gap in (0, 1], got {at_most}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number in (0, 1), got {confidence}")
    people = as_examples(examples)
    levels = np.asarray(as_array(alphas, "alphas"))
    if levels.ndim != 1 or not levels.size or not np.isfinite(levels).all():
        raise ValueError(f"alphas: expected a vector of levels, got {levels}")
    pairs = _pairs(metric, people)
    prob = predict(apply_fn, line, people.inputs, jnp.asarray(levels))
    if not jnp.isfinite(prob).all():
        bad = int((~jnp.isfinite(prob)).any(0).sum())
        raise ValueError(
            f"apply_fn: expected finite probabilities, got NaN for {bad} of "
            f"{prob.shape[1]} people; a gap cannot be bounded from them"
        )
    hard = gaps.harden(prob)
    decided = np.asarray(hard).astype(bool)
    order = np.asarray(jax.random.permutation(key, len(people.label)))
    tests = _Tests(decided, pairs, people.weight, order, 1 - confidence)
    # Stable: of equal levels the first comes first, on every machine.
    places = np.argsort(-levels, kind="stable").tolist()
    passed = list(
        itertools.takewhile(lambda each: tests.is_within(each, float(at_most)), places)
    )
    if not passed:
        gap = float(gap_of(metric, hard[places[0]], people.group, people))
        bound = tests.bound(places[0])
        raise NoLevelError(
            f"at_most: no level keeps the {metric} gap at or below {at_most} with "
            f"confidence {confidence}; at the fair end, alpha {levels.max():g}, it is "
            f"{gap:.4f} on {len(people.label)} people and at most {bound:.4f} in the "
            f"population; {_remedy(gap, bound, at_most, len(people.label))}"
        )
    accuracy = {
        each: float(metrics.accuracy(prob[each], people.label, weight=people.weight))
        for each in passed
    }
    best = max(accuracy, key=lambda each: accuracy[each])
    gap = gap_of(metric, hard[best], people.group, people)
    upper = float(at_most)
    if len(passed) == len(places):
        upper = min(upper, tests.largest_bound(passed))
    return Choice(float(levels[best]), accuracy[best], float(gap), upper)


def _remedy(gap: float, bound: float, at_most: float | int, people: int) -> str:
    """What helps: more people where the gap is small enough but not certain."""
    if gap >= at_most:
        return (
            "train longer or with a larger strength, raise the limit, or validate on "
            "more people"
        )
    # What a bound adds to a gap falls with the root of the number of people.
    wanted = people * ((bound - gap) / (at_most - gap)) ** 2
    return f"validate on more people, about {float(f'{wanted:.2g}'):,.0f}"


def _pairs(metric: str, people: Examples) -> list[tuple[np.ndarray, np.ndarray]]:
    """Members of the two cells of each difference that a gap is the sum of."""
    label, group = (np.asarray(x).astype(bool) for x in (people.label, people.group))
    counts = np.ones(len(label), bool)
    if people.weight is not None:
        counts = np.asarray(people.weight) > 0
    among = {
        "demographic_parity": {"": counts},
        "equal_opportunity": {" with outcome 1": counts & label},
        "equalized_odds": {
            " with outcome 0": counts & ~label,
            " with outcome 1": counts & label,
        },
    }[metric]
    cells = {
        f"group {number}{words}": rows & member
        for words, rows in among.items()
        for number, member in enumerate((~group, group))
    }
    empty = sorted(name for name, member in cells.items() if not member.any())
    if empty:
        raise EmptyCellError(
            f"group: expected people in every cell that the {metric} gap compares, got "
            f"none in {', '.join(empty)}; nothing can be guaranteed about a rate that "
            "was never seen: validate on people of both groups"
        )
    members = list(cells.values())
    return list(zip(members[::2], members[1::2], strict=True))


class _Tests:
    """Bounds of the gap of each level, each computed once and only where needed."""

    def __init__(
        self,
        decided: np.ndarray,
        pairs: list[tuple[np.ndarray, np.ndarray]],
        weight: Array | None,
        order: np.ndarray,
        delta: float,
    ):
        self._decided, self._pairs, self._order = decided, pairs, order
        self._weight = None if weight is None else np.asarray(weight, np.float64)
        # By the union bound: the sum holds where each of its parts does.
        self._delta = delta / len(pairs)
        self._found: dict[int, float] = {}

    def is_within(self, place: int, limit: float) -> bool:
        """Whether the bound of a level is at or below a limit."""
        if self._weight is not None or len(self._pairs) > 1:
            return self.bound(place) <= limit
        counts = self._counts(place, self._pairs[0])
        return gap_is_within(*counts, limit, delta=self._delta)

    def bound(self, place: int) -> float:
        """Upper bound on the gap of a level."""
        if place not in self._found:
            self._found[place] = sum(self._part(place, pair) for pair in self._pairs)
        return self._found[place]

    def largest_bound(self, places: list[int]) -> float:
        """The largest of the bounds of levels, of which the last is likely the one."""
        largest = self.bound(places[-1])
        for place in reversed(places[:-1]):
            if not self.is_within(place, largest):
                largest = max(largest, self.bound(place))
        return largest

    def _counts(
        self, place: int, pair: tuple[np.ndarray, np.ndarray]
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """Favourable decisions, and people, in both cells."""
        low, high = pair
        decided = self._decided[place]
        events = int(decided[low].sum()), int(decided[high].sum())
        return events, (int(low.sum()), int(high.sum()))

    def _part(self, place: int, pair: tuple[np.ndarray, np.ndarray]) -> float:
        """Upper bound on one of the differences whose sum is the gap."""
        if self._weight is None:
            return gap_bound(*self._counts(place, pair), delta=self._delta)
        low, high = pair
        rows = self._order[(low | high)[self._order]]
        return weighted_gap_bound(
            self._decided[place][rows],
            high[rows],
            self._weight[rows],
            largest=float(self._weight.max()),
            delta=self._delta,
        )
