"""A small head over sentence embeddings, trained on turns of conversations.

The question of the paper on a scale where it can be decided: the same head is trained
to recognise the next turn of dialogues, monologues or multiple-choice questions made
from the same items, and then chooses evidence. It costs seconds, so every item can be
tested.

The head scores a candidate turn after the turns before it:
``scale * (sum_i mix_i c_i + W c) . s``, where ``s`` is the candidate's embedding, ``c``
joins the mean, the last and the first embedding of the turns so far, and ``W`` has a
low rank. Untrained it is the cosine to the mean.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jeff_llm.clinic.choosing import Choices
from jeff_llm.clinic.maze import Maze
from jeff_llm.clinic.prompts import ROUNDS

__all__ = ["Head", "Pairs", "Vectors", "choose", "init", "next_turns", "score", "train"]

Vectors: TypeAlias = Mapping[str, Float[np.ndarray, " width"]]
_PARTS = 3  # mean, last and first of the turns so far


class Head(NamedTuple):
    """Parameters of the head.

    Attributes:
      mix: weights of mean, last and first embedding, [3].
      down: [3 width, rank].
      up: [rank, width].
      scale: inverse temperature, a scalar.
    """

    mix: Float[Array, " parts"]
    down: Float[Array, "context rank"]
    up: Float[Array, "rank width"]
    scale: Float[Array, ""]


class Pairs(NamedTuple):
    """Turns, each with what was said before.

    Attributes:
      contexts: [pairs, 3 width].
      targets: embedding of the next turn, [pairs, width].
      texts: number of the turn's text; turns of one text are not told apart.
      items: number of the conversation.
    """

    contexts: Float[np.ndarray, "pairs context"]
    targets: Float[np.ndarray, "pairs width"]
    texts: Int[np.ndarray, " pairs"]
    items: Int[np.ndarray, " pairs"]


def init(width: int, *, rank: int = 16, key: PRNGKeyArray) -> Head:
    """An untrained head: the cosine to the mean of the turns so far.

    Args:
      width: of the embeddings.
      rank: of the trained part.
      key: random key.

    Returns:
      The head.
    """
    if width < 1 or rank < 1:
        raise ValueError(f"width, rank: expected at least 1, got {width}, {rank}")
    return Head(
        jnp.eye(_PARTS)[0],
        jax.random.normal(key, (_PARTS * width, rank)) / np.sqrt(_PARTS * width),
        jnp.zeros((rank, width)),
        jnp.array(10.0),
    )


def score(
    head: Head,
    context: Float[Array | np.ndarray, "*batch context"],
    candidates: Float[Array | np.ndarray, "candidates width"],
) -> Float[Array, "*batch candidates"]:
    """Score candidates for the next turn.

    Args:
      head: the head.
      context: what was said before, as in `Pairs`.
      candidates: their embeddings.

    Returns:
      Logits.
    """
    context = jnp.asarray(context)
    parts = context.reshape(*context.shape[:-1], _PARTS, -1)
    query = jnp.einsum("...pw,p->...w", parts, head.mix)
    return head.scale * (query + context @ head.down @ head.up) @ candidates.T


def next_turns(conversations: Sequence[Sequence[str]], vectors: Vectors) -> Pairs:
    """Pairs of every turn but the first with the turns before it.

    Args:
      conversations: turns of each, at least two.
      vectors: embedding of each turn, of unit length.

    Returns:
      The pairs, conversation by conversation.

    Raises:
      ValueError: if no conversation has two turns.
    """
    contexts, targets, texts, items = [], [], [], []
    numbers: dict[str, int] = {}
    for item, turns in enumerate(conversations):
        for place in range(1, len(turns)):
            contexts.append(_context(turns[:place], vectors))
            targets.append(vectors[turns[place]])
            texts.append(numbers.setdefault(turns[place], len(numbers)))
            items.append(item)
    if not contexts:
        raise ValueError("conversations: expected one of at least two turns, got none")
    return Pairs(
        np.stack(contexts),
        np.stack(targets),
        np.array(texts, np.int32),
        np.array(items, np.int32),
    )


def train(
    head: Head,
    pairs: Pairs,
    *,
    num_steps: int,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    key: PRNGKeyArray,
) -> tuple[Head, Float[Array, " steps"]]:
    """Train the head to tell the next turn from the other turns of the batch.

    ``loss = -mean_i log softmax_j(score(context_i, turn_j))_i``. A batch takes whole
    conversations where they fit, so the turns of one conversation are told apart too.
    Pure: safe under jit with static options.

    Args:
      head: from `init`.
      pairs: from `next_turns`.
      num_steps: optimiser steps (AdamW).
      batch_size: pairs of a step.
      learning_rate: of the optimiser.
      key: random key of the batches.

    Returns:
      The trained head, and the loss of each step.

    References:
      Henderson et al., "Efficient Natural Language Response Suggestion for Smart
      Reply", 2017 (softmax over the responses of the batch).
    """
    optimizer = optax.adamw(learning_rate, weight_decay=0.01)
    contexts, targets, texts, items = map(jnp.asarray, pairs)

    def loss(head: Head, rows: Array) -> Array:
        logits = score(head, contexts[rows], targets[rows])
        same = texts[rows][:, None] == texts[rows][None]
        # An equal turn elsewhere in the batch is no wrong answer.
        logits = jnp.where(same & ~jnp.eye(len(rows), dtype=bool), -1e9, logits)
        labels = jnp.arange(len(rows))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(
        state: tuple[Head, optax.OptState], key: PRNGKeyArray
    ) -> tuple[tuple[Head, optax.OptState], Array]:
        head, moments = state
        value, slope = jax.value_and_grad(loss)(head, _rows(items, batch_size, key))
        updates, moments = optimizer.update(slope, moments, head)
        return (jax.tree.map(jnp.add, head, updates), moments), value

    keys = jax.random.split(key, num_steps)
    (head, _), losses = jax.lax.scan(step, (head, optimizer.init(head)), keys)
    return head, losses


def choose(
    head: Head, mazes: Sequence[Maze], vectors: Vectors, *, rounds: str = "several"
) -> Choices:
    """Choose evidence with a head.

    The turns so far are the background, and in several rounds the picks. Question and
    answer are left out: each form has them at another place.

    Args:
      head: the head.
      mazes: the tasks.
      vectors: embedding of every text of the mazes.
      rounds: "one" takes the sentences by falling score, "several" takes the best and
        scores the others anew.

    Returns:
      The choices, in the order of the mazes.

    Raises:
      ValueError: if ``rounds`` is unknown.
    """
    if rounds not in ROUNDS:
        raise ValueError(f"rounds: expected one of {ROUNDS}, got {rounds!r}")
    picks, probability = [], []
    head = jax.tree.map(np.asarray, head)
    for maze in mazes:
        candidates = np.stack([vectors[each] for each in maze.listed])
        own, shares = _choose(head, maze, candidates, vectors, rounds)
        picks.append(own)
        probability.append(shares)
    return Choices(picks, probability)


def _choose(
    head: Head,
    maze: Maze,
    candidates: np.ndarray,
    vectors: Vectors,
    rounds: str,
) -> tuple[list[int], list[float]]:
    picks: list[int] = []
    shares: list[float] = []
    for _ in maze.gold:
        told = picks if rounds == "several" else []
        said = [maze.item.background, *(maze.listed[place] for place in told)]
        context = _context(said, vectors)
        logits = _score_on_host(head, context, candidates)
        logits[picks] = -np.inf
        share = np.exp(logits - logits.max())
        picks.append(int(np.argmax(logits)))
        shares.append(float(share[picks[-1]] / share.sum()))
    return picks, shares


def _score_on_host(
    head: Head, context: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
    """`score` by numpy: thousands of products are too small to be sent to a device."""
    query = head.mix @ context.reshape(_PARTS, -1) + context @ head.down @ head.up
    return np.asarray(head.scale * candidates @ query)


def _context(turns: Sequence[str], vectors: Vectors) -> np.ndarray:
    rows = np.stack([vectors[turn] for turn in turns])
    return np.concatenate([rows.mean(0), rows[-1], rows[0]])


def _rows(items: Array, batch_size: int, key: PRNGKeyArray) -> Array:
    """Rows of one batch: conversations in random order, cut where it is full."""
    order = jax.random.uniform(key, (items.shape[0],))[items]
    # One random number a conversation keeps its rows together.
    return jnp.argsort(order, stable=True)[: min(batch_size, items.shape[0])]
