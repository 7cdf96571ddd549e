"""LoRA's factors in a folder, in the format of the peft library.

``adapter_model.safetensors`` holds A as [rank, in] and B as [out, rank] for each layer,
``adapter_config.json`` the scale. `save` writes what peft opens beside the same base
model, `load` reads what peft wrote. peft's format has no stable place for trained rows
of the embedding, so they are stored in the same file under jeff's own names.
"""

import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jeff import files
from jeff_llm.models import decoder, fields, lora
from jeff_llm.models.architectures import SAFETENSORS_RULES
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.finite import check_finite, check_weights
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.models.tensors import TensorFile, open_safetensors, save_safetensors

__all__ = ["load", "merged", "save"]

_PREFIX = "base_model.model."
_ROWS, _IDS = "jeff.trained_rows", "jeff.trained_ids"
# The modules' names in transformers, from the same table as the weights.
_MODULES = {r.path: r.name.removesuffix(".weight") for r in SAFETENSORS_RULES}


def save(directory: str | Path, factors: lora.Lora, *, base: str = "") -> Path:
    """Write factors in peft's format.

    Args:
      directory: created if missing.
      factors: of our decoder, kernels of its layers or its head.
      base: name of the model that they belong to.

    Returns:
      The directory.

    Raises:
      ValueError: if a factor's kernel has no name in transformers, or ranks differ.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors, modules, rank = {}, set(), 1
    for path, pair in factors.factors.items():
        if path not in _MODULES:
            raise ValueError(f"{path}: expected a kernel among {sorted(_MODULES)}")
        a, b = np.asarray(pair["a"]), np.asarray(pair["b"])
        if modules and a.shape[-1] != rank:
            raise ValueError(
                f"{path}: expected one rank in all factors, since the format has one "
                f"field for it, got {rank} and {a.shape[-1]}"
            )
        rank = a.shape[-1]
        modules.add(_MODULES[path].rpartition(".")[2])
        stacked = a.ndim == 3
        for layer in range(len(a) if stacked else 1):
            name = _PREFIX + _MODULES[path].format(layer=layer)
            pick = layer if stacked else ...
            # peft stores [out, in], and one tensor for each layer.
            tensors[f"{name}.lora_A.weight"] = np.ascontiguousarray(a[pick].T)
            tensors[f"{name}.lora_B.weight"] = np.ascontiguousarray(b[pick].T)
    if factors.rows is not None:
        tensors[_ROWS] = np.asarray(factors.rows)
        tensors[_IDS] = np.asarray(factors.ids, np.int32)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": factors.scale * rank,
        "lora_dropout": 0.0,
        "target_modules": sorted(modules),
        "bias": "none",
        "inference_mode": True,
    }
    save_safetensors(directory / "adapter_model.safetensors", tensors)
    files.write_json(directory / "adapter_config.json", config)
    return directory


def load(directory: str | Path, config: DecoderConfig) -> lora.Lora:
    """Read factors in peft's format.

    Args:
      directory: as `save` or peft wrote it.
      config: the decoder that they belong to.

    Returns:
      The factors.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if the files are damaged, of another model, or of a variant of LoRA
        that has more than two factors.
    """
    directory = Path(directory)
    file = directory / "adapter_config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: expected the adapters' configuration there")
    with files.reading(file, "the configuration of adapters"):
        rank, scale = _scale(file)
    tensors = open_safetensors(directory / "adapter_model.safetensors")
    names = set(tensors)
    factors = {}
    for path, shape in _kernels(config).items():
        layers = range(shape[0]) if len(shape) == 3 else range(1)
        found = [_PREFIX + _MODULES[path].format(layer=layer) for layer in layers]
        if f"{found[0]}.lora_A.weight" not in names:
            continue
        pair = {}
        for letter, key in (("A", "a"), ("B", "b")):
            wanted = [f"{name}.lora_{letter}.weight" for name in found]
            if missing := [name for name in wanted if name not in names]:
                raise ValueError(f"{directory}: missing tensor {missing[0]}")
            # Whatever is left at the end belongs to another architecture.
            names -= set(wanted)
            size = shape[-2] if key == "a" else shape[-1]
            expected = (rank, size) if key == "a" else (size, rank)
            read = [_factor(tensors, name, path, expected).T for name in wanted]
            pair[key] = jnp.asarray(np.stack(read) if len(shape) == 3 else read[0])
        factors[path] = pair
    rows, ids = None, ()
    if {_ROWS, _IDS} <= names:
        names -= {_ROWS, _IDS}
        rows, ids = _trained_rows(tensors, config)
    if names or not (factors or rows is not None):
        raise ValueError(
            f"{directory}: expected factors of this decoder's kernels, got "
            f"{sorted(names)[0] if names else 'none'}"
        )
    return lora.Lora(factors, rows, ids, scale)


def _scale(file: Path) -> tuple[int, float]:
    """Rank and scale, from the configuration."""
    values = files.parse_json(files.read_bytes(file), str(file))
    if not isinstance(values, dict):
        raise ValueError(f"{file}: expected a JSON object, got {values!r:.100}")
    # Each changes what the factors mean; loading them as plain LoRA would be wrong.
    for option in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern"):
        if values.get(option):
            raise ValueError(f"{file}: expected plain LoRA, got {option}")
    try:
        rank = fields.whole(values, "r")
        return rank, fields.real(values, "lora_alpha") / rank
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _factor(
    tensors: TensorFile, name: str, path: str, expected: tuple[int, int]
) -> np.ndarray:
    """A factor, whose shape follows from the kernel's and the rank."""
    what = f"{tensors.path}: tensor {name!r}"
    got = tensors[name].shape
    if got != expected:
        raise ValueError(
            f"{what}: expected shape {expected} for a kernel of this decoder, {path}, "
            f"and the rank r of adapter_config.json, got {got}; they are of another "
            "model, or r is wrong"
        )
    array = tensors[name].read()
    check_weights(array.dtype, what)
    check_finite(array, what)
    return np.asarray(array, np.float32)


def _trained_rows(
    tensors: TensorFile, config: DecoderConfig
) -> tuple[Any, tuple[int, ...]]:
    """Trained rows of the embedding, and their tokens."""
    ids = tensors[_IDS].read()
    inside = ids.dtype.kind in "iu" and ids.ndim == 1
    inside = inside and all(0 <= token < config.vocab_size for token in ids.tolist())
    if not inside or not 0 < len(ids) == len(set(ids.tolist())):
        raise ValueError(
            f"{tensors.path}: tensor {_IDS!r}: expected different tokens below "
            f"{config.vocab_size}, got {ids.reshape(-1)[:8]} ({ids.dtype})"
        )
    rows = _factor(tensors, _ROWS, "embedding", (len(ids), config.width))
    return jnp.asarray(rows), tuple(ids.tolist())


def merged(model: LanguageModel, directory: str | Path) -> LanguageModel:
    """A model with the factors of a folder merged in.

    Args:
      model: the base.
      directory: as `save` or peft wrote it.

    Returns:
      The model.
    """
    factors = load(directory, model.config)
    return model._replace(params=lora.merge(model.params, factors))


def _kernels(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, Any] = lora.paths(decoder.shapes(config))
    return {
        path: leaf.shape
        for path, leaf in shapes.items()
        if re.search(r"/kernel$", path)
    }
