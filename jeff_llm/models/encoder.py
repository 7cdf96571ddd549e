"""Sentences to vectors, with all-MiniLM-L6-v2 or another BERT of its kind.

Texts are batched by length: a batch's length is a power of two, from 16 tokens to the
longest allowed, and each length has three numbers of rows. So at most fifteen programs
are compiled for MiniLM, whatever the texts. The vectors equal those of the package
sentence-transformers.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, PyTree

from jeff import assets, files, sharding
from jeff_llm.models import known_fields
from jeff_llm.models.bert import Encoder, embed, shapes
from jeff_llm.models.bert_config import (
    IGNORED,
    RULES,
    EncoderConfig,
    from_transformers,
)
from jeff_llm.models.mapping import to_params
from jeff_llm.models.tensors import TensorFile, open_safetensors
from jeff_llm.models.tokenizer import Tokenizer, from_directory

__all__ = ["Encoder", "EncoderConfig", "SentenceEncoder", "embed", "load"]

_SHORTEST = 16  # tokens of the shortest batch
_FEW = 8  # rows of a full batch for each row of a small one
_MINILM_TOKENS = 256

_embed = jax.jit(embed, static_argnames=("config", "normalize"))


@dataclass(frozen=True, eq=False)
class SentenceEncoder:
    """An encoder and its tokenizer.

    Attributes:
      config: sizes.
      params: parameters, of the shapes that `jeff_llm.models.bert.shapes` gives.
      tokenizer: puts one token before a text and one behind it.
      max_tokens: longer texts are cut.
    """

    config: EncoderConfig
    params: PyTree
    tokenizer: Tokenizer
    max_tokens: int = _MINILM_TOKENS

    def encode(
        self, texts: Sequence[str], *, batch_size: int = 64, normalize: bool = True
    ) -> Float[np.ndarray, "texts width"]:
        """Embed texts.

        Args:
          texts: any number of texts, empty ones too.
          batch_size: most texts in a batch; fewer for longer texts, down to 1/8.
          normalize: scale to unit length.

        Returns:
          The embeddings, float32, in the order of the texts.

        Raises:
          TypeError: if ``texts`` is a single text.
          ValueError: if ``batch_size`` is not positive.
        """
        if isinstance(texts, str):
            raise TypeError(f"texts: expected a sequence of texts, got {texts!r:.100}")
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        rows = [self._cut(row) for row in self.tokenizer.encode_all(texts)]
        mesh = sharding.mesh_of(self.params)
        split = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
        # All batches are dispatched before the first result is awaited.
        parts = []
        for chosen, batch in _batches(rows, self.max_tokens, batch_size, split):
            placed = batch if mesh is None else sharding.shard_batch(batch, mesh)
            found = _embed(self.params, self.config, *placed, normalize=normalize)
            parts.append((chosen, found))
        embeddings = np.zeros((len(rows), self.config.width), np.float32)
        for chosen, part in parts:
            embeddings[chosen] = np.asarray(part)[: len(chosen)]
        return embeddings

    def _cut(self, row: list[int]) -> list[int]:
        """At most ``max_tokens`` tokens, the last of which closes the text."""
        if len(row) <= self.max_tokens:
            return row
        # The last token is the separator, which the model expects at the end.
        return row[: self.max_tokens - 1] + row[-1:]


def _batches(
    rows: list[list[int]], max_tokens: int, batch_size: int, split: int = 1
) -> Iterator[tuple[list[int], tuple[np.ndarray, np.ndarray]]]:
    """Which rows are in a batch, and its tokens and mask.

    Rows of a batch are a multiple of ``split``, the devices that share it.
    """
    buckets: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        length = max(_SHORTEST, 1 << (len(row) - 1).bit_length())
        buckets.setdefault(min(length, max_tokens), []).append(number)
    for length, members in sorted(buckets.items()):
        # About as many tokens in each batch: what is in flight stays in the cache.
        full = max(1, min(batch_size, batch_size * 2 * _SHORTEST // length))
        few = max(1, full // _FEW)
        start = 0
        while start < len(members):
            left = len(members) - start
            size = full if left >= full else few if left > 1 else 1
            size = -(-size // split) * split
            chosen = members[start : start + size]
            yield chosen, _pad([rows[number] for number in chosen], size, length)
            start += size


def _pad(
    rows: list[list[int]], size: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.zeros((size, length), np.int32)
    mask = np.zeros((size, length), bool)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = row
        mask[place, : len(row)] = True
    return tokens, mask


def load(
    name_or_path: str | Path = "minilm",
    *,
    mesh: Mesh | None = None,
    ignore: Sequence[str] = (),
) -> SentenceEncoder:
    """Load a sentence encoder.

    Args:
      name_or_path: ``minilm`` for the asset, or a directory as sentence-transformers
        writes it: ``config.json``, safetensors, ``tokenizer.json``, and optionally
        ``modules.json``, ``sentence_bert_config.json`` and the pooling's settings.
      mesh: a mesh of `jeff.sharding.make_mesh`, over whose data axes each batch of
        texts is split; the parameters are copied to all its devices.
      ignore: fields of ``config.json`` that change no numbers; a field that jeff does
        not know is an error otherwise.

    Returns:
      The encoder, in float32.

    Raises:
      FileNotFoundError: if a file is missing; names the command that fetches the asset.
      ValueError: if a file is damaged, or the model is another than a BERT with the
        mean as pooling; names the file. If the mesh has devices of another process.
    """
    path = Path(name_or_path)
    if name_or_path == "minilm":
        file = open_safetensors(assets.find("minilm"))
        tokenizer = from_directory(assets.find("minilm_tokenizer"))
        return _assemble(EncoderConfig(), file, tokenizer, _MINILM_TOKENS, mesh)
    if not (path / "config.json").is_file():
        raise FileNotFoundError(
            f"{path}: expected 'minilm' or a directory with config.json, found neither"
        )
    values = known_fields.without(_json(path / "config.json"), ignore)
    try:
        config = from_transformers(values)
    except ValueError as error:
        raise ValueError(f"{path / 'config.json'}: {error}") from error
    with files.reading(path / "modules.json", "the modules of a sentence encoder"):
        _check_modules(path / "modules.json")
    file, tokenizer = open_safetensors(path), from_directory(path)
    _check_sizes(config, file, path / "config.json")
    settings = path / "sentence_bert_config.json"
    lowers = _json(settings).get("do_lower_case")
    if not isinstance(lowers, bool | None):
        raise ValueError(
            f"{settings}: do_lower_case: expected true or false, got {lowers!r:.100}"
        )
    if lowers and tokenizer.encode("A") != tokenizer.encode("a"):
        raise ValueError(
            f"{settings}: expected a tokenizer that lowers the case by itself, where "
            "do_lower_case is set, got one that does not"
        )
    limit = _limit(path, config.max_positions)
    return _assemble(config, file, tokenizer, limit, mesh)


def _assemble(
    config: EncoderConfig,
    file: TensorFile,
    tokenizer: Tokenizer,
    limit: int,
    mesh: Mesh | None,
) -> SentenceEncoder:
    try:
        params = to_params(RULES, file, shapes(config), ignore=IGNORED)
    except ValueError as error:
        raise ValueError(f"{file.path}: {error}") from error
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"{file.path}: expected a tokenizer of at most {config.vocab_size} tokens, "
            f"got {tokenizer.vocab_size}; the two belong to different models"
        )
    if mesh is not None:
        sharding.check_own_devices(mesh)
        params = sharding.replicate(params, mesh)
    return SentenceEncoder(config, params, tokenizer, limit)


def _json(file: Path, kind: type[dict] | type[list] = dict) -> Any:
    """Content of a JSON file; empty if the file is missing."""
    if not file.is_file():
        return kind()
    content = files.parse_json(files.read_bytes(file), str(file))
    if not isinstance(content, kind):
        raise ValueError(
            f"{file}: expected a JSON {kind.__name__}, got {content!r:.80}"
        )
    return content


def _limit(path: Path, most: int) -> int:
    """The longest text that the model's files allow, in tokens."""
    for file, name in (
        (path / "sentence_bert_config.json", "max_seq_length"),
        (path / "tokenizer_config.json", "model_max_length"),
    ):
        limit = _json(file).get(name)
        # transformers writes 10^30 for none.
        if limit is None or (name == "model_max_length" and limit == int(1e30)):
            continue
        # The tokens that begin and end a text, and nothing between them.
        if type(limit) is not int or limit < 2:
            raise ValueError(
                f"{file}: {name}: expected a whole number of at least 2, got "
                f"{limit!r:.100}"
            )
        return min(most, limit)
    return most


