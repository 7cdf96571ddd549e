"""Trial answers along a chain of thought.

A probe cuts a thought, closes it, and decodes an answer greedily. `probe` does this at
many places of finished chains and returns arrays for the rules of
`jeff_llm.reasoning.stopping`; `jeff_llm.reasoning.exiting` applies the rules.
"""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from jeff_llm.generate import batching
from jeff_llm.models import decoder
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.reasoning import stopping
from jeff_llm.reasoning.chains import Markers, opened
from jeff_llm.reasoning.continuing import continue_rows

__all__ = [
    "Read",
    "Trial",
    "Trials",
    "arrange",
    "decode_trials",
    "probe",
    "transition_places",
]

# Token ids of an answer -> what it says; None if it says nothing.
Read: TypeAlias = Callable[[list[int]], Hashable | None]


class Trials(NamedTuple):
    """Trial answers, [chains, probes].

    Attributes:
      answers: token ids of each trial answer without its end token, padded with -1.
      codes: number of each answer: equal for equal answers, over all chains; -1 where
        there is no answer.
      confidence: `stopping.trial_confidence` of each, in [0, 1].
      geometric: the same with the geometric mean.
      entropy: entropy in nats of the first token after the closed thought.
      lengths: tokens of each probe: closing tokens, answer and its end token.
      places: tokens of thought before each probe.
      where: probes that exist; elsewhere codes are -1 and numbers 0.
    """

    answers: Int[np.ndarray, "chains probes tokens"]
    codes: Int[np.ndarray, "chains probes"]
    confidence: Float[np.ndarray, "chains probes"]
    geometric: Float[np.ndarray, "chains probes"]
    entropy: Float[np.ndarray, "chains probes"]
    lengths: Int[np.ndarray, "chains probes"]
    places: Int[np.ndarray, "chains probes"]
    where: Bool[np.ndarray, "chains probes"]


class Trial(NamedTuple):
    """One trial answer.

    Attributes:
      place: tokens of thought before the probe.
      answer: token ids, without the end token.
      length: tokens of the probe: closing tokens, answer and its end token.
      log_probs: natural log-probability of each token.
      entropy: entropy in nats of the first token.
    """

    place: int
    answer: list[int]
    length: int
    log_probs: np.ndarray
    entropy: float


def transition_places(
    thoughts: Sequence[Sequence[int]], markers: Markers, *, end: bool = True
) -> list[list[int]]:
    """Places behind the transition tokens of thoughts.

    Args:
      thoughts: tokens of each thought.
      markers: gives the transition tokens.
      end: add the end of each thought.

    Returns:
      For each thought, in increasing order, how many of its tokens lie before.

    >>> transition_places([[5, 9, 6]], Markers((), (1,), transitions=(9,)))
    [[2, 3]]
    """
    # A vocabulary may have hundreds of them.
    found, steps = [], frozenset(markers.transitions)
    for thought in thoughts:
        places = [n for n, token in enumerate(thought, 1) if token in steps]
        if end and len(thought) not in places:
            places.append(len(thought))
        found.append(places)
    return found


def probe(
    model: LanguageModel,
    prompts: Sequence[batching.Prompt],
    thoughts: Sequence[Sequence[int]],
    markers: Markers,
    *,
    max_answer_tokens: int,
    places: Sequence[Sequence[int]] | None = None,
    read: Read | None = None,
    stop_ids: Sequence[int] | None = None,
    batch_size: int = 128,
) -> Trials:
    """Trial answers of thoughts that are cut at given places.

    Args:
      model: the model.
      prompts: texts or token ids.
      thoughts: tokens of each thought, as in `Thoughts`.
      markers: tokens that mark the parts.
      max_answer_tokens: longest trial answer, its end token included.
      places: for each thought, in increasing order, the tokens of thought before each
        probe; by default those of `transition_places`.
      read: what an answer says; two answers have one code where it is equal. By default
        the token ids, and an answer without tokens says nothing.
      stop_ids: tokens that end an answer; the model's own by default.
      batch_size: probes at a time.

    Returns:
      The trials.

    Raises:
      ValueError: if numbers differ, a place lies outside its thought, or as
        `jeff_llm.generate.generate`.

    References:
      Yang et al., "Dynamic Early Exit in Reasoning Models", 2025, arXiv 2504.15895;
      Wang et al., "Entropy After </Think> for Reasoning Model Early Exiting", 2025,
      arXiv 2509.26522.
    """
    if places is None:
        places = transition_places(thoughts, markers)
    for name, values in (("thoughts", thoughts), ("places", places)):
        if len(values) != len(prompts):
            raise ValueError(
                f"{name}: expected one for each of {len(prompts)} prompts, got "
                f"{len(values)}"
            )
    for number, (thought, cuts) in enumerate(zip(thoughts, places, strict=True)):
        if any(not 0 <= cut <= len(thought) for cut in cuts):
            raise ValueError(
                f"places: expected numbers from 0 to {len(thought)} for thought "
                f"{number}, got {list(cuts)}"
            )
    longest = max((cut for cuts in places for cut in cuts), default=0)
    room = longest + len(markers.close) + max_answer_tokens
    rows = opened(model, prompts, markers, room=room)
    cut = [
        (row + [int(token) for token in thought[:place]], place)
        for row, thought, cuts in zip(rows, thoughts, places, strict=True)
        for place in cuts
    ]
    found = iter(
        decode_trials(model, cut, markers, max_answer_tokens, stop_ids, batch_size)
    )
    return arrange([[next(found) for _ in cuts] for cuts in places], read)


