"""Efficient reasoning: rewards, stopping rules, votes and budgets for thoughts.

Functions of arrays, for any trainer and any log: `rewards`, `advantages` and `losses`
for reinforcement learning, `voting` over samples, `stopping` along a chain, `metrics`,
`selection` and `compression` of training data. `agreement_guarantee` bounds, without
labels, how often a stopping rule departs from the full vote, and `choose_rule` picks
the cheapest rule.

Around a decoder of jeff: `grpo` and `policy` train it, `decoding`, `thinking`,
`probing` and `exiting` control its thoughts, `valve` interpolates long and short
chains, `latent` thinks in hidden states. `ask` samples any chat model until a rule
stops, with the texts of `prompts`. `traces` reads your logs, `arithmetic` is a small
task to try everything on.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that editors know what `__getattr__` brings
    from jeff_llm.reasoning import (
        advantages,
        arithmetic,
        compression,
        curation,
        decoding,
        exiting,
        grpo,
        latent,
        losses,
        metrics,
        policy,
        probing,
        prompts,
        rewards,
        selection,
        stopping,
        thinking,
        traces,
        valve,
        voting,
    )
    from jeff_llm.reasoning.asking import ask
    from jeff_llm.reasoning.evaluation import Scores, evaluate
    from jeff_llm.reasoning.guarantee import (
        Agreement,
        Choice,
        agreement_guarantee,
        choose_rule,
    )

# The module of each function; everything else is a module.
_FUNCTIONS = {
    "Agreement": "guarantee",
    "Choice": "guarantee",
    "Scores": "evaluation",
    "agreement_guarantee": "guarantee",
    "ask": "asking",
    "choose_rule": "guarantee",
    "evaluate": "evaluation",
}

__all__ = [
    "Agreement",
    "Choice",
    "Scores",
    "advantages",
    "agreement_guarantee",
    "arithmetic",
    "ask",
    "choose_rule",
    "compression",
    "curation",
    "decoding",
    "evaluate",
    "exiting",
    "grpo",
    "latent",
    "losses",
    "metrics",
    "policy",
    "probing",
    "prompts",
    "rewards",
    "selection",
    "stopping",
    "thinking",
    "traces",
    "valve",
    "voting",
]


def __getattr__(name: str) -> Any:
    """Load a module, or a function of one, at first use."""
    if name not in __all__:
        raise AttributeError(f"module 'jeff_llm.reasoning' has no attribute {name!r}")
    place = _FUNCTIONS.get(name, name)
    module = importlib.import_module(f"jeff_llm.reasoning.{place}")
    return getattr(module, name) if name in _FUNCTIONS else module
