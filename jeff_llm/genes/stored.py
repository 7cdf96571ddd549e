"""Diagnoses of a language model that were stored, in several prompt languages.

A table names, for a case and a language, the diseases that the model answered, best
first, and whether each is right. `jeff_llm.genes.language_votes` ranks genes by them.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from jeff.bootstrap import RandomKey
from jeff.csv_rows import csv_columns
from jeff_llm.genes.evaluation import Evaluation, evaluate

__all__ = [
    "StoredAnswer",
    "StoredRankings",
    "Third",
    "accuracy_by_information",
    "accuracy_by_language",
    "case_key",
    "read_information",
    "read_mondo_names",
    "read_rankings",
]


class StoredAnswer(NamedTuple):
    """One diagnosis of the model.

    Attributes:
      rank: from 1 for the best.
      disease: MONDO id, or the model's words where it has none.
      correct: whether it is the right disease or a kind of it.
    """

    rank: int
    disease: str
    correct: bool


@dataclass(frozen=True)
class StoredRankings:
    """Diagnoses by case and language.

    Attributes:
      answers: answers by case, then language, best first.
      diagnoses: id of the right disease by case; never read by a ranker.
    """

    answers: Mapping[str, Mapping[str, tuple[StoredAnswer, ...]]]
    diagnoses: Mapping[str, str]

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages in which any case was answered, ascending."""
        return tuple(sorted({name for case in self.answers.values() for name in case}))

    @property
    def diseases(self) -> tuple[str, ...]:
        """All answers, each once, in the order of the table."""
        lists = (each for case in self.answers.values() for each in case.values())
        return tuple(dict.fromkeys(answer.disease for each in lists for answer in each))

    def first_correct(self, language: str) -> Float64[np.ndarray, " cases"]:
        """Rank of the first right answer in one language.

        Args:
          language: one of `languages`.

        Returns:
          Rank by case, in the order of `answers`; infinite where no answer is right, or
          the case has none in this language.

        Raises:
          ValueError: if no case was answered in this language.
        """
        if language not in self.languages:
            raise ValueError(
                f"language: expected one of {self.languages}, got {language!r}"
            )
        ranks = (
            min((a.rank for a in case.get(language, ()) if a.correct), default=np.inf)
            for case in self.answers.values()
        )
        return np.fromiter(ranks, np.float64, len(self.answers))


class Third(NamedTuple):
    """Accuracy in a third of the cases.

    Attributes:
      low: smallest information content in the third, in nats or as the table has it.
      high: largest one.
      cases: number of cases.
      accuracy: of the answers.
    """

    low: float
    high: float
    cases: int
    accuracy: Evaluation


def case_key(source: str) -> str:
    """Name of a case in a table of stored answers.

    The name of the phenopacket's file, without folders and ``.json``, with every run of
    other characters than letters and digits as one underscore.

    Args:
      source: path of the phenopacket.

    Returns:
      The name.

    >>> case_key("notebooks/ABCA4/phenopackets/PMID_1_II-2.json")
    'PMID_1_II_2'
    """
    name = source.rsplit("/", 1)[-1].removesuffix(".gz").removesuffix(".json")
    return re.sub(r"[^A-Za-z0-9]+", "_", name)


def read_rankings(path: str | Path) -> StoredRankings:
    """Read a table of stored diagnoses.

    Args:
      path: comma-separated values, plain or with ``.gz``, with the columns ``case``,
        ``language``, ``rank``, ``mondo``, ``correct_omim`` and ``is_correct``.

    Returns:
      The diagnoses.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a column is missing, a rank or ``is_correct`` cannot be read, or a
        case has two right diseases; names the line.
    """
    columns = ("case", "language", "rank", "mondo", "correct_omim", "is_correct")
    answers: dict[str, dict[str, list[StoredAnswer]]] = {}
    diagnoses: dict[str, str] = {}
    for place, (case, language, rank, disease, right, correct) in _rows(path, columns):
        if not re.fullmatch(r"[1-9]\d*", rank, re.ASCII):
            raise ValueError(f"{place}: rank: expected 1, 2, ..., got {rank!r}")
        if correct not in {"0", "1"}:
            raise ValueError(f"{place}: is_correct: expected 0 or 1, got {correct!r}")
        if diagnoses.setdefault(case, right) != right:
            raise ValueError(
                f"{place}: correct_omim: expected {diagnoses[case]} as in an earlier "
                f"line of {case}, got {right!r}"
            )
        own = answers.setdefault(case, {}).setdefault(language, [])
        own.append(StoredAnswer(int(rank), disease, correct == "1"))
    ordered = {
        case: {name: tuple(sorted(own)) for name, own in lists.items()}
        for case, lists in answers.items()
    }
    return StoredRankings(ordered, diagnoses)


