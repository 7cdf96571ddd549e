"""Summary of a KV-AdaQuant run: numbers, tables and plots."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.kv import Config
from jeff import assets
from jeff.csv_rows import csv_columns
from jeff_llm import kv
from train_scripts.running import plots
from train_scripts.running.seeds import mean_and_std

__all__ = [
    "Cell",
    "Layers",
    "Measured",
    "Report",
    "gain",
    "numbers",
    "plot",
    "published_norms",
    "read_row",
    "tables",
]


class Cell(NamedTuple):
    """A cache that is measured.

    Attributes:
      axis: layout of keys, "channel" or "token".
      name: widths such as ``k4v2``; ``norms3`` or ``errors3`` for widths allocated by
        norms or by errors at a budget of 3 bits.
      make_cache: function that creates the cache.
    """

    axis: str
    name: str
    make_cache: kv.MakeCache


class Measured(NamedTuple):
    """Measurements of one cell.

    Attributes:
      perplexity: perplexity of each seed.
      accuracy: share of the questions answered correctly, of each seed; empty without
        questions.
      share: bytes relative to a bfloat16 cache, one number.
    """

    perplexity: np.ndarray
    accuracy: np.ndarray
    share: np.ndarray


class Layers(NamedTuple):
    """Norms and errors of each layer; columns are keys and values.

    Attributes:
      activations: root mean square norm of a token.
      frobenius: Frobenius norm of the weights.
      spectral: spectral norm of the weights.
      errors: squared error per token, by layout and width.
      allocations: allocated widths by layout, score ("norms" or "errors") and budget.
      published: for each norm, the number of layers of published models with the larger
        key norm, and of all their layers; empty if the table is missing.
    """

    activations: np.ndarray
    frobenius: np.ndarray
    spectral: np.ndarray
    errors: dict[tuple[str, int], np.ndarray]
    allocations: dict[tuple[str, str, int], np.ndarray]
    published: dict[str, tuple[int, int]]


class Report(NamedTuple):
    """Measurements of a run.

    Attributes:
      config: settings of the run.
      layers: norms and errors of each layer.
      cells: measurements by layout and name.
      agreement: share of greedy tokens equal to those in full precision, for each seed,
        by width.
    """

    config: Config
    layers: Layers
    cells: dict[tuple[str, str], Measured]
    agreement: dict[int, np.ndarray]


def read_row(row: dict[str, int | float]) -> Measured:
    """Read the measurements of a cell from a row of the log.

    Args:
      row: numbers by name.

    Returns:
      The measurements.
    """

    def vector(name: str) -> np.ndarray:
        names = [key for key in row if key.rpartition("_")[0] == name]
        return np.array([row[key] for key in names], float)

    return Measured(*(vector(name) for name in Measured._fields))


def published_norms() -> dict[str, tuple[int, int]]:
    """Count the layers of published models whose key weights have the larger norm.

    Returns:
      ``(layers with the larger key norm, layers)`` by norm; empty without the table of
      norms in ``$JEFF_DATA``.
    """
    try:
        path = assets.shared_file("norms/kv_weight_norms.csv")
    except FileNotFoundError:
        return {}
    found = {}
    for norm in ("frobenius", "spectral"):
        columns = ("model", "layer", "tensor", norm)
        value = {
            (model, layer, tensor): float(text)
            for _, (model, layer, tensor, text) in csv_columns(path, columns)
        }
        places = {(model, layer) for model, layer, _ in value}
        larger = sum(value[*place, "k"] > value[*place, "v"] for place in places)
        found[norm] = (larger, len(places))
    return found


def numbers(report: Report) -> dict[str, float]:
    """Mean of every number, and its standard deviation over the seeds.

    Args:
      report: measurements of the run.

    Returns:
      Numbers by name.
    """
    found: dict[str, Any] = {}
    for (axis, name), cell in report.cells.items():
        found[f"perplexity_{axis}_{name}"] = cell.perplexity
        if cell.accuracy.size:
            found[f"accuracy_{axis}_{name}"] = cell.accuracy
        found[f"bytes_share_{axis}_{name}"] = cell.share
    for bits, shares in report.agreement.items():
        found[f"greedy_agreement_{bits}_bits"] = shares
    for axis in report.config.key_axes:
        keys, values = report.layers.errors[axis, 2].T
        found[f"error_ratio_2_bits_{axis}"] = np.mean(keys / values)
    for norm in ("activations", "frobenius", "spectral"):
        keys, values = getattr(report.layers, norm).T
        found[f"layers_with_larger_key_norm_{norm}"] = np.mean(keys > values)
    for (axis, kind, budget), table in report.layers.allocations.items():
        name = f"{axis}_{kind}{budget}"
        found[f"allocated_key_bits_{name}"], found[f"allocated_value_bits_{name}"] = (
            table.mean(0).tolist()
        )
        found[f"allocated_error_over_uniform_{name}"] = gain(report, axis, kind, budget)
    for norm, (larger, layers) in report.layers.published.items():
        found[f"published_layers_with_larger_key_norm_{norm}"] = larger / layers
    return mean_and_std(found)


def gain(report: Report, axis: str, kind: str, budget: int) -> float:
    """Squared error of an allocation relative to one pair of widths for all layers.

    Args:
      report: measurements of the run.
      axis: layout of keys.
      kind: score of the allocation, "norms" or "errors".
      budget: mean width, in bits.

    Returns:
      The ratio to the best pair whose mean width is within the budget.
    """
    table = report.layers.allocations[axis, kind, budget]
    return _error(report, axis, table) / _uniform_error(report, axis, budget)


def _error(report: Report, axis: str, table: np.ndarray) -> float:
    """Measured squared error per token at given widths, summed over all layers."""
    return sum(
        float(report.layers.errors[axis, int(bits)][layer, column])
        for layer, pair in enumerate(table)
        for column, bits in enumerate(pair)
    )


def _uniform_error(report: Report, axis: str, budget: int) -> float:
    """Squared error per token of the best single pair of widths for all layers."""
    # The fair rival is the best pair that needs no more memory than the allocation.
    pairs = [
        (key, value)
        for key in (2, 4, 8)
        for value in (2, 4, 8)
        if (key + value) / 2 <= budget
    ]
    layers = len(report.layers.activations)
    return min(_error(report, axis, np.tile(pair, (layers, 1))) for pair in pairs)


def tables(report: Report) -> dict[str, Any]:
    """Tables of the run, for ``tables.json``.

    Args:
      report: measurements of the run.

    Returns:
      Perplexity and accuracy of each seed by layout and widths; effective bits; norms
      and allocated widths of each layer.
    """
    config = report.config
    effective = {
        str(bits): kv.effective_bits(
            kv.CacheConfig(bits, bits, group_size=config.group_size)
        ).keys
        for bits in config.bits
    }
    return {
        "cells": [
            {"key_axis": axis, "widths": name}
            | {field: value.tolist() for field, value in cell._asdict().items()}
            for (axis, name), cell in report.cells.items()
        ],
        "effective_bits": effective,
        "norms": {
            name: getattr(report.layers, name).tolist()
            for name in ("activations", "frobenius", "spectral")
        },
        "allocations": [
            {"key_axis": axis, "by": kind, "budget": budget, "widths": table.tolist()}
            for (axis, kind, budget), table in report.layers.allocations.items()
        ],
    }


def plot(report: Report, workdir: Path) -> None:
    """Plot perplexity by widths, error against bits, and norms by layer.

    Args:
      report: measurements of the run.
      workdir: folder for the PNG files.
    """
    with plots.figure(workdir / "01_perplexity_by_widths.png") as axes:
        _plot_perplexity(axes, report)
    with plots.figure(workdir / "02_error_against_bits.png") as axes:
        _plot_errors(axes, report)
    with plots.figure(workdir / "03_norms_by_layer.png") as axes:
        norms = report.layers.activations
        layers = np.arange(len(norms))
        for column, name in enumerate(("keys", "values")):
            colour = plots.COLOURS[("line", "fixed")[column]]
            axes.plot(layers, norms[:, column], "o-", color=colour, label=name, ms=3)
        axes.set(xlabel="layer", ylabel="norm of a token", ylim=(0, None))


def _plot_perplexity(axes: Any, report: Report) -> None:
    names = [f"k{k}v{v}" for k, v in ((4, 4), (4, 2), (2, 4), (2, 2))]
    places = np.arange(len(names))
    kinds = report.config.key_axes
    whole = report.cells[kinds[0], "k16v16"].perplexity
    for number, axis in enumerate(kinds):
        colour = plots.COLOURS[("line", "fixed")[number]]
        at = places + (number - (len(kinds) - 1) / 2) * 0.35
        for place, name in zip(at, names, strict=True):
            above = 100 * (report.cells[axis, name].perplexity / whole - 1)
            label = f"keys by {axis}" if name == names[0] else None
            axes.bar(place, above.mean(), 0.33, color=colour, label=label)
            axes.plot([place] * len(above), above, ".", color="#222222", ms=4)
            text, high = f"{above.mean():.1f}", max(above.max(), 0)
            move = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center"}
            axes.annotate(text, (place, high), fontsize=8, **move)
    axes.set_xticks(places, [name.upper() for name in names])
    axes.set(ylabel="perplexity above full precision, % (dots: seeds)")
    axes.margins(y=0.1)


def _plot_errors(axes: Any, report: Report) -> None:
    widths = np.array([2, 4, 8])
    lines = [(f"keys by {axis}", axis, 0) for axis in report.config.key_axes]
    lines.append(("values", report.config.key_axes[0], 1))
    colours = [plots.COLOURS[name] for name in ("line", "fixed", "second")]
    if len(lines) < len(colours):
        colours.pop(1)
    for (label, axis, column), colour in zip(lines, colours, strict=True):
        errors = [report.layers.errors[axis, b][:, column].mean() for b in widths]
        axes.plot(widths, errors, "o-", color=colour, label=label)
    # In the error model, one more bit halves the step and divides the squared error by
    # 4. The guide starts at the first point of the last line.
    guide = errors[0] * 4.0 ** (widths[0] - widths)
    axes.plot(widths, guide, ":", color=plots.COLOURS["plain"], label="4 to the -bits")
    axes.set(xlabel="bits", ylabel="squared error a token", yscale="log")
    axes.set_xticks(widths)
