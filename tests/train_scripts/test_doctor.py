"""Test the doctor and the list: present parts, missing parts, and remedies."""

import importlib.metadata
import io
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from rich.console import Console

from jeff import assets
from train_scripts import doctor, systems
from train_scripts.doctor import Check
from train_scripts.systems import SYSTEMS

CORE = ["jeff-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"]
EXTRAS = ["scripts", "llm", "bio", "data", "peers", "dev"]


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without assets or shared data; its cache folder."""
    monkeypatch.delenv("JEFF_DATA", raising=False)
    monkeypatch.setenv("JEFF_CACHE", str(tmp_path / "cache"))
    real = importlib.metadata.distribution
    carriers = {asset.project for asset in assets.ASSETS.values()}

    def without_carriers(name: str) -> Any:
        if name in carriers:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "distribution", without_carriers)
    return tmp_path / "cache"


@pytest.fixture
def stocked(fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every asset is there; the folder of shared data."""
    data = tmp_path / "data"
    for asset in assets.ASSETS.values():
        cached = fresh / asset.requirement.replace("==", "-") / Path(asset.member).name
        path = data / asset.shared if asset.shared else cached
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(asset.size)
    # The files are empty, so that they take no room.
    sums = {asset.size: asset.sha256 for asset in assets.ASSETS.values()}
    monkeypatch.setattr(assets, "_checksum", lambda path, size, modified: sums[size])
    monkeypatch.setenv("JEFF_DATA", str(data))
    return data


def pretend(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None]) -> None:
    """Give packages other versions, or none."""
    real = importlib.metadata.version

    def version(name: str) -> str:
        found = versions.get(name, "") or (None if name in versions else real(name))
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)


def checks(area: str) -> dict[str, Check]:
    """The checks of one area by name."""
    return {check.name: check for check in doctor.report() if check.area == area}


def printed(show: Any, width: int = 80) -> tuple[str, Any]:
    """What is printed at a width, and what is returned."""
    console = Console(file=io.StringIO(), width=width)
    status = show(console)
    return console.file.getvalue(), status  # pyright: ignore


def test_versions() -> None:
    found = checks("Versions")
    assert list(found) == ["python", *CORE]
    assert all(check.ok and check.needed for check in found.values())
    assert found["jax"].detail == jax.__version__


