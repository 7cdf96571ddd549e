"""Strategies that rank a long list by ranking short ones: divide and conquer, others.

A language model that ranks few genes at a time makes fewer mistakes than one that ranks
many, and random groups take the order of the input out of the result. Every strategy
works with any ranker, and `as_ranker` makes a ranker of it.

The groups of one round do not depend on each other and go to the ranker in one call,
those of all permutations together.

References:
  "Survey and Improvement Strategies for Gene Prioritization with Large Language
  Models", 2025, arXiv 2501.18794.
"""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

from jeff.bootstrap import RandomKey
from jeff_llm.genes import strategies
from jeff_llm.genes.ranking import Phenotypes, Ranker, Ranking
from jeff_llm.genes.rounds import Request, check_genes, generator, play
from jeff_llm.genes.strategies import Plan, check_at_least

__all__ = [
    "StrategyRanker",
    "as_ranker",
    "divide_and_conquer",
    "full_list",
    "num_calls",
    "sliding_window",
    "swiss",
]

Points: TypeAlias = Literal["borda", "plackett_luce"]


def full_list(ranker: Ranker, phenotypes: Phenotypes, genes: Sequence[str]) -> Ranking:
    """Rank the whole list at once: the baseline.

    Args:
      ranker: ranks the list.
      phenotypes: of the patient.
      genes: to rank, each once.

    Returns:
      The ranker's own ranking, checked. A single gene takes no call, and scores 0.

    Raises:
      ValueError: if there are no genes or one is listed twice, or the ranker's answer
        is no ranking of them.
    """
    return _played(strategies.whole(), ranker, [(phenotypes, genes)])[0]


def divide_and_conquer(
    ranker: Ranker,
    phenotypes: Phenotypes,
    genes: Sequence[str],
    *,
    group_size: int = 5,
    keep: int = 2,
    permutations: int = 1,
    points: Points = "borda",
    key: RandomKey,
) -> Ranking:
    """Rank random groups, keep the best of each, and repeat until one group is left.

    In a round the genes that are left are shuffled and cut into groups of
    ``group_size``. A last, shorter group of at most ``keep`` genes goes on without a
    call. The order of the last group is the head of the result. Genes that left later
    stand before those that left earlier; of one round, those with a better place in
    their group stand first, and equal places are in random order.

    With several permutations all of it is repeated, and the orders are joined by Borda
    or Plackett-Luce points (`jeff_llm.genes.fusion`); equal points keep the order of
    the first permutation, which is random, never that of the input.

    The best gene comes first if the ranker follows a strict total order.

    Args:
      ranker: ranks each group.
      phenotypes: of the patient.
      genes: to rank, each once.
      group_size: genes of a group, at least 2; 5 or 10 are usual.
      keep: genes that a group keeps, from 1 to ``group_size - 1``.
      permutations: repeats, at least 1.
      points: how the orders of the permutations are joined.
      key: random key; the shuffles depend on it and on the request alone.

    Returns:
      The ranking; its scores are the points.

    Raises:
      ValueError: if there are no genes or one is listed twice, an option is out of its
        range, or the ranker's answer is no ranking of its group.
    """
    plan = strategies.division(
        group_size=group_size, keep=keep, permutations=permutations, points=points
    )
    return _played(plan, ranker, [(phenotypes, genes)], key)[0]


def sliding_window(
    ranker: Ranker,
    phenotypes: Phenotypes,
    genes: Sequence[str],
    *,
    window: int = 10,
    step: int = 5,
) -> Ranking:
    """Re-rank a window that moves from the back of the list to its front.

    A window of the last genes is ranked in place, then the one ``step`` places further
    up, until the front is reached. Up to ``window - step`` genes rise with it from the
    back to the front, so the best gene comes first if the ranker follows a strict total
    order; the tail keeps much of the order of the input. The windows depend on each
    other, so each is a round of its own.

    Args:
      ranker: ranks each window.
      phenotypes: of the patient.
      genes: to rank, each once, best first where an order is known.
      window: genes of a window, at least 2.
      step: places that the window moves, from 1 to ``window - 1``.

    Returns:
      The ranking; scores are minus the ranks.

    Raises:
      ValueError: if there are no genes or one is listed twice, an option is out of its
        range, or the ranker's answer is no ranking of its window.

    References:
      Sun et al., "Is ChatGPT Good at Search? Investigating Large Language Models as
      Re-Ranking Agents", EMNLP 2023, section 3.2.
    """
    plan = strategies.windows(window=window, step=step)
    return _played(plan, ranker, [(phenotypes, genes)])[0]


