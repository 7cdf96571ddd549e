"""Test the choice of a level: exact values, refusals, and the guarantee simulated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jeff.fairness import choice, evaluation, gaps, yodo

ALPHAS = jnp.linspace(0, 1, 11)


def threshold(params, x):
    """Logit of a score that leans on the group at the start of the line."""
    return x["score"] + params * x["group"] - 0.5


LINE = yodo.Line(jnp.array(1.0), jnp.array(0.0))


@pytest.fixture(scope="module")
def people():
    a, b = jax.random.split(jax.random.key(0))
    group = jax.random.bernoulli(a, 0.5, (2000,)).astype(jnp.int32)
    score = jax.random.normal(b, (2000,))
    label = (score + 0.8 * group > 0.5).astype(jnp.int32)
    inputs = {"score": score, "group": group.astype(jnp.float32)}
    return yodo.Examples(inputs, label, group)


def choose(people, key, **options):
    return choice.choose_alpha(threshold, LINE, people, ALPHAS, key=key, **options)


def test_chosen_level_is_the_most_accurate_that_passed(people, key):
    found = evaluation.evaluate(threshold, LINE, people, ALPHAS)
    chosen = choose(people, key, at_most=0.2)
    place = int(jnp.argmin(jnp.abs(ALPHAS - chosen.alpha)))
    assert chosen.gap == pytest.approx(float(found.demographic_parity[place]), abs=1e-6)
    assert chosen.accuracy == pytest.approx(float(found.accuracy[place]), abs=1e-6)
    assert chosen.gap < chosen.gap_upper == 0.2
    # The levels towards the fair end passed as well, and are no more accurate.
    assert chosen.accuracy >= float(found.accuracy[place:].max()) - 1e-6
    assert 0 < place < 10


def test_the_bound_of_all_levels_where_all_passed(people, key):
    chosen = choose(people, key, at_most=1.0)
    found = evaluation.evaluate(threshold, LINE, people, ALPHAS)
    assert float(found.demographic_parity.max()) < chosen.gap_upper < 0.5


def test_the_error_says_how_many_people_would_do(key):
    """The same people, as many times as it says: certain enough, and at half not."""
    rows = jnp.arange(200)
    group, score = rows % 2, (rows // 2 % 2).astype(jnp.float32)
    few = yodo.Examples({"score": score, "group": group * 1.0}, rows % 3 % 2, group)
    with pytest.raises(
        choice.NoLevelError, match=r"alpha 1, it is 0\.0000 on"
    ) as error:
        choose(few, key, at_most=0.06)
    wanted = int(str(error.value).rpartition("about ")[2].replace(",", ""))

    def times(count):
        return jax.tree.map(lambda leaf: jnp.tile(leaf, count), few)

    assert choose(times(round(1.1 * wanted / 200)), key, at_most=0.06).alpha == 1
    with pytest.raises(choice.NoLevelError):
        choose(times(round(0.5 * wanted / 200)), key, at_most=0.06)


def test_a_stricter_limit_is_never_more_accurate(people, key):
    accuracy = [
        choose(people, key, at_most=limit).accuracy for limit in (0.08, 0.15, 0.3, 1.0)
    ]
    assert accuracy == sorted(accuracy)
    assert accuracy[0] < accuracy[-1]


def test_levels_in_any_order_give_one_choice(people, key):
    expected = choose(people, key, at_most=0.2)
    mixed = ALPHAS[jnp.array([3, 0, 10, 7, 1, 9, 4, 8, 5, 2, 6])]
    found = choice.choose_alpha(threshold, LINE, people, mixed, key=key, at_most=0.2)
    assert found == expected


@pytest.mark.parametrize("metric", ["equal_opportunity", "equalized_odds"])
def test_other_gaps_bound_themselves(people, key, metric):
    chosen = choose(people, key, metric=metric, at_most=0.6)
    hard = gaps.harden(yodo.predict(threshold, LINE, people.inputs, chosen.alpha))
    value = yodo.GAPS[metric](hard, people.group, people.label)
    assert chosen.gap == pytest.approx(float(value), abs=1e-6)
    assert chosen.gap < chosen.gap_upper


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"at_most": 1e-4}, r"no level keeps .* alpha 1, it is 0\.\d+ on .* longer"),
        ({"at_most": 0.0}, r"at_most: expected a gap in \(0, 1\], got 0"),
        ({"confidence": 1.0}, "confidence: expected"),
        ({"metric": "dp"}, "gap: expected one of .*got 'dp'"),
    ],
)
def test_bad_choices(people, key, change, words):
    with pytest.raises(ValueError, match=words):
        choose(people, **{"key": key, "at_most": 0.2, **change})


def few(members, decided=None, weight=None):
    """100 people, of whom so many are in group 1, with given decisions."""
    decided = jnp.arange(100) % 2 == 0 if decided is None else jnp.asarray(decided)
    inputs = {"score": jnp.where(decided, 9.0, -9.0), "group": jnp.zeros(100)}
    group = jnp.arange(100) < members
    return yodo.Examples(inputs, decided.astype(int), group.astype(int), weight)


@pytest.mark.parametrize(
    ("metric", "change", "words"),
    [
        ("demographic_parity", {"group": jnp.zeros(100, int)}, "none in group 1;"),
        ("demographic_parity", {"group": jnp.ones(100, int)}, "none in group 0;"),
        (
            "demographic_parity",
            {"weight": jnp.where(jnp.arange(100) < 10, 0.0, 1.0)},
            "none in group 1;",
        ),
        (
            "equal_opportunity",
            {"label": jnp.where(jnp.arange(100) < 10, 0, 1)},
            "none in group 1 with outcome 1;",
        ),
        (
            "equalized_odds",
            {"label": jnp.ones(100, int)},
            "none in group 0 with outcome 0, group 1 with outcome 0;",
        ),
    ],
)
def test_no_guarantee_from_an_empty_cell(key, metric, change, words):
    with pytest.raises(choice.EmptyCellError, match=words):
        choose(few(10)._replace(**change), key, metric=metric, at_most=1.0)


@pytest.mark.parametrize("level", [0, 10])
def test_no_guarantee_from_nan(key, level):
    def broken(params, x):
        return jnp.where(params == LINE.start - level / 10, jnp.nan, x["score"])

    with pytest.raises(ValueError, match=r"apply_fn: .*got NaN for 100 of 100 people"):
        choice.choose_alpha(broken, LINE, few(10), ALPHAS, key=key, at_most=1.0)


def test_a_single_member_proves_next_to_nothing(key):
    """The other group's rate is .5: one member, whatever it got, leaves .6 open."""
    for got in (False, True):
        people = few(1, (jnp.arange(100) % 2 == 0).at[0].set(got))
        with pytest.raises(choice.NoLevelError, match="validate on more people"):
            choose(people, key, at_most=0.4)
    assert choose(few(1), key, at_most=1.0).gap_upper > 0.6


