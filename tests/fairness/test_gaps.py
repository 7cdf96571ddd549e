"""Test fairness gaps: hand values, masks, weights, missing groups, fairlearn, psum."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jeff.fairness import gaps

PROB = jnp.array([0.9, 0.7, 0.2, 0.4, 0.6, 0.1])
GROUP = jnp.array([True, True, True, False, False, False])
LABEL = jnp.array([1, 0, 1, 1, 0, 0])

METRICS = {
    "demographic_parity": lambda p, s, y, **k: gaps.demographic_parity_gap(p, s, **k),
    "equal_opportunity": gaps.equal_opportunity_gap,
    "equalized_odds_sum": gaps.equalized_odds_gap,
    "equalized_odds_max": functools.partial(gaps.equalized_odds_gap, reduce="max"),
    "p_rule": lambda p, s, y, **k: gaps.p_rule(p, s, **k),
    "abcc": lambda p, s, y, **k: gaps.abcc(p, s, **k),
    "group_rates": lambda p, s, y, **k: gaps.group_rates(p, s, **k),
    "cell_rates": gaps.group_rates,
}
SUMS = [name for name in METRICS if name != "abcc"]
SCALARS = [name for name in METRICS if not name.endswith("rates")]

every_metric = pytest.mark.parametrize("name", METRICS)


def draw(seed: int, people: int = 200) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Random probabilities with ties, groups and labels; sums of 64ths are exact."""
    rng = np.random.default_rng(seed)
    prob = rng.integers(0, 65, people) / 64
    return (
        jnp.asarray(prob, jnp.float32),
        jnp.asarray(rng.random(people) < 0.3),
        jnp.asarray(rng.integers(0, 2, people)),
    )


def test_hand_values() -> None:
    """Each metric on six people, worked by hand."""
    group_means = [1.1 / 3, 1.8 / 3]
    expected = {
        "demographic_parity": 0.7 / 3,
        "equal_opportunity": 0.55 - 0.4,
        "equalized_odds_sum": 0.15 + 0.35,
        "equalized_odds_max": 0.35,
        "p_rule": 1.1 / 1.8,
        # Sorted pairs .1/.2, .4/.7, .6/.9: the transport distance, a third of each.
        "abcc": (0.1 + 0.3 + 0.3) / 3,
        "group_rates": group_means,
        "cell_rates": [[0.35, 0.7], [0.4, 0.55]],
    }
    for name, value in expected.items():
        result = METRICS[name](PROB, GROUP, LABEL)
        np.testing.assert_allclose(result, value, rtol=2e-6, err_msg=name)


def test_weights_by_hand() -> None:
    """Weights make weighted means; weight 2 is the same as standing there twice."""
    weight = jnp.array([1.0, 3.0, 0.0, 1.0, 1.0, 0.0])
    result = gaps.demographic_parity_gap(PROB, GROUP, weight=weight)
    np.testing.assert_allclose(result, 0.75 - 0.5, rtol=1e-6)


@every_metric
def test_weight_two_is_twice(name: str) -> None:
    """A person of weight 2 counts as two persons."""
    metric, data = METRICS[name], draw(1)
    twice = jnp.arange(200) % 3 == 0
    rows = jnp.concatenate([jnp.arange(200), jnp.flatnonzero(twice)])
    weighted = metric(*data, weight=1.0 + twice)
    np.testing.assert_allclose(weighted, metric(*(a[rows] for a in data)), rtol=1e-5)


@every_metric
def test_mask_is_subset(name: str) -> None:
    """Masked people are as good as absent, even when their values are NaN."""
    metric, (prob, group, label) = METRICS[name], draw(2)
    where = jnp.arange(200) % 4 != 1
    masked = metric(jnp.where(where, prob, jnp.nan), group, label, where=where)
    subset = metric(prob[where], group[where], label[where])
    np.testing.assert_allclose(masked, subset, rtol=1e-5)


@every_metric
def test_jit_and_vmap(name: str) -> None:
    """Jit changes nothing and vmap is a loop."""
    metric = METRICS[name]
    batches = [draw(seed) for seed in range(3)]
    loop = jnp.stack([metric(*data) for data in batches])
    stacked = [jnp.stack(column) for column in zip(*batches, strict=True)]
    np.testing.assert_allclose(jax.vmap(metric)(*stacked), loop, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(metric)(*batches[0]), loop[0], rtol=1e-6)


@every_metric
def test_integer_flags(name: str) -> None:
    """Bool and 0/1 integers mean the same."""
    bools = METRICS[name](PROB, GROUP, LABEL.astype(bool))
    integers = METRICS[name](PROB, GROUP.astype(jnp.uint8), LABEL)
    np.testing.assert_array_equal(bools, integers)


@pytest.mark.parametrize("name", SCALARS)
@pytest.mark.parametrize("everyone", [True, False])
def test_missing_group(name: str, everyone: bool) -> None:
    """With one group there is no disparity and a zero, finite gradient."""
    group = jnp.full(6, everyone)
    value, gradient = jax.value_and_grad(METRICS[name])(PROB, group, LABEL)
    assert value == (1 if name == "p_rule" else 0)
    np.testing.assert_array_equal(gradient, np.zeros(6))


