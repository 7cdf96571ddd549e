"""Test the choice of descriptions by normal texts alone."""

import numpy as np
import pytest

from jeff_llm.anomaly.categories import Categories
from jeff_llm.anomaly.descriptions import choose, class_accuracy, normal_margin
from jeff_llm.anomaly.likelihood import NEUTRAL, ratio


def affinity_of(table):
    """A made table; the descriptions that were asked for are noted."""
    asked = []

    def affinity(words):
        asked.append(list(words))
        return np.array([table[word] for word in words], np.float32)

    return affinity, asked


def test_margin_by_hand():
    """Mean over standard deviation; NaN is left out; no spread, no margin."""
    values = np.array([-1.0, -3.0, np.nan])
    assert float(normal_margin(values)) == pytest.approx(2.0)
    assert float(normal_margin(-values)) == pytest.approx(-2.0)
    assert float(normal_margin(np.full(3, np.nan))) == -np.inf
    assert float(normal_margin(np.array([-1.0, -1.0]))) == -np.inf
    assert float(normal_margin(np.zeros(0))) == -np.inf


def test_accuracy_by_hand(unchecked):
    affinity = np.array([[3.0, 1.0, np.nan, 0.0], [2.0, 2.0, 1.0, 5.0]])
    assert float(class_accuracy(affinity, np.array([0, 1, 1, 0]))) == 0.5
    with pytest.raises(ValueError, match="label: expected one for each of 4 texts"):
        class_accuracy(affinity, np.array([0, 1]))


def test_one_class_is_chosen_by_the_margin():
    """The candidate that leaves the normal texts clearly on the normal side."""
    table = {
        "good": [-1.0, -1.1, -0.9],
        "bad": [-3.0, -1.0, -5.0],
        "spam": [-4.0, -4.2, -4.1],
    }
    candidates = [
        Categories({"ham": normal}, {"spam": "spam"}) for normal in ("bad", "good")
    ]
    affinity, asked = affinity_of(table)
    found = choose(affinity, candidates, ["ham"] * 3)
    assert found.index == 1 and found.categories is candidates[1]
    # Asked once, each description once.
    assert asked == [["bad", "spam", "good"]]
    rows = {name: np.array([row], np.float32) for name, row in table.items()}
    for quality, normal in zip(found.quality, ("bad", "good"), strict=True):
        margin = normal_margin(ratio(rows["spam"], rows[normal]))
        assert quality == pytest.approx(float(margin))


def test_several_classes_are_chosen_by_their_accuracy():
    """The margin decides between equals only."""
    table = {
        "a": [0.0, -9.0],
        "b": [-9.0, 0.0],
        "a, far": [-5.0, -6.0],
        "b, far": [-6.0, -5.0],
        "both": [1.0, 1.1],
        NEUTRAL: [-7.0, -7.5],
    }
    candidates = [
        Categories({"A": first, "B": second})
        for first, second in (("both", "both "), ("a, far", "b, far"), ("a", "b"))
    ]
    table["both "] = table["both"]
    affinity, asked = affinity_of(table)
    found = choose(affinity, candidates, ["A", "B"])
    assert NEUTRAL in asked[0]
    assert found.index == 2
    assert found.quality.argmin() == 0 and found.quality[1] > 0.9


def test_texts_that_could_not_be_read():
    """NaN is left out of the margin, and counts as wrong in the accuracy."""
    table = {
        "x": [-1.0, np.nan, -1.2],
        "y": [-1.0, np.nan, -9.0],
        "s": [-4.0, np.nan, -4],
    }
    candidates = [Categories({"ham": word}, {"spam": "s"}) for word in ("y", "x")]
    found = choose(affinity_of(table)[0], candidates, ["ham"] * 3)
    assert found.index == 1 and np.all(np.isfinite(found.quality))
    table = {"x": [np.nan] * 2, "s": [np.nan] * 2}
    only = [Categories({"ham": "x"}, {"spam": "s"})]
    assert choose(affinity_of(table)[0], only, ["ham"] * 2).index == 0


def test_a_quality_without_a_number_never_wins():
    """A tie of all ratios has no margin, in several classes either."""
    table = {
        "a": [0.0, -1.0],
        "b": [-1.0, 0.0],
        NEUTRAL: [-1.0, -1.0],
        "c": [-3.0, -2.0],
    }
    candidates = [Categories({"A": "a", "B": "b"}), Categories({"A": "c", "B": "a"})]
    found = choose(affinity_of(table)[0], candidates, ["A", "B"])
    assert not np.any(np.isnan(found.quality))
    assert found.index == 0


@pytest.mark.parametrize(
    ("candidates", "kinds", "message"),
    [
        ([], ["A"], "candidates, kinds: expected at least one each, got 0 and 1"),
        ([Categories({"A": "a"})], [], "got 1 and 0"),
        (
            [Categories({"A": "a"})],
            ["A", "B"],
            "kinds: expected the kinds .* got .*'B'",
        ),
    ],
)
def test_arguments_that_are_refused(candidates, kinds, message):
    with pytest.raises(ValueError, match=message):
        choose(affinity_of({"a": [1.0]})[0], candidates, kinds)
