"""Rankers that read a decoder's probabilities, without generating text.

`PointwiseRanker` scores each gene's text as a continuation of the patient's, so the
order of the list has no influence. `OptionRanker` lists all genes and reads the
probability of each label in one pass; it depends on the order, as chat models do.
"""

import math
import string
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from scipy.special import log_softmax

from jeff_llm.generate import option_logits, score
from jeff_llm.generate.scoring import Score
from jeff_llm.genes.listwise import Prompt
from jeff_llm.genes.profile_texts import ProfileTexts
from jeff_llm.genes.ranking import Phenotypes, Ranking, by_score
from jeff_llm.genes.rounds import Request, check_genes
from jeff_llm.models.language_model import LanguageModel

__all__ = [
    "LABELS",
    "OptionRanker",
    "PointwiseRanker",
    "option_prompt",
    "pointwise_texts",
]

DescribePatient: TypeAlias = Callable[[Phenotypes], str]
DescribeGene: TypeAlias = Callable[[str], str]

LABELS = tuple(f" {x}" for x in string.ascii_uppercase + string.ascii_lowercase)
_NOBODY = Phenotypes(())
# Continuations of one row.
_CONTINUATIONS = 8


class PointwiseRanker:
    """Ranks genes by how much the patient raises the probability of their texts.

    ``(ln P(gene | patient) - ln P(gene | nobody)) / tokens^e`` is the pointwise mutual
    information of the two texts, for e > 0 less for long texts. What a gene's text is
    worth by itself, for being common or well known, drops out.
    """

    def __init__(
        self,
        model: LanguageModel,
        patient: DescribePatient,
        gene: DescribeGene,
        *,
        length_exponent: float = 1.0,
        batch_size: int = 4,
    ):
        """Prepare the ranker; nothing is read yet.

        Args:
          model: a decoder with its tokenizer.
          patient: beginning of the text; ``patient(Phenotypes(()))`` is about nobody.
            `pointwise_texts` makes both functions.
          gene: what follows for a gene, with the space that belongs to it.
          length_exponent: ``e``, at least 0; 0 for the mutual information itself.
          batch_size: patients at a time.

        Raises:
          ValueError: if ``length_exponent`` is negative or not finite.
        """
        if not 0 <= length_exponent < math.inf:
            raise ValueError(
                f"length_exponent: expected a number of at least 0, got "
                f"{length_exponent}"
            )
        self._model, self._patient, self._gene = model, patient, gene
        self._exponent, self._batch_size = length_exponent, batch_size
        self._prior: dict[str, float] = {}

    def __call__(self, phenotypes: Phenotypes, genes: Sequence[str], /) -> Ranking:
        """Rank genes.

        Args:
          phenotypes: of a patient.
          genes: symbols.

        Returns:
          The ranking, of one call; its tokens are those of the patient and the genes.
        """
        return self.many([(phenotypes, genes)])[0]

    def many(self, requests: Sequence[Request]) -> list[Ranking]:
        """Rank several requests together.

        Args:
          requests: phenotypes and genes of each.

        Returns:
          One ranking per request.

        Raises:
          ValueError: if a request has no genes or names one twice, or a text is empty
            or too long for the model.
        """
        for _, genes in requests:
            check_genes(genes)
        self._read_prior([genes for _, genes in requests])
        prompts = [self._patient(phenotypes) for phenotypes, _ in requests]
        tails = [[self._gene(gene) for gene in genes] for _, genes in requests]
        found = self._score(prompts, tails)
        rankings = []
        for prompt, scores, (_, genes) in zip(prompts, found, requests, strict=True):
            lengths = np.array([len(each.log_probs) for each in scores])
            gains = [
                each.total - self._prior[gene]
                for each, gene in zip(scores, genes, strict=True)
            ]
            tokens = len(self._model.encode(prompt)) + int(lengths.sum())
            values = np.array(gains) / lengths**self._exponent
            rankings.append(by_score(values, calls=1, tokens=tokens))
        return rankings

    def _score(
        self, prompts: Sequence[str], tails: Sequence[Sequence[str]]
    ) -> list[list[Score]]:
        """Score all continuations of each prompt, some at a time.

        The logits of all continuations of a row are in memory together, so a long list
        is cut into rows of its own, which read the prompt again.
        """
        rows = [
            (number, own[start : start + _CONTINUATIONS])
            for number, own in enumerate(tails)
            for start in range(0, len(own), _CONTINUATIONS)
        ]
        if not rows:
            return [[] for _ in prompts]
        found = score(
            self._model,
            [prompts[number] for number, _ in rows],
            [own for _, own in rows],
            batch_size=self._batch_size,
        )
        out: list[list[Score]] = [[] for _ in prompts]
        for (number, _), scores in zip(rows, found, strict=True):
            out[number] += scores
        return out

    def _read_prior(self, lists: Sequence[Sequence[str]]) -> None:
        """Log-probability of each new gene's text after a text about nobody."""
        new = [
            gene
            for gene in dict.fromkeys(gene for genes in lists for gene in genes)
            if gene not in self._prior
        ]
        if new:
            nobody, texts = self._patient(_NOBODY), [self._gene(gene) for gene in new]
            (found,) = self._score([nobody], [texts])
            totals = [each.total for each in found]
            self._prior |= dict(zip(new, totals, strict=True))


