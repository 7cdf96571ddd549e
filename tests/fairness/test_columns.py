"""Test columns of texts in a table of people: categories, and what is none."""

import numpy as np
import pytest

from jeff.fairness import tabular

TEXT = """age,city,gender,job,hired
31,Rome,woman,cook,yes
42,Oslo,man,,no
27,Rome,man,cook,no
55, Bern ,woman,nurse,yes
"""
GOOD = TEXT.replace("man,,no", "man,cook,no")


def read(tmp_path, text=GOOD, **change):
    path = tmp_path / "people.csv"
    path.write_text(text)
    options = {"label": "hired", "group": "gender", "favourable": "yes"}
    return tabular.read_csv(path, **{**options, **change})


def test_by_hand(tmp_path):
    found = read(tmp_path)
    assert found.features == ("age", "city_Bern", "city_Oslo", "city_Rome", "job_nurse")
    np.testing.assert_array_equal(
        found.inputs,
        [[31, 0, 0, 1, 0], [42, 0, 1, 0, 0], [27, 0, 0, 1, 0], [55, 1, 0, 0, 1]],
    )
    np.testing.assert_array_equal(found.label, [1, 0, 0, 1])
    assert found.groups == ("man", "woman")
    np.testing.assert_array_equal(found.group, [1, 0, 0, 1])


def test_the_other_outcome_and_names_of_groups(tmp_path):
    found = read(tmp_path, favourable="no", groups=("m", "w"), drop=("city",))
    np.testing.assert_array_equal(found.label, [0, 1, 1, 0])
    assert found.groups == ("m", "w")
    assert found.features == ("age", "job_nurse")


def test_features_of_many_rows_are_those_of_pandas(tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is the peer")
    rng = np.random.default_rng(0)
    size = 20_000
    frame = pandas.DataFrame(
        {
            "work": rng.choice(["public", "private", "own", "none"], size),
            "age": rng.integers(17, 90, size),
            "state": rng.choice([f"s{number}" for number in range(50)], size),
            "pay": rng.integers(0, 2, size),
            "sex": rng.integers(0, 2, size),
        }
    )
    found = read(
        tmp_path, frame.to_csv(index=False), label="pay", group="sex", favourable=1
    )
    wanted = pandas.get_dummies(frame.drop(columns=["pay", "sex"]))
    assert set(found.features) == set(wanted.columns)
    for place, name in enumerate(found.features):
        np.testing.assert_array_equal(found.inputs[:, place], wanted[name])


@pytest.mark.parametrize(
    ("text", "change", "words"),
    [
        (TEXT, {}, r"csv:3: column 'job': expected a category.*got ''; .*not both"),
        (
            GOOD.replace("27,Rome", "27,12"),
            {},
            r"csv:4: column 'city': expected a category, as in the first row, got '12'",
        ),
        (
            GOOD.replace("27,", "old,"),
            {},
            "csv:4: column 'age': expected a finite numb",
        ),
        (
            GOOD,
            {"favourable": 1},
            r"'hired': expected 0 and 1, got the texts no and yes",
        ),
        (
            GOOD,
            {"favourable": "si"},
            "favourable: expected one of .* no and yes of col",
        ),
        (
            GOOD,
            {"label": "city", "favourable": "Rome"},
            "'city': expected 0 and 1 or tw",
        ),
        (GOOD, {"weight": "job"}, "'job': expected weights, got the category 'cook'"),
        (
            GOOD,
            {"label": ""},
            r"columns of outcome and group .*: age, city, gender, job",
        ),
        (GOOD.replace("age,", "job_nurse,"), {}, "got 'job_nurse' 2 times"),
    ],
)
def test_what_is_no_category(tmp_path, text, change, words):
    with pytest.raises(ValueError, match=words):
        read(tmp_path, text, **change)


def test_names_are_no_categories(tmp_path):
    rows = [f"{n},name{n},{n % 2},{n // 2 % 2}" for n in range(101)]
    text = "\n".join(["age,name,sex,pay", *rows])
    options = {"label": "pay", "group": "sex", "favourable": 1}
    with pytest.raises(ValueError, match=r"'name': .*100 categories, got 101 .*drop="):
        read(tmp_path, text, **options)
    assert read(tmp_path, text, **options, drop=("name",)).features == ("age",)
