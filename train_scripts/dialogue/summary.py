"""Tables of the dialogue script."""

from collections.abc import Iterator, Sequence

import numpy as np

from configs.dialogue import Config
from jeff_llm.clinic.evaluation import Scores, by_kind, by_source
from jeff_llm.clinic.kinds import KINDS
from jeff_llm.clinic.maze import SOURCES, Maze
from jeff_llm.clinic.picked import Picks
from train_scripts.dialogue.measure import Chosen
from train_scripts.dialogue.pooled import (
    Task,
    calibration,
    chance,
    pooled,
    select,
    summary,
    tasks,
)
from train_scripts.running.cells import table_cell

__all__ = [
    "calibration_table",
    "kind_table",
    "labels",
    "methods",
    "notes",
    "scores_table",
    "source_table",
]

_METRICS = {
    "position": "POS: share of positions right",
    "f1": "F1: share of the evidence among the picks",
    "adjacency": "ADJ: share of neighbours right",
    "tau": "Kendall's tau",
}
# Ways to choose whose distractors are looked at.
_LOOKED = ("embedding", "untuned", "multiple_choice", "monologue", "dialogue")


def labels(config: Config) -> dict[str, str]:
    """Name the parts.

    Args:
      config: settings of the run, with the name of the model.

    Returns:
      Words by part.
    """
    model = "SmolLM2" if config.model == "smollm2" else table_cell(config.model)
    return {
        "rules": "rule",
        "official": "published construction",
        "heads": "head over MiniLM",
        "number": f"{model}, by number",
        "text": f"{model}, by likelihood",
        "chat": "endpoint",
    }


def methods(found: Sequence[Chosen]) -> list[tuple[str, str, str]]:
    """Part, method and rounds of every row, in order.

    Args:
      found: choices of all methods.

    Returns:
      Each once.
    """
    return list(dict.fromkeys((e.part, e.method, e.rounds) for e in found))


def scores_table(config: Config, name: str, found: Sequence[Chosen]) -> str:
    """Write every metric of every method by noise.

    Args:
      config: settings of the run.
      name: of the data set.
      found: choices of all methods and seeds.

    Returns:
      Markdown.
    """
    levels = sorted(config.noise)
    text = f"\n## {name}\n"
    for metric, title in _METRICS.items():
        text += f"\n### {name}, {title}\n\n"
        text += "| method | rounds | items |"
        text += "".join(f" noise {level} |" for level in levels)
        text += "\n|---|---|---|" + "---|" * len(levels) + "\n"
        for part in dict.fromkeys(each.part for each in found):
            for row in (row for row in methods(found) if row[0] == part):
                text += _scores_row(config, found, row, metric)
            text += _rivals(config, found, part, metric)
    return text


def _scores_row(
    config: Config,
    found: Sequence[Chosen],
    row: tuple[str, str, str],
    metric: str,
    kept: set[Task] | None = None,
) -> str:
    part, method, rounds = row
    cells, items = [], 0
    for level in sorted(config.noise):
        own = select(found, part, method, rounds=(rounds,), noise=(level,))
        scores = pooled(own, kept)
        items = len(scores.position)
        cells.append(_interval(config, scores, metric))
    label = _label(config, part, method)
    return f"| {label} | {rounds} | {items} | {' | '.join(cells)} |\n"


def _rivals(config: Config, found: Sequence[Chosen], part: str, metric: str) -> str:
    """The best of the rules, and chance, in the mazes that a part saw.

    A language model reads short items alone, in which chance is higher.
    """
    if part == "official":
        return ""
    row = next(row for row in methods(found) if row[0] == part)
    own = select(found, *row[:2], rounds=row[2:])
    text, kept = "", tasks(own)
    rule = ("rules", "usual_order", "one")
    if part in ("number", "text", "chat") and kept <= tasks(select(found, *rule[:2])):
        text = _scores_row(config, found, rule, metric, kept)
    expected = [
        np.nanmean(
            getattr(chance([each for each in own if each.noise == level]), metric)
        )
        for level in sorted(config.noise)
    ]
    shown = " | ".join(f"{value:.3f}" for value in expected)
    items = len({each for each, _ in kept})
    return f"{text}| random, expected | | {items} | {shown} |\n"


