"""The log of a run: one row per chunk in ``metrics.jsonl``, and a progress bar.

Each row is appended immediately. A run that resumes from a checkpoint first drops the
rows after the checkpoint, so the file equals that of an uninterrupted run.
"""

import json
from pathlib import Path
from typing import Any

import jax

from jeff import files

__all__ = ["RunLog"]


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
        show: bool = True,
        title: str = "",
        shown: str = "loss",
    ):
        """Open the log, dropping rows past ``start``.

        Args:
          workdir: folder of ``metrics.jsonl``; None writes no file.
          total: number of steps of the whole run.
          start: number of steps already done.
          show: show a progress bar on standard error.
          title: text next to the bar.
          shown: name of the number next to the bar; a row without it shows a dash.
        """
        # Only one process writes; lines of several would be interleaved.
        first_process = jax.process_index() == 0
        self.rows: list[dict[str, int | float]] = []
        self._total, self._start, self._title = total, start, title
        self._shown = shown
        self._show = show and first_process
        self._path = Path(workdir) / "metrics.jsonl" if workdir else None
        if self._path and first_process:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self.rows = [row for row in _read(self._path) if row["step"] <= start]
            _rewrite(self._path, self.rows)
        elif self._path:
            self._path = None
        self._bar: Any = None

    def write(self, row: dict[str, int | float]) -> None:
        """Append one row.

        Args:
          row: numbers by name, ``"step"`` among them.
        """
        self.rows.append(row)
        if self._path:
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        if self._bar:
            value = f"{row[self._shown]:.4f}" if self._shown in row else "-"
            self._bar.update(self._bar.task_ids[0], completed=row["step"], value=value)

    def __enter__(self) -> "RunLog":
        """Start the bar."""
        if self._show:
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn(f"{self._shown} {{task.fields[value]}}"),
                progress.TimeRemainingColumn(),
                console=Console(stderr=True),
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


def _read(path: Path) -> list[dict[str, int | float]]:
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break  # a line cut short when the run was killed; no valid row follows
    return rows


def _rewrite(path: Path, rows: list[dict[str, int | float]]) -> None:
    files.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