def decode_trials(
    model: LanguageModel,
    cut: Sequence[tuple[list[int], int]],
    markers: Markers,
    max_answer_tokens: int,
    stop_ids: Sequence[int] | None,
    batch_size: int,
) -> list[Trial]:
    """Close cut thoughts and decode an answer of each greedily.

    Args:
      model: the model.
      cut: rows of opened prompt and cut thought, each with the tokens of thought in it.
      markers: tokens that mark the parts.
      max_answer_tokens: as in `probe`.
      stop_ids: as in `probe`.
      batch_size: as in `probe`.

    Returns:
      A trial for each row.
    """
    if not cut:
        return []
    found = continue_rows(
        model,
        [[*row, *markers.close] for row, _ in cut],
        max_new_tokens=max_answer_tokens,
        stop_ids=model.stop_ids if stop_ids is None else stop_ids,
        with_hidden=True,
        batch_size=batch_size,
    )
    entropy = np.concatenate(
        [
            np.asarray(_entropy(model.config, model.params, jnp.asarray(some)))
            for some in _split(found.hidden, batch_size)
        ]
    )[: len(cut)]
    fixed = len(markers.close) + (found.ends >= 0)
    return [
        Trial(place, answer, int(extra) + len(answer), log_probs, float(nats))
        for (_, place), answer, extra, log_probs, nats in zip(
            cut, found.tokens, fixed, found.log_probs, entropy, strict=True
        )
    ]


def _split(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Rows in parts of one size, filled with zeros: one program for any number."""
    parts = -(-len(rows) // size)
    filled = np.zeros((parts * size, *rows.shape[1:]), rows.dtype)
    filled[: len(rows)] = rows
    return np.split(filled, parts)


@functools.partial(jax.jit, static_argnames="config")
def _entropy(
    config: DecoderConfig, params: PyTree, hidden: Float[Array, "rows width"]
) -> Float[Array, " rows"]:
    """Entropy in nats of the next token, from normalised hidden states."""
    table = params["embedding"]
    hidden = hidden.astype(table.dtype)[:, None]
    if not config.tied:
        logits = hidden @ params["head"]["kernel"]
    elif isinstance(table, jax.Array):
        logits = decoder.unembed(table, hidden)
    else:
        logits = table.unembed(hidden)
    log_prob = jax.nn.log_softmax(logits[:, 0].astype(jnp.float32), axis=-1)
    return -jnp.sum(jax.scipy.special.xlogy(jnp.exp(log_prob), jnp.exp(log_prob)), -1)


def arrange(records: Sequence[Sequence[Trial]], read: Read | None) -> Trials:
    """Trials of each chain as arrays.

    Args:
      records: trials of each chain, in the order of their places.
      read: as in `probe`.

    Returns:
      The arrays, the number of probes padded to a bucket.
    """
    most = max((len(each) for each in records), default=0)
    # Rules are compiled for each number of probes; there are few buckets.
    shape = len(records), batching.bucket(most, smallest=4) if most else 0
    tokens = max((len(t.answer) for each in records for t in each), default=0)
    answers = np.full((*shape, tokens), -1)
    log_probs = np.zeros((*shape, tokens), np.float32)
    codes, seen = np.full(shape, -1), {}
    entropy = np.zeros(shape, np.float32)
    lengths, places = np.zeros(shape, int), np.zeros(shape, int)
    where = np.zeros(shape, bool)
    for chain, each in enumerate(records):
        for number, trial in enumerate(each):
            at = chain, number
            size = len(trial.answer)
            answers[at][:size] = trial.answer
            log_probs[at][:size] = trial.log_probs[:size]
            said = (tuple(trial.answer) or None) if read is None else read(trial.answer)
            if said is not None:
                codes[at] = seen.setdefault(said, len(seen))
            entropy[at], where[at] = trial.entropy, True
            lengths[at], places[at] = trial.length, trial.place
    sure, geometric = (
        np.asarray(
            stopping.trial_confidence(log_probs, answers >= 0, geometric=geometric)
        )
        for geometric in (False, True)
    )
    return Trials(answers, codes, sure, geometric, entropy, lengths, places, where)
