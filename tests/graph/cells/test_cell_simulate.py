"""Test that the simulator plants its declared pairs, for every chunk size."""

import numpy as np
import pytest

from jeff_graph.cells import expression, simulate


@pytest.fixture(scope="module")
def cells() -> simulate.SimulatedCells:
    return simulate.simulate_cells(6000, seed=2)


def test_chunks_and_takes_agree(cells):
    assert isinstance(cells, expression.Source)
    parts = list(cells.chunks(1001))
    assert [part.shape[0] for part in parts] == [1001] * 5 + [995]
    whole = np.concatenate([part.toarray() for part in parts])
    np.testing.assert_array_equal(
        whole, np.concatenate([part.toarray() for part in cells.chunks(4096)])
    )
    some = np.array([5999, 0, 2048, 2047, 0])
    np.testing.assert_array_equal(cells.take(some).toarray(), whole[some])
    assert cells.take(np.zeros(0, int)).shape == (0, 500)


def test_realistic_counts(cells):
    counts = np.concatenate([part.toarray() for part in cells.chunks()])
    assert 0.88 < (counts == 0).mean() < 0.93
    types, shares = np.unique(cells.column("type"), return_counts=True)
    np.testing.assert_allclose(shares / 6000, cells.design.shares, atol=0.02)
    assert types.tolist() == [f"type{i}" for i in range(6)]
    markers = cells.truth.marker_type
    own = counts[cells.column("type") == "type0"].mean(0)
    assert own[markers == 0].mean() > 4 * own[markers == 1].mean()
    # Over-dispersed: a marker's variance is far above its mean.
    first = counts[cells.column("type") == "type0"][:, markers == 0]
    assert (first.var(0) > 1.5 * first.mean(0)).all()


def test_planted_pairs_decide_the_label(cells):
    counts = np.concatenate([part.toarray() for part in cells.chunks()])
    case = cells.column("label") == "case"
    here = cells.column("type") == "type0"
    both, marker = [], []
    for pair in cells.truth.pairs[cells.truth.pair_type == 0]:
        on = (counts[here][:, pair] > 0).all(1)
        both.append(case[here][on].mean() - case[here][~on].mean())
    neutral = np.setdiff1d(
        np.flatnonzero(cells.truth.marker_type == 0),
        [*cells.truth.pairs.ravel(), *cells.truth.additive],
    )
    for pair in zip(neutral[::2], neutral[1::2], strict=False):
        on = (counts[here][:, pair] > 0).all(1)
        marker.append(case[here][on].mean() - case[here][~on].mean())
    assert min(both) > 0.1
    assert max(np.abs(marker)) < 0.1


def test_one_seed_one_sample(cells):
    again = simulate.simulate_cells(6000, seed=2)
    np.testing.assert_array_equal(again.column("label"), cells.column("label"))
    other = simulate.simulate_cells(6000, seed=3)
    assert (other.truth.pairs != cells.truth.pairs).any()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: simulate.simulate_cells(0), ValueError, "num_cells: expected"),
        (lambda c: simulate.Design(shares=(0.5, 0.4)), ValueError, "sum to 1"),
        (lambda c: simulate.Design(markers=5), ValueError, "markers: expected"),
        (lambda c: simulate.Design(num_genes=50), ValueError, "num_genes: .*180"),
        (lambda c: c.column("age"), ValueError, "'type' or 'label', got 'age'"),
        (lambda c: list(c.chunks(0)), ValueError, "size: expected"),
        (lambda c: c.take(np.array([6000])), IndexError, "0 to 5999, got 6000"),
    ],
)
def test_mistakes(unchecked, cells, call, error, message):
    with pytest.raises(error, match=message):
        call(cells)
