"""Summary of a Self-REF run: numbers, table and plots."""

from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from configs.selfref import Config
from jeff import files
from jeff.arrays import load_arrays
from jeff_llm.confidence import evaluation, routing
from train_scripts.routing.transfers import RATES
from train_scripts.running import plots
from train_scripts.running.seeds import mean_and_std, spread
from train_scripts.selfref.measure import Found

__all__ = [
    "Report",
    "numbers",
    "plot",
    "read_seed",
    "row",
    "table",
    "write_seed",
]

_FIELDS = ("area", "alignment", "match", "ece", "brier", "cross_entropy")
_SHOWN = {
    ("base", "token"): "third",
    ("base", "fine-tuned probability"): "second",
    ("base", "sequence probability"): "line",
    ("base", "p(true)"): "fixed",
}


class Report(NamedTuple):
    """Measurements of a run.

    Attributes:
      config: settings of the run.
      rows: numbers of each seed.
      found: measurements of each seed.
    """

    config: Config
    rows: list[dict[str, Any]]
    found: list[Found]

    def column(self, name: str) -> np.ndarray:
        """One number of every seed, NaN where a seed lacks it."""
        return np.array([row.get(name, np.nan) for row in self.rows], float)


def row(found: Found, target: float) -> dict[str, float]:
    """Numbers of one seed, without undefined ones.

    Args:
      found: measurements of the seed.
      target: target accuracy to reach by routing, in (0, 1].

    Returns:
      Numbers by name.
    """
    values = {f"{who}_accuracy": float(c.mean()) for who, c in found.correct.items()}
    for (who, name), sure in found.confidence.items():
        right = found.correct[who]
        # The stronger expert is a gazetteer, which is always right.
        scores = evaluation.evaluate(
            jnp.asarray(sure, jnp.float32),
            jnp.asarray(right),
            jnp.ones(len(right)),
            accuracy=target,
        )
        for field in _FIELDS:
            values[f"{who}|{name}|{field}"] = getattr(scores, field)
    for name, sure in found.rejection.items():
        area, _, _ = evaluation.rejection(
            jnp.asarray(sure, jnp.float32), jnp.asarray(found.answerable)
        )
        values[f"rejection|{name}"] = area
    values |= found.numbers
    return {name: value for name, value in values.items() if np.isfinite(value)}


def numbers(report: Report) -> dict[str, float]:
    """Mean and spread of every number over the seeds.

    Args:
      report: measurements of the run.

    Returns:
      ``name``, and ``name_std`` if there are several seeds.
    """
    # Logs of older versions also have a "loss", a copy of one of the other numbers.
    names = [n for n in report.rows[0] if n not in ("step", "loss")]
    columns = {name: report.column(name) for name in names}
    return mean_and_std({n: v for n, v in columns.items() if np.isfinite(v).all()})