def source_table(config: Config, name: str, found: Sequence[Chosen]) -> str:
    """Write how often distractors are picked, by their distance.

    Args:
      config: settings of the run.
      name: of the data set.
      found: choices of all methods and seeds.

    Returns:
      Markdown; empty without noise.
    """
    kinds = SOURCES[1:]
    title = "share of distractors picked at noise {noise}, by what they share"
    rows = []
    for label, mazes, picks in _looked_at(config, found):
        shares = by_source(mazes, picks)
        rows.append(
            (
                *label,
                *(
                    f"{shares[kind].share:.3f} "
                    f"({shares[kind].picked} of {shares[kind].listed})"
                    for kind in kinds
                ),
            )
        )
    return _picked_table(name, title + " with the case", kinds, found, rows)


def kind_table(config: Config, name: str, found: Sequence[Chosen]) -> str:
    """Write which kinds of sentences are picked, as evidence and as distractors.

    Args:
      config: settings of the run.
      name: of the data set.
      found: choices of all methods and seeds.

    Returns:
      Markdown; empty without noise.
    """
    title = "share picked at noise {noise}: evidence / distractors of a kind"
    rows = []
    for label, mazes, picks in _looked_at(config, found):
        shares = by_kind(mazes, picks)
        rows.append(
            (
                *label,
                *(
                    f"{_share(shares[kind].evidence.share)} / "
                    f"{_share(shares[kind].distractors.share)}"
                    for kind in KINDS
                ),
            )
        )
    return _picked_table(name, title, KINDS, found, rows)


def _looked_at(
    config: Config, found: Sequence[Chosen]
) -> Iterator[tuple[tuple[str, str], list[Maze], list[Picks]]]:
    """Label and rounds, mazes and picks at the most noise, of some methods."""
    noise = max(each.noise for each in found)
    for part, method, rounds in methods(found):
        if part == "official" or (part != "chat" and method not in _LOOKED):
            continue
        own = select(found, part, method, rounds=(rounds,), noise=(noise,))
        yield (
            (_label(config, part, method), rounds),
            [maze for each in own for maze in each.mazes],
            [picks for each in own for picks in each.picks],
        )


def _picked_table(
    name: str,
    title: str,
    columns: Sequence[str],
    found: Sequence[Chosen],
    rows: Sequence[Sequence[str]],
) -> str:
    noise = max(each.noise for each in found)
    if not noise:
        return ""
    lines = [
        f"\n### {name}, {title.format(noise=noise)}\n",
        f"| method | rounds | {' | '.join(columns)} |",
        "|---" * (2 + len(columns)) + "|",
    ]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def calibration_table(config: Config, name: str, found: Sequence[Chosen]) -> str:
    """Write how far the probability of a pick can be trusted.

    Args:
      config: settings of the run.
      name: of the data set.
      found: choices of all methods and seeds.

    Returns:
      Markdown; empty if no method gives probabilities.
    """
    without = ("rules", "official", "chat")
    rows = [key for key in methods(found) if key[0] not in without]
    if not rows:
        return ""
    text = (
        f"\n### {name}, calibration: probability of a pick against being right at its "
        "position, all noise levels\n\n"
        "| method | rounds | picks | right | ECE | Brier | AUROC |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    for part, method, rounds in rows:
        each = calibration(select(found, part, method, rounds=(rounds,)))
        label = _label(config, part, method)
        text += (
            f"| {label} | {rounds} | {each.picks} | {each.right:.3f} | "
            f"{each.error:.3f} | {each.brier:.3f} | {_share(each.auroc)} |\n"
        )
    return text


def notes(config: Config) -> str:
    """Say how the tables were made.

    Args:
      config: settings of the run.

    Returns:
      A paragraph.
    """
    seeds = "1 seed" if len(config.seeds) == 1 else f"{len(config.seeds)} seeds"
    return (
        f"{seeds}, each with its own split ({config.split:.0%} to train) and mazes. "
        "Intervals are 95% bootstrap intervals over items; an item that several seeds "
        "test counts once, with its mean. Every tuned arm takes "
        f"{config.num_steps} steps of {config.batch_size} rows of at most "
        f"{config.max_tokens} tokens.\n"
    )


def _label(config: Config, part: str, method: str) -> str:
    shown = method if part == "chat" else method.replace("_", " ")
    return f"{labels(config)[part]}: {table_cell(shown)}"


def _interval(config: Config, scores: Scores, metric: str) -> str:
    found = getattr(summary(config, scores), metric)
    return f"{found.estimate:.3f} ({found.low:.3f} to {found.high:.3f})"


def _share(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"
