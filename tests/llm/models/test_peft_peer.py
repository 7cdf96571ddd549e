"""Test adapters beside peft: what it trained and saved means the same here, or is
refused by the name of the field."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.models import adapters, decoder, lora, weights

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
TOKENS = np.random.default_rng(0).integers(0, 61, (1, 12))
ROUNDING = 2e-5


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[bool, Path]:
    """Folders of random models: tied, and untied with biases."""
    folders = {}
    for tied in (True, False):
        torch.manual_seed(0)
        family = "Llama" if tied else "Qwen2"
        config = getattr(transformers, f"{family}Config")(
            **SIZES, tie_word_embeddings=tied, initializer_range=0.2
        )
        model = getattr(transformers, f"{family}ForCausalLM")(config)
        folders[tied] = tmp_path_factory.mktemp("base") / "model"
        model.save_pretrained(folders[tied])
    return folders


def opened(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(TOKENS)).logits.numpy()


def trained(base: Path, folder: Path, **options: Any) -> np.ndarray:
    """Logits of adapters with random parameters, which peft saves."""
    options = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj"], **options}
    config = peft.LoraConfig(task_type="CAUSAL_LM", **options)
    model = peft.get_peft_model(opened(base), config)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.eval().save_pretrained(folder)
    return logits(model)


def ours(base: Path, folder: Path) -> list[np.ndarray]:
    """Logits with factors beside the kernels, and merged."""
    model = weights.load(base)
    factors = adapters.load(folder, model.config)
    apart = lora.apply(model.params, factors)
    both = apart, adapters.merged(model, folder).params
    return [
        np.asarray(decoder.apply(model.config, params, jnp.array(TOKENS)).logits)
        for params in both
    ]


EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES: dict[str, tuple[bool, dict[str, Any]]] = {
    "rslora": (True, {"use_rslora": True, "target_modules": EVERY}),
    "patterns": (
        True,
        {
            "target_modules": EVERY,
            "rank_pattern": {"^model.layers.1.self_attn.q_proj": 7, "mlp.*": 2},
            "alpha_pattern": {"v_proj": 3, "layers.0.mlp.up_proj": 20},
            "use_rslora": True,
        },
    ),
    "one layer": (True, {"target_modules": EVERY, "layers_to_transform": [1]}),
    "a layer's number": (
        False,
        {"layers_to_transform": 0, "layers_pattern": "layers"},
    ),
    "excluded": (
        True,
        {"target_modules": EVERY, "exclude_modules": r".*layers\.0\..*"},
    ),
    "regular expression": (
        True,
        {"target_modules": r"(?:.*?(?:self_attn|mlp).*?(?:q_proj|up_proj).*?)"},
    ),
    "all-linear": (False, {"target_modules": "all-linear"}),
    "head": (False, {"target_modules": ["q_proj", "lm_head"]}),
    "embedding": (False, {"target_modules": ["v_proj", "embed_tokens"]}),
    "tied embedding": (
        True,
        {"target_modules": ["v_proj", "embed_tokens"], "ensure_weight_tying": True},
    ),
    "modules to save": (False, {"modules_to_save": ["embed_tokens", "lm_head"]}),
    "saved norms": (True, {"modules_to_save": ["norm"]}),
    "saved kernels and biases": (False, {"modules_to_save": ["k_proj"]}),
    "tied and saved": (
        True,
        {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    "rows": (False, {"trainable_token_indices": [9, 3, 60]}),
    "tied rows": (True, {"trainable_token_indices": {"embed_tokens": [9, 3]}}),
    "gaussian": (True, {"init_lora_weights": "gaussian", "lora_dropout": 0.1}),
    "orthogonal": (True, {"init_lora_weights": "orthogonal"}),
    "random": (True, {"init_lora_weights": False}),
}


@pytest.mark.parametrize("name", CASES)
def test_what_peft_saved(name, bases, tmp_path) -> None:
    """The logits are peft's; written again, peft opens it and has the same logits."""
    tied, options = CASES[name]
    expected = trained(bases[tied], tmp_path, **options)
    assert np.abs(expected - logits(opened(bases[tied]))).max() > 0.05
    for found in ours(bases[tied], tmp_path):
        np.testing.assert_allclose(found, expected, atol=ROUNDING)
    config = weights.load(bases[tied]).config
    adapters.save(tmp_path / "again", adapters.load(tmp_path, config))
    again = peft.PeftModel.from_pretrained(
        opened(bases[tied]), str(tmp_path / "again")
    ).eval()
    np.testing.assert_allclose(logits(again), expected, atol=ROUNDING)
    for found in ours(bases[tied], tmp_path / "again"):
        np.testing.assert_allclose(found, expected, atol=ROUNDING)


APART = {
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "saved embedding": {"modules_to_save": ["embed_tokens"]},
    "saved head": {"modules_to_save": ["lm_head"]},
}


