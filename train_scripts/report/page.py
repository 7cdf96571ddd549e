"""Report with the newest run of every system, on one self-contained static page.

The page contains its plots, style and script, and escapes every text from a file. Its
content security policy forbids loading anything else. A run that cannot be read is
shown as an error, and the other runs are still shown.
"""

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import jinja2
from markupsafe import Markup
from pydantic import ConfigDict, TypeAdapter

from jeff import files
from train_scripts.report import explorer, plots, reasons
from train_scripts.running import claims, results, schema
from train_scripts.running.schema import Text

__all__ = ["build"]


@dataclasses.dataclass(frozen=True)
class _Config:
    """The contents of ``config.json``."""

    __pydantic_config__: ClassVar[ConfigDict] = schema.STRICT
    command: Text
    config: dict[Text, Any]
    # Of the files that the configuration names; absent from runs of an earlier jeff.
    data: dict[Text, dict[Text, Any]] = dataclasses.field(default_factory=dict)


_CONFIG = TypeAdapter(_Config)
_TEMPLATES = Path(__file__).parent / "templates"
_DEMO = "python -m train_scripts demo"


@dataclasses.dataclass
class Section:
    """The page's section on one system.

    Attributes:
      name: name of the system's folder.
      anchor: id of the section in the page.
      system: the system's entry in the registry, or None if it has none.
      run: name of the run shown, or None if no run could be read.
      result: result of that run.
      command: command that started the run, or None.
      config: configuration of the run as JSON, or None.
      figures: plots of the run.
      slider: the checked ``explorer.json``, or None.
      chart: layout of its curve, or None.
      reasons: the checked ``reasons.json``, or None.
      problems: files that could not be read, one sentence each.
      unfinished: newer runs without a result.
      decides: command of a run large enough to decide the claims, or None.
    """

    name: str
    anchor: str
    system: Any
    run: str | None = None
    result: results.Result | None = None
    command: str | None = None
    config: str | None = None
    figures: list[plots.Figure] = dataclasses.field(default_factory=list)
    slider: dict[str, Any] | None = None
    chart: explorer.Chart | None = None
    reasons: dict[str, Any] | None = None
    problems: list[str] = dataclasses.field(default_factory=list)
    unfinished: list[str] = dataclasses.field(default_factory=list)
    decides: str | None = None


