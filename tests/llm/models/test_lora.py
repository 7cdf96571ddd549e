"""Test LoRA on the decoder and on any pytree: identities, gradients, errors."""

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jeff import checkpoint
from jeff_llm.models import decoder, lora

TOKENS = jnp.array([[5, 9, 2, 60, 7, 31], [3, 3, 11, 12, 2, 9]])
EVERYTHING = (*lora.LINEAR, "^embedding$")
apply = functools.partial(
    jax.jit(decoder.apply, static_argnames=("config",)), tokens=TOKENS
)


def moved(factors: lora.Lora, seed: int = 0) -> lora.Lora:
    """With random factors of B, and rows elsewhere."""
    leaves, treedef = jax.tree.flatten(factors)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(
        treedef,
        [
            leaf + 0.3 * jax.random.normal(key, leaf.shape)
            for key, leaf in zip(keys, leaves, strict=True)
        ],
    )


@pytest.fixture(scope="module")
def fresh(tiny):
    return lora.init(
        tiny.params, key=jax.random.key(0), rank=2, where=EVERYTHING, rows=(2, 9, 60)
    )


def test_shapes_and_start(tiny) -> None:
    """Stacked kernels get stacked factors; A within 1/sqrt(in), B zero."""
    factors = lora.init(tiny.params, key=jax.random.key(0), rank=2, rows=(4, 1))
    names = [
        f"layers/attention/{n}/kernel" for n in ("key", "output", "query", "value")
    ]
    assert sorted(factors.factors) == names
    pair = factors.factors["layers/attention/key/kernel"]
    assert pair["a"].shape == (3, 32, 2) and pair["b"].shape == (3, 2, 16)
    bound = np.abs(pair["a"]).max()
    assert 0.9 * 32**-0.5 < bound <= 32**-0.5 and not pair["b"].any()
    assert (pair["a"][0] != pair["a"][1]).all()
    np.testing.assert_array_equal(
        factors.rows, tiny.params["embedding"][jnp.array([4, 1])]
    )
    assert (factors.ids, factors.scale) == ((4, 1), 2.0)
    other = lora.init(
        tiny.params, key=jax.random.key(0), rank=4, alpha=1, where=("up/kernel",)
    )
    assert other.scale == 0.25 and other.rows is None
    assert list(other.factors) == ["layers/up/kernel"]


def test_fresh_factors_change_nothing(tiny, fresh) -> None:
    """Beside the kernels, but for the rounding of a product apart; or added in."""
    expected = apply(tiny.config, tiny.params).logits
    beside = apply(tiny.config, lora.apply(tiny.params, fresh)).logits
    np.testing.assert_allclose(beside, expected, atol=3e-6)
    chex.assert_trees_all_equal(lora.merge(tiny.params, fresh), tiny.params)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("where", [lora.ATTENTION, EVERYTHING], ids=["some", "all"])
def test_beside_is_merged(tiny, make_params, tied, where) -> None:
    """Both ways the decoder is the same, and another than before."""
    config = dataclasses.replace(tiny.config, tied=tied)
    params = make_params(config)
    factors = moved(
        lora.init(params, key=jax.random.key(0), rank=2, where=where, rows=(2, 9))
    )
    beside = apply(config, lora.apply(params, factors)).logits
    merged = lora.merge(params, factors)
    chex.assert_trees_all_equal_shapes_and_dtypes(merged, params)
    expected = apply(config, merged).logits
    np.testing.assert_allclose(beside, expected, atol=5e-5)
    assert jnp.abs(expected - apply(config, params).logits).max() > 1


def test_half_precision(tiny, fresh) -> None:
    """A base of bfloat16 stays one; the factors are trained in float32."""
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tiny.params)
    factors = moved(fresh)
    merged = lora.merge(half, factors)
    chex.assert_trees_all_equal_shapes_and_dtypes(merged, half)
    out = apply(tiny.config, lora.apply(half, factors)).logits
    expected = apply(tiny.config, lora.merge(tiny.params, factors)).logits
    error = jnp.sqrt(jnp.mean((out - expected) ** 2))
    assert error < 0.03 * expected.std()


