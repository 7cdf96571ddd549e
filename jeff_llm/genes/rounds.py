"""Plays strategies that rank a list by asking for groups of it, round after round.

A strategy is a generator. It yields the groups of a round, is sent their rankings, and
returns the standing of the whole list. `play` advances many of them in step and sends
all groups of a round to the ranker together, so that permutations, and cases, wait for
a language model at the same time and not one after the other.
"""

from collections.abc import Generator, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer

from jeff.bootstrap import RandomKey
from jeff_llm.chat.totals import total
from jeff_llm.genes.ranking import Phenotypes, Ranker, Ranking, rank_many

__all__ = ["Request", "Rounds", "Standing", "ask", "check_genes", "generator", "play"]

Request: TypeAlias = tuple[Phenotypes, Sequence[str]]


class Standing(NamedTuple):
    """The result of a strategy.

    Attributes:
      order: positions in the list of genes, best first.
      scores: score by position, larger is better.
    """

    order: Integer[np.ndarray, " genes"]
    scores: Float[np.ndarray, " genes"]


Rounds: TypeAlias = Generator[Sequence[np.ndarray], list[Ranking], Standing]


def play(
    ranker: Ranker, requests: Sequence[Request], strategies: Sequence[Rounds]
) -> list[Ranking]:
    """Play one strategy per request, all of them in step.

    Every round is one call of `ask`, with the groups of all strategies that have not
    ended.

    Args:
      ranker: ranks each group.
      requests: phenotypes and genes by strategy.
      strategies: generators that yield groups, arrays of positions in the genes.

    Returns:
      A ranking by request, with the calls and tokens of its groups summed.

    Raises:
      ValueError: if an answer of the ranker is no ranking of its group; see `ask`.
      TypeError: if it is no pair of an order and scores.
    """
    calls = np.zeros(len(requests), int)
    tokens: list[int | None] = [0] * len(requests)
    found: list[Ranking | None] = [None] * len(requests)
    sent: dict[int, list[Ranking]] = {}
    waiting: dict[int, Sequence[np.ndarray]] = {}
    active = list(range(len(requests)))
    while active:
        for case in active:
            try:
                # A generator that has just been made takes None alone.
                waiting[case] = strategies[case].send(sent.get(case))  # pyright: ignore
            except StopIteration as end:
                standing: Standing = end.value
                found[case] = Ranking(
                    standing.order, standing.scores, int(calls[case]), tokens[case]
                )
                waiting.pop(case, None)
        active = list(waiting)
        sent = _round(ranker, requests, waiting)
        for case, rankings in sent.items():
            calls[case] += sum(ranking.calls for ranking in rankings)
            more = (ranking.tokens for ranking in rankings)
            tokens[case] = total((tokens[case], *more))
    return [ranking for ranking in found if ranking is not None]


def ask(ranker: Ranker, requests: Sequence[Request]) -> list[Ranking]:
    """Rank several requests with `rank_many`, and check the answers.

    A ranker that returns a plain pair ``(order, scores)`` counts as one call and no
    tokens each time.

    Args:
      ranker: the ranker.
      requests: phenotypes and genes of each.

    Returns:
      One ranking per request.

    Raises:
      ValueError: if the ranker answers with an order that is no permutation of the
        genes, with scores of another length, or with too few or too many rankings.
      TypeError: if the ranker answers with something else than an order and scores.
    """
    return rank_many(_Checked(ranker), requests)


def generator(
    key: RandomKey, phenotypes: Phenotypes, genes: Sequence[str]
) -> np.random.Generator:
    """Random numbers of one request: from the key and what is asked, nothing else.

    The same request draws the same numbers in any batch; other phenotypes, other genes
    or another order of the genes draw independent ones.

    Args:
      key: random key, typed or raw.
      phenotypes: of the request.
      genes: of the request, in its order.

    Returns:
      A generator of numpy.

    >>> key, who = jax.random.key(0), Phenotypes(("HP:0001250",))
    >>> first, again = (generator(key, who, ["A", "B"]) for _ in range(2))
    >>> bool(first.random() == again.random())
    True
    """
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    data = np.asarray(jax.random.key_data(key) if typed else key).ravel()
    content = repr([list(phenotypes.observed), list(phenotypes.excluded), list(genes)])
    digest = blake2b(content.encode(), digest_size=16).digest()
    return np.random.default_rng([*data.tolist(), *np.frombuffer(digest, "<u4")])


def check_genes(genes: Sequence[str]) -> None:
    """Check that there are genes to rank and that each is listed once.

    Args:
      genes: symbols or ids.

    Raises:
      ValueError: if there are none, or one is listed twice.
      TypeError: if ``genes`` is one string.
    """
    if isinstance(genes, str):
        raise TypeError(f"genes: expected a list of genes, got the string {genes!r}")
    if not len(genes):
        raise ValueError("genes: expected at least one, got none")
    if len(set(genes)) < len(genes):
        seen: set[str] = set()
        twice = next(gene for gene in genes if gene in seen or seen.add(gene))
        raise ValueError(f"genes: expected each gene once, got {twice!r} again")


def _round(
    ranker: Ranker,
    requests: Sequence[Request],
    waiting: dict[int, Sequence[np.ndarray]],
) -> dict[int, list[Ranking]]:
    """Rankings of all groups that are waiting, from one call of `rank_many`."""
    asked = []
    for case, groups in waiting.items():
        phenotypes, genes = requests[case]
        asked += [(phenotypes, [genes[i] for i in group]) for group in groups]
    rankings = iter(ask(ranker, asked) if asked else [])
    return {case: [next(rankings) for _ in groups] for case, groups in waiting.items()}


class _Checked:
    """A ranker whose answers are checked, and may be plain pairs."""

    def __init__(self, ranker: Ranker):
        self.ranker = ranker
        # `rank_many` looks for the method; only a ranker that has it gets it.
        if hasattr(ranker, "many"):
            self.many = self._together

    def __call__(self, phenotypes: Phenotypes, genes: Sequence[str], /) -> Ranking:
        return _checked(self.ranker(phenotypes, genes), len(genes))

    def _together(self, requests: Sequence[Request]) -> list[Ranking]:
        answers = list(self.ranker.many(requests))  # pyright: ignore
        if len(answers) != len(requests):
            raise ValueError(
                f"ranker: expected {len(requests)} rankings of as many requests, got "
                f"{len(answers)}"
            )
        return [
            _checked(answer, len(genes))
            for answer, (_, genes) in zip(answers, requests, strict=True)
        ]


def _checked(answer: Any, count: int) -> Ranking:
    """An answer as a `Ranking`, if it is one of ``count`` genes."""
    try:
        order, scores = np.asarray(answer[0]), np.asarray(answer[1], np.float64)
    except (TypeError, IndexError, ValueError) as error:
        raise TypeError(
            f"ranker: expected an order and scores, got {type(answer).__name__} "
            f"{answer!r}"
        ) from error
    whole = order.ndim == 1 and np.issubdtype(order.dtype, np.integer)
    if not whole or not np.array_equal(np.sort(order), np.arange(count)):
        raise ValueError(
            f"ranker: expected an order with each position from 0 to {count - 1} once, "
            f"got {order.tolist()}"
        )
    if scores.shape != (count,):
        raise ValueError(
            f"ranker: expected {count} scores, one per gene, got shape {scores.shape}"
        )
    # A plain pair says nothing about its cost; it took one request.
    calls, tokens = getattr(answer, "calls", 1), getattr(answer, "tokens", 0)
    return Ranking(order, scores, calls, tokens)
