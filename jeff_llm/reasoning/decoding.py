"""Control of a thought token by token, as logit processors for `jeff_llm.generate`.

A reasoning model writes a thought, a token that ends it, and an answer. `no_wait`
keeps the model from reflecting; `budget_forcing` keeps the thought between a number of
reflections and a number of tokens. Both act inside the compiled decoding loop, and new
numbers compile nothing.

A processor sees tokens, not where they come from. `budget_forcing` therefore counts the
waits that the model wrote by itself together with those it was made to write, and its
markers are single tokens. `jeff_llm.reasoning.thinking.force_budget` counts only its
own, as the paper does, and takes markers of several tokens.
"""

import operator
import re
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from jeff_llm.generate.sampling import Progress
from jeff_llm.models.tokenizer import Tokenizer

__all__ = ["REFLECTION_WORDS", "budget_forcing", "no_wait", "reflection_ids"]

# The keywords of Wang et al., 2025. The hyphenated one is a single token in few
# vocabularies.
REFLECTION_WORDS = (
    "wait",
    "alternatively",
    "hmm",
    "but",
    "however",
    "alternative",
    "another",
    "check",
    "double-check",
    "oh",
    "maybe",
    "verify",
    "other",
    "again",
    "now",
    "ah",
    "any",
)

_EDGES = re.compile(r"^\W+|\W+$")


def reflection_ids(
    tokenizer: Tokenizer, words: Sequence[str] = REFLECTION_WORDS
) -> list[int]:
    """All tokens that spell a reflection word by themselves.

    A token counts if its text is one of the words in any case, with or without spaces
    and punctuation around it: "wait", " Wait", "WAIT,". A word that the tokenizer cuts
    into several tokens has none, and a token that only contains a word, as "Ohio"
    contains "oh", does not count. (The paper takes every token that contains a word,
    and removes the wrong ones by hand.)

    Args:
      tokenizer: the model's tokenizer.
      words: the words; those of NoWait by default.

    Returns:
      Token ids, in increasing order.

    Raises:
      ValueError: if no token spells any of the words.

    References:
      Wang et al., "Wait, We Don't Need to 'Wait'! Removing Thinking Tokens Improves
      Reasoning Efficiency", 2025, arXiv 2506.08343.
    """
    wanted = {word.casefold() for word in words}
    found = [
        number
        for number in range(tokenizer.vocab_size)
        if _EDGES.sub("", tokenizer.decode([number])).casefold() in wanted
    ]
    if not found:
        raise ValueError(
            f"words: expected at least one that is a single token, got {tuple(words)}"
        )
    return found


def no_wait(
    ids: Sequence[int], vocab_size: int, *, end_id: int | None = None
) -> Partial:
    """A processor that suppresses reflection words.

    Args:
      ids: the tokens to suppress; `reflection_ids` finds those of a tokenizer.
      vocab_size: size of the vocabulary.
      end_id: token that ends the thought; the answer after it is left alone. By default
        the words are suppressed everywhere.

    Returns:
      The processor.

    Raises:
      ValueError: if there are no tokens, one is not in the vocabulary, or they are the
        whole vocabulary.

    References:
      Wang et al., "Wait, We Don't Need to 'Wait'! Removing Thinking Tokens Improves
      Reasoning Efficiency", 2025, arXiv 2506.08343.
    """
    member = np.zeros(vocab_size, bool)
    for token in ids:
        member[_checked(token, vocab_size, "ids")] = True
    if not member.any() or member.all():
        raise ValueError(
            f"ids: expected some of the {vocab_size} tokens, got {int(member.sum())}"
        )
    # No token is -1, so that the thought never ends.
    end = -1 if end_id is None else _checked(end_id, vocab_size, "end_id")
    return Partial(_without, jnp.asarray(member), jnp.asarray(end))


