"""Test loading and saving: search for models, rejected input, and round trips."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jeff import sharding
from jeff_llm.models import lora, weights
from jeff_llm.models.architectures import gguf_rules
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.models.mapping import to_tensors
from jeff_llm.models.tensors import save_safetensors

CONFIG = DecoderConfig(
    vocab_size=61,
    num_layers=2,
    width=16,
    mlp_width=24,
    num_heads=4,
    num_kv_heads=2,
    head_width=4,
    max_positions=64,
    norm_eps=2.0**-16,
)
FIELDS = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 64,
    "llama.embedding_length": 16,
    "llama.feed_forward_length": 24,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 2.0**-16,
}


@pytest.fixture(scope="module")
def params(make_params) -> Any:
    return make_params(CONFIG)


@pytest.fixture
def gguf_file(params, tmp_path, write_gguf):
    """``(tensors={}, fields={}) -> path``: a whole file, but for these changes."""

    def write(tensors: dict[str, Any] | None = None, **fields: Any) -> Path:
        whole = to_tensors(gguf_rules(CONFIG), params) | (tensors or {})
        kept = {name: array for name, array in whole.items() if array is not None}
        return write_gguf(tmp_path / "made.gguf", {**FIELDS, **fields}, kept)

    return write


@pytest.fixture
def folder(params, tmp_path) -> Path:
    return weights.save(LanguageModel(CONFIG, params, None), tmp_path / "model")


def changed(folder: Path, **fields: Any) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    return folder


def test_gguf_and_directory_are_the_same_model(gguf_file, params, tmp_path) -> None:
    """Both ways every parameter comes back to the bit, and so does the tokenizer."""
    first = weights.load(gguf_file())
    assert first.config == CONFIG and first.name == "made"
    chex.assert_trees_all_equal(first.params, params)
    second = weights.load(weights.save(first, tmp_path / "again"))
    assert second.config == CONFIG and second.name == "again"
    chex.assert_trees_all_equal(second.params, params)
    for model in (first, second):
        assert model.stop_ids == (0,)
        assert model.encode("abba") == [3, 2, 1]
    values = json.loads((tmp_path / "again" / "config.json").read_text())
    assert (values["eos_token_id"], values["dtype"]) == (0, "float32")


def test_shards(params, tmp_path) -> None:
    """Small shards are read as one file is; nothing else is left in the directory."""
    model = LanguageModel(CONFIG, params, None)
    folder = weights.save(model, tmp_path / "shards", max_shard_bytes=3000)
    names = sorted(path.name for path in folder.iterdir())
    assert names[0] == "config.json" and names[-1] == "model.safetensors.index.json"
    shards = [folder / name for name in names[1:-1]]
    assert len(shards) > 3
    # A tensor that is larger by itself has a file of its own.
    assert all(path.stat().st_size < 61 * 16 * 4 + 1000 for path in shards)
    chex.assert_trees_all_equal(weights.load(folder).params, params)


def test_saved_over_itself(params, tmp_path) -> None:
    """A model whose arrays may lie in the file can be saved to the same place."""
    folder = weights.save(LanguageModel(CONFIG, params, None), tmp_path / "model")
    weights.save(weights.load(folder), folder)
    assert len(list(folder.iterdir())) == 2
    chex.assert_trees_all_equal(weights.load(folder).params, params)


def test_tied_and_dtype(params, tmp_path) -> None:
    """A tied model has no head in its file; bfloat16 stays bfloat16."""
    tied = dataclasses.replace(CONFIG, tied=True)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), {**params})
    del half["head"]
    folder = weights.save(LanguageModel(tied, half, None), tmp_path / "tied")
    model = weights.load(folder, dtype=jnp.bfloat16)
    assert model.config == tied
    chex.assert_trees_all_equal_shapes_and_dtypes(model.params, half)
    chex.assert_trees_all_equal(model.params, half)
    wide = weights.load(folder)
    chex.assert_trees_all_equal(
        wide.params, jax.tree.map(lambda x: x.astype(jnp.float32), half)
    )
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    # Some files of tied models carry the head all the same.
    from safetensors.numpy import load_file

    file = folder / "model.safetensors"
    tensors = {**load_file(file)}
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    save_safetensors(folder, tensors)
    chex.assert_trees_all_equal(weights.load(folder, dtype=jnp.bfloat16).params, half)


def test_placed_on_a_mesh(folder, gguf_file, params) -> None:
    """Each parameter comes straight onto the mesh, by the layout's patterns."""
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    for path in (folder, gguf_file()):
        placed = weights.load(path, mesh=mesh).params
        chex.assert_trees_all_equal(placed, params)
        assert placed["embedding"].sharding.spec == PartitionSpec("tensor", "fsdp")
        down = placed["layers"]["down"]["kernel"].sharding
        assert down.spec == PartitionSpec(None, "tensor", "fsdp")
        assert down.mesh == mesh
        assert placed["norm"]["scale"].sharding.spec == PartitionSpec()
    rules = [("embedding", PartitionSpec("data"))]
    placed = weights.load(folder, mesh=mesh, partitions=rules).params
    assert placed["embedding"].sharding.spec == PartitionSpec("data")
    assert placed["head"]["kernel"].sharding.spec == PartitionSpec()


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_gguf(gguf_file, kept) -> None:
    """Cut in its header or in its tensors: the file is named."""
    path = gguf_file()
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"made\.gguf.*(expected|truncated)"):
        weights.load(path)


