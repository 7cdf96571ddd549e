"""Scores of sets of terms from similarities of pairs of terms.

``similarity`` has a row per term that stands in a profile and a column per observed
term. Profiles of similar size are scored together, padded to one width.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

__all__ = [
    "best_in_case",
    "best_in_profile",
    "case_mean",
    "phenodigm",
    "profile_sum",
]


@jax.jit
def best_in_profile(
    similarity: Float[Array, "annotated observed"],
    terms: Int[Array, "profiles width"],
) -> Float[Array, "profiles observed"]:
    """Best match of each observed term in each profile.

    Args:
      similarity: similarity of each annotated and each observed term.
      terms: rows of the profile's terms; padding repeats one of them.

    Returns:
      The largest similarity.
    """

    def step(column: Int[Array, ""], best: Array) -> Array:
        return jnp.maximum(best, similarity[terms[:, column]])

    return lax.fori_loop(1, terms.shape[1], step, similarity[terms[:, 0]])


@jax.jit
def best_in_case(
    similarity: Float[Array, "annotated observed"], cases: Int[Array, "cases width"]
) -> Float[Array, "annotated cases"]:
    """Best match of each annotated term among the observed terms of each patient.

    Args:
      similarity: similarity of each annotated and each observed term.
      cases: columns of each patient's terms; padding is -1.

    Returns:
      The largest similarity.
    """

    def step(column: Int[Array, ""], best: Array) -> Array:
        place = cases[:, column]
        values = jnp.where(place >= 0, similarity[:, place], -jnp.inf)
        return jnp.maximum(best, values)

    start = jnp.full((similarity.shape[0], cases.shape[0]), -jnp.inf)
    return lax.fori_loop(0, cases.shape[1], step, start)


@jax.jit
def profile_sum(
    values: Float[Array, "annotated cases"],
    terms: Int[Array, "profiles width"],
    weights: Float[Array, "profiles width"],
) -> Float[Array, "profiles cases"]:
    """Weighted sum over the terms of each profile.

    Args:
      values: value of each annotated term for each patient.
      terms: rows of the profile's terms.
      weights: weight of each; 0 for padding.

    Returns:
      The sums.
    """

    def step(column: Int[Array, ""], total: Array) -> Array:
        return total + weights[:, column, None] * values[terms[:, column]]

    start = jnp.zeros((terms.shape[0], values.shape[1]))
    return lax.fori_loop(0, terms.shape[1], step, start)


@jax.jit
def case_mean(
    best: Float[Array, "profiles observed"], cases: Int[Array, "cases width"]
) -> Float[Array, "cases profiles"]:
    """Mean over the observed terms of each patient.

    Args:
      best: value of each observed term in each profile.
      cases: columns of each patient's terms; padding is -1.

    Returns:
      The means.
    """
    here = cases >= 0
    weights = jnp.zeros((cases.shape[0], best.shape[1]))
    rows = jnp.arange(cases.shape[0])[:, None]
    weights = weights.at[rows, jnp.where(here, cases, 0)].add(here)
    return (weights / jnp.maximum(here.sum(1, keepdims=True), 1)) @ best.T


def phenodigm(
    largest: Float[Array, "cases profiles"],
    forward_sum: Float[Array, "cases profiles"],
    backward_sum: Float[Array, "cases profiles"],
    perfect: Float[Array, "cases observed"],
    observed: Bool[Array, "cases observed"],
    num_terms: Int[Array, " profiles"],
) -> Float[Array, "cases profiles"]:
    """PhenoDigm's score of a patient and a profile.

    ``min(1, (m / M + s / ((n_q + n_d) A)) / 2)``: the best pair ``m`` over the best
    that is possible, and the mean of the best matches in both directions over the mean
    that is possible.

    Args:
      largest: ``m``, the largest score of a pair.
      forward_sum: sum over the observed terms of the best match in the profile.
      backward_sum: sum over the profile's terms of the best match among the observed.
      perfect: score of each observed term with itself.
      observed: False for padding.
      num_terms: ``n_d``, number of terms of each profile.

    Returns:
      Score in [0, 1]; the paper has it in per cent.

    References:
      Smedley et al., "PhenoDigm: analyzing curated annotations to associate animal
      models with human diseases", Database 2013, section "Scoring".
    """
    count = jnp.maximum(observed.sum(1, keepdims=True), 1)
    best = jnp.max(jnp.where(observed, perfect, 0), axis=1, keepdims=True)
    mean = jnp.where(observed, perfect, 0).sum(1, keepdims=True) / count
    both = (forward_sum + backward_sum) / (
        (count + num_terms) * jnp.maximum(mean, 1e-6)
    )
    return jnp.minimum(1, (largest / jnp.maximum(best, 1e-6) + both) / 2)
