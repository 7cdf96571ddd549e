"""Evidence of single observed terms: how well a profile explains each.

Each function gives one value per term and profile; a patient's score is the sum over
the observed terms, so every score comes with its reasons. The explanation of a term is
sought among its ancestors (`jeff_llm.genes.similarity.over_ancestors`).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jeff_llm.genes.similarity import over_ancestors

__all__ = [
    "FALSE_POSITIVE",
    "FREE_INFORMATION",
    "FREQUENCY_WEIGHT",
    "TOLERANCE",
    "likelihood_observed",
    "log_size",
    "matched_information",
]

# Probability of a finding that the disease does not explain, over its background
# frequency; and of an overlooked one that it always shows.
FALSE_POSITIVE = 0.01

# Defaults of `matched_information` and `log_size`, for those who explain a score.
FREQUENCY_WEIGHT = 0.2
TOLERANCE = 1.4
FREE_INFORMATION = 10.0


@jax.jit
def matched_information(
    frequency: Float[Array, "terms profiles"],
    information: Float[Array, " terms"],
    parents: Int[Array, "terms width"],
    *,
    weight: float = FREQUENCY_WEIGHT,
    tolerance: float = TOLERANCE,
) -> Float[Array, "terms profiles"]:
    """How much better than chance a profile explains a term, up to a tolerance.

    ``max(0, c + max over ancestors a of (IC(a) + w ln f(a)) - IC(t))``. A profile with
    ``a`` produces ``t`` with probability ``f(a) P(t | a)``, and
    ``-ln P(t | a) = IC(t) - IC(a)`` is the information that the match loses; a match
    that loses more than ``c`` counts as none. So every well-matched term counts about
    the same, however rare, where Resnik's similarity lets a rare one outweigh several.

    Args:
      frequency: propagated frequency of each term in each profile; 0 where absent.
      information: information content of each term, in nats.
      parents: rows of the parents, as in `over_ancestors`.
      weight: exponent w of the frequency, at least 0.
      tolerance: loss c at which a match counts for nothing, in nats, above 0.

    Returns:
      Information in nats, in [0, tolerance].

    References:
      The best common ancestor is that of Resnik, IJCAI 1995, eq. 2; the loss, its
      limit and the weight by frequency are ours.
    """
    present = frequency > 0
    log = jnp.log(jnp.where(present, frequency, 1))
    own = jnp.where(present, information[:, None] + weight * log, -jnp.inf)
    loss = information[:, None] - over_ancestors(own, parents)
    return jnp.maximum(tolerance - loss, 0)


@jax.jit
def likelihood_observed(
    frequency: Float[Array, "terms profiles"],
    background: Float[Array, " terms"],
    parents: Int[Array, "terms width"],
) -> Float[Array, "terms profiles"]:
    """Log-likelihood ratio of an observed term, after LIRICAL.

    ``ln(P(t | D) / b(t))``, where ``b`` is the background frequency. A profile that has
    the term or a descendant of it gives its frequency (exact, ancestor). One that has
    an ancestor ``a`` gives ``f(a) b(t) / b(a)``, the share of those with ``a`` that
    have ``t`` (descendant), so the ratio is that of ``a``. An unrelated term has the
    ratio `FALSE_POSITIVE`.

    Args:
      frequency: propagated frequency of each term in each profile; 0 where absent.
      background: frequency of each term over all profiles, above 0.
      parents: rows of the parents, as in `over_ancestors`.

    Returns:
      Log-likelihood ratio in nats, at least ``ln FALSE_POSITIVE``.

    References:
      Robinson et al., "Interpretable Clinical Genomics with a Likelihood Ratio
      Paradigm", AJHG 2020. LIRICAL divides the frequency of an ancestor by its number
      of children; the share in the annotations stands here in its place.
    """
    present = frequency > 0
    ratio = jnp.where(present, frequency, 1) / background[:, None]
    floor = jnp.log(FALSE_POSITIVE)
    own = jnp.where(present, jnp.maximum(jnp.log(ratio), floor), floor)
    exact = jnp.where(present, own, -jnp.inf)
    # A term that the profile has is judged by its own frequency, not by an ancestor's.
    return jnp.where(present, exact, over_ancestors(own, parents))


@jax.jit
def log_size(
    unexplained: Float[Array, "cases profiles"], *, start: float = FREE_INFORMATION
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
