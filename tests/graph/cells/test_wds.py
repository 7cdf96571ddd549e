"""Test hashes against exact min-max similarity, and that counts add up."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import csr_array

from jeff_graph.cells import simulate, stream, wds
from jeff_graph.cells.rows import make_rows


@pytest.fixture(scope="module")
def cells() -> csr_array:
    made = simulate.simulate_cells(400, seed=5)
    rows = next(made.chunks(400)).copy()
    rows.data = np.log1p(rows.data)
    return rows


@pytest.fixture(scope="module")
def params() -> wds.HashParameters:
    return wds.hash_parameters(jax.random.key(2), 500, 1000)


def test_collisions_are_the_min_max_similarity(cells, params):
    hashed = np.asarray(wds.hashes(params, make_rows(cells)))
    dense = jnp.asarray(cells.toarray())
    one, other = np.arange(0, 400, 2), np.arange(1, 400, 2)
    exact = np.asarray(jax.vmap(wds.min_max_similarity)(dense[one], dense[other]))
    rate = (hashed[one] == hashed[other]).mean(1)
    sigmas = (rate - exact) / np.sqrt(np.maximum(exact * (1 - exact), 1e-3) / 1000)
    # Of 200 normal numbers at most two lie beyond 3, with a chance of 98%.
    assert (np.abs(sigmas) > 3).sum() <= 2
    assert abs(sigmas.mean()) < 0.5
    assert exact.max() - exact.min() > 0.2


def test_a_scaled_cell_is_less_alike_the_more_it_is_scaled(cells, params):
    hashed = wds.hashes(params, make_rows(cells))
    rates = [
        float((wds.hashes(params, make_rows(cells * factor)) == hashed).mean())
        for factor in (1.0, 1.25, 2.0, 4.0)
    ]
    # 0-bit hashes collide a little oftener than 1 / factor, as they drop t.
    for rate, exact in zip(rates, (1.0, 0.8, 0.5, 0.25), strict=True):
        assert exact <= rate + 1e-6 <= exact + 0.09


def test_dense_and_sparse_and_any_block_hash_alike(cells):
    params = wds.hash_parameters(jax.random.key(0), 500, 16)
    some = cells[:37]
    dense = wds.hashes(params, jnp.asarray(some.toarray()))
    for block in (None, 1, 8, 64):
        found = wds.hashes(params, make_rows(some, num_rows=64), block=block)
        np.testing.assert_array_equal(found[:37], dense)
        assert (found[37:] == -1).all()
    jitted = jax.jit(wds.hashes)(params, make_rows(some))
    np.testing.assert_array_equal(jitted, dense)


def test_worked_by_hand():
    """One hash, two genes: r = 1, b = 0 and c = (1, e): gene 0 has ln a = -t - 1."""
    params = wds.HashParameters(
        slope=jnp.ones((2, 1)),
        offset=jnp.zeros((2, 1)),
        base=jnp.array([[-1.0], [0.0]]),
        rate=jnp.ones((2, 1)),
    )
    x = jnp.exp(jnp.array([[0.5, 0.5], [0.5, 1.5], [0.5, 2.5]]))
    # t of gene 1 is 0, 1, 2, so its ln a is 0, -1, -2; gene 0 has -1 and wins ties.
    assert wds.hashes(params, x).tolist() == [[0], [0], [1]]


def test_a_cell_without_genes_has_a_bucket_of_its_own():
    params = wds.hash_parameters(jax.random.key(0), 4, 8)
    x = jnp.zeros((3, 4)).at[1, 2].set(1.0)
    sketch = wds.update(wds.empty_sketch(params), wds.hashes(params, x))
    assert (sketch.counts[:, 4] == 2).all()
    assert (sketch.counts[:, 2] == 1).all()
    density = wds.scores(sketch, wds.hashes(params, x))
    np.testing.assert_allclose(density, [2 / 3, 1 / 3, 2 / 3], rtol=1e-6)
    assert np.isnan(stream.score_cells([np.asarray(x)], params, sketch)[[0, 2]]).all()


def test_counts_sum_to_the_cells_and_merge_is_the_union(cells):
    params = wds.hash_parameters(jax.random.key(0), 500, 30)
    parts = [cells[:111], cells[111:130], cells[130:]]
    whole = wds.update(wds.empty_sketch(params), wds.hashes(params, make_rows(cells)))
    assert (whole.counts.sum(1) == 400).all()
    merged = wds.merge(
        *(
            wds.update(wds.empty_sketch(params), wds.hashes(params, make_rows(part)))
            for part in parts
        )
    )
    np.testing.assert_array_equal(merged.counts, whole.counts)
    assert int(merged.num_cells) == 400


@pytest.mark.parametrize(("size", "workers"), [(400, 1), (64, 2), (7, 3)])
def test_chunks_and_workers_change_nothing(cells, size, workers):
    params = wds.hash_parameters(jax.random.key(0), 500, 30)
    whole = wds.update(wds.empty_sketch(params), wds.hashes(params, make_rows(cells)))
    density = wds.scores(whole, wds.hashes(params, make_rows(cells)))

    def chunks():
        return (cells[start : start + size] for start in range(0, 400, size))

    sketch = stream.sketch_cells(chunks(), params, workers=workers)
    np.testing.assert_array_equal(sketch.counts, whole.counts)
    found = stream.score_cells(chunks(), params, sketch, workers=workers)
    np.testing.assert_allclose(found, density, rtol=1e-6)


def test_density_is_the_mean_similarity(cells):
    """Against all pairs: the standard error of the mean over 1,000 hashes, thrice."""
    params = wds.hash_parameters(jax.random.key(7), 500, 1000)
    some, x = cells[:60], jnp.asarray(cells[:60].toarray())
    hashed = wds.hashes(params, make_rows(some))
    density = wds.scores(wds.update(wds.empty_sketch(params), hashed), hashed)
    similarity = jax.vmap(lambda a: jax.vmap(lambda b: wds.min_max_similarity(a, b))(x))
    np.testing.assert_allclose(density, similarity(x).mean(1), atol=0.03)


def test_new_cells_are_scored_against_old_counts(cells):
    params = wds.hash_parameters(jax.random.key(0), 500, 30)
    old = stream.sketch_cells([cells[:300]], params)
    density = stream.score_cells([cells[300:]], params, old)
    assert density.shape == (100,)
    assert ((density >= 0) & (density < 1)).all()


def test_a_chunk_of_another_size_compiles_nothing_new(cells):
    params = wds.hash_parameters(jax.random.key(0), 500, 8)
    counted = jax.jit(chex.assert_max_traces(wds.hashes, n=1))
    for stop in (64, 60, 62):
        rows = make_rows(cells[:stop], num_rows=64, num_nonzeros=8192)
        assert (counted(params, rows)[:stop] >= 0).all()


def test_one_key_one_sketch():
    one = wds.hash_parameters(jax.random.key(4), 10, 3)
    chex.assert_trees_all_equal(one, wds.hash_parameters(jax.random.key(4), 10, 3))
    other = wds.hash_parameters(jax.random.key(5), 10, 3)
    assert not np.array_equal(one.rate, other.rate)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, s: wds.hash_parameters(jax.random.key(0), 0), "at least 1"),
        (lambda p, s: wds.hashes(p, jnp.zeros((2, 3))), r"\[cells, 4\], got \(2, 3\)"),
        (lambda p, s: wds.hashes(p, jnp.zeros((2, 4)), block=0), "block: expected"),
        (lambda p, s: wds.update(s, jnp.zeros((5, 3), int)), r"hashed: .*\[cells, 2\]"),
        (lambda p, s: wds.scores(s, jnp.zeros(5, int)), r"hashed: .*\[cells, 2\]"),
        (lambda p, s: wds.merge(), "expected at least one"),
        (
            lambda p, s: wds.merge(
                s, wds.empty_sketch(wds.hash_parameters(jax.random.key(0), 5, 2))
            ),
            "one number of hashes and genes",
        ),
        (
            lambda p, s: wds.merge(*[wds.Sketch(s.counts, jnp.int32(2**30))] * 2),
            r"below 2\^31 cells",
        ),
        (lambda p, s: stream.sketch_cells([np.zeros((2, 3))], p), "expected 4 genes"),
        (lambda p, s: stream.sketch_cells([np.zeros((2, 4))], p, workers=0), "workers"),
        (lambda p, s: stream.sketch_cells([-np.ones((2, 4))], p), "8 negative"),
        (lambda p, s: stream.sketch_cells([np.full((2, 4), np.nan)], p), "8 not fin"),
    ],
)
def test_mistakes(unchecked, call, message):
    params = wds.hash_parameters(jax.random.key(0), 4, 2)
    with pytest.raises(ValueError, match=message):
        call(params, wds.empty_sketch(params))


def test_rows_pad_and_refuse():
    rows = make_rows(np.array([[0.0, 2.0], [0.0, 0.0]]), num_rows=4, num_nonzeros=3)
    assert rows.counts.tolist() == [1, 0, -1, -1]
    assert rows.genes.tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="at least 2 and 1, got 1 and"):
        make_rows(np.array([[0.0, 2.0], [0.0, 0.0]]), num_rows=1)
    explicit = csr_array((np.array([0.0, 3.0]), np.array([0, 1]), np.array([0, 2])))
    assert make_rows(explicit).counts.tolist() == [1]
    assert explicit.nnz == 2  # the caller's matrix is as it was
