"""Test the claims of the dialogue script: pairs, signs, intervals, too few items."""

import dataclasses

import jax
import numpy as np
import pytest

from configs.dialogue import PRESETS
from jeff_llm.clinic import rules
from jeff_llm.clinic.evaluation import Measure
from jeff_llm.clinic.items import Item
from jeff_llm.clinic.making import make_mazes
from jeff_llm.clinic.maze import Maze
from jeff_llm.clinic.official import make_official
from train_scripts.dialogue.claims import claims, decided, points
from train_scripts.dialogue.measure import Chosen
from train_scripts.dialogue.pooled import (
    best_rule,
    calibration,
    chance,
    difference,
    outcomes,
    pooled,
    select,
    summary,
    tasks,
)

CONFIG = dataclasses.replace(PRESETS["smoke"], noise=(0, 3), resamples=50)


def item(number):
    return Item(
        id=f"case {number:02d}",
        background=f"Patient {number} comes.",
        evidence=tuple(f"Sentence {each} of {number}." for each in range(4)),
        question="Why?",
        answer=f"answer {number}",
        options=(),
        level="",
        kinds=("symptom",) * 4,
        organs=frozenset(),
        age_group="unknown",
        sex="unknown",
        simulated=True,
    )


def mazes_of(count, seed=0, noise=(0, 3)):
    key = jax.random.key(seed)
    return make_mazes([item(n) for n in range(count)], noise=noise, key=key)


def choices(part, method, mazes, pick, rounds="one"):
    return [
        Chosen(
            part,
            method,
            rounds,
            noise,
            level,
            [pick(maze) for maze in level],
            [[0.5] * len(maze.gold) for maze in level],
        )
        for noise, level in mazes.items()
    ]


def right(maze):
    return list(maze.gold)


def backwards(maze):
    """No position is right, all of the evidence is."""
    return list(maze.gold)[::-1]


def study(count, arms):
    """Choices of arms and of rules that are never right, in as many items."""
    mazes = mazes_of(count)
    found = [
        each
        for rule in rules.RULES
        for each in choices("rules", rule, mazes, backwards)
    ]
    for method, pick in arms.items():
        for rounds in ("one", "several"):
            found += choices("heads", method, mazes, pick, rounds)
    return found


def held(found, words):
    [claim] = [each for each in found if words in each.claim]
    return claim


def test_signs_and_words():
    found = study(12, {"untuned": backwards, "monologue": right, "dialogue": right})
    made = claims(CONFIG, "made", found)
    gain = held(made, "dialogue tuning is above no tuning in several rounds")
    assert gain.holds is True and gain.measured.startswith("+100.0 points (")
    assert gain.paper == "+9.64%" and gain.measured.endswith("; 12 items)")
    equal = held(made, "above monologue tuning in noise")
    assert equal.holds is None and equal.measured.startswith("+0.0 points (")
    assert not [each for each in made if "multiple-choice" in each.claim]
    best = held(made, "some arm beats the best rule")
    assert best.holds is True and "best arm" in best.measured
    worse = study(12, {"untuned": right, "dialogue": backwards})
    loss = held(claims(CONFIG, "made", worse), "above no tuning in noise")
    assert loss.holds is False and loss.measured.startswith("-100.0 points (")


def test_too_few_items_decide_nothing():
    made = claims(CONFIG, "made", study(9, {"untuned": backwards, "dialogue": right}))
    assert made and all(each.holds is None for each in made)


@pytest.mark.parametrize(
    ("low", "high", "count", "outcome"),
    [
        (0.1, 0.2, 10, True),
        (0.1, 0.2, 9, None),
        (-0.2, -0.1, 10, False),
        (-0.1, 0.2, 10, None),
    ],
)
def test_decided(low, high, count, outcome):
    assert decided(Measure((low + high) / 2, low, high, count)) is outcome


def test_points():
    told = points(Measure(0.125, -0.05, 0.3, 7))
    assert told == "+12.5 points (-5.0 to +30.0; 7 items)"


def test_noise_is_claimed_only_where_there_is_noise():
    found = [each for each in study(12, {"dialogue": right, "untuned": right})]
    quiet = dataclasses.replace(CONFIG, noise=(0,))
    made = claims(quiet, "made", [each for each in found if each.noise == 0])
    assert not [each for each in made if "in noise" in each.claim]
    assert held(made, "in several rounds").holds is None