def swiss(
    ranker: Ranker,
    phenotypes: Phenotypes,
    genes: Sequence[str],
    *,
    rounds: int | None = None,
    key: RandomKey,
) -> Ranking:
    """Compare genes in pairs, each with one that has won as often: a Swiss tournament.

    The first round is drawn at random. A win is a point, and so is a bye, which the
    last gene without one gets where the count is odd. Genes rank by points, then by the
    points of those they met (Buchholz), then at random. `jeff_llm.genes.pairing` says
    who meets whom.

    The best gene comes first after ``ceil(log2(genes))`` rounds if the ranker follows a
    strict total order: undefeated genes meet each other, so each round leaves at most
    the larger half of them.

    Args:
      ranker: ranks each pair.
      phenotypes: of the patient.
      genes: to rank, each once.
      rounds: rounds to play, at least 1; ``ceil(log2(genes))`` by default.
      key: random key; the draws depend on it and on the request alone.

    Returns:
      The ranking; scores are points, and those of the genes met as a fraction below 1.

    Raises:
      ValueError: if there are no genes or one is listed twice, ``rounds`` is not
        positive, or the ranker's answer is no ranking of its pair.
    """
    return _played(
        strategies.tournament(rounds=rounds), ranker, [(phenotypes, genes)], key
    )[0]


def num_calls(count: int, *, group_size: int, keep: int, permutations: int = 1) -> int:
    """How many groups `divide_and_conquer` asks a ranker to rank.

    A round of n genes asks for ``floor(n / g)`` groups, and for the rest r too if
    ``r > q``; ``q floor(n / g) + min(r, q)`` genes go on. The last round has
    ``2 <= n <= g``.

    Args:
      count: genes to rank, at least 1.
      group_size: genes of a group, g.
      keep: genes that a group keeps, q.
      permutations: repeats.

    Returns:
      The number of calls.

    Raises:
      ValueError: if a number is out of its range.

    >>> num_calls(100, group_size=10, keep=2)
    13
    """
    check_at_least(1, count=count)
    strategies.division(
        group_size=group_size, keep=keep, permutations=permutations, points="borda"
    )
    calls = 0
    while count > group_size:
        groups, rest = divmod(count, group_size)
        calls += groups + (rest > keep)
        count = groups * keep + min(rest, keep)
    return permutations * (calls + (count > 1))


@dataclasses.dataclass(frozen=True)
class StrategyRanker:
    """A strategy with its ranker and options, as a ranker; made by `as_ranker`.

    Attributes:
      strategy: a strategy of this module.
      ranker: ranks each group.
      options: the strategy's options by keyword.
    """

    strategy: Callable[..., Ranking]
    ranker: Ranker
    options: dict[str, Any]

    def __call__(self, phenotypes: Phenotypes, genes: Sequence[str], /) -> Ranking:
        """Rank ``genes`` for ``phenotypes`` by the strategy.

        Args:
          phenotypes: of the patient.
          genes: to rank, each once.

        Returns:
          The ranking, with the calls and tokens of all groups.
        """
        return self.strategy(self.ranker, phenotypes, genes, **self.options)

    def many(self, requests: Sequence[Request]) -> list[Ranking]:
        """Rank several requests, round r of all of them in one call of the ranker.

        Args:
          requests: phenotypes and genes of each.

        Returns:
          One ranking per request, equal to those one by one.
        """
        options = dict(self.options)
        key = options.pop("key", None)
        return _played(_PLANS[self.strategy](**options), self.ranker, requests, key)


def as_ranker(
    strategy: Callable[..., Ranking], ranker: Ranker, **options: Any
) -> StrategyRanker:
    """Make a ranker of a strategy, so that strategies and rankers compose.

    Its method ``many`` plays all requests in step. A strategy may stand on another one:
    ``as_ranker(divide_and_conquer, as_ranker(swiss, model, key=a), key=b)``.

    Args:
      strategy: one of the four strategies of this module.
      ranker: ranks each group.
      **options: the strategy's options by keyword, ``key`` among them where it has one.

    Returns:
      The ranker.

    Raises:
      ValueError: if ``strategy`` is none of this module, or an option is out of its
        range.
      TypeError: if an option is unknown, or ``key`` is missing.
    """
    if strategy not in _PLANS:
        raise ValueError(
            f"strategy: expected one of {', '.join(each.__name__ for each in _PLANS)}, "
            f"got {strategy!r}"
        )
    # Binding names a wrong option now, before a model was asked anything.
    bound = inspect.signature(strategy).bind(ranker, Phenotypes(()), [], **options)
    bound.apply_defaults()
    chosen = {name: bound.arguments[name] for name in list(bound.arguments)[3:]}
    _PLANS[strategy](**{k: v for k, v in chosen.items() if k != "key"})
    return StrategyRanker(strategy, ranker, chosen)


def _played(
    plan: Plan,
    ranker: Ranker,
    requests: Sequence[Request],
    key: RandomKey | None = None,
) -> list[Ranking]:
    for _, genes in requests:
        check_genes(genes)
    # Strategies without a key draw nothing, and have no numbers to draw from.
    draws = [() if key is None else (generator(key, *each),) for each in requests]
    started = [
        plan(len(genes), *draw)
        for (_, genes), draw in zip(requests, draws, strict=True)
    ]
    return play(ranker, requests, started)


_PLANS: dict[Callable[..., Ranking], Callable[..., Plan]] = {
    full_list: strategies.whole,
    divide_and_conquer: strategies.division,
    sliding_window: strategies.windows,
    swiss: strategies.tournament,
}
