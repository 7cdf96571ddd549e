"""Test cells in memory: accepted and rejected input, and that input is unchanged."""

import numpy as np
import pytest
import scipy.sparse as sp

from jeff_graph.cells import columns, expression, preprocess, simulate
from jeff_graph.cells import moments as moments_


@pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.float32, np.float64, bool])
@pytest.mark.parametrize(
    "make", [np.asarray, sp.csr_matrix, sp.csc_array, sp.coo_array]
)
def test_any_real_matrix_becomes_the_same_rows(dtype, make):
    dense = np.array([[0, 1, 0], [1, 0, 1], [0, 0, 0]], dtype)
    cells = expression.make_expression(make(dense), ["A", "B", "C"], {"n": [1, 2, 3]})
    assert cells.values.dtype == np.float32
    np.testing.assert_array_equal(cells.values.toarray(), dense)
    assert cells.num_cells == 3
    assert cells.column("n").tolist() == [1, 2, 3]
    np.testing.assert_array_equal(cells.take(np.array([2, 1])).toarray(), dense[[2, 1]])
    parts = [part.toarray() for part in cells.chunks(2)]
    assert [len(part) for part in parts] == [2, 1]
    np.testing.assert_array_equal(np.concatenate(parts), dense)


def test_the_callers_matrix_stays_as_it_was():
    data = (np.array([0.0, 2.0, 3.0], "f4"), np.array([2, 0, 0]), np.array([0, 3]))
    given = sp.csr_array(data, shape=(1, 3))
    cells = expression.make_expression(given)
    assert cells.values.toarray().tolist() == [[5, 0, 0]]  # doubles are summed
    assert cells.values.nnz == 1
    assert given.nnz == 3
    assert given.indices.tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    ("values", "options", "error", "message"),
    [
        (
            [[1.0, -2.0], [0, 0]],
            {},
            ValueError,
            "1 that are not, the first -2 .*cell 0",
        ),
        ([[1.0, 0], [0, np.nan]], {}, ValueError, "not finite.* at cell 1, gene 1"),
        ([[1.0, np.inf]], {}, ValueError, "not finite"),
        ([[1.0j, 0]], {}, TypeError, "expected real numbers, got complex128"),
        ([1.0, 2.0], {}, ValueError, r"\[cells, genes\], got 1 dim"),
        ([[1.0, 2.0]], {"genes": ["A"]}, ValueError, "expected 2 names, got 1"),
        (
            [[1.0, 2.0]],
            {"genes": ["A", "A"]},
            ValueError,
            "repeat, such as A; make them",
        ),
        (
            [[1.0, 2.0]],
            {"obs": {"t": [1, 2]}},
            ValueError,
            r"obs\['t'\]: expected 1 val",
        ),
    ],
)
def test_mistakes(unchecked, values, options, error, message):
    with pytest.raises(error, match=message):
        expression.make_expression(np.array(values), **options)


def test_more_mistakes(unchecked):
    cells = expression.make_expression(np.eye(2), obs={"type": ["a", "b"]})
    with pytest.raises(ValueError, match="expected one of type, got 'kind'"):
        cells.column("kind")
    with pytest.raises(ValueError, match="size: expected at least 1"):
        list(cells.chunks(0))


@pytest.mark.parametrize(
    ("column", "codes", "classes"),
    [
        (["b", "a", "", "b"], [1, 0, -1, 1], ("a", "b")),
        ([1.0, np.nan, 0.0, 1.0], [1, -1, 0, 1], ("0", "1")),
        ([True, False, True, True], [1, 0, 1, 1], ("False", "True")),
        (np.array([None, "x", "y", None], object), [-1, 0, 1, -1], ("x", "y")),
    ],
)
def test_labels_are_numbered(column, codes, classes):
    found, names = columns.label_codes(np.array(column))
    assert found.tolist() == codes
    assert names == classes


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (["a", "a", ""], r"disease: .*at least 2 classes, got 1 \(a\)"),
        (["", ""], "every value is missing"),
        (np.linspace(0, 1, 50), "got 50 different numbers; cut"),
    ],
)
def test_a_label_needs_classes(column, message):
    with pytest.raises(ValueError, match=message):
        columns.label_codes(np.array(column), name="disease")


