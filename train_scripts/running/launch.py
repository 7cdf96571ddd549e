"""One run of one system: its folder, its claims, and the words that start it."""

import importlib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train_scripts.systems import SYSTEMS

__all__ = ["execute", "names_own_data", "use_compilation_cache", "words_of"]

# Options that name data of the user's own.
_OWN = {"--data", "--terms", "--detector"}


def execute(
    name: str, preset: str, config: Any, words: Sequence[str], runs: Path
) -> None:
    """Run a system in a folder of its own, and print its claims.

    Args:
      name: key of the system in `SYSTEMS`.
      preset: name of its preset.
      config: its configuration.
      words: the fields that the command line changed.
      runs: folder of all runs; an unfinished run of the same words goes on.
    """
    # Here, so that `run SYSTEM --help` need not wait for JAX.
    from train_scripts.running import claims, machines
    from train_scripts.running.workdir import open_workdir

    use_compilation_cache()
    script = importlib.import_module(f"{SYSTEMS[name].script}.run")
    command = shlex.join(["python", "-m", "train_scripts", "run", name, preset, *words])
    folder = open_workdir(runs, name, preset, config, command)
    with machines.open_together(folder) as (workdir, resumed):
        if machines.first():
            doing = "resuming" if resumed else "running"
            print(f"{doing} {name} {preset} in {workdir}")
        result = script.run(config, workdir, preset=preset)
    for claim in result.claims:
        print(f"  [{claims.mark(claim.holds)}] {claim.claim}")
        print(f"      {claim.measured} (paper: {claim.paper})")
    if preset == "smoke":
        print("  smoke only shows that everything works; its numbers decide nothing")
    elif any(claim.holds is None for claim in result.claims):
        print(f"  too small to tell: {_decider(name, preset, words)}")
    print(f"{name}: {result.seconds:.1f} s on {result.device}; {workdir}/result.json")


def names_own_data(words: Sequence[str]) -> bool:
    """Whether a command line names data of the user's own.

    Args:
      words: the fields of a run.
    """
    return bool(_OWN & {word.partition("=")[0] for word in words})


def words_of(name: str, preset: str, runs: Path) -> list[str]:
    """The words that start a run in a process.

    Args:
      name: key of the system in `SYSTEMS`.
      preset: name of its preset.
      runs: folder of all runs.

    Returns:
      The interpreter and its arguments.
    """
    words = [sys.executable, "-m", "train_scripts", "run", name, preset]
    return [*words, "--runs", str(runs)]


def _decider(name: str, preset: str, words: Sequence[str]) -> str:
    """What would decide the claims that a run was too small for."""
    if preset == "full" or names_own_data(words):
        return "more data or more --seeds decide"
    return f"`python -m train_scripts run {name} full` decides"


def use_compilation_cache() -> None:
    """Cache compiled programs in the asset cache, for later processes.

    A folder that the user has named in ``JAX_COMPILATION_CACHE_DIR`` is left.
    """
    import jax

    from jeff.assets import cache_dir

    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    # JAX skips programs that compile in under a second by default; the scripts compile
    # many of these.
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