@pytest.mark.parametrize("name", APART)
def test_half_of_a_tied_pair_is_refused(name, bases, tmp_path) -> None:
    """peft changes head or embedding alone, which a tied decoder cannot."""
    trained(bases[True], tmp_path, **APART[name])
    config = weights.load(bases[True]).config
    with pytest.raises(ValueError, match="expected head and embedding trained as one"):
        adapters.load(tmp_path, config)


def test_pissa_as_peft_saves_it_is_refused(bases, tmp_path) -> None:
    """Its base is another one; the logits would be off by their size."""
    trained(bases[True], tmp_path, init_lora_weights="pissa")
    config = weights.load(bases[True]).config
    with pytest.raises(ValueError, match=r"init_lora_weights: .* got 'pissa'"):
        adapters.load(tmp_path, config)


@pytest.fixture
def plain(tiny, key, tmp_path) -> Path:
    return adapters.save(tmp_path, lora.init(tiny.params, key=key, rank=2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        *(({name: True}, f"{name}: expected False, got True")
          for name in ("use_dora", "use_qalora", "lora_bias")),
        ({"bias": "all"}, "bias: expected 'none', got 'all'"),
        ({"peft_type": "ADALORA"}, "peft_type: expected 'LORA', got 'ADALORA'"),
        *(({"init_lora_weights": name}, f"init_lora_weights: .* got '{name}'")
          for name in ("olora", "loftq", "corda", "lora_ga", "pissa_niter_4")),
        ({"alora_invocation_tokens": [1]}, r"alora_invocation_tokens: .* got \[1\]"),
        ({"target_parameters": ["x"]}, "target_parameters: expected"),
        ({"layer_replication": [[0, 2]]}, "layer_replication: expected"),
        ({"kasa_config": {"r": 1}}, "kasa_config: expected None"),
        ({"tomorrows_switch": True}, r'adapter_config\.json: tomorrows_switch: '
         r'expected only fields .* pass ignore=\("tomorrows_switch",\)'),
        ({"target_modules": ["q_proj"]}, "modules that adapter_config.json targets"),
        ({"target_modules": 3}, "target_modules: expected names of modules, got 3"),
        ({"target_modules": "(a+)+b"}, "target_modules: expected short patterns"),
        ({"rank_pattern": {"(": 3}}, "rank_pattern, .*: expected regular expressions"),
        ({"rank_pattern": {"q_proj": 0}}, "q_proj: expected at least 1, got 0"),
        ({"rank_pattern": {"q_proj": 3}}, "and the rank r of adapter_config.json"),
        ({"modules_to_save": ["score"]}, "expected the weights of 'score'"),
        ({"trainable_token_indices": [3]}, "missing tensor .*trainable_tokens_delta"),
        ({"trainable_token_indices": {"lm_head": [3]}}, "of embed_tokens alone, got"),
        ({"layers_to_transform": ["1"]}, "layers_to_transform: expected whole numbers"),
        ({"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"]},
         r"missing tensor .*up_proj\.lora_A"),
    ],
)  # fmt: skip
def test_fields_that_change_the_meaning(
    values: dict[str, Any], message: str, plain, tiny
) -> None:
    """Each is refused by its name, whatever peft may call it tomorrow."""
    file = plain / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    with pytest.raises(ValueError, match=message):
        adapters.load(plain, tiny.config)


def test_a_field_that_the_user_knows(plain, tiny) -> None:
    """It is left out where the user says so, and defaults of peft are no obstacle."""
    file = plain / "adapter_config.json"
    more = peft.LoraConfig(r=2, target_modules=["q_proj"]).to_dict()
    written = json.loads(file.read_text())
    kept = {k: v for k, v in more.items() if k not in written} | {"seed": 3}
    file.write_text(json.dumps(written | json.loads(json.dumps(kept, default=list))))
    with pytest.raises(ValueError, match="seed: expected only fields"):
        adapters.load(plain, tiny.config)
    assert adapters.load(plain, tiny.config, ignore=("seed",)).factors


def test_nothing_is_written_that_peft_cannot_open(tiny, key, tmp_path) -> None:
    """Refused before anything is written."""
    both = lora.init(
        tiny.params, key=key, rank=2, where=("^embedding$", *lora.ATTENTION), rows=[3]
    )
    none = lora.Lora({}, both.rows, both.ids, 1.0)
    for factors, message in ((both, "rows: expected none"), (none, "at least one ker")):
        with pytest.raises(ValueError, match=message):
            adapters.save(tmp_path / "new", factors)
        assert not (tmp_path / "new").exists()


def test_trained_rows_of_older_folders(tiny, plain) -> None:
    """jeff's own names from before peft had a place for rows."""
    from jeff_llm.models.tensors import open_safetensors, save_safetensors

    file = plain / "adapter_model.safetensors"
    tensors = {name: np.array(t.read()) for name, t in open_safetensors(file).items()}
    tensors["jeff.trained_rows"] = np.ones((2, tiny.config.width), np.float32)
    tensors["jeff.trained_ids"] = np.array([5, 2], np.int32)
    save_safetensors(file, tensors)
    found = adapters.load(plain, tiny.config)
    assert found.ids == (5, 2) and float(found.rows.sum()) == 2 * tiny.config.width
