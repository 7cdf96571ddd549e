"""Continue many rows of token ids in batches of few shapes."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jeff_llm.generate.generation import generate
from jeff_llm.generate.sampling import GREEDY, Processor, Sampling
from jeff_llm.models.language_model import LanguageModel

__all__ = ["Continuations", "continue_rows", "row_keys", "sampling_of", "stage_keys"]


class Continuations(NamedTuple):
    """Continuations of rows of token ids.

    Attributes:
      tokens: tokens of each, without the end token.
      ends: the end token of each; -1 where it was cut.
      log_probs: natural log-probability of each token under the model, the end token
        included; 0 behind it.
      hidden: normalised output of the last layer from which the first token was drawn;
        without columns unless it is asked for.
    """

    tokens: list[list[int]]
    ends: Int[np.ndarray, " rows"]
    log_probs: Float[np.ndarray, "rows new_tokens"]
    hidden: Float[np.ndarray, "rows width"]


def continue_rows(
    model: LanguageModel,
    rows: Sequence[list[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    sampling: Sampling = GREEDY,
    keys: Key[Array, " rows"] | None = None,
    processors: Sequence[Processor] = (),
    with_hidden: bool = False,
    batch_size: int = 128,
) -> Continuations:
    """Continue any number of rows, in batches of few shapes.

    Rows of similar length share a batch, and a batch is filled up to a power of two, so
    few programs are compiled for any number of rows.

    Args:
      model: the model.
      rows: token ids.
      max_new_tokens: tokens drawn at most for each.
      stop_ids: tokens that end a row.
      sampling: temperature and cuts; greedy by default.
      keys: one random key per row; needed unless greedy.
      processors: change the logits.
      with_hidden: return hidden states.
      batch_size: rows at a time.

    Returns:
      The continuations, in the order of the rows.

    Raises:
      ValueError: if ``batch_size`` is below 1, or as `jeff_llm.generate.generate`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    tokens: list[list[int]] = [[] for _ in rows]
    ends = np.full(len(rows), -1)
    log_probs = np.zeros((len(rows), max_new_tokens), np.float32)
    width = model.config.width if with_hidden else 0
    hidden = np.zeros((len(rows), width), np.float32)
    for begin in range(0, len(order), batch_size):
        some = order[begin : begin + batch_size]
        size = min(batch_size, 1 << (len(some) - 1).bit_length())
        # Copies of the last row, the shortest, fill the batch.
        batch = some + [some[-1]] * (size - len(some))
        found = generate(
            model,
            [rows[row] for row in batch],
            max_new_tokens=max_new_tokens,
            sampling=sampling_of(sampling, batch),
            keys=None if keys is None else keys[np.array(batch)],
            stop_ids=stop_ids,
            processors=processors,
            hidden_layers=(-1,) if with_hidden else (),
        )
        for place, row in enumerate(some):
            length, ended = int(found.lengths[place]), bool(found.finished[place])
            drawn = found.tokens[place, :length].tolist()
            tokens[row] = drawn[: length - ended]
            ends[row] = drawn[-1] if ended else -1
        log_probs[some] = found.log_probs[: len(some)]
        if with_hidden:
            hidden[some] = found.hidden[0, : len(some), 0]
    return Continuations(tokens, ends, log_probs, hidden)


def row_keys(keys: Key[Array, "..."] | None, count: int) -> Key[Array, " rows"] | None:
    """One random key per row.

    Args:
      keys: one key, one per row, or None.
      count: number of rows.

    Returns:
      The keys, or None.

    Raises:
      ValueError: if there is another number of keys.
    """
    if keys is None or keys.shape == (count,):
        return keys
    if keys.ndim:
        raise ValueError(f"keys: expected one, or {count}, got shape {keys.shape}")
    return jax.random.split(keys, count)


def stage_keys(
    keys: Key[Array, " rows"] | None, stage: int, rows: Sequence[int] | None = None
) -> Key[Array, " some"] | None:
    """Keys of one stage of generation, so that no two stages of a row share draws.

    Args:
      keys: one key per row, or None.
      stage: number of the stage.
      rows: rows to take; all by default.

    Returns:
      The keys, or None.
    """
    if keys is None:
        return None
    some = keys if rows is None else keys[np.array(rows)]
    return jax.vmap(lambda key: jax.random.fold_in(key, stage))(some)


def sampling_of(sampling: Sampling, rows: Sequence[int]) -> Sampling:
    """The settings of some rows.

    Args:
      sampling: settings of all rows; each is one value, or one per row.
      rows: rows to take.

    Returns:
      Their settings.
    """
    changed: dict[str, Any] = {
        field.name: np.asarray(value)[np.array(rows)]
        for field in dataclasses.fields(sampling)
        if (value := getattr(sampling, field.name)) is not None and jnp.ndim(value)
    }
    return dataclasses.replace(sampling, **changed)
