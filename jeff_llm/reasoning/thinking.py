"""Drivers that let a model think and answer, each a few batched calls of `generate`.

All work on token ids, so the model needs no tokenizer. `jeff_llm.reasoning.chains` has
the parts of a chain and the tokens that mark them.

`jeff_llm.reasoning.probing` looks at the answers along a chain, and
`jeff_llm.reasoning.exiting` stops it early.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Int, Key

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

__all__ = [
    "Markers",
    "Thoughts",
    "force_budget",
    "no_thinking",
    "think",
]


def think(
    model: LanguageModel,
    prompts: Sequence[batching.Prompt],
    markers: Markers,
    *,
    max_thought_tokens: int,
    max_answer_tokens: int,
    sampling: Sampling = GREEDY,
    keys: Key[Array, "..."] | None = None,
    processors: Sequence[Processor] = (),
    stop_ids: Sequence[int] | None = None,
    batch_size: int = 128,
) -> Thoughts:
    """Let a model think, close the thought, and let it answer.

    Args:
      model: the model.
      prompts: texts or token ids.
      markers: tokens that mark the parts.
      max_thought_tokens: longest thought; a longer one is closed by force. At least 1.
      max_answer_tokens: longest answer, its end token included.
      sampling: temperature and cuts; greedy by default.
      keys: one random key, or one per prompt; needed unless greedy. A chain depends
        only on its key and prompt.
      processors: change the logits of the thought; see `jeff_llm.reasoning.decoding`.
      stop_ids: tokens that end an answer; the model's own by default.
      batch_size: chains at a time.

    Returns:
      The chains, in the order of the prompts.

    Raises:
      ValueError: if a prompt and its chain do not fit into the model's context, or as
        `jeff_llm.generate.generate`.
    """
    room = max_thought_tokens + len(markers.close) + max_answer_tokens
    rows = opened(model, prompts, markers, room=room)
    ends = thought_ends(model, markers, stop_ids)
    keys = row_keys(keys, len(rows))
    thought = continue_rows(
        model,
        rows,
        max_new_tokens=max_thought_tokens,
        stop_ids=ends,
        sampling=sampling,
        keys=stage_keys(keys, 0),
        processors=processors,
        batch_size=batch_size,
    )
    return finish(
        model,
        rows,
        thought.tokens,
        _own_end(thought.ends, markers),
        markers,
        max_answer_tokens=max_answer_tokens,
        sampling=sampling,
        keys=stage_keys(keys, 1),
        stop_ids=stop_ids,
        batch_size=batch_size,
    )


def no_thinking(
    model: LanguageModel,
    prompts: Sequence[batching.Prompt],
    markers: Markers,
    *,
    max_answer_tokens: int,
    thought: Sequence[int] = (),
    sampling: Sampling = GREEDY,
    keys: Key[Array, "..."] | None = None,
    stop_ids: Sequence[int] | None = None,
    batch_size: int = 128,
) -> Thoughts:
    """Answer after a finished thought that the model did not write.

    Args:
      model: the model.
      prompts: texts or token ids.
      markers: tokens that mark the parts.
      max_answer_tokens: longest answer, its end token included.
      thought: the thought, such as "Okay, I think I have finished thinking."; empty by
        default.
      sampling: as in `think`.
      keys: as in `think`.
      stop_ids: as in `think`.
      batch_size: as in `think`.

    Returns:
      The chains; ``closed`` is false.

    Raises:
      ValueError: as `think` does.

    References:
      Ma et al., "Reasoning Models Can Be Effective Without Thinking", 2025, arXiv
      2504.09858.
    """
    room = len(thought) + len(markers.close) + max_answer_tokens
    rows = opened(model, prompts, markers, room=room)
    keys = row_keys(keys, len(rows))
    return finish(
        model,
        rows,
        [[int(token) for token in thought] for _ in rows],
        np.zeros(len(rows), bool),
        markers,
        max_answer_tokens=max_answer_tokens,
        sampling=sampling,
        keys=stage_keys(keys, 1),
        stop_ids=stop_ids,
        batch_size=batch_size,
    )


def force_budget(
    model: LanguageModel,
    prompts: Sequence[batching.Prompt],
    markers: Markers,
    *,
    waits: int,
    max_thought_tokens: int,
    max_answer_tokens: int,
    sampling: Sampling = GREEDY,
    keys: Key[Array, "..."] | None = None,
    processors: Sequence[Processor] = (),
    stop_ids: Sequence[int] | None = None,
    batch_size: int = 128,
) -> Thoughts:
    """Budget forcing: ignore the end of a thought some times, and force it at a cap.

    Each time the model ends its thought, the end is replaced by ``markers.wait``, up to
    ``waits`` times; at ``max_thought_tokens`` the thought is closed by force. Only
    forced waits are counted, not those that the model writes by itself.

    Args:
      model: the model.
      prompts: texts or token ids.
      markers: tokens that mark the parts; ``wait`` is needed unless ``waits`` is 0.
      waits: ends that are replaced, at least 0.
      max_thought_tokens: longest thought, waits included.
      max_answer_tokens: longest answer, its end token included.
      sampling: as in `think`.
      keys: as in `think`.
      processors: as in `think`; each segment between two waits is a new generation.
      stop_ids: as in `think`.
      batch_size: as in `think`.

    Returns:
      The chains.

    Raises:
      ValueError: if ``waits`` is negative, there is nothing to wait with, or as `think`
        does.

    References:
      Muennighoff et al., "s1: Simple test-time scaling", 2025, arXiv 2501.19393,
      section 3.1.
    """
    if waits < 0:
        raise ValueError(f"waits: expected at least 0, got {waits}")
    if waits and not markers.wait:
        raise ValueError("markers.wait: expected at least one token, got none")
    room = max_thought_tokens + len(markers.close) + max_answer_tokens
    rows = opened(model, prompts, markers, room=room)
    keys = row_keys(keys, len(rows))
    thoughts: list[list[int]] = [[] for _ in rows]
    closed, active = np.zeros(len(rows), bool), list(range(len(rows)))
    for segment in range(waits + 1):
        if not active:
            break
        found = continue_rows(
            model,
            [rows[row] + thoughts[row] for row in active],
            max_new_tokens=max_thought_tokens - min(len(thoughts[r]) for r in active),
            stop_ids=thought_ends(model, markers, stop_ids),
            sampling=sampling_of(sampling, active),
            keys=stage_keys(keys, segment, active),
            processors=processors,
            batch_size=batch_size,
        )
        own = _own_end(found.ends, markers)
        waiting = []
        for row, new, ended, natural in zip(
            active, found.tokens, found.ends >= 0, own, strict=True
        ):
            # Rows share one limit; those with less room left are cut to theirs.
            written = thoughts[row] + new
            full = len(written) > max_thought_tokens or not ended
            if not full and segment < waits:
                written += markers.wait
                waiting.append(row)
            closed[row] = not full and segment == waits and natural
            thoughts[row] = written[:max_thought_tokens]
        active = [r for r in waiting if len(thoughts[r]) < max_thought_tokens]
    return finish(
        model,
        rows,
        thoughts,
        closed,
        markers,
        max_answer_tokens=max_answer_tokens,
        sampling=sampling,
        keys=stage_keys(keys, waits + 1),
        stop_ids=stop_ids,
        batch_size=batch_size,
    )


def _own_end(ends: Int[np.ndarray, " rows"], markers: Markers) -> np.ndarray:
    """Whether the model ended a thought, rather than the whole text."""
    return np.isin(ends, markers.ends or markers.close[:1])