@every_metric
def test_nobody(name: str) -> None:
    """No people, or none who count, give zeros or parity rather than NaN."""
    nothing = METRICS[name](PROB, GROUP, LABEL, where=jnp.zeros(6, bool))
    empty = METRICS[name](PROB[:0], GROUP[:0], LABEL[:0])
    assert jnp.all(nothing == (1 if name == "p_rule" else 0))
    np.testing.assert_array_equal(nothing, empty)


def test_missing_cell_leaves_the_other_gap() -> None:
    """Equalized odds keeps the gap of one label when the other lacks a group."""
    label = jnp.array([1, 1, 1, 1, 0, 0])
    total = gaps.equalized_odds_gap(PROB, GROUP, label)
    np.testing.assert_allclose(total, 0.6 - 0.4, rtol=1e-6)
    np.testing.assert_allclose(gaps.group_rates(PROB, GROUP, label)[0, 1], 0)


@pytest.mark.parametrize("name", SCALARS)
def test_gradients(name: str) -> None:
    """Gradients agree with finite differences away from kinks."""

    def metric(prob: jax.Array) -> jax.Array:
        return METRICS[name](jnp.asarray(prob), GROUP, LABEL)

    check_grads(metric, (PROB,), 1, eps=1e-2)


@pytest.mark.parametrize("name", SCALARS)
def test_gradient_finite_at_parity(name: str) -> None:
    """At exact parity, zero rates and ties the gradient is finite."""
    for value in (0.0, 0.5, 1.0):
        gradient = jax.grad(METRICS[name])(jnp.full(6, value), GROUP, LABEL)
        assert jnp.all(jnp.isfinite(gradient)), value


def test_gap_gradient_by_hand() -> None:
    """The gap's gradient is plus and minus one over the group's size."""
    gradient = jax.grad(gaps.demographic_parity_gap)(PROB, GROUP)
    np.testing.assert_allclose(gradient, [1 / 3] * 3 + [-1 / 3] * 3, rtol=1e-6)


@pytest.mark.parametrize("name", SUMS)
def test_axis_name_is_the_whole_batch(name: str) -> None:
    """Four parts joined by psum equal the whole batch; so does the gradient."""
    metric, (prob, *flags) = METRICS[name], draw(5)
    parts = [array.reshape(4, 50) for array in (prob, *flags)]
    joined = jax.vmap(functools.partial(metric, axis_name="data"), axis_name="data")
    whole = metric(prob, *flags)
    np.testing.assert_array_equal(joined(*parts), jnp.stack([whole] * 4))
    separate = jax.vmap(metric)(*parts)
    assert not np.allclose(np.mean(separate, axis=0), whole, rtol=1e-3)

    joined_grad = jax.grad(lambda p: joined(p, *parts[1:])[0].sum())(parts[0])
    whole_grad = jax.grad(lambda p: metric(p, *flags).sum())(prob)
    np.testing.assert_allclose(joined_grad.reshape(-1), whole_grad, rtol=1e-6)


def test_low_precision_counts_exactly() -> None:
    """Sums of bfloat16 probabilities are taken in float32."""
    prob = jnp.concatenate([jnp.ones(1000), jnp.zeros(1)]).astype(jnp.bfloat16)
    rates = gaps.group_rates(prob, jnp.zeros(1001, bool))
    assert rates.dtype == jnp.float32
    np.testing.assert_allclose(rates[0], 1000 / 1001, rtol=1e-6)


def test_fairlearn_parity() -> None:
    """Hard values equal fairlearn's differences, ratios and rates, with weights."""
    metrics = pytest.importorskip("fairlearn.metrics")
    prob, group, label = draw(7, people=500)
    weight = jnp.asarray(np.random.default_rng(8).random(500), jnp.float32)
    hard = gaps.harden(prob, 0.6)
    arrays = {
        "y_true": np.asarray(label),
        "y_pred": np.asarray(hard),
        "sensitive_features": np.asarray(group),
        "sample_weight": np.asarray(weight, np.float64),
    }
    pairs = [
        (gaps.demographic_parity_gap(hard, group, weight=weight), "demographic_parity"),
        (
            gaps.equalized_odds_gap(hard, group, label, reduce="max", weight=weight),
            "equalized_odds",
        ),
        (
            gaps.equal_opportunity_gap(hard, group, label, weight=weight),
            "equal_opportunity",
        ),
    ]
    for ours, name in pairs:
        peer = getattr(metrics, f"{name}_difference")(**arrays)
        np.testing.assert_allclose(ours, peer, rtol=2e-6, atol=1e-6, err_msg=name)
    ratio = metrics.demographic_parity_ratio(**arrays)
    np.testing.assert_allclose(gaps.p_rule(hard, group, weight=weight), ratio, 2e-6)


