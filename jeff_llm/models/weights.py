"""Published weights, read into pytrees and written for transformers.

`load` takes the name of an asset, a GGUF file, a directory of safetensors as
transformers writes them, the id of a model on the Hugging Face hub, or an installed
package that carries a model. `save` writes a directory that transformers opens.
"""

import dataclasses
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jeff import files, sharding
from jeff_llm.models import architectures, decoder, fields, folder, known_fields, sizes
from jeff_llm.models.config import (
    DecoderConfig,
    from_gguf,
    from_transformers,
    to_transformers,
)
from jeff_llm.models.find_model import find_model
from jeff_llm.models.gguf_tokenizer import end_tokens
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.models.mapping import Rule, to_params, to_tensors
from jeff_llm.models.quantized import PACKED, pack_leaf
from jeff_llm.models.rope import scaling_of_factors
from jeff_llm.models.tensors import (
    TensorFile,
    open_gguf,
    open_safetensors,
    save_safetensors,
)
from jeff_llm.models.tokenizer import from_gguf as tokenizer_of_gguf

__all__ = ["PARTITIONS", "load", "save"]

# Megatron's layout: columns of the first products, rows of the second ones.
PARTITIONS: tuple[tuple[str, PartitionSpec], ...] = (
    (r"^embedding$", PartitionSpec("tensor", "fsdp")),
    (r"^head/kernel", PartitionSpec("fsdp", "tensor")),
    (r"(query|key|value|gate|up)/kernel", PartitionSpec(None, "fsdp", "tensor")),
    (r"(output|down)/kernel", PartitionSpec(None, "tensor", "fsdp")),
    (r"(query|key|value)/bias", PartitionSpec(None, "tensor")),
)


def load(
    name_or_path: str | Path = "smollm2",
    *,
    dtype: Any = jnp.float32,
    mesh: Mesh | None = None,
    partitions: Sequence[tuple[str, PartitionSpec]] = PARTITIONS,
    revision: str | None = None,
    ignore: Sequence[str] = (),
    packed: bool = False,
) -> LanguageModel:
    """Load a language model with its tokenizer.

    Args:
      name_or_path: looked up in this order: a GGUF file or a directory of
        safetensors; an asset such as ``smollm2``; an installed package that contains
        one GGUF file or one ``model.safetensors``; a model of the hub, as
        ``organisation/name``.
      dtype: of the parameters, and with them of the computation.
      mesh: a mesh of `jeff.sharding.make_mesh`; each parameter is put on it as it is
        read. The default device alone by default.
      partitions: pairs of a pattern of names and a partition.
      revision: of a model of the hub.
      ignore: fields of ``config.json``, ``generation_config.json`` or of a GGUF header
        that change no numbers; a field that jeff does not know is an error otherwise.
      packed: keep kernels and embedding in eight bits
        (`jeff_llm.models.quantized`): a quarter of float32's memory, and tokens about
        twice as fast on a CPU. For decoding, scoring and as a frozen base of LoRA.

    Returns:
      The model.

    Raises:
      FileNotFoundError: if it is found nowhere; names the places.
      ValueError: if the files are damaged, or not of an architecture that the decoder
        knows; names the file, and the tensor or field.
    """
    path = find_model(str(name_or_path), revision)
    read = _load_directory if path.is_dir() else _load_gguf
    return read(path, ignore, (dtype, mesh, partitions, packed))


