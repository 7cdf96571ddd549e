"""False discoveries in a batch of texts: how many of the flagged are false alarms.

A threshold at level .01 flags about ten of a thousand normal texts; if there are only
ten anomalies, half of what is flagged is wrong. Benjamini and Hochberg's procedure
bounds that share instead. On conformal p-values it is valid although they all depend on
the same calibration texts (Bates et al., section 2).

References:
  Benjamini and Hochberg, "Controlling the False Discovery Rate", Journal of the Royal
  Statistical Society B, 1995.
  Bates, Candes, Lei, Romano, Sesia, "Testing for outliers with conformal p-values",
  Annals of Statistics 2023.
"""

import math
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Float32

from jeff_llm.anomaly.conformal import p_values
from jeff_llm.anomaly.score_checks import check_level, check_vector

__all__ = ["benjamini_hochberg", "conditional_p_values", "fewest_flagged"]

PValues: TypeAlias = Float[Array, " texts"] | Float[np.ndarray, " texts"]
Scores: TypeAlias = PValues
Calibration: TypeAlias = (
    Float[Array, " calibration"] | Float[np.ndarray, " calibration"]
)

# A p-value of 0.01 must pass a limit of 0.1 * 1 / 10 in float32: a few last digits.
_ROUNDING = 5e-7


def benjamini_hochberg(p_values: PValues, level: float) -> Bool[Array, " texts"]:
    """Flags of a batch whose expected share of false alarms is at most a level.

    With ``p_(1) <= ... <= p_(m)`` and ``k`` the largest number with
    ``p_(k) <= level k / m``, the texts with ``p <= p_(k)`` are flagged; none if there
    is no such ``k``. With conformal p-values
    ``E[false alarms / max(flagged, 1)] <= level``, over calibration and batch. A flag
    depends on the other p-values of the batch: that is the method. Pure and jittable.

    Under jit, where values cannot be refused, one NaN leaves the whole batch unflagged.

    Args:
      p_values: of the batch, in [0, 1].
      level: bound on the expected share, in (0, 1).

    Returns:
      True for each flagged text.

    Raises:
      ValueError: if ``p_values`` is not a vector, a value is NaN or outside [0, 1], or
        ``level`` is outside (0, 1).
      TypeError: if p-values are not floating point.

    References:
      Benjamini and Hochberg, 1995, eq. 1.

    >>> benjamini_hochberg(jnp.array([0.01, 0.5, 0.06, 0.9]), 0.12)
    Array([ True, False,  True, False], dtype=bool)
    """
    check_level(level=level)
    _check_p_values(p_values)
    values = jnp.asarray(p_values, jnp.float32)
    count = values.shape[0]
    if not count:
        return jnp.zeros(0, bool)
    ordered = jnp.sort(values)
    limit = level * (1 + _ROUNDING) * jnp.arange(1, count + 1) / count
    # The largest p-value within its limit; those below it pass with it.
    highest = jnp.max(jnp.where(ordered <= limit, ordered, -1))
    return (values <= highest) & ~jnp.isnan(values).any()


def fewest_flagged(num_calibration: int, num_texts: int, level: float) -> int:
    """Fewest texts that `benjamini_hochberg` can flag, if it flags any.

    No conformal p-value is below ``1 / (n + 1)``, and ``r`` flagged texts need p-values
    of at most ``level r / m``: so ``r >= m / (level (n + 1))``. This is why nothing is
    flagged in a large batch with a few clear anomalies and a small calibration set. The
    remedies are more calibration texts, a smaller batch, or a higher level.

    Args:
      num_calibration: number of calibration texts, ``n``, at least 1.
      num_texts: size of the batch, ``m``, at least 1.
      level: bound on the expected share of false alarms, in (0, 1).

    Returns:
      The number, at least 1; above ``num_texts`` if no batch of that size can have a
      flagged text.

    Raises:
      ValueError: if a number is outside its range.

    >>> fewest_flagged(99, 1000, 0.1)
    100
    """
    check_level(level=level)
    for name, value in (("num_calibration", num_calibration), ("num_texts", num_texts)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    return math.ceil(num_texts / (level * (num_calibration + 1)) * (1 - _ROUNDING))


def conditional_p_values(
    calibration_scores: Calibration, scores: Scores, *, delta: float
) -> Float32[Array, " texts"]:
    """P-values that are valid given the calibration texts, with high probability.

    With probability ``1 - delta`` over the calibration texts, ``P(p <= t) <= t`` holds
    for a normal text and all ``t`` at once. Given the calibration texts they are
    independent over texts, so that procedures for independent p-values apply. The
    conformal p-value ``i / (n + 1)`` becomes ``b_i``, by the Simes inequality with
    ``k = ceil(n / 2)``:
    ``b_(n+1-i) = 1 - delta^(1/k) (i ... (i-k+1) / (n ... (n-k+1)))^(1/k)``, and
    ``b_(n+1) = 1``.

    Args:
      calibration_scores: of normal texts held out of training, independent draws.
      scores: of the texts to test.
      delta: probability, in (0, 1), with which the p-values may be invalid.

    Returns:
      The p-values, never below ``1 - delta^(1/k)``, about ``2 log(1 / delta) / n``.

    Raises:
      ValueError: if there is no calibration text, a score is NaN, or ``delta`` is
        outside (0, 1).
      TypeError: if scores are not floating point.

    References:
      Bates et al., 2023, section 3.

    >>> conditional_p_values(jnp.arange(3.0), jnp.array([9.0]), delta=0.25)
    Array([0.5], dtype=float32)
    """
    check_level(delta=delta)
    marginal = p_values(calibration_scores, scores)
    count = calibration_scores.shape[0]
    place = jnp.round(marginal * (count + 1)).astype(int) - 1
    return jnp.asarray(_simes_bounds(count, delta), jnp.float32)[place]


def _simes_bounds(count: int, delta: float) -> Float[np.ndarray, " bounds"]:
    """``b_1 ... b_(n+1)`` in double precision, of products taken as sums of logs."""
    width = math.ceil(count / 2)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    # log(i ... (i - k + 1)) for i = n down to k; for smaller i the product is 0.
    products = logs[width:][::-1] - logs[: count - width + 1][::-1]
    ratio = (math.log(delta) + products - products[0]) / width
    return np.concatenate([-np.expm1(ratio), np.ones(width)])


def _check_p_values(values: PValues) -> None:
    check_vector("p_values", values)
    if isinstance(values, Tracer):
        return
    found = np.asarray(values)
    # Negated, so that NaN is found as well.
    if (bad := ~((found >= 0) & (found <= 1))).any():
        place = int(bad.argmax())
        raise ValueError(
            f"p_values: expected numbers in [0, 1], got {found[place]} for text {place}"
        )
