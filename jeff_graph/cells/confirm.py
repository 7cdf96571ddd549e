"""Does a pair matter beyond its genes? A score test on cells that no network saw.

Attention finds genes that bear on the label, alone or together. This test asks for the
product term of a logistic regression that has both genes by themselves. It needs only
the fit without the product, so hundreds of pairs cost one vmapped call. Its p-values
hold for pairs that were chosen on other cells. Where a class has few cells the score is
far from normal in its tails; there they come from a saddlepoint of its distribution.

References:
  Rao, "Large sample tests of statistical hypotheses", 1948.
  Dey et al., "A Fast and Accurate Algorithm to Test for Binary Phenotypes and Its
  Application to PheWAS", American Journal of Human Genetics 2017: the saddlepoint.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jeff.as_arrays import as_array
from jeff.checks import check_mask, check_same_length
from jeff_graph.cells.arrays import as_codes, as_real

__all__ = ["PairTest", "product_test"]


class PairTest(NamedTuple):
    """Test of the product of two genes in a logistic regression on both.

    Attributes:
      statistic: score over its standard deviation; standard normal without interaction.
        Positive where the two together make the class likelier than each by itself.
      p_value: two-sided, by saddlepoint beyond two standard deviations; 1 where the
        genes themselves explain the product.
    """

    statistic: Float[Array, " pairs"]
    p_value: Float[Array, " pairs"]


def product_test(
    x: Shaped[Any, "cells genes"],
    label: Shaped[Any, " cells"],
    pairs: Shaped[Any, "pairs 2"],
    *,
    num_iterations: int = 6,
    batch_size: int = 64,
) -> PairTest:
    """Score test of the product term, for each pair.

    The regression ``logit p = a + b x_i + c x_j`` is fitted by Newton's method; with
    residuals e and weights ``v = p (1 - p)``, and u the product after a weighted
    regression on the rest, the statistic is ``sum u e / sqrt(sum v u^2)``.

    Args:
      x: expression.
      label: the cells of the class.
      pairs: genes of each pair.
      num_iterations: of Newton's method.
      batch_size: pairs at a time; bounds the memory, not the result.

    Returns:
      `PairTest`.

    Raises:
      ValueError: if the lengths differ, there is no cell or pair, or a pair has a gene
        outside the expression.
      TypeError: if the label is not a mask.
    """
    x, label = as_real(x, "x"), as_array(label, "label")
    if x.ndim != 2 or not x.shape[0]:
        raise ValueError(f"x: expected [cells, genes] with a cell, got {x.shape}")
    check_same_length(x=x[:, 0], label=label)
    check_mask(label=label)
    pairs = as_codes(pairs, "pairs", x.shape[1])
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not pairs.shape[0]:
        raise ValueError(f"pairs: expected shape [pairs, 2], got {pairs.shape}")
    return PairTest(*_tests(x, label, pairs, num_iterations, batch_size))


@functools.partial(jax.jit, static_argnames=("num_iterations", "batch_size"))
def _tests(
    x: Array, label: Array, pairs: Array, num_iterations: int, batch_size: int
) -> tuple[Float[Array, " pairs"], Float[Array, " pairs"]]:
    target = label.astype(x.dtype)
    # Standardised, so that one ridge fits all genes and Newton's steps stay bounded.
    deviation = x.std(0)
    x = (x - x.mean(0)[None]) / jnp.where(deviation > 0, deviation, 1.0)[None]
    # Too small to change an estimate; it keeps a gene without variance from dividing
    # by 0.
    ridge = 1e-4 * jnp.eye(3, dtype=x.dtype)

    def one(pair: Array) -> tuple[Array, Array]:
        first, second = x[:, pair[0]], x[:, pair[1]]
        design = jnp.stack([jnp.ones_like(first), first, second])

        def newton(_: Array, weight: Array) -> Array:
            chance = jax.nn.sigmoid(weight @ design)
            curve = (design * (chance * (1 - chance))[None]) @ design.T + ridge
            return weight + jnp.linalg.solve(curve, design @ (target - chance))

        # A fixed number of steps: pairs are vmapped, and a branch would run for all of
        # them.
        weight = jax.lax.fori_loop(0, num_iterations, newton, jnp.zeros(3, x.dtype))
        chance = jax.nn.sigmoid(weight @ design)
        variance = chance * (1 - chance)
        product = first * second
        scaled = design * variance[None]
        rest = jnp.linalg.solve(scaled @ design.T + ridge, scaled @ product)
        left = product - rest @ design
        spread = (variance * left**2).sum()
        # Where the genes explain the product almost fully, its score is rounding noise.
        known = spread > 1e-3 * (variance * product**2).sum()
        # In units of its standard deviation, so that all pairs have one scale.
        left = left / jnp.sqrt(jnp.where(known, spread, 1))
        score = (left * (target - chance)).sum()
        p_value = _two_sided(left, weight @ design, score)
        return jnp.where(known, score, 0.0), jnp.where(known, p_value, 1.0)

    return jax.lax.map(one, pairs, batch_size=min(batch_size, pairs.shape[0]))


def _two_sided(left: Array, logit: Array, score: Array) -> Float[Array, ""]:
    """``P(|S| >= |score|)`` of ``S = sum_i u_i (y_i - p_i)``, y_i Bernoulli(p_i)."""
    size = jnp.abs(score)
    # The lower tail of S is the upper tail of -S.
    tails = _upper_tail(left, logit, size) + _upper_tail(-left, logit, size)
    normal = 2 * jax.scipy.stats.norm.sf(size)
    # Near the mean the saddlepoint is 0 / 0, and the normal distribution is right.
    return jnp.where(size < 2, normal, jnp.minimum(tails, 1))


def _upper_tail(left: Array, logit: Array, score: Array) -> Float[Array, ""]:
    """``P(S >= score)`` by Barndorff-Nielsen's formula; S has variance 1.

    With ``K(t) = log E exp(t S)`` and ``K'(t) = score``: ``Phi(-w - log(v / w) / w)``,
    ``w^2 = 2 (t score - K(t))`` and ``v = t sqrt(K''(t))``.
    """
    chance = jax.nn.sigmoid(logit)

    def slope(t: Array) -> Array:
        return (left * (jax.nn.sigmoid(logit + left * t) - chance)).sum()

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (ends[0] + ends[1]) / 2
        low = slope(middle) < score
        return jnp.where(low, middle, ends[0]), jnp.where(low, ends[1], middle)

    # K' rises with t. S of variance 1 has a saddlepoint near the score, unless the
    # score is as large as it can be.
    ends = jnp.zeros_like(score), 64 * (1 + score)
    t = sum(jax.lax.fori_loop(0, 40, halve, ends)) / 2
    tilted = jax.nn.sigmoid(logit + left * t)
    cumulant = (jax.nn.softplus(logit + left * t) - jax.nn.softplus(logit)).sum()
    cumulant -= t * (left * chance).sum()
    w = jnp.sqrt(2 * jnp.maximum(t * score - cumulant, 1e-6))
    v = t * jnp.sqrt(jnp.maximum((left**2 * tilted * (1 - tilted)).sum(), 1e-12))
    tail = jax.scipy.stats.norm.sf(w + jnp.log(v / w) / w)
    # Where S cannot be as large, there is no tail.
    most = jnp.where(left > 0, left * (1 - chance), -left * chance).sum()
    return jnp.where(score <= most * (1 + 1e-5), tail, 0.0)
