"""Kill the scripts at random moments, let them finish, and compare with a whole run.

usage: kills.py FOLDER [--systems NAME ...] [--kills N] [--seed N]

A row of JSON for each command: how often it was killed, whether each start went on in
the folder of the one before, what differs from the run that nobody disturbed, and what
is left over. Everything in the folder of a run is compared but times.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from mutated_models import model_folder

from jeff import files
from train_scripts.systems import SYSTEMS

ROOT = Path(__file__).parents[2]
# Fields whose values are times or depend on them, or name this machine or folder.
TIMES = re.compile(
    r"(\w+_)?(milliseconds|seconds|speedup)(_\w+)?|device|versions|seal|workdir"
)
# Claims about times, and files that hold no results.
TIMED_CLAIMS = ("100 levels cost at most",)
UNCOMPARED = {"lock", "answers.db", "_CHECKPOINT_METADATA", "commit_success.txt"}


class Command(NamedTuple):
    """A command that writes a folder of its own below the folder of all runs.

    Attributes:
      words: arguments of Python for a folder of all runs.
      server: the endpoint that it asks, if any.
    """

    words: Callable[[Path], list[str]]
    server: "Endpoint | None" = None


class Endpoint(ThreadingHTTPServer):
    """A model over loopback; ``asked`` has the prompts in their order."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked: list[str] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: whoever asked was killed."""


