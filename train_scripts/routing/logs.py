"""Analyse a user's own logs: which share of the queries needs the large model."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.routing import Config
from jeff import files
from jeff_llm.confidence import evaluation, router, routing
from train_scripts.routing import threshold
from train_scripts.routing.resampling import accuracy_interval
from train_scripts.routing.transfers import RATES
from train_scripts.running import plots
from train_scripts.running.results import Part

__all__ = ["analyse", "promise", "write_routers", "write_slider"]

# Compiled as a whole: step by step, each operation is compiled for the log's length.
_curve, _area = jax.jit(routing.curve), jax.jit(routing.normalised_area)


def analyse(config: Config, workdir: Path) -> Part:
    """Read logs; write table, plots and ``router.json``.

    Args:
      config: settings of the run, with ``data``.
      workdir: the run's folder.

    Returns:
      Numbers and table.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a row is not as expected; names the line and the field.
    """
    fields = ("confidence", "token_logprobs", "small_correct", "large_correct")
    names = {name: getattr(config, name) for name in (*fields, "cost", "dataset")}
    logs = routing.from_jsonl(config.data, **names)
    sure, small, large, cost = logs[:4]
    rates = jnp.asarray(RATES, jnp.float32)
    whole = _curve(sure, small, large, rates, large_cost=cost)
    low, high = accuracy_interval(
        *(np.asarray(each) for each in (sure, small, large, rates)),
        seed=config.seed,
        num_samples=config.bootstrap,
    )
    numbers = {
        "queries": float(len(sure)),
        "small_accuracy": float(small.mean()),
        "large_accuracy": float(large.mean()),
        "all_large_cost": float(cost.mean()),
        "area": float(whole.area),
        "rate_to_match": float(whole.rate_to_match),
    }
    binary = small.dtype == bool
    if binary:
        scores = evaluation.evaluate(sure, small, large)
        numbers |= {
            "alignment": scores.alignment,
            "ece": scores.ece,
            "brier": scores.brier,
        }
    routers = _routers(config, logs, binary)
    write_routers(workdir / "router.json", routers)
    for name, each in routers.items():
        if each.rate is not None:
            numbers[f"{name}_rate"] = each.rate
    _plot(workdir, logs, whole, low, high, binary)
    arrays = (np.asarray(each) for each in logs[:3])
    write_slider(workdir, *arrays, measure=logs.measure, cost=np.asarray(cost))
    numbers = {name: value for name, value in numbers.items() if np.isfinite(value)}
    return Part(numbers, (), _table(config, logs, numbers, whole, low, high, routers))


def write_slider(workdir: Path, *queries: np.ndarray, **options: Any) -> None:
    """Write the report's slider over the threshold, if there is anything to choose.

    Args:
      workdir: the run's folder.
      *queries: as `train_scripts.routing.threshold.explorer` takes them.
      **options: likewise.
    """
    slider = threshold.explorer(*queries, **options)
    if slider:
        files.write_json(workdir / "explorer.json", slider, indent=None)


def write_routers(path: Path, routers: dict[str, router.Router]) -> None:
    """Write thresholds as JSON.

    Args:
      path: the file.
      routers: thresholds by name.
    """
    text = json.dumps({n: dataclasses.asdict(r) for n, r in routers.items()}, indent=2)
    # JSON has no infinity, which is the threshold of a router that sends everything on.
    text = text.replace("-Infinity", '"-inf"').replace("Infinity", '"inf"')
    files.write_text(path, text + "\n")


def promise(guard: router.Router, max_error: float, delta: float) -> str:
    """Describe the result of `jeff_llm.confidence.with_guarantee` in a sentence.

    Args:
      guard: the result.
      max_error: maximum error rate of the kept answers, in (0, 1).
      delta: probability with which the bound may fail, in (0, 1).

    Returns:
      The sentence.
    """
    if np.isinf(guard.threshold):
        return (
            f"No threshold is proved to keep errors at {max_error:.0%} or less; log "
            "more queries, or allow more errors."
        )
    return (
        f"Kept answers above {guard.threshold:.4g} are wrong at most {max_error:.0%} "
        f"of the time, with probability {1 - delta:.0%} over the draw of the log; "
        f"{guard.rate:.1%} are then sent on."
    )


def _routers(
    config: Config, logs: routing.Logs, binary: bool
) -> dict[str, router.Router]:
    sure, small, large, cost = logs[:4]
    wanted = config.accuracy or float(large.mean())
    found = {"match": router.for_accuracy(sure, small, large, wanted)}
    half = float(cost.mean()) / 2
    found["half_cost"] = router.for_budget(sure, small, large, half, large_cost=cost)
    if binary:
        # The guarantee needs exchangeable queries, but logs may be sorted, for example
        # by data set.
        order = np.random.default_rng(config.seed).permutation(len(sure))
        found["guaranteed"] = router.with_guarantee(
            sure[order],
            small[order],
            max_error=config.max_error,
            delta=config.delta,
        )
    return {
        name: dataclasses.replace(each, measure=logs.measure)
        for name, each in found.items()
    }


def _table(
    config: Config,
    logs: routing.Logs,
    numbers: dict[str, float],
    whole: routing.RoutingCurve,
    low: np.ndarray,
    high: np.ndarray,
    routers: dict[str, router.Router],
) -> str:
    unit = "cost a query" if logs.priced else "large calls a query"
    lines = [
        f"{len(logs.confidence)} queries: the small model is right in "
        f"{numbers['small_accuracy']:.1%}, the large one in "
        f"{numbers['large_accuracy']:.1%}.",
        "",
        f"| sent to the large model | accuracy | 95% | {unit} |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {rate:.0%} | {whole.accuracy[i]:.1%} | {low[i]:.1%} to {high[i]:.1%} | "
        f"{whole.cost[i]:.4g} |"
        for i, rate in enumerate(RATES)
        if i % 2 == 0
    ]
    wanted = config.accuracy or numbers["large_accuracy"]
    guard = routers.get("guaranteed")
    lines += [
        "",
        f"{wanted:.1%} is reached with {routers['match'].rate:.1%} of the queries sent "
        f"on: those with a confidence below {routers['match'].threshold:.4g}.",
        f"Half of the large model's cost buys {routers['half_cost'].accuracy:.1%}.",
    ]
    if guard:
        lines.append(promise(guard, config.max_error, config.delta))
    area = numbers.get("area")
    if area is not None:
        more = f", AUROC {numbers['alignment']:.3f}" if "alignment" in numbers else ""
        lines.append(f"Normalised area {area:.3f} (0 random, 1 oracle){more}.")
    sets = sorted(set(logs.dataset) - {""})
    if len(sets) > 1:
        lines += [
            "",
            "| data set | queries | small | large | area |",
            "|---|---|---|---|---|",
        ]
        names = np.array(logs.dataset)
        for name in sets:
            c, s, g = (x[names == name] for x in logs[:3])
            area = float(_area(c, s, g))
            lines.append(
                f"| {name} | {len(c)} | {s.mean():.1%} | {g.mean():.1%} | {area:.3f} |"
            )
    return "\n".join(lines) + "\n"


def _plot(
    workdir: Path,
    logs: routing.Logs,
    whole: routing.RoutingCurve,
    low: np.ndarray,
    high: np.ndarray,
    binary: bool,
) -> None:
    with plots.figure(workdir / "01_routing.png") as axes:
        accuracy = np.asarray(whole.accuracy)
        axes.fill_between(
            RATES, low, high, color=plots.COLOURS["line"], alpha=0.18, linewidth=0
        )
        axes.plot(
            RATES, accuracy, color=plots.COLOURS["line"], label="least confident first"
        )
        axes.plot([0, 1], accuracy[[0, -1]], ":", color="#999999", label="at random")
        axes.set_xlabel("share of the queries sent to the large model")
        axes.set_ylabel("accuracy")
    with plots.figure(workdir / "02_cost.png") as axes:
        axes.plot(
            np.asarray(whole.cost),
            accuracy,
            "o-",
            markersize=3,
            color=plots.COLOURS["line"],
        )
        axes.locator_params(axis="x", nbins=5)
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-2, 4))
        axes.set_xlabel("cost of a query" if logs.priced else "large calls a query")
        axes.set_ylabel("accuracy")
    with plots.figure(workdir / "03_confidence.png") as axes:
        if binary:
            plots.marked(
                axes, np.asarray(logs.confidence), np.asarray(logs.small_correct)
            )
        else:
            edges = np.linspace(0, 1, 31).tolist()
            axes.hist(np.asarray(logs.confidence), edges, color=plots.COLOURS["line"])
        axes.set_xlabel("confidence of the small model")
        axes.set_ylabel("queries")