def test_a_recipe_worked_by_hand():
    chunk = sp.csr_array(np.array([[1.0, 3.0, 0.0], [0.0, 8.0, 8.0], [0.0, 0.0, 0.0]]))
    recipe = preprocess.Recipe(genes=np.array([2, 1]), target=4.0, log=True)
    found = preprocess.apply_recipe(recipe, chunk).toarray()
    expected = np.log1p([[0.0, 3.0], [2.0, 2.0], [0.0, 0.0]])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert chunk.data.tolist() == [1, 3, 8, 8]


def test_counts_are_told_from_logarithms():
    counts = simulate.simulate_cells(300, seed=0)
    recipe = preprocess.make_recipe(counts, num_genes=50)
    assert recipe.log
    depth = np.concatenate([part.sum(1) for part in counts.chunks()])
    assert recipe.target == pytest.approx(np.median(depth))
    logs = expression.collect(preprocess.prepare(counts, recipe))
    again = preprocess.make_recipe(logs, num_genes=20)
    assert not again.log
    assert again.target is None
    assert len(again.genes) == 20


def test_moments_stream_and_merge():
    cells = simulate.simulate_cells(500, seed=1)
    whole = moments_.gene_moments(cells.chunks(500))
    dense = cells.take(np.arange(500)).toarray().astype(float)
    np.testing.assert_allclose(whole.mean, dense.mean(0), rtol=1e-6)
    np.testing.assert_allclose(whole.variance, dense.var(0), rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(whole.detected, (dense > 0).sum(0))
    parts = [moments_.gene_moments([part]) for part in cells.chunks(77)]
    for one, other in zip(moments_.merge_moments(*parts), whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_dispersion_keeps_markers_of_rare_types_that_variance_drops():
    cells = simulate.simulate_cells(6000, seed=0)
    rare = np.flatnonzero(cells.truth.marker_type >= 4)
    kept = {}
    for method in ("dispersion", "variance"):
        genes = preprocess.make_recipe(cells, num_genes=180, method=method).genes
        kept[method] = np.isin(rare, genes).mean()
    assert kept["dispersion"] > 0.8
    assert kept["variance"] < 0.5


def test_kept_genes_are_kept():
    cells = simulate.simulate_cells(300, seed=0)
    recipe = preprocess.make_recipe(cells, num_genes=5, keep=["gene007", "gene400"])
    assert {7, 400} <= set(recipe.genes.tolist())
    assert len(recipe.genes) == 5
    seen = preprocess.prepare(cells, recipe)
    assert seen.genes.tolist() == [f"gene{i:03d}" for i in recipe.genes]
    np.testing.assert_array_equal(
        seen.take(np.array([5, 2])).toarray(),
        np.concatenate([part.toarray() for part in seen.chunks(9)])[[5, 2]],
    )
    with pytest.raises(ValueError, match=r"keep: .*got TP53, which"):
        preprocess.make_recipe(cells, keep=["TP53"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: moments_.choose_genes(m, 1), "num_genes: expected at least 2"),
        (lambda m: moments_.choose_genes(m, 5, method="odd"), "method: expected"),
        (lambda m: moments_.merge_moments(), "expected at least one"),
        (lambda m: moments_.gene_moments([]), "chunks: expected at least one"),
        (
            lambda m: preprocess.make_recipe(
                expression.make_expression(np.zeros((4, 3)))
            ),
            "cells that express genes, got none",
        ),
        (
            lambda m: preprocess.make_recipe(
                expression.make_expression(np.ones((4, 3))), num_genes=2
            ),
            "at least 2 genes that differ",
        ),
    ],
)
def test_recipe_mistakes(unchecked, call, message):
    moments = moments_.gene_moments(simulate.simulate_cells(50).chunks())
    with pytest.raises(ValueError, match=message):
        call(moments)
