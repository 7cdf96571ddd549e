"""Scores of texts by a language model at the user's endpoint."""

from pathlib import Path
from typing import Any

import numpy as np

from configs.anomaly import Config
from jeff_llm import chat
from jeff_llm.anomaly import prompting
from jeff_llm.anomaly.categories import Categories
from jeff_llm.anomaly.texts import Text
from train_scripts.running.endpoint import (
    counted,
    naming_failures,
    open_endpoint,
    priced,
)

__all__ = ["ask"]

_NORMAL = "texts like most of this collection"


def ask(
    config: Config, workdir: Path, texts: list[Text], rows: list[dict[str, Any]]
) -> str:
    """Ask the model for a score of each text, and put it into the rows.

    What it will cost at most is printed before the first call. Equal texts are asked
    about once, and stored answers cost nothing.

    Args:
      config: settings of the run.
      workdir: the run's folder.
      texts: the texts.
      rows: of each text; get ``chat_score``, ``chat_failed`` and ``chat_reason``.

    Returns:
      A report in Markdown.

    Raises:
      OSError: if a request fails for good; what was answered stays stored.
    """
    anomalous = {"anomalous": config.anomalous} if config.anomalous else {}
    kinds = Categories({"normal": config.normal or _NORMAL}, anomalous)
    distinct = list(dict.fromkeys(each.text for each in texts))
    price = chat.Price(*config.prices)
    tokens, cost = prompting.estimate(distinct, kinds, price=price)
    stated = f"{cost:.4f} at the given prices" if any(config.prices) else "unknown"
    hint = "" if any(config.prices) else " (--prices tells it)"
    print(
        f"{config.chat_model}: {len(distinct)} calls, at most about {tokens:,} tokens, "
        f"cost {stated}{hint}; stored answers cost nothing"
    )
    model = open_endpoint(
        config.chat,
        config.chat_model,
        workdir,
        prices=config.prices,
        max_cost=config.max_cost,
    )
    with naming_failures(config.chat):
        asked = prompting.prompted(model, distinct, kinds)
    place = {text: i for i, text in enumerate(distinct)}
    for each, row in zip(texts, rows, strict=True):
        i = place[each.text]
        row["chat_score"] = float(asked.scored.score[i])
        row["chat_failed"] = bool(asked.scored.failed[i])
        row["chat_reason"] = asked.reasons[i]
    failed = int(asked.scored.failed.sum())
    spent = priced(model.spent(), config.prices)
    tokens = asked.tokens.sum()
    told = counted(None if np.isnan(tokens) else int(tokens))
    return (
        f"\n{config.chat_model} scored {len(distinct)} different texts; {failed} "
        f"answers could not be read and count .5. {told}, "
        f"cost {spent} over all starts of the run. Its scores carry no guarantee: they "
        "were not compared with normal texts.\n"
    )
