"""Rows of a call that are generated in groups, and put in order again."""

from collections.abc import Sequence

import jax
import numpy as np

from jeff_llm.generate.decoding import Plan, State

__all__ = ["in_order", "rows_of"]


def rows_of(plan: Plan, group: Sequence[int], padded: int) -> Plan:
    """The plan of some rows.

    Args:
      plan: of all rows.
      group: places of the rows.
      padded: rows of their batch; what fills it copies the last one.

    Returns:
      Their plan.
    """
    places = np.asarray([*group, *[group[-1]] * (padded - len(group))])
    return plan._replace(
        keys=plan.keys[places],
        sampling=jax.tree.map(lambda setting: setting[places], plan.sampling),
    )


def in_order(states: Sequence[State], groups: Sequence[Sequence[int]]) -> State:
    """The states of groups as one, its rows in the order of the prompts.

    Args:
      states: on the host, one per group.
      groups: places of the rows of each.

    Returns:
      The state of all rows; only what is drawn is joined.
    """
    if len(states) == 1:
        return states[0]
    order = np.argsort([place for group in groups for place in group])

    def joined(name: str, axis: int) -> np.ndarray:
        parts = [
            np.take(getattr(state, name), np.arange(len(group)), axis)
            for state, group in zip(states, groups, strict=True)
        ]
        return np.take(np.concatenate(parts, axis), order, axis)

    return states[0]._replace(
        hidden=joined("hidden", 1),
        **{
            name: joined(name, 0)
            for name in ("tokens", "log_probs", "lengths", "finished")
        },
    )
