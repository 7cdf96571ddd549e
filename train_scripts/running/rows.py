"""Measure a table row by row, log each row, and resume without repeating any.

Several processes share the rows. Each row that one of them measures has a folder in
that of the run, until the first process writes all into the log.
"""

import shutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from jeff.runlog import RunLog, read_rows
from train_scripts.running import machines

__all__ = ["Shared", "measure_rows"]

Item = TypeVar("Item")
Value = TypeVar("Value")


def measure_rows(
    workdir: Path,
    items: Sequence[Item],
    measure: Callable[[Item], Mapping[str, Any]],
    *,
    progress: bool = False,
    title: str = "",
    shown: str = "loss",
    together: Callable[[Item], Hashable] = lambda _: None,
) -> list[dict[str, Any]]:
    """Measure all items except those that an interrupted run already measured.

    Args:
      workdir: the run's folder; rows are appended to its ``metrics.jsonl``.
      items: the items to measure, in order.
      measure: measures one item; returns numbers by name.
      progress: show a progress bar on standard error.
      title: text next to the bar.
      shown: name of the number shown next to the bar.
      together: items with one value of it share what was computed for the first, such
        as a trained model, so one process measures all of them. By default each item
        stands alone.

    Returns:
      One row per item: ``"step"``, from 1, and its numbers.

    Raises:
      OSError: if the log cannot be read or written.
      ValueError: if a line of the log is damaged; names file and line. A last line that
        was cut short is measured again.
      train_scripts.running.machines.Done: in other processes than the first.
    """
    total = len(items)
    # Before the log is opened for writing, which would mend what must be an error here.
    done = len(read_rows(workdir))
    steps = range(done + 1, total + 1)
    found = Shared(workdir / "rows", lambda step: dict(measure(items[step - 1])))
    groups: dict[Hashable, list[int]] = {}
    for step in steps:
        shared = together(items[step - 1])
        groups.setdefault(step if shared is None else (shared,), []).append(step)
    machines.deal(list(groups.values()), lambda group: list(map(found.store, group)))
    with RunLog(workdir, total, done, show=progress, title=title, shown=shown) as log:
        for step in steps:
            log.write({"step": step, **found(step)})
    found.forget()
    return log.rows


class Shared(Generic[Value]):
    """Values by number, some of which other processes have stored."""

    def __init__(self, folder: Path, compute: Callable[[int], Value]):
        """Name the folder.

        Args:
          folder: where they are stored.
          compute: the value of a number, made of what JSON can hold.
        """
        self._folder, self._compute = folder, compute

    def __call__(self, number: int) -> Value:
        """Read a value where it is stored, or compute it."""
        stored = read_rows(self._folder / str(number))
        return stored[0]["value"] if stored else self._compute(number)

    def store(self, number: int) -> None:
        """Compute and store a value unless it is stored.

        Args:
          number: of the value.
        """
        path = self._folder / str(number)
        if not read_rows(path):
            value = self._compute(number)
            path.mkdir(parents=True, exist_ok=True)
            # A log of one row, in which numbers need not be finite.
            with RunLog(path, 1, show=False, alone=True) as log:
                log.write({"step": 1, "value": value})

    def forget(self) -> None:
        """Remove what is stored, once it is elsewhere."""
        shutil.rmtree(self._folder, ignore_errors=True)
