"""Measure a table row by row, log each row, and resume without repeating any."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jeff.runlog import RunLog

__all__ = ["measure_rows"]

Item = TypeVar("Item")


def measure_rows(
    workdir: Path,
    items: Sequence[Item],
    measure: Callable[[Item], Mapping[str, Any]],
    *,
    progress: bool = False,
    title: str = "",
    shown: str = "loss",
) -> list[dict[str, Any]]:
    """Measure all items except those that an interrupted run already measured.

    Args:
      workdir: the run's folder; rows are appended to its ``metrics.jsonl``.
      items: the items to measure, in order.
      measure: measures one item; returns numbers by name.
      progress: show a progress bar on standard error.
      title: text next to the bar.
      shown: name of the number shown next to the bar.

    Returns:
      One row per item: ``"step"``, from 1, and its numbers.
    """
    total = len(items)
    # Open the log once only to count its rows: it drops rows after its start step, so
    # the start must be known before it is opened for writing.
    done = len(RunLog(workdir, total, total, show=False).rows)
    with RunLog(workdir, total, done, show=progress, title=title, shown=shown) as log:
        for step, item in enumerate(items[done:], done + 1):
            log.write({"step": step, **measure(item)})
        return log.rows
