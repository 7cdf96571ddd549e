"""Test stored detectors: the way there and back, damage, and writes that fail."""

import json
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest

from jeff_llm.anomaly.store import load, read_notes, save
from jeff_llm.anomaly.text_detector import fit, score
from jeff_llm.models.safetensors_writer import save_safetensors
from jeff_llm.models.tensors import open_safetensors

NAMES = ["detector.json", "detector.safetensors", "normal.jsonl"]
TEXTS = [f"text {number} of {'ab' * (number % 7)}" for number in range(40)]
NEW = ["text 3", "QUITE another!", "", "half \ud83d", "\u2028"]


def lengths(texts):
    """An encoder: lengths, words and a checksum."""
    rows = [
        [len(t), len(t.split()), zlib.crc32(t.encode("utf-8", "replace")) % 97]
        for t in texts
    ]
    return np.array(rows, np.float32).reshape(-1, 3)


def capitals(texts):
    return np.array([sum(c in "aA" for c in text) for text in texts], np.float32)


ENCODERS, SCORERS = {"lengths": lengths}, {"capitals": capitals}


@pytest.fixture(scope="module")
def detector():
    return fit(
        [*TEXTS, "\u2028", "\u65e5\u672c", '"'],
        ENCODERS,
        scorers=SCORERS,
        key=jax.random.key(0),
    )


@pytest.fixture
def folder(detector, tmp_path):
    return save(detector, tmp_path / "a" / "det", ENCODERS, notes={"who": "\u65e5"})


def rewrite(folder, change):
    """Change the tensors of a detector."""
    path = folder / "detector.safetensors"
    file = open_safetensors(path)
    tensors = {name: np.array(file[name].read()) for name in file}
    change(tensors)
    save_safetensors(path, tensors)


def test_there_and_back(detector, folder):
    """The same scores; three files, none of which holds code."""
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    assert [path.name for path in folder.parent.iterdir()] == ["det"]
    found = load(folder, ENCODERS)
    assert found.texts == detector.texts and found.views == detector.views
    assert found.scorers == ("capitals",)
    one = score(found, NEW, ENCODERS, scorers=SCORERS)
    other = score(detector, NEW, ENCODERS, scorers=SCORERS)
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert read_notes(folder) == {"who": "\u65e5"}
    assert b"pickle" not in b"".join(path.read_bytes() for path in folder.iterdir())


def test_another_encoder_is_refused_by_name(detector, folder, tmp_path):
    for other in (lambda t: lengths(t) + 1, lambda t: lengths(t)[:, :2]):
        with pytest.raises(
            ValueError, match="det: expected the encoder 'lengths' that"
        ):
            load(folder, {"lengths": other})
    with pytest.raises(ValueError, match="encoders: expected one named 'lengths', got"):
        load(folder, {"other": lengths})
    with pytest.raises(ValueError, match="encoders: expected one named 'lengths', got"):
        save(detector, tmp_path / "new", {})
    assert not (tmp_path / "new").exists()


def test_an_earlier_detector_is_replaced(detector, folder):
    other = fit(TEXTS, {}, key=jax.random.key(1))
    save(other, folder, {})
    assert load(folder, {}).texts == other.texts and read_notes(folder) == {}
    empty = folder.parent / "empty"
    empty.mkdir()
    assert load(save(other, empty, {}), {}).views == ("characters",)


def test_nothing_but_a_detector_is_replaced(detector, folder):
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"det: expected a new folder.*thesis\.tex"):
        save(detector, folder, ENCODERS)
    assert (folder / "thesis.tex").read_text() == "years of work"
    with pytest.raises(ValueError, match="expected a folder, got a file"):
        save(detector, folder / "thesis.tex", ENCODERS)


@pytest.mark.parametrize("failing", ["write_json", "rename"])
def test_whole_or_not_at_all(detector, folder, monkeypatch, failing):
    """A write that fails leaves the earlier detector, and nothing else."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    if failing == "write_json":
        monkeypatch.setattr("jeff.files.write_json", full)
    else:
        rename = Path.rename

        def sometimes(self, target):
            return full() if self.suffix == ".part" else rename(self, target)

        monkeypatch.setattr(Path, "rename", sometimes)
    other = fit(TEXTS, {}, key=jax.random.key(1))
    with pytest.raises(OSError, match="No space left"):
        save(other, folder, {})
    with pytest.raises(OSError, match="No space left"):
        save(other, folder.parent / "new", {})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["det"]


def test_no_detector(tmp_path):
    for call in (lambda: load(tmp_path, ENCODERS), lambda: read_notes(tmp_path)):
        with pytest.raises(FileNotFoundError, match=r"detector\.json"):
            call()


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("views"),
        lambda d: d.update(views=[]),
        lambda d: d.update(views=["lengths", "lengths"]),
        lambda d: d.update(views="lengths"),
        lambda d: d.update(views=["other"]),
        lambda d: d.update(format=2),
        lambda d: d.update(method="os.system"),
        lambda d: d.update(method=["knn"]),
        lambda d: d.update(lengths=[0]),
        lambda d: d.update(lengths=[]),
        lambda d: d.update(lengths=[True]),
        lambda d: d.update(scorers=["other"]),
        lambda d: d.update(notes={"a": 3}),
        lambda d: d.update(notes=[]),
        lambda d: d.update(code="import os"),
    ],
)
def test_damaged_settings(folder, change):
    path = folder / "detector.json"
    settings = json.loads(path.read_text())
    change(settings)
    path.write_text(json.dumps(settings))
    refuse(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("calibration"),
        lambda t: t.update({"calibration": np.zeros(0, np.float32)}),
        lambda t: t.update({"calibration": np.full(3, np.nan, np.float32)}),
        lambda t: t.update({"calibration": np.ones((3, 1), np.float32)}),
        lambda t: t.update({"calibration": np.ones(3, np.int32)}),
        lambda t: t.update({"embeddings.lengths": t["embeddings.lengths"][:-1]}),
        lambda t: t.update({"embeddings.lengths": t["embeddings.lengths"] * np.inf}),
        lambda t: t.update({"scores.capitals": t["scores.capitals"][:-1]}),
        lambda t: t.update(
            {"scores.capitals": t["scores.capitals"] * np.float32("nan")}
        ),
        lambda t: t.update({"characters.weights": t["characters.weights"][:-1]}),
        lambda t: t.pop("probe.lengths"),
    ],
)
def test_damaged_tensors(folder, change):
    rewrite(folder, change)
    refuse(folder)


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"text": "a"}\n',
        '{"text": 3}\n' * 30,
        '{"body": "a"}\n' * 30,
        '{"text": "a", "label": 1}\n' * 30,
        '["a"]\n' * 30,
        '{"text": "a',
    ],
)
def test_damaged_texts(folder, content):
    (folder / "normal.jsonl").write_text(content)
    refuse(folder)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_files_that_were_cut(folder, name, keep):
    path = folder / name
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    refuse(folder)


def test_a_file_that_is_missing(folder):
    for name in NAMES[1:]:
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        refuse(folder)
        (folder / name).write_bytes(content)
    assert load(folder, ENCODERS).views == ("lengths", "characters")


def refuse(folder):
    """One line that names the place, whatever is wrong."""
    with pytest.raises((ValueError, OSError)) as caught:
        load(folder, ENCODERS)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message or "encoders: expected one named" in message
