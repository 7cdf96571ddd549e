"""Command line: ``python -m train_scripts COMMAND``."""

import importlib
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

USAGE = """\
usage: python -m train_scripts COMMAND

  list                                  the ten systems, and what of their data is here
  assets [NAME ...]                     fetch data and weights into the cache
  run SYSTEM [PRESET] [--field value]   run one system (--help lists its fields)
  demo [PRESET]                         run every system, then write the report
  report                                write runs/report.html
  doctor                                versions, devices, and what is missing

Runs are written to runs/, or to the folder that --runs names.

  python -m train_scripts.chat          talk to a language model
  python -m train_scripts.finetune      train LoRA on prompts and answers"""

# What a user can mend: shown as one message, without a traceback.
MENDABLE = (ValueError, TypeError, OSError, ImportError, FloatingPointError)
_HELP = {"-h", "--help"}


class _WordsError(ValueError):
    """The command line itself is wrong."""


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
      arguments: the words after ``python -m train_scripts``.

    Returns:
      Exit status: 0 done, 1 failed, 2 the words are wrong.
    """
    try:
        words, runs = _take_runs(list(arguments))
    except _WordsError as error:
        return _fail(str(error), 2)
    command, rest = (words[0], words[1:]) if words else ("help", [])
    if command in {"help", *_HELP} or _HELP & set(rest[:1]):
        print(USAGE)
        return 0
    commands: dict[str, Callable[[list[str], Path], int]] = {
        "list": _list,
        "assets": _assets,
        "run": _run,
        "demo": _demo,
        "report": _report,
        "doctor": _doctor,
    }
    if command not in commands:
        known = ", ".join(commands)
        return _fail(f"COMMAND: expected one of {known}, got {command!r}", 2)
    try:
        return commands[command](rest, runs)
    except MENDABLE as error:
        return _fail(str(error), 2 if isinstance(error, _WordsError) else 1)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on from here", 130)


def _fail(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


def _take_runs(words: list[str]) -> tuple[list[str], Path]:
    """Take ``--runs FOLDER`` or ``--runs=FOLDER`` out of the words."""
    for place, word in enumerate(words):
        name, equals, folder = word.partition("=")
        if name == "--runs":
            after = place + 1 if equals else place + 2
            folder = folder or "".join(words[place + 1 : after])
            if not folder or folder.startswith("-"):
                came = repr(folder) if folder else "nothing"
                raise _WordsError(f"--runs: expected a folder behind it, got {came}")
            return words[:place] + words[after:], Path(folder)
    return words, Path("runs")


def _list(words: list[str], runs: Path) -> int:
    from train_scripts import listing

    _no_more(words)
    listing.show(_console())
    return 0


def _doctor(words: list[str], runs: Path) -> int:
    from train_scripts import doctor

    _no_more(words)
    return doctor.show(_console())


def _console() -> Any:
    from rich.console import Console

    return Console()


def _no_more(words: list[str]) -> None:
    if words:
        raise _WordsError(f"expected no further words, got {' '.join(words)!r}")


def _assets(words: list[str], runs: Path) -> int:
    from jeff import assets
    from train_scripts.systems import RUNTIME_ASSETS, SYSTEMS

    ready = {
        name
        for system in SYSTEMS.values()
        if system.state == "ready"
        for name in system.assets
    }
    wanted = words or sorted(ready.union(RUNTIME_ASSETS))
    unknown = [name for name in wanted if name not in assets.ASSETS]
    if unknown:
        raise _WordsError(
            f"NAME: expected some of {sorted(assets.ASSETS)}, got {unknown}"
        )
    found = assets.bring(wanted, progress=lambda wheel: print(f"fetching {wheel}"))
    for name, path in found.items():
        print(f"{name}: {path}")
    return 0


def _run(words: list[str], runs: Path) -> int:
    if not words:
        known = ", ".join(_ready())
        raise _WordsError(f"SYSTEM: expected one of {known}, got nothing")
    name, rest = words[0], words[1:]
    presets = _presets(name)
    given = {word.partition("=")[0] for word in rest}
    # Data of one's own have a preset of their own; another may still be named.
    preset = "file" if "--data" in given and "file" in presets else "demo"
    if rest and not rest[0].startswith("-"):
        preset, rest = rest[0], rest[1:]
    if preset not in presets:
        known = ", ".join(sorted(presets))
        raise _WordsError(f"PRESET: expected one of {known}, got {preset!r}")
    return _execute(name, preset, _configure(name, presets[preset], rest), rest, runs)


def _demo(words: list[str], runs: Path) -> int:
    if len(words) > 1:
        raise _WordsError(f"expected at most one PRESET, got {' '.join(words)!r}")
    preset = words[0] if words else "demo"
    chosen = {}
    for name in _ready():
        presets = _presets(name)
        if preset not in presets:
            known = ", ".join(sorted(presets))
            raise _WordsError(f"PRESET: {name} has {known}; got {preset!r}")
        chosen[name] = presets[preset]
    status = 0
    for name, config in chosen.items():
        try:
            _execute(name, preset, config, [], runs)
        except MENDABLE as error:  # the others run all the same
            status = _fail(f"{name}: {error}", 1)
    _report([], runs)
    return status


def _report(words: list[str], runs: Path) -> int:
    from train_scripts import report

    _no_more(words)
    print(f"report: {report.build(runs)}")
    return 0


def _ready() -> list[str]:
    from train_scripts.systems import SYSTEMS

    return [name for name, system in SYSTEMS.items() if system.state == "ready"]


def _presets(name: str) -> dict[str, Any]:
    from train_scripts.systems import SYSTEMS

    if name in SYSTEMS and SYSTEMS[name].state != "ready":
        raise _WordsError(
            f"SYSTEM: {name} is planned and not built yet; ready: {', '.join(_ready())}"
        )
    if name not in SYSTEMS:
        known = ", ".join(_ready())
        raise _WordsError(f"SYSTEM: expected one of {known}, got {name!r}")
    return importlib.import_module(f"configs.{name}").PRESETS


def _configure(name: str, default: Any, words: list[str]) -> Any:
    import tyro

    return tyro.cli(
        type(default),
        default=default,
        args=words,
        prog=f"python -m train_scripts run {name} PRESET",
    )


def _execute(name: str, preset: str, config: Any, words: list[str], runs: Path) -> int:
    from train_scripts.running.workdir import open_workdir
    from train_scripts.systems import SYSTEMS

    use_compilation_cache()
    script = importlib.import_module(f"{SYSTEMS[name].script}.run")
    command = shlex.join(["python", "-m", "train_scripts", "run", name, preset, *words])
    with open_workdir(runs, name, preset, config, command) as (workdir, resumed):
        print(f"{'resuming' if resumed else 'running'} {name} {preset} in {workdir}")
        result = script.run(config, workdir, preset=preset)
    for claim in result.claims:
        mark = "holds" if claim.holds else "does not hold"
        print(
            f"  [{mark}] {claim.claim}\n      {claim.measured} (paper: {claim.paper})"
        )
    print(f"{name}: {result.seconds:.1f} s on {result.device}; {workdir}/result.json")
    return 0


def use_compilation_cache() -> None:
    """Keep compiled programs beside the assets, for the next process."""
    import jax

    from jeff.assets import cache_dir

    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
