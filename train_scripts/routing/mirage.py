"""Routing from GPT-3.5 to GPT-4 on recorded answers to medical questions."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs.routing import Config
from jeff import assets, bootstrap
from jeff.csv_rows import csv_columns
from jeff_llm.confidence import routing
from train_scripts.routing.transfers import RATES, Answered, transfers
from train_scripts.running import plots
from train_scripts.running.claims import all_of, at_least
from train_scripts.running.results import Claim, Part

__all__ = ["load_mirage", "mirage"]

_COLUMNS = (
    "dataset",
    "id",
    "gold",
    "weak_cot",
    "weak_rag",
    "strong_cot",
    "weak_rationale_jaccard",
)
_COLOURS = ("line", "fixed", "second", "third", "plain")


def load_mirage() -> dict[str, Answered]:
    """Read recorded answers of GPT-3.5 and GPT-4 to medical questions in $JEFF_DATA.

    There are two confidences: whether the two answers of GPT-3.5 agree, and the mean of
    this agreement and the word overlap of the two rationales, which breaks ties. An
    answer without a letter is wrong and agrees with no other answer.

    Returns:
      Queries by data set.

    Raises:
      FileNotFoundError: if the data are missing; lists the places that were searched.
      ValueError: if a file lacks a column.
    """
    folder = assets.shared_file("routing_mirage/answers.csv").parent
    silence = csv_columns(folder / "no_answer.csv", ("dataset", "id", "column"))
    silent = {tuple(values) for _, values in silence}
    rows: list[dict[str, str]] = [
        dict(zip(_COLUMNS, values, strict=True))
        for _, values in csv_columns(folder / "answers.csv", _COLUMNS)
    ]

    def answer(row: dict[str, str], column: str) -> str:
        gone = (row["dataset"], row["id"], column) in silent
        return "" if gone else row[column]

    found = {}
    for name in sorted({row["dataset"] for row in rows}):
        mine = [row for row in rows if row["dataset"] == name]
        said = [
            [answer(row, c) for c in ("weak_cot", "weak_rag", "strong_cot")]
            for row in mine
        ]
        first, second, strong = np.array(said).T
        gold = np.array([row["gold"] for row in mine])
        agree = ((first == second) & (first != "")).astype(float)
        words = np.array([float(row["weak_rationale_jaccard"] or 0) for row in mine])
        found[name] = Answered(
            {"agreement": agree, "agreement, words": (agree + words) / 2},
            first == gold,
            strong == gold,
        )
    return found


def mirage(config: Config, workdir: Path) -> Part:
    """Route from GPT-3.5 to GPT-4 by GPT-3.5's agreement with itself.

    Args:
      config: settings of the run.
      workdir: the run's folder.

    Returns:
      Numbers, claims and table.
    """
    sets = load_mirage()
    found = {name: _measured(config, each) for name, each in sets.items()}
    _plot(workdir / "mirage_routing.png", found)
    numbers = {
        f"mirage_{name}_{kind}": value
        for name, each in found.items()
        for kind, value in each.numbers().items()
    }
    lines = [
        "GPT-3.5 to GPT-4, five medical data sets.",
        "",
        "| data set | queries | GPT-3.5 | GPT-4 | AUROC | area, 95% | with words | "
        "rate to match |",
        "|---|---|---|---|---|---|---|---|",
        *(f"| {name} | {each.row()} |" for name, each in found.items()),
    ]
    areas = {name: float(each.plain.area) for name, each in found.items()}
    above = (at_least(areas[n], 0.0, ends=each.ends) for n, each in found.items())
    claim = Claim(
        "GPT-3.5's agreement with itself routes to GPT-4 better than chance on all "
        "five data sets, with 95% intervals above it.",
        "uncertainty routes better than random",
        ", ".join(f"{name} {area:.2f}" for name, area in areas.items()),
        all_of(*above),
    )
    carried = transfers(config, sets, "agreement, words", "mirage")
    return Part(
        numbers | carried.numbers,
        (claim, *carried.claims),
        "\n".join(lines) + "\n\n" + carried.table,
    )


class _Measured(NamedTuple):
    """One data set: answers, curves of agreement alone and with words, an interval."""

    small: jax.Array
    large: jax.Array
    plain: routing.RoutingCurve
    fine: routing.RoutingCurve
    ends: tuple[float, float]  # of the area of `plain`

    def numbers(self) -> dict[str, float]:
        return {
            "area": float(self.plain.area),
            "area_low": self.ends[0],
            "area_high": self.ends[1],
            "area_words": float(self.fine.area),
            "alignment": float(self.plain.alignment),
            "match": float(self.plain.rate_to_match),
        }

    def row(self) -> str:
        low, high = self.ends
        return (
            f"{len(self.small)} | {self.small.mean():.1%} | {self.large.mean():.1%} | "
            f"{self.plain.alignment:.3f} | {self.plain.area:.3f} ({low:.3f} to "
            f"{high:.3f}) | {self.fine.area:.3f} | {self.plain.rate_to_match:.0%}"
        )


def _measured(config: Config, answered: Answered) -> _Measured:
    small, large = map(jnp.asarray, (answered.small_correct, answered.large_correct))
    sure = [jnp.asarray(c, jnp.float32) for c in answered.confidence.values()]
    plain, fine = (routing.curve(c, small, large, jnp.asarray(RATES)) for c in sure)
    drawn = bootstrap.bootstrap_samples(
        routing.normalised_area,
        (jnp.asarray(answered.confidence["agreement"], jnp.float32), small, large),
        key=jax.random.key(config.seed),
        num_samples=config.bootstrap,
    )
    low, high = np.quantile(np.asarray(drawn), [0.025, 0.975])
    return _Measured(small, large, plain, fine, (float(low), float(high)))


def _plot(path: Path, found: dict[str, _Measured]) -> None:
    with plots.figure(path) as axes:
        for (name, each), colour in zip(found.items(), _COLOURS, strict=False):
            accuracy = np.asarray(each.fine.accuracy)
            axes.plot(RATES, accuracy, label=name, color=plots.COLOURS[colour])
            chance = accuracy[[0, -1]]
            axes.plot([0, 1], chance, ":", color=plots.COLOURS[colour], linewidth=1)
        low, high = axes.get_ylim()
        axes.set_ylim(low - 0.4 * (high - low), high)  # room for the legend
        axes.set_xlabel("share of the queries sent to GPT-4")
        axes.set_ylabel("accuracy")
