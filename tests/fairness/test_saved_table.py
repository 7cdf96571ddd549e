"""Test Hugging Face data sets of people: the checks of a CSV, and a run of YODO."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from configs.yodo import PRESETS
from jeff.fairness import tabular
from train_scripts.yodo import run

datasets = pytest.importorskip("datasets", reason="datasets is an optional extra")
RNG = np.random.default_rng(0)
SEX = [i % 2 for i in range(60)]
PEOPLE = {
    "age": [*range(20, 80)],
    "hours": RNG.normal(40, 5, 60).astype(np.float16),
    "married": [i % 3 > 0 for i in range(60)],
    "sex": SEX,
    "pay": [i // 2 % 2 > 0 for i in range(60)],
    "fnlwgt": [1 + i % 4 for i in range(60)],
}
OPTIONS: dict[str, Any] = {"label": "pay", "group": "sex", "weight": "fnlwgt"}


@pytest.fixture
def saved(tmp_path):
    def save(path="people", **columns):
        data = datasets.Dataset.from_dict(PEOPLE | columns)
        names = datasets.ClassLabel(names=["Female", "Male"])
        data.cast_column("sex", names).save_to_disk(tmp_path / path)
        return tmp_path / path

    return save


def test_the_same_data_set_as_from_a_csv(saved, tmp_path):
    rows = np.column_stack([np.asarray(v, np.float64) for v in PEOPLE.values()])
    csv = tmp_path / "people.csv"
    np.savetxt(csv, rows, "%.17g", ",", header=",".join(PEOPLE), comments="")
    expected = tabular.read_csv(csv, **OPTIONS, favourable=0, drop=("hours",))
    found = tabular.read_saved(saved(), **OPTIONS, favourable=0, drop=("hours",))
    assert found.features == expected.features == ("age", "married")
    assert found.groups == ("Female", "Male")
    for name in ("inputs", "label", "group", "weight"):
        one, other = getattr(found, name), getattr(expected, name)
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"age": [None, *range(59)]}, ":1: column 'age': expected a finite .*nan"),
        ({"job": ["x", None] * 30}, ":2: column 'job': expected a category.*got ''"),
        ({"sex": [-1, *SEX[1:]]}, ":1: column 'sex': expected a finite number, got -1"),
        ({"pay": [2, *SEX[1:]]}, "column 'pay'"),
        ({"copy": PEOPLE["pay"]}, "column 'copy': expected a feature, got the values"),
        ({"fnlwgt": [-1.0] * 60}, "column 'fnlwgt': expected weights of at least 0"),
        ({"": SEX}, "expected a name over each column"),
        ({"__index_level_0__": SEX}, r"row numbers .*remove_columns"),
    ],
)
def test_the_checks_of_a_csv(saved, columns, message):
    with pytest.raises(ValueError, match=message):
        tabular.read_saved(saved(**columns), **OPTIONS)


def test_classes_and_texts_become_features(saved, tmp_path):
    work = ["day", "night", "shift"] * 20
    data = datasets.load_from_disk(saved(job=[i % 3 for i in range(60)], work=work))
    jobs = datasets.ClassLabel(names=["nurse", "cook", "clerk"])
    pay = datasets.ClassLabel(names=["no", "yes"])
    data = data.cast_column("job", jobs).cast_column("pay", pay)
    data.save_to_disk(tmp_path / "jobs")
    found = tabular.read_saved(tmp_path / "jobs", **OPTIONS, favourable="no")
    assert found.features[3:6] == ("job_nurse", "job_cook", "job_clerk")
    assert found.features[6:] == ("work_day", "work_night", "work_shift")
    np.testing.assert_array_equal(found.inputs[:, 3:6], np.tile(np.eye(3), (20, 1)))
    np.testing.assert_array_equal(found.inputs[:, 6:], found.inputs[:, 3:6])
    np.testing.assert_array_equal(found.label, 1 - np.array(PEOPLE["pay"]))
    with pytest.raises(ValueError, match=r"'job': .*two categories, got 3: 'nurse, co"):
        tabular.read_saved(tmp_path / "jobs", label="job", group="sex")


@pytest.fixture
def config(saved):
    return dataclasses.replace(
        PRESETS["file"],
        data=str(saved()),
        outcome="pay",
        sensitive="sex",
        weight="fnlwgt",
        num_epochs=1,
        batch_size=16,
        num_levels=3,
        num_fixed=2,
        hidden=(4,),
        seeds=(0,),
    )


def test_the_command_reads_a_saved_folder(config):
    parts, groups = run._load(config, 0)
    assert groups == ("Female", "Male")
    assert parts.train.inputs.shape == (48, 3)
    assert parts.train.weight is not None


@pytest.mark.slow
def test_a_run_of_yodo_on_a_saved_folder(config, tmp_path):
    found = run.run(config, tmp_path / "run", progress=False)
    assert 0 <= found.metrics["accuracy_start"] <= 1
    assert "Male" in (tmp_path / "run" / "explorer.json").read_text()
