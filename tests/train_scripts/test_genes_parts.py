"""Test what the parts of the gene script compute: ranks, claims, tables."""

import dataclasses

import numpy as np
import pytest

from configs.genes import PRESETS, Config
from jeff_llm.genes import scoring
from jeff_llm.genes.evaluation import Evaluation, Interval
from train_scripts.genes import claims, genome, sets, summary
from train_scripts.genes.sets import Item, Sets

CONFIG = dataclasses.replace(
    PRESETS["smoke"], rankers=("biased",), permutations=(1, 3), seeds=(0, 1, 2)
)


def made(top1_by_strategy, bias_by_strategy):
    """Measurements of three seeds that differ a little."""
    items, rows = [], []
    for seed in CONFIG.seeds:
        for size, top1 in ((5, 0.9), (10, 0.6)):
            items.append(Item("size", seed, "biased", "random", size))
            rows.append({"top1": top1 + 0.01 * seed, "low": 0.5, "high": 1.0})
        for name in sets.strategy_names(CONFIG, "biased"):
            top1, calls = top1_by_strategy.get(name, (0.5, 7))
            items.append(Item("strategy", seed, "biased", "random", 10, name))
            rows.append(
                {
                    "top1": top1 + 0.01 * seed,
                    "low": 0.4,
                    "high": 0.9,
                    "calls": float(calls),
                    "tokens": 0.0,
                }
            )
        for name, (position, stability, popularity) in bias_by_strategy.items():
            items.append(Item("bias", seed, "biased", "random", 10, name))
            values = position + 0.01 * seed, stability + 0.01 * seed, popularity
            rows.append(
                dict(zip(("position", "stability", "popularity"), values, strict=True))
            )
    return Sets(items, rows, {"biased": 20})


MOST = "divide and conquer x3"
BIAS = {
    "full list": (-0.5, 0.4, -0.3),
    MOST: (-0.1, 0.7, -0.35),
    MOST + sets.ADJUSTED: (-0.1, 0.7, -0.02),
}


def test_claims_hold_where_divide_and_conquer_helps():
    found = made({"full list": (0.5, 1), MOST: (0.8, 51)}, BIAS)
    size, recovers, bias = claims.sets(CONFIG, found)
    assert (size.holds, recovers.holds, bias.holds) == (True, True, True)
    assert "5 to 10 genes (chance 20% to 10%)" in size.claim
    assert f"within 2 points of the best: {MOST}, 51 calls" in recovers.measured
    assert "adjusted -0.02" in bias.measured


def test_claims_fail_where_it_does_not():
    same = {name: (-0.5, 0.4, -0.3) for name in BIAS}
    worse = made({"full list": (0.8, 1), MOST: (0.5, 51)}, same)
    _, recovers, bias = claims.sets(CONFIG, worse)
    assert recovers.holds is False
    assert "best: full list, 1 calls" in recovers.measured
    # Equal before and after: it is not lower.
    assert bias.holds is False


def test_one_seed_decides_by_its_intervals_alone():
    config = dataclasses.replace(CONFIG, seeds=(0,))
    found = made({MOST: (0.8, 51)}, BIAS)
    kept = [i for i, item in enumerate(found.items) if item.seed == 0]
    one = Sets([found.items[i] for i in kept], [found.rows[i] for i in kept], {})
    size, recovers, bias = claims.sets(config, one)
    assert (size.holds, recovers.holds, bias.holds) == (None, None, None)


def test_tables_have_a_row_for_each_strategy():
    found = made({"full list": (0.5, 1)}, BIAS)
    text = summary.strategy_table(CONFIG, found)
    assert "| full list | biased | 10 | 51.0 ± 1.0 | 1 | 0 |" in text
    assert text.count("| biased |") == len(sets.strategy_names(CONFIG, "biased"))
    assert "| biased, 20 cases | 91.0 ± 1.0 | 61.0 ± 1.0 |" in summary.sets_table(
        CONFIG, found
    )


def test_phenobrain_needs_all_three_to_be_above():
    def evaluation(top1, top3, top10):
        wide = [Interval(x, x - 0.01, x + 0.01) for x in (top1, top3, top10)]
        return Evaluation(wide[0], wide[1], wide[1], wide[2], wide[0])

    (claim,) = claims.phenobrain({"combined": evaluation(0.4, 0.6, 0.7)})
    assert claim.holds is True
    (claim,) = claims.phenobrain({"combined": evaluation(0.4, 0.4, 0.7)})
    assert claim.holds is False
    (claim,) = claims.phenobrain({"combined": evaluation(0.4, 0.48, 0.7)})
    assert claim.holds is None


def test_best_rank_of_several_right_answers():
    scores = np.array([[3.0, 1.0, 1.0, -np.inf], [1.0, 2.0, 3.0, -np.inf]])
    np.testing.assert_array_equal(genome.best_rank(scores, [[1, 3], []]), [2.5, np.inf])
    assert np.isinf(genome.best_rank(scores, [[3], [3]])).all()


def test_strategies_of_a_slow_ranker_are_fewer():
    config = Config(permutations=(1, 3, 9))
    names = sets.strategy_names(config, "biased")
    assert names[0] == "full list"
    assert "divide and conquer x9, adjusted" in names
    assert sets.most_divided(config, "biased") == "divide and conquer x9"
    assert sets.most_divided(config, "smollm2_list") == "divide and conquer x3"


def test_measures_of_the_demo_make_the_ensemble():
    assert set(scoring.ENSEMBLE) <= set(PRESETS["demo"].measures)
    for preset in PRESETS.values():
        assert set(preset.measures) <= set(scoring.MEASURES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": ("genome", "nope")}, "parts: expected some of"),
        ({"keep": 5}, "keep: expected less than group_size=5, got 5"),
        ({"sizes": (5, 5)}, "sizes: expected different numbers of at least 2"),
        ({"sizes": (1,)}, "sizes: expected different numbers of at least 2"),
        ({"max_error": 1.0}, r"max_error: expected a share in \(0, 1\)"),
        ({"chat": "http://x"}, "chat: expected `chat` and `chat_model` together"),
        ({"data": "a", "terms": "b"}, "terms: expected either `data` or `terms`"),
        ({"noise": float("nan")}, "prices, noise: expected finite numbers"),
        ({"prices": (float("inf"), 0.0)}, "prices, noise: expected finite numbers"),
        ({"top": 0}, "top: expected at least 1, got 0"),
    ],
)
def test_wrong_settings(change, message):
    with pytest.raises(ValueError, match=message):
        Config(**change)
