"""Test maps of pairs against loops over cells; intervals, null, tests, Hessians."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jeff_graph.cells import confirm, hessian, interactions, simulate
from jeff_graph.cells import null as nulls
from jeff_graph.cells.tokens import Tokens, make_tokens


def product(params, tokens):
    """A score of tokens that is not symmetric: value of the first."""
    return tokens.values[:, :, None] * params + 0 * tokens.values[:, None, :]


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    x = np.random.default_rng(0).poisson(0.5, (30, 6)).astype("f4")
    x[:, 5] = 0
    x[7] = 0
    return x


def by_hand(x, weights, prior=0.0):
    """Symmetrised mean over cells that hold both, and prior cells."""
    genes = x.shape[1]
    score, weight, square = np.zeros((3, genes, genes))
    for cell, w in zip(x, weights, strict=True):
        for i in np.flatnonzero(cell):
            for j in np.flatnonzero(cell):
                if i != j:
                    score[i, j] += w * (cell[i] + cell[j])
                    weight[i, j] += 2 * w
                    square[i, j] += 4 * w**2
    mean = score.sum() / weight.sum()
    with np.errstate(invalid="ignore"):
        number = weight**2 / square
        full = (number * score / weight + prior * mean) / (number + prior)
    return np.where(weight > 0, full, np.nan)


@pytest.mark.parametrize("batch_size", [4, 64])
@pytest.mark.parametrize("resamples", [0, 3])
@pytest.mark.parametrize("prior", [0.0, 2.0])
def test_scores_are_the_loop_over_cells(x, batch_size, resamples, prior):
    weights = np.random.default_rng(1).random(30).astype("f4")
    sums = interactions.pair_sums(
        product,
        1.0,
        make_tokens(x),
        6,
        weights=jnp.asarray(weights),
        batch_size=batch_size,
        num_bootstrap=resamples,
        key=jax.random.key(0),
    )
    found = interactions.pair_scores(sums, prior_cells=prior)
    expected = by_hand(x, weights * 30 / weights.sum(), prior)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    held = (x > 0).astype(int)
    np.testing.assert_array_equal(sums.cells, held.T @ held)
    assert np.isnan(found[5]).all()


def test_parts_add_to_the_whole(x):
    whole = interactions.pair_sums(product, 1.0, make_tokens(x), 6)
    parts = [
        interactions.pair_sums(product, 1.0, make_tokens(part), 6)
        for part in (x[:11], x[11:])
    ]
    chex.assert_trees_all_close(interactions.merge_sums(*parts), whole, rtol=1e-5)


def test_padding_and_width_change_nothing(x):
    narrow = interactions.pair_sums(product, 1.0, make_tokens(x), 6)
    wide = interactions.pair_sums(product, 1.0, make_tokens(x, width=11), 6)
    chex.assert_trees_all_close(narrow, wide, rtol=1e-6)


def test_the_interval_covers_the_mean_of_many_cells():
    """Of 300 intervals at 90%, 90% hold the truth, within four sigmas and a bias."""
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(300):
        x = rng.normal(3, 1, (80, 2)).astype("f4").clip(0.01)
        sums = interactions.pair_sums(
            product, 1.0, make_tokens(x), 2, num_bootstrap=200, key=jax.random.key(seed)
        )
        low, high = interactions.pair_interval(sums, confidence=0.9)
        covered.append(float(low[0, 1]) <= 3.0 <= float(high[0, 1]))
    assert 0.83 <= np.mean(covered) <= 0.95


def test_resamples_are_drawn_to_the_mean_no_more_than_the_cells_are():
    """The mean of the resamples is the score, with prior cells as without."""
    x = np.random.default_rng(0).gamma(2, 1, (60, 4)).astype("f4")
    x[:, 0] *= 5
    sums = interactions.pair_sums(
        product, 1.0, make_tokens(x), 4, num_bootstrap=2000, key=jax.random.key(0)
    )
    for prior in (0.0, 20.0):
        low, high = interactions.pair_interval(sums, confidence=0.02, prior_cells=prior)
        score = interactions.pair_scores(sums, prior_cells=prior)
        np.testing.assert_allclose((low + high)[0] / 2, score[0], rtol=0.02)


def test_the_null_finds_what_stands_out_and_nothing_else():
    rng = np.random.default_rng(0)
    maps = rng.normal(0, 1, (17, 20, 20)) + rng.normal(0, 5, (1, 20, 20))
    maps = jnp.asarray((maps + maps.swapaxes(1, 2)) / 2, jnp.float32)
    real = maps[0].at[2, 3].add(8.0).at[3, 2].add(8.0).at[4, 5].set(jnp.nan)
    null = nulls.permutation_null(real, maps[1:])
    pairs = np.triu_indices(20, 1)
    p = np.asarray(null.p_value)[pairs]
    assert null.q_value[2, 3] < 0.1
    assert (np.asarray(null.q_value)[pairs] < 0.1).sum() == 1
    assert null.p_value[4, 5] == null.q_value[4, 5] == 1
    assert abs(p.mean() - 0.5) < 0.06
    np.testing.assert_array_equal(null.q_value, null.q_value.T)


def test_false_discovery_rate_is_scipys():
    from scipy.stats import false_discovery_control

    p = np.random.default_rng(0).beta(0.5, 2, 200)
    found = nulls.false_discovery_rate(jnp.asarray(p, jnp.float32))
    np.testing.assert_allclose(found, false_discovery_control(p), rtol=1e-5)


def test_the_integrated_hessian_of_a_polynomial():
    """f = 2 x0 x1 + x2^2 against -f: the pair gets 2 times 2 x0 x1 / 4 of the double
    integral's 1 / 4, as the margin is 2 f; x2 interacts with nothing.
    """

    def apply_fn(params, tokens):
        v = tokens.values
        f = 2 * v[:, 0] * v[:, 1] + v[:, 2] ** 2
        return jnp.stack([f, -f], 1)

    tokens = Tokens(jnp.array([[0, 1, 2, 0]]), jnp.array([[1.0, 3.0, 2.0, 0.0]]))
    found = hessian.make_hessian(apply_fn, 12)(None, tokens)[0]
    expected = np.zeros((4, 4))
    # d2(2f) = 4; x0 x1 = 3; the integral of -t ln t is 1 / 4.
    expected[0, 1] = expected[1, 0] = 4 * 3 / 4
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_the_product_test_is_calibrated_and_has_power():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 30))
    odds = 0.8 * x[:, 0] - 0.8 * x[:, 1] + 0.5 * x[:, 2] * x[:, 3]
    label = rng.random(3000) < 1 / (1 + np.exp(-odds))
    pairs = np.stack(np.triu_indices(30, 1), 1)
    found = confirm.product_test(
        jnp.asarray(x, jnp.float32), jnp.asarray(label), jnp.asarray(pairs)
    )
    planted = (pairs == [2, 3]).all(1)
    assert found.p_value[planted][0] < 1e-10
    assert found.statistic[planted][0] > 0
    rest = np.asarray(found.statistic)[~planted]
    assert abs(rest.std() - 1) < 0.12
    assert abs((np.asarray(found.p_value)[~planted] < 0.05).mean() - 0.05) < 0.03


def test_the_product_test_is_twice_the_gain_of_a_fit():
    """Against a likelihood ratio, to which it is equal in large samples."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(1)
    x = rng.normal(size=(4000, 2))
    label = rng.random(4000) < 1 / (1 + np.exp(-(0.3 * x[:, 0] + 0.1 * x.prod(1))))
    found = confirm.product_test(
        jnp.asarray(x, jnp.float32), jnp.asarray(label), jnp.array([[0, 1]])
    )

    def best(columns):
        def loss(w):
            z = columns @ w
            return np.logaddexp(0, z).sum() - z[label].sum()

        return minimize(loss, np.zeros(columns.shape[1])).fun

    ones = np.ones((4000, 1))
    gain = best(np.hstack([ones, x])) - best(np.hstack([ones, x, x.prod(1)[:, None]]))
    assert float(found.statistic[0]) ** 2 == pytest.approx(2 * gain, rel=0.05)


