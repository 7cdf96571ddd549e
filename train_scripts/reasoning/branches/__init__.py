"""Every branch of the survey on the small model: accuracy and tokens of each.

A branch is a function of `Bench`, which holds the base of one seed, its test questions
and samples of each. It returns its points on the plane.
"""

from collections.abc import Callable

from configs.reasoning import Config
from train_scripts.reasoning.branches import model, output, prompt
from train_scripts.reasoning.branches.bench import Bench, Point, make_bench

__all__ = ["BRANCHES", "Bench", "Point", "branch_names", "make_bench", "measure"]

BRANCHES: dict[str, Callable[[Bench], dict[str, Point]]] = {
    "base": output.base,
    "votes": output.votes,
    "controls": output.controls,
    "exits": output.exits,
    "prompts": prompt.prompts,
    "selected": model.selected,
    "latent": model.latent,
}
_REWARD = "rl:"


def branch_names(config: Config) -> list[str]:
    """Branches that a configuration measures, in order.

    Args:
      config: settings of the run.

    Returns:
      The names; those of reinforcement learning are ``rl:REWARD``.
    """
    rewards = [f"{_REWARD}{name}" for name in config.rewards]
    return [*(name for name in BRANCHES if name in config.branches), *rewards]


def measure(bench: Bench, branch: str) -> dict[str, Point]:
    """The points of a branch.

    Args:
      bench: what all branches share.
      branch: one of `branch_names`.

    Returns:
      Points by name.
    """
    if branch.startswith(_REWARD):
        return model.reinforced(bench, branch.removeprefix(_REWARD))
    return BRANCHES[branch](bench)
