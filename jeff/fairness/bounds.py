"""Upper bounds on a fairness gap that hold at every number of people.

A gap compares rates of favourable decisions between two groups. The bound of a gap is
above the true gap with the stated confidence, given the sizes of the cells: for one
member as for thousands, with no normal approximation and no resampling. (A percentile
bootstrap covers far too seldom at ten members or fewer.)

* Unweighted: an exact test of the difference of two binomial rates, inverted. Its
  nuisance rate is restricted to a Clopper-Pearson interval (Berger and Boos).
* Weighted: people are draws of (weight, decision), and the rate is ``E[w d] / E[w]``.
  Each rate has a bound by betting, which needs weights that are bounded by the largest
  one given. Weights that vary cost precision; no weight counts as more people.

References:
  Chan and Zhang, "Test-Based Exact Confidence Intervals for the Difference of Two
  Binomial Proportions", Biometrics 1999.
  Berger and Boos, "P Values Maximized over a Confidence Set for the Nuisance
  Parameter", JASA 1994.
  Waudby-Smith and Ramdas, "Estimating Means of Bounded Random Variables by Betting",
  JRSS B 2024.
"""

import functools
import math

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import betainc, gammaln, xlog1py, xlogy

from jeff.binomial import interval

__all__ = ["gap_bound", "gap_is_within", "rate_bound", "weighted_gap_bound"]

# Parts of the nuisance rate's interval, each of which may be divided once more, and the
# share of delta that the interval takes.
_PARTS, _SHARE = 8, 0.05
# Probability that is added for the counts that are not summed.
_TAIL = 1e-10


def _difference_is_below(
    limit: float,
    high: tuple[int, int],
    low: tuple[int, int],
    *,
    delta: float,
) -> bool:
    """Whether counts prove that one rate exceeds another by less than a limit.

    The hypothesis ``p - q >= limit`` is rejected where the difference of the observed
    rates, or a smaller one, has a probability of at most ``delta`` under each of its
    pairs ``(p, q)``. That probability falls in ``p`` and grows in ``q``, so over a part
    ``a <= q <= b`` it is at most that of ``(a + limit, b)``: the maximum is bounded,
    not searched. Parts that do not prove it are divided, unless a pair at their edges
    shows that none would.

    Args:
      limit: the difference, in (0, 1].
      high: events and trials of the rate that must not be higher; each trial at least
        one.
      low: likewise of the other rate.
      delta: probability, in (0, 1), with which a wrong proof may occur.

    Returns:
      True where it is proved.

    References:
      Chan and Zhang, 1999; Berger and Boos, 1994.

    >>> _difference_is_below(0.25, (30, 100), (30, 100), delta=0.05)
    True
    >>> _difference_is_below(0.25, (0, 1), (30, 100), delta=0.05)
    False
    """
    if limit >= 1:
        return True
    if high[1] > low[1]:
        # In terms of failures the rates change places; the larger sample comes second,
        # since its rate is known better and is the one to go through.
        high, low = (low[1] - low[0], low[1]), (high[1] - high[0], high[1])
    (x, n), (y, m) = high, low
    allowed = delta * (1 - _SHARE)
    room = limit - (x / n - y / m)
    # Hoeffding's bound is above the exact probability, and cheap.
    if room > 0 and math.exp(-2 * room**2 / (1 / n + 1 / m)) <= allowed:
        return True
    first, last = interval(y, m, level=1 - _SHARE * delta)
    last = min(last, 1 - limit)
    if first > last:
        return True
    most = functools.partial(_probability, x * m - y * n, n, m)
    edges = np.linspace(first, last, _PARTS**2 + 1)
    coarse = edges[::_PARTS]
    left = most(coarse[:-1] + limit, coarse[1:]) > allowed
    if not left.any():
        return True
    pairs = np.unique([coarse[:-1][left], coarse[1:][left]])
    if (most(pairs + limit, pairs) - _TAIL > allowed).any():
        return False
    starts, ends = (
        e.reshape(_PARTS, -1)[left].ravel() for e in (edges[:-1], edges[1:])
    )
    return bool((most(starts + limit, ends) <= allowed).all())