@pytest.mark.parametrize(("cells", "positives"), [(100, 10), (1000, 10), (300, 30)])
def test_the_product_test_holds_for_a_rare_class(cells, positives):
    """Skewed counts, for which the tail of the normal distribution is too heavy."""
    rng = np.random.default_rng(2)
    below = []
    for _ in range(15):
        x = np.log1p(rng.poisson(rng.gamma(0.5, 2, size=(1, 30)), size=(cells, 30)))
        label = rng.permutation(cells) < positives
        pairs = rng.permutation(np.stack(np.triu_indices(30, 1), 1))[:200]
        found = confirm.product_test(x, label, pairs)
        below.append(np.asarray(found.p_value)[:, None] < [0.05, 0.01, 0.001])
    share = np.concatenate(below).mean(0)
    # Of 3,000 pairs that share cells; twice the level leaves room for chance.
    assert (share <= [0.06, 0.015, 0.002]).all()
    assert share[0] > 0.01


def test_the_saddlepoint_is_the_tail_of_a_binomial():
    """Equal weights make the score a binomial: compared with its exact tail."""
    chance, number = 0.05, 200
    weight = np.full(number, 1 / np.sqrt(number * chance * (1 - chance)), np.float32)
    logit = np.full(number, np.log(chance / (1 - chance)), np.float32)
    for hits in (18, 22, 28):
        score = weight[0] * (hits - number * chance)
        found = confirm._upper_tail(*map(jnp.asarray, (weight, logit, score)))
        exact = scipy.stats.binom.sf([hits - 1, hits], number, chance)
        # Between P(S >= hits) and P(S > hits), which a continuous tail goes between.
        assert exact[1] < found < exact[0]