def save(
    model: LanguageModel, directory: str | Path, *, max_shard_bytes: int = 5 * 10**9
) -> Path:
    """Write a model in the format of transformers.

    Args:
      model: the model; merge LoRA's factors into it first.
      directory: created if missing; gets ``config.json``, safetensors and the
        tokenizer's files.
      max_shard_bytes: size from which the weights are cut into several files.

    Returns:
      The directory.

    Raises:
      ValueError: if transformers has no class with these options, or the parameters are
        not the decoder's own.
    """
    directory = Path(directory)
    values = to_transformers(model.config)
    # Kernels with LoRA's factors, or in eight bits, have no place in the format.
    shapes = jax.tree.structure(decoder.shapes(model.config))
    if jax.tree.structure(model.params) != shapes:
        raise ValueError(
            "params: expected the plain parameters of the decoder; call "
            "jeff_llm.models.lora.merge first"
        )
    directory.mkdir(parents=True, exist_ok=True)
    ends = list(model.stop_ids)
    if ends:
        values["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    if model.tokenizer is not None:
        tokenizer = model.tokenizer
        tokenizer.save(directory)
        values |= {"bos_token_id": tokenizer.bos_id, "pad_token_id": tokenizer.pad_id}
    values["dtype"] = str(jax.tree.leaves(model.params)[0].dtype)
    tensors = to_tensors(architectures.SAFETENSORS_RULES, model.params)
    save_safetensors(directory, tensors, max_shard_bytes=max_shard_bytes)
    files.write_json(directory / "config.json", values)
    return directory


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors name the file, whatever they are."""
    with files.reading(path, "a model that this decoder can run"):
        try:
            yield
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _load_gguf(
    path: Path, ignore: Sequence[str], how: tuple[Any, ...]
) -> LanguageModel:
    file = open_gguf(path)
    # One part has some of the tensors, and would look like another architecture.
    if file.metadata.get("split.count", 1) not in (0, 1):
        raise ValueError(
            f"{path}: expected a whole model, got one part of several; join them with "
            "llama.cpp's gguf-split first"
        )
    metadata = known_fields.without(file.metadata, ignore)
    with _naming(file.path):
        shapes = _shapes(file)
        config = from_gguf(metadata, shapes)
        sizes.check_sizes(config, sizes.GGUF, shapes)
        if "rope_freqs.weight" in file:
            config = _with_factors(config, file["rope_freqs.weight"].read())
    rules, ignored = architectures.gguf_rules(config), architectures.GGUF_IGNORED
    params = _read(file, config, rules, ignored, *how)
    with _naming(file.path):
        tokenizer = tokenizer_of_gguf(metadata)
        ends = end_tokens(metadata)
    name = str(metadata.get("general.name") or file.path.stem)
    return _checked(LanguageModel(config, params, tokenizer, name, ends), file.path)


def _load_directory(
    path: Path, ignore: Sequence[str], how: tuple[Any, ...]
) -> LanguageModel:
    values = folder.read_config(path, ignore)
    with _naming(path / "config.json"):
        # Its missing fields are named first, even where there are no weights.
        layers = fields.whole(values, "num_hidden_layers")
    file = folder.with_prefix(open_safetensors(path))
    with _naming(path / "config.json"):
        sizes.check_layers(layers, sizes.TRANSFORMERS, len(file))
        config = from_transformers(values)
        file, config = folder.settle_head(file, config)
        shapes = {name: tensor.shape for name, tensor in file.items()}
        sizes.check_sizes(config, sizes.TRANSFORMERS, shapes)
    ends = folder.end_ids(path, values, config.vocab_size, ignore)
    rules, ignored = architectures.SAFETENSORS_RULES, architectures.SAFETENSORS_IGNORED
    params = _read(file, config, rules, ignored, *how)
    tokenizer = folder.read_tokenizer(path)
    return _checked(LanguageModel(config, params, tokenizer, path.name, ends), path)


def _shapes(file: TensorFile) -> dict[str, tuple[int, ...]]:
    shapes = {name: tensor.shape for name, tensor in file.items()}
    if len(shapes.get("token_embd.weight", ())) != 2:
        raise ValueError(
            "expected a tensor with two axes called token_embd.weight, found "
            f"{shapes.get('token_embd.weight', 'none')}"
        )
    return shapes


def _with_factors(config: DecoderConfig, factors: np.ndarray) -> DecoderConfig:
    if config.rope_scaling is not None:
        raise ValueError(
            "rope_freqs.weight: expected no rope scaling in the header beside it, got "
            f"{config.rope_scaling.kind}; this decoder applies one of the two"
        )
    scaling = scaling_of_factors(factors, config.rope_theta)
    return dataclasses.replace(config, rope_scaling=scaling)


def _read(
    file: TensorFile,
    config: DecoderConfig,
    rules: Sequence[Rule],
    ignored: Sequence[str],
    dtype: Any,
    mesh: Mesh | None,
    partitions: Sequence[tuple[str, PartitionSpec]],
    packed: bool,
) -> dict[str, Any]:
    if packed and mesh is not None:
        raise ValueError(
            "packed: expected no mesh beside it, since eight-bit kernels are not split "
            "over devices; leave one of the two out"
        )

    def place(path: str, array: np.ndarray) -> Any:
        if packed and any(re.search(pattern, path) for pattern in PACKED):
            return pack_leaf(path, array)
        if mesh is None:
            return jnp.asarray(array)
        # Leaf by leaf: no device, and not the host, ever holds the whole model.
        return sharding.shard_params({path: array}, mesh, partitions)[path]

    try:
        return to_params(
            rules,
            file,
            decoder.shapes(config),
            ignore=ignored,
            dtype=jnp.dtype(dtype),
            place=place,
        )
    except ValueError as error:
        raise ValueError(f"{file.path}: {error}") from error


def _checked(model: LanguageModel, path: Path) -> LanguageModel:
    tokenizer, rows = model.tokenizer, model.config.vocab_size
    if tokenizer is None or tokenizer.vocab_size <= rows:
        return model
    if tokenizer.base_size > rows:
        raise ValueError(
            f"{path}: expected a tokenizer with at most {rows} tokens, the rows of the "
            f"embedding, got {tokenizer.vocab_size}; the two belong to different models"
        )
    # Such as a [PAD] that was added for a training, and never looked up.
    absent = ", ".join(tokenizer.tokens(range(rows, tokenizer.vocab_size))[:4])
    warnings.warn(
        f"{path}: the tokenizer has {tokenizer.vocab_size} tokens and the embedding "
        f"{rows} rows; texts with the added tokens from {rows} on ({absent} ...) are "
        "refused",
        stacklevel=4,
    )
    return model
