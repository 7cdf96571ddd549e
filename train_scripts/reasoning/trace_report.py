"""Tables of an analysis of traces."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from configs.reasoning import Config
from jeff_llm.reasoning import guarantee, metrics
from jeff_llm.reasoning.answers import answer_key
from jeff_llm.reasoning.traces import Traces
from train_scripts.running.claims import mark

__all__ = [
    "Chosen",
    "RuleRow",
    "budgets",
    "by_name",
    "chosen",
    "lengths",
    "marks",
    "rules",
    "share_after_first_answer",
]


class RuleRow(NamedTuple):
    """What a rule would have given on all questions.

    Attributes:
      name: of the rule.
      samples: mean samples of a question.
      tokens: mean tokens of a question.
      agreement: share of the questions with the full vote's answer.
      accuracy: share with a right answer; NaN where that is unknown.
    """

    name: str
    samples: float
    tokens: float
    agreement: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A rule chosen on some questions, and what it did on the others.

    Attributes:
      choice: the rule with its bound; None where no bound was within the limit.
      disagreement: share of the held-out questions with another answer than the full
        vote; NaN without a rule.
      questions: held out.
      holds: whether that is at most the bound: true, false, or None if too few
        questions were held out to tell.
    """

    choice: guarantee.Choice | None
    disagreement: float
    questions: int
    holds: bool | None


def share_after_first_answer(traces: Traces) -> np.ndarray:
    """Share of each text that stands behind the first mention of its final answer.

    A proxy for overthinking: a mention may be chance, since a number can occur before
    it is found to be the answer, and characters stand for tokens.

    Args:
      traces: samples; those with a text and an answer that the text contains count, and
        where correctness is known only right ones.

    Returns:
      Shares in [0, 1), one per sample that counts.
    """
    shares = []
    for place, text in enumerate(traces.text or []):
        wrong = traces.correct is not None and traces.correct[place] < 1
        if text is None or traces.answer[place] < 0 or wrong:
            continue
        answer = traces.answers[traces.answer[place]]
        # As it stands in the file, or in its plain form: 18 for $18.00.
        forms = "|".join(map(re.escape, (answer.strip().lower(), answer_key(answer))))
        # Whole words and numbers alone: 8 is mentioned neither in 18 nor in 8.5.
        found = re.search(rf"(?<![\w.])(?:{forms})(?!\w|[.,]\d)", text.lower())
        if found:
            shares.append(1 - found.end() / len(text))
    return np.array(shares)


def lengths(traces: Traces, numbers: dict[str, float], counted: int) -> str:
    """Describe the lengths in sentences.

    Args:
      traces: samples.
      numbers: numbers of the analysis.
      counted: texts that mention their final answer.

    Returns:
      Markdown.
    """
    unit = traces.unit
    lines = [
        f"{numbers['questions']:.0f} questions, {numbers['samples']:.0f} samples: "
        f"{numbers['mean_length']:.1f} {unit} on average, half of them up to "
        f"{numbers['median_length']:.0f}, 95% up to {numbers['length_95']:.0f}. "
        f"{numbers['no_answer']:.1%} have no answer."
    ]
    if traces.correct is None:
        lines.append("The file does not say which answers are right.")
    else:
        right, length = traces.correct >= 1, traces.length
        means = [
            f"{x.mean():.1f}" if x.size else "-"
            for x in (length[right], length[~right])
        ]
        lines.append(
            f"{numbers['accuracy']:.1%} are right; right answers take {means[0]} "
            f"{unit}, wrong ones {means[1]}."
        )
    if counted:
        lines.append(
            f"{numbers['share_after_first_answer']:.0%} of a text comes after the "
            f"first mention of its final answer ({counted} texts). A mention can be "
            "chance, so this is an upper estimate of what is redundant."
        )
    return "\n".join(lines) + "\n"


def budgets(traces: Traces) -> str:
    """Tabulate what would be left within a budget.

    Args:
      traces: samples.

    Returns:
      Markdown.
    """
    longest = float(traces.length.max())
    grid = np.unique(np.ceil(longest * np.array([0.1, 0.25, 0.5, 0.75, 1.0])))
    right = marks(traces)
    found = np.asarray(metrics.accuracy_at_budget(right, traces.length, grid))
    within = np.asarray(
        metrics.accuracy_at_budget(np.ones(len(right)), traces.length, grid)
    )
    lines = [
        f"| budget, {traces.unit} | finished | accuracy |",
        "|---|---|---|",
    ]
    known = traces.correct is not None
    lines += [
        f"| {budget:.0f} | {share:.1%} | {f'{score:.1%}' if known else '-'} |"
        for budget, share, score in zip(grid, within, found, strict=True)
    ]
    return "\n".join(lines) + "\n"


