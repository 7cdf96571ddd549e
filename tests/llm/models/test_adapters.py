"""Test adapters: round trip, peft's files, and rejected input."""

import jax
import numpy as np
import pytest

from jeff_llm.models import adapters, decoder, lora, weights


@pytest.fixture
def factors(tiny, key):
    fresh = lora.init(tiny.params, key=key, rank=3, where=lora.LINEAR, alpha=5)
    return jax.tree.map(lambda x: x + 0.1, fresh)


def test_round_trip(tiny, factors, tmp_path):
    adapters.save(tmp_path, factors)
    back = adapters.load(tmp_path, tiny.config)
    assert back.scale == pytest.approx(5 / 3)
    assert jax.tree.structure(back.factors) == jax.tree.structure(factors.factors)
    jax.tree.map(np.testing.assert_array_equal, back.factors, factors.factors)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_round_trip_of_rows(tiny, key, tmp_path):
    factors = lora.init(tiny.params, key=key, rank=1, rows=[7, 3])
    adapters.save(tmp_path, factors)
    back = adapters.load(tmp_path, tiny.config)
    assert back.ids == (7, 3)
    np.testing.assert_array_equal(back.rows, factors.rows)


def test_merged(tiny, factors, tmp_path):
    adapters.save(tmp_path, factors)
    model = adapters.merged(tiny, tmp_path)
    assert model.name.startswith("tiny+") and len(model.name) == len("tiny+") + 12
    assert adapters.merged(tiny, tmp_path).name == model.name
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        model.params,
        lora.merge(tiny.params, factors),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_peft_opens_it_and_we_open_peft(tiny, factors, key, tmp_path):
    peft = pytest.importorskip("peft")
    torch = pytest.importorskip("torch")
    from transformers import LlamaForCausalLM

    weights.save(tiny, tmp_path / "base")
    adapters.save(tmp_path / "ours", factors)
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(base, str(tmp_path / "ours"))
    tokens = jax.random.randint(key, (2, 9), 0, tiny.config.vocab_size)
    with torch.no_grad():
        wanted = theirs(torch.tensor(np.array(tokens))).logits.numpy()
    params = lora.apply(tiny.params, factors)
    ours = decoder.apply(tiny.config, params, tokens).logits
    np.testing.assert_allclose(ours, wanted, atol=1e-4)
    theirs.save_pretrained(tmp_path / "theirs")
    back = adapters.load(tmp_path / "theirs", tiny.config)
    jax.tree.map(np.testing.assert_array_equal, back.factors, factors.factors)


def test_what_is_refused(tiny, factors, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"adapter_config\.json"):
        adapters.load(tmp_path, tiny.config)
    foreign = lora.Lora({"elsewhere/kernel": {}}, None, (), 1.0)
    with pytest.raises(ValueError, match="elsewhere/kernel: expected a kernel among"):
        adapters.save(tmp_path / "foreign", foreign)
    adapters.save(tmp_path, factors)
    other = tiny.config.__class__(
        **{**tiny.config.__dict__, "mlp_width": 2 * tiny.config.mlp_width}
    )
    with pytest.raises(ValueError, match="they are of another model"):
        adapters.load(tmp_path, other)
    fewer = tiny.config.__class__(**{**tiny.config.__dict__, "num_layers": 2})
    with pytest.raises(ValueError, match=r"got base_model\.model\.model\.layers\.2"):
        adapters.load(tmp_path, fewer)
