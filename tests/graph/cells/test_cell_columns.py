"""Test what a user's columns, values and codes are taken as."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

from jeff_graph import cells
from jeff_graph.cells import columns, enrichment, evaluation, nid, scales, weights
from jeff_graph.cells import null as nulls
from jeff_graph.cells.rows import make_rows
from jeff_graph.cells.training import fit

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(RNG.gamma(0.5, 4, (40, 30))).astype(float)
CPM = COUNTS / COUNTS.sum(1, keepdims=True) * 1e6


@pytest.mark.parametrize(
    ("values", "kind", "warning"),
    [
        (COUNTS, "counts", ""),
        (COUNTS + 0.5, "counts", "too large for logarithms"),
        (CPM, "counts", "too large for logarithms"),
        (CPM / 1e6, "counts", "sum to 1 in every cell"),
        (np.log1p(CPM / 100), "log", ""),
        (np.log1p(np.log1p(CPM / 100)), "log", "a logarithm taken twice"),
        (COUNTS / COUNTS.max() * 20 + 0.01, "log", "more than the natural logarithm"),
    ],
)
def test_what_values_are(values, kind, warning):
    source = cells.make_expression(values)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        recipe = cells.make_recipe(source)
    assert recipe.log == (kind == "counts")
    assert [warning in str(each.message) for each in caught] == [True] * bool(warning)
    # What the user says decides alone, and in silence.
    for said in ("counts", "log"):
        assert cells.make_recipe(source, values=said).log == (said == "counts")


def test_counts_that_a_file_calls_logarithms_are_counts_with_a_warning():
    scale = scales.empty_scale().add(sp.csr_array(COUNTS))
    with pytest.warns(UserWarning, match='whole numbers, although uns."log1p"'):
        assert scales.taken_as(scale, logged=True) == "counts"


def test_genes_to_keep_are_read_once():
    source = cells.make_expression(COUNTS)
    names = ["gene3", "gene7"]
    found = cells.make_recipe(source, num_genes=5, keep=(name for name in names))
    assert {3, 7} <= set(found.genes.tolist())
    assert 9 in cells.make_recipe(source, num_genes=5, keep="gene9").genes
    moments = cells.gene_moments(source.chunks())
    assert {1, 2} <= set(cells.choose_genes(moments, 5, keep=iter([1, 2])).tolist())
    with pytest.raises(ValueError, match="keep: expected genes from 0 to 29, got -1"):
        cells.choose_genes(moments, 5, keep=[-1])


def test_a_design_and_kernels_are_read_once(unchecked):
    design = cells.Design(num_genes=60, shares=(s for s in (0.6, 0.4)), markers=20)
    assert design.shares == (0.6, 0.4)
    kernels = [jnp.array([[1.0], [-3.0]]), jnp.array([[2.0]])]
    assert float(nid.nid_scores(iter(kernels))[0, 1]) == 2.0


def test_what_is_missing_is_what_pandas_reads_so():
    pd = pytest.importorskip("pandas")
    from io import StringIO

    texts = ["T", "", "NA", "nan", "None", "null", "N/A", "-", "na", "0", "#N/A"]
    text = "x\n" + "\n".join(f'"{each}"' for each in texts)
    read = pd.read_csv(StringIO(text), skip_blank_lines=False)["x"]
    assert columns.missing(texts).tolist() == read.isna().tolist()
    plain = [None, np.nan, pd.NA, pd.NaT, "B"]
    assert columns.missing(np.array(plain, object)).tolist() == [True] * 4 + [False]


@pytest.mark.parametrize("kind", ["boolean", "Int64", "string", "category", "Float32"])
def test_columns_of_pandas(kind):
    pd = pytest.importorskip("pandas")
    values = {"boolean": [True, None, False], "string": ["T", None, "B"]}
    column = pd.Series(values.get(kind, [1, None, 0])).astype(kind)
    codes, _ = cells.label_codes(column)
    assert codes.tolist() == [1, -1, 0]
    full = column.drop(1)
    assert cells.label_codes(full)[0].tolist() == [1, 0]


def test_codes_of_pandas_are_no_classes():
    with pytest.raises(ValueError, match="codes from 0 with -1, which is pandas'"):
        cells.label_codes([0, 1, -1, 2])
    assert cells.label_codes([-1, 1, -1])[1] == ("-1", "1")


def test_a_frame_of_pandas(unchecked):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(COUNTS[:4], columns=[f"G{i}" for i in range(30)])
    obs = pd.DataFrame({"type": pd.Categorical(["T", None, "B", "T"])})
    found = cells.make_expression(frame, obs=obs)
    assert found.genes[3] == "G3"
    assert found.column("type").tolist() == ["T", "", "B", "T"]
    again = cells.make_expression(COUNTS[:4], frame.columns, obs)
    assert again.genes.tolist() == found.genes.tolist()
    density = pd.Series([0.5, 0.25, np.nan, 0.5])
    found = cells.diversity_weights(density, where=pd.Series([True, True, True, False]))
    np.testing.assert_allclose(
        found.log_weight, [np.log(2), np.log(4), -np.inf, -np.inf], rtol=1e-6
    )
    p_value = cells.false_discovery_rate(pd.Series([0.125, 0.5, 0.25]))
    assert p_value.tolist() == [0.375, 0.5, 0.375]


@pytest.mark.parametrize("dtype", ["float16", "uint8", "int8", "bool", "int64"])
def test_small_types_do_not_wrap(dtype):
    dense = np.array([[1, 0, 1], [0, 1, 1]], dtype)
    found = cells.make_expression(dense).values.toarray()
    np.testing.assert_array_equal(found, dense.astype("f4"))
    np.testing.assert_array_equal(cells.make_rows(dense).counts, [2, 2])
    # A doubled entry of 200 and 100 is 300, and not 44.
    if dtype == "uint8":
        twice = sp.coo_array(
            (np.array([200, 100], "u1"), ([0, 0], [1, 1])), shape=(1, 3)
        )
        assert cells.make_expression(twice).values.toarray().tolist() == [[0, 300, 0]]
        assert make_rows(twice).values[0] == 300
        assert make_rows(twice).counts.tolist() == [1]


def test_symbols_name_genes():
    ids = ["E1", "E2", "E3", "E4"]
    with pytest.warns(UserWarning, match="1 symbols belong to several"):
        names = columns.symbol_names(["A", "A", None, "B"], ids, "var")
    assert names.tolist() == ["A-E1", "A-E2", "E3", "B"]


def test_cells_from_the_end_are_no_cells(unchecked):
    source = cells.make_expression(COUNTS)
    with pytest.raises(IndexError, match="indices from 0 to 39, got -1 to 3"):
        source.take(np.array([-1, 3]))
    assert source.take([]).shape == (0, 30)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: cells.sample(jnp.array([0.0, jnp.nan]), 1, key=jax.random.key(0)),
            "NaN",
        ),
        (
            lambda: enrichment.prerank(
                jnp.arange(3.0), jnp.zeros(3, bool), key=jax.random.key(0)
            ),
            "hits: expected some",
        ),
        (
            lambda: enrichment.prerank(
                jnp.array([1.0, jnp.nan]),
                jnp.array([True, False]),
                key=jax.random.key(0),
            ),
            "scores: expected numbers, got NaN",
        ),
        (lambda: nulls.false_discovery_rate(jnp.array([0.5, jnp.nan])), "p_value"),
        (
            lambda: cells.product_test(COUNTS, COUNTS[:, 0] > 1, [[0, 30]]),
            "pairs: expected codes from 0 to 29, got 0 to 30",
        ),
        (
            lambda: cells.product_test(COUNTS[:0], np.zeros(0, bool), [[0, 1]]),
            "with a cell",
        ),
        (
            lambda: nid.train_mlp(COUNTS, np.full(40, 2), key=jax.random.key(0)),
            "labels: expected codes from 0 to 1, got 2 to 2",
        ),
        (
            lambda: fit(
                lambda p, t, key=None: jnp.zeros((len(t.values), 2)),
                {},
                cells.make_tokens(COUNTS),
                np.full(40, -1),
                key=jax.random.key(0),
            ),
            "labels: expected codes from 0 to 1, got -1",
        ),
    ],
)
def test_values_out_of_range(unchecked, call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_nothing_seen_agrees_with_nothing():
    empty = np.full((4, 4), np.nan, np.float32)
    assert np.isnan(evaluation.rank_agreement(empty, empty))
    assert evaluation.overlap_at(empty, empty, 3) == 0
    planted = evaluation.planted_mask(4, np.array([[0, 1]]))
    assert np.isnan(evaluation.planted_auroc(empty, planted))
    assert np.isnan(weights.diversity_weights(empty[0]).effective)


@pytest.mark.parametrize("number", [1, 2, 3, 10, 100])
def test_intervals_from_few_cells_hold(number):
    """Of 190 pairs, each with cells of its own, 88% or more hold the truth at 95%."""
    rng = np.random.default_rng(number)
    draws = rng.normal(3, 0.5, (number, 190))
    copies = rng.poisson(1.0, (100, number, 190))
    copies = np.concatenate([np.ones((1, number, 190)), copies])
    pairs = np.triu_indices(20, 1)
    score, weight = np.zeros((2, 101, 20, 20), np.float32)
    for part, values in ((score, (copies * draws).sum(1)), (weight, copies.sum(1))):
        part[:, *pairs] = part[:, pairs[1], pairs[0]] = values
    sums = map(jnp.asarray, (score, weight, weight, np.full((20, 20), number)))
    ends = cells.pair_interval(cells.PairSums(*sums))
    low, high = (np.asarray(end)[pairs] for end in ends)
    if number == 1:
        assert np.isnan(low).all() and np.isnan(high).all()
        return
    covered = ((low <= 3) & (high >= 3)).mean()
    assert covered >= 0.88
