"""The BERT encoder: transformers' BertModel, masks, pooling, gradients."""

import dataclasses
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
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
TOKENS = np.random.default_rng(0).integers(0, 50, (4, 12))
MASK = np.arange(12) < np.array([[12], [7], [1], [3]])


def params(config: EncoderConfig = SMALL, scale: float = 10.0) -> Any:
    """Random parameters, large enough that every part matters."""
    made = bert.init(config, key=jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf * scale if leaf.ndim > 1 else leaf, made)


def test_peer(tmp_path: Path) -> None:
    """Weights that transformers wrote give its hidden states, and go back as they are."""
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
        hidden = model(torch.tensor(TOKENS), torch.tensor(MASK)).last_hidden_state
    real = MASK[..., None]
    want = (hidden.numpy() * real).sum(1) / real.sum(1)
    got = bert.embed(made, config, TOKENS, MASK, normalize=False)
    # 2e-6 were measured, of values up to 2.
    np.testing.assert_allclose(got, want, atol=5e-6)
    for name, tensor in to_tensors(rules, made).items():
        np.testing.assert_array_equal(tensor, file[name].read())


def test_padding_changes_nothing() -> None:
    """Neither its tokens nor their number, nor the other rows."""
    made = params()
    whole = bert.embed(made, SMALL, TOKENS, MASK)
    other = bert.embed(made, SMALL, np.where(MASK, TOKENS, 7), MASK)
    np.testing.assert_array_equal(whole, other)
    for row, length in enumerate(MASK.sum(1)):
        alone = bert.embed(made, SMALL, TOKENS[[row], :length], MASK[[row], :length])
        np.testing.assert_allclose(whole[row], alone[0], atol=2e-6)


def test_pooling() -> None:
    """The mean over real tokens, then unit length; a row without tokens is 0."""
    made = params()
    graphdef, _ = nnx.split(bert.Encoder(SMALL, rngs=nnx.Rngs(0)))
    hidden = nnx.merge(graphdef, nnx.State(made))(jnp.array(TOKENS), jnp.array(MASK))
    mean = bert.embed(made, SMALL, TOKENS, MASK, normalize=False)
    np.testing.assert_allclose(mean[1], hidden[1, :7].mean(0), atol=1e-6)
    np.testing.assert_allclose(mean[2], hidden[2, 0], atol=1e-6)
    unit = bert.embed(made, SMALL, TOKENS, MASK)
    np.testing.assert_allclose(jnp.linalg.norm(unit, axis=1), 1, atol=1e-6)
    nothing = bert.embed(made, SMALL, TOKENS, np.zeros_like(MASK))
    np.testing.assert_array_equal(nothing, 0)


def test_jit_and_vmap() -> None:
    made = params()
    plain = bert.embed(made, SMALL, TOKENS, MASK)
    jitted = jax.jit(bert.embed, static_argnums=1)(made, SMALL, TOKENS, MASK)
    np.testing.assert_allclose(plain, jitted, atol=2e-6)
    twice = jax.vmap(lambda t, m: bert.embed(made, SMALL, t, m))(
        jnp.stack([TOKENS, TOKENS[::-1]]), jnp.stack([MASK, MASK[::-1]])
    )
    np.testing.assert_allclose(twice[1], plain[::-1], atol=2e-6)


def test_gradients() -> None:
    """They are those of finite differences, and finite where a row is all padding."""
    made = params(dataclasses.replace(SMALL, num_layers=1), scale=3.0)
    config = dataclasses.replace(SMALL, num_layers=1)
    direction = jax.random.normal(jax.random.key(1), (4, 16))

    def value(made: Any) -> Any:
        return jnp.sum(direction * bert.embed(made, config, TOKENS, MASK))

    check_grads(value, (made,), order=1, modes=["rev"], eps=1e-2, atol=0.02, rtol=0.02)
    empty = jnp.asarray(MASK).at[0].set(False)
    grads = jax.grad(
        lambda made: bert.embed(made, config, TOKENS, empty, normalize=False).sum()
    )(made)
    chex.assert_tree_all_finite(grads)


def test_shapes() -> None:
    """Those of the parameters, layers stacked; MiniLM has 22.6 million."""
    chex.assert_trees_all_equal_shapes_and_dtypes(bert.shapes(SMALL), params())
    assert bert.shapes(SMALL)["layers"]["up"]["kernel"].shape == (3, 16, 24)
    sizes = [leaf.size for leaf in jax.tree.leaves(bert.shapes(EncoderConfig()))]
    assert sum(sizes) == 22_565_376


def test_too_many_tokens() -> None:
    with pytest.raises(ValueError, match="at most 20 tokens a text, got 21; cut"):
        bert.embed(params(), SMALL, np.zeros((1, 21), int), np.ones((1, 21), bool))


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
