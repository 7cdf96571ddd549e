"""Chains of thought that a rule ends early, afterwards or while they are written.

`stop` reads off finished chains and their probes what a rule of
`jeff_llm.reasoning.stopping` would have saved. Since a rule never looks at later
probes, this equals `think_until`, which applies the rule while the chains are written.
One set of finished chains can be judged by many rules at no cost.

Tokens of probes that did not become the answer are not part of a chain's length. They
are returned beside it as ``cost``.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Array, Bool, Int, Key

from jeff_llm.generate import batching
from jeff_llm.generate.sampling import GREEDY, Processor, Sampling
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.reasoning.chains import (
    Markers,
    Thoughts,
    finish,
    opened,
    thought_ends,
)
from jeff_llm.reasoning.continuing import (
    continue_rows,
    row_keys,
    sampling_of,
    stage_keys,
)
from jeff_llm.reasoning.probing import Read, Trial, Trials, arrange, decode_trials

__all__ = ["Rule", "Stopped", "stop", "think_until"]

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
    records: list[list[Trial]] = [[] for _ in rows]
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
        trials = decode_trials(
            model, cut, markers, max_answer_tokens, stop_ids, batch_size
        )
        for row, trial in zip(at_transition, trials, strict=True):
            records[row].append(trial)
        if at_transition:
            found_index = np.asarray(rule(arrange(records, read)))
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
        arrange(records, read),
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
