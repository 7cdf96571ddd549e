"""Test baselines, enrichment, agreement and rivals against numpy, scipy and peers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.sparse import csr_array

from jeff_graph.cells import baselines, enrichment, evaluation, nid, rivals


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.poisson(1.0, (60, 7)).astype("f4")
    x[:, 1] += x[:, 0]
    x[:, 6] = 2.0
    return x


def test_pearson_and_spearman(x):
    found = baselines.pearson(jnp.asarray(x))
    np.testing.assert_allclose(found[:6, :6], np.corrcoef(x[:, :6].T), atol=1e-5)
    assert (found[6] == 0).all()
    ranks = scipy.stats.spearmanr(x[:, :6]).statistic
    np.testing.assert_allclose(
        baselines.spearman(jnp.asarray(x))[:6, :6], ranks, atol=1e-5
    )


def test_weights_are_copies_of_cells(x):
    copies = np.random.default_rng(1).integers(1, 4, 60)
    one = baselines.pearson(jnp.asarray(x), weights=jnp.asarray(copies, jnp.float32))
    other = baselines.pearson(jnp.asarray(np.repeat(x, copies, 0)))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_mean_ranks_are_scipys():
    values = np.random.default_rng(0).integers(0, 5, 40).astype("f4")
    expected = scipy.stats.rankdata(values) - 1
    np.testing.assert_array_equal(baselines.mean_ranks(jnp.asarray(values)), expected)


def test_cs_core_sees_beneath_depth_and_noise():
    """Gamma expression with correlation .6 of one pair, none of others, and depths."""
    rng = np.random.default_rng(0)
    shared = rng.gamma(3, 1, (20_000, 1))
    own = rng.gamma(2, 1, (20_000, 6))
    level = np.concatenate([shared + own[:, :2], own[:, 2:] + 2], 1) * 0.3
    depth = np.exp(rng.normal(0, 0.5, 20_000)) * 1000
    counts = rng.poisson(level * depth[:, None] / 1000).astype("f4")
    found = baselines.cs_core(jnp.asarray(counts), jnp.asarray(depth, jnp.float32))
    assert float(found.correlation[0, 1]) == pytest.approx(0.6, abs=0.05)
    others = np.asarray(found.correlation)[np.triu_indices(6, 1)][1:]
    assert np.abs(others).max() < 0.06
    statistic = np.asarray(found.statistic)[np.triu_indices(6, 1)][1:]
    assert np.abs(statistic).max() < 4
    plain = np.corrcoef(counts.T)
    assert plain[2, 3] > 0.1  # what depth alone brings about
    scale = depth.mean() / 1000
    np.testing.assert_allclose(found.mean, level.mean(0) * scale, rtol=0.03)


def test_nid_worked_by_hand():
    kernels = [
        jnp.array([[1.0, -2.0], [3.0, 0.5], [0.0, 4.0]]),
        jnp.array([[1.0], [-2.0]]),
        jnp.array([[0.5, -0.5]]),
    ]
    # Units count 1 and 2 for the outputs; a pair has its smaller weight in each.
    found = nid.nid_scores(kernels)
    assert found[0, 1] == 1 * 1.0 + 2 * 0.5
    assert found[0, 2] == 2 * 2.0
    assert found[1, 2] == 2 * 0.5
    with pytest.raises(ValueError, match="two or more that fit"):
        nid.nid_scores(kernels[:1])


def test_nid_finds_planted_products():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 10)).astype("f4")
    odds = 3 * x[:, 0] * x[:, 1] + 3 * x[:, 2] * x[:, 3] + 2 * x[:, 4] - 2 * x[:, 5]
    labels = jnp.asarray((rng.random(4000) < 1 / (1 + np.exp(-odds))).astype(np.int32))
    kernels = jax.jit(lambda x, y: nid.train_mlp(x, y, key=jax.random.key(0)))(
        x, labels
    )
    planted = evaluation.planted_mask(10, np.array([[0, 1], [2, 3]]))
    assert evaluation.planted_auroc(nid.nid_scores(kernels), planted) > 0.95
    with pytest.raises(ValueError, match="num_epochs, batch_size"):
        nid.train_mlp(jnp.asarray(x), labels, key=jax.random.key(0), num_epochs=0)


@pytest.mark.parametrize("sign", [1, -1])
def test_enrichment_is_gseapys(sign):
    gseapy = pytest.importorskip("gseapy", reason="the peer is not installed")
    import pandas as pd

    rng = np.random.default_rng(3)
    scores = np.sort(rng.normal(size=400))[::-1].astype("f4")
    chance = 1 / (1 + np.exp(-2.0 * sign * scores))
    hits = rng.random(400) < 0.12 * chance
    names = np.array([f"p{i}" for i in range(400)])
    peer = gseapy.prerank(
        rnk=pd.Series(scores, index=names),
        gene_sets={"set": names[hits].tolist()},
        permutation_num=2000,
        min_size=1,
        max_size=400,
        outdir=None,
        seed=1,
        no_plot=True,
        threads=1,
    ).res2d.iloc[0]
    found = enrichment.prerank(
        jnp.asarray(scores),
        jnp.asarray(hits),
        key=jax.random.key(0),
        num_permutations=2000,
    )
    assert float(found.score) == pytest.approx(float(peer["ES"]), abs=1e-4)
    # Means of about a thousand scores of one sign, here and there: .7% each.
    assert float(found.normalised) == pytest.approx(float(peer["NES"]), rel=0.03)
    lead = str(peer["Lead_genes"]).split(";")
    assert abs(int(found.leading) - len(lead)) <= 1


def test_unlisted_items_are_as_if_left_out():
    rng = np.random.default_rng(0)
    scores = jnp.asarray(rng.normal(size=50), jnp.float32)
    hits = jnp.asarray(rng.random(50) < 0.3)
    where = jnp.asarray(rng.random(50) < 0.7)
    options = {"key": jax.random.key(0), "num_permutations": 400}
    spoiled = jnp.where(where, scores, jnp.nan)
    found = enrichment.prerank(spoiled, hits, where=where, **options)
    alone = enrichment.prerank(scores[where], hits[where], **options)
    np.testing.assert_allclose(found.score, alone.score, rtol=1e-5)
    assert int(found.leading) == int(alone.leading)
    np.testing.assert_allclose(found.normalised, alone.normalised, rtol=0.1)


def test_a_set_at_the_bottom_is_negative():
    scores = jnp.arange(20, 0, -1).astype(jnp.float32)
    found = enrichment.prerank(scores, jnp.arange(20) >= 17, key=jax.random.key(0))
    assert found.score == pytest.approx(-1)
    assert found.normalised < -1
    assert int(found.leading) == 3
    with pytest.raises(ValueError, match="num_permutations"):
        enrichment.prerank(
            scores, scores > 3, key=jax.random.key(0), num_permutations=0
        )


@pytest.fixture(scope="module")
def maps() -> list[jax.Array]:
    rng = np.random.default_rng(0)
    made = rng.normal(size=(2, 8, 8))
    made = (made + made.swapaxes(1, 2)) / 2
    made[:, 3, 4] = made[:, 4, 3] = np.nan
    return [jnp.asarray(one, jnp.float32) for one in made]


def test_agreement_of_maps(maps):
    one, other = maps
    pairs = np.triu_indices(8, 1)
    a, b = np.asarray(one)[pairs], np.asarray(other)[pairs]
    seen = ~np.isnan(a)
    expected = scipy.stats.spearmanr(a[seen], b[seen]).statistic
    assert float(evaluation.rank_agreement(one, other)) == pytest.approx(
        expected, abs=1e-5
    )
    top = [set(np.argsort(-np.where(seen, v, -np.inf))[:5].tolist()) for v in (a, b)]
    assert float(evaluation.overlap_at(one, other, 5)) * 5 == pytest.approx(
        len(top[0] & top[1])
    )
    # One of the 28 pairs was never seen, and agrees with nothing.
    assert float(evaluation.overlap_at(one, one, 27)) == 1
    assert float(evaluation.overlap_at(one, one, 28)) == pytest.approx(27 / 28)
    ranked = evaluation.rank_pairs(one)
    assert (ranked.first < ranked.second).all()
    assert np.isnan(ranked.score[-1])
    assert [int(ranked.first[-1]), int(ranked.second[-1])] == [3, 4]
    assert (np.diff(ranked.score[:-1]) <= 0).all()


def test_planted_pairs_are_told_from_others(maps):
    planted = evaluation.planted_mask(8, np.array([[1, 0], [4, 3]]))
    values = np.asarray(evaluation.pair_values(maps[0]))
    values = np.where(np.isnan(values), -99, values)
    pairs = [
        (hit > miss) + 0.5 * (hit == miss)
        for hit, miss in itertools.product(values[planted], values[~planted])
    ]
    found = evaluation.planted_auroc(maps[0], planted)
    assert float(found) == pytest.approx(np.mean(pairs), abs=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: evaluation.pair_values(m[0][:3]), r"\[genes, genes\], got \(3, 8\)"),
        (lambda m: evaluation.overlap_at(m[0], m[1], 29), "expected 1 to 28 pairs"),
        (
            lambda m: evaluation.rank_agreement(m[0], m[1][:3, :3]),
            "maps of the same genes",
        ),
        (
            lambda m: evaluation.planted_mask(8, np.array([[2, 2]])),
            "two different genes",
        ),
        (lambda m: evaluation.planted_mask(8, np.array([[2, 8]])), "from 0 to 7"),
        (
            lambda m: rivals.uniform(3, 4, key=jax.random.key(0)),
            "expected 1 to 3 cells",
        ),
        (lambda m: rivals.k_centre(m[0], 9, key=jax.random.key(0)), "expected 1 to 8"),
        (
            lambda m: rivals.principal_components(csr_array(np.eye(4)), 4),
            "expected 1 to 3 components",
        ),
    ],
)
def test_mistakes(unchecked, maps, call, message):
    with pytest.raises(ValueError, match=message):
        call(maps)


def test_k_centre_is_within_twice_the_best():
    rng = np.random.default_rng(0)
    for seed in range(10):
        x = rng.normal(size=(12, 2)).astype("f4")
        found = rivals.k_centre(jnp.asarray(x), 3, key=jax.random.key(seed))
        assert len(set(found.tolist())) == 3
        far = np.linalg.norm(x[:, None] - x[None], axis=-1)
        best = min(
            far[:, list(chosen)].min(1).max()
            for chosen in itertools.combinations(range(12), 3)
        )
        assert far[:, np.asarray(found)].min(1).max() <= 2 * best + 1e-5
    whole = rivals.k_centre(jnp.asarray(x), 12, key=jax.random.key(0))
    assert sorted(whole.tolist()) == list(range(12))


def test_components_are_those_of_the_centred_matrix():
    rng = np.random.default_rng(0)
    x = rng.poisson(1.0, (40, 9)).astype("f4")
    found = rivals.principal_components(csr_array(x), 3)
    left, size, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    expected = left[:, :3] * size[:3]
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-4)
    again = rivals.principal_components(csr_array(x), 3)
    np.testing.assert_array_equal(found, again)


@pytest.mark.filterwarnings("ignore")
def test_geosketch_is_seeded():
    pytest.importorskip("geosketch", reason="the peer is not installed")
    x = np.random.default_rng(0).normal(size=(200, 4)).astype("f4")
    one, other = (rivals.geosketch_cells(x, 20, seed=3) for _ in range(2))
    assert len(set(one.tolist())) == 20
    assert sorted(one.tolist()) == sorted(other.tolist())


def test_uniform_picks_are_distinct():
    found = rivals.uniform(10, 10, key=jax.random.key(0))
    assert sorted(found.tolist()) == list(range(10))