def _check_sizes(config: EncoderConfig, file: TensorFile, source: Path) -> None:
    """Compare sizes with the weights before anything of that size is made."""
    numbers = sum(math.prod(tensor.shape) for tensor in file.values())
    for name, size, most in (
        ("num_hidden_layers", config.num_layers, len(file)),
        ("hidden_size", config.width, numbers),
        ("vocab_size", config.vocab_size, numbers // config.width),
        ("intermediate_size", config.mlp_width, numbers // config.width),
        ("max_position_embeddings", config.max_positions, numbers // config.width),
        ("type_vocab_size", config.num_types, numbers // config.width),
    ):
        if size > most:
            raise ValueError(
                f"{source}: {name}: expected at most {most}, since {file.path} has "
                f"{len(file)} tensors of {numbers} numbers in all, got {size}"
            )


def _check_modules(file: Path) -> None:
    """Check the modules: BERT, mean, and perhaps unit length."""
    for module in _json(file, list):
        kind = str(dict(module).get("type")).rpartition(".")[2]
        if kind not in {"Transformer", "Pooling", "Normalize"}:
            raise ValueError(
                f"{file}: expected Transformer, Pooling and Normalize alone, got {kind}"
            )
        if kind == "Pooling":
            _check_pooling(file.parent / str(module.get("path")) / "config.json")


def _check_pooling(file: Path) -> None:
    settings = _json(file)
    # sentence-transformers 6 writes one name, releases before it a flag for each.
    prefix = "pooling_mode_"
    flags = [name for name, on in settings.items() if name.startswith(prefix) and on]
    modes = [name.removeprefix(prefix).removesuffix("_tokens") for name in flags]
    modes = modes or [settings.get("pooling_mode")]
    if modes != ["mean"]:
        raise ValueError(f"{file}: expected the mean as pooling, got {modes}")
