"""Ranks genes by asking a chat model to put a numbered list in order.

The genes are listed in the order in which they are given, so that the influence of this
order can be measured; `jeff_llm.genes.conquer` removes much of it.
"""

import json
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from jeff_llm.chat import Answer, ChatModel, Price, Request, ask, conversation, usage
from jeff_llm.genes import rounds
from jeff_llm.genes.profile_texts import ProfileTexts
from jeff_llm.genes.ranking import Phenotypes, Ranking, by_score
from jeff_llm.genes.ranking_answers import ParsedRanking, parse_ranking

__all__ = ["Estimate", "ListwiseRanker", "Prompt", "Report", "default_prompt"]

Prompt: TypeAlias = Callable[[Phenotypes, Sequence[str]], str]

# English text with names of diseases has at least this many characters a token.
_CHARACTERS = 3.0


class Estimate(NamedTuple):
    """What requests will take at most, before the first is sent.

    Attributes:
      calls: requests to the model.
      tokens: tokens read and written.
      cost: their cost, in the currency of the price.
    """

    calls: int
    tokens: int
    cost: float


class Report(NamedTuple):
    """What was wrong with a model's answers, summed over requests.

    Attributes:
      requests: answers that were read.
      unreadable: answers that name no gene, such as refusals; the input's order stands.
      unknown: entries that name no gene of the list.
      repeated: entries that name a gene again.
      missing: genes that an answer does not name; they come last, in the input's order.
      cut: answers that ended at the largest number of tokens.
    """

    requests: int = 0
    unreadable: int = 0
    unknown: int = 0
    repeated: int = 0
    missing: int = 0
    cut: int = 0

    def plus(self, parsed: ParsedRanking, answer: Answer) -> "Report":
        """Count one more answer.

        Args:
          parsed: what was read from it.
          answer: the answer.

        Returns:
          The sums.
        """
        more = (
            1,
            not parsed.order,
            parsed.unknown,
            parsed.repeated,
            parsed.missing,
            answer.finish_reason == "length",
        )
        return Report(*(int(a + b) for a, b in zip(self, more, strict=True)))


class ListwiseRanker:
    """Asks for the order of the whole list in one request.

    Attributes:
      report: what was wrong with all answers so far.
    """

    report: Report

    def __init__(
        self,
        model: ChatModel,
        prompt: Prompt,
        *,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
        schema: bool = True,
        concurrency: int = 8,
        price: Price | None = None,
        count_tokens: Callable[[str], int] | None = None,
    ):
        """Prepare the ranker; nothing is asked yet.

        Args:
          model: answers the prompts.
          prompt: writes the prompt for phenotypes and genes; must number the genes from
            1 in the given order. `default_prompt` makes one.
          max_tokens: longest answer; 64 and 8 for each gene if None.
          temperature: as in `jeff_llm.chat.Request`.
          seed: as in `jeff_llm.chat.Request`.
          schema: send the JSON schema of the answer, for an endpoint that enforces it;
            others ignore it.
          concurrency: requests in flight.
          price: price of the tokens, for `estimate`; 0 if None.
          count_tokens: length of a text in tokens, for `estimate`; a third of its
            characters if None.
        """
        self.report = Report()
        self._model, self._prompt = model, prompt
        self._max_tokens, self._temperature, self._seed = max_tokens, temperature, seed
        self._schema, self._concurrency = schema, concurrency
        self._price = price or Price(0.0, 0.0)
        self._count = count_tokens or (lambda text: math.ceil(len(text) / _CHARACTERS))

    def __call__(self, phenotypes: Phenotypes, genes: Sequence[str], /) -> Ranking:
        """Rank genes.

        Args:
          phenotypes: of a patient.
          genes: symbols, each once.

        Returns:
          The ranking; scores are the number of genes that come after, 0 for all genes
          that the answer does not name.

        Raises:
          ExceptionGroup: as `many` does.
          ValueError: as `many` does.
        """
        return self.many([(phenotypes, genes)])[0]

    def many(self, requests: Sequence[rounds.Request]) -> list[Ranking]:
        """Rank several requests at the same time.

        Args:
          requests: phenotypes and genes of each.

        Returns:
          One ranking per request, each of one call; its tokens are those read and
          written, from a cache too; None where the endpoint reports none.

        Raises:
          ExceptionGroup: if a request to the model fails, after all were tried; the
            `jeff_llm.chat.AskError` holds the answers that came.
          ValueError: if a request has no genes, or names one twice.
        """
        asked = [self._request(phenotypes, genes) for phenotypes, genes in requests]
        answers: list[Answer] = ask(
            self._model, asked, concurrency=self._concurrency, return_errors=False
        )
        rankings = []
        for answer, (_, genes) in zip(answers, requests, strict=True):
            parsed = parse_ranking(answer.text, genes)
            self.report = self.report.plus(parsed, answer)
            scores = np.zeros(len(genes))
            scores[list(parsed.order)] = len(genes) - np.arange(len(parsed.order))
            tokens = usage([answer]).tokens
            rankings.append(by_score(scores, calls=1, tokens=tokens))
        return rankings

    def estimate(self, requests: Sequence[rounds.Request]) -> Estimate:
        """What ranking will take at most; nothing is sent.

        Args:
          requests: phenotypes and genes of each.

        Returns:
          Calls, tokens and cost, as if every answer were as long as allowed, and none
          were stored.

        Raises:
          ValueError: as `many` does.
        """
        asked = [self._request(phenotypes, genes) for phenotypes, genes in requests]
        read = sum(
            self._count(message.content) for each in asked for message in each.messages
        )
        written = sum(each.max_tokens for each in asked)
        return Estimate(len(asked), read + written, self._price.cost(read, written))

    def _request(self, phenotypes: Phenotypes, genes: Sequence[str]) -> Request:
        rounds.check_genes(genes)
        return Request(
            conversation(self._prompt(phenotypes, genes)),
            max_tokens=self._max_tokens or 64 + 8 * len(genes),
            temperature=self._temperature,
            seed=self._seed,
            schema=_schema(len(genes)) if self._schema else None,
        )


def default_prompt(texts: ProfileTexts, *, describe: bool = False) -> Prompt:
    """A prompt that lists the patient's terms and the numbered genes.

    Args:
      texts: writes the patient, and the genes if they are described.
      describe: describe each gene by ``texts.gene``, which names it only if the texts
        are made so; otherwise list the symbols alone.

    Returns:
      The function that writes the prompt.
    """

    def write(phenotypes: Phenotypes, genes: Sequence[str]) -> str:
        shown = [texts.gene(gene) if describe else gene for gene in genes]
        listed = "\n".join(f"{n}. {line}" for n, line in enumerate(shown, start=1))
        return (
            "One of the genes below causes a patient's rare disease. Rank them from "
            "the most likely to the least likely cause of these phenotypes.\n\n"
            f"Patient. {texts.patient(phenotypes)}\n\nGenes:\n{listed}\n\n"
            f"Answer with the numbers of all {len(genes)} genes, best first, as JSON "
            'alone: {"ranking": [number, number, ...]}'
        )

    return write


def _schema(count: int) -> str:
    item = {"type": "integer", "minimum": 1, "maximum": count}
    return json.dumps(
        {
            "type": "object",
            "properties": {"ranking": {"type": "array", "items": item}},
            "required": ["ranking"],
            "additionalProperties": False,
        }
    )
