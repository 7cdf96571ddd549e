"""LoRA's factors in a folder, in the format of the peft library.

``adapter_model.safetensors`` holds A as [rank, in] and B as [out, rank] for each layer,
``adapter_config.json`` the scale. `save` writes what peft opens beside the same base
model, `load` reads what peft wrote. peft's format has no stable place for trained rows
of the embedding, so they are stored in the same file under jeff's own names.
"""

import json
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jeff import files
from jeff_llm.models import decoder, lora
from jeff_llm.models.architectures import SAFETENSORS_RULES
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.models.tensors import open_safetensors, save_safetensors

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
      ValueError: if a factor's kernel has no name in transformers.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors, modules, rank = {}, set(), 1
    for path, pair in factors.factors.items():
        if path not in _MODULES:
            raise ValueError(f"{path}: expected a kernel among {sorted(_MODULES)}")
        a, b = np.asarray(pair["a"]), np.asarray(pair["b"])
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
    values = json.loads(file.read_text())
    # Each changes what the factors mean; loading them as plain LoRA would be wrong.
    for option in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern"):
        if values.get(option):
            raise ValueError(f"{file}: expected plain LoRA, got {option}")
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
            read = [np.asarray(tensors[name].read(), np.float32).T for name in wanted]
            pair[key] = jnp.asarray(np.stack(read) if len(shape) == 3 else read[0])
        if (pair["a"].shape[-2], pair["b"].shape[-1]) != shape[-2:]:
            raise ValueError(
                f"{directory}: expected factors of {path}, a kernel {shape[-2:]}, got "
                f"{pair['a'].shape} and {pair['b'].shape}; they are of another model"
            )
        factors[path] = pair
    rows, ids = None, ()
    if {_ROWS, _IDS} <= names:
        names -= {_ROWS, _IDS}
        rows = jnp.asarray(tensors[_ROWS].read())
        ids = tuple(tensors[_IDS].read().tolist())
    if names or not (factors or rows is not None):
        raise ValueError(
            f"{directory}: expected factors of this decoder's kernels, got "
            f"{sorted(names)[0] if names else 'none'}"
        )
    scale = float(values["lora_alpha"]) / int(values["r"])
    return lora.Lora(factors, rows, ids, scale)


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
