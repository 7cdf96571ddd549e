"""Prompt-based branches: token budgets, and thought only where it is needed."""

import numpy as np

from jeff_llm.reasoning import arithmetic, probing
from train_scripts.reasoning import small
from train_scripts.reasoning.branches.bench import STOP, Bench, Point, point, sampled

__all__ = ["prompts"]

_BUDGETS = (24, 40, 64, 88)


def prompts(bench: Bench) -> dict[str, Point]:
    """Budgets in the prompt, and thought only where the direct answer is unsure.

    Args:
      bench: what all branches share.

    Returns:
      Points by name.
    """
    points = {
        f"budget {tokens}": sampled(
            bench.base, arithmetic.with_budget(bench.test, tokens), bench.key(5)
        )
        for tokens in _BUDGETS
    }
    none: list[list[int]] = [[] for _ in bench.test.prompts]
    direct = probing.probe(
        bench.base,
        bench.test.prompts,
        none,
        small.MARKERS,
        max_answer_tokens=2,
        places=[[0]] * len(none),
        stop_ids=STOP,
        batch_size=512,
    )
    sure = direct.confidence[:, :1] > 0.9
    given = direct.answers[:, 0, 0] - arithmetic.encode("0")[0]
    right = np.where(sure, (given == bench.test.answer)[:, None], bench.pool.correct)
    length = direct.lengths[:, :1] + np.where(sure, 0, bench.pool.length)
    points["think if unsure"] = point(right, length)
    return points
