"""Damage files of every format, and see that each is refused by name or read rightly.

usage: mutate.py [--cases N] [--seed N] [--only FORMAT] [--table FILE] [--show OUTCOME]

Each case runs in a process of a pool, with 2 GiB of memory beyond what the process had
and 20 seconds. A case is named by format and number, and gives the same damage each
time. Its outcome is one of:

  same      the file still says the same
  other     it says something else, which it may
  refused   a ValueError or OSError names the file
  unnamed   another error, or one that does not name the file
  wrong     numbers were handed over that the file does not hold or that are none
  crash, hang, memory

A reader registers here by a `Format` in one of the modules ``mutated_*``.
"""

import argparse
import collections
import dataclasses
import hashlib
import importlib.util
import json
import os
import queue
import random
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

SECONDS, BYTES = 20.0, 2 << 30
FAULTS = ("unnamed", "wrong", "crash", "hang", "memory")


class Format(NamedTuple):
    """A kind of file, or of folder, that jeff reads.

    Attributes:
      name: its name in the table.
      file: name of the file or folder.
      make: writes a good one at a path, and gives the path.
      read: reads it, as a user would.
      check: raises AssertionError where what was read cannot be right.
      whole: whether any other content than the good one must be refused.
      weight: share of the cases.
      needs: package without which the format is left out.
    """

    name: str
    file: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    check: Callable[[Path, Any], None] = lambda path, found: None
    whole: bool = False
    weight: int = 1
    needs: str = ""


