"""Lists of candidate genes: the causal gene among distractors.

A list stands for what is left after filtering a patient's variants. How hard it is
depends on its length and on what the distractors are.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64
from scipy import sparse

from jeff.bootstrap import RandomKey
from jeff.checks import check_choice
from jeff_llm.genes.bias import Candidates
from jeff_llm.genes.cases import Case
from jeff_llm.genes.hpo import Hpo
from jeff_llm.genes.profiles import (
    Profiles,
    annotation_counts,
    gene_terms,
    information_content,
    propagate,
)
from jeff_llm.genes.rounds import generator

__all__ = ["KINDS", "make_candidates"]

KINDS = ("random", "phenotype", "annotations")


def make_candidates(
    hpo: Hpo,
    cases: Sequence[Case],
    size: int,
    *,
    kind: str = "random",
    popularity: Mapping[str, int] | None = None,
    key: RandomKey,
) -> list[Candidates]:
    """Put the causal gene of each case among distractors, in random order.

    Distractors are genes with an annotated phenotype that HPO does not link to the
    patient's own disease, since such a gene would be a right answer too:

    - ``"random"``: any of them, with the same probability;
    - ``"phenotype"``: those whose profile is most like that of the causal gene, by the
      information that both share over the information of either (simGIC). The
      patient's terms are not used, since that would choose the distractors by what
      rankers are judged on; they stand in only for a gene that HPO does not annotate;
    - ``"annotations"``: those with nearly as many annotated terms as the causal gene,
      by the logarithm, so that being well studied does not give it away.

    Ties are broken at random. The causal gene's place is uniform. A longer list of a
    case contains its shorter ones, so that lengths are compared on the same cases. The
    lists of a case depend on the key and the case alone, not on the other cases.

    Args:
      hpo: ontology and annotations.
      cases: patients with a known gene.
      size: genes of each list, with the causal one; at least 2. 5 to 100 are usual.
      kind: one of `KINDS`.
      popularity: citations by gene, a gene that is not listed having none; the number
        of annotated terms by gene if None.
      key: random key.

    Returns:
      One list per case.

    Raises:
      ValueError: if ``size`` is below 2 or larger than the number of genes to choose
        from, a case has no gene, or ``kind`` is unknown.
    """
    check_choice("kind", kind, KINDS)
    if size < 2:
        raise ValueError(f"size: expected at least 2, got {size}")
    genes = _Genes(hpo)
    lists = []
    for number, case in enumerate(cases):
        if case.gene is None:
            raise ValueError(f"cases[{number}]: expected a known gene, got None")
        rng = generator(key, case.phenotypes, [case.gene])
        order = genes.order(case, kind, rng)
        if size - 1 > len(order):
            raise ValueError(
                f"size: expected at most {len(order) + 1} genes for cases[{number}], "
                f"got {size}"
            )
        chosen = [genes.names[place] for place in order[: size - 1]]
        causal = int(rng.integers(size))
        chosen = [chosen[place] for place in rng.permutation(size - 1)]
        chosen.insert(causal, case.gene)
        known = genes.counts if popularity is None else popularity
        counted = np.array([known.get(gene, 0) for gene in chosen], np.float64)
        lists.append(Candidates(case.phenotypes, chosen, causal, counted))
    return lists


class _Genes:
    """What the choice of distractors needs of all genes."""

    def __init__(self, hpo: Hpo):
        self.hpo = hpo
        self.names = hpo.annotations.genes
        profiles = gene_terms(hpo)
        self.sizes = np.diff(profiles.starts)
        self.counts = dict(zip(self.names, self.sizes.tolist(), strict=True))
        self.place = {name: place for place, name in enumerate(self.names)}
        used = max(int((self.sizes > 0).sum()), 1)
        counts = annotation_counts(hpo.ontology, profiles.starts, profiles.terms)
        self.information = information_content(counts, used)
        self.closed = self._closed(profiles)
        self.totals = self.closed @ self.information
        self.linked: dict[str, set[int]] = {}
        for gene, disease in hpo.annotations.links.tolist():
            name = hpo.annotations.diseases[disease]
            self.linked.setdefault(name, set()).add(gene)

    def order(self, case: Case, kind: str, rng: np.random.Generator) -> np.ndarray:
        """All distractors of a case, the ones to be taken first in front."""
        own = self.place.get(case.gene or "", -1)
        same = {gene for name in case.diseases for gene in self.linked.get(name, ())}
        allowed = np.flatnonzero(self.sizes > 0)
        allowed = allowed[~np.isin(allowed, [own, *same])]
        far = np.zeros(len(self.sizes))
        if kind == "phenotype":
            far = -self._similarity(case, own)
        elif kind == "annotations":
            size = self.sizes[own] if own >= 0 else 0
            far = abs(np.log1p(self.sizes) - np.log1p(size))
        ties = rng.random(len(self.sizes))
        return allowed[np.lexsort((ties[allowed], far[allowed]))]

    def _similarity(self, case: Case, own: int) -> Float64[np.ndarray, " genes"]:
        """SimGIC of all genes and the causal one."""
        closed = self.closed[[own]]
        if own < 0 or not self.sizes[own]:
            terms = [self.hpo.ontology.index(t) for t in case.phenotypes.observed]
            starts, unknown = np.array([0, len(terms)]), np.zeros(len(terms))
            closed = self._closed(Profiles(starts, np.array(terms), unknown))
        weighted = closed.toarray()[0] * self.information
        common = self.closed @ weighted
        union = weighted.sum() + self.totals - common
        return common / np.maximum(union, 1e-9)

    def _closed(self, profiles: Profiles) -> sparse.csr_array:
        starts, terms = propagate(self.hpo.ontology, profiles.starts, profiles.terms)
        shape = len(starts) - 1, len(self.hpo.ontology.ids)
        return sparse.csr_array((np.ones(len(terms)), terms, starts), shape=shape)