def read_information(path: str | Path) -> dict[str, float]:
    """Read the mean information content of cases.

    Args:
      path: comma-separated values, plain or with ``.gz``, with the columns ``case`` and
        ``mean_ic``.

    Returns:
      Mean information content by case; cases without one are left out.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a column is missing or a number cannot be read; names the line.
    """
    found = {}
    for place, (case, text) in _rows(path, ("case", "mean_ic")):
        if text:
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise ValueError(
                    f"{place}: mean_ic: expected a finite number, got {text!r:.40}"
                )
            found[case] = value
    return found


def read_mondo_names(path: str | Path) -> dict[str, str]:
    """Read the names of diseases from MONDO's mappings.

    Args:
      path: ``mondo.sssom.tsv``, plain or with ``.gz``.

    Returns:
      Name by MONDO id.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a column is missing or a line is cut short.
    """
    return dict(row for _, row in _rows(path, ("subject_id", "subject_label"), "\t"))


def accuracy_by_language(
    rankings: StoredRankings, *, key: RandomKey, num_resamples: int = 2000
) -> dict[str, Evaluation]:
    """Top-k accuracy of the diagnoses in each language.

    A case without an answer in a language counts as a miss. Intervals resample the
    diseases, with all cases of a disease together.

    Args:
      rankings: the diagnoses.
      key: random key; the same resamples for all languages.
      num_resamples: number of resamples, at least 1.

    Returns:
      Accuracy by language.

    Raises:
      ValueError: if there are no cases, or ``num_resamples`` is not positive.
    """
    cluster = np.array([rankings.diagnoses[case] for case in rankings.answers])
    return {
        name: evaluate(
            rankings.first_correct(name), cluster, key=key, num_resamples=num_resamples
        )
        for name in rankings.languages
    }


def accuracy_by_information(
    rankings: StoredRankings,
    information: Mapping[str, float],
    language: str,
    *,
    key: RandomKey,
    num_resamples: int = 2000,
) -> tuple[Third, Third, Third]:
    """Accuracy of the diagnoses by thirds of the mean information content.

    Args:
      rankings: the diagnoses.
      information: mean information content by case; other cases are left out.
      language: one of the rankings' languages.
      key: random key.
      num_resamples: number of resamples, at least 1.

    Returns:
      The thirds, from the least specific phenotypes to the most specific ones.

    Raises:
      ValueError: if fewer than three cases have an information content, or no case was
        answered in this language.
    """
    cases = [case for case in rankings.answers if case in information]
    if len(cases) < 3:
        raise ValueError(
            f"information: expected at least 3 of the cases, got {len(cases)}"
        )
    values = np.array([information[case] for case in cases])
    known = np.array([case in information for case in rankings.answers])
    ranks = rankings.first_correct(language)[known]
    cluster = np.array([rankings.diagnoses[case] for case in cases])
    low, middle, high = (
        Third(
            float(values[part].min()),
            float(values[part].max()),
            len(part),
            evaluate(ranks[part], cluster[part], key=key, num_resamples=num_resamples),
        )
        for part in np.array_split(np.argsort(values, kind="stable"), 3)
    )
    return low, middle, high


def _rows(
    path: str | Path, columns: tuple[str, ...], delimiter: str = ","
) -> Iterator[tuple[str, list[str]]]:
    """Yield place and values of ``columns`` per line; comment lines are left out."""
    # Names in MONDO's mappings have quotes that are part of the name.
    quoted = delimiter != "\t"
    return csv_columns(path, columns, delimiter=delimiter, quoted=quoted, comment="#")