def excess(events, draws, share):
    """Probability of so many events, or more, where each has the share at most."""
    return stats.binom.sf(events - 1, draws, share)


@pytest.mark.parametrize("members", [1, 2, 3, 10, 100])
def test_the_guarantee_holds_after_the_choice(key, members):
    """True gaps .30 at all of 5 levels, limit .25: at most 5% of draws are accepted.

    The levels' decisions are independent, the worst case of choosing among them.
    """
    rng, draws, levels = np.random.default_rng(members), 300, 5
    people = max(300, 2 * members)
    group = np.arange(people) < members
    rates = np.where(group, 0.3, 0.6)
    accepted = 0
    line = yodo.Line(jnp.array(0.0), jnp.array(1.0))
    alphas = jnp.linspace(0, 1, levels)

    def table(params, x):
        # The decision at each level is a column of the inputs.
        return x[:, jnp.round(params * (levels - 1)).astype(int)]

    for _ in range(draws):
        decided = rng.random((people, levels)) < rates[:, None]
        inputs = jnp.asarray(np.where(decided, 9.0, -9.0), jnp.float32)
        drawn = yodo.Examples(inputs, decided[:, 0], group)
        try:
            choice.choose_alpha(table, line, drawn, alphas, key=key, at_most=0.25)
            accepted += 1
        except choice.NoLevelError:
            pass
    assert excess(accepted, draws, 0.05) > 0.001, accepted


def test_weights_that_follow_the_decision_keep_the_guarantee(key):
    """Weighted rates differ by .30; heavy people are favoured more often."""
    rng, draws, accepted = np.random.default_rng(5), 200, 0
    for _ in range(draws):
        decided = rng.random(100) < np.where(np.arange(100) < 50, 0.25, 0.55)
        heavy = rng.random(100) < np.where(decided, 0.4, 0.3)
        people = few(50, decided, np.where(heavy, 4.0, 1.0))
        try:
            choice.choose_alpha(
                threshold, LINE, people, ALPHAS[:1], key=key, at_most=0.25
            )
            accepted += 1
        except choice.NoLevelError:
            pass
    assert excess(accepted, draws, 0.05) > 0.001, accepted


def test_the_scale_of_weights_does_not_matter_and_they_cost_precision(people, key):
    weight = 1 + 2 * np.random.default_rng(0).random(2000)
    first, scaled = (
        choose(people._replace(weight=each), key, at_most=1.0)
        for each in (weight, 1000 * weight)
    )
    assert first.gap_upper == pytest.approx(scaled.gap_upper, abs=1e-4)
    assert first.gap_upper > choose(people, key, at_most=1.0).gap_upper
