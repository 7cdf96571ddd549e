"""The demo: every system, one after the other or several at a time, and the report."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from train_scripts.systems import SYSTEMS

__all__ = ["Ended", "run", "side_by_side"]


class Ended(NamedTuple):
    """How the run of a system ended.

    Attributes:
      name: of the system.
      error: what went wrong; empty if nothing did.
    """

    name: str
    error: str


def run(
    each: Callable[[str], Ended],
    report: Callable[..., Path],
    several: Callable[[Sequence[str]], Iterator[Ended]] | None = None,
) -> int:
    """Run every system, and write the report before the first and after each.

    Args:
      each: runs one system.
      report: writes the report; takes the systems that are pending (``running``) and
        the errors of those that failed (``failed``).
      several: runs systems at the same time, and tells of each when it has ended; None
        runs all by ``each``.

    Returns:
      Exit status: 1 if a system failed, which stops no other.
    """
    # Speeds are measured on an idle machine.
    alone = [name for name in SYSTEMS if several is None or SYSTEMS[name].timed]
    waiting, failed = list(SYSTEMS), {}

    def note(end: Ended) -> None:
        waiting.remove(end.name)
        if end.error:
            failed[end.name] = end.error
            print(f"error: {end.name}: {end.error}", file=sys.stderr)
        report(running=waiting, failed=failed)

    report(running=waiting, failed=failed)
    for name in alone:
        note(each(name))
    if several is not None:
        for end in several([name for name in SYSTEMS if name not in alone]):
            note(end)
    print(f"report: {report(running=(), failed=failed)}")
    return 1 if failed else 0


def side_by_side(commands: dict[str, Sequence[str]], jobs: int) -> Iterator[Ended]:
    """Run several systems at a time, in processes of their own.

    What a process prints is shown when it has ended, so that no two are mixed.

    Args:
      commands: command of each system, in the order in which they begin.
      jobs: processes at a time.

    Yields:
      How each ended, in the order in which they did.
    """
    # A process that takes a whole GPU, as JAX does, leaves nothing to the others.
    shared = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}

    def work(name: str) -> tuple[int, str]:
        print(f"{name}: begun\n", end="", flush=True)
        done = subprocess.run(
            commands[name],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=shared,
        )
        return done.returncode, done.stdout

    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(work, name): name for name in commands}
        try:
            for future in as_completed(futures):
                status, said = future.result()
                print(said, end="", flush=True)
                error = _last(said) or f"status {status}" if status else ""
                yield Ended(futures[future], error)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _last(said: str) -> str:
    """What the last line says, which is the error of a run that failed."""
    lines = said.strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else ""
