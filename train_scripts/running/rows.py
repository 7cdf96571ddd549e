"""A table that a run measures row by row: each is logged as it comes, none twice."""

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
    """Measure every item that an interrupted run in the folder has not.

    Args:
      workdir: the run's folder; rows are appended to its ``metrics.jsonl``.
      items: what is measured, in order.
      measure: numbers of an item, by name.
      progress: show a progress bar on standard error.
      title: text beside the bar.
      shown: name of the number shown beside the bar.

    Returns:
      One row an item: ``"step"``, from 1, and its numbers.
    """
    total = len(items)
    # Opened once to count: a log drops the rows behind the step that it starts from.
    done = len(RunLog(workdir, total, total, show=False).rows)
    with RunLog(workdir, total, done, show=progress, title=title, shown=shown) as log:
        for step, item in enumerate(items[done:], done + 1):
            log.write({"step": step, **measure(item)})
        return log.rows