def fingerprint(value: Any) -> str:
    """A text that is equal for equal results."""
    import numpy as np

    if hasattr(value, "shape") and hasattr(value, "dtype"):
        array = np.asarray(value)
        digest = hashlib.sha256(array.tobytes()).hexdigest()
        return f"{array.dtype}{array.shape}{digest}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return f"{{{','.join(f'{k}:{fingerprint(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(fingerprint, value))}]"
    return repr(value)


class Worker:
    """Makes each format once, then damages and reads copies of it."""

    def __init__(self, folder: Path):
        import mutated_data
        import mutated_genes
        import mutated_lines
        import mutated_models
        import mutated_requests
        import mutated_runs

        every = (
            mutated_data,
            mutated_genes,
            mutated_lines,
            mutated_models,
            mutated_requests,
            mutated_runs,
        )
        formats = [form for module in every for form in module.FORMATS]
        self.formats = {
            form.name: form
            for form in formats
            if not form.needs or importlib.util.find_spec(form.needs)
        }
        self.folder, self.clean = folder, {}

    def prepare(self, name: str) -> None:
        """Write the good file, and read it: programs and threads exist from then on."""
        form = self.formats[name]
        folder = self.folder / hashlib.sha256(name.encode()).hexdigest()[:8]
        folder.mkdir()
        path = form.make(folder / form.file)
        found = form.read(path)
        form.check(path, found)
        self.clean[name] = folder, fingerprint(found)

    def run(self, name: str, number: int) -> dict[str, str]:
        """Run one case."""
        from mutations import mutate

        form = self.formats[name]
        if name not in self.clean:
            _limit_memory(None)
            self.prepare(name)
        origin, wanted = self.clean[name]
        folder = self.folder / "case"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(origin, folder)
        path, rng = folder / form.file, random.Random(f"{name} {number}")
        target = path
        if path.is_dir():
            target = rng.choice(sorted(p for p in path.rglob("*") if p.is_file()))
        how = mutate(target, rng)
        _limit_memory(BYTES)
        outcome, said = self._outcome(form, path, target, wanted)
        return {"outcome": outcome, "said": said[:400], "how": how, "file": target.name}

    def _outcome(
        self, form: Format, path: Path, target: Path, wanted: str
    ) -> tuple[str, str]:
        try:
            found = form.read(path)
        except MemoryError as error:
            return "memory", repr(error)
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
            if "MemoryError" in said or "llocate" in said:
                return "memory", said
            named = any(part in said for part in (str(path), target.name))
            fits = isinstance(error, ValueError | OSError) and named
            where = "" if fits else traceback.format_exc(limit=-2)
            return ("refused" if fits else "unnamed"), said + where
        try:
            form.check(path, found)
            if fingerprint(found) == wanted:
                return "same", ""
            return ("wrong", "other content") if form.whole else ("other", "")
        except Exception:
            return "wrong", traceback.format_exc(limit=-1)


def _limit_memory(more: int | None) -> None:
    """Limit the process to what it has now and so many bytes more."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = hard
    if more is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        soft = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def serve(channel: int) -> None:
    """The loop of a process of the pool: a case a line in, its outcome a line out."""
    with (
        tempfile.TemporaryDirectory(prefix="mutate-") as folder,
        os.fdopen(channel, "w", buffering=1) as out,
    ):
        worker = Worker(Path(folder))
        out.write(
            json.dumps(sorted((f.name, f.weight) for f in worker.formats.values()))
            + "\n"
        )
        for line in sys.stdin:
            name, number = json.loads(line)
            out.write(json.dumps(worker.run(name, number)) + "\n")


class Process:
    """A process of the pool, started again after a crash or a hang."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start, and wait until every reader is imported."""
        read, write = os.pipe()
        root = os.environ.get("PYTHONPATH") or str(Path(__file__).parents[2])
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
        self.child = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, "--channel", str(write)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[write],
            env=environment,
            text=True,
        )
        os.close(write)
        self.out = os.fdopen(read)
        self.formats = json.loads(self.out.readline())

    def run(self, name: str, number: int) -> dict[str, str]:
        """Run a case; a process that dies or says nothing is replaced."""
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps([name, number]) + "\n")
        self.child.stdin.flush()
        ready, _, _ = select.select([self.out], [], [], SECONDS)
        line = self.out.readline() if ready else ""
        if line:
            return json.loads(line)
        outcome = "crash" if ready else "hang"
        self.stop()
        said = f"exit {self.child.returncode}" if ready else f"over {SECONDS:g} s"
        self.start()
        return {"outcome": outcome, "said": said, "how": "?", "file": "?"}

    def stop(self) -> None:
        """End it."""
        self.child.kill()
        self.child.wait()
        self.out.close()


def run(cases: int, seed: int = 0, only: str = "", processes: int = 2) -> list[dict]:
    """Run many cases.

    Args:
      cases: how many; shared between the formats by their weights.
      seed: of their numbers.
      only: part of the names of the formats; empty for all.
      processes: how many at a time.

    Returns:
      One row per case: format, number, outcome, what was said, how it was damaged.
    """
    pool = [Process() for _ in range(processes)]
    every = [
        name for name, weight in pool[0].formats for _ in range(weight) if only in name
    ]
    if not every:
        raise SystemExit(f"--only: expected a part of a format's name, got {only!r}")
    rng = random.Random(seed)
    todo: queue.Queue = queue.Queue()
    # Case by case in the order of the formats, so that few cases cover all of them.
    for number in range(cases):
        todo.put((every[number % len(every)], rng.randrange(10**9)))
    rows: list[dict] = []

    def work(process: Process) -> None:
        while True:
            try:
                name, number = todo.get_nowait()
            except queue.Empty:
                return process.stop()
            rows.append({"format": name, "number": number, **process.run(name, number)})

    threads = [threading.Thread(target=work, args=(process,)) for process in pool]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return rows


def table(rows: list[dict]) -> str:
    """Outcomes by format, in Markdown."""
    heads = ("same", "other", "refused", *FAULTS)
    counts: dict[str, collections.Counter] = collections.defaultdict(
        collections.Counter
    )
    for row in rows:
        counts[row["format"]][row["outcome"]] += 1
        counts["all"][row["outcome"]] += 1
    lines = [
        f"| format | cases | {' | '.join(heads)} |",
        "|---" * (len(heads) + 2) + "|",
    ]
    for name in [*sorted(set(counts) - {"all"}), "all"]:
        found = counts[name]
        cells = " | ".join(str(found[head]) for head in heads)
        lines.append(f"| {name} | {found.total()} | {cells} |")
    return "\n".join(lines)


def main() -> int:
    """Run the command line.

    Returns:
      1 if there was a fault, else 0.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--show", default=",".join(FAULTS))
    parser.add_argument("--channel", type=int, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.channel is not None:
        serve(words.channel)
        return 0
    rows = run(words.cases, words.seed, words.only)
    for row in sorted(rows, key=lambda row: (row["outcome"], row["format"])):
        if row["outcome"] in words.show.split(","):
            print(json.dumps(row))
    print(table(rows))
    if words.table:
        words.table.write_text(table(rows) + "\n")
    return int(any(row["outcome"] in FAULTS for row in rows))


if __name__ == "__main__":
    # The formats import this module by its name, not a second time as a program.
    sys.modules["mutate"] = sys.modules["__main__"]
    sys.exit(main())