def test_fairlearn_metric_frame() -> None:
    """Rates equal a MetricFrame's true and false positive rates and selection rate."""
    metrics = pytest.importorskip("fairlearn.metrics")
    prob, group, label = draw(9, people=500)
    hard = gaps.harden(prob)
    frame = metrics.MetricFrame(
        metrics={
            "selection": metrics.selection_rate,
            "false": metrics.false_positive_rate,
            "true": metrics.true_positive_rate,
        },
        y_true=np.asarray(label),
        y_pred=np.asarray(hard),
        sensitive_features=np.asarray(group),
    ).by_group.to_numpy(dtype=float)
    np.testing.assert_allclose(gaps.group_rates(hard, group), frame[:, 0], 1e-6)
    np.testing.assert_allclose(gaps.group_rates(hard, group, label).T, frame[:, 1:])


def test_abcc_by_numeric_integration() -> None:
    """The exact area agrees with a fine Riemann sum of both empirical CDFs."""
    rng = np.random.default_rng(11)
    prob, group = rng.beta(2, 3, 300), rng.random(300) < 0.4
    prob = np.where(group, prob**1.5, prob)
    middle = (np.arange(200_000) + 0.5) / 200_000
    cdfs = [
        np.searchsorted(np.sort(part), middle, side="right") / part.size
        for part in (prob[group], prob[~group])
    ]
    numeric = np.abs(cdfs[0] - cdfs[1]).mean()
    exact = gaps.abcc(jnp.asarray(prob, jnp.float32), jnp.asarray(group))
    np.testing.assert_allclose(exact, numeric, atol=1e-5)


def test_abcc_sees_what_means_hide() -> None:
    """Equal means with different spreads: no parity gap, but an area."""
    prob, group = jnp.array([0.0, 1.0, 0.5, 0.5]), jnp.array([1, 1, 0, 0])
    assert gaps.demographic_parity_gap(prob, group) == 0
    assert gaps.abcc(prob, group) == 0.5


def test_harden() -> None:
    """The threshold itself counts as positive; the dtype stays."""
    prob = jnp.array([0.29, 0.3, 0.31], jnp.float16)
    hard = gaps.harden(prob, 0.3)
    assert hard.dtype == jnp.float16
    np.testing.assert_array_equal(hard, [0, 1, 1])


PEOPLE = 12
people = st.tuples(
    *(
        st.lists(values, min_size=PEOPLE, max_size=PEOPLE)
        for values in (st.floats(0, 1, width=32), st.booleans(), st.booleans())
    )
)


@settings(max_examples=60, deadline=None)
@given(people)
def test_properties(data: tuple[list[float], list[bool], list[bool]]) -> None:
    """Swapping the groups changes nothing; values lie in range; abcc bounds the gap."""
    prob, group, label = (jnp.asarray(column) for column in data)
    values = {}
    for name in SCALARS:
        value = METRICS[name](prob, group, label)
        values[name] = float(value)
        swapped = METRICS[name](prob, ~group, label)
        np.testing.assert_allclose(swapped, value, atol=1e-6, err_msg=name)
        assert 0 <= value <= (2 if name.endswith("sum") else 1) + 1e-6, name
    assert values["equalized_odds_max"] <= values["equalized_odds_sum"] + 1e-6
    assert values["equal_opportunity"] <= values["equalized_odds_max"]
    assert values["demographic_parity"] <= values["abcc"] + 1e-6


def test_codes_of_masked_people_do_not_matter() -> None:
    """What stands at masked places is never looked at, under jit as without."""
    where = jnp.arange(len(PROB)) > 0
    odd = GROUP.astype(int).at[0].set(-1)
    whole = gaps.demographic_parity_gap(PROB[1:], GROUP[1:])
    for call in (gaps.demographic_parity_gap, jax.jit(gaps.demographic_parity_gap)):
        assert call(PROB, odd, where=where) == pytest.approx(float(whole))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: gaps.demographic_parity_gap(PROB, GROUP[:5]), "group"),
        (lambda: gaps.demographic_parity_gap(PROB, PROB), "group"),
        (lambda: gaps.demographic_parity_gap(LABEL, GROUP), "prob"),
        (lambda: gaps.demographic_parity_gap(PROB[None], GROUP), "prob"),
        (lambda: gaps.p_rule(PROB, GROUP, where=LABEL), "where"),
        (lambda: gaps.abcc(PROB, GROUP, weight=GROUP), "weight"),
        (lambda: gaps.equal_opportunity_gap(PROB, GROUP, PROB), "label"),
        (lambda: gaps.equalized_odds_gap(PROB, GROUP, LABEL, reduce="mean"), "reduce"),
        (lambda: gaps.harden(PROB, 1.5), "threshold"),
        (lambda: gaps.demographic_parity_gap(PROB, GROUP + 1), "group: .*values 1, 2"),
        (lambda: gaps.group_rates(PROB, GROUP, 2 * LABEL - 1), "label: .*values -1, 1"),
        (lambda: gaps.abcc(PROB, 0 - GROUP), "group: .*values -1, 0"),
    ],
)
def test_bad_input(call, name: str) -> None:
    """Wrong shapes, dtypes and options are refused by name."""
    with pytest.raises((ValueError, TypeError), match=name):
        call()
