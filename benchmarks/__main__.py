"""All benchmarks, and one table of what they say.

``python -m benchmarks`` runs what this machine can, one process after the other, and
prints the table of its records. ``--recorded`` prints the table of all records that
are here, of every device, and measures nothing; ``--page`` writes it, and a chart, into
the documentation.
"""

import dataclasses
import importlib.metadata
import subprocess
import sys
import time
from pathlib import Path

import tyro

from benchmarks import records
from benchmarks.comparisons import table
from benchmarks.readings import READINGS, read

__all__ = ["Config", "main", "runnable"]

# Packages that a benchmark cannot do without, its peers, as pip calls them.
NEEDS = {
    "yodo": ("torch",),
    "gre": ("torch",),
    "gre_accuracy": ("torch",),
    "wds": ("geosketch",),
    "kv": ("torch", "transformers", "optimum-quanto"),
    "kv_gpu": (),
    "decoder": ("torch", "transformers", "peft"),
    "laptop": (),
    "long_context": ("torch", "transformers"),
    "routing": ("scikit-learn",),
    "reasoning": ("torch", "transformers"),
    "reasoning_votes": (),
    "genes": ("hpo3",),
    "anomaly": ("pyod", "scikit-learn"),
    "serving": ("openai", "transformers", "uvicorn"),
    "checkpoint": (),
}
_PAGE = Path(__file__).parents[1] / "docs" / "results" / "benchmarks.md"


@dataclasses.dataclass(frozen=True)
class Config:
    """Which benchmarks."""

    # Modules to run; all that this machine can by default.
    only: tuple[str, ...] = ()
    # Print the table of the records that are here, and run nothing.
    recorded: bool = False
    # Write the table and its chart into the documentation.
    page: bool = False

    def __post_init__(self):
        """Check the names."""
        unknown = sorted(set(self.only) - set(NEEDS))
        if unknown:
            raise ValueError(f"only: expected some of {sorted(NEEDS)}, got {unknown}")


def runnable(name: str) -> str:
    """Why a benchmark cannot run here.

    Args:
      name: its module.

    Returns:
      The reason, empty where there is none.
    """
    import jax

    lacking = [each for each in NEEDS[name] if not _is_here(each)]
    if lacking:
        return f"needs {', '.join(lacking)}"
    on_gpu = jax.default_backend() == "gpu"
    if name == "kv_gpu" and not on_gpu:
        return "needs a GPU"
    return "kv_gpu takes its place" if name == "kv" and on_gpu else ""


def _is_here(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def run(names: tuple[str, ...]) -> dict[str, str]:
    """Run benchmarks, each in a process of its own.

    Args:
      names: their modules.

    Returns:
      What did not run, and why.
    """
    failed = {}
    for name in names:
        reason = runnable(name)
        if reason:
            print(f"{name}: left out, {reason}", flush=True)
            failed[name] = reason
            continue
        print(f"{name}: running", flush=True)
        began = time.perf_counter()
        status = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}"], check=False
        ).returncode
        seconds = time.perf_counter() - began
        print(f"{name}: {seconds:.0f} s, status {status}", flush=True)
        if status:
            failed[name] = f"ended with status {status}"
    return failed


def main(config: Config) -> int:
    """Run, print, write.

    Args:
      config: which benchmarks.

    Returns:
      Exit status: 1 if a benchmark failed.
    """
    failed: dict[str, str] = {}
    device = None
    if not config.recorded:
        from train_scripts.running import results

        device = results.device_name()
        failed = run(config.only or tuple(NEEDS))
    found = [
        (name, record["device"], read(name, record))
        for name, record in records.load()
        if name in READINGS
        and (not config.only or name in config.only)
        and (config.recorded or (record["device"] == device and name not in failed))
    ]
    print(table(found))
    for name, reason in failed.items():
        print(f"{name}: not in the table: {reason}")
    if config.page:
        from benchmarks import page

        page.write(_PAGE, found)
    return int(any(reason.startswith("ended") for reason in failed.values()))


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Config)))
