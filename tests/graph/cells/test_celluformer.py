"""Test the network: padding, order of genes, attention sums, and training."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_graph.cells import celluformer, training
from jeff_graph.cells.tokens import Tokens, make_tokens

CONFIG = celluformer.Config(12, 3, width=8, heads=2, layers=2, hidden=16)


@pytest.fixture(scope="module")
def params():
    return celluformer.init(CONFIG, key=jax.random.key(0))


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    rng = np.random.default_rng(0)
    return make_tokens(rng.poisson(0.7, (9, 12)).astype("f4"))


def test_padding_changes_nothing(params, tokens):
    apply_fn = celluformer.make_apply(CONFIG)
    attend = celluformer.make_attention(CONFIG)
    junk = jnp.full((9, 5), 3)
    wide = Tokens(
        jnp.concatenate([tokens.genes, junk], 1),
        jnp.pad(tokens.values, ((0, 0), (0, 5))),
    )
    chex.assert_trees_all_close(
        apply_fn(params, wide), apply_fn(params, tokens), atol=1e-5
    )
    width = tokens.genes.shape[1]
    found = attend(params, wide)
    chex.assert_trees_all_close(
        found[:, :width, :width], attend(params, tokens), atol=1e-6
    )
    assert (found[:, :, width:] == 0).all()


def test_the_order_of_genes_changes_nothing(params, tokens):
    apply_fn = celluformer.make_apply(CONFIG)
    turned = Tokens(tokens.genes[:, ::-1], tokens.values[:, ::-1])
    chex.assert_trees_all_close(
        apply_fn(params, turned), apply_fn(params, tokens), atol=1e-5
    )


def test_attention_rows_sum_to_one_over_real_genes(params, tokens):
    found = celluformer.make_attention(CONFIG)(params, tokens)
    mask = np.asarray(tokens.values) > 0
    np.testing.assert_allclose(found.sum(-1)[mask], 1.0, rtol=1e-5)
    assert (np.asarray(found)[~np.broadcast_to(mask[:, None], found.shape)] == 0).all()


def test_a_layer_attends_to_its_own_input(params, tokens):
    """Changing the first layer changes the attention of the second."""
    _, maps = celluformer._merged(CONFIG, params)(tokens)
    other = jax.tree.map(lambda leaf: leaf, params)
    other["layers"][0]["down"]["kernel"] = -other["layers"][0]["down"]["kernel"]
    _, changed = celluformer._merged(CONFIG, other)(tokens)
    chex.assert_trees_all_equal(maps[0], changed[0])
    assert float(jnp.abs(maps[1] - changed[1]).max()) > 1e-3


def test_a_cell_without_genes_has_finite_logits_and_gradients(params):
    empty = Tokens(jnp.zeros((2, 4), int), jnp.zeros((2, 4)))
    apply_fn = celluformer.make_apply(CONFIG)
    logits, gradient = jax.value_and_grad(lambda p: apply_fn(p, empty).sum())(params)
    chex.assert_tree_all_finite((logits, gradient))
    assert (celluformer.make_attention(CONFIG)(params, empty) == 0).all()


def test_dropout_needs_a_key(params, tokens):
    apply_fn = celluformer.make_apply(CONFIG)
    one, other = (apply_fn(params, tokens, key=jax.random.key(i)) for i in (0, 1))
    assert float(jnp.abs(one - other).max()) > 1e-4
    chex.assert_trees_all_equal(apply_fn(params, tokens), apply_fn(params, tokens))


def test_it_learns_a_product_of_two_genes():
    rng = np.random.default_rng(0)
    on = rng.random((1200, 6)) < 0.5
    labels = jnp.asarray((on[:, 0] ^ on[:, 1]).astype(np.int32))
    tokens = make_tokens(np.where(on, 2.0, 0.0).astype("f4") + 0.1)
    config = celluformer.Config(
        6, 2, width=16, heads=2, layers=1, hidden=32, dropout_rate=0
    )
    apply_fn = celluformer.make_apply(config)
    params = celluformer.init(config, key=jax.random.key(1))
    keys = {"key": jax.random.key(2), "num_epochs": 20, "batch_size": 64}
    found = training.fit(apply_fn, params, tokens, labels, learning_rate=5e-3, **keys)
    assert training.accuracy(apply_fn, found.params, tokens, labels) > 0.95
    assert found.loss < 0.3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: celluformer.init(CONFIG._replace(heads=3), key=jax.random.key(0)),
            "div",
        ),
        (
            lambda: celluformer.init(CONFIG._replace(layers=0), key=jax.random.key(0)),
            "1",
        ),
        (
            lambda: celluformer.init(
                CONFIG._replace(dropout_rate=1.0), key=jax.random.key(0)
            ),
            "dropout_rate: expected a share below 1",
        ),
        (lambda: make_tokens(np.array([[1.0, -1.0]])), "1 negative"),
        (lambda: make_tokens(np.ones((2, 3)), width=2), "width: expected at least 3"),
        (
            lambda: training.fit(
                celluformer.make_apply(CONFIG),
                celluformer.init(CONFIG, key=jax.random.key(0)),
                make_tokens(np.ones((2, 3))),
                jnp.array([0, -1]),
                key=jax.random.key(0),
            ),
            "labels: expected codes from 0 to 2",
        ),
    ],
)
def test_mistakes(unchecked, call, message):
    with pytest.raises(ValueError, match=message):
        call()
