"""Test run folders: resumed on the same data only, and held by one process."""

import dataclasses
import importlib
import json
import os
import pkgutil
import subprocess
import sys

import pytest

import configs
from configs import genes
from train_scripts.running import inputs, workdir


@dataclasses.dataclass(frozen=True)
class Config:
    data: str = ""
    score: str = ""
    seeds: tuple[int, ...] = (0,)


@pytest.fixture
def config(tmp_path):
    (tmp_path / "a.csv").write_text("1,2\n")
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "b.csv").write_text("3,4\n")
    return Config(str(tmp_path / "a.csv"), str(tmp_path / "many"))


def broken_run(tmp_path, config):
    """A run that ended after it had written something, and without a result."""
    with workdir.open_workdir(tmp_path, "yodo", "file", config, "c") as (folder, _):
        (folder / "metrics.jsonl").write_text("")
    return folder


def test_the_data_are_recorded(tmp_path, config):
    folder = broken_run(tmp_path, config)
    record = json.loads((folder / "config.json").read_text())
    assert record["command"] == "c"
    assert record["data"][config.data]["size"] == 4
    assert set(record["data"]) == {config.data, f"{config.score}/b.csv"}


def test_the_same_data_go_on_even_if_touched(tmp_path, config):
    folder = broken_run(tmp_path, config)
    os.utime(config.data, (1, 1))
    with workdir.open_workdir(tmp_path, "yodo", "file", config, "c") as found:
        assert found == (folder, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: (p / "a.csv").write_text("1,3\n"), r"a\.csv: .* this file changed"),
        (lambda p: (p / "a.csv").unlink(), r"a\.csv: .* this file is missing"),
        (lambda p: (p / "many/b.csv").write_text(""), r"many/b\.csv: .* changed"),
        (
            lambda p: (p / "many/c.csv").write_text(""),
            r"many/c\.csv: .* is new; remove it",
        ),
    ],
)
def test_other_data_are_refused(tmp_path, config, change, words):
    folder = broken_run(tmp_path, config)
    times = os.stat(config.data)
    change(tmp_path)
    if os.path.exists(config.data):  # even with the size and time of before
        os.utime(config.data, ns=(times.st_atime_ns, times.st_mtime_ns))
    with (
        pytest.raises(ValueError, match=words + r".*delete \S*-file to start a new"),
        workdir.open_workdir(tmp_path, "yodo", "file", config, "c"),
    ):
        pytest.fail("the run began")
    assert (folder / "metrics.jsonl").exists()
    assert len(list((tmp_path / "yodo").iterdir())) == 1


def test_a_run_inside_its_own_data_goes_on(tmp_path, config):
    config = dataclasses.replace(config, data=str(tmp_path))
    folder = broken_run(tmp_path, config)
    with workdir.open_workdir(tmp_path, "yodo", "file", config, "c") as found:
        assert found == (folder, True)
    (tmp_path / "a.csv").write_text("5,6\n")
    with (
        pytest.raises(ValueError, match=r"a\.csv: .* this file changed"),
        workdir.open_workdir(tmp_path, "yodo", "file", config, "c"),
    ):
        pytest.fail("the run began")


def test_a_run_of_an_earlier_jeff_goes_on_with_a_note(tmp_path, config):
    folder = broken_run(tmp_path, config)
    record = json.loads((folder / "config.json").read_text())
    del record["data"]
    (folder / "config.json").write_text(json.dumps(record))
    with (
        pytest.warns(UserWarning, match="did not record its data"),
        workdir.open_workdir(tmp_path, "yodo", "file", config, "c") as found,
    ):
        assert found == (folder, True)
    assert config.data in json.loads((folder / "config.json").read_text())["data"]


def test_an_unreadable_record_is_not_passed_over(tmp_path, config, capsys):
    folder = broken_run(tmp_path, config)
    (folder / "config.json").write_text("{")
    with workdir.open_workdir(tmp_path, "yodo", "file", config, "c") as found:
        assert found[1] is False
    assert f"{folder}: not resumed" in capsys.readouterr().err