def budget_forcing(
    end_id: int,
    wait_id: int,
    *,
    waits: int,
    max_tokens: int,
    vocab_size: int,
    temperature: float | int = 1.0,
) -> Partial:
    """A processor that keeps a thought between a number of waits and a length.

    While the thought has fewer than ``waits`` wait tokens, the probability of the end
    token is added to that of the wait token: ``z_wait = T log(exp(z_wait / T) +
    exp(z_end / T))``, ``z_end = -inf``. At temperature T this is the same distribution
    as drawing a token and replacing a drawn end by a wait; in the limit T = 0 it is
    ``max(z_wait, z_end)``, the greedy choice with the same replacement. Top-k, top-p
    and min-p cut the new distribution, not the old one. Once ``max_tokens`` tokens have
    been drawn without an end, the end is drawn. After the end nothing is changed.

    All wait tokens count, forced or not; see the module's docstring.

    Args:
      end_id: token that ends the thought. The prompt has opened the thought, so that
        all tokens before the end are thought.
      wait_id: token that continues it.
      waits: wait tokens that a thought must have before it may end, at least 0.
      max_tokens: longest thought, in tokens without the end, at least 0.
      vocab_size: size of the vocabulary.
      temperature: of the sampling; 0 for greedy decoding.

    Returns:
      The processor.

    Raises:
      ValueError: if a token is not in the vocabulary, both are the same, or a number is
        negative.

    References:
      Muennighoff et al., "s1: Simple test-time scaling", 2025, arXiv 2501.19393,
      section 3.1.
    """
    _checked(end_id, vocab_size, "end_id")
    _checked(wait_id, vocab_size, "wait_id")
    if end_id == wait_id:
        raise ValueError(f"wait_id: expected another token than end_id, got {wait_id}")
    numbers = {"waits": waits, "max_tokens": max_tokens, "temperature": temperature}
    for name, value in numbers.items():
        if not value >= 0:
            raise ValueError(f"{name}: expected at least 0, got {value}")
    # A thought has fewer tokens than the largest number of 32 bits.
    waits, max_tokens = (min(each, 2**31 - 1) for each in (waits, max_tokens))
    # All are arrays, so that other numbers compile nothing.
    integers = (jnp.asarray(each) for each in (end_id, wait_id, waits, max_tokens))
    return Partial(_forced, *integers, jnp.asarray(temperature, jnp.float32))


def _without(
    member: Bool[Array, " vocabulary"],
    end: Int[Array, ""],
    logits: Float[Array, "batch vocabulary"],
    progress: Progress,
) -> Float[Array, "batch vocabulary"]:
    over = _seen(progress, end) > 0
    return jnp.where(member & ~over[:, None], -jnp.inf, logits)


def _forced(
    end: Int[Array, ""],
    wait: Int[Array, ""],
    waits: Int[Array, ""],
    max_tokens: Int[Array, ""],
    temperature: Float[Array, ""],
    logits: Float[Array, "batch vocabulary"],
    progress: Progress,
) -> Float[Array, "batch vocabulary"]:
    over = _seen(progress, end) > 0
    short = ~over & (_seen(progress, wait) < waits)
    full = ~over & (progress.step >= max_tokens)
    z_end, z_wait = jnp.take(logits, end, axis=1), jnp.take(logits, wait, axis=1)
    scale = jnp.where(temperature == 0, 1.0, temperature)
    both = scale * jnp.logaddexp(z_end / scale, z_wait / scale)
    both = jnp.where(temperature == 0, jnp.maximum(z_end, z_wait), both)
    ids = jnp.arange(logits.shape[1])
    moved = jnp.where(ids == wait, both[:, None], logits)
    moved = jnp.where(ids == end, -jnp.inf, moved)
    logits = jnp.where(short[:, None], moved, logits)
    # A constant, since another processor may have forbidden the end.
    only_end = jnp.where(ids == end, 0.0, -jnp.inf)
    return jnp.where(full[:, None], only_end, logits)


def _seen(progress: Progress, token: Int[Array, ""]) -> Int[Array, " batch"]:
    """How often each row has drawn a token."""
    drawn = jnp.arange(progress.tokens.shape[1]) < progress.step
    return jnp.sum((progress.tokens == token) & drawn, axis=1)


def _checked(token: int, vocab_size: int, name: str) -> int:
    if not 0 <= token < vocab_size:
        raise ValueError(f"{name}: expected a token below {vocab_size}, got {token}")
    return operator.index(token)
