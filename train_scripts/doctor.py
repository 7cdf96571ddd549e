"""Check this machine's installation: ``python -m train_scripts doctor``.

The checks change and download nothing. Each missing part is shown with the command that
installs it.
"""

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["Check", "report", "show"]

_CORE = ("jeff-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_ABSENT = "not installed"
_INSTALL = 'python -m pip install -e "{}"'
_PURPOSES = {
    "graph": "graphs of jraph, for editing",
    "scripts": "command line, plots and report",
    "llm": "language models: weights, tokenizers, endpoints",
    "serve": "an OpenAI-compatible server",
    "anomaly": "detectors of PyOD, beside those of jeff",
    "bio": "single-cell files and statistics",
    "data": "data sets from the hub and the census",
    "peers": "benchmarks and parity tests; PyTorch is installed by itself",
    "dev": "tests, lint and types",
    "docs": "the site of the documentation",
    "cuda": "NVIDIA GPUs",
    "tpu": "Google TPUs",
}


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
      area: heading under which the check is shown.
      name: the part that was checked.
      ok: whether the part is present and usable.
      needed: whether ``make demo`` needs it.
      detail: version, path, or description of the fault.
      remedy: command that fixes the fault, or None.
    """

    area: str
    name: str
    ok: bool
    needed: bool
    detail: str
    remedy: str | None = None


def report() -> list[Check]:
    """Check versions, devices, folders, assets, extras and the browser.

    Returns:
      The checks, area by area. If a core package is missing or too old, areas that need
      to import it are left out.
    """
    checks = list(_versions())
    if all(check.ok for check in checks):
        checks += [*_devices(), *_folders(), *_assets()]
    return [*checks, *_extras(), *_browser()]


def show(console: Console) -> int:
    """Print the report.

    Args:
      console: where to print.

    Returns:
      Exit status: 1 if ``make demo`` lacks anything that it needs, else 0.
    """
    checks = report()
    for area in dict.fromkeys(check.area for check in checks):
        console.print(Text(area, style="bold"))
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, min_width=9)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for check in checks:
            if check.area == area:
                table.add_row(*_cells(check))
        console.print(table, "")
    lacking = [check.name for check in checks if check.needed and not check.ok]
    verdict = (
        f"make demo lacks: {', '.join(lacking)}" if lacking else "ready for make demo"
    )
    console.print(Text(verdict, style="bold red" if lacking else "bold green"))
    return 1 if lacking else 0


def _cells(check: Check) -> tuple[Text, Text, Text]:
    word, style = ("ok", "green") if check.ok else ("absent", "yellow")
    if check.needed and not check.ok:
        word, style = "MISSING", "bold red"
    detail = Text(check.detail)
    if check.remedy:
        detail.append(f"\n{check.remedy}", style="cyan")
    return Text(f"  {word}", style=style), Text(check.name), detail


def _versions() -> Iterator[Check]:
    area = "Versions"
    yield Check(
        area, "python", True, True, f"{platform.python_version()}, {sys.prefix}"
    )
    minima = {name: least for name, least in _requirements("jeff-jax", None)}
    for name in _CORE:
        fault = _fault(name, minima.get(name))
        detail = fault or importlib.metadata.version(name)
        remedy = _INSTALL.format(".[scripts]") if fault else None
        yield Check(area, name, fault is None, True, detail, remedy)


def _devices() -> Iterator[Check]:
    import jax

    area = "Devices"
    try:
        devices = jax.devices()
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        yield Check(
            area, "jax.devices()", False, True, first, "export JAX_PLATFORMS=cpu"
        )
        return
    for device in devices:
        detail = f"{device.device_kind}, {_memory(device)}"
        yield Check(area, f"{device.platform}:{device.id}", True, True, detail)
    if devices[0].platform == "cpu" and shutil.which("nvidia-smi"):
        detail = "there is an NVIDIA driver, but this JAX runs on the CPU"
        yield Check(area, "gpu", False, False, detail, _INSTALL.format(".[cuda]"))


def _memory(device: object) -> str:
    """Memory of a device: its limit, or the host's memory for a CPU."""
    try:
        stats = device.memory_stats()  # pyright: ignore[reportAttributeAccessIssue]
    except Exception:  # each back end raises its own type of error
        stats = None
    if stats and "bytes_limit" in stats:
        return f"{stats['bytes_limit'] / 2**30:.1f} GiB of memory"
    try:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return "memory unknown"
    return f"{os.cpu_count()} cores, {size / 2**30:.1f} GiB of memory in the machine"


def _folders() -> Iterator[Check]:
    from jeff import assets

    area = "Folders"
    try:
        data = assets.data_dir()
        if data:
            yield Check(area, "JEFF_DATA", True, False, str(data))
        else:
            detail = "not set: shared data sets are not used"
            remedy = "export JEFF_DATA=FOLDER"
            yield Check(area, "JEFF_DATA", False, False, detail, remedy)
    except NotADirectoryError as error:
        yield Check(area, "JEFF_DATA", False, True, str(error), "unset JEFF_DATA")
    # The compilation cache lies inside the asset cache, so its size is subtracted.
    cache = assets.cache_dir()
    compiled = _size(cache / "xla")
    for name, folder, size in (
        ("asset cache", cache, _size(cache) - compiled),
        ("compilation cache", cache / "xla", compiled),
    ):
        # The folder may not exist yet; then its nearest existing parent decides.
        nearest = next(p for p in (folder, *folder.parents) if p.exists())
        if nearest.is_dir() and os.access(nearest, os.W_OK):
            yield Check(area, name, True, False, f"{folder}, {size / 2**20:.0f} MiB")
        else:
            detail = f"{folder}: {nearest} cannot be written to"
            yield Check(area, name, False, False, detail, "export JEFF_CACHE=FOLDER")


def _size(folder: Path) -> int:
    """Bytes of all readable files below a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() else 0
        except OSError:  # a run in progress may have removed the file
            continue
    return total


def _assets() -> Iterator[Check]:
    from jeff import assets

    # All are needed: an asset that no system uses fails a test of the registry.
    for name, asset in assets.ASSETS.items():
        found = assets.status(name)
        detail = str(found or f"{asset.summary} ({asset.size / 2**20:.1f} MiB)")
        remedy = None if found else asset.command
        yield Check("Assets", name, found is not None, True, detail, remedy)


def _extras() -> Iterator[Check]:
    area = "Extras"
    try:
        extras = importlib.metadata.metadata("jeff-jax").get_all("Provides-Extra", [])
    except importlib.metadata.PackageNotFoundError:
        return
    for extra in extras:
        faults = {
            name: fault
            for name, least in _requirements("jeff-jax", extra)
            if (fault := _fault(name, least))
        }
        absent = [name for name, fault in faults.items() if fault == _ABSENT]
        lines = [_PURPOSES.get(extra, "")]
        lines += [f"{_ABSENT}: {', '.join(absent)}"] if absent else []
        lines += [f"{n}: {fault}" for n, fault in faults.items() if fault != _ABSENT]
        remedy = _INSTALL.format(f".[{extra}]") if faults else None
        detail = "\n".join(lines)
        yield Check(area, extra, not faults, extra == "scripts", detail, remedy)


def _browser() -> Iterator[Check]:
    for name in ("chromium", "chromedriver"):
        found = shutil.which(name)
        detail = found or "for the report's browser test, which is skipped without it"
        remedy = None if found else "apt-get install chromium-driver"
        yield Check("Browser", name, found is not None, False, detail, remedy)


def _requirements(project: str, extra: str | None) -> Iterator[tuple[str, str | None]]:
    """Names and minimum versions of the packages that an extra requires.

    A requirement that itself names an extra (``jax[cuda13]``) is followed one step.
    """
    try:
        lines = importlib.metadata.requires(project) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for line in lines:
        requirement, _, marker = line.partition(";")
        under = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
        if (under and under[1]) != extra:
            continue
        parts = re.match(r"([\w.-]+)(?:\[([\w-]+)\])?", requirement.strip())
        least = re.search(r">=\s*([\d.]+)", requirement)
        if parts:
            yield parts[1], least and least[1]
            if parts[2] and project != parts[1] and project == "jeff-jax":
                yield from _requirements(parts[1], parts[2])


def _fault(name: str, least: str | None) -> str | None:
    """Describe why an installed package is not usable, or None if it is."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return _ABSENT
    if least and _numbers(version) < _numbers(least):
        return f"{version}, expected {least} or newer"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """Leading numbers of a version.

    >>> _numbers("0.10.2"), _numbers("3.0rc1"), _numbers("2.13.0+cpu")
    ((0, 10, 2), (3, 0), (2, 13, 0))
    """
    release = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, release[0].split("."))) if release else ()