def test_genes_without_variance_test_nothing():
    x = jnp.asarray(np.random.default_rng(0).random((50, 2)), jnp.float32)
    x = jnp.concatenate([x, jnp.ones((50, 1))], 1)
    found = confirm.product_test(x, x[:, 0] > 0.5, jnp.array([[0, 2], [2, 2]]))
    assert found.p_value.tolist() == [1.0, 1.0]


def simple(**options):
    tokens = options.pop("tokens", make_tokens(np.ones((3, 2))))
    number = options.pop("num_genes", 2)
    return interactions.pair_sums(product, 1.0, tokens, number, **options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: simple(num_genes=0), ValueError, "num_genes"),
        (lambda: simple(batch_size=0), ValueError, "batch_size"),
        (lambda: simple(num_bootstrap=5), ValueError, "key: expected a random key"),
        (lambda: simple(weights=jnp.ones(2)), ValueError, "weights: expected 3"),
        (interactions.merge_sums, ValueError, "at least one"),
        (lambda: interactions.pair_interval(simple()), ValueError, "num_bootstrap"),
        (
            lambda: interactions.pair_interval(simple(), confidence=1.0),
            ValueError,
            "confidence: expected",
        ),
        (
            lambda: nulls.permutation_null(jnp.ones((2, 2)), jnp.ones((2, 2, 2))),
            ValueError,
            "3 or more",
        ),
        (lambda: hessian.make_hessian(product, 0), ValueError, "num_points"),
        (
            lambda: confirm.product_test(
                jnp.ones((3, 2)), jnp.ones(3, bool), jnp.zeros((0, 2), int)
            ),
            ValueError,
            "pairs: expected shape",
        ),
        (
            lambda: confirm.product_test(
                jnp.ones((3, 2)), jnp.ones(3, int), jnp.zeros((1, 2), int)
            ),
            TypeError,
            "label: expected a bool",
        ),
    ],
)
def test_mistakes(unchecked, call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_simulated_pairs_pass_the_product_test():
    cells = simulate.simulate_cells(4000, seed=0)
    x = jnp.asarray(np.log1p(next(cells.chunks(4000)).toarray()))
    case = jnp.asarray(cells.column("label") == "case")
    own = cells.truth.pairs[cells.truth.pair_type == 0]
    found = confirm.product_test(x, case, jnp.asarray(own))
    assert (found.p_value < 0.01).mean() >= 0.8
    assert (found.statistic > 0).all()
