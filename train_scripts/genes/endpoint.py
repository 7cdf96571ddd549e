"""Rank a shortlist again by a language model at the user's endpoint."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from configs.genes import Config
from jeff_llm import chat
from jeff_llm.genes import conquer, listwise
from jeff_llm.genes.profile_texts import ProfileTexts
from jeff_llm.genes.rounds import ask
from train_scripts.genes.data import World
from train_scripts.running.seeds import seed_key

if TYPE_CHECKING:
    from train_scripts.genes.own import Answer

__all__ = ["rerank"]

_PURPOSE = 21


def rerank(
    config: Config, world: World, answers: Sequence["Answer"], workdir: Path
) -> tuple[list["Answer"], str]:
    """Put the best genes of each patient in a new order, by divide and conquer.

    What the calls will cost at most is printed before the first is made. Each answer is
    stored in the run's folder, so a run that is killed asks for nothing twice. The key
    is read from the environment variable ``OPENAI_API_KEY`` and goes nowhere but to the
    endpoint.

    Args:
      config: settings of the run.
      world: release of HPO.
      answers: rankings by the ontology.
      workdir: the run's folder.

    Returns:
      The rankings with the shortlist in the new order, and a report in Markdown.

    Raises:
      ExceptionGroup: if a request fails for good; what was answered stays stored.
    """
    key = os.environ.get("OPENAI_API_KEY") or None
    price = chat.Price(*config.prices)
    model = chat.Cached(
        chat.OpenAICompatible(config.chat, config.chat_model, api_key=key, price=price),
        workdir / "answers.db",
    )
    texts = ProfileTexts(world.hpo, symbol=True)
    prompt = listwise.default_prompt(texts, describe=True)
    ranker = listwise.ListwiseRanker(model, prompt, price=price)
    requests = [
        (answer.case.phenotypes, answer.genes[: config.shortlist]) for answer in answers
    ]
    permutations = min(config.permutations)
    calls = sum(
        conquer.num_calls(
            len(genes),
            group_size=config.group_size,
            keep=config.keep,
            permutations=permutations,
        )
        for _, genes in requests
    )
    groups = [(patient, genes[: config.group_size]) for patient, genes in requests]
    each = ranker.estimate(groups)
    share = calls / max(each.calls, 1)
    cost = (
        f"at most {each.cost * share:.2f} at the given prices"
        if any(config.prices)
        else "unknown without --prices"
    )
    print(
        f"{config.chat_model}: {calls} calls for {len(answers)} patients, about "
        f"{each.tokens * share:,.0f} tokens, cost {cost}; stored answers cost nothing"
    )
    strategy = conquer.as_ranker(
        conquer.divide_and_conquer,
        ranker,
        group_size=config.group_size,
        keep=config.keep,
        permutations=permutations,
        key=seed_key(config.seeds[0], _PURPOSE),
    )
    found = ask(strategy, requests)
    out = [_moved(answer, r.order) for answer, r in zip(answers, found, strict=True)]
    report = ranker.report
    text = (
        f"\n## Ranked again by {config.chat_model}\n\nThe best {config.shortlist} "
        f"genes of each patient, in groups of {config.group_size}: "
        f"{sum(r.calls for r in found)} calls, "
        f"{sum(r.tokens for r in found):,} tokens. "
        f"Of {report.requests} answers {report.unreadable} named no gene and "
        f"{report.cut} were cut; {report.unknown} entries were no gene of the list, "
        f"{report.repeated} named one again, {report.missing} genes were not named. "
        "Scores and reasons are those of the ontology.\n"
    )
    return out, text


def _moved(answer: "Answer", order: np.ndarray) -> "Answer":
    """The same ranking with its first genes in another order."""
    rest = np.arange(len(order), len(answer.genes))
    new = np.concatenate([order, rest]).astype(int)
    place = {gene: i for i, gene in enumerate(answer.genes[i] for i in new)}
    explained = sorted(answer.explained, key=lambda each: place[each.gene])
    return answer._replace(
        genes=[answer.genes[i] for i in new],
        scores=answer.scores[new],
        places=answer.places[new],
        explained=explained,
    )