def test_leftovers_of_a_kill_are_swept(tmp_path, config):
    folder = broken_run(tmp_path, config)
    left = folder / ".result.json.123-0123abcd.part"
    left.write_text("half")
    (folder / "checkpoints" / "2.orbax-checkpoint-tmp-3").mkdir(parents=True)
    with workdir.open_workdir(tmp_path, "yodo", "file", config, "c"):
        assert {path.name for path in folder.iterdir()} == {
            "checkpoints",
            "config.json",
            "lock",
            "metrics.jsonl",
        }
        assert not list((folder / "checkpoints").iterdir())


def test_a_new_folder_of_a_run_that_wrote_nothing_is_removed(tmp_path, config):
    with (
        pytest.raises(ValueError, match="bad data"),
        workdir.hold(tmp_path / "run", config, "c"),
    ):
        raise ValueError("bad data")
    assert not (tmp_path / "run").exists()


def test_a_failed_start_among_other_files_leaves_only_those(tmp_path, config):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("keep")
    with (
        pytest.raises(ValueError, match="bad data"),
        workdir.hold(folder, config, "c"),
    ):
        raise ValueError("bad data")
    assert (folder / "notes.txt").read_text() == "keep"
    with workdir.hold(folder, dataclasses.replace(config, seeds=(1,)), "c"):
        assert (folder / "config.json").exists()


def test_a_link_as_folder_hides_no_error(tmp_path, config):
    (tmp_path / "real").mkdir()
    (tmp_path / "run").symlink_to("real")
    with (
        pytest.raises(ValueError, match="bad data"),
        workdir.hold(tmp_path / "run", config, "c"),
    ):
        raise ValueError("bad data")
    assert (tmp_path / "run").is_symlink()


def test_a_full_disk_leaves_no_folder(tmp_path, config, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workdir.files, "write_json", full)
    with (
        pytest.raises(OSError, match="No space"),
        workdir.open_workdir(tmp_path, "yodo", "file", config, "c"),
    ):
        pytest.fail("the run began")
    assert list((tmp_path / "yodo").iterdir()) == []


def test_a_run_killed_before_it_wrote_anything_leaves_no_second_folder(
    tmp_path, config
):
    folder = tmp_path / "yodo" / "20300102-030405-file"
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    (folder / ".config.json.12-0123abcd.part").write_text("{")
    with workdir.open_workdir(tmp_path, "yodo", "file", config, "c") as found:
        assert found == (folder, False)
        names = {path.name for path in folder.iterdir()}
        assert names == {"config.json", "lock"}
        # One that begins meanwhile takes another folder.
        with workdir.open_workdir(tmp_path, "yodo", "file", config, "c") as other:
            assert other[0] != folder


def test_a_folder_is_held_by_one(tmp_path, config):
    program = (
        "import sys, pathlib; from train_scripts.running import workdir\n"
        f"lock = workdir._try_lock(pathlib.Path({str(tmp_path)!r}))\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        with (
            pytest.raises(OSError, match="another process is running in it"),
            workdir.hold(tmp_path, config, "c"),
        ):
            pytest.fail("the run began")
        assert (tmp_path / "lock").exists()
        other.communicate()
    with workdir.hold(tmp_path, config, "c"):
        assert (tmp_path / "config.json").exists()


def test_names_that_are_no_files(tmp_path):
    many = dataclasses.asdict(genes.Config()) | {"candidates": "BRCA1," * 999}
    assert inputs.describe(many) == {}


# Texts of the configurations that name no file to read.
NO_FILES = {
    *("answer", "column", "confidence", "correct", "cost", "dataset", "label", "layer"),
    *("large_correct", "order", "outcome", "question", "samples", "sensitive"),
    *("small_correct", "text", "token_logprobs", "tokens", "type"),
    *("anomalous", "dtype", "language", "measure", "method", "normal", "signs"),
    *("chat", "chat_model", "favourable", "kv", "prompt", "system", "terms"),
    *("pheval", "symbols", "weight", "workdir"),
    # Of the server, which is no run: it has no folder and no digests.
    *("api_key", "api_key_file", "host", "large", "large_model", "log", "name"),
    *("policy", "router"),
}


def test_every_text_of_a_configuration_is_a_file_or_not():
    texts = {
        field.name
        for module in pkgutil.iter_modules(configs.__path__)
        for field in dataclasses.fields(
            importlib.import_module(f"configs.{module.name}").Config
        )
        if field.type is str
    }
    assert texts == NO_FILES | set(inputs.FIELDS)
