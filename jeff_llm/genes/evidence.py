"""Evidence of single observed terms: how well a profile explains each.

Each function gives one value per term and profile; a patient's score is the sum over
the observed terms, so every score comes with its reasons. The explanation of a term is
sought among its ancestors (`jeff_llm.genes.similarity.over_ancestors`).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jeff_llm.genes.similarity import over_ancestors

__all__ = [
    "FALSE_POSITIVE",
    "likelihood_observed",
    "log_size",
    "matched_information",
    "over_terms",
]

# Probability of a finding that the disease does not explain, over its background
# frequency; and of an overlooked one that it always shows.
FALSE_POSITIVE = 0.01


def matched_information(
    frequency: Float[Array, "terms profiles"],
    information: Float[Array, " terms"],
    parents: Int[Array, "terms width"],
    *,
    weight: float = 0.2,
) -> Float[Array, "terms profiles"]:
    """Information that a profile shares with a term, less for rare features.

    ``max over ancestors a of max(0, IC(a) + w ln f(a))``. With ``w = 1`` it is the log
    of ``P(a | D) / P(a)``, since ``IC = -ln P``: the likelihood ratio of the best
    common ancestor; with ``w = 0`` it is Resnik's similarity.

    Args:
      frequency: propagated frequency of each term in each profile; 0 where absent.
      information: information content of each term, in nats.
      parents: rows of the parents, as in `over_ancestors`.
      weight: exponent w of the frequency, at least 0.

    Returns:
      Information in nats, at least 0.

    References:
      Resnik, IJCAI 1995, eq. 2; the weight by frequency is ours.
    """
    present = frequency > 0
    log = jnp.log(jnp.where(present, frequency, 1))
    own = jnp.where(present, information[:, None] + weight * log, 0)
    return over_ancestors(jnp.maximum(own, 0), parents)


def likelihood_observed(
    frequency: Float[Array, "terms profiles"],
    background: Float[Array, " terms"],
    parents: Int[Array, "terms width"],
    *,
    false_positive: float = FALSE_POSITIVE,
) -> Float[Array, "terms profiles"]:
    """Log-likelihood ratio of an observed term, after LIRICAL.

    ``ln(P(t | D) / b(t))``, where ``b`` is the background frequency. A profile that has
    the term or a descendant of it gives its frequency (exact, ancestor). One that has
    an ancestor ``a`` gives ``f(a) b(t) / b(a)``, the share of those with ``a`` that
    have ``t`` (descendant), so the ratio is that of ``a``. An unrelated term has the
    ratio ``false_positive``.

    Args:
      frequency: propagated frequency of each term in each profile; 0 where absent.
      background: frequency of each term over all profiles, above 0.
      parents: rows of the parents, as in `over_ancestors`.
      false_positive: ratio of a term that the profile does not explain.

    Returns:
      Log-likelihood ratio in nats, at least ``ln false_positive``.

    References:
      Robinson et al., "Interpretable Clinical Genomics with a Likelihood Ratio
      Paradigm", AJHG 2020. LIRICAL divides the frequency of an ancestor by its number
      of children; the share in the annotations stands here in its place.
    """
    present = frequency > 0
    ratio = jnp.where(present, frequency, 1) / background[:, None]
    floor = jnp.log(false_positive)
    own = jnp.where(present, jnp.maximum(jnp.log(ratio), floor), floor)
    exact = jnp.where(present, own, -jnp.inf)
    # A term that the profile has is judged by its own frequency, not by an ancestor's.
    return jnp.where(present, exact, over_ancestors(own, parents))


def over_terms(
    evidence: Float[Array, "terms profiles"], observed: Float[Array, "cases terms"]
) -> Float[Array, "cases profiles"]:
    """Sum the evidence over the observed terms of each patient.

    Args:
      evidence: value of each term in each profile.
      observed: 1 for each observed term of the patient, 0 elsewhere.

    Returns:
      The sums.
    """
    return observed @ evidence


def log_size(
    unexplained: Float[Array, "cases profiles"], *, start: float = 10.0
) -> Float[Array, "cases profiles"]:
    """Log of the information in a profile that the patient does not show.

    ``ln(s + sum over terms t of D of f(t) (IC(t) - IC(MICA(t, Q))))``: a long profile
    matches more terms by chance, and this is what its length costs.

    Args:
      unexplained: the sum, in nats, at least 0.
      start: information s that costs little, in nats, above 0.

    Returns:
      The logarithm.
    """
    return jnp.log(start + jnp.maximum(unexplained, 0))
