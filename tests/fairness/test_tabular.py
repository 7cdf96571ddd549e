"""Test tables: reading, splitting and rejected input."""

import gzip
import zipfile

import jax
import numpy as np
import pytest

from jeff.fairness import tabular

GOOD = "age,sex_Male,sex_Female,y\n20,1,0,1\n30,0,1,0\n40,1,0,0\n50,0,1,1\n"


def read(tmp_path, text, **change):
    path = tmp_path / "table.csv"
    path.write_text(text)
    return tabular.read_csv(
        path, **{"label": "y", "group": "sex_Male", "drop": ("sex_",), **change}
    )


def test_csv_by_hand(tmp_path):
    found = read(tmp_path, GOOD)
    np.testing.assert_array_equal(found.inputs, [[20], [30], [40], [50]])
    np.testing.assert_array_equal(found.label, [1, 0, 0, 1])
    np.testing.assert_array_equal(found.group, [1, 0, 1, 0])
    assert found.features == ("age",)


def test_label_and_group_are_left_out_by_their_whole_name(tmp_path):
    text = "years,savings,s,y\n1,2,0,1\n3,4,1,0\n"
    found = read(tmp_path, text, label="y", group="s", drop=())
    assert found.features == ("years", "savings")


def test_packed_alike(tmp_path):
    plain = read(tmp_path, GOOD)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(GOOD.encode()))
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("inner.csv", GOOD)
    for name in ("t.csv.gz", "t.zip"):
        packed = tabular.read_csv(
            tmp_path / name, label="y", group="sex_Male", drop=("sex_",)
        )
        np.testing.assert_array_equal(packed.inputs, plain.inputs)


def test_the_favourable_outcome_may_be_zero(tmp_path):
    found = read(tmp_path, GOOD, favourable=0)
    np.testing.assert_array_equal(found.label, [0, 1, 1, 0])


@pytest.mark.parametrize(
    ("text", "change", "words"),
    [
        (GOOD, {"label": "income"}, "table.csv: expected a column 'income', got 4 col"),
        (GOOD, {"group": "race"}, "expected a column 'race'"),
        (GOOD.replace("30,", "nan,"), {}, "csv:3: column 'age': expected a finite"),
        (
            GOOD.replace("30,", "old,"),
            {},
            "csv:3: column 'age': expected a finite number, got 'old'",
        ),
        (GOOD.replace("30,0,1,0", "30,0,1"), {}, "csv:3: expected 4 values .*got 3"),
        (GOOD.replace(",1\n", ",0\n"), {}, "column 'y': expected both 0 and 1.*got 0"),
        (GOOD.replace("1,0,", "0,1,"), {}, "column 'sex_Male': expected both 0 and 1"),
        (GOOD.replace("0,1,1", "0,1,2"), {}, "column 'y'.*got 0, 1, 2"),
        (GOOD, {"drop": ("age", "sex_")}, "drop: expected some features to remain"),
        ("", {}, "expected a header"),
        (GOOD.replace(",", ";"), {}, "separated by commas, got the one column 'age;"),
        (
            "a,b\n",
            {"label": "a", "group": "b"},
            "expected a header and rows, got 2 names and no row",
        ),
    ],
)
def test_bad_tables(tmp_path, text, change, words):
    with pytest.raises(ValueError, match=words):
        read(tmp_path, text, **change)


def test_bad_files(tmp_path):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(GOOD.encode())[:20])
    (tmp_path / "t.zip").write_bytes(b"PK broken")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("t.csv.gz", "t.zip", "b.csv"):
        with pytest.raises(
            ValueError, match=f"{name}: expected a csv.*get or write it again"
        ):
            tabular.read_csv(tmp_path / name, label="y", group="g")
    with pytest.raises(FileNotFoundError):
        tabular.read_csv(tmp_path / "none.csv", label="y", group="g")


@pytest.fixture
def dataset():
    rng = np.random.default_rng(0)
    inputs = rng.normal(3, 2, (200, 4)).astype(np.float32)
    inputs[:, 3] = 7
    label = (np.arange(200) < 60).astype(np.int32)
    group = (np.arange(200) % 2).astype(np.int32)
    return tabular.Dataset(inputs, label, group, ("a", "b", "c", "d"), ("0", "1"))


