"""Trial answers along a chain of thought, and chains that stop at one.

A probe cuts a thought, closes it, and decodes an answer greedily. `probe` does this at
many places of finished chains and returns arrays for the rules of
`jeff_llm.reasoning.stopping`; `stop` reads off what a rule would have saved. Since a
rule never looks at later probes, this equals `think_until`, which applies the rule
while the chains are written. Finished chains can be judged by many rules at no cost.

Tokens of probes that did not become the answer are not part of a chain's length. They
are returned beside it as ``cost``.
"""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from jeff_llm.generate import batching
from jeff_llm.generate.sampling import GREEDY, Processor, Sampling
from jeff_llm.models import decoder
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.reasoning import stopping
from jeff_llm.reasoning.continuing import (
    continue_rows,
    row_keys,
    sampling_of,
    stage_keys,
)
from jeff_llm.reasoning.thinking import (
    Markers,
    Thoughts,
    finish,
    opened,
    thought_ends,
)

__all__ = [
    "Read",
    "Rule",
    "Stopped",
    "Trials",
    "probe",
    "stop",
    "think_until",
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


# The trials so far -> index of the probe at which each chain stops, or -1.
Rule: TypeAlias = Callable[[Trials], Int[Array, " chains"]]


class Stopped(NamedTuple):
    """Chains under a stopping rule.

    Attributes:
      answers: tokens of each answer: the trial answer where the rule stopped the chain,
        else the chain's own.
      lengths: tokens of each chain, counted as in `Thoughts`.
      stopped: whether the rule stopped the chain.
      cost: tokens of those probes that did not become the answer.
    """

    answers: list[list[int]]
    lengths: Int[np.ndarray, " chains"]
    stopped: Bool[np.ndarray, " chains"]
    cost: Int[np.ndarray, " chains"]


class _Trial(NamedTuple):
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
    found = []
    for thought in thoughts:
        places = [
            n for n, token in enumerate(thought, 1) if token in markers.transitions
        ]
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
    found = iter(_trials(model, cut, markers, max_answer_tokens, stop_ids, batch_size))
    return _table([[next(found) for _ in cuts] for cuts in places], read)


def stop(
    thoughts: Thoughts, trials: Trials, index: Int[Array | np.ndarray, " chains"]
) -> Stopped:
    """What a rule makes of finished chains.

    Args:
      thoughts: the chains.
      trials: their probes.
      index: probe at which the rule stops each chain, or -1.

    Returns:
      Answers, lengths and cost.

    Raises:
      ValueError: if numbers differ, or a chain has no probe of that index.
    """
    index = np.asarray(index)
    count, chains = len(thoughts.tokens), np.arange(len(thoughts.tokens))
    if index.shape != (count,) or len(trials.where) != count:
        raise ValueError(
            f"index: expected {count} as there are chains, got shape {index.shape} and "
            f"trials of {len(trials.where)}"
        )
    stopped = index >= 0
    for chain in chains[stopped]:
        if not trials.where[chain, index[chain] :][:1].any():
            raise ValueError(
                f"index: expected a probe of chain {chain}, got {index[chain]}"
            )
    # Probes behind the one that stops a chain are never made.
    last = np.where(stopped, index, trials.where.shape[1])
    before = np.arange(trials.where.shape[1]) < last[:, None]
    answers, lengths = list(thoughts.answers), thoughts.lengths.copy()
    for chain in chains[stopped]:
        at = chain, index[chain]
        answers[chain] = [int(t) for t in trials.answers[at] if t >= 0]
        lengths[chain] = trials.places[at] + trials.lengths[at]
    cost = np.sum(trials.lengths * (trials.where & before), axis=1)
    return Stopped(answers, lengths, stopped, cost)


def think_until(
    model: LanguageModel,
    prompts: Sequence[batching.Prompt],
    markers: Markers,
    rule: Rule,
    *,
    max_thought_tokens: int,
    max_answer_tokens: int,
    sampling: Sampling = GREEDY,
    keys: Key[Array, "..."] | None = None,
    processors: Sequence[Processor] = (),
    read: Read | None = None,
    stop_ids: Sequence[int] | None = None,
    batch_size: int = 128,
) -> Stopped:
    """Think, probe behind each transition token, and stop when a rule says so.

    Under greedy decoding this equals `think`, `probe` at ``transition_places(...,
    end=False)`` and `stop`. A thought that ends by itself is answered without a probe.

    Args:
      model: the model.
      prompts: texts or token ids.
      markers: tokens that mark the parts; needs ``transitions``.
      rule: ``trials -> index``, such as ``lambda trials: stopping.deer(
        trials.confidence, trials.where)``. It may look at earlier probes of a chain.
      max_thought_tokens: longest thought.
      max_answer_tokens: longest answer, its end token included.
      sampling: as in `jeff_llm.reasoning.thinking.think`; probes are greedy.
      keys: as in `jeff_llm.reasoning.thinking.think`.
      processors: as in `jeff_llm.reasoning.thinking.think`; each step between two
        transitions is a new generation.
      read: as in `probe`.
      stop_ids: as in `probe`.
      batch_size: as in `probe`.

    Returns:
      The chains.

    Raises:
      ValueError: if there are no transition tokens, or as `probe` does.
    """
    if not markers.transitions:
        raise ValueError("markers.transitions: expected at least one token, got none")
    room = max_thought_tokens + len(markers.close) + max_answer_tokens
    rows = opened(model, prompts, markers, room=room)
    keys = row_keys(keys, len(rows))
    ends = thought_ends(model, markers, stop_ids)
    thoughts: list[list[int]] = [[] for _ in rows]
    records: list[list[_Trial]] = [[] for _ in rows]
    index, active = np.full(len(rows), -1), list(range(len(rows)))
    step = 0
    while active:
        found = continue_rows(
            model,
            [rows[row] + thoughts[row] for row in active],
            max_new_tokens=max_thought_tokens - min(len(thoughts[r]) for r in active),
            stop_ids=[*markers.transitions, *ends],
            sampling=sampling_of(sampling, active),
            keys=stage_keys(keys, step, active),
            processors=processors,
            batch_size=batch_size,
        )
        step += 1
        at_transition = []
        for row, new, end in zip(active, found.tokens, found.ends, strict=True):
            moved = end in markers.transitions
            written = thoughts[row] + new + ([int(end)] if moved else [])
            # Rows share one limit; those with less room left are cut to theirs.
            if moved and len(written) <= max_thought_tokens:
                at_transition.append(row)
            thoughts[row] = written[:max_thought_tokens]
        cut = [(rows[r] + thoughts[r], len(thoughts[r])) for r in at_transition]
        trials = _trials(model, cut, markers, max_answer_tokens, stop_ids, batch_size)
        for row, trial in zip(at_transition, trials, strict=True):
            records[row].append(trial)
        if at_transition:
            found_index = np.asarray(rule(_table(records, read)))
            index[at_transition] = found_index[at_transition]
        active = [
            row
            for row in at_transition
            if index[row] < 0 and len(thoughts[row]) < max_thought_tokens
        ]
    return _answered(
        model,
        rows,
        thoughts,
        _table(records, read),
        index,
        functools.partial(
            finish,
            markers=markers,
            max_answer_tokens=max_answer_tokens,
            stop_ids=stop_ids,
            batch_size=batch_size,
        ),
        sampling,
        stage_keys(keys, step),
    )


def _answered(
    model: LanguageModel,
    rows: list[list[int]],
    thoughts: list[list[int]],
    trials: Trials,
    index: np.ndarray,
    finish: Callable[..., Thoughts],
    sampling: Sampling,
    keys: Key[Array, " chains"] | None,
) -> Stopped:
    """Let the chains answer that no rule has stopped, and put all together."""
    going = np.flatnonzero(index < 0).tolist()
    lengths = np.zeros(len(rows), int)
    answers: list[list[int]] = [[] for _ in rows]
    if going:
        found = finish(
            model,
            [rows[row] for row in going],
            [thoughts[row] for row in going],
            np.zeros(len(going), bool),
            sampling=sampling_of(sampling, going),
            keys=None if keys is None else keys[np.array(going)],
        )
        lengths[going] = found.lengths
        for row, answer in zip(going, found.answers, strict=True):
            answers[row] = answer
    unknown = np.zeros(len(rows), bool)
    chains = Thoughts(thoughts, answers, lengths, unknown, unknown)
    return stop(chains, trials, index)


def _trials(
    model: LanguageModel,
    cut: Sequence[tuple[list[int], int]],
    markers: Markers,
    max_answer_tokens: int,
    stop_ids: Sequence[int] | None,
    batch_size: int,
) -> list[_Trial]:
    """Close cut thoughts, each given with its place, and decode answers greedily."""
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
        _Trial(place, answer, int(extra) + len(answer), log_probs, float(nats))
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


def _table(records: Sequence[Sequence[_Trial]], read: Read | None) -> Trials:
    """Records of each chain as arrays, the number of probes padded to a bucket."""
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
