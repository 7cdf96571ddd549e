"""Drawing the next token from logits: pure functions, batched over rows.

A logit processor is any callable ``(logits [batch, vocabulary], progress) -> logits``:
budget forcing, grammars and forbidden words are written as one. Make it with
`jax.tree_util.Partial` where it holds arrays (as `allow_tokens` does), so that new
arrays of the same shapes compile nothing. A plain function is compiled once per object.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Key

__all__ = [
    "GREEDY",
    "Processor",
    "Progress",
    "RowSampling",
    "Sampling",
    "allow_tokens",
    "filter_logits",
    "forbid_tokens",
    "minimum_tokens",
    "sample",
]


class Progress(NamedTuple):
    """Progress of a generation, as a logit processor sees it.

    Attributes:
      step: number of the token that is drawn next, from 0.
      tokens: tokens drawn so far; those from ``step`` on are arbitrary.
      lengths: tokens of each prompt.
    """

    step: Int[Array, ""]
    tokens: Int[Array, "batch new_tokens"]
    lengths: Int[Array, " batch"]


Processor: TypeAlias = Callable[
    [Float[Array, "batch vocabulary"], Progress], Float[Array, "batch vocabulary"]
]


class RowSampling(NamedTuple):
    """`Sampling` with one value per row: a pytree, for compiled code.

    Attributes:
      temperature: 0 takes the likeliest token of that row.
      top_k: see `Sampling`; None leaves the cut out.
      top_p: likewise.
      min_p: likewise.
    """

    temperature: Float[Array, " batch"]
    top_k: Int[Array, " batch"] | None
    top_p: Float[Array, " batch"] | None
    min_p: Float[Array, " batch"] | None


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Temperature and cuts of the distribution of the next token.

    The cuts come in the order temperature, ``top_k``, ``top_p``, ``min_p``, each on
    what the one before left, as in transformers. Each is one value, or one per row.

    Attributes:
      temperature: logits are divided by it; 0 takes the likeliest token.
      top_k: only the k likeliest tokens; ties with the last of them stay.
      top_p: only the smallest set of likeliest tokens that holds this probability.
      min_p: only tokens with at least this share of the likeliest token's probability.
    """

    temperature: float | int | np.ndarray | Array = 1.0
    top_k: int | np.ndarray | Array | None = None
    top_p: float | int | np.ndarray | Array | None = None
    min_p: float | int | np.ndarray | Array | None = None

    def __post_init__(self):
        """Check ranges."""
        ranges = {
            "temperature": (0, np.inf),
            "top_k": (1, np.inf),
            "top_p": (1e-6, 1),
            "min_p": (0, 1),
        }
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if value is None:
                continue
            if np.ndim(value) > 1 or not np.all(
                (np.asarray(value) >= least) & (np.asarray(value) <= most)
            ):
                raise ValueError(
                    f"{name}: expected one number, or one a row, from {least} to "
                    f"{most}, got {value}"
                )

    def rows(self, count: int, padded: int) -> RowSampling | None:
        """One value per row of each setting, so that no value is compiled in.

        Args:
          count: rows of the batch.
          padded: rows with those that fill the batch up; they copy the last one.

        Returns:
          The settings; None where no row draws at random.

        Raises:
          ValueError: if there are values for another number of rows.
        """
        # Greedy everywhere: the program then has neither sort nor random numbers.
        if not np.any(np.asarray(self.temperature)):
            return None
        settings = {}
        for name in RowSampling._fields:
            value = getattr(self, name)
            if value is None:
                settings[name] = None
                continue
            dtype = np.int32 if name == "top_k" else np.float32
            value = np.asarray(value, dtype)
            if value.ndim and value.shape != (count,):
                raise ValueError(
                    f"{name}: expected one value, or {count}, got {len(value)}"
                )
            value = np.broadcast_to(value, (count,))
            settings[name] = jnp.asarray(
                value[np.minimum(np.arange(padded), count - 1)]
            )
        return RowSampling(**settings)


GREEDY = Sampling(temperature=0.0)


