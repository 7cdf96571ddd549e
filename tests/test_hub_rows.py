"""Test Hugging Face data sets as a user's own data: types, splits and damage."""

import numpy as np
import pytest

from jeff import hub_rows
from jeff.hub_rows import json_rows, read_columns

datasets = pytest.importorskip("datasets", reason="datasets is an optional extra")


def saved(path, columns, classes=()):
    data = datasets.Dataset.from_dict(columns)
    for name in classes:
        data = data.cast_column(name, datasets.ClassLabel(names=["no", "yes"]))
    data.save_to_disk(path)
    return path


def test_columns_of_every_plain_type(tmp_path):
    path = saved(
        tmp_path / "a",
        {
            "byte": np.array([1, -2, 3], np.int8),
            "half": np.array([0.5, 1.5, 2.5], np.float16),
            "whole": [1, None, 3],
            "flag": [True, None, False],
            "sure": [True, False, True],
            "word": ["x", None, "y"],
            "pay": [1, 0, -1],
        },
        classes=["pay"],
    )
    found = read_columns(path)
    assert found.source == str(path)
    assert found.classes == {"pay": ("no", "yes")}
    columns = found.columns
    assert [columns[n].dtype for n in ("byte", "half", "sure")] == ["i1", "f2", "?"]
    np.testing.assert_array_equal(columns["byte"], [1, -2, 3])
    np.testing.assert_array_equal(columns["half"], [0.5, 1.5, 2.5])
    np.testing.assert_array_equal(columns["whole"], [1, np.nan, 3])
    np.testing.assert_array_equal(columns["flag"], [1, np.nan, 0])
    np.testing.assert_array_equal(columns["pay"], [1, 0, -1])
    assert columns["word"].tolist() == ["x", None, "y"]


def test_rows_have_classes_by_name_and_places(tmp_path):
    columns = {"text": ["a", "b", None], "mark": [1, None, -1], "n": [[1], [], [2, 3]]}
    path = saved(tmp_path / "a", columns, classes=["mark"])
    assert list(json_rows(path)) == [
        (f"{path}:1", {"text": "a", "mark": "yes", "n": [1]}),
        (f"{path}:2", {"text": "b", "mark": None, "n": []}),
        (f"{path}:3", {"text": None, "mark": None, "n": [2, 3]}),
    ]


def test_rows_beyond_one_part_are_counted_on(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_rows, "_ROWS", 2)
    path = saved(tmp_path / "a", {"i": [0, 1, 2, 3, 4]})
    assert list(json_rows(path)) == [(f"{path}:{i + 1}", {"i": i}) for i in range(5)]


def test_splits(tmp_path):
    """The only one, else "train" with a warning, else one that is named."""
    parts = {
        n: datasets.Dataset.from_dict({"n": [n]}) for n in ("train", "test", "extra")
    }
    for name, taken in {
        "one": ["test"],
        "two": ["test", "extra"],
        "all": [*parts],
    }.items():
        datasets.DatasetDict({n: parts[n] for n in taken}).save_to_disk(tmp_path / name)
    assert next(json_rows(tmp_path / "one"))[1] == {"n": "test"}
    assert read_columns(tmp_path / "one").source == str(tmp_path / "one" / "test")
    with pytest.warns(UserWarning, match=r"'train' of \['train', 'test', 'extra'\]"):
        assert next(json_rows(tmp_path / "all"))[1] == {"n": "train"}
    assert next(json_rows(tmp_path / "all" / "extra"))[1] == {"n": "extra"}
    with pytest.raises(
        ValueError, match=r"got \['test', 'extra'\]; name one, .*two/SP"
    ):
        read_columns(tmp_path / "two")
    with pytest.raises(FileNotFoundError, match="nowhere: expected a folder saved"):
        read_columns(tmp_path / "all" / "nowhere")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_arrow_file_is_named(tmp_path, share):
    path = saved(tmp_path / "a", {"x": list(range(2000)), "s": ["word"] * 2000})
    (arrow,) = path.glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[: int(share * arrow.stat().st_size)])
    for read in (read_columns, lambda path: list(json_rows(path))):
        with pytest.raises(ValueError, match=f"^{path}: expected a folder saved by"):
            read(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": []}, "at least one row, got none"),
        ({"x": [[1], [2]]}, r"column 'x': expected numbers or texts, got .*remove_col"),
        ({"x": [{"a": 1}]}, "column 'x': expected numbers or texts, got .*type dict"),
        ({"x": [np.datetime64("2020-01-01", "s")]}, "column 'x': expected .*timestamp"),
    ],
)
def test_columns_that_are_not_plain(tmp_path, columns, message):
    with pytest.raises(ValueError, match=message):
        read_columns(saved(tmp_path / "a", columns))


def test_a_folder_that_is_no_data_set(tmp_path):
    with pytest.raises(ValueError, match="got a folder without state"):
        list(json_rows(tmp_path))
    (tmp_path / "dataset_dict.json").write_text('{"splits": "train"}')
    with pytest.raises(ValueError, match="json: expected a list of splits"):
        read_columns(tmp_path)


def test_a_number_that_is_not_finite(tmp_path):
    path = saved(tmp_path / "a", {"x": [[1.0], [np.inf]]})
    with pytest.raises(ValueError, match="a:2: x: 0: expected finite numbers, got inf"):
        list(json_rows(path))
    assert [row for _, row in json_rows(path, finite=False)][1] == {"x": [np.inf]}


@pytest.fixture
def hub(monkeypatch):
    """What reaches `datasets.load_dataset`, which answers with two splits."""
    calls = []

    def load(*args, split=None, **options):
        calls.append((*args, split, options))
        data = datasets.Dataset.from_dict({"x": [2, 1]}).select([1, 0])
        return data if split else datasets.DatasetDict(train=data, test=data)

    monkeypatch.setattr(datasets, "load_dataset", load)
    return calls


def test_name_configuration_and_split_reach_the_hub(hub):
    """And nothing else does: no permission to run code."""
    rest = {"keep_in_memory": True}
    found = list(json_rows("hf:nyu/glue:sst2@test"))
    assert found == [(f"hf:nyu/glue:sst2@test:{n}", {"x": n}) for n in (1, 2)]
    read_columns("hf:imdb@train[:10%]")
    with pytest.warns(UserWarning, match="name another as in hf:a/b:c@SPLIT"):
        assert read_columns("hf:a/b:c").source == "hf:a/b:c@train"
    assert hub == [
        ("nyu/glue", "sst2", "test", rest),
        ("imdb", None, "train[:10%]", rest),
        ("a/b", "c", None, rest),
    ]


@pytest.mark.parametrize("name", ["", "a/b/c", "../a", "a/b@", "csv", "here"])
def test_what_is_no_name_of_the_hub(hub, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(ValueError, match=f"^hf:{name}: expected "):
        read_columns(f"hf:{name}")
    assert not hub


@pytest.mark.parametrize("error", [ConnectionError, FileNotFoundError, ValueError])
def test_the_hubs_errors_are_named(monkeypatch, error):
    def fail(*args, **options):
        raise error("no such thing")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(ValueError, match=r"^hf:a/b: .*no such thing.*the network"):
        read_columns("hf:a/b")
