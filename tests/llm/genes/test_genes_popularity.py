"""Test the remedy for popularity: the slope by hand, and what it does to a bias."""

import jax
import numpy as np
import pytest

from jeff_llm.genes import bias, biased
from jeff_llm.genes.bias import Candidates
from jeff_llm.genes.popularity import Adjusted, log_odds, popularity_slope
from jeff_llm.genes.ranking import Phenotypes, by_score

NOBODY = Phenotypes(("HP:0000118",))


def test_log_odds_by_hand():
    odds = log_odds(by_score(np.array([1.0, 5.0, 3.0, 2.0])))
    best, second = np.log(3.5 / 0.5), np.log(2.5 / 1.5)
    np.testing.assert_allclose(odds, [-best, best, second, -second])


def test_slope_by_hand():
    """Two genes: z is half of the difference of the logarithms, the odds ln 3."""
    counts = {"A": 0, "B": np.e**2 - 1}
    ranking = by_score(np.array([0.0, 1.0]))
    slope = popularity_slope([ranking], [["A", "B"]], counts)
    assert slope == pytest.approx(np.log(3))
    assert popularity_slope([ranking], [["B", "A"]], counts) == pytest.approx(
        -np.log(3)
    )


def test_adjusted_takes_off_exactly_that():
    counts = {"A": 0, "B": 10, "C": 100}

    def rank(phenotypes, genes):
        return by_score(
            np.array([counts.get(gene, 0) for gene in genes], float), calls=2
        )

    genes = ["A", "B", "C"]
    slope = popularity_slope([rank(NOBODY, genes)], [genes], counts)
    found = Adjusted(rank, counts, slope)(NOBODY, genes)
    z = np.log1p([0, 10, 100])
    np.testing.assert_allclose((z - z.mean()) @ found.scores, 0, atol=1e-9)
    assert found.calls == 2
    with pytest.raises(ValueError, match="'D' is missing"):
        Adjusted(rank, counts, slope)(NOBODY, ["A", "B", "D"])


def test_a_known_bias_is_taken_off():
    rng = np.random.default_rng(0)
    names = [f"G{i}" for i in range(200)]
    counts = dict(zip(names, (1 + rng.pareto(1, 200) * 10).tolist(), strict=True))
    quality = dict(zip(names, rng.normal(size=200).tolist(), strict=True))
    ranker = biased.Biased(
        quality,
        popularity=counts,
        popularity_bias=2.0,
        noise=0.2,
        key=jax.random.key(0),
    )

    def lists(number):
        out = []
        for _ in range(number):
            genes = rng.choice(names, 20, replace=False).tolist()
            known = np.array([counts[gene] for gene in genes])
            out.append(Candidates(NOBODY, genes, 0, known))
        return out

    learned, tested = lists(20), lists(20)
    rankings = ranker.many([(each.phenotypes, each.genes) for each in learned])
    slope = popularity_slope(rankings, [each.genes for each in learned], counts)
    options = {"num_shifts": 2, "num_permutations": 2, "num_resamples": 200}
    before, after = (
        bias.measure(each, tested, key=jax.random.key(1), **options).popularity
        for each in (ranker, Adjusted(ranker, counts, slope))
    )
    assert before.high < -0.5
    assert abs(after.estimate) < 0.2


@pytest.mark.parametrize(
    ("rankings", "genes", "counts", "message"),
    [
        ([], [], {}, "rankings: expected one or more"),
        ([by_score(np.zeros(2))], [], {}, "got 1 and 0"),
        ([by_score(np.zeros(2))], [["A", "B"]], {"A": 1}, "'B' is missing"),
        ([by_score(np.zeros(2))], [["A", "B"]], {"A": 1, "B": 1}, "different popular"),
    ],
)
def test_what_cannot_be_learned_is_refused(rankings, genes, counts, message):
    with pytest.raises(ValueError, match=message):
        popularity_slope(rankings, genes, counts)


def test_a_slope_without_a_number_is_refused():
    with pytest.raises(ValueError, match="slope: expected a finite number, got nan"):
        Adjusted(lambda p, g: by_score(np.zeros(len(g))), {}, float("nan"))