def test_the_name_of_the_model_is_that_of_the_settings():
    found = [each._replace(part="number") for each in study(12, {"dialogue": right})]
    other = dataclasses.replace(CONFIG, model="some/other")
    made = claims(other, "made", found)
    assert not made, "there is no rule and no other arm to compare with"
    mazes = mazes_of(12)
    found = choices("number", "dialogue", mazes, right)
    found += choices("number", "untuned", mazes, right)
    made = claims(other, "made", found)
    assert made and all("some/other, by number" in each.claim for each in made)


def flaws(count, *, official, ours):
    """Claims on the published construction, whose rule is as good as wished."""
    mazes = mazes_of(count)
    old = make_official(
        [item(n) for n in range(count)], noise=(0, 3), key=jax.random.key(1)
    )
    found = choices("rules", "last", mazes, ours)
    found += choices("official", "last", old, official)
    found += choices("official", "identity", old, rules.identity)
    return claims(CONFIG, "made", found)


def test_flaws_of_the_published_construction():
    made = flaws(40, official=right, ours=backwards)
    assert held(made, "the last n sentences").holds is True
    perfect = held(made, "a perfect order scores below 1")
    assert perfect.holds is True and perfect.measured.startswith("POS 0.")
    assert held(flaws(40, official=right, ours=right), "last n").holds is False
    told = held(flaws(40, official=backwards, ours=backwards), "last n")
    assert told.holds is False and "POS 0.000" in told.measured


def test_flaws_in_too_few_items():
    made = flaws(9, official=right, ours=backwards)
    assert len(made) == 2 and all(each.holds is None for each in made)


def test_a_flaw_near_its_threshold_is_undecided():
    def third(maze):
        """Right in one of three items, which is near 20 points above chance."""
        number = int(maze.item.id.split()[1])
        return right(maze) if number % 3 == 0 else backwards(maze)

    made = flaws(40, official=third, ours=backwards)
    assert held(made, "the last n sentences").holds is None


def test_seeds_are_paired_by_maze():
    """A rule saw an item in the mazes of two seeds, the model in those of one."""
    first, second = mazes_of(12, seed=0), mazes_of(12, seed=1)
    model = choices("number", "untuned", first, right)
    rule = choices("rules", "bm25", first, right)
    rule += choices("rules", "bm25", second, backwards)
    rule += choices("rules", "last", first, backwards)
    rule += choices("rules", "last", second, right)
    assert difference(CONFIG, model, select(rule, "rules", "bm25")).estimate == 0
    assert best_rule(rule, ("last", "bm25"), model) == "bm25"
    assert pooled(select(rule, "rules", "bm25")).position.tolist() == [0.5] * 12
    kept = pooled(select(rule, "rules", "bm25"), tasks(model))
    assert kept.position.tolist() == [1.0] * 12


def test_an_item_counts_once():
    mazes = mazes_of(12)
    found = choices("heads", "untuned", mazes, right)
    found += choices("heads", "untuned", mazes, backwards, "several")
    scores = pooled(found)
    assert len(scores.position) == 12 and set(scores.position) == {0.5}
    assert set(scores.f1) == {1.0} and not scores.failed.any()
    told = summary(CONFIG, scores).position
    assert told.estimate == 0.5 and told.count == 12
    expected = chance(select(found, "heads", "untuned", noise=(3,)))
    np.testing.assert_allclose(expected.position, 1 / 7)
    # One of 4 at noise 0, one of 7 at noise 3.
    np.testing.assert_allclose(chance(found).position, (1 / 4 + 1 / 7) / 2)


def test_select():
    found = study(4, {"dialogue": right})
    own = select(found, "heads", "dialogue", rounds=("several",), noise=(3,))
    assert [(each.method, each.rounds, each.noise) for each in own] == [
        ("dialogue", "several", 3)
    ]
    assert len(select(found, "heads", "dialogue")) == 4
    assert not select(found, "number", "dialogue")


def test_calibration_by_hand():
    maze: Maze = mazes_of(3, noise=(0,))[0][0]
    gold = list(maze.gold)
    picks = [gold[0], gold[1], gold[3], gold[2]]
    chosen = [
        Chosen("heads", "untuned", "one", 0, [maze], [picks], [[0.9, 0.7, 1.5, 1.0]])
    ]
    probability, correct = outcomes(chosen)
    # Rounding above 1 is cut; the fourth pick had no rival.
    np.testing.assert_allclose(probability, [0.9, 0.7, 1.0])
    assert correct.tolist() == [True, True, False]
    found = calibration(chosen)
    assert found.picks == 3 and found.right == pytest.approx(2 / 3)
    assert found.brier == pytest.approx((0.01 + 0.09 + 1) / 3)
    assert found.auroc == 0
    none = calibration([chosen[0]._replace(picks=[gold])])
    assert none.right == 1 and np.isnan(none.auroc)
