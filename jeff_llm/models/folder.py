"""What a directory of transformers says beside its tensors, and how it is read.

Each reading is that of transformers 5: which file names the tokens that end an answer,
what a tied head means where the file holds another one, and names without ``model.``.
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jeff import files
from jeff_llm.models import fields, known_fields
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.tensors import LazyTensor, TensorFile
from jeff_llm.models.tokenizer import Tokenizer, from_directory

__all__ = ["end_ids", "read_config", "read_tokenizer", "settle_head", "with_prefix"]

_EMBEDDING, _HEAD, _PREFIX = "model.embed_tokens.weight", "lm_head.weight", "model."
# Files of tokenizers in formats that only their own libraries read.
_OTHER_TOKENIZERS = (
    *("tokenizer.model", "tekken.json", "vocab.json", "merges.txt", "vocab.txt"),
    *("spiece.model", "sentencepiece.bpe.model", "qwen.tiktoken"),
)


def read_config(path: Path, ignore: Sequence[str] = ()) -> dict[str, Any]:
    """Read ``config.json``.

    Args:
      path: the directory.
      ignore: fields to leave out.

    Returns:
      Its fields.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is no JSON object.
    """
    file = path / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: expected the model's configuration there")
    return known_fields.without(_object(file), ignore)


def end_ids(
    path: Path, config: Mapping[str, Any], rows: int, ignore: Sequence[str] = ()
) -> tuple[int, ...]:
    """Tokens that end an answer, by generation_config.json or else config.json.

    Args:
      path: the directory.
      config: the fields of ``config.json``.
      rows: tokens of the model.
      ignore: fields to leave out.

    Returns:
      The tokens, each once; those without a row are left out with a warning.

    Raises:
      ValueError: if the file has a field that is unknown, or keeps tokens from
        answers.
    """
    file, found = path / "config.json", config.get("eos_token_id")
    generation = path / "generation_config.json"
    if generation.is_file():
        values = known_fields.without(_object(generation), ignore)
        try:
            known_fields.check_known(values, known_fields.GENERATION)
        except ValueError as error:
            raise ValueError(f"{generation}: {error}") from error
        if values.get("eos_token_id") is not None:
            file, found = generation, values["eos_token_id"]
    listed = found if isinstance(found, list) else [] if found is None else [found]
    for token in listed:
        if type(token) is not int or token < 0:
            raise ValueError(
                f"{file}: eos_token_id: expected a token, or a list of tokens, got "
                f"{fields.shown(found)}"
            )
    if absent := [token for token in listed if token >= rows]:
        warnings.warn(
            f"{file}: eos_token_id: expected tokens below {rows}, the rows of the "
            f"embedding, got {absent[0]}, which the model cannot write; it ends no "
            "answer",
            stacklevel=3,
        )
    return tuple(dict.fromkeys(token for token in listed if token < rows))


def with_prefix(file: TensorFile) -> TensorFile:
    """The tensors under the names of the whole model.

    The class without a head, such as ``LlamaModel``, writes names without ``model.``.

    Args:
      file: tensors under either names.

    Returns:
      The same tensors.
    """
    if _EMBEDDING.removeprefix(_PREFIX) not in file:
        return file
    named = {
        name if name.startswith((_PREFIX, "lm_head.")) else _PREFIX + name: tensor
        for name, tensor in file.items()
    }
    return TensorFile(file.path, named, file.metadata)


def settle_head(
    file: TensorFile, config: DecoderConfig
) -> tuple[TensorFile, DecoderConfig]:
    """Decide whether the head is the embedding, by the file where it holds both.

    Args:
      file: the tensors.
      config: the decoder, tied or not as ``config.json`` says.

    Returns:
      The tensors that the decoder has, and its configuration: untied, with a warning,
      where the file holds another head than its embedding.
    """
    head, table = file.get(_HEAD), file.get(_EMBEDDING)
    if not config.tied or head is None:
        return file, config
    kept = {name: tensor for name, tensor in file.items() if name != _HEAD}
    if table is None:
        kept[_EMBEDDING] = head
    elif not _equal(head, table):
        warnings.warn(
            f"{file.path}: tie_word_embeddings is true in config.json, and {_HEAD} is "
            f"another matrix than {_EMBEDDING}; as in transformers both are kept. Set "
            "tie_word_embeddings to false, or remove the tensor that is not meant",
            stacklevel=3,
        )
        return file, dataclasses.replace(config, tied=False)
    return TensorFile(file.path, kept, file.metadata), config


def read_tokenizer(path: Path) -> Tokenizer | None:
    """Read the tokenizer of a directory.

    Args:
      path: the directory.

    Returns:
      The tokenizer; None where there is no ``tokenizer.json``, with a warning where
      there is one in another format.
    """
    if (path / "tokenizer.json").is_file():
        return from_directory(path)
    others = [name for name in _OTHER_TOKENIZERS if (path / name).is_file()]
    if others:
        warnings.warn(
            f"{path}: expected tokenizer.json, found {', '.join(others)} alone, so the "
            "model has no tokenizer and takes token ids; to convert it, run "
            f"transformers.AutoTokenizer.from_pretrained({str(path)!r})"
            f".save_pretrained({str(path)!r})",
            stacklevel=3,
        )
    return None


def _object(file: Path) -> dict[str, Any]:
    values = files.parse_json(files.read_bytes(file), str(file))
    if not isinstance(values, dict):
        raise ValueError(f"{file}: expected a JSON object, got {values!r:.100}")
    return values


def _equal(a: LazyTensor, b: LazyTensor) -> bool:
    if a.shape != b.shape:
        return False
    # Bytes first: no weights are converted where the types are one.
    if a.dtype == b.dtype:
        return np.array_equal(a.raw, b.raw)
    return np.array_equal(a.read(), b.read())
