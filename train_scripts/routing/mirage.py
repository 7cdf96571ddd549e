"""Routing from GPT-3.5 to GPT-4 on recorded answers to medical questions."""

from pathlib import Path

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
    numbers = {}
    lines = [
        "GPT-3.5 to GPT-4, five medical data sets.",
        "",
        "| data set | queries | GPT-3.5 | GPT-4 | AUROC | area, 95% | with words | "
        "rate to match |",
        "|---|---|---|---|---|---|---|---|",
    ]
    ends = []
    with plots.figure(workdir / "mirage_routing.png") as axes:
        for (name, each), colour in zip(sets.items(), _COLOURS, strict=False):
            small, large = (
                jnp.asarray(each.small_correct),
                jnp.asarray(each.large_correct),
            )
            curves = [
                routing.curve(
                    jnp.asarray(c, jnp.float32), small, large, jnp.asarray(RATES)
                )
                for c in each.confidence.values()
            ]
            plain, fine = curves
            drawn = bootstrap.bootstrap_samples(
                routing.normalised_area,
                (jnp.asarray(each.confidence["agreement"], jnp.float32), small, large),
                key=jax.random.key(config.seed),
                num_samples=config.bootstrap,
            )
            low, high = np.quantile(np.asarray(drawn), [0.025, 0.975])
            ends.append((float(low), float(high)))
            numbers |= {
                f"mirage_{name}_area": float(plain.area),
                f"mirage_{name}_area_low": float(low),
                f"mirage_{name}_area_high": float(high),
                f"mirage_{name}_area_words": float(fine.area),
                f"mirage_{name}_alignment": float(plain.alignment),
                f"mirage_{name}_match": float(plain.rate_to_match),
            }
            lines.append(
                f"| {name} | {len(small)} | {small.mean():.1%} | {large.mean():.1%} | "
                f"{plain.alignment:.3f} | {plain.area:.3f} ({low:.3f} to {high:.3f}) | "
                f"{fine.area:.3f} | {plain.rate_to_match:.0%} |"
            )
            axes.plot(RATES, fine.accuracy, label=name, color=plots.COLOURS[colour])
            chance = np.asarray(fine.accuracy)[[0, -1]]
            axes.plot([0, 1], chance, ":", color=plots.COLOURS[colour], linewidth=1)
        low, high = axes.get_ylim()
        axes.set_ylim(low - 0.4 * (high - low), high)  # room for the legend
        axes.set_xlabel("share of the queries sent to GPT-4")
        axes.set_ylabel("accuracy")
    areas = [numbers[f"mirage_{name}_area"] for name in sets]
    claim = Claim(
        "GPT-3.5's agreement with itself routes to GPT-4 better than chance on all "
        "five data sets, with 95% intervals above it.",
        "uncertainty routes better than random",
        ", ".join(f"{n} {a:.2f}" for n, a in zip(sets, areas, strict=True)),
        all_of(*(at_least(a, 0.0, ends=e) for a, e in zip(areas, ends, strict=True))),
    )
    carried = transfers(config, sets, "agreement, words", "mirage")
    return Part(
        numbers | carried.numbers,
        (claim, *carried.claims),
        "\n".join(lines) + "\n\n" + carried.table,
    )
