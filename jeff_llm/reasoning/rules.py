"""The stopping rules to choose from, by name, with one signature for all.

A rule takes answers, and by keyword lengths, the order of finishing and a mask, and
gives a `Vote`. `votes_by_rule` runs several on one log.
"""

import functools
from collections.abc import Callable, Mapping

import jax.numpy as jnp

from jeff_llm.reasoning.votes import Answers, Mask, Numbers, Vote
from jeff_llm.reasoning.voting_adaptive import adaptive_consistency, certaindex_stopping
from jeff_llm.reasoning.voting_parallel import short_m_of_k
from jeff_llm.reasoning.voting_windows import early_stopping, majority_vote

__all__ = ["Rule", "default_rules", "votes_by_rule"]

Rule = Callable[..., Vote]


def default_rules(num_samples: int) -> dict[str, Rule]:
    """Settings of every rule that can save something.

    They depend on the number of samples alone, never on the answers: a guarantee over
    all of them stays valid.

    Args:
      num_samples: samples of a question in the log, at least 1.

    Returns:
      Rules by name, for `votes_by_rule`; none for a single sample.

    Raises:
      ValueError: if there is no sample.

    >>> list(default_rules(4))[:3]
    ['first 1', 'esc 2', 'esc 3']
    """
    if num_samples < 1:
        raise ValueError(f"num_samples: expected at least 1, got {num_samples}")
    rules: dict[str, Rule] = {}
    for count in (1, 3, 5, 10, 20):
        if 2 * count <= num_samples:
            rules[f"first {count}"] = functools.partial(_first, count=count)
    for window in (2, 3, 4, 5, 8):
        if window < num_samples:
            rules[f"esc {window}"] = _in_turn(early_stopping, window=window)
    for threshold in (0.8, 0.9, 0.95, 0.99):
        if num_samples > 2:
            name = f"adaptive {threshold:g}"
            rules[name] = _in_turn(adaptive_consistency, threshold=threshold)
    for threshold in (0.6, 0.8, 1.0):
        for least in (3, 5):
            if least < num_samples:
                name = f"certaindex {threshold:g} of {least}"
                rules[name] = _in_turn(
                    certaindex_stopping, threshold=threshold, least=least
                )
    for finish in (1, 3, 5):
        if finish < num_samples:
            rules[f"short {finish} of k"] = functools.partial(
                short_m_of_k, finish=finish
            )
    return rules


def votes_by_rule(
    answer: Answers,
    rules: Mapping[str, Rule],
    *,
    length: Numbers | None = None,
    order: Numbers | None = None,
    where: Mask | None = None,
) -> dict[str, Vote]:
    """Run rules on the samples of a log.

    Args:
      answer: codes, -1 for none.
      rules: by name, as from `default_rules`.
      length: tokens of each sample, at least 0; ones by default.
      order: rank or time at which each sample finished; its length by default.
      where: False for padding; all samples count by default.

    Returns:
      The votes by name.

    Raises:
      ValueError: as the rules do.
      TypeError: as the rules do.
    """
    given = {"length": length, "order": order, "where": where}
    return {name: rule(answer, **given) for name, rule in rules.items()}


def _in_turn(rule: Rule, **settings: float | int) -> Rule:
    """A rule that draws one sample after the other: no order of finishing."""

    def run(answer: Answers, *, order: Numbers | None = None, **given) -> Vote:
        return rule(answer, **settings, **given)

    return run


def _first(
    answer: Answers,
    *,
    count: int,
    length: Numbers | None = None,
    order: Numbers | None = None,
    where: Mask | None = None,
) -> Vote:
    """The vote of the first few samples, the plain way to save."""
    first = jnp.arange(answer.shape[1]) < count
    kept = first if where is None else first & jnp.asarray(where)
    kept = jnp.broadcast_to(kept, answer.shape)
    return majority_vote(answer, length=length, where=kept)
