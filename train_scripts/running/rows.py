"""Measure a table row by row, log each row, and resume without repeating any."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jeff.runlog import RunLog, read_rows

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

    Raises:
      OSError: if the log cannot be read or written.
      ValueError: if a line of the log is damaged; names file and line. A last line that
        was cut short is measured again.
    """
    total = len(items)
    # Before the log is opened for writing, which would mend what must be an error here.
    done = len(read_rows(workdir))
    with RunLog(workdir, total, done, show=progress, title=title, shown=shown) as log:
        for step, item in enumerate(items[done:], done + 1):
            log.write({"step": step, **measure(item)})
        return log.rows
