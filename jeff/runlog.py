"""The log of a run: one row per chunk in ``metrics.jsonl``, and a progress bar.

Each row is appended immediately. A run that resumes from a checkpoint first drops the
rows after the checkpoint, so the file equals that of an uninterrupted run. Of a run
with checkpoints these are the truth, and a damaged log is mended with a warning; of a
run without them the log itself is the truth, and damage to it is an error.
"""

import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jeff import files

__all__ = ["LastRow", "RunLog", "read_rows"]

FILE_NAME = "metrics.jsonl"

Row = dict[str, Any]


class LastRow(NamedTuple):
    """What a checkpoint knows of the log: its last row, and how many there are.

    Attributes:
      row: the row of the checkpoint's step.
      count: number of rows up to it.
    """

    row: Row
    count: int


class RunLog:
    """Rows of numbers by step, in memory, on disk and in a progress bar.

    Invariant: ``rows`` equals the content of the file, if there is one.
    """

    def __init__(
        self,
        workdir: str | Path | None,
        total: int,
        start: int = 0,
        *,
        last: LastRow | None = None,
        show: bool = True,
        title: str = "",
        shown: str = "loss",
        alone: bool = False,
    ):
        """Open the log, dropping rows past ``start`` and mending what is damaged.

        Args:
          workdir: folder of ``metrics.jsonl``; None writes no file.
          total: number of steps of the whole run.
          start: number of steps already done.
          last: the row of ``start``, to put it back where the file lost it.
          show: show a progress bar on standard error.
          title: text next to the bar.
          shown: name of the number next to the bar; a row without it shows a dash.
          alone: of several processes this one has the folder for itself; otherwise the
            first of them writes for all.

        Raises:
          OSError: if the file cannot be read or written.
          ValueError: if the row of ``start`` is lost and not given.
        """
        # Only one process writes; lines of several would be interleaved.
        first_process = alone or jax.process_index() == 0
        self.rows: list[Row] = []
        self._total, self._start, self._title = total, start, title
        self._shown = shown
        self._show = show and first_process
        self._path = Path(workdir) / FILE_NAME if workdir else None
        if self._path and first_process:
            self.rows = _mended(self._path, start, last)
            text = "".join(json.dumps(row) + "\n" for row in self.rows)
            files.write_text(self._path, text)
        elif self._path:
            self._path = None
        self._bar: Any = None

    def write(self, row: Row) -> None:
        """Append one row.

        Args:
          row: numbers by name, ``"step"`` among them.

        Raises:
          OSError: if it cannot be written, for example on a full disk.
        """
        self.rows.append(row)
        if self._path:
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            except OSError as error:
                raise OSError(
                    error.errno or 0,
                    f"{self._path}: the row of step {row['step']} could not be written "
                    f"({error.strerror}); make room, then give the same command again",
                ) from error
        if self._bar:
            value = f"{row[self._shown]:.4f}" if self._shown in row else "-"
            self._bar.update(self._bar.task_ids[0], completed=row["step"], value=value)

    def __enter__(self) -> "RunLog":
        """Start the bar."""
        if self._show:
            from rich import progress
            from rich.console import Console

            console = Console(stderr=True)
            if console.is_jupyter and importlib.util.find_spec("ipywidgets") is None:
                # Rich would warn at each refresh; so the bar is printed at its end.
                console = Console(
                    stderr=True, force_jupyter=False, force_terminal=False
                )
            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn(f"{self._shown} {{task.fields[value]}}"),
                progress.TimeRemainingColumn(),
                console=console,
            )
            self._bar.start()
            self._bar.add_task(
                self._title, total=self._total, completed=self._start, value="-"
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the bar."""
        if self._bar:
            self._bar.stop()


def read_rows(workdir: str | Path) -> list[Row]:
    """Read the log of a run that measures step by step: 1, 2, 3 and so on.

    Args:
      workdir: folder of ``metrics.jsonl``, which may be missing.

    Returns:
      The rows. A last line that is cut short, as by a kill, is left out.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if a line before the last is damaged, or a step is missing or stands
        twice; names file and line.
    """
    path = Path(workdir) / FILE_NAME
    rows, faults = _read(path)
    faults += [
        f"{path}:{line}: expected step {step}, got {row['step']}"
        for step, (line, row) in enumerate(rows, start=1)
        if row["step"] != step
    ]
    if faults:
        raise ValueError(
            f"{faults[0]}; this file holds what was measured: restore it, or delete "
            "the lines from this one on, and they are measured again"
        )
    return [row for _, row in rows]


def _read(path: Path) -> tuple[list[tuple[int, Row]], list[str]]:
    """Rows with their line numbers, and what is wrong with the other lines."""
    rows: list[tuple[int, Row]] = []
    faults = []
    # Not as one text: a bad byte spoils its own line only.
    lines = path.read_bytes().splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line.decode("utf-8"))
            if not isinstance(row, dict) or type(row.get("step")) is not int:
                raise ValueError('no object with a whole "step"')
        except (ValueError, RecursionError) as error:
            # A kill cuts the last line short, which is no damage.
            if number < len(lines):
                faults.append(f"{path}:{number}: expected a row of the log ({error})")
        else:
            rows.append((number, row))
    return rows, faults


def _mended(path: Path, start: int, last: LastRow | None) -> list[Row]:
    """The rows up to ``start``, of which the last is there or an error."""
    found, faults = _read(path)
    rows: list[Row] = []
    for line, row in found:
        if row["step"] > start:
            continue
        if rows and row["step"] <= rows[-1]["step"]:
            faults.append(f"{path}:{line}: step {row['step']} stands there again")
        else:
            rows.append(row)
    if last and (not rows or rows[-1] != last.row):
        if rows and rows[-1]["step"] == start:
            rows.pop()
        rows.append(last.row)
    elif start and not last and (not rows or rows[-1]["step"] != start):
        end = rows[-1]["step"] if rows else 0
        raise ValueError(
            f"{path}: expected the row of step {start}, at which the checkpoint is, "
            f"but the rows end at step {end}; restore the file, or delete "
            f"{path.parent} and train again"
        )
    if last and len(rows) != last.count:
        faults.append(
            f"{path}: expected {last.count} rows up to step {start}, found {len(rows)}"
        )
    if faults:
        warnings.warn(
            "; ".join(faults[:5]) + "; the log is mended to the checkpoint, and what "
            "is not known stays out of the history",
            stacklevel=3,
        )
    return rows