def _probability(difference: int, n: int, m: int, p: np.ndarray, q: np.ndarray):
    """Bounds on ``P(X m - Y n <= difference)`` for X of (n, p_i), Y of (m, q_i)."""
    p = np.minimum(p, 1.0)
    reach = math.sqrt(n * math.log(2 / _TAIL) / 2)
    counts = np.arange(
        max(0, math.floor(n * p.min() - reach)),
        min(n, math.ceil(n * p.max() + reach)) + 1,
    )
    chosen = gammaln(n + 1) - gammaln(counts + 1) - gammaln(n - counts + 1)
    mass = np.exp(chosen + xlogy(counts, p[:, None]) + xlog1py(n - counts, -p[:, None]))
    # In integers: a difference that ties with the observed one must count.
    least = -((difference - counts * m) // n)
    inside = np.clip(least, 1, m)
    tail = betainc(inside, m - inside + 1, q[:, None])
    tail = np.where(least <= 0, 1.0, np.where(least > m, 0.0, tail))
    return (mass * tail).sum(1) + _TAIL


def gap_bound(
    events: tuple[int, int], trials: tuple[int, int], *, delta: float
) -> float:
    """Upper bound on ``|p_1 - p_0|`` from the events and trials of two groups.

    Both directions are bounded at ``delta``; only one of them can be violated.

    Args:
      events: favourable decisions in group 0 and 1.
      trials: people in group 0 and 1, at least 0.
      delta: probability, in (0, 1), with which the bound may fail.

    Returns:
      The bound, in (0, 1]; 1 if a group has no members.

    >>> gap_bound((3, 0), (3, 0), delta=0.05)
    1.0
    >>> round(gap_bound((300, 290), (1000, 1000), delta=0.05), 3)
    0.048
    """
    if min(trials) < 1:
        return 1.0
    bound = 0.0
    for high, low in _directions(events, trials):
        gap = high[0] / high[1] - low[0] / low[1]
        if gap < bound and _difference_is_below(bound, high, low, delta=delta):
            continue
        # Hoeffding's bound is one already, so the exact one lies below it.
        spread = -math.log(delta * (1 - _SHARE)) / 2 * (1 / high[1] + 1 / low[1])
        ends = [max(gap, bound), min(1.0, gap + math.sqrt(spread) + 1e-9)]
        while ends[1] - ends[0] > max(1e-4, 0.01 * math.sqrt(spread)):
            middle = sum(ends) / 2
            proved = _difference_is_below(middle, high, low, delta=delta)
            ends = [ends[0], middle] if proved else [middle, ends[1]]
        bound = max(bound, ends[1])
    return bound


def gap_is_within(
    events: tuple[int, int], trials: tuple[int, int], limit: float, *, delta: float
) -> bool:
    """Whether a limit is an upper bound on ``|p_1 - p_0|``, as `gap_bound` is.

    One test of each direction in place of a search.

    Args:
      events: as in `gap_bound`.
      trials: as in `gap_bound`.
      limit: the limit, in (0, 1].
      delta: as in `gap_bound`.

    Returns:
      True where the counts prove it; with no members only for a limit of 1.

    >>> gap_is_within((300, 290), (1000, 1000), 0.05, delta=0.05)
    True
    >>> gap_is_within((3, 0), (3, 0), 0.9, delta=0.05)
    False
    """
    if min(trials) < 1:
        return limit >= 1
    return all(
        _difference_is_below(limit, high, low, delta=delta)
        for high, low in _directions(events, trials)
    )


def _directions(
    events: tuple[int, int], trials: tuple[int, int]
) -> list[list[tuple[int, int]]]:
    """Events and trials of the rate that may be the higher one, and of the other."""
    cells = [(int(x), int(n)) for x, n in zip(events, trials, strict=True)]
    return [cells, cells[::-1]]


def rate_bound(
    decided: Bool[np.ndarray, " people"] | Float[np.ndarray, " people"],
    weight: Float[np.ndarray, " people"],
    *,
    largest: float,
    delta: float,
) -> float:
    """Upper bound on a weighted rate ``E[w d] / E[w]``, with ``0 <= d <= 1``.

    A bet on each person in turn: ``K(r) = prod_i (1 + lambda_i u_i (r - d_i))`` with
    ``u = w / largest``. At the true rate each factor has mean 1, so that ``K`` reaches
    ``1 / delta`` with probability ``delta`` at most (Ville). ``K`` grows with ``r``,
    and the bound is where it reaches ``1 / delta``. The stakes ``lambda`` are in
    [0, 0.9] and use earlier people only.

    Args:
      decided: decisions or probabilities, in [0, 1], in an order that does not depend
        on their values.
      weight: of each person, non-negative.
      largest: no weight of the population is above it.
      delta: probability, in (0, 1), with which the bound may fail.

    Returns:
      The bound, in (0, 1]; 1 without people.

    References:
      Waudby-Smith and Ramdas, 2024, section 4.

    >>> rate_bound(np.zeros(2), np.ones(2), largest=1.0, delta=0.05)
    1.0
    """
    if not len(decided):
        return 1.0
    share, hits = weight / largest, np.asarray(decided, float)
    number = np.arange(1, len(hits) + 1)
    # Estimates from the people before each; half a person is added for a start.
    mean = (0.5 + np.cumsum(share * hits)) / (1 + np.cumsum(share))
    before = np.concatenate([[0.5], mean[:-1]])
    spread = (0.25 + np.cumsum((share * (hits - before)) ** 2)) / number
    spread = np.concatenate([[0.25], spread[:-1]])
    stake = np.minimum(0.9, np.sqrt(-2 * math.log(delta) / (len(hits) * spread)))

    def excluded(rate: float) -> bool:
        return bool(np.log1p(stake * share * (rate - hits)).sum() >= -math.log(delta))

    if not excluded(1.0):
        return 1.0
    low, high = 0.0, 1.0
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (low, middle) if excluded(middle) else (middle, high)
    return high


def weighted_gap_bound(
    decided: np.ndarray,
    group: Bool[np.ndarray, " people"],
    weight: Float[np.ndarray, " people"],
    *,
    largest: float,
    delta: float,
) -> float:
    """Upper bound on the gap between the weighted rates of two groups.

    The upper bound of one rate less the lower bound of the other, each at half of
    ``delta``.

    Args:
      decided: as in `rate_bound`.
      group: whether each person is in group 1.
      weight: as in `rate_bound`.
      largest: as in `rate_bound`.
      delta: probability, in (0, 1), with which the bound may fail.

    Returns:
      The bound, in (0, 1]; 1 if a group has no members.
    """

    def end(values: np.ndarray, member: np.ndarray) -> float:
        return rate_bound(
            values[member], weight[member], largest=largest, delta=delta / 2
        )

    hits = np.asarray(decided, float)
    # A lower bound on a rate is 1 less an upper bound on its complement.
    return min(
        1.0,
        max(
            end(hits, one) + end(1 - hits, other) - 1
            for one, other in ((group, ~group), (~group, group))
        ),
    )