def test_truncated_safetensors(folder) -> None:
    """Likewise."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        weights.load(folder)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"blk.1.ffn_up.weight": None}, r"missing are blk\.1\.ffn_up\.weight;"),
        ({"blk.0.ffn_gate_inp.weight": np.ones((2, 2), "f4")}, r"surplus are blk\.0"),
        ({"blk.0.attn_q.bias": np.ones(16, "f4")}, r"missing are .*blk\.1\.attn_q\.b"),
        ({"blk.1.ffn_up.weight": np.ones((24, 17), "f4")},
         r"blk\.1\.ffn_up\.weight: expected shape \(16, 24\) .* got \(17, 24\)"),
        ({"output_norm.weight": np.ones(15, "f4")}, r"output_norm\.weight: .* \(15,\)"),
        ({"rope_freqs.weight": np.ones(2, "f4") * 3}, r"rope_freqs\.weight: .*Llama 3"),
        ({"token_embd.weight": None}, r"token_embd\.weight, found none"),
        ({"token_embd.weight": np.ones((5, 16), "f4"),
          "output.weight": np.ones((5, 16), "f4")},
         "tokenizer with at most 5 tokens, .* got 6; the two belong to different"),
    ],
)  # fmt: skip
def test_gguf_of_another_model(gguf_file, tensors, message) -> None:
    """File and tensor are named."""
    with pytest.raises(ValueError, match=rf"made\.gguf: .*{message}"):
        weights.load(gguf_file(tensors))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"general.architecture": "gemma"}, "general.architecture: .* got 'gemma'"),
        ({"llama.rope.scaling.type": "longrope"}, "'longrope'.*does not support"),
        ({"llama.attention.head_count_kv": 3}, "num_kv_heads: .* got 3"),
        ({"split.count": 2}, "expected a whole model, got one part of several; join"),
        ({"tokenizer.ggml.model": "rwkv"}, "tokenizer.ggml.model: .* got 'rwkv'"),
    ],
)
def test_gguf_that_cannot_be_honoured(gguf_file, fields, message) -> None:
    """File and field are named."""
    with pytest.raises(ValueError, match=rf"made\.gguf: .*{message}"):
        weights.load(gguf_file(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "gpt2"}, "model_type: .* got 'gpt2'"),
        ({"hidden_act": "gelu"}, "hidden_act: expected 'silu', got 'gelu'"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ({"vocab_size": None}, "vocab_size: expected a whole number"),
    ],
)
def test_config_that_cannot_be_honoured(folder, fields, message) -> None:
    """File and field are named."""
    with pytest.raises(ValueError, match=rf"config\.json: .*{message}"):
        weights.load(changed(folder, **fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_hidden_layers": 3}, r"missing are model\.layers\.2\."),
        ({"num_hidden_layers": 1}, r"surplus are model\.layers\.1\."),
        ({"vocab_size": 62}, r"model\.embed_tokens\.weight: expected shape \(62, 16\)"),
        ({"attention_bias": True}, "missing are .*q_proj.bias"),
    ],
)
def test_directory_of_another_model(folder, fields, message) -> None:
    """The file and the tensors are named."""
    with pytest.raises(ValueError, match=rf"model\.safetensors: .*{message}"):
        weights.load(changed(folder, **fields))


def test_directory_without_its_files(folder) -> None:
    """Each missing or damaged file by its name."""
    config = folder / "config.json"
    config.write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json: expected a JSON object"):
        weights.load(folder)
    config.write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: expected JSON \("):
        weights.load(folder)
    config.unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json: expected the model"):
        weights.load(folder)


def test_what_cannot_be_saved(params, tmp_path) -> None:
    """Nothing is written of a model that transformers would misread."""
    model = LanguageModel(CONFIG, params, None)
    factors = lora.init(params, key=jax.random.key(0), rank=2)
    adapted = model._replace(params=lora.apply(params, factors))
    with pytest.raises(
        ValueError, match=r"params: .*call jeff_llm\.models\.lora\.merge"
    ):
        weights.save(adapted, tmp_path / "no")
    windowed = model._replace(config=dataclasses.replace(CONFIG, sliding_window=4))
    with pytest.raises(ValueError, match="sliding_window: expected None in a llama"):
        weights.save(windowed, tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_nowhere(tmp_path) -> None:
    """All places are named; a path that looks like one is not looked up on the hub."""
    missing = tmp_path / "none.gguf"
    with pytest.raises(FileNotFoundError, match=r"none\.gguf: .*GGUF.*asset.*package"):
        weights.load(missing)
    with pytest.raises(FileNotFoundError, match=r"not-a-package: .*found none"):
        weights.load("not-a-package")
    with pytest.raises(FileNotFoundError, match=r"\./here: .*found none"):
        weights.load("./here")


def test_hub(folder, monkeypatch) -> None:
    """The files that are needed, of the revision asked for."""
    hub = pytest.importorskip("huggingface_hub")
    calls = []

    def download(name: str, **options: Any) -> str:
        calls.append((name, options))
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert weights.load("organisation/name", revision="abc").config == CONFIG
    [(name, options)] = calls
    assert (name, options["revision"]) == ("organisation/name", "abc")
    assert "*.safetensors" in options["allow_patterns"]
    assert not any("bin" in pattern for pattern in options["allow_patterns"])


@pytest.mark.parametrize("said", ["no network\nmore", ""])
def test_hub_without_network(monkeypatch, said) -> None:
    """The name, the first line of the reason, and what to check."""
    hub = pytest.importorskip("huggingface_hub")

    def download(*_: Any, **__: Any) -> str:
        raise hub.errors.LocalEntryNotFoundError(said)

    monkeypatch.setattr(hub, "snapshot_download", download)
    message = r"^organisation/name: .*\(LocalEntry\w+: (no network)?\); .* the network"
    with pytest.raises(FileNotFoundError, match=message) as caught:
        weights.load("organisation/name")
    assert "more" not in str(caught.value)


def test_hub_name_that_is_none() -> None:
    """Refused by the hub's client before it asks anybody."""
    pytest.importorskip("huggingface_hub")
    with pytest.raises(FileNotFoundError, match=r"two words/name: .*HFValidation"):
        weights.load("two words/name")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """``(*files) -> None``: an installed distribution tiny-model with these files."""

    def install(*files: Path) -> None:
        info = tmp_path / "site" / "tiny_model-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-model\n")
        names = [os.path.relpath(file, tmp_path / "site") for file in files]
        (info / "RECORD").write_text("".join(f"{name},,\n" for name in names))
        monkeypatch.syspath_prepend(tmp_path / "site")

    return install


