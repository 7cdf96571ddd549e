"""Test metrics: hand values, scikit-learn, scipy, masks, ties, degenerate inputs."""

import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jeff import metrics

MASKED: dict[str, Callable[..., jax.Array]] = {
    "accuracy": metrics.accuracy,
    "auroc": metrics.auroc,
    "average_precision": metrics.average_precision,
    "brier_score": metrics.brier_score,
    "ece_uniform": metrics.expected_calibration_error,
    "ece_quantile": functools.partial(
        metrics.expected_calibration_error, num_bins=7, strategy="quantile"
    ),
}
PLAIN = {
    "area_under_risk_coverage": metrics.area_under_risk_coverage,
    "kendall_tau": metrics.kendall_tau,
    "risk": lambda c, y: metrics.risk_coverage_curve(c, y)[1],
}


def draw(seed: int, rows: int = 200, steps: int = 40) -> tuple[jax.Array, jax.Array]:
    """Random probabilities with ties, and labels that depend on them."""
    rng = np.random.default_rng(seed)
    prob = rng.integers(0, steps + 1, rows) / steps
    label = rng.random(rows) < 0.2 + 0.6 * prob**2
    return jnp.asarray(prob, jnp.float32), jnp.asarray(label)


def test_accuracy_by_hand() -> None:
    """The threshold itself predicts a 1."""
    prob, label = jnp.array([0.5, 0.4, 0.9, 0.1]), jnp.array([1, 1, 0, 0])
    assert metrics.accuracy(prob, label) == 0.5
    assert metrics.accuracy(prob, label, threshold=0.4) == 0.75


def test_auroc_by_hand() -> None:
    """Perfect, reversed, all tied, and one tie among four pairs."""
    label = jnp.array([0, 0, 1, 1])
    assert metrics.auroc(jnp.array([1.0, 2.0, 3.0, 4.0]), label) == 1
    assert metrics.auroc(jnp.array([4.0, 3.0, 2.0, 1.0]), label) == 0
    assert metrics.auroc(jnp.zeros(4), label) == 0.5
    assert metrics.auroc(jnp.array([1.0, 2.0, 2.0, 3.0]), label) == 3.5 / 4
    assert metrics.auroc(jnp.array([-jnp.inf, 0.0, 0.0, jnp.inf]), label) == 3.5 / 4


def test_average_precision_by_hand() -> None:
    """Steps at each threshold; a tie is one step."""
    score = jnp.array([0.9, 0.8, 0.8, 0.1])
    distinct = metrics.average_precision(
        jnp.arange(4, 0, -1.0), jnp.array([0, 1, 0, 1])
    )
    assert distinct == 0.5 * 0.5 + 0.5 * 0.5
    tied = metrics.average_precision(score, jnp.array([1, 1, 0, 0]))
    np.testing.assert_allclose(tied, 0.5 * 1 + 0.5 * 2 / 3, rtol=1e-6)


def test_calibration_error_by_hand() -> None:
    """Two bins: one off by .25 with three rows, one exact with two."""
    prob = jnp.array([0.25, 0.25, 0.25, 0.75, 0.75 + 0.25])
    label = jnp.array([0, 0, 0, 1, 1])
    error = metrics.expected_calibration_error(prob, label, num_bins=2)
    np.testing.assert_allclose(error, (3 * 0.25 + 2 * 0.125) / 5, rtol=1e-6)
    # Quantile bins of two: the median, .25, closes the first bin.
    quantile = metrics.expected_calibration_error(
        prob, label, num_bins=2, strategy="quantile"
    )
    assert quantile == error


@pytest.mark.parametrize("num_bins", [3, 10, 15, 49])
def test_probability_on_an_edge_belongs_below(num_bins: int) -> None:
    """Bins are closed on the right, for every k / num_bins in float32."""
    prob = jnp.asarray(np.arange(1, num_bins + 1) / num_bins, jnp.float32)
    label = jnp.arange(num_bins) % 2 == 0
    error = metrics.expected_calibration_error(prob, label, num_bins=num_bins)
    expected = np.abs(np.asarray(prob) - np.asarray(label)).mean()
    np.testing.assert_allclose(error, expected, rtol=1e-6)


def test_risk_coverage_by_hand() -> None:
    """Distinct confidences count errors; a tied pair shares its error."""
    confidence = jnp.array([0.2, 0.9, 0.6, 0.6])
    coverage, risk = metrics.risk_coverage_curve(confidence, jnp.array([0, 1, 0, 1]))
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 0.5 / 2, 1 / 3, 2 / 4], rtol=1e-6)
    area = metrics.area_under_risk_coverage(confidence, jnp.array([0, 1, 0, 1]))
    np.testing.assert_allclose(area, (0.25 + 1 / 3 + 0.5) / 4, rtol=1e-6)