def test_split_is_disjoint_stratified_and_standardised(dataset, key):
    marked = dataset._replace(inputs=np.arange(200, dtype=np.float32)[:, None])
    raw = tabular.split(marked, key=key, standardize=False)
    rows = [np.asarray(part.inputs)[:, 0] for part in raw]
    assert [len(part) for part in rows] == [160, 20, 20]
    assert len(np.unique(np.concatenate(rows))) == 200
    assert [int(part.label.sum()) for part in raw] == [48, 6, 6]

    parts = tabular.split(dataset, key=key)
    np.testing.assert_allclose(parts.train.inputs[:, :3].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(parts.train.inputs[:, :3].std(0), 1, atol=1e-5)
    np.testing.assert_array_equal(parts.test.inputs[:, 3], 0)
    assert abs(np.asarray(parts.test.inputs[:, :3]).mean()) > 1e-4


def test_split_by_key(dataset, key):
    first, again = (tabular.split(dataset, key=key) for _ in range(2))
    other = tabular.split(dataset, key=jax.random.key(1))
    np.testing.assert_array_equal(first.test.inputs, again.test.inputs)
    assert not np.array_equal(first.test.inputs, other.test.inputs)


@pytest.mark.parametrize("fractions", [(0.9, 0.1), (0.0, 0.5), (-0.1, 0.2)])
def test_bad_fractions(dataset, key, fractions):
    with pytest.raises(ValueError, match="fractions: expected two positive shares"):
        tabular.split(dataset, key=key, fractions=fractions)


@pytest.mark.parametrize("what", ["label", "group"])
def test_one_class_or_one_group(dataset, key, what):
    with pytest.raises(ValueError, match=f"part: {what}: expected both 0 and 1"):
        tabular.split(dataset._replace(**{what: np.ones(200, np.int32)}), key=key)


def test_adult(adult_path):
    found = tabular.adult("sex", path=adult_path)
    assert found.inputs.shape == (45222, 102)
    assert found.label.mean() == pytest.approx(0.2478, abs=1e-4)
    assert found.group.mean() == pytest.approx(0.6750, abs=1e-4)
    assert not any(name.startswith(("sex", "salary")) for name in found.features)
    by_race = tabular.adult("race", path=adult_path)
    assert by_race.inputs.shape == (45222, 99)
    assert by_race.group.mean() == pytest.approx(0.8603, abs=1e-4)


def test_german():
    try:
        found = tabular.german("age")
    except FileNotFoundError as error:
        pytest.skip(f"German credit is not here: {error}")
    assert found.inputs.shape[0] == 1000
    assert found.label.mean() == pytest.approx(0.7, abs=1e-6)
    assert not {"age", "sex-age", "credit-label"} & set(found.features)


def test_unknown_attribute():
    with pytest.raises(
        ValueError, match=r"sensitive: expected one of \['race', 'sex'\]"
    ):
        tabular.adult("height")


def test_acs_reads_a_file_of_folktables_form(tmp_path):
    pytest.importorskip("folktables", reason="folktables is an optional extra")
    folder = tmp_path / "2018" / "1-Year"
    folder.mkdir(parents=True)
    names = (
        "AGEP SCHL MAR RELP DIS ESP CIT MIG MIL ANC NATIVITY DEAR DEYE DREM SEX RAC1P"
    )
    rows = [[*names.split(), "ESR", "PWGTP"]]
    for row in range(40):
        values = [20 + row, 16, 1, 0, 2, 0, 1, 1, 4, 1, 1, 2, 2, 2, 1 + row % 2, 1]
        rows.append([*values, 1 if row % 3 else 6, 10])
    text = "\n".join(",".join(map(str, row)) for row in rows)
    (folder / "psam_p06.csv").write_text(text)
    found = tabular.acs("employment", "sex", root=tmp_path, download=False)
    assert found.inputs.shape == (40, 15)
    assert "SEX" not in found.features
    assert found.group.sum() == 20
    assert found.label.sum() == 26


def test_a_number_beyond_float32_is_named_and_not_infinite(tmp_path):
    # It would be infinite as a feature, and standardising would make all people NaN.
    path = tmp_path / "table.csv"
    path.write_text("age,sex,pay\n31,0,1\n1e39,1,0\n40,0,0\n")
    with pytest.raises(ValueError, match=r"table\.csv:3: column 'age': .* got '1e39'"):
        tabular.read_csv(path, label="pay", group="sex")


def test_many_rows_come_in_their_order(tmp_path):
    path = tmp_path / "table.csv"
    rows = [f"{number},{number % 2},{number // 2 % 2}" for number in range(20_000)]
    path.write_text("\n".join(["age,sex,pay", *rows]))
    found = tabular.read_csv(path, label="pay", group="sex")
    np.testing.assert_array_equal(found.inputs[:, 0], np.arange(20_000))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (",age,s,y\n0,3,0,1\n1,4,1,0\n", r"none over column 1 of 4; .*index=False"),
        ("age, ,s,y\n3,0,0,1\n4,1,1,0\n", "none over column 2 of 4"),
        ("age,y,s,y\n3,1,0,0\n4,0,1,1\n", "got 'y' 2 times; rename or remove one"),
        ("age,age ,s,y\n3,1,0,0\n4,0,1,1\n", "got 'age' 2 times"),
        ("age,copy,s,y\n3,1,0,1\n4,0,1,0\n5,0,0,0\n", "'copy': .* column 'y', or"),
        ("age,man,s,y\n3,1,0,1\n4,0,1,0\n5,1,0,0\n", "'man': .*column 's', or 1 less"),
    ],
)
def test_a_column_that_is_no_feature(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        read(tmp_path, text, group="s", drop=())


def test_a_mark_and_spaces_of_a_spreadsheet_are_read(tmp_path):
    found = read(tmp_path, "\ufeff y , age,s\n1,3,0\n0,4,1\n", group="s", drop=())
    assert found.features == ("age",)
    np.testing.assert_array_equal(found.label, [1, 0])


def test_weights_of_people_are_a_column_and_no_feature(tmp_path, key):
    rows = "".join(f"{n},{n % 2},{n // 2 % 2},{n + 0.5}\n" for n in range(80))
    text = f"age,s,y,w\n{rows}"
    found = read(tmp_path, text, group="s", drop=(), weight="w")
    assert found.features == ("age",)
    np.testing.assert_array_equal(found.weight, np.arange(80) + 0.5)
    parts = tabular.split(found, key=key, standardize=False)
    for part in parts:
        np.testing.assert_array_equal(part.weight, part.inputs[:, 0] + 0.5)
    for wrong, words in [
        ({"weight": "none"}, "expected a column 'none'"),
        ({"weight": "s"}, "label: expected a column apart from .*, got y, s, s"),
    ]:
        with pytest.raises(ValueError, match=words):
            read(tmp_path, text, **{"group": "s", "drop": (), **wrong})
    with pytest.raises(ValueError, match=r"'w': expected weights of at least 0.* -1"):
        read(tmp_path, text.replace("0.5\n", "-1\n", 1), group="s", weight="w")


def made(column, people=200):
    label, group = np.arange(people) % 2, np.arange(people) // 2 % 2
    inputs = np.asarray(column)[:, None]
    return tabular.Dataset(inputs, label, group, ("a",), ("0", "1"))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_constant_column_becomes_0_in_every_part(key, dtype):
    parts = tabular.split(made(np.full(200, 0.1, dtype)), key=key)
    for part in parts:
        np.testing.assert_array_equal(part.inputs, 0)


def test_a_column_constant_in_training_becomes_0_in_the_test(key):
    rows = tabular.split(made(np.arange(200.0)), key=key, standardize=False)
    column = np.full(200, 5.0)
    column[np.asarray(rows.test.inputs[:, 0], int)] = 1e6
    parts = tabular.split(made(column), key=key)
    np.testing.assert_array_equal(parts.test.inputs, 0)


def test_seconds_close_to_each_other_keep_their_digits(tmp_path, key):
    rows = "".join(
        f"{1_700_000_000 + n / 2},{n % 2},{n // 2 % 2}\n" for n in range(200)
    )
    found = read(tmp_path, f"time,s,y\n{rows}", group="s", drop=())
    parts = tabular.split(found, key=key)
    together = np.concatenate([np.asarray(part.inputs)[:, 0] for part in parts])
    assert len(np.unique(together)) == 200
    expected = np.asarray(found.inputs[:, 0] - 1_700_000_000)
    scale = np.polyfit(np.sort(expected), np.sort(together), 1)
    fitted = np.polyval(scale, np.sort(expected))
    np.testing.assert_allclose(np.sort(together), fitted, atol=1e-5)


def test_half_precision_is_standardised_without_overflow(key):
    column = (np.arange(200) % 50 + 60_000).astype(np.float16)
    parts = tabular.split(made(column), key=key)
    assert np.isfinite(parts.train.inputs).all()
    assert np.asarray(parts.train.inputs).std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("value", [1e39, np.nan, -np.inf])
def test_numbers_that_float32_does_not_hold_are_refused(key, value):
    column = np.arange(200.0)
    column[7] = value
    for standardize in (True, False):
        with pytest.raises(
            ValueError, match=r"inputs: expected finite .*person 7, .*a"
        ):
            tabular.split(made(column), key=key, standardize=standardize)