def filter_logits(
    logits: Float[Array, "batch vocabulary"],
    *,
    top_k: Int[Array, " batch"] | None = None,
    top_p: Float[Array, " batch"] | None = None,
    min_p: Float[Array, " batch"] | None = None,
) -> Float[Array, "batch vocabulary"]:
    """Set the logits of tokens that are cut off to minus infinity.

    Args:
      logits: logits, the temperature already in them.
      top_k: see `Sampling`; None leaves the cut out, as below.
      top_p: see `Sampling`.
      min_p: see `Sampling`.

    Returns:
      The logits; at least one of each row is finite.

    References:
      Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020 (top-p);
      Nguyen et al., "Min-p Sampling", 2024.
    """
    # Minus infinity, not the lowest finite number: a token cut off must have
    # probability exactly 0, whatever its row holds.
    if top_k is not None:
        place = jnp.minimum(top_k, logits.shape[-1])[:, None] - 1
        least = jnp.take_along_axis(_descending(logits), place, axis=-1)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if top_p is not None:
        ordered = _descending(logits)
        before = jnp.cumsum(jax.nn.softmax(ordered, axis=-1), axis=-1)
        before = before - jax.nn.softmax(ordered, axis=-1)
        # A token stays while the probability before it is too little, so the first
        # always does. At top_p = 1 all stay: a rounded sum may reach 1 too early.
        stays = (before < top_p[:, None]) | (top_p[:, None] >= 1)
        least = jnp.where(stays, ordered, jnp.inf).min(axis=-1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if min_p is not None:
        # In logarithms: a share of the highest probability is a distance in logits.
        least = logits.max(axis=-1, keepdims=True) + jnp.log(min_p)[:, None]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits


def sample(
    logits: Float[Array, "batch vocabulary"],
    sampling: RowSampling | None,
    *,
    keys: Key[Array, " batch"],
) -> Int[Array, " batch"]:
    """Draw a token for each row.

    Args:
      logits: logits of the next token.
      sampling: how; None takes the likeliest token everywhere.
      keys: a random key for each row, so that a row's draw does not depend on others.

    Returns:
      Token ids.
    """
    likeliest = jnp.argmax(logits, axis=-1)
    if sampling is None:
        return likeliest
    temperature = sampling.temperature
    cut = filter_logits(
        logits / jnp.where(temperature == 0, 1, temperature)[:, None],
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
    )
    # Both results are computed: rows of one batch may differ in temperature.
    drawn = jax.vmap(jax.random.categorical)(keys, cut)
    return jnp.where(temperature == 0, likeliest, drawn)


def allow_tokens(ids: Sequence[int], vocab_size: int) -> Partial:
    """A processor that allows only some tokens.

    Args:
      ids: the tokens.
      vocab_size: size of the vocabulary.

    Returns:
      The processor.
    """
    return Partial(_masked, jnp.asarray(_membership(ids, vocab_size)))


def forbid_tokens(ids: Sequence[int], vocab_size: int) -> Partial:
    """A processor that forbids some tokens.

    Args:
      ids: the tokens.
      vocab_size: size of the vocabulary.

    Returns:
      The processor.
    """
    return Partial(_masked, jnp.asarray(~_membership(ids, vocab_size)))


def minimum_tokens(count: int, ids: Sequence[int], vocab_size: int) -> Partial:
    """A processor that forbids tokens until enough others have been drawn.

    With the tokens that end an answer, or a chain of thought, it sets a least length.

    Args:
      count: tokens that are drawn first.
      ids: tokens forbidden until then.
      vocab_size: size of the vocabulary.

    Returns:
      The processor.
    """
    allowed = jnp.asarray(~_membership(ids, vocab_size))
    # The count is an array, so that another one compiles nothing.
    return Partial(_masked_until, jnp.asarray(count), allowed)


def _masked(
    allowed: Bool[Array, " vocabulary"], logits: Array, progress: Progress
) -> Array:
    del progress
    return jnp.where(allowed, logits, -jnp.inf)


def _masked_until(
    count: Int[Array, ""],
    allowed: Bool[Array, " vocabulary"],
    logits: Array,
    progress: Progress,
) -> Array:
    return jnp.where(allowed | (progress.step >= count), logits, -jnp.inf)


def _membership(ids: Sequence[int], vocab_size: int) -> np.ndarray:
    wrong = [token for token in ids if not 0 <= token < vocab_size]
    if wrong or not len(ids):
        raise ValueError(
            f"ids: expected at least one token below {vocab_size}, got "
            f"{wrong if wrong else 'none'}"
        )
    member = np.zeros(vocab_size, bool)
    member[list(ids)] = True
    return member


def _descending(logits: Array) -> Array:
    return -jnp.sort(-logits, axis=-1)
