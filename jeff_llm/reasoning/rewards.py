"""Length rewards for reinforcement learning, each one published formula on arrays.

All take flat arrays over samples: whether each is ``correct``, its ``length`` in
tokens, and for some the ``group``, any integers that say which samples share a prompt.
They need nothing else of jeff, take numpy and JAX arrays, and work inside jit, so they
serve any trainer.

`rewards_group` compares the samples of a prompt with each other or with a reference,
`rewards_target` asks for a length, `rewards_budget` sets a limit.
"""

from jeff_llm.reasoning.rewards_budget import (
    dast,
    soft_overlong,
    thinkprune,
    thinkprune_limit,
    truncation,
)
from jeff_llm.reasoning.rewards_group import (
    adaptive_length_penalty,
    arora_zanette,
    cosine,
    kimi,
    o1_pruner,
)
from jeff_llm.reasoning.rewards_target import l1_exact, l1_max, laser, laser_target

__all__ = [
    "adaptive_length_penalty",
    "arora_zanette",
    "cosine",
    "dast",
    "kimi",
    "l1_exact",
    "l1_max",
    "laser",
    "laser_target",
    "o1_pruner",
    "soft_overlong",
    "thinkprune",
    "thinkprune_limit",
    "truncation",
]
