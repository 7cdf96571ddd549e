"""Fixtures of the language-model tests: tiny random models, and the real one.

Loaded for every test of the language models, so it imports nothing heavy by itself.
"""

import contextlib
import io
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jaxtyping import PyTree

from jeff import assets


def lively(path: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Values of a leaf under which every part of the decoder shows in the logits."""
    noise = rng.normal(size=shape).astype(np.float32)
    if path.endswith("kernel"):
        return noise * shape[-2] ** -0.5
    if path.endswith("scale"):
        return 1 + 0.3 * noise
    return 0.5 * noise


@pytest.fixture(scope="session")
def make_params() -> Callable[..., PyTree]:
    """``(config, seed=0) -> params``: random, biases and scales included."""
    from jeff_llm.models import decoder

    def make(config: Any, seed: int = 0) -> PyTree:
        rng = np.random.default_rng(seed)
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.asarray(
                lively(jax.tree_util.keystr(path, simple=True), leaf.shape, rng)
            ),
            decoder.shapes(config),
        )

    return make


@pytest.fixture(scope="session")
def tiny_config() -> Any:
    """Three layers, grouped heads, tied."""
    from jeff_llm.models.config import DecoderConfig

    return DecoderConfig(
        vocab_size=61,
        num_layers=3,
        width=32,
        mlp_width=48,
        num_heads=4,
        num_kv_heads=2,
        head_width=8,
        max_positions=128,
        tied=True,
    )


@pytest.fixture(scope="session")
def tiny(tiny_config: Any, make_params: Callable[..., PyTree]) -> Any:
    """A random model of ids, without a tokenizer."""
    from jeff_llm.models.language_model import LanguageModel

    return LanguageModel(tiny_config, make_params(tiny_config), None, "tiny")


@pytest.fixture(scope="session")
def lettered(tiny: Any) -> Any:
    """The tiny model with a tokenizer of letters; 0 is the end, 53 to 60 are none."""
    pytest.importorskip("tokenizers")
    from jeff_llm.models.tokenizer import from_gguf

    letters = [*string.ascii_letters]
    fields = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": ["<end>", *letters],
        "token_type": [3] + [1] * len(letters),
        "merges": [],
        "eos_token_id": 0,
    }
    named = {f"tokenizer.ggml.{key}": value for key, value in fields.items()}
    return tiny._replace(tokenizer=from_gguf(named), name="lettered")


@pytest.fixture(scope="session")
def smollm2_path():
    pytest.importorskip("gguf")
    try:
        return assets.find("smollm2")
    except FileNotFoundError as error:
        pytest.skip(f"SmolLM2 is not here: {error}")


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Any) -> Any:
    """The real model, in float32."""
    from jeff_llm.models import weights

    assert smollm2_path.is_file()
    return weights.load("smollm2")


@pytest.fixture(scope="module")
def smollm2_transformers(smollm2_path: Any) -> Any:
    """The same file in transformers, in float32."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    pytest.importorskip("accelerate")
    # Two threads that wait for each other are slower than one beside other processes.
    torch.set_num_threads(1)
    # It writes a progress bar for each tensor.
    with contextlib.redirect_stderr(io.StringIO()):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            smollm2_path.parent, gguf_file=smollm2_path.name, dtype=torch.float32
        )
    return model.eval()


@pytest.fixture
def unchecked() -> Any:
    """Without the suite's shape checks, so that a user's messages are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def write_gguf() -> Callable[..., Path]:
    """``(path, fields, tensors) -> path``: by the package gguf, with a tokenizer."""
    gguf = pytest.importorskip("gguf")
    words = ["<end>", "a", "b", "ab", "\u0120", "\u010a"]
    tokenizer = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": words,
        "token_type": [3, 1, 1, 1, 1, 1],
        "merges": ["a b"],
        "eos_token_id": 0,
    }

    def write(path: Path, fields: dict[str, Any], tensors: dict[str, Any]) -> Path:
        writer = gguf.GGUFWriter(path, fields["general.architecture"])
        more = {f"tokenizer.ggml.{key}": value for key, value in tokenizer.items()}
        kinds = {
            int: writer.add_uint32,
            float: writer.add_float32,
            str: writer.add_string,
            list: writer.add_array,
        }
        for key, value in {**more, **fields}.items():
            if key != "general.architecture":
                kinds[type(value)](key, value)
        for name, array in tensors.items():
            writer.add_tensor(name, np.ascontiguousarray(array))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write