def table(report: Report) -> str:
    """Table of all confidences in Markdown, largest area first.

    Args:
      report: measurements of the run.

    Returns:
      The table, with mean and standard deviation over the seeds.
    """
    # Not a set: equal areas would stand in another order in every process.
    names = dict.fromkeys(
        n.rpartition("|")[0] for n in report.rows[0] if n.count("|") == 2
    )
    # An undefined area sorts last; a comparison with NaN would leave the order open.
    order = sorted(
        names, key=lambda n: -np.nan_to_num(report.column(f"{n}|area").mean(), nan=-9)
    )
    head = [
        "answers",
        "confidence",
        "area",
        "AUROC",
        f"rate to {report.config.target:.0%}",
        "ECE",
        "Brier",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name in order:
        who, measure = name.split("|")
        cells = [spread(report.column(f"{name}|{f}"), 3) for f in _FIELDS[:5]]
        lines.append(f"| {who} | {measure} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(report: Report, workdir: Path) -> None:
    """Write the plots.

    Args:
      report: measurements of the run.
      workdir: the run's folder.
    """
    with plots.figure(workdir / "01_routing.png") as axes:
        for key, colour in _SHOWN.items():
            curves = np.stack([_curve(found, key) for found in report.found])
            plots.band(axes, RATES, curves, key[1], plots.COLOURS[colour])
        base = float(np.mean([found.correct["base"].mean() for found in report.found]))
        axes.plot([0, 1], [base, 1], color="#999999", linestyle=":", label="random")
        axes.set_xlabel("share of the questions sent to the expert")
        axes.set_ylabel("accuracy")
    with plots.figure(workdir / "02_areas.png") as axes:
        names = sorted(
            [k for k in report.found[0].confidence if k[0] == "base"],
            key=lambda k: report.column(f"base|{k[1]}|area").mean(),
        )
        values = np.stack([report.column(f"base|{k[1]}|area") for k in names])
        axes.barh(
            [k[1] for k in names],
            values.mean(1),
            color=plots.COLOURS["line"],
            height=0.6,
        )
        if values.shape[1] > 1:
            axes.errorbar(
                values.mean(1),
                range(len(names)),
                xerr=values.std(1, ddof=1),
                fmt="none",
                ecolor=plots.COLOURS["plain"],
                capsize=2,
            )
        axes.set_xlabel("normalised area under the routing curve")
        axes.tick_params(axis="y", labelsize=7)
    with plots.figure(workdir / "03_calibration.png") as axes:
        axes.plot([0, 1], [0, 1], color="#999999", linestyle=":")
        for key, colour in _SHOWN.items():
            x, y = _reliability(report.found, key)
            axes.plot(
                x, y, "o-", color=plots.COLOURS[colour], label=key[1], markersize=4
            )
        axes.set_xlabel("confidence")
        axes.set_ylabel("share of right answers")
    with plots.figure(workdir / "04_rejection.png") as axes:
        axes.plot([0, 1], [0, 1], color="#999999", linestyle=":")
        colours = dict(
            zip(report.found[0].rejection, plots.COLOURS.values(), strict=False)
        )
        grid = np.linspace(0, 1, 101)
        for name, colour in colours.items():
            curves = []
            for found in report.found:
                _, false, true = evaluation.rejection(
                    jnp.asarray(found.rejection[name], jnp.float32),
                    jnp.asarray(found.answerable),
                )
                curves.append(np.interp(grid, false, true))
            plots.band(axes, grid, np.stack(curves), name, colour)
        axes.set_xlabel("declined of the questions with the right option")
        axes.set_ylabel("declined of those without")


def write_seed(path: Path, found: Found) -> None:
    """Write the measurements of a seed atomically.

    Args:
      path: an .npz file.
      found: measurements of the seed.
    """
    arrays: dict[str, Any] = {"answerable": found.answerable}
    arrays |= {f"correct|{who}": values for who, values in found.correct.items()}
    arrays |= {
        f"confidence|{who}|{name}": values
        for (who, name), values in found.confidence.items()
    }
    arrays |= {f"rejection|{name}": values for name, values in found.rejection.items()}
    arrays |= {f"number|{name}": np.array(v) for name, v in found.numbers.items()}
    with files.replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_seed(path: Path) -> Found:
    """Read a file written by `write_seed`.

    Args:
      path: the file.

    Returns:
      The measurements.
    """
    arrays = load_arrays(path)

    def part(kind: str) -> dict[str, np.ndarray]:
        begin = f"{kind}|"
        return {
            name.removeprefix(begin): values
            for name, values in arrays.items()
            if name.startswith(begin)
        }

    pairs = {}
    for name, values in part("confidence").items():
        who, _, measure = name.partition("|")
        pairs[who, measure] = values
    return Found(
        part("correct"),
        pairs,
        arrays["answerable"],
        part("rejection"),
        {name: float(value) for name, value in part("number").items()},
    )


def _curve(found: Found, key: tuple[str, str]) -> np.ndarray:
    right = jnp.asarray(found.correct[key[0]])
    sure = jnp.asarray(found.confidence[key], jnp.float32)
    ones = jnp.ones(len(right))
    return np.asarray(routing.curve(sure, right, ones, jnp.asarray(RATES)).accuracy)


def _reliability(
    found: list[Found], key: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean confidence and share of right answers in ten bins of equal size."""
    sure = np.concatenate([each.confidence[key] for each in found])
    right = np.concatenate([each.correct[key[0]] for each in found])
    parts = np.array_split(np.argsort(sure), 10)
    return (
        np.array([sure[part].mean() for part in parts]),
        np.array([right[part].mean() for part in parts]),
    )
