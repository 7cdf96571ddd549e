"""Scores that add up over terms: what a patient and a profile share.

All of them are products of two matrices over the terms, patients x terms and terms x
profiles, so thousands of patients and profiles cost a few matrix products. A closure is
a set of terms with all ancestors.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jeff_llm.genes.evidence import FALSE_POSITIVE

__all__ = [
    "FREQUENCY_POWER",
    "UNMATCHED_WEIGHT",
    "icto",
    "likelihood_excluded",
    "naive_bayes",
    "simgic",
    "weighted_overlap",
]

# Defaults of `weighted_overlap`, for those who explain a score.
FREQUENCY_POWER = 0.2
UNMATCHED_WEIGHT = 0.2

Patients = Float[Array, "cases terms"]
Profiles = Float[Array, "terms profiles"]
Scores = Float[Array, "cases profiles"]


@jax.jit
def simgic(
    closure: Patients,
    frequency: Profiles,
    information: Float[Array, " terms"],
    total: Float[Array, " profiles"],
) -> Scores:
    """Information of the common terms over that of all terms, after propagation.

    ``sum IC over C(Q) & C(D) / sum IC over C(Q) | C(D)``.

    Args:
      closure: 1 for each term of the patient's closure, 0 elsewhere.
      frequency: propagated frequency of each term in each profile; 0 where absent.
      information: information content of each term, in nats.
      total: sum of the information content over each profile's closure.

    Returns:
      Similarity in [0, 1].

    References:
      Pesquita et al., "Evaluating GO-based Semantic Similarity Measures", ISMB/ECCB SIG
      Meeting Bio-Ontologies 2007.
    """
    weighted = closure * information
    common = weighted @ (frequency > 0).astype(weighted.dtype)
    union = weighted.sum(1, keepdims=True) + total - common
    return common / jnp.maximum(union, 1e-6)


@jax.jit
def weighted_overlap(
    closure: Patients,
    frequency: Profiles,
    information: Float[Array, " terms"],
    expected: Float[Array, " profiles"],
    *,
    power: float = FREQUENCY_POWER,
) -> Scores:
    """Tversky's index of two closures, by information content and frequency.

    ``sum IC f^p / (sum IC(Q) + w (sum IC f over D - sum IC f over Q & D))``: a patient
    rarely shows all of a disease, so what the profile has beyond the patient counts
    only ``w``, which is `UNMATCHED_WEIGHT`, and by how often it occurs. ``simgic`` is
    the case p = 0, w = 1, with all frequencies 1.

    Args:
      closure: 1 for each term of the patient's closure, 0 elsewhere.
      frequency: propagated frequency of each term in each profile; 0 where absent.
      information: information content of each term, in nats.
      expected: sum of information content times frequency over each profile's closure.
      power: exponent p of the frequency of a shared term, at least 0.

    Returns:
      Similarity in [0, 1].

    References:
      Tversky, "Features of Similarity", Psychological Review 1977, the ratio model; the
      weights are ours.
    """
    weighted = closure * information
    present = frequency > 0
    strength = jnp.where(present, jnp.where(present, frequency, 1) ** power, 0)
    shared = weighted @ strength
    rest = expected - weighted @ frequency
    whole = weighted.sum(1, keepdims=True) + UNMATCHED_WEIGHT * jnp.maximum(rest, 0)
    return shared / jnp.maximum(whole, 1e-6)


@jax.jit
def icto(
    closure: Patients,
    specific: Patients,
    frequency: Profiles,
    direct: Profiles,
    information: Float[Array, " terms"],
) -> Scores:
    """Information content of the term overlap (ICTO) of PhenoBrain.

    The sum of the information content over the patient's most specific terms that the
    profile implies, and the profile's most specific terms that the patient implies.

    Args:
      closure: 1 for each term of the patient's closure, 0 elsewhere.
      specific: 1 for each observed term that implies no other is more specific.
      frequency: propagated frequency of each term in each profile; 0 where absent.
      direct: 1 for the most specific terms of each profile.
      information: information content of each term, in nats.

    Returns:
      Score in nats, at least 0.

    References:
      Mao et al., "A phenotype-based AI pipeline outperforms human experts in
      differentially diagnosing rare diseases using EHRs", npj Digital Medicine 2025,
      Methods. Its code has a union of both overlaps, and so has this.
    """
    implied = (frequency > 0).astype(closure.dtype)
    asked = specific * information
    return asked @ (implied * (1 - direct)) + (closure * information) @ direct


@jax.jit
def naive_bayes(
    specific: Patients,
    frequency: Profiles,
    background: Float[Array, " terms"],
    *,
    floor: float = 0.01,
) -> Scores:
    """Naive Bayes over propagated frequencies, against the background.

    ``sum over observed terms of ln(f(t) / b(t))`` where the profile implies the term;
    a term it does not imply is as likely as in the background, and adds nothing.

    Args:
      specific: 1 for each most specific observed term, 0 elsewhere.
      frequency: propagated frequency of each term in each profile; 0 where absent.
      background: frequency of each term over all profiles, above 0.
      floor: smallest frequency that a profile can give a term that it implies.

    Returns:
      Log-likelihood ratio in nats.

    References:
      Mao et al., npj Digital Medicine 2025, Methods (phenotype probabilities
      propagated to ancestors).
    """
    ratio = jnp.log(jnp.maximum(frequency, floor)) - jnp.log(background)[:, None]
    return specific @ jnp.where(frequency > 0, ratio, 0)


@jax.jit
def likelihood_excluded(
    excluded: Patients,
    frequency: Profiles,
    background: Float[Array, " terms"],
    *,
    floor: float = FALSE_POSITIVE,
) -> Scores:
    """Evidence of terms that were looked for and not found.

    ``sum over excluded terms of ln((1 - f(t)) / (1 - b(t)))``.

    Args:
      excluded: 1 for each excluded term, 0 elsewhere.
      frequency: propagated frequency of each term in each profile; 0 where absent.
      background: frequency of each term over all profiles.
      floor: smallest probability of not finding a term, since a term that always
        occurs can still be overlooked.

    Returns:
      Log-likelihood ratio in nats.

    References:
      Robinson et al., "Interpretable Clinical Genomics with a Likelihood Ratio
      Paradigm", AJHG 2020, the likelihood ratio of an excluded abnormality.
    """
    missing = jnp.log(jnp.maximum(1 - frequency, floor))
    return excluded @ (missing - jnp.log(jnp.maximum(1 - background, floor))[:, None])
