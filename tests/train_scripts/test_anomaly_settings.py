"""What a newcomer asks of the anomaly script is done, or refused in words."""

import io
from pathlib import Path

import numpy as np
import pytest

from configs.anomaly import Config
from jeff_llm.anomaly.select import Regrets, Table
from train_scripts.anomaly import own, summary
from train_scripts.anomaly.selecting import Selection

NORMAL = "".join(f"see you at {number} for tea {number**2}\n" for number in range(80))
EASY = {"views": ("characters",), "level": 0.2}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("anomaly")
    (folder / "normal.txt").write_text(NORMAL)
    (folder / "new.txt").write_text("see you at 5 for tea\n\n")
    config = Config(data=str(folder / "normal.txt"), **EASY)
    own.analyse(config, folder, progress=False)
    return folder


@pytest.mark.parametrize(
    ("name", "value"),
    [("method", "lof"), ("views", ("minilm",)), ("scorers", ("likelihood",))],
)
def test_stored_detector_takes_no_other_settings(fitted, tmp_path, name, value):
    config = Config(
        detector=str(fitted / "detector"),
        score=str(fitted / "new.txt"),
        **{"level": 0.2, name: value},
    )
    with pytest.raises(ValueError, match=f"{name}: expected .* was fitted, got"):
        own.analyse(config, tmp_path, progress=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_scores_on_a_full_disk(fitted, tmp_path):
    config = Config(
        detector=str(fitted / "detector"), score=str(fitted / "new.txt"), **EASY
    )
    (tmp_path / "scores.part.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"/scores\.part\.jsonl: .* \(No space"):
        own.analyse(config, tmp_path, progress=False)
    (tmp_path / "scores.part.jsonl").unlink()
    own.analyse(config, tmp_path, progress=False)
    assert len((tmp_path / "scores.jsonl").read_text().splitlines()) == 2


def test_stored_detector_takes_its_own_settings(fitted, tmp_path):
    config = Config(
        detector=str(fitted / "detector"), score=str(fitted / "new.txt"), **EASY
    )
    found = own.analyse(config, tmp_path, progress=False)
    assert "Empty texts: 1;" in found.table


def test_nothing_on_standard_input(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    config = Config(detector=str(fitted / "detector"), score="-", level=0.2)
    with pytest.raises(ValueError, match="standard input: expected at least one text"):
        own.analyse(config, tmp_path, progress=False)


def test_stated_number_of_normal_texts_is_the_fewest(tmp_path):
    path = tmp_path / "few.txt"
    path.write_text("".join(NORMAL.splitlines(keepends=True)[:33]))
    with pytest.raises(ValueError, match="at least 34 different normal texts"):
        own.analyse(Config(data=str(path), **EASY), tmp_path, progress=False)
    path.write_text("".join(NORMAL.splitlines(keepends=True)[:34]))
    own.analyse(Config(data=str(path), **EASY), tmp_path, progress=False)


def test_no_nan_where_no_model_was_asked():
    table = Table((("a", "b"), ("c", "d")), ("one",), np.array([[0.9, 0.8]]))
    zero, unknown = np.zeros(1), np.full(1, np.nan)
    regrets = Regrets(*[zero for _ in Regrets._fields])
    found = Selection(table, regrets, unknown, unknown, (np.nan, np.nan))
    text = summary.select_table("title", found)
    assert "nan" not in text
    assert "| not asked | not asked |" in text
