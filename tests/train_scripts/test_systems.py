"""Test the registry of systems: complete, and consistent with assets and report."""

import importlib.util
import re
from pathlib import Path

import pytest

from jeff import assets
from train_scripts import report
from train_scripts.running import results
from train_scripts.running.results import Claim, Result
from train_scripts.systems import SYSTEMS, System

EVERY = pytest.mark.parametrize("system", SYSTEMS.values(), ids=list(SYSTEMS))


def test_ten_systems() -> None:
    names = "yodo gre wds kv routing selfref reasoning anomaly genes dialogue"
    assert " ".join(SYSTEMS) == names
    assert len({system.title for system in SYSTEMS.values()}) == 10
    modules = {name: system.module for name, system in SYSTEMS.items()}
    assert modules["routing"] == modules["selfref"] == "jeff_llm.confidence"


@EVERY
def test_entry(system: System) -> None:
    assert SYSTEMS[system.name] is system
    assert system.script == f"train_scripts.{system.name}"
    assert re.match(r"jeff(_graph|_llm)?\.[a-z]+$", system.module)
    assert system.paper
    assert re.fullmatch(r"\S.{20,160}\.", system.summary)
    assert set(system.assets) <= set(assets.ASSETS)
    assert len(set(system.assets)) == len(system.assets)
    assert importlib.util.find_spec(system.script)
    assert importlib.util.find_spec(f"configs.{system.name}")


@EVERY
def test_shared_folders_exist_where_there_is_shared_data(system: System) -> None:
    try:
        folder = assets.data_dir()
    except NotADirectoryError:
        folder = None
    if folder is None:
        pytest.skip("JEFF_DATA is not set to the folder of shared data sets")
    for name in system.shared:
        assert (folder / name).is_dir(), name


def test_every_asset_has_a_user() -> None:
    used = {name for system in SYSTEMS.values() for name in system.assets}
    assert used == set(assets.ASSETS)


def test_report_takes_the_registry(tmp_path: Path) -> None:
    claims = (Claim("It is fair", "gap 0.01", "gap 0.02", holds=True),)
    result = Result("yodo", "demo", 0, "cpu x2", 1.0, {"jax": "1"}, {}, claims)
    results.write(result, tmp_path / "yodo" / "20250101-000000-demo")
    page = report.build(tmp_path).read_text(encoding="utf-8")
    for system in SYSTEMS.values():
        assert system.title in page
    assert SYSTEMS["yodo"].summary in page
