"""A language model chooses the detector; what its choice costs is its regret."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jeff.csv_rows import csv_columns
from jeff_llm.chat import ChatModel, Request, conversation, map_async, run
from jeff_llm.chat.structured import ask_json

__all__ = [
    "Facts",
    "Picks",
    "Regrets",
    "Table",
    "baselines",
    "facts",
    "pick",
    "read_table",
    "regret",
    "selection_request",
]

_LONGEST = 200  # characters of an example


class Table(NamedTuple):
    """What each candidate reaches on each data set.

    Attributes:
      candidates: pairs of encoder and detector.
      data_sets: names.
      auroc: in [0, 1]; NaN where a candidate was not measured.
    """

    candidates: tuple[tuple[str, str], ...]
    data_sets: tuple[str, ...]
    auroc: Float[np.ndarray, "data_sets candidates"]


class Facts(NamedTuple):
    """What a model is told of a data set; all of it from the training part.

    Attributes:
      name: of the data set.
      size: number of training texts.
      classes: names of the normal classes.
      examples: one training text of each class.
      lengths: mean, least and greatest number of characters.
    """

    name: str
    size: int
    classes: tuple[str, ...]
    examples: tuple[str, ...]
    lengths: tuple[float, int, int]


class Picks(NamedTuple):
    """A model's choices.

    Attributes:
      index: chosen candidate of each query; -1 where the answer named none.
      reasons: the model's reason, or what was wrong.
    """

    index: Int[np.ndarray, " queries"]
    reasons: tuple[str, ...]


class Regrets(NamedTuple):
    """Regrets of choosing without a model, per data set.

    Attributes:
      random: mean over all candidates.
      average: of the candidate that is best on average on the other data sets.
      median: of the median candidate.
    """

    random: Float[np.ndarray, " data_sets"]
    average: Float[np.ndarray, " data_sets"]
    median: Float[np.ndarray, " data_sets"]


def read_table(path: str | Path) -> Table:
    """Read a table with the columns encoder, detector, dataset and auroc.

    Args:
      path: a CSV file.

    Returns:
      The table, candidates and data sets in the order of the file.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a line is not as expected or stands twice; names the line.
    """
    cells: dict[tuple[tuple[str, str], str], float] = {}
    columns = ("encoder", "detector", "dataset", "auroc")
    for where, (encoder, detector, dataset, text) in csv_columns(path, columns):
        key = ((encoder, detector), dataset)
        try:
            value = float(text)
        except ValueError as error:
            raise ValueError(
                f"{where}: auroc: expected a number, got {text!r:.40}"
            ) from error
        if not 0 <= value <= 1 or key in cells:
            raise ValueError(
                f"{where}: expected each cell once, with an AUROC in [0, 1], got "
                f"{key} {value}"
            )
        cells[key] = value
    if not cells:
        raise ValueError(f"{path}: expected a row beside the header, got none")
    candidates = tuple(dict.fromkeys(pair for pair, _ in cells))
    data_sets = tuple(dict.fromkeys(name for _, name in cells))
    auroc = np.array(
        [[cells.get((pair, name), np.nan) for pair in candidates] for name in data_sets]
    )
    return Table(candidates, data_sets, auroc)


def regret(
    auroc: Float[np.ndarray, " candidates"], index: Int[np.ndarray, " queries"]
) -> Float[np.ndarray, " queries"]:
    """Compute what choices lose to the best candidate.

    A query without an answer, and the choice of a candidate that was not measured, lose
    what a random choice loses.

    Args:
      auroc: of each candidate on one data set; NaN where not measured.
      index: the choices; -1 where a model named none.

    Returns:
      ``max AUROC - AUROC of the choice``.

    Raises:
      ValueError: if no candidate was measured, or an index is out of range.
    """
    auroc, index = np.asarray(auroc, np.float64), np.asarray(index, int)
    if np.all(np.isnan(auroc)):
        raise ValueError("auroc: expected at least one number, got none")
    if len(index) and not (index.min() >= -1 and index.max() < len(auroc)):
        raise ValueError(f"index: expected -1 to {len(auroc) - 1}, got {index}")
    loss = np.nanmax(auroc) - auroc
    loss = np.where(np.isnan(loss), np.nanmean(loss), loss)
    return np.append(loss, loss.mean())[index]


def baselines(table: Table) -> Regrets:
    """Compute the regrets of choosing without a model.

    Args:
      table: of at least two data sets.

    Returns:
      Regrets per data set; the oracle's is 0.

    Raises:
      ValueError: if there are fewer than two data sets.
    """
    if len(table.data_sets) < 2:
        raise ValueError(
            f"table: expected at least two data sets, got {len(table.data_sets)}"
        )
    rows = []
    for place, row in enumerate(table.auroc):
        loss = np.nanmax(row) - row
        # Chosen on the other data sets: on its own it would have seen the answer.
        others = np.delete(table.auroc, place, axis=0)
        known = ~np.isnan(others)
        # A cell that is missing is left out; as 0 it would count against a candidate.
        total = np.where(known, others, 0).sum(axis=0) / np.maximum(
            known.sum(axis=0), 1
        )
        mean = np.where(np.isnan(row) | ~known.any(axis=0), -np.inf, total)
        rows.append((np.nanmean(loss), loss[np.argmax(mean)], np.nanmedian(loss)))
    return Regrets(*map(np.array, zip(*rows, strict=True)))


def facts(name: str, texts: Sequence[str], classes: Sequence[str]) -> Facts:
    """Gather what a model is told of a data set, from its training part.

    Args:
      name: of the data set.
      texts: normal training texts.
      classes: class of each.

    Returns:
      The facts; the example of a class is its first training text.

    Raises:
      ValueError: if there is no text, or the numbers differ.
    """
    if not texts or len(texts) != len(classes):
        raise ValueError(
            f"texts, classes: expected as many and at least one, got {len(texts)} and "
            f"{len(classes)}"
        )
    first: dict[str, str] = {}
    for text, kind in zip(texts, classes, strict=True):
        first.setdefault(kind, text)
    lengths = [len(text) for text in texts]
    return Facts(
        name,
        len(texts),
        tuple(first),
        tuple(first.values()),
        (float(np.mean(lengths)), min(lengths), max(lengths)),
    )


def selection_request(
    candidates: Sequence[tuple[str, str]],
    about: Facts | None,
    abstracts: Mapping[str, str],
    *,
    seed: int = 0,
) -> Request:
    """Ask a model for the best candidate.

    Args:
      candidates: pairs of encoder and detector.
      about: what is told of the data set; None for the control, which is told nothing.
      abstracts: a sentence on each encoder and detector that has one.
      seed: of the sampling; queries of one data set differ in it.

    Returns:
      The request.
    """
    names = dict.fromkeys(word for pair in candidates for word in pair)
    known = "\n".join(
        f"- {name}: {abstracts[name]}" for name in names if name in abstracts
    )
    listed = "\n".join(
        f"{number}. {encoder} + {detector}"
        for number, (encoder, detector) in enumerate(candidates, 1)
    )
    told = "Nothing is known of the texts.\n" if about is None else _told(about)
    prompt = (
        "Choose the pair of text encoder and anomaly detector that will find anomalous "
        f"texts best (highest AUROC) after training on normal texts.\n{told}"
        f"What is known of the parts:\n{known}\nPairs:\n{listed}\n"
        "Answer with one JSON object that names the number of a pair: "
        '{"reason": "one short sentence", "pair": 1}'
    )
    return Request(conversation(prompt), max_tokens=100, temperature=0.7, seed=seed)


def pick(
    model: ChatModel,
    candidates: Sequence[tuple[str, str]],
    about: Facts | None,
    abstracts: Mapping[str, str],
    *,
    queries: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> Picks:
    """Ask a model several times for the best candidate.

    Args:
      model: the model.
      candidates: pairs of encoder and detector.
      about: as in `selection_request`.
      abstracts: as in `selection_request`.
      queries: how often.
      progress: called with the number of answers, and of queries.

    Returns:
      Its choices; an answer that names no number of the list is -1, never left out.

    Raises:
      ExceptionGroup: if requests fail for good, after all were tried; the
        `jeff_llm.chat.AskError` holds the answers that came.
      ValueError: if there are no candidates.
    """
    if not candidates:
        raise ValueError("candidates: expected at least one, got none")
    schema = {
        "type": "object",
        "properties": {
            "reason": {"type": "string"},
            "pair": {"type": "integer", "minimum": 1, "maximum": len(candidates)},
        },
        "required": ["pair"],
    }
    requests = [
        selection_request(candidates, about, abstracts, seed=seed)
        for seed in range(queries)
    ]
    found = run(
        map_async(
            lambda request: ask_json(model, request, schema),
            requests,
            progress=progress,
            return_errors=False,
        )
    )
    index = [-1 if each.error else int(each.value["pair"]) - 1 for each in found]
    reasons = [each.error or str(each.value.get("reason", "")) for each in found]
    return Picks(np.array(index, int), tuple(reasons))


def _told(about: Facts) -> str:
    """The facts in words; what is not known is left out."""
    mean, least, most = about.lengths
    size = f", {about.size} normal texts of {mean:.0f} characters ({least} to {most})"
    classes = "\n".join(
        f"- {kind}"
        + (f": {json.dumps(text[:_LONGEST], ensure_ascii=False)}" if text else "")
        for kind, text in zip(about.classes, about.examples, strict=True)
    )
    return (
        f"Data set: {about.name}{size if about.size else ''}.\n"
        f"Its normal classes:\n{classes}\n"
    )
