"""Sizes that a configuration states, compared with what the file of weights holds.

A configuration of a kilobyte may state 10^8 layers or a head of 10^9 numbers. Here each
size is compared with the tensors before anything of that size is made.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from jeff_llm.models.config import DecoderConfig

__all__ = ["GGUF", "TRANSFORMERS", "Names", "check_layers", "check_sizes"]

_OTHER = "the files are damaged, or of two models"


class Names(NamedTuple):
    """What a format calls the sizes, and the embedding."""

    layers: str
    vocab: str
    width: str
    mlp: str
    heads: str
    head: str
    embedding: str


TRANSFORMERS = Names(
    "num_hidden_layers",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "head_dim",
    "model.embed_tokens.weight",
)
GGUF = Names(
    "block_count",
    "vocab_size",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.key_length",
    "token_embd.weight",
)


def check_layers(count: int, names: Names, tensors: int) -> None:
    """Check the number of layers.

    Args:
      count: what the configuration states.
      names: what its format calls the sizes.
      tensors: tensors in the file, more than one per layer.

    Raises:
      ValueError: if there are more layers than tensors.

    >>> check_layers(10**8, TRANSFORMERS, 272)
    Traceback (most recent call last):
    ValueError: num_hidden_layers: expected at most 272, the number of tensors in the \
file of weights, got 100000000; the files are damaged, or of two models
    """
    if count > tensors:
        raise ValueError(
            f"{names.layers}: expected at most {tensors}, the number of tensors in the "
            f"file of weights, got {count}; {_OTHER}"
        )


def check_sizes(
    config: DecoderConfig, names: Names, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Check every size of a decoder.

    Args:
      config: what the configuration states.
      names: what its format calls the sizes.
      shapes: of all tensors by their names.

    Raises:
      ValueError: naming the size that no tensor can have.
    """
    check_layers(config.num_layers, names, len(shapes))
    columns = shapes.get(names.embedding, (0, config.width))[-1:]
    if columns != (config.width,):
        raise ValueError(
            f"{names.width}: expected {columns}, the columns of {names.embedding}, got "
            f"{config.width}; {_OTHER}"
        )
    numbers = sum(math.prod(shape) for shape in shapes.values())
    # Each size, with the numbers that one of it takes in a single matrix.
    for name, size, each in (
        (names.vocab, config.vocab_size, config.width),
        (names.mlp, config.mlp_width, config.width),
        (names.heads, config.num_heads, config.width),
        (names.head, config.head_width, config.width * config.num_heads),
    ):
        if size * each > numbers:
            raise ValueError(
                f"{name}: expected at most {numbers // each}, since the file of "
                f"weights holds {numbers} numbers in all, got {size}; {_OTHER}"
            )