class OptionRanker:
    """Ranks genes by the probability of their labels after the whole list.

    The score is ``ln P(label | patient, list)``, among the labels of the list.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: Prompt,
        *,
        labels: Sequence[str] = LABELS,
        contrast: bool = False,
        batch_size: int = 8,
    ):
        """Prepare the ranker; nothing is read yet.

        Args:
          model: a decoder with its tokenizer.
          prompt: writes the prompt, which labels the genes in the given order and ends
            where a label follows. `option_prompt` makes one.
          labels: texts that are one token each, with their leading space.
          contrast: subtract the scores for nobody, ``prompt(Phenotypes(()), genes)``:
            what the model prefers for the place in the list, or for the gene itself.
          batch_size: prompts at a time.
        """
        self._model, self._prompt = model, prompt
        self._labels, self._contrast = tuple(labels), contrast
        self._batch_size = batch_size

    def __call__(self, phenotypes: Phenotypes, genes: Sequence[str], /) -> Ranking:
        """Rank genes.

        Args:
          phenotypes: of a patient.
          genes: symbols, at most as many as there are labels.

        Returns:
          The ranking, of one call, or two with ``contrast``.
        """
        return self.many([(phenotypes, genes)])[0]

    def many(self, requests: Sequence[Request]) -> list[Ranking]:
        """Rank several requests together.

        Args:
          requests: phenotypes and genes of each.

        Returns:
          One ranking per request.

        Raises:
          ValueError: if a request has no genes, names one twice or has more genes than
            there are labels, or a prompt is too long for the model.
        """
        for _, genes in requests:
            check_genes(genes)
            if len(genes) > len(self._labels):
                raise ValueError(
                    f"genes: expected at most {len(self._labels)}, one for each label, "
                    f"got {len(genes)}; rank groups of them by jeff_llm.genes.conquer"
                )
        if not requests:
            return []
        prompts = [self._prompt(phenotypes, genes) for phenotypes, genes in requests]
        if self._contrast:
            prompts += [self._prompt(_NOBODY, genes) for _, genes in requests]
        most = max(len(genes) for _, genes in requests)
        logits = option_logits(
            self._model,
            prompts,
            self._labels[:most],
            batch_size=self._batch_size,
        )
        rankings = []
        for number, (_, genes) in enumerate(requests):
            own = range(number, len(prompts), len(requests))
            # Two rows with contrast: the patient's, and nobody's.
            rows = log_softmax(logits[list(own), : len(genes)].astype(float), axis=1)
            values = rows[0] - rows[1] if self._contrast else rows[0]
            tokens = sum(len(self._model.encode(prompts[place])) for place in own)
            rankings.append(by_score(values, calls=len(own), tokens=tokens))
        return rankings


def pointwise_texts(texts: ProfileTexts) -> tuple[DescribePatient, DescribeGene]:
    """Texts of patients and genes for `PointwiseRanker`.

    Args:
      texts: writes both.

    Returns:
      The functions that write the beginning, and what follows for a gene.
    """

    def patient(phenotypes: Phenotypes) -> str:
        told = texts.patient(phenotypes)
        return f"A patient with a rare disease. {told}\nWhat the gene is known for:"

    return patient, lambda gene: f" {texts.gene(gene)}"


def option_prompt(texts: ProfileTexts, *, describe: bool = False) -> Prompt:
    """A prompt that lists the genes under the letters of `LABELS`.

    Args:
      texts: writes the patient, and the genes if they are described.
      describe: describe each gene by ``texts.gene``; otherwise list the symbols alone.

    Returns:
      The function that writes the prompt.
    """

    def write(phenotypes: Phenotypes, genes: Sequence[str]) -> str:
        shown = [texts.gene(gene) if describe else gene for gene in genes]
        listed = "\n".join(
            f"{label.strip()}. {line}"
            for label, line in zip(LABELS, shown, strict=False)
        )
        return (
            f"A patient with a rare disease. {texts.patient(phenotypes)}\n\n"
            f"Which gene causes it?\n{listed}\n\nAnswer:"
        )

    return write
