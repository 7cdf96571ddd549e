"""LoRA's factors in a folder, in the format of the peft library.

``adapter_model.safetensors`` holds A as [rank, in] and B as [out, rank] for each layer,
modules that were trained whole, and trained rows of the embedding;
``adapter_config.json`` says which modules have which (`jeff_llm.models.peft_config`).
`save` writes what peft opens beside the same base model, `load` reads what peft wrote.
Ranks and scales that differ between modules become one: smaller factors are padded with
zeros, and B is multiplied by its share of the scale.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jeff import files
from jeff.digests import json_digest
from jeff_llm.models import adapter_tensors, decoder, lora
from jeff_llm.models.adapter_tensors import EMBEDDING, MODULES, PREFIX, ROWS
from jeff_llm.models.architectures import SAFETENSORS_RULES
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.models.mapping import to_tensors
from jeff_llm.models.peft_config import PeftConfig, read_peft_config
from jeff_llm.models.tensors import open_safetensors, save_safetensors

__all__ = ["load", "merged", "save"]


def save(directory: str | Path, factors: lora.Lora, *, base: str = "") -> Path:
    """Write factors in peft's format.

    Args:
      directory: created if missing.
      factors: of our decoder: kernels of its layers, its head, or its embedding.
      base: name of the model that they belong to.

    Returns:
      The directory.

    Raises:
      ValueError: if peft could not open them: a factor's kernel has no name in
        transformers, there are no factors at all, or the embedding has both factors
        and trained rows.
    """
    directory = Path(directory)
    ranks = _check_writable(factors)
    tensors = {}
    for path, pair in factors.factors.items():
        a, b = np.asarray(pair["a"]), np.asarray(pair["b"])
        for layer, module in enumerate(_modules(path, a)):
            pick = layer if a.ndim == 3 else ...
            names = adapter_tensors.factor_names(path, module)
            # peft stores [out, in], and one tensor for each layer.
            for name, factor in zip(names, (a, b), strict=True):
                tensors[name] = np.ascontiguousarray(factor[pick].T)
    tensors |= _whole(factors)
    if factors.rows is not None:
        tensors[ROWS] = np.asarray(factors.rows)
    directory.mkdir(parents=True, exist_ok=True)
    save_safetensors(directory / "adapter_model.safetensors", tensors)
    files.write_json(directory / "adapter_config.json", _config(factors, ranks, base))
    return directory


def load(
    directory: str | Path, config: DecoderConfig, *, ignore: Sequence[str] = ()
) -> lora.Lora:
    """Read factors in peft's format.

    Args:
      directory: as `save` or peft wrote it.
      config: the decoder that they belong to.
      ignore: fields of ``adapter_config.json`` that change no numbers; a field that
        jeff does not know is an error otherwise.

    Returns:
      The factors.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if the files are damaged, of another model, or of a variant of LoRA
        that is not supported; names the field or the tensor.
    """
    directory = Path(directory)
    file = directory / "adapter_config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: expected the adapters' configuration there")
    with files.reading(file, "the configuration of adapters"):
        peft = read_peft_config(file, ignore)
    tensors = open_safetensors(directory / "adapter_model.safetensors")
    found = adapter_tensors.Found(tensors, config, peft)
    scale = peft.scale_of("")
    factors = {}
    for path, leaf in lora.paths(decoder.shapes(config)).items():
        if path in MODULES and len(leaf.shape) > 1:
            pair = _pair(found, peft, path, leaf.shape, scale)
            factors |= {} if pair is None else {path: pair}
    whole = found.whole()
    rows, ids = found.rows()
    found.check_nothing_left(bool(factors or whole or rows is not None))
    return lora.Lora(factors, rows, ids, scale, whole)


def merged(
    model: LanguageModel, directory: str | Path, *, ignore: Sequence[str] = ()
) -> LanguageModel:
    """A model with the factors of a folder merged in.

    Args:
      model: the base.
      directory: as `save` or peft wrote it.
      ignore: as in `load`.

    Returns:
      The model. Its name tells it from the base and from other factors: caches and
      results go by it.
    """
    factors = load(directory, model.config, ignore=ignore)
    parts = ("adapter_config.json", "adapter_model.safetensors")
    both = json_digest([files.digest(Path(directory) / part) for part in parts])
    name = f"{model.name}+{both[:12]}"
    return model._replace(params=lora.merge(model.params, factors), name=name)


def _check_writable(factors: lora.Lora) -> dict[str, int]:
    """Ranks by the last name of a module, of factors that peft can open."""
    ranks = {}
    for path, pair in factors.factors.items():
        if path not in MODULES:
            raise ValueError(f"{path}: expected a kernel among {sorted(MODULES)}")
        ranks[MODULES[path].rpartition(".")[2]] = pair["a"].shape[-1]
    if not ranks:
        raise ValueError(
            "factors: expected at least one kernel, since peft opens no adapters "
            "without, got none; merge the factors and save the model"
        )
    if EMBEDDING in factors.factors and factors.rows is not None:
        raise ValueError(
            "rows: expected none beside factors of the embedding, since peft has only "
            f"one of the two, got rows of tokens {factors.ids}; merge the factors "
            "and save the model, or train without one of them"
        )
    return ranks


def _config(factors: lora.Lora, ranks: Mapping[str, int], base: str) -> dict[str, Any]:
    rank = next(iter(ranks.values()))
    others = {module: found for module, found in ranks.items() if found != rank}
    saved = {name.rpartition(".")[0].removeprefix(PREFIX) for name in _whole(factors)}
    # peft would untie an embedding in this list; out of it, it is still read.
    saved -= {MODULES[EMBEDDING]}
    saved = sorted(name for name in saved if not name.endswith(".base_layer"))
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": factors.scale * rank,
        "lora_dropout": 0.0,
        "rank_pattern": others,
        "alpha_pattern": {m: factors.scale * found for m, found in others.items()},
        "target_modules": sorted(ranks),
        "modules_to_save": saved or None,
        "trainable_token_indices": (
            None if factors.rows is None else {"embed_tokens": list(factors.ids)}
        ),
        # Where head and embedding are one matrix, they are one after training too.
        "ensure_weight_tying": EMBEDDING in factors.factors,
        "bias": "none",
        "inference_mode": True,
    }


def _modules(path: str, array: Any) -> list[str]:
    """Names of the modules whose kernels a leaf holds."""
    count = len(array) if array.ndim == 3 else 1
    return [MODULES[path].format(layer=layer) for layer in range(count)]


def _whole(factors: lora.Lora) -> dict[str, np.ndarray]:
    """Tensors of the leaves that are stored whole."""
    tensors = {}
    for rule in SAFETENSORS_RULES:
        if rule.path not in factors.whole:
            continue
        array = factors.whole[rule.path]
        # A module with factors keeps its own kernel one step further inside.
        stem = ".base_layer" if rule.path in factors.factors else ""
        flat = [rule._replace(path="leaf")]
        for name, tensor in to_tensors(flat, {"leaf": array}).items():
            module, _, kind = name.rpartition(".")
            tensors[f"{PREFIX}{module}{stem}.{kind}"] = tensor
    return tensors


def _pair(
    found: adapter_tensors.Found,
    peft: PeftConfig,
    path: str,
    shape: tuple[int, ...],
    scale: float,
) -> dict[str, Any] | None:
    """The factors of a leaf, stacked over its layers; zeros for layers without."""
    layers = range(shape[0]) if len(shape) == 3 else range(1)
    modules = [MODULES[path].format(layer=layer) for layer in layers]
    parts = [found.factors(path, module, shape[-2:]) for module in modules]
    if not any(parts):
        return None
    rank = max(peft.rank_of(m) for m, part in zip(modules, parts, strict=True) if part)
    stack_a = np.zeros((len(parts), shape[-2], rank), np.float32)
    stack_b = np.zeros((len(parts), rank, shape[-1]), np.float32)
    for layer, (module, part) in enumerate(zip(modules, parts, strict=True)):
        if part is not None:
            a, b = part
            stack_a[layer, :, : a.shape[1]] = a
            stack_b[layer, : b.shape[0]] = b * (peft.scale_of(module) / scale)
    pair = {"a": jnp.asarray(stack_a), "b": jnp.asarray(stack_b)}
    return pair if len(shape) == 3 else {key: x[0] for key, x in pair.items()}
