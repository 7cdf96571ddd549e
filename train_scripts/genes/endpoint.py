"""Rank a shortlist again by a language model at the user's endpoint."""

from collections.abc import Sequence

import numpy as np

from configs.genes import Config
from jeff_llm import chat
from jeff_llm.chat.totals import total
from jeff_llm.genes import conquer, listwise
from jeff_llm.genes.profile_texts import ProfileTexts
from jeff_llm.genes.rounds import Request, ask
from train_scripts.genes.answers import Answer
from train_scripts.genes.data import World
from train_scripts.running.endpoint import counted, naming_failures
from train_scripts.running.seeds import seed_key

__all__ = ["rerank"]

_PURPOSE = 21


def rerank(
    config: Config, world: World, answers: Sequence[Answer], model: chat.ChatModel
) -> tuple[list[Answer], str]:
    """Put the best genes of each patient in a new order, by divide and conquer.

    What the calls will cost at most is printed before the first is made. A run that is
    killed asks for nothing twice, since its answers are stored.

    Args:
      config: settings of the run.
      world: release of HPO.
      answers: rankings by the ontology.
      model: the model at the endpoint.

    Returns:
      The rankings with the shortlist in the new order, and a report in Markdown.

    Raises:
      OSError: if a request fails for good; what was answered stays stored.
    """
    texts = ProfileTexts(world.hpo, symbol=True)
    prompt = listwise.default_prompt(texts, describe=True)
    price = chat.Price(*config.prices)
    ranker = listwise.ListwiseRanker(model, prompt, price=price)
    requests = [
        (answer.case.phenotypes, answer.genes[: config.shortlist]) for answer in answers
    ]
    permutations = min(config.permutations)
    print(_stated(config, ranker, texts, requests, permutations))
    strategy = conquer.as_ranker(
        conquer.divide_and_conquer,
        ranker,
        group_size=config.group_size,
        keep=config.keep,
        permutations=permutations,
        key=seed_key(config.seeds[0], _PURPOSE),
    )
    with naming_failures(config.chat):
        found = ask(strategy, requests)
    out = [_moved(answer, r.order) for answer, r in zip(answers, found, strict=True)]
    report = ranker.report
    text = (
        f"\n## Ranked again by {config.chat_model}\n\nThe best {config.shortlist} "
        f"genes of each patient, in groups of {config.group_size}: "
        f"{sum(r.calls for r in found)} calls, "
        f"{counted(total(r.tokens for r in found))}. "
        f"Of {report.requests} answers {report.unreadable} named no gene and "
        f"{report.cut} were cut; {report.unknown} entries were no gene of the list, "
        f"{report.repeated} named one again, {report.missing} genes were not named. "
        "Scores and reasons are those of the ontology.\n"
    )
    return out, text


def _stated(
    config: Config,
    ranker: listwise.ListwiseRanker,
    texts: ProfileTexts,
    requests: Sequence[Request],
    permutations: int,
) -> str:
    """What the calls take at most, if every group holds the longest texts."""
    calls, tokens, cost = 0, 0, 0.0
    for patient, genes in requests:
        own = conquer.num_calls(
            len(genes),
            group_size=config.group_size,
            keep=config.keep,
            permutations=permutations,
        )
        longest = sorted(genes, key=lambda gene: -len(texts.gene(gene)))
        each = ranker.estimate([(patient, longest[: config.group_size])])
        calls += own
        tokens += own * each.tokens
        cost += own * each.cost
    stated = f"{cost:.2f} at the given prices" if any(config.prices) else "unknown"
    hint = "" if any(config.prices) else " (--prices tells it)"
    return (
        f"{config.chat_model}: {calls} calls for {len(requests)} patients, at most "
        f"about {tokens:,} tokens, cost {stated}{hint}; stored answers cost nothing"
    )


def _moved(answer: Answer, order: np.ndarray) -> Answer:
    """The same ranking with its first genes in another order."""
    rest = np.arange(len(order), len(answer.genes))
    new = np.concatenate([order, rest]).astype(int)
    place = {gene: i for i, gene in enumerate(answer.genes[i] for i in new)}
    explained = sorted(answer.explained, key=lambda each: place[each.gene])
    return answer._replace(
        genes=[answer.genes[i] for i in new],
        scores=answer.scores[new],
        # What the model has not seen stays behind, with the ranks that it had.
        ranks=np.append(
            np.arange(1, len(order) + 1),
            np.maximum(answer.ranks[rest], len(order) + 1),
        ),
        explained=explained,
    )
