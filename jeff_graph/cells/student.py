"""Quantiles of Student's distribution, for intervals from few cells."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["student_over_normal"]


@jax.jit
def student_over_normal(
    freedom: Float[Array, "*shape"], tail: float | Float[Array, ""]
) -> Float[Array, "*shape"]:
    """Quantile of Student's distribution over that of the normal one.

    Student's t has ``P(T > t) = I_x(f / 2, 1 / 2) / 2`` for ``x = f / (f + t^2)``; jax
    has the incomplete beta function I and not its inverse.

    Args:
      freedom: degrees of freedom, above 0.
      tail: probability beyond the quantile, in (0, 1 / 2).

    Returns:
      Their ratio, at least 1.

    >>> student_over_normal(jnp.array([1.0]), 0.025).round(2).tolist()
    [6.48...]
    """

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (ends[0] + ends[1]) / 2
        x = freedom / (freedom + jnp.exp(2 * middle))
        below = jax.scipy.special.betainc(freedom / 2, half, x) / 2 > tail
        return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

    half = jnp.full_like(freedom, 0.5)
    # In logarithms of t, from e^-12 to e^12.
    start = (jnp.full_like(freedom, -12.0), jnp.full_like(freedom, 12.0))
    log_t, _ = jax.lax.fori_loop(0, 40, halve, start)
    return jnp.exp(log_t) / -jax.scipy.special.ndtri(jnp.asarray(tail, freedom.dtype))