def build(
    runs_dir: Path,
    out: Path | None = None,
    *,
    systems: Mapping[str, Any] | None = None,
    running: Sequence[str] = (),
    failed: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write the report on the newest valid run of every system.

    Args:
      runs_dir: folder of ``<system>/<run>/``; runs are ordered by the date in the name
        of their folder, or by that of their files where it is earlier.
      out: path of the page; ``runs_dir/report.html`` by default.
      systems: registry, name to ``System``; the ten systems of jeff by default.
      running: systems whose runs are pending; the page may then have no sections.
      failed: systems that have just failed, with the error messages.

    Returns:
      The path of the page.

    Raises:
      FileNotFoundError: if ``runs_dir`` holds no run and no run is pending.
    """
    if systems is None:
        from train_scripts.systems import SYSTEMS

        systems = SYSTEMS
    runs_dir = Path(runs_dir)
    sections = _collect(runs_dir, systems)
    if not sections and not running:
        raise FileNotFoundError(
            f"{runs_dir}: expected runs in <system>/<run>/ folders, came none; "
            f"make some with `{_DEMO}`"
        )
    shown = {section.name for section in sections}.union(running)
    page = _render(
        sections=sections,
        idle=[system for name, system in systems.items() if name not in shown],
        running=list(running),
        failed=dict(failed),
        built=datetime.now(UTC),
    )
    return files.write_text(Path(out or runs_dir / "report.html"), page)


def _collect(runs_dir: Path, systems: Mapping[str, Any]) -> list[Section]:
    """Make a section for each system that has a run, in the order of the registry."""
    order = {name: index for index, name in enumerate(systems)}
    folders = sorted(
        _folders(runs_dir), key=lambda f: (order.get(f.name, len(order)), f.name)
    )
    sections = []
    for folder in folders:
        runs = sorted(_folders(folder), key=_began, reverse=True)
        if runs:
            name = plots.readable(folder.name)
            anchor = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
            section = Section(name, anchor or "system", systems.get(folder.name))
            _choose(section, runs)
            sections.append(section)
    return sections


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return [p for p in parent.iterdir() if p.is_dir() and not p.name.startswith(".")]


def _began(run: Path) -> tuple[float, str]:
    """When a run began; a date in its name after that of its files is a wrong one."""
    file = run / results.FILE_NAME
    written = (file if file.exists() else run).stat().st_mtime
    try:
        named = datetime.strptime(run.name[:15], "%Y%m%d-%H%M%S").timestamp()
    except (ValueError, OverflowError):
        named = written
    return min(named, written), run.name


def _choose(section: Section, runs: list[Path]) -> None:
    """Fill a section from the newest readable run, and list the unreadable runs."""
    # Runs come newest first: an unfinished run older than the one shown is ignored.
    for run in runs:
        try:
            result = results.read(run / results.FILE_NAME)
            if result.system != section.name:
                raise ValueError(
                    f"{run / results.FILE_NAME}: system: expected the folder's "
                    f"{section.name!r}, came {result.system!r}"
                )
        except FileNotFoundError:
            if section.run is None:
                section.unfinished.append(plots.readable(run.name))
        except (ValueError, OSError) as error:
            section.problems.append(plots.readable(str(error)))
        else:
            if section.run is None:
                section.run, section.result = plots.readable(run.name), result
                # Data of one's own are not decided by another run on ours.
                if result.preset not in ("full", "file"):
                    section.decides = (
                        f"python -m train_scripts run {result.system} full"
                    )
                _fill(section, run)


def _fill(section: Section, run: Path) -> None:
    """Add command, configuration, plots and explorer; each may be missing or broken."""
    try:
        section.command, section.config = _config(run / "config.json")
    except (ValueError, OSError, RecursionError) as error:
        section.problems.append(plots.readable(str(error)))
    for path in sorted(run.glob("*.png")):
        try:
            section.figures.append(plots.read(path))
        except (ValueError, OSError) as error:
            section.problems.append(plots.readable(str(error)))
    try:
        section.slider = explorer.read(run / explorer.FILE_NAME)
        section.chart = explorer.chart(section.slider)
    except FileNotFoundError:
        pass
    except (ValueError, ArithmeticError, OSError) as error:
        section.slider = None
        section.problems.append(plots.readable(str(error)))
    try:
        section.reasons = reasons.read(run / reasons.FILE_NAME)
    except FileNotFoundError:
        pass
    except (ValueError, OSError) as error:
        section.problems.append(plots.readable(str(error)))


def _config(path: Path) -> tuple[str, str]:
    try:
        document = schema.read(_CONFIG, path)
    except FileNotFoundError as error:
        expected = "the run's command and configuration"
        raise ValueError(f"{path}: expected {expected}, came no file") from error
    return document.command, json.dumps(document.config, indent=2, ensure_ascii=False)


def _render(**values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,  # a misspelt name is an error, not a blank
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        figures=_figures,
        duration=_duration,
        level=_level,
        mark=claims.mark,
        outcome=_outcome,
    )
    style, script = _asset("report.css"), _asset("report.js")
    return environment.get_template("report.html.j2").render(
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        view=(explorer.WIDTH, explorer.HEIGHT),
        frame=(explorer.LEFT, explorer.RIGHT, explorer.TOP, explorer.BOTTOM),
        demo=_DEMO,
        **values,
    )


def _asset(name: str) -> Markup:
    """Read jeff's own style or script, which is trusted and so not escaped."""
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def _hash(text: str) -> str:
    """Hash with which the content security policy allows an inline element."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


def _figures(value: float) -> str:
    """Format a number to four significant digits, with thousands separated.

    >>> _figures(0.123456), _figures(45222), _figures(3.0), _figures(1.5e-7)
    ('0.1235', '45,220', '3', '1.5e-07')
    """
    if 1e4 <= abs(value) < 1e9:
        return f"{float(f'{value:.4g}'):,.0f}"
    return f"{value:.4g}"


def _outcome(tested: Sequence[results.Claim]) -> str:
    """How many claims hold, do not hold, and are undecided.

    >>> _outcome([results.Claim("a", "b", "c", holds) for holds in (True, None, None)])
    '1 holds, 2 too small to tell'
    """
    found = [claim.holds for claim in tested]
    held, failed, open_ = (found.count(value) for value in (True, False, None))
    parts = [
        f"{held} {'holds' if held == 1 else 'hold'}" if held else "",
        f"{failed} {'does' if failed == 1 else 'do'} not hold" if failed else "",
        f"{open_} too small to tell" if open_ else "",
    ]
    return ", ".join(filter(None, parts)) or "none tested"


def _level(value: float) -> str:
    """Format a level of the slider in the same way as the page's script."""
    return f"{round(value, 4):g}"


def _duration(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours.

    >>> _duration(3.14159), _duration(161), _duration(7320)
    ('3.1 s', '2 min 41 s', '2 h 02 min')
    """
    # 59.95 and above would be rounded to "60.0 s".
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
