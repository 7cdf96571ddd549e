"""Exact bounds on a probability from counts.

They hold at every number of trials, however small, and whatever the probability is:
nothing is approximated by a normal distribution.
"""

from scipy.special import betainccinv, betaincinv

__all__ = ["interval", "upper_bound"]


def interval(events: int, trials: int, *, level: float) -> tuple[float, float]:
    """Clopper-Pearson interval of the probability of an event.

    Both ends are one-sided bounds, each of which fails with probability
    ``(1 - level) / 2`` at most. It is (0, 1) without draws.

    Args:
      events: number of draws with the event, in [0, trials].
      trials: number of draws, at least 0; fixed before they are seen.
      level: probability, in (0, 1), with which the interval covers the true value.

    Returns:
      The low and the high end, in [0, 1].

    Raises:
      ValueError: if a number is outside its range.

    References:
      Clopper and Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the
      Case of the Binomial", Biometrika 1934.

    >>> [round(end, 4) for end in interval(5, 100, level=0.95)]
    [0.0164, 0.1128]
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number in (0, 1), got {level}")
    delta = (1 - level) / 2
    high = upper_bound(events, trials, delta=delta)
    # Not 1 - upper_bound of the other draws: a low end near 0 would lose its digits.
    low = float(betaincinv(events, trials - events + 1, delta)) if events else 0.0
    return low, high


def upper_bound(events: int, trials: int, *, delta: float) -> float:
    """Clopper-Pearson upper bound on the probability of an event.

    The ``p`` at which at most ``events`` in ``trials`` independent draws has the
    probability ``delta``: ``sum_{i <= events} C(trials, i) p^i (1 - p)^(trials - i) =
    delta``. The true probability is above the bound in at most a share ``delta`` of
    all samples. With no event the bound is ``1 - delta^(1 / trials)``, never 0. It is
    1 where nothing is proved: without draws, or if each draw is an event.

    Args:
      events: number of draws with the event, in [0, trials].
      trials: number of draws, at least 0; fixed before they are seen.
      delta: probability that the bound may fail, in (0, 1).

    Returns:
      The bound, in (0, 1].

    Raises:
      ValueError: if a number is outside its range.

    References:
      Clopper and Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the
      Case of the Binomial", Biometrika 1934.

    >>> round(upper_bound(0, 100, delta=0.05), 4)
    0.0295
    >>> upper_bound(3, 3, delta=0.05)
    1.0
    """
    if trials < 0:
        raise ValueError(f"trials: expected at least 0, got {trials}")
    if not 0 <= events <= trials:
        raise ValueError(f"events: expected 0 to {trials}, got {events}")
    if not 0 < delta < 1:
        raise ValueError(f"delta: expected a number in (0, 1), got {delta}")
    if events == trials:
        return 1.0
    # The binomial tail is the upper tail of a beta distribution.
    return float(betainccinv(events + 1, trials - events, delta))