@pytest.mark.parametrize(
    ("version", "says"),
    [(None, "not installed"), ("0.1.2", "0.1.2, expected 0.10.1 or newer")],
)
def test_core_package_missing_or_old(
    version: str | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nothing is imported, and the rest is still looked at."""
    pretend(monkeypatch, {"jax": version})
    found = doctor.report()
    areas = list(dict.fromkeys(check.area for check in found))
    assert areas == ["Versions", "Extras", "Browser"]
    jax_check = next(check for check in found if check.name == "jax")
    assert (jax_check.ok, jax_check.detail) == (False, says)
    assert jax_check.remedy == 'python -m pip install -e ".[scripts]"'
    assert printed(doctor.show)[1] == 1


def test_devices() -> None:
    found = checks("Devices")
    assert len(found) == len(jax.devices())
    assert "cpu" in found["cpu:0"].detail


def test_accelerator_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise NotImplementedError

    def limited() -> dict[str, int]:
        return {"bytes_limit": 80 * 2**30}

    cards = [
        SimpleNamespace(platform="gpu", id=i, device_kind="Card", memory_stats=stats)
        for i, stats in enumerate((limited, broken))
    ]
    monkeypatch.setattr(jax, "devices", lambda: cards)
    found = checks("Devices")
    assert found["gpu:0"].detail == "Card, 80.0 GiB of memory"
    assert found["gpu:1"].detail.startswith("Card, ")


def test_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("Unknown backend cuda\nmore")

    monkeypatch.setattr(jax, "devices", refuse)
    found = checks("Devices")["jax.devices()"]
    assert found.needed
    assert not found.ok
    assert (found.detail, found.remedy) == (
        "Unknown backend cuda",
        "export JAX_PLATFORMS=cpu",
    )


def test_unused_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver without a JAX for it is pointed out, and is no failure."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    found = checks("Devices")["gpu"]
    assert not found.needed
    assert found.remedy == 'python -m pip install -e ".[cuda]"'


def test_assets_absent(fresh: Path) -> None:
    found = checks("Assets")
    assert list(found) == list(assets.ASSETS)
    for name, check in found.items():
        assert not check.ok
        assert check.remedy == f"python -m jeff.assets {name}"
        assert check.needed
    text, status = printed(doctor.show)
    assert status == 1
    assert f"make demo lacks: {', '.join(assets.ASSETS)}" in " ".join(text.split())


def test_assets_present(stocked: Path) -> None:
    """Only what `make demo` needs decides the status."""
    found = checks("Assets")
    assert found["adult"].detail == str(stocked / "tabular" / "adult.csv.zip")
    assert found["adult"].remedy is None
    text, status = printed(doctor.show)
    assert status == 0
    assert text.rstrip().endswith("ready for make demo")


def test_folders(
    fresh: Path, stocked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = sum(path.stat().st_size for path in fresh.rglob("*") if path.is_file())
    (fresh / "xla").mkdir(parents=True)
    (fresh / "xla" / "compiled").write_bytes(b"x" * 2**20)
    found = checks("Folders")
    assert found["JEFF_DATA"].detail == str(stocked)
    assert found["asset cache"].detail == f"{fresh}, {stored / 2**20:.0f} MiB"
    assert found["compilation cache"].detail == f"{fresh / 'xla'}, 1 MiB"
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("JEFF_CACHE", str(tmp_path / "file" / "cache"))
    assert "cannot be written to" in checks("Folders")["asset cache"].detail
    monkeypatch.delenv("JEFF_DATA")
    assert not checks("Folders")["JEFF_DATA"].needed
    monkeypatch.setenv("JEFF_DATA", str(tmp_path / "nowhere"))
    broken = checks("Folders")["JEFF_DATA"]
    assert broken.needed
    assert not broken.ok
    assert "nowhere is missing" in broken.detail


def test_extras(stocked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing and old packages are named; only the extra of the scripts is needed."""
    gone: dict[str, str | None] = {"gguf": None, "openai": None, "tokenizers": "0.2.1"}
    present = {"huggingface-hub": "9", "safetensors": "9", "jinja2": "9"}
    pretend(monkeypatch, gone | present)
    found = checks("Extras")
    assert set(EXTRAS) <= set(found)
    assert [name for name, check in found.items() if check.needed] == ["scripts"]
    assert found["llm"].detail.splitlines() == [
        "language models: weights, tokenizers, endpoints",
        "not installed: gguf, openai",
        "tokenizers: 0.2.1, expected 0.21 or newer",
    ]
    assert found["llm"].remedy == 'python -m pip install -e ".[llm]"'
    text, status = printed(doctor.show)
    assert status == 0
    assert 'python -m pip install -e ".[llm]"' in text
    pretend(monkeypatch, {"tyro": None})
    text, status = printed(doctor.show)
    assert status == 1
    assert text.rstrip().endswith("make demo lacks: scripts")


def test_every_extra_has_a_purpose() -> None:
    assert all(check.detail.splitlines()[0] for check in checks("Extras").values())


def test_extra_of_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """``jax[cuda13]`` is followed, so that a JAX without the plugin is no GPU JAX."""
    lines = {
        "jeff-jax": ['jax[cuda13]>=0.10; extra == "cuda"', "numpy>=2.0"],
        "jax": ["plugin[x]<2,>=1.5 ; extra == 'cuda13'", "other; extra == 'tpu'"],
    }
    monkeypatch.setattr(importlib.metadata, "requires", lines.get)
    pretend(monkeypatch, {"plugin": None})
    assert "not installed: plugin" in checks("Extras")["cuda"].detail


def test_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    for check in checks("Browser").values():
        assert (check.ok, check.needed) == (False, False)
        assert check.remedy == "apt-get install chromium-driver"


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("show", [doctor.show, systems.show])
def test_fits(show: Any, width: int) -> None:
    text, _ = printed(show, width)
    assert max(map(len, text.splitlines())) <= width


def test_list(stocked: Path) -> None:
    text, status = printed(systems.show)
    assert status is None
    for system in SYSTEMS.values():
        assert system.title in text
        assert f" {system.name} " in text
    assert "here: adult, german, tabular/" in text
    assert "missing: graphs/" in text


def test_list_on_a_fresh_machine() -> None:
    text, _ = printed(systems.show, 200)
    assert "missing: adult, german, tabular/" in text
    assert "here:" not in text
    assert "python -m jeff.assets NAME" in text
    assert "JEFF_DATA" in text


def test_list_with_everything(stocked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is missing, so nothing is said about fetching."""
    monkeypatch.setattr(assets, "status", Path)
    for system in SYSTEMS.values():
        for name in system.shared:
            (stocked / name).mkdir(exist_ok=True)
    text, _ = printed(systems.show)
    assert "missing" not in text
    assert "JEFF_DATA" not in text


def test_list_with_a_broken_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is printed all the same, and says what is wrong."""
    monkeypatch.setenv("JEFF_DATA", "/no/such/folder")
    text, _ = printed(systems.show, 200)
    assert "/no/such/folder is missing; set it to the folder" in text