def by_name(traces: Traces) -> str:
    """Compare the named samples of a question with the first of them.

    Args:
      traces: samples.

    Returns:
      Markdown; empty where samples have no names.
    """
    if traces.run is None:
        return ""
    lines = [
        f"| name | questions | accuracy | {traces.unit} | compression | AES |",
        "|---|---|---|---|---|---|",
    ]
    base = {traces.question[k]: k for k in np.flatnonzero(traces.run == 0)}
    for number, name in enumerate(traces.runs):
        mine = np.flatnonzero(traces.run == number)
        # Only questions that both have can be compared.
        mine = mine[[traces.question[k] in base for k in mine]]
        if not len(mine):
            continue
        other = np.array([base[traces.question[k]] for k in mine])
        length, full = traces.length[mine], traces.length[other]
        rate = float(length.sum() / full.sum()) if full.sum() else float("nan")
        score, accuracy = float("nan"), float("nan")
        if traces.correct is not None:
            accuracy, before = (
                float(traces.correct[rows].mean()) for rows in (mine, other)
            )
            if before and full.sum():
                score = float(metrics.aes(accuracy, length.mean(), before, full.mean()))
        lines.append(
            f"| {_cell(name)} | {len(mine)} | {_percent(accuracy)} | "
            f"{length.mean():.1f} | {_plain(rate)} | {_plain(score)} |"
        )
    lines += ["", f"Compression and AES are against {_cell(traces.runs[0])}."]
    return "\n".join(lines) + "\n"


def rules(rows: Sequence[RuleRow], traces: Traces) -> str:
    """Tabulate what each rule would have given and saved.

    Args:
      rows: of the rules, the vote of all samples last.
      traces: samples.

    Returns:
      Markdown.
    """
    full = rows[-1]
    lines = [
        f"| rule | samples | saved | {traces.unit} | saved | agreement | accuracy |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.name} | {row.samples:.2f} | {_saved(row.samples, full.samples)} | "
        f"{row.tokens:.0f} | {_saved(row.tokens, full.tokens)} | {row.agreement:.1%} | "
        f"{_percent(row.accuracy)} |"
        for row in rows
    ]
    if traces.runs:
        lines += [
            "",
            "The samples of a question have names: they may come from different "
            "settings, and the votes mix them in the order of the file.",
        ]
    return "\n".join(lines) + "\n"


def chosen(found: Chosen, config: Config, rows: Sequence[RuleRow], unit: str) -> str:
    """Describe the rule chosen and its check in sentences.

    Args:
      found: the rule and its check.
      config: the limit and delta.
      rows: of the rules, the vote of all samples last.
      unit: of lengths.

    Returns:
      Markdown.
    """
    choice = found.choice
    if choice is None:
        # From the bound without any disagreement, 1 - (delta / rules)^(1 / questions).
        level = math.log(config.delta / (len(rows) - 1))
        least = math.ceil(level / math.log1p(-config.max_disagreement))
        return (
            f"No rule is proved to depart from the full vote on at most "
            f"{config.max_disagreement:.1%} of the questions; log more questions, or "
            f"allow more disagreement. Even for rules that never depart, "
            f"{math.ceil(least / (1 - config.holdout))} questions are needed, of which "
            f"{least} are not held out.\n"
        )
    return (
        f"Chosen on {choice.questions} questions: `{choice.name}`, with "
        f"{choice.samples:.2f} samples and {choice.tokens:.0f} {unit} a question "
        f"instead of {rows[-1].samples:.2f} and {rows[-1].tokens:.0f}. It departs "
        f"from the full vote on at most {choice.bound:.1%} of the questions, with "
        f"probability {1 - choice.delta:.0%} over the draw of the log.\n"
        f"On the {found.questions} questions held out it departs on "
        f"{found.disagreement:.1%}: the bound {mark(found.holds)}.\n"
    )


def marks(traces: Traces) -> np.ndarray:
    """Correctness of each sample; ones where it is unknown.

    Args:
      traces: samples.

    Returns:
      Numbers in [0, 1].
    """
    if traces.correct is None:
        return np.ones(len(traces.length))
    return traces.correct.astype(np.float32)


def _cell(name: str) -> str:
    """A name from a file, which may hold what ends a cell or a row."""
    return " ".join(name.split()).replace("|", "\\|")


def _saved(value: float, full: float) -> str:
    return f"{1 - value / full:.0%}" if full else "-"


def _percent(value: float) -> str:
    return f"{value:.1%}" if np.isfinite(value) else "-"


def _plain(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"
