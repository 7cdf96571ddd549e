"""A ranker that embeds the names of single terms.

`TermMatchRanker` compares each of a patient's terms with each term of a disease. Any
encoder of texts will do, such as ``jeff_llm.models.encoder.load("minilm").encode``.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Float32
from scipy import sparse

from jeff import assets
from jeff.arrays import load_arrays
from jeff.files import replacing
from jeff_llm.genes.hpo import Hpo
from jeff_llm.genes.profile_texts import term_information
from jeff_llm.genes.profiles import Profiles, disease_terms
from jeff_llm.genes.ranking import Phenotypes, Ranking, by_score
from jeff_llm.genes.rounds import Request

__all__ = ["Encode", "TermMatchRanker", "embed"]

Encode: TypeAlias = Callable[[Sequence[str]], Any]

# Terms whose similarities are in memory at a time.
_CHUNK = 256


def embed(
    encode: Encode, texts: Sequence[str], *, name: str | None = None
) -> Float32[np.ndarray, "texts width"]:
    """Embed texts at unit length; keep the embeddings in the asset cache.

    Args:
      encode: texts to embeddings, [texts, width].
      texts: at least one text.
      name: name of the encoder. With it the embeddings are kept under a digest of name
        and texts, and read from there the next time; without it nothing is kept.

    Returns:
      The embeddings; zeros where the encoder gives zeros.

    Raises:
      ValueError: if there is no text, or the encoder's result is no finite array with
        one row for each text.
    """
    if not len(texts):
        raise ValueError("texts: expected at least one, got none")
    path = None
    if name is not None:
        key = hashlib.sha256(json.dumps([name, list(texts)]).encode()).hexdigest()[:32]
        path = assets.cache_dir() / "genes" / f"embeddings-{key}.npz"
        # A cache that cannot be read is written again.
        with contextlib.suppress(OSError, KeyError, ValueError):
            return load_arrays(path)["embeddings"]
    found = np.asarray(encode(texts), np.float32)
    if found.ndim != 2 or len(found) != len(texts) or not np.isfinite(found).all():
        raise ValueError(
            f"encode: expected finite numbers of shape ({len(texts)}, width), got "
            f"shape {found.shape}"
        )
    norm = np.linalg.norm(found, axis=1, keepdims=True)
    found = found / np.where(norm > 0, norm, 1)
    if path is not None:
        # A cache that cannot be written costs the next run time, and nothing else.
        with (
            contextlib.suppress(OSError),
            replacing(path) as part,
            part.open("wb") as file,
        ):
            np.savez(file, embeddings=found)
    return found


class TermMatchRanker:
    """Ranks genes by how near a patient's terms are to those of a disease, in words.

    A disease with n terms t has, for a patient with terms q of information content IC,
    the score

    ``sum_q w_q / b ln(sum_t exp(b cos(q, t)) / (n + s))``, ``w_q = IC(q) / sum IC``,

    a soft best match, less what a long list of terms would gain by chance. A gene has
    the best score of its diseases. The names of terms are all that is compared: neither
    a gene's symbol nor the name of a disease is read.
    """

    def __init__(
        self,
        encode: Encode,
        hpo: Hpo,
        *,
        name: str | None = None,
        profiles: Profiles | None = None,
        sharpness: float = 10.0,
        smoothing: float = 5.0,
    ):
        """Prepare the ranker; nothing is embedded yet.

        Args:
          encode: as in `embed`.
          hpo: ontology and annotations.
          name: as in `embed`; keeps the embeddings of the terms' names.
          profiles: terms of the diseases of ``hpo``; all annotations if None.
          sharpness: ``b``, above 0; the larger, the more the best match alone counts.
          smoothing: ``s``, at least 0: terms without a match that each disease has.

        Raises:
          ValueError: if a number is out of range, or ``profiles`` has not one row for
            each disease.
        """
        for label, value, holds in (
            ("sharpness", sharpness, 0 < sharpness < np.inf),
            ("smoothing", smoothing, 0 <= smoothing < np.inf),
        ):
            if not holds:
                raise ValueError(f"{label}: expected a positive number, got {value}")
        self.hpo, self.sharpness, self.smoothing = hpo, sharpness, smoothing
        self.profiles = disease_terms(hpo) if profiles is None else profiles
        expected, got = len(hpo.annotations.diseases), len(self.profiles.starts) - 1
        if got != expected:
            raise ValueError(f"profiles: expected {expected} diseases, got {got}")
        self.information = term_information(hpo.ontology, self.profiles)
        self._encode, self._name = encode, name

    def __call__(self, phenotypes: Phenotypes, genes: Sequence[str], /) -> Ranking:
        """Rank genes.

        Args:
          phenotypes: of a patient.
          genes: symbols; those without phenotypes come last.

        Returns:
          The ranking; it took no call.
        """
        return self.many([(phenotypes, genes)])[0]

    def many(self, requests: Sequence[Request]) -> list[Ranking]:
        """Rank several requests together.

        Args:
          requests: phenotypes and genes of each.

        Returns:
          One ranking per request.
        """
        annotations = self.hpo.annotations
        places = {symbol: place for place, symbol in enumerate(annotations.genes)}
        rankings = []
        # In chunks: scores of all patients would be as many as patients times diseases.
        for begin in range(0, len(requests), _CHUNK):
            chunk = requests[begin : begin + _CHUNK]
            scores = self.scores([phenotypes for phenotypes, _ in chunk])
            best = np.full((len(chunk), len(annotations.genes) + 1), -np.inf)
            genes, diseases = annotations.links.T
            np.maximum.at(best.T, genes, scores.T[diseases])
            for row, (_, asked) in zip(best, chunk, strict=True):
                # The last column, of unknown genes, stays at -inf.
                rankings.append(by_score(row[[places.get(gene, -1) for gene in asked]]))
        return rankings

    def scores(
        self, patients: Sequence[Phenotypes], profiles: Profiles | None = None
    ) -> Float[np.ndarray, "cases diseases"]:
        """Score diseases.

        Args:
          patients: observed terms; excluded ones are not used.
          profiles: terms of any diseases; the ranker's own if None.

        Returns:
          Scores, larger is better; -inf for a disease without terms.

        Raises:
          ValueError: if a patient has no observed term.
          KeyError: if a term is not in the ontology.
        """
        profiles = self.profiles if profiles is None else profiles
        ontology = self.hpo.ontology
        observed = [
            np.unique([ontology.index(t) for t in patient.observed]).astype(int)
            for patient in patients
        ]
        for number, terms in enumerate(observed):
            if not len(terms):
                raise ValueError(
                    f"patients[{number}]: expected at least one observed term, got none"
                )
        asked = np.unique(np.concatenate([*observed, np.zeros(0, int)]))
        matches = self._matches(asked, profiles)
        weights = np.zeros((len(patients), len(asked)), np.float32)
        for row, terms in zip(weights, observed, strict=True):
            # A patient with nothing but terms that all diseases have: equal weights.
            own = np.maximum(self.information[terms], 1e-6)
            row[np.searchsorted(asked, terms)] = own / own.sum()
        found = weights @ matches
        found[:, np.diff(profiles.starts) == 0] = -np.inf
        return found

    def _matches(
        self, asked: np.ndarray, profiles: Profiles
    ) -> Float32[np.ndarray, "terms diseases"]:
        """Soft best match of each term in each disease."""
        annotated, columns = np.unique(profiles.terms, return_inverse=True)
        sizes = np.diff(profiles.starts)
        has = sparse.csr_array(
            (np.ones(len(columns), np.float32), columns, profiles.starts),
            shape=(len(sizes), len(annotated)),
        )
        vectors, other = self._names[asked], self._names[annotated].T
        out = np.empty((len(asked), len(sizes)), np.float32)
        for begin in range(0, len(asked), _CHUNK):
            part = slice(begin, begin + _CHUNK)
            # Less the largest cosine, 1, so that nothing overflows.
            near = np.exp(self.sharpness * (vectors[part] @ other - 1))
            # A disease without terms is given -inf by the caller.
            total = np.maximum((has @ near.T).T, np.finfo(np.float32).tiny)
            out[part] = np.log(total / np.maximum(sizes + self.smoothing, 1))
        return 1 + out / self.sharpness

    @cached_property
    def _names(self) -> Float32[np.ndarray, "terms width"]:
        return embed(self._encode, self.hpo.ontology.names, name=self._name)
