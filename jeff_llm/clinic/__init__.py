"""Dialogue tuning, and a benchmark of evidence that cannot be won without reading.

`make_items` cuts questions into items; `make_mazes` hides the evidence of each among
sentences of other patients, all in random order; `evaluate` scores what was picked.
Pick with `choose_by_number` or `choose_by_text` (a local model), `choose_all` (any chat
model), `heads` (a head over sentence embeddings) or `rules` (no model at all): a model
that does not beat the rules has shown nothing. `official` keeps the published
construction, which a rule of positions wins.

`to_dialogue`, `to_multiple_choice` and `to_monologue` turn items into chat messages,
`check` finds facts that were lost or added, `rewrite_all` lets a chat model write the
dialogue, and `write_jsonl` writes what fine-tuning programs read. `read_questions`
reads your own questions, `simulate_questions` makes some from HPO.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that editors know what `__getattr__` brings
    from jeff_llm.clinic import (
        asking,
        choosing,
        dialogue,
        evaluation,
        heads,
        items,
        kinds,
        making,
        maze,
        metrics,
        official,
        picked,
        prompts,
        questions,
        reading,
        replies,
        rewriting,
        rules,
        sentences,
        simulation,
        verbatim,
    )
    from jeff_llm.clinic.asking import choose_all
    from jeff_llm.clinic.choosing import Choices, choose_by_number
    from jeff_llm.clinic.dialogue import (
        Dialogue,
        check,
        to_dialogue,
        to_monologue,
        to_multiple_choice,
        write_jsonl,
    )
    from jeff_llm.clinic.evaluation import (
        Scores,
        evaluate,
        expected_random,
        paired_difference,
        summarise,
    )
    from jeff_llm.clinic.items import Item, Question, make_item, make_items
    from jeff_llm.clinic.making import make_mazes
    from jeff_llm.clinic.maze import Maze, perfect
    from jeff_llm.clinic.questions import read_questions
    from jeff_llm.clinic.reading import choose_by_text
    from jeff_llm.clinic.rewriting import rewrite_all
    from jeff_llm.clinic.sentences import split_sentences
    from jeff_llm.clinic.simulation import simulate_questions

# The module of each function and class; every other name is a module.
_FUNCTIONS = {
    "Choices": "choosing",
    "Dialogue": "dialogue",
    "Item": "items",
    "Maze": "maze",
    "Question": "items",
    "Scores": "evaluation",
    "check": "dialogue",
    "choose_all": "asking",
    "choose_by_number": "choosing",
    "choose_by_text": "reading",
    "evaluate": "evaluation",
    "expected_random": "evaluation",
    "make_item": "items",
    "make_items": "items",
    "make_mazes": "making",
    "paired_difference": "evaluation",
    "perfect": "maze",
    "read_questions": "questions",
    "rewrite_all": "rewriting",
    "simulate_questions": "simulation",
    "split_sentences": "sentences",
    "summarise": "evaluation",
    "to_dialogue": "dialogue",
    "to_monologue": "dialogue",
    "to_multiple_choice": "dialogue",
    "write_jsonl": "dialogue",
}

__all__ = [
    "Choices",
    "Dialogue",
    "Item",
    "Maze",
    "Question",
    "Scores",
    "asking",
    "check",
    "choose_all",
    "choose_by_number",
    "choose_by_text",
    "choosing",
    "dialogue",
    "evaluate",
    "evaluation",
    "expected_random",
    "heads",
    "items",
    "kinds",
    "make_item",
    "make_items",
    "make_mazes",
    "making",
    "maze",
    "metrics",
    "official",
    "paired_difference",
    "perfect",
    "picked",
    "prompts",
    "questions",
    "read_questions",
    "reading",
    "replies",
    "rewrite_all",
    "rewriting",
    "rules",
    "sentences",
    "simulate_questions",
    "simulation",
    "split_sentences",
    "summarise",
    "to_dialogue",
    "to_monologue",
    "to_multiple_choice",
    "verbatim",
    "write_jsonl",
]


def __getattr__(name: str) -> Any:
    """Load a module, or a function of one, at first use."""
    if name not in __all__:
        raise AttributeError(f"module 'jeff_llm.clinic' has no attribute {name!r}")
    place = _FUNCTIONS.get(name, name)
    module = importlib.import_module(f"jeff_llm.clinic.{place}")
    return getattr(module, name) if name in _FUNCTIONS else module


def __dir__() -> list[str]:
    """All public names, also those that are not loaded yet."""
    return sorted(__all__)