def test_risk_is_the_mean_over_orders_of_ties() -> None:
    """The tied curve equals the average curve of many random tie-breaks."""
    confidence, correct = draw(3, rows=24, steps=4)
    rng, curves = np.random.default_rng(0), []
    for _ in range(4000):
        order = np.lexsort((rng.random(24), -np.asarray(confidence)))
        curves.append(np.cumsum(~np.asarray(correct)[order]) / np.arange(1, 25))
    expected = np.mean(curves, axis=0)
    spread = np.std(curves, axis=0) / np.sqrt(4000)
    _, risk = metrics.risk_coverage_curve(confidence, correct)
    assert np.all(np.abs(risk - expected) <= 5 * spread + 1e-6)


def test_kendall_by_hand() -> None:
    """Five concordant pairs and one discordant; a tie; a constant."""
    x = jnp.arange(4.0)
    np.testing.assert_allclose(metrics.kendall_tau(x, jnp.array([0, 1, 3, 2])), 4 / 6)
    tied = metrics.kendall_tau(x, jnp.array([0.0, 1.0, 1.0, 2.0]))
    np.testing.assert_allclose(tied, 5 / np.sqrt(6 * 5), rtol=1e-6)
    assert jnp.isnan(metrics.kendall_tau(x, jnp.ones(4)))
    ends = metrics.kendall_tau(jnp.array([-jnp.inf, 0.0, jnp.inf]), jnp.arange(3))
    np.testing.assert_allclose(ends, 1, rtol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_scikit_learn_parity(seed: int) -> None:
    """Ties and all, values agree with scikit-learn."""
    peer = pytest.importorskip("sklearn.metrics")
    prob, label = draw(seed, rows=300, steps=(5, 40, 1000, 10**6)[seed])
    y, p = np.asarray(label), np.asarray(prob, np.float64)
    pairs = [
        (metrics.accuracy(prob, label), peer.accuracy_score(y, p >= 0.5)),
        (metrics.auroc(prob, label), peer.roc_auc_score(y, p)),
        (metrics.average_precision(prob, label), peer.average_precision_score(y, p)),
        (metrics.brier_score(prob, label), peer.brier_score_loss(y, p)),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=2e-6)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("steps", [10**6, 64])
def test_calibration_against_scikit_learn(strategy: str, steps: int) -> None:
    """The bins are those of scikit-learn's calibration curve.

    Sixteen bins and 20 * 16 + 1 rows: scikit-learn's own edges are then exact.
    """
    peer = pytest.importorskip("sklearn.calibration")
    prob, label = draw(5, rows=321, steps=steps)
    y, p, bins = np.asarray(label), np.asarray(prob), 16
    observed, predicted = peer.calibration_curve(y, p, n_bins=bins, strategy=strategy)
    edges = (
        np.linspace(0, 1, bins + 1)
        if strategy == "uniform"
        else np.percentile(p, np.linspace(0, 1, bins + 1) * 100)
    )
    counts = np.bincount(np.searchsorted(edges[1:-1], p), minlength=bins)
    expected = np.sum(counts[counts > 0] / 321 * np.abs(observed - predicted))
    ours = metrics.expected_calibration_error(
        prob, label, num_bins=bins, strategy=strategy
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize("steps", [4, 1000])
def test_scipy_kendall(steps: int) -> None:
    """Tau-b agrees with scipy, with and without ties."""
    stats = pytest.importorskip("scipy.stats")
    x, _ = draw(6, steps=steps)
    y, _ = draw(7, steps=steps)
    tau = metrics.kendall_tau(x, x + y)
    np.testing.assert_allclose(tau, stats.kendalltau(x, x + y).statistic, rtol=2e-6)


@pytest.mark.parametrize("name", MASKED)
def test_mask_is_subset(name: str) -> None:
    """Masked rows are as good as absent, even when they hold NaN."""
    metric, (prob, label) = MASKED[name], draw(8)
    where = jnp.arange(200) % 3 != 1
    masked = metric(jnp.where(where, prob, jnp.nan), label, where=where)
    np.testing.assert_allclose(masked, metric(prob[where], label[where]), rtol=2e-6)


@pytest.mark.parametrize("name", MASKED | PLAIN)
def test_jit_is_plain_and_vmap_is_a_loop(name: str) -> None:
    """Jit changes nothing, vmap is a loop, one shape is traced once."""
    metric = (MASKED | PLAIN)[name]
    batches = [draw(seed) for seed in range(3)]
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def traced(prob: jax.Array, label: jax.Array) -> jax.Array:
        return metric(prob, label)

    loop = [metric(*data) for data in batches]
    for data, value in zip(batches, loop, strict=True):
        np.testing.assert_allclose(traced(*data), value, rtol=1e-6)
    prob, label = (jnp.stack(column) for column in zip(*batches, strict=True))
    np.testing.assert_allclose(
        jax.vmap(metric)(prob, label), jnp.stack(loop), rtol=1e-6
    )


@pytest.mark.parametrize("name", MASKED | PLAIN)
def test_order_of_rows_does_not_matter(name: str) -> None:
    """A permutation of the rows changes nothing, ties or not."""
    metric, (prob, label) = (MASKED | PLAIN)[name], draw(9, steps=6)
    order = jnp.asarray(np.random.default_rng(1).permutation(200))
    value = metric(prob, label)
    np.testing.assert_allclose(metric(prob[order], label[order]), value, rtol=2e-6)


@pytest.mark.parametrize("name", MASKED | PLAIN)
@pytest.mark.parametrize("row", [0, 1])
def test_nan_shows(name: str, row: int) -> None:
    """One NaN among the counted rows makes the result NaN, whatever its label."""
    prob, label = jnp.array([0.1, 0.4, 0.3, 0.8]), jnp.array([0, 1, 0, 1])
    value = (MASKED | PLAIN)[name](prob.at[row].set(jnp.nan), label)
    assert jnp.all(jnp.isnan(value))


def test_undefined_is_nan() -> None:
    """One class has no AUROC, no positive no average precision, nobody no mean."""
    prob = jnp.array([0.1, 0.4, 0.3])
    for label in (jnp.zeros(3, int), jnp.ones(3, int)):
        assert jnp.isnan(metrics.auroc(prob, label))
    assert jnp.isnan(metrics.average_precision(prob, jnp.zeros(3, int)))
    assert metrics.average_precision(prob, jnp.ones(3, int)) == 1
    nobody = jnp.zeros(3, bool)
    for name, metric in MASKED.items():
        assert jnp.isnan(metric(prob, jnp.array([0, 1, 1]), where=nobody)), name
        assert jnp.isnan(metric(prob[:0], nobody[:0])), name


scores = st.lists(st.integers(-8, 8), min_size=10, max_size=10)
labels = st.lists(st.booleans(), min_size=10, max_size=10).filter(
    lambda values: 0 < sum(values) < 10
)


@settings(max_examples=60, deadline=None)
@given(scores, labels)
def test_identities(score: list[int], label: list[bool]) -> None:
    """AUROC and tau flip with the sign, and see ranks only; all lie in range."""
    s, y = jnp.asarray(score, jnp.float32), jnp.asarray(label)
    area = metrics.auroc(s, y)
    np.testing.assert_allclose(metrics.auroc(-s, y), 1 - area, atol=1e-6)
    np.testing.assert_allclose(metrics.auroc(s, ~y), 1 - area, atol=1e-6)
    assert metrics.auroc(s**3, y) == area
    assert metrics.average_precision(s**3, y) == metrics.average_precision(s, y)
    pairs = [
        (a > b) + (a == b) / 2
        for a, u in zip(score, label, strict=True)
        if u
        for b, v in zip(score, label, strict=True)
        if not v
    ]
    np.testing.assert_allclose(area, np.mean(pairs), atol=1e-6)
    risk = metrics.risk_coverage_curve(s, y)[1]
    np.testing.assert_allclose(risk[-1], 1 - np.mean(label), rtol=1e-6)
    assert jnp.all((risk >= 0) & (risk <= 1))
    if len(set(score)) > 1:
        tau = metrics.kendall_tau(s, y.astype(int))
        np.testing.assert_allclose(metrics.kendall_tau(-s, y.astype(int)), -tau, 1e-6)
        np.testing.assert_allclose(metrics.kendall_tau(s, s), 1, rtol=1e-6)


PROB, LABEL = jnp.array([0.1, 0.4, 0.3]), jnp.array([0, 1, 1])


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: metrics.accuracy(PROB, LABEL[:2]), "label"),
        (lambda: metrics.accuracy(PROB, LABEL, threshold=2.0), "threshold"),
        (lambda: metrics.accuracy(LABEL, LABEL), "prob"),
        (lambda: metrics.auroc(PROB[None], LABEL), "score"),
        (lambda: metrics.auroc(PROB, PROB), "label"),
        (lambda: metrics.brier_score(PROB, LABEL, where=LABEL), "where"),
        (lambda: metrics.average_precision(PROB, LABEL, where=LABEL[:1] > 0), "where"),
        (
            lambda: metrics.expected_calibration_error(PROB, LABEL, num_bins=0),
            "num_bins",
        ),
        (
            lambda: metrics.expected_calibration_error(PROB, LABEL, strategy="equal"),
            "strategy",
        ),
        (lambda: metrics.risk_coverage_curve(PROB, PROB), "correct"),
        (lambda: metrics.kendall_tau(PROB, LABEL[:2]), "y"),
        (lambda: metrics.auroc(PROB, LABEL + 1), "label: .*got values 1, 2"),
        (lambda: metrics.accuracy(PROB, 2 * LABEL - 1), "label: .*got values -1, 1"),
        (lambda: metrics.risk_coverage_curve(PROB, -LABEL), "correct"),
    ],
)
def test_bad_input(call: Callable[[], object], name: str) -> None:
    """Wrong shapes, dtypes and options are refused by name."""
    with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b"):
        call()


