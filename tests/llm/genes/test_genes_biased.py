"""Test the simulator: its choices follow the formula, its noise the request."""

import jax
import numpy as np
import pytest

from jeff_llm.genes.biased import Biased
from jeff_llm.genes.ranking import Phenotypes, Ranking, by_score

KEY = jax.random.key(0)
GENES = ["A", "B", "C", "D"]
QUALITY = {"A": 0.0, "B": 0.5, "C": 1.0, "D": -0.5}
CITATIONS = {"A": 0, "B": 10, "C": 3, "D": 1000}


def patients(count):
    return [Phenotypes((f"HP:{i:07d}",)) for i in range(count)]


def softmax(utility):
    power = np.exp(utility - np.max(utility))
    return power / power.sum()


def test_utility_without_noise_by_hand():
    """Second and third genes at places 1 and 2 lose ln 2 and ln 3 times the bias."""
    ranker = Biased(QUALITY, position_bias=2.0, noise=0.0, key=KEY)
    found = ranker(patients(1)[0], ["C", "B", "A"])
    np.testing.assert_allclose(found.scores, [1.0, 0.5 - 2 * np.log(2), -2 * np.log(3)])
    assert found.order.tolist() == [0, 1, 2] and found.calls == 1
    ranker = Biased(
        QUALITY, popularity=CITATIONS, popularity_bias=3.0, noise=0.0, key=KEY
    )
    logs = np.log1p([0, 10, 3, 1000])
    expected = 3 * (logs - logs.mean()) / logs.std() + list(QUALITY.values())
    np.testing.assert_allclose(ranker(patients(1)[0], GENES).scores, expected)
    # A gene's popularity does not depend on the list.
    part = ranker(patients(1)[0], ["D", "A"]).scores
    np.testing.assert_allclose(part, expected[[3, 0]])


@pytest.mark.parametrize("noise", [0.5, 1.5])
def test_first_genes_follow_luce(noise):
    """Shares of first places against the softmax of the formula."""
    ranker = Biased(
        QUALITY,
        popularity=CITATIONS,
        position_bias=0.6,
        popularity_bias=0.4,
        noise=noise,
        key=KEY,
    )
    found = ranker.many([(who, GENES) for who in patients(3000)])
    share = np.bincount([each.order[0] for each in found], minlength=4) / 3000
    logs = np.log1p([0, 10, 3, 1000])
    utility = np.array(list(QUALITY.values())) - 0.6 * np.log([1, 2, 3, 4])
    utility += 0.4 * (logs - logs.mean()) / logs.std()
    np.testing.assert_allclose(share, softmax(utility / (noise * np.log(4))), atol=0.03)


def test_accuracy_falls_with_the_length_by_more_than_the_competition():
    """Against n - 1 equals with noise that grows; noise as for two would do better."""
    top = {}
    for count in (2, 10, 50):
        names = [f"G{i}" for i in range(count)]
        ranker = Biased(dict.fromkeys(names, 0.0) | {"G0": 4.0}, key=KEY)
        found = ranker.many([(who, names) for who in patients(1000)])
        top[count] = np.mean([each.order[0] == 0 for each in found])
        utility = np.array([4.0] + [0.0] * (count - 1))
        expected = softmax(utility / np.log(count))[0]
        np.testing.assert_allclose(top[count], expected, atol=0.05)
    assert top[2] > top[10] > top[50]
    assert top[50] < softmax(np.array([4.0] + [0.0] * 49) / np.log(2))[0] - 0.3


def test_noise_depends_on_the_whole_request_and_nothing_else():
    who, other = patients(2)
    ranker = Biased(dict.fromkeys(GENES, 0.0), key=KEY)
    scores = ranker(who, GENES).scores
    together = ranker.many([(other, GENES), (who, GENES)])
    np.testing.assert_array_equal(together[1].scores, scores)
    others = [
        ranker(other, GENES).scores,
        ranker(who, GENES[::-1]).scores[::-1],
        Biased(ranker.quality, key=jax.random.key(1))(who, GENES).scores,
    ]
    assert all(np.abs(scores - each).min() > 1e-6 for each in others)


def test_quality_may_be_a_ranker():
    def quality(phenotypes, genes):
        return by_score(np.arange(len(genes)) * 1.0, calls=2, tokens=5)

    found = Biased(quality, noise=0.0, key=KEY)(patients(1)[0], GENES)
    assert isinstance(found, Ranking)
    assert (found.calls, found.tokens) == (3, 5)
    assert found.order.tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": -1.0}, "noise: expected at least 0, got -1.0"),
        ({"position_bias": np.nan}, "position_bias: expected a finite number, got nan"),
        ({"popularity_bias": 1.0}, "popularity: expected citations by gene"),
        (
            {"popularity_bias": 1.0, "popularity": {"A": -1}},
            "got -1 for 'A'",
        ),
        (
            {"popularity_bias": 1.0, "popularity": {"A": 3, "B": 3}},
            "different popularity, got 2 genes of the same",
        ),
        ({"popularity_bias": 1.0, "popularity": {}}, "got 0 genes"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Biased(QUALITY, key=KEY, **options)


def test_unknown_genes_are_named():
    who = patients(1)[0]
    with pytest.raises(ValueError, match=r"quality: .* none for 'X' \(1 in all\)"):
        Biased(QUALITY, key=KEY)(who, ["A", "X"])
    known = {"A": 1, "B": 2}
    ranker = Biased(QUALITY, popularity=known, popularity_bias=1.0, key=KEY)
    with pytest.raises(ValueError, match=r"popularity: .* none for 'C', 'D'"):
        ranker(who, GENES)
