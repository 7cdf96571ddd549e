"""Test where every system writes: two runs at once, and a folder that takes nothing."""

import importlib
import os
import subprocess
import sys

import pytest

from train_scripts import cli
from train_scripts.running import results
from train_scripts.systems import SYSTEMS

EVERY = pytest.mark.parametrize("name", SYSTEMS)


@pytest.fixture(scope="module")
def read_only(tmp_path_factory):
    folder = tmp_path_factory.mktemp("read_only")
    if sys.platform == "win32":
        pytest.skip("folders of Windows have other rights")
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    # The rights of a folder mean nothing to root.
    options = ["-t", "tmpfs", "-o", "ro,size=1m", "tmpfs"]
    try:
        made = subprocess.run(
            ["mount", *options, folder], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("needs the command mount")
    if made.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@EVERY
def test_two_runs_at_once_have_a_folder_each(name, tmp_path, monkeypatch):
    script = importlib.import_module(f"{SYSTEMS[name].script}.run")
    words = ["run", name, "smoke", "--runs", str(tmp_path)]
    folders = []

    def run(config, workdir, *, preset):
        folders.append(workdir)
        if len(folders) == 1:
            # The same command, while this one is at work.
            assert cli.main(words) == 0
        part = results.Part({"place": float(len(folders))}, (), "")
        return results.finish(name, preset, 0, 0.0, part, workdir)

    monkeypatch.setattr(script, "run", run)
    assert cli.main(words) == 0
    assert len(set(folders)) == 2
    assert {folder.parent for folder in folders} == {tmp_path / name}
    assert all((folder / results.FILE_NAME).is_file() for folder in folders)
    # Both are whole, so the same command begins anew.
    assert cli.main(words) == 0
    assert len(set(folders)) == 3


@EVERY
def test_a_folder_that_takes_nothing_is_named(name, read_only, monkeypatch, capsys):
    script = importlib.import_module(f"{SYSTEMS[name].script}.run")
    monkeypatch.setattr(script, "run", lambda *_, **__: pytest.fail("it began"))
    assert cli.main(["run", name, "smoke", "--runs", str(read_only)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and str(read_only / name) in said
    assert "Traceback" not in said and len(said.splitlines()) == 1
    assert not list(read_only.iterdir())