def test_a_weight_is_so_many_rows() -> None:
    """Whole weights are repeated rows; others are scikit-learn's."""
    peer = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    score = rng.integers(0, 9, 80) / 8
    label = rng.integers(0, 2, 80)
    weight = rng.integers(0, 4, 80)
    rows = np.repeat(np.arange(80), weight)
    fine = rng.random(80)
    for metric, theirs in (
        (metrics.auroc, peer.roc_auc_score),
        (metrics.accuracy, lambda y, p, **k: peer.accuracy_score(y, p >= 0.5, **k)),
    ):
        call = functools.partial(metric, jnp.asarray(score), jnp.asarray(label))
        once = metric(jnp.asarray(score[rows]), jnp.asarray(label[rows]))
        assert call(weight=jnp.asarray(weight)) == pytest.approx(float(once), abs=1e-6)
        expected = theirs(label, score, sample_weight=fine)
        assert call(weight=jnp.asarray(fine)) == pytest.approx(expected, abs=1e-6)
        where = jnp.arange(80) > 9
        odd = jnp.asarray(fine).at[:10].set(jnp.nan)
        expected = theirs(label[10:], score[10:], sample_weight=fine[10:])
        assert call(weight=odd, where=where) == pytest.approx(expected, abs=1e-6)
        assert jnp.isnan(jax.jit(lambda w, call=call: call(weight=w))(jnp.zeros(80)))


