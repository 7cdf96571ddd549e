"""Exact bounds on a probability from counts.

They hold at every number of trials, however small, and whatever the probability is:
nothing is approximated by a normal distribution.
"""

from scipy.special import betainccinv

__all__ = ["upper_bound"]


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