def test_package_with_a_gguf(package, gguf_file) -> None:
    """It is found by the distribution's name, and not imported."""
    path = gguf_file()
    package(path, path.parent / "README.md")
    assert weights.load("tiny-model").config == CONFIG


def test_package_with_a_directory(package, folder) -> None:
    """The files beside model.safetensors belong to it."""
    package(folder / "model.safetensors", folder / "config.json")
    model = weights.load("tiny-model")
    assert (model.config, model.name) == (CONFIG, "model")


def test_package_with_two_models_or_none(package, gguf_file, folder) -> None:
    """Neither says which one is meant."""
    package(gguf_file(), folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"package tiny-model: .*one GGUF.*found 2"):
        weights.load("tiny-model")
    with pytest.raises(ValueError, match=r"package pytest: .*found 0"):
        weights.load("pytest")


@pytest.mark.slow
def test_smollm2(smollm2) -> None:
    """The real model: its sizes, its end of turn, its name."""
    config = smollm2.config
    assert (config.num_layers, config.width, config.vocab_size) == (30, 576, 49152)
    assert (config.num_heads, config.num_kv_heads, config.head_width) == (9, 3, 64)
    assert config.tied and config.rope_theta == 1e5
    assert smollm2.stop_ids == (2,)
    count = sum(leaf.size for leaf in jax.tree.leaves(smollm2.params))
    assert count == 134_515_008
    assert "smollm2" in smollm2.name.lower()
