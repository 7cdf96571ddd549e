"""Compare the numbers of scripts on one device and on several.

usage: same_numbers.py [--devices 8 | --processes 2] SYSTEM [OPTION ...]

Runs the smoke preset twice, the second time on forced CPU devices or in processes that
join over loopback, and prints which numbers differ by more than 0.1%. The options are
the script's own, such as ``--seeds 0 1`` to have pieces to share.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPEEDS = ("seconds", "speedup", "milliseconds")


def numbers(folder: Path, system: str) -> dict[str, float]:
    """The metrics of the only run in a folder, without those of speed."""
    (path,) = (folder / system).glob("*/result.json")
    found = json.loads(path.read_text())["metrics"]
    return {n: v for n, v in found.items() if not any(s in n for s in SPEEDS)}


def run(words: list[str], devices: int, more: list[list[str]]) -> None:
    """One process for each list of further words; all must end well."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "train_scripts", "run", *words]
    started = [
        subprocess.Popen(
            [*command, *each], cwd=ROOT, env=os.environ | {"XLA_FLAGS": flags}
        )
        for each in more
    ]
    assert not any([process.wait() for process in started])


def main() -> int:
    """Run twice and compare; 1 where numbers differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("system")
    known, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        one, other = Path(name, "one"), Path(name, "other")
        words = [known.system, "smoke", *options, "--runs"]
        run([*words, str(one)], 1, [[]])
        mesh = [f"--mesh=data={known.devices}"] if known.devices > 1 else []
        more = [mesh]
        if known.processes > 1:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                host = f"127.0.0.1:{probe.getsockname()[1]},{known.processes}"
            more = [
                [*mesh, f"--distributed={host},{number}"]
                for number in range(known.processes)
            ]
        run([*words, str(other)], known.devices, more)
        here, there = numbers(one, known.system), numbers(other, known.system)
    differ = {
        name: (here.get(name), there.get(name))
        for name in here.keys() | there.keys()
        if name not in here
        or name not in there
        or abs(here[name] - there[name]) > 1e-3 * max(abs(here[name]), 1e-6)
    }
    print(f"{known.system}: {len(here)} numbers, {len(differ)} differ: {differ}")
    return bool(differ)


if __name__ == "__main__":
    sys.exit(main())