def test_gradients_of_the_decoder(tiny, fresh) -> None:
    """Those that the chain rule gives from the gradient of the whole matrices."""
    factors = moved(fresh)

    def loss(params: Any) -> Any:
        logits = decoder.apply(tiny.config, params, TOKENS).logits
        return -jnp.mean(jax.nn.log_softmax(logits)[..., 9])

    whole = jax.jit(jax.grad(loss))(lora.merge(tiny.params, factors))
    slope, base = jax.jit(
        jax.grad(lambda f, p: loss(lora.apply(p, f)), argnums=(0, 1))
    )(factors, tiny.params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(base)), "the base is frozen"
    for path, pair in factors.factors.items():
        dense = functools.reduce(lambda node, key: node[key], path.split("/"), whole)
        if path == "embedding":
            dense = dense.at[jnp.array(factors.ids)].set(0.0)
        a, b = pair["a"], pair["b"]
        transposed = (jnp.swapaxes(x, -1, -2) for x in (b, a))
        left, right = (factors.scale * x for x in transposed)
        got = slope.factors[path]
        np.testing.assert_allclose(got["a"], dense @ left, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(got["b"], right @ dense, rtol=1e-4, atol=1e-5)
    rows = whole["embedding"][jnp.array(factors.ids)]
    np.testing.assert_allclose(slope.rows, rows, rtol=1e-4, atol=1e-5)
    assert jnp.abs(rows).max() > 1e-3


def mlp(params: Any, x: Any) -> Any:
    for layer in params[:-1]:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"]


def flat_params() -> list[dict[str, jax.Array]]:
    sizes, keys = [(4, 5), (5, 3)], jax.random.split(jax.random.key(0), 2)
    return [
        {"w": jax.random.normal(key, size), "b": jnp.ones(size[1])}
        for key, size in zip(keys, sizes, strict=True)
    ]


def test_any_pytree() -> None:
    """A list of dictionaries of somebody's own; derivatives against differences."""
    params, x = flat_params(), jax.random.normal(jax.random.key(1), (6, 4))
    start = lora.init(params, key=jax.random.key(2), rank=2, where=("w$",))
    assert list(start.factors) == ["0/w", "1/w"]
    factors = moved(start)
    beside, merged = lora.apply(params, factors), lora.merge(params, factors)
    assert type(beside[0]["w"]) is lora.LowRank and beside[0]["b"] is not None
    np.testing.assert_allclose(mlp(beside, x), mlp(merged, x), atol=2e-6)
    np.testing.assert_allclose(
        merged[1]["w"],
        params[1]["w"]
        + 2.0 * factors.factors["1/w"]["a"] @ factors.factors["1/w"]["b"],
        atol=1e-6,
    )

    def loss(factors: lora.Lora) -> Any:
        beside = lora.apply(params, jax.tree.map(jnp.asarray, factors))
        return jnp.sum(mlp(beside, x) ** 2)

    check_grads(jax.jit(loss), (factors,), order=1, modes=["rev"], rtol=1e-3)
    slope = jax.grad(loss)(start)
    assert not any(pair["a"].any() for pair in slope.factors.values())
    assert all(pair["b"].any() for pair in slope.factors.values())


def test_low_rank_by_hand() -> None:
    """``x (W + s A B)``, its rows, and its transpose as a tied head."""
    kernel = lora.LowRank(
        jnp.eye(2), jnp.array([[1.0], [2.0]]), jnp.array([[3.0, 4.0]]), 0.5
    )
    whole = np.array([[2.5, 2.0], [3.0, 5.0]])  # eye + 0.5 [[3, 4], [6, 8]]
    x = jnp.array([[1.0, 0.0], [1.0, -1.0]])
    np.testing.assert_allclose(x @ kernel, x @ whole)
    np.testing.assert_allclose(kernel[jnp.array([1, 0, 1])], whole[[1, 0, 1]])
    np.testing.assert_allclose(kernel.unembed(x), x @ whole.T)
    assert kernel.dtype == jnp.float32


@pytest.mark.parametrize("low_rank", [False, True])
def test_trained_rows_by_hand(low_rank) -> None:
    """Their rows stand in, for lookups of any shape and as a tied head."""
    table: Any = jnp.arange(8.0).reshape(4, 2)
    if low_rank:
        table = lora.LowRank(table, jnp.ones((4, 1)), jnp.ones((1, 2)), 1.0)
    rows = jnp.array([[9.0, 8.0], [7.0, 6.0]])
    trained = lora.TrainedRows(table, rows, jnp.array([3, 1]))
    whole = np.arange(8.0).reshape(4, 2) + low_rank
    whole[[3, 1]] = rows
    index = jnp.array([[3, 0, 1], [2, 3, 3]])
    np.testing.assert_array_equal(trained[index], whole[index])
    x = jnp.array([[[1.0, -2.0]]])
    np.testing.assert_allclose(trained.unembed(x), x @ whole.T)
    slope = jax.grad(
        lambda rows: lora.TrainedRows(table, rows, jnp.array([3, 1]))[index].sum()
    )(rows)
    np.testing.assert_array_equal(slope, [[3, 3], [1, 1]])


def test_checkpoint(fresh, tmp_path) -> None:
    """What is trained goes to disk and back whole; the base is not in it."""
    factors = moved(fresh)
    checkpoint.save(tmp_path / "factors", factors)
    like = jax.tree.map(jnp.zeros_like, factors)
    restored = checkpoint.restore(tmp_path / "factors", like)
    chex.assert_trees_all_equal(restored, factors)
    assert (restored.ids, restored.scale) == (factors.ids, factors.scale)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank: expected at least 1, got 0"),
        ({"where": ("nothing$",)}, r"where: .*embedding.*none for 'nothing\$'"),
        ({"where": ("kernel$", "scale$")}, r"'scale\$' finds norm/scale of shape"),
        ({"where": ("^norm/scale",)}, r"finds norm/scale of shape \(32,\)"),
        ({"rows": (1, 61)}, r"rows: expected different tokens below 61, got \[1, 61\]"),
        ({"rows": (1, 1)}, r"rows: .* got \[1, 1\]"),
        ({"rows": (1,), "embedding": "table"}, "embedding: .* none at 'table'"),
    ],
)
def test_mistakes_at_the_start(tiny, options, message) -> None:
    """The argument, what was expected and what came."""
    options = {"rank": 2, **options}
    with pytest.raises(ValueError, match=message):
        lora.init(tiny.params, key=jax.random.key(0), **options)


@pytest.mark.parametrize("function", [lora.apply, lora.merge])
def test_factors_of_another_model(tiny, make_params, function) -> None:
    """Other leaves, other widths, other depths, and rows that have no embedding."""
    key = jax.random.key(0)
    mine = lora.init(tiny.params, key=key, rank=1, where=("up/kernel",), rows=(60,))
    with pytest.raises(ValueError, match=r"layers/up/kernel, .*have no such leaf"):
        function({"embedding": tiny.params["embedding"]}, mine)
    for change in ({"mlp_width": 40}, {"num_layers": 1}):
        config = dataclasses.replace(tiny.config, **change)
        with pytest.raises(ValueError, match=r"up/kernel, \(3, 32, 48\), where .*\("):
            function(make_params(config), mine)
    with pytest.raises(ValueError, match=r"of table, .* no such leaf"):
        function(tiny.params, mine, embedding="table")
    few = dataclasses.replace(tiny.config, vocab_size=60)
    with pytest.raises(ValueError, match=r"of embedding, \(61, 32\), .* \(60, 32\)"):
        function(make_params(few), mine)