class _Answer(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = json.dumps(body["messages"])
        self.server.asked.append(prompt)
        time.sleep(0.1)  # so that kills find requests in flight
        score = len(prompt) % 100 / 100
        said = json.dumps({"reason": "so", "anomaly_score": score})
        choice = {"index": 0, "message": {"role": "assistant", "content": said}}
        reply = {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice | {"finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
        }
        content = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def of_system(name: str) -> Command:
    def words(runs: Path) -> list[str]:
        return ["-m", "train_scripts", "run", name, "smoke", "--runs", str(runs)]

    return Command(words)


def of_finetune(folder: Path) -> Command:
    """Fine-tuning of a tiny random model, whose tokens are capital letters."""
    model = model_folder(folder / "model")
    data = folder / "data.jsonl"
    rows = [{"prompt": chr(65 + n), "answer": chr(66 + n) * 3} for n in range(20)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ["--num-epochs", "1000", "--batch-size", "2", "--max-tokens", "32"]

    def words(runs: Path) -> list[str]:
        own = ["--data", str(data), "--model", str(model)]
        own += ["--workdir", str(runs / "finetune" / "run")]
        return ["-m", "train_scripts.finetune", *own, *settings]

    return Command(words)


def of_endpoint(folder: Path, server: Endpoint) -> Command:
    """Scores of new texts, each also by a model that costs money."""
    normal = [f"see you at {n} for tea {n * n}\n" for n in range(80)]
    new = [f"the letter {n} came at {n + 7}\n" for n in range(150)]
    (folder / "normal.txt").write_text("".join(normal))
    (folder / "new.txt").write_text("".join(new))

    def words(runs: Path) -> list[str]:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        own = ["--data", str(folder / "normal.txt"), "--score", str(folder / "new.txt")]
        own += ["--chat", url, "--chat-model", "m", "--prices", "1", "2"]
        own += ["--views", "characters", "--level", "0.2", "--runs", str(runs)]
        return ["-m", "train_scripts", "run", "anomaly", *own]

    return Command(words, server)


class Start(NamedTuple):
    """One start of a command.

    Attributes:
      code: its exit status; that of a kill is negative.
      seconds: from its folder or first output to its end.
      said: the end of what it printed.
    """

    code: int
    seconds: float
    said: str


def start(
    command: Command, runs: Path, log: Path, kill_after: float | None = None
) -> Start:
    """Run a command, or kill it so many seconds after its first sign of life."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        environment.pop(name, None)
    new = not run_folders(runs)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *command.words(runs)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=ROOT,
        )
    # Until then it only imports.
    while process.poll() is None and not log.stat().st_size:
        if new and run_folders(runs):
            break
        time.sleep(0.005)
    began = time.perf_counter()
    try:
        process.wait(kill_after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    seconds = time.perf_counter() - began
    said = log.read_text(errors="replace")[-2000:]
    return Start(process.returncode, seconds, said)


def run_folders(runs: Path) -> list[Path]:
    return sorted(path for path in runs.glob("*/*") if path.is_dir())


def names(run: Path) -> set[str]:
    """Names below the folder of a run, but for those that orbax draws at random."""
    found = {str(path.relative_to(run)) for path in run.rglob("*")}
    return {name for name in found if "/leaves/" not in name}


def content(path: Path) -> Any:
    """The content of a file without its times."""
    if path.suffix == ".json" or path.name == "metadata":
        return without_times(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [without_times(json.loads(row)) for row in path.read_text().splitlines()]
    return files.digest(path)


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        if str(value.get("claim", "")).startswith(TIMED_CLAIMS):
            value = value | {"measured": ""}
        return {
            name: without_times(part)
            for name, part in value.items()
            if not TIMES.fullmatch(name)
        }
    return [without_times(part) for part in value] if isinstance(value, list) else value


def differences(run: Path, whole: Path) -> list[str]:
    """Files that both have, and whose contents differ."""
    return sorted(
        name
        for name in names(run) & names(whole)
        if (run / name).is_file()
        and (run / name).name not in UNCOMPARED
        and content(run / name) != content(whole / name)
    )


def stored_answers(runs: Path) -> int:
    """Count them in a copy: to open a database mends what a kill has left."""
    found = 0
    for path in runs.glob("*/*/answers.db"):
        with tempfile.TemporaryDirectory() as copies:
            for each in path.parent.glob("answers.db*"):
                shutil.copy(each, copies)
            database = sqlite3.connect(Path(copies) / path.name)
            # Without a table it was killed early.
            with closing(database), suppress(sqlite3.Error):
                found += database.execute("SELECT COUNT(*) FROM answers").fetchone()[0]
    return found


def disturb(
    command: Command, folder: Path, length: float, kills: int, rng: random.Random
) -> dict[str, Any]:
    """Kill a command so often, then let it finish."""
    runs = folder / "killed"
    asked = command.server.asked if command.server else []
    starts, killed, resumed, twice, spent = 0, 0, 0, 0, 0.0
    while True:
        starts += 1
        before = run_folders(runs)
        stored, first = stored_answers(runs), len(asked)
        moment = rng.uniform(0, max(length - spent, length / 5)) * 0.9
        log = folder / f"killed{killed}.log"
        done = start(command, runs, log, moment if killed < kills else None)
        twice += len(asked) - first > len(set(asked)) - stored
        resumed += bool(before) and run_folders(runs) == before
        if done.code != -signal.SIGKILL:
            break
        killed, spent = killed + 1, spent + done.seconds
        if list(runs.glob("*/*/result.json")):  # killed after its last word
            done = done._replace(code=0)
            break
    return {
        "starts": starts,
        "kills": killed,
        "resumed": resumed,
        "code": done.code,
        "said": done.said if done.code else "",
        "asked_twice": twice,
    }


def row(name: str, command: Command, folder: Path, kills: int, seed: int) -> Any:
    folder.mkdir(parents=True)
    whole = start(command, folder / "whole", folder / "whole.log")
    found: dict[str, Any] = {"name": name, "seconds": round(whole.seconds, 1)}
    if whole.code:
        return found | {"code": whole.code, "said": whole.said}
    rng = random.Random(f"{seed} {name}")
    length = whole.seconds
    found |= disturb(command, folder, length, kills, rng)
    while kills and not found["kills"]:  # the machine is faster than before
        shutil.rmtree(folder / "killed")
        length /= 2
        found |= disturb(command, folder, length, kills, rng)
    if found["code"]:
        return found
    (unbroken,), runs = run_folders(folder / "whole"), run_folders(folder / "killed")
    return found | {
        "folders": len(runs),
        "differ": differences(runs[-1], unbroken),
        "missing": sorted(names(unbroken) - names(runs[-1])),
        "left": sorted(names(runs[-1]) - names(unbroken)),
    }


@contextmanager
def commands(folder: Path) -> Iterator[dict[str, Command]]:
    folder.mkdir(parents=True, exist_ok=True)
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        found = {name: of_system(name) for name in SYSTEMS}
        found["finetune"] = of_finetune(folder)
        found["endpoint"] = of_endpoint(folder, server)
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--systems", nargs="+")
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with commands(chosen.folder / "data") as known:
        for name in chosen.systems or known:
            found = row(
                name, known[name], chosen.folder / name, chosen.kills, chosen.seed
            )
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
