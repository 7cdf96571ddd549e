"""Test the BERT encoder: parity with BertModel, masks, pooling, gradients."""

import dataclasses
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree
from jax.test_util import check_grads

from jeff_llm.models import bert, bert_config
from jeff_llm.models.bert_config import EncoderConfig
from jeff_llm.models.mapping import to_params, to_tensors
from jeff_llm.models.tensors import open_safetensors

SMALL = EncoderConfig(
    vocab_size=50,
    num_layers=3,
    width=16,
    num_heads=4,
    mlp_width=24,
    max_positions=20,
    num_types=3,
    norm_eps=1e-5,
)
VALUES = {
    "model_type": "bert",
    "vocab_size": 50,
    "num_hidden_layers": 3,
    "hidden_size": 16,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
    "type_vocab_size": 3,
    "layer_norm_eps": 1e-5,
}
TOKENS = jax.random.randint(jax.random.key(2), (4, 12), 0, 50)
MASK = jnp.arange(12) < jnp.array([[12], [7], [1], [3]])

embed = jax.jit(bert.embed, static_argnames=("config", "normalize"))


def params(config: EncoderConfig = SMALL) -> Any:
    """Random parameters, large enough that every part matters."""
    draw = np.random.default_rng(0)

    def make(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        middle = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(draw.normal(middle, 0.2, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(make, bert.shapes(config))


def test_peer(tmp_path: Path) -> None:
    """Weights that transformers wrote give its hidden states, and go back unchanged."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(**VALUES)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path)
    file = open_safetensors(tmp_path)
    config = bert_config.from_transformers(model.config.to_dict())
    assert config == SMALL
    rules, ignored = bert_config.RULES, bert_config.IGNORED
    made = to_params(rules, file, bert.shapes(config), ignore=ignored)
    with torch.inference_mode():
        inputs = (torch.tensor(np.asarray(part)) for part in (TOKENS, MASK))
        hidden = model(*inputs).last_hidden_state
    real = np.asarray(MASK)[..., None]
    want = (hidden.numpy() * real).sum(1) / real.sum(1)
    got = embed(made, config, TOKENS, MASK, normalize=False)
    # 2e-6 were measured, of values up to 2.
    np.testing.assert_allclose(got, want, atol=5e-6)
    for name, tensor in to_tensors(rules, made).items():
        np.testing.assert_array_equal(tensor, file[name].read())


def test_padding_changes_nothing() -> None:
    """Neither its tokens nor their number, nor the other rows."""
    made = params()
    whole = embed(made, SMALL, TOKENS, MASK)
    other = embed(made, SMALL, jnp.where(MASK, TOKENS, 7), MASK)
    np.testing.assert_array_equal(whole, other)
    for row, length in ((1, 7), (2, 1)):
        part = slice(row, row + 1), slice(length)
        alone = embed(made, SMALL, TOKENS[part], MASK[part])
        np.testing.assert_allclose(whole[row], alone[0], atol=2e-6)


def test_pooling() -> None:
    """The mean over real tokens, then unit length; a row without tokens is 0."""
    made = params()
    graphdef, _ = nnx.split(bert.Encoder(SMALL, rngs=nnx.Rngs(0)))
    hidden = nnx.merge(graphdef, nnx.State(made))(TOKENS, MASK)
    mean = embed(made, SMALL, TOKENS, MASK, normalize=False)
    np.testing.assert_allclose(mean[1], hidden[1, :7].mean(0), atol=1e-6)
    np.testing.assert_allclose(mean[2], hidden[2, 0], atol=1e-6)
    unit = embed(made, SMALL, TOKENS, MASK)
    np.testing.assert_allclose(jnp.linalg.norm(unit, axis=1), 1, atol=1e-6)
    nothing = embed(made, SMALL, TOKENS, jnp.zeros_like(MASK))
    np.testing.assert_array_equal(nothing, 0)


def test_jit_and_vmap() -> None:
    made = params()
    plain = bert.embed(made, SMALL, TOKENS, MASK)
    jitted = embed(made, SMALL, TOKENS, MASK)
    np.testing.assert_allclose(plain, jitted, atol=2e-6)
    twice = jax.vmap(lambda t, m: embed(made, SMALL, t, m))(
        jnp.stack([TOKENS, TOKENS[::-1]]), jnp.stack([MASK, MASK[::-1]])
    )
    np.testing.assert_allclose(twice[1], plain[::-1], atol=2e-6)


def test_gradients() -> None:
    """They are those of finite differences, and finite where a row is all padding."""
    made = params(dataclasses.replace(SMALL, num_layers=1))
    config = dataclasses.replace(SMALL, num_layers=1)
    direction = jax.random.normal(jax.random.key(1), (4, 16))

    flat, unravel = ravel_pytree(made)

    @jax.jit
    def value(flat: Any) -> Any:
        return jnp.sum(direction * embed(unravel(flat), config, TOKENS, MASK))

    check_grads(value, (flat,), order=1, modes=["rev"], eps=1e-2, atol=0.02, rtol=0.02)
    empty = MASK.at[0].set(False)
    grads = jax.jit(jax.grad(lambda made: embed(made, config, TOKENS, empty).sum()))(
        made
    )
    chex.assert_tree_all_finite(grads)


def test_shapes() -> None:
    """Those of the parameters, layers stacked; MiniLM has 22.6 million."""
    assert bert.shapes(SMALL)["layers"]["up"]["kernel"].shape == (3, 16, 24)
    sizes = [leaf.size for leaf in jax.tree.leaves(bert.shapes(EncoderConfig()))]
    assert sum(sizes) == 22_565_376


def test_too_many_tokens() -> None:
    with pytest.raises(ValueError, match="at most 20 tokens a text, got 21; cut"):
        bert.embed(params(), SMALL, jnp.zeros((1, 21), int), jnp.ones((1, 21), bool))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model_type": "roberta"}, "model_type: expected 'bert', got 'roberta'"),
        ({"hidden_act": "gelu_new"}, "hidden_act: expected 'gelu', got 'gelu_new'"),
        (
            {"position_embedding_type": "relative_key"},
            "position_embedding_type: expected 'absolute'",
        ),
        ({"is_decoder": True}, "is_decoder: expected False, got True"),
        ({"num_attention_heads": 5}, "expected a divisor of hidden_size 16, got 5"),
    ],
)
def test_other_models(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        bert_config.from_transformers(VALUES | change)


def test_missing_size() -> None:
    values = {k: v for k, v in VALUES.items() if k != "hidden_size"}
    with pytest.raises(ValueError, match="hidden_size: expected the size"):
        bert_config.from_transformers(values)