@pytest.mark.parametrize("metric", [metrics.accuracy, metrics.auroc])
@pytest.mark.parametrize(
    ("weight", "words"),
    [
        ([1.0, -1.0], "weight: expected finite numbers of at least 0, got -1"),
        ([1.0, np.nan], "weight: expected finite numbers of at least 0, got nan"),
        ([0.0, 0.0], "weight: expected some above 0, got only 0"),
        ([True, True], "weight: expected numbers, got bool"),
        ([1.0], "weight"),
    ],
)
def test_bad_weights(metric, weight, words) -> None:
    """Weights out of range are refused by name."""
    with pytest.raises((ValueError, TypeError), match=words):
        metric(jnp.array([0.2, 0.8]), jnp.array([0, 1]), weight=jnp.array(weight))


@pytest.mark.parametrize("codes", [[1, 2], [-1, 1], [0.0, np.nan]])
def test_labels_that_are_not_0_and_1_are_refused(codes) -> None:
    """A label of 2 or -1 would count as positive."""
    prob = jnp.array([0.2, 0.8])
    for metric in (
        metrics.accuracy,
        metrics.auroc,
        metrics.average_precision,
        metrics.brier_score,
        metrics.expected_calibration_error,
        metrics.area_under_risk_coverage,
    ):
        with pytest.raises((ValueError, TypeError), match=r"label|correct"):
            metric(prob, jnp.array(codes))


def test_every_metric_works_under_strict_promotion():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for name in metrics.__all__:
            found = getattr(metrics, name)(
                jnp.array([0.9, 0.6, 0.3, 0.1], jnp.float32),
                jnp.array([True, False, True, False]),
            )
            assert jnp.isfinite(jnp.stack(jax.tree.leaves(found))).all(), name
