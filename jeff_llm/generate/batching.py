"""Padding of ragged prompts to a few shapes, so that few programs are compiled."""

from collections.abc import Iterable, Sequence, Sized
from typing import TypeAlias

import jax
import numpy as np

from jeff import sharding
from jeff_llm.models.language_model import LanguageModel

__all__ = [
    "Prompt",
    "bucket",
    "check_ids",
    "check_room",
    "common_prefix",
    "encode",
    "like_lengths",
    "pad",
    "place",
]

Prompt: TypeAlias = str | Sequence[int] | np.ndarray

# Prompts below it share one program; padding them costs little.
_SMALLEST = 16
# Scores of attention, for each head, up to which a second program is not worth while:
# those of one row of 4,096 tokens.
_FEW_SCORES = 1 << 24
# How much longer than the shortest the longest row of a larger batch may be.
_ALIKE = 2


def bucket(size: int, smallest: int = _SMALLEST) -> int:
    """The least of 16, 24, 32, 48, 64, 96 ... that is not below a size.

    Two sizes an octave: at most a third of an array is padding.

    Args:
      size: tokens or rows needed.
      smallest: least bucket, a power of two.

    Returns:
      The bucket.

    >>> [bucket(size) for size in (1, 17, 33, 100)]
    [16, 24, 48, 128]
    """
    top = smallest
    while top < size:
        top *= 2
    return top * 3 // 4 if size <= top * 3 // 4 and top > smallest else top


def encode(
    model: LanguageModel, prompts: Sequence[Prompt], *, room: int
) -> list[list[int]]:
    """Token ids of prompts, checked against the model's context.

    Args:
      model: the model.
      prompts: texts, to which the tokenizer adds its special tokens, or token ids.
      room: tokens that will follow each.

    Returns:
      Token ids.

    Raises:
      TypeError: if ``prompts`` is one text rather than several prompts.
      ValueError: naming the prompt that is empty, too long, or has a token that the
        model lacks; or if there is none.
    """
    # A text is a sequence too: of prompts of one letter each.
    if isinstance(prompts, str):
        raise TypeError("prompts: expected several, got one text; put it in a list")
    if not len(prompts):
        raise ValueError("prompts: expected at least one, got none")
    rows = []
    for number, prompt in enumerate(prompts):
        ids = _ids(model, prompt)
        if not ids:
            raise ValueError(
                f"prompt {number}: expected at least one token, got an empty prompt"
            )
        check_ids(model, ids, f"prompt {number}")
        check_room(model, ids, room, f"prompt {number}")
        rows.append(ids)
    return rows


def check_room(model: LanguageModel, ids: Sized, room: int, name: str) -> None:
    """Check that a prompt and the tokens after it fit into the model's context.

    Args:
      model: the model.
      ids: token ids of the prompt.
      room: tokens that will follow.
      name: the prompt's name in the error.

    Raises:
      ValueError: naming the prompt if they do not fit.
    """
    limit = model.config.max_positions
    if len(ids) + room > limit:
        raise ValueError(
            f"{name}: expected at most {limit - room} tokens, so that {room} more fit "
            f"into the model's context of {limit}, got {len(ids)}; shorten it, or ask "
            "for fewer new tokens"
        )


def check_ids(model: LanguageModel, ids: Iterable[int], name: str) -> None:
    """Check that the model has every token.

    Args:
      model: the model.
      ids: token ids.
      name: their name in the error.

    Raises:
      ValueError: naming the first token that it lacks.
    """
    size = model.config.vocab_size
    wrong = next((token for token in ids if not 0 <= token < size), None)
    if wrong is not None:
        raise ValueError(f"{name}: expected tokens below {size}, got {wrong}")


def pad(
    rows: Sequence[Sequence[int]], num_rows: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids in one array, padded on the right.

    Args:
      rows: token ids.
      num_rows: rows of the array; those past ``rows`` hold one token of padding that
        counts as real, so that every row has something to attend to.
      width: columns of the array.

    Returns:
      ``(tokens, mask)``, int32 and bool, [num_rows, width].
    """
    tokens = np.zeros((num_rows, width), np.int32)
    mask = np.zeros((num_rows, width), bool)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = ids
        mask[row, : len(ids)] = True
    # A row without a real token would attend to nothing, and its softmax be 0 / 0.
    mask[len(rows) :, 0] = True
    return tokens, mask


def place(model: LanguageModel, *arrays: np.ndarray) -> list[jax.Array]:
    """Put batches where the model's parameters are.

    Args:
      model: the model.
      *arrays: arrays whose first axis is the batch.

    Returns:
      The arrays: split over the data axes where the parameters lie on a mesh of
      `jeff.sharding.make_mesh` and the batch can be split evenly, else whole.
    """
    # Inputs follow the parameters, so that jit finds both on the same devices.
    mesh = sharding.mesh_of(model.params)
    if mesh is not None and _splits(mesh, len(arrays[0])):
        return [sharding.shard_batch(array, mesh) for array in arrays]
    return [jax.numpy.asarray(array) for array in arrays]


def like_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """Rows that are read together: those of like length.

    One long row pads all others to its length: seven short prompts beside one of 3,900
    tokens would take eight times the memory of the long one.

    Args:
      lengths: tokens of each row.

    Returns:
      Groups of places in ``lengths``, each place once and rising within its group, the
      longest rows first. A single group where padding costs little.

    >>> like_lengths([10, 3900, 12]), like_lengths([10, 39, 12])
    ([[1], [0, 2]], [[0, 1, 2]])
    """
    buckets = [bucket(length) for length in lengths]
    left = sorted(range(len(lengths)), key=lambda place: -buckets[place])
    groups = []
    while left:
        longest = buckets[left[0]]
        group = left
        if bucket(len(left), smallest=1) * longest**2 > _FEW_SCORES:
            group = [place for place in left if buckets[place] * _ALIKE >= longest]
        groups.append(sorted(group))
        left = left[len(group) :]
    return groups


def common_prefix(rows: Sequence[list[int]]) -> int:
    """Length of the longest beginning that all rows share, each keeping a token.

    Args:
      rows: token ids.

    Returns:
      The length, in tokens.

    >>> common_prefix([[1, 2, 3], [1, 2, 4]])
    2
    """
    # What the first and last row in order share, all rows between them share too.
    first, last = min(rows), max(rows)
    limit = min(len(row) for row in rows) - 1
    for place, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other or place >= limit:
            return min(place, limit)
    return limit


def _splits(mesh: jax.sharding.Mesh, rows: int) -> bool:
    """Whether a mesh divides the rows evenly."""
    return rows % (mesh.shape["data"] * mesh.shape["fsdp"]) == 0


def _ids(model: LanguageModel, prompt: Prompt) -> list[int]:
    if isinstance(prompt, str):
        return model.encode(prompt)
    return [int(token) for token in prompt]
