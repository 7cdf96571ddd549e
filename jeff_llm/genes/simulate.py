"""Patients drawn from HPO's annotations, for machines without patients to share.

A simulated patient has a disease of HPO and terms from its profile, so a measure that
reads the same profile finds it too easily: figures on simulated cases say how measures
compare and that a program works, and not how well patients are diagnosed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff.bootstrap import RandomKey
from jeff_llm.genes.cases import Case
from jeff_llm.genes.hpo import Hpo
from jeff_llm.genes.ontology import PHENOTYPE_ROOT, Ontology
from jeff_llm.genes.profiles import disease_terms
from jeff_llm.genes.ranking import Phenotypes
from jeff_llm.genes.tables import DEFAULT_FREQUENCY, filled

__all__ = ["LEAST_TERMS", "Noise", "simulate_cases"]

# Terms of the disease that a record has at least; two of them can still become the
# same imprecise term.
LEAST_TERMS = 3


class Noise(NamedTuple):
    """What separates a patient's record from the profile of the disease.

    Attributes:
      missing: probability that a term which the patient shows is not recorded.
      imprecise: probability that a recorded term is replaced by one of its parents.
      spurious: expected number of recorded terms that have nothing to do with the
        disease, per term that has.
      excluded: probability that a term of the disease which the patient lacks is
        recorded as not found; as many terms of other diseases are recorded so too.
    """

    missing: float = 0.2
    imprecise: float = 0.25
    spurious: float = 0.3
    excluded: float = 0.2


def simulate_cases(
    hpo: Hpo, num_cases: int, *, noise: Noise | None = None, key: RandomKey
) -> list[Case]:
    """Draw patients with a known gene.

    Genes are drawn without replacement until all have had a case, then a disease of the
    gene that has no other gene, so that each case has one answer. Each term of the
    disease is shown with its frequency; then the record is disturbed by ``noise``.
    Spurious terms are drawn in proportion to their frequencies over all diseases, from
    those that the disease does not imply.

    Args:
      hpo: ontology and annotations.
      num_cases: number of cases, at least 1. The first of more cases are the same.
      noise: disturbance of the records; `Noise()` if None.
      key: random key.

    Returns:
      The cases, with ``source="simulated"`` and no paper.

    Raises:
      ValueError: if a number is out of range, or no disease has one gene and at least
        `LEAST_TERMS` terms.

    References:
      Köhler et al., "Clinical Diagnostics in Human Genetics with Semantic Similarity
      Searches in Ontologies", AJHG 2009, simulates patients with noise and imprecision.
    """
    noise = Noise() if noise is None else noise
    if num_cases < 1:
        raise ValueError(f"num_cases: expected at least 1, got {num_cases}")
    for name, value in zip(noise._fields, noise, strict=True):
        highest = np.inf if name == "spurious" else 1
        if not 0 <= value <= highest:
            raise ValueError(
                f"noise.{name}: expected a number from 0 to {highest}, got {value}"
            )
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    seed = np.asarray(jax.random.key_data(key) if typed else key).ravel().tolist()
    source = _Source(hpo, noise)
    order = np.random.default_rng(seed).permutation(len(source.genes))
    cases = []
    for number in range(num_cases):
        # Each case has random numbers of its own, so that more cases change none.
        rng = np.random.default_rng([*seed, number])
        gene = int(source.genes[order[number % len(order)]])
        disease = int(rng.choice(source.diseases_of[gene]))
        cases.append(
            Case(
                f"case-{number + 1}",
                source.phenotypes(disease, rng),
                hpo.annotations.genes[gene],
                (hpo.annotations.diseases[disease],),
                source="simulated",
            )
        )
    return cases


class _Source:
    """Diseases to draw from, and how a record of one comes about."""

    def __init__(self, hpo: Hpo, noise: Noise):
        self.noise = noise
        self.ontology = hpo.ontology
        self.profiles = filled(disease_terms(hpo), DEFAULT_FREQUENCY)
        links = hpo.annotations.links
        genes_of = np.bincount(links[:, 1], minlength=len(hpo.annotations.diseases))
        long = np.diff(self.profiles.starts) >= LEAST_TERMS
        usable = links[((genes_of == 1) & long)[links[:, 1]]]
        if not len(usable):
            raise ValueError(
                f"hpo: expected a disease with one gene and at least {LEAST_TERMS} "
                "terms, got none"
            )
        self.genes = np.unique(usable[:, 0])
        self.diseases_of = {
            int(gene): usable[usable[:, 0] == gene, 1] for gene in self.genes
        }
        sums = np.bincount(
            self.profiles.terms,
            self.profiles.frequencies,
            minlength=len(hpo.ontology.ids),
        )
        self.background = sums / sums.sum()

    def phenotypes(self, disease: int, rng: np.random.Generator) -> Phenotypes:
        """Terms of one patient."""
        part = slice(*self.profiles.starts[disease : disease + 2])
        terms, frequencies = self.profiles.terms[part], self.profiles.frequencies[part]
        shown = _at_least(rng.random(len(terms)) < frequencies, frequencies, rng)
        found = terms[shown]
        kept = rng.random(len(found)) >= self.noise.missing
        recorded = found[_at_least(kept, np.ones(len(found)), rng)]
        observed = [
            self._parent(term, rng) if rng.random() < self.noise.imprecise else term
            for term in recorded.tolist()
        ]
        implied = _implied(self.ontology, terms.tolist())
        other = np.where(np.isin(np.arange(len(self.background)), implied), 0, 1)
        count = rng.poisson(self.noise.spurious * len(observed))
        observed += self._background(count, other, rng)
        lacking = terms[~shown]
        excluded = lacking[rng.random(len(lacking)) < self.noise.excluded].tolist()
        excluded += self._background(len(excluded), other, rng)
        above = set(_implied(self.ontology, observed))
        ids = self.ontology.ids
        return Phenotypes(
            tuple(ids[term] for term in sorted(set(observed))),
            tuple(ids[term] for term in sorted(set(excluded) - above)),
        )

    def _parent(self, term: int, rng: np.random.Generator) -> int:
        """One of the parents that are phenotypes below the root; else the term."""
        ontology = self.ontology
        parents = ontology.parents[
            ontology.parent_starts[term] : ontology.parent_starts[term + 1]
        ]
        root = ontology.positions[PHENOTYPE_ROOT]
        good = parents[ontology.phenotypes[parents] & (parents != root)]
        return int(rng.choice(good)) if len(good) else term

    def _background(
        self, count: int, allowed: np.ndarray, rng: np.random.Generator
    ) -> list[int]:
        weights = self.background * allowed
        count = min(count, int((weights > 0).sum()))
        if not count:
            return []
        return rng.choice(
            len(weights), count, replace=False, p=weights / weights.sum()
        ).tolist()


def _at_least(
    chosen: np.ndarray, weights: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Choose more at random, by weight, where fewer than `LEAST_TERMS` are chosen."""
    lacking = LEAST_TERMS - int(chosen.sum())
    if lacking <= 0:
        return chosen
    rest = np.flatnonzero(~chosen)
    share = weights[rest] / weights[rest].sum()
    more = rng.choice(rest, lacking, replace=False, p=share)
    chosen = chosen.copy()
    chosen[more] = True
    return chosen


def _implied(ontology: Ontology, terms: list[int]) -> list[int]:
    return sorted({int(a) for term in terms for a in ontology.ancestors_of(term)})
