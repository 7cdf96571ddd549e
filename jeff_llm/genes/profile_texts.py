"""Patients, genes and diseases in words, for models that read text.

A gene is described by its diseases and phenotypes, by default without its symbol, so
that a model cannot rank a gene by how often it has read its name.
"""

import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Float

from jeff_llm.genes.hpo import Hpo
from jeff_llm.genes.ontology import Ontology
from jeff_llm.genes.profiles import (
    Profiles,
    annotation_counts,
    disease_terms,
    gene_terms,
    information_content,
)
from jeff_llm.genes.ranking import Phenotypes

__all__ = ["ProfileTexts", "term_information"]

# Weight of a term whose frequency is not stated.
_USUAL = 0.5


class ProfileTexts:
    """Writes the texts; the terms that tell most come first.

    Attributes:
      hpo: ontology and annotations.
      information: information content by term, in nats.
      num_terms: most terms in a text.
      num_diseases: most names of diseases in the text of a gene.
      symbol: whether the text of a gene names it.
    """

    hpo: Hpo
    information: Float[np.ndarray, " terms"]
    num_terms: int
    num_diseases: int
    symbol: bool

    def __init__(
        self,
        hpo: Hpo,
        *,
        information: Float[np.ndarray, " terms"] | None = None,
        num_terms: int = 20,
        num_diseases: int = 3,
        symbol: bool = False,
        without: Sequence[str] = (),
    ):
        """Prepare the texts.

        Args:
          hpo: ontology and annotations.
          information: information content by term; from the diseases if None.
          num_terms: most terms in a text, at least 1.
          num_diseases: most names of diseases in the text of a gene; 0 for none.
          symbol: name the gene. If False, its symbol is also left out of the names of
            its diseases.
          without: references to leave out, as in `jeff_llm.genes.profiles`.

        Raises:
          ValueError: if a number is too small, or ``information`` has not one number
            for each term.
        """
        for name, value, least in (
            ("num_terms", num_terms, 1),
            ("num_diseases", num_diseases, 0),
        ):
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        self.hpo, self.symbol = hpo, symbol
        self.num_terms, self.num_diseases = num_terms, num_diseases
        self._without = tuple(without)
        if information is None:
            information = term_information(hpo.ontology, self._diseases)
        if np.shape(information) != (len(hpo.ontology.ids),):
            raise ValueError(
                f"information: expected shape ({len(hpo.ontology.ids)},), one for each "
                f"term, got {np.shape(information)}"
            )
        self.information = information

    def patient(self, phenotypes: Phenotypes) -> str:
        """Describe a patient.

        Args:
          phenotypes: observed and excluded terms.

        Returns:
          Names of the observed terms, then of the excluded ones.

        Raises:
          KeyError: if a term is not in the ontology.
        """
        ontology = self.hpo.ontology
        observed, excluded = (
            np.unique([ontology.index(term) for term in terms]).astype(int)
            for terms in phenotypes
        )
        text = f"Phenotypes: {self._names(observed)}."
        if len(excluded):
            text += f" Not found: {self._names(excluded)}."
        return text

    def gene(self, symbol: str) -> str:
        """Describe a gene.

        Args:
          symbol: its symbol.

        Returns:
          Names of its diseases and phenotypes; that nothing is known where HPO does not
          have the gene.
        """
        place = self._gene_places.get(symbol)
        head = f"{symbol}. " if self.symbol else ""
        if place is None:
            return f"{head}Phenotypes: none known."
        linked = self._linked[
            self._linked_starts[place] : self._linked_starts[place + 1]
        ]
        names = [self.hpo.annotations.disease_names[disease] for disease in linked]
        if not self.symbol:
            names = [_without_word(name, symbol) for name in names]
        # In the order of the ids: OMIM before Orphanet, which often names groups.
        shown = list(dict.fromkeys(name for name in names if name))[: self.num_diseases]
        diseases = f"Diseases: {'; '.join(shown)}. " if shown else ""
        return f"{head}{diseases}Phenotypes: {self._profile(self._genes, place)}."

    def disease(self, name: str) -> str:
        """Describe a disease.

        Args:
          name: its id, such as ``"OMIM:301310"``.

        Returns:
          Its name and phenotypes.

        Raises:
          KeyError: if HPO does not have the disease.
        """
        place = self._disease_places.get(name)
        if place is None:
            raise KeyError(
                f"expected a disease of {self.hpo.annotations.release}, got {name!r}"
            )
        title = self.hpo.annotations.disease_names[place]
        head = f"Disease: {title}. " if title else ""
        return f"{head}Phenotypes: {self._profile(self._diseases, place)}."

    def _profile(self, profiles: Profiles, place: int) -> str:
        part = slice(profiles.starts[place], profiles.starts[place + 1])
        frequencies = np.nan_to_num(profiles.frequencies[part], nan=_USUAL)
        return self._names(profiles.terms[part], frequencies)

    def _names(self, terms: np.ndarray, weights: np.ndarray | float = 1.0) -> str:
        order = np.argsort(-self.information[terms] * weights, kind="stable")
        names = [self.hpo.ontology.names[term] for term in terms[order]]
        return ", ".join(names[: self.num_terms]) or "none known"

    @cached_property
    def _diseases(self) -> Profiles:
        return disease_terms(self.hpo, without=self._without)

    @cached_property
    def _genes(self) -> Profiles:
        return gene_terms(self.hpo, without=self._without)

    @cached_property
    def _gene_places(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.hpo.annotations.genes)}

    @cached_property
    def _disease_places(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.hpo.annotations.diseases)}

    @cached_property
    def _linked(self) -> np.ndarray:
        return self.hpo.annotations.links[:, 1]

    @cached_property
    def _linked_starts(self) -> np.ndarray:
        links, genes = self.hpo.annotations.links, self.hpo.annotations.genes
        return np.searchsorted(links[:, 0], np.arange(len(genes) + 1))


def term_information(
    ontology: Ontology, profiles: Profiles
) -> Float[np.ndarray, " terms"]:
    """Information content of all terms, from the profiles that are not empty.

    Args:
      ontology: the terms.
      profiles: terms of each disease or gene.

    Returns:
      Information content by term, in nats.

    Raises:
      ValueError: if all profiles are empty.
    """
    total = int((np.diff(profiles.starts) > 0).sum())
    if not total:
        raise ValueError("profiles: expected terms in any of them, got none")
    counts = annotation_counts(ontology, profiles.starts, profiles.terms)
    return information_content(counts, total)


def _without_word(text: str, word: str) -> str:
    """A text without a word, and without what then stands alone around it."""
    left = re.sub(rf"(?<![\w-]){re.escape(word)}(?!\w)(-related)?", "", text)
    return re.sub(r"\s+", " ", re.sub(r"\(\s*\)", "", left)).strip(" ,;-")
