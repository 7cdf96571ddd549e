"""How much a ranking depends on the order of its input and on how well known genes are.

Three measures, each a mean over cases with a 95% bootstrap interval over them, and
`measure`, which asks a ranker for what they need. Bias is measured on non-causal genes
or between orders of one list, so that an accurate ranker is not taken for a biased one.

A case whose measure is not defined is refused, never counted as 0 or passed over.
"""

import functools
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Integer, Real
from scipy.stats import kendalltau, rankdata

from jeff.bootstrap import RandomKey, bootstrap_interval, padded
from jeff_llm.genes.evaluation import Interval
from jeff_llm.genes.ranking import Phenotypes, Ranker, Ranking
from jeff_llm.genes.rounds import Request, ask, check_genes, generator

__all__ = [
    "Bias",
    "Candidates",
    "measure",
    "order_stability",
    "popularity_correlation",
    "position_slope",
]

# One array per case; cases may differ in length.
Numbers: TypeAlias = Sequence[Real[np.ndarray | Array, "..."]]
Flags: TypeAlias = Sequence[Bool[np.ndarray | Array, "..."]]


class Candidates(NamedTuple):
    """Candidate genes of one patient.

    Attributes:
      phenotypes: of the patient.
      genes: candidates, each once.
      causal: position of the causal gene.
      popularity: citations or annotations by position, [genes]; only their order
        counts.
    """

    phenotypes: Phenotypes
    genes: Sequence[str]
    causal: int
    popularity: Real[np.ndarray, " genes"]


class Bias(NamedTuple):
    """The three measures of a ranker.

    Attributes:
      position: `position_slope`; 0 without bias, negative where the front is favoured.
      stability: `order_stability`; 1 where the order of the input has no influence.
      popularity: `popularity_correlation`; 0 without bias, negative where well-known
        genes are favoured.
    """

    position: Interval
    stability: Interval
    popularity: Interval


def position_slope(
    position: Numbers, hit: Flags, *, key: RandomKey, num_resamples: int = 2000
) -> Interval:
    """Slope of the hit at rank 1 over the place of the causal gene in the input.

    ``sum (x - mean x)(h - mean h) / sum (x - mean x)^2``, summed over the orders of all
    cases, with the means of each case. As x goes from 0 to 1, the slope is the change
    of top-1 accuracy from the front of the list to its back. Interval by resampling
    cases; it has no width if all cases have the same slope.

    Args:
      position: place of the causal gene over the last place, in [0, 1], by case and
        order of the list.
      hit: whether the causal gene was first, by case and order of the list.
      key: random key.
      num_resamples: resamples of the cases, at least 1.

    Returns:
      The slope; negative where genes at the front are favoured.

    Raises:
      ValueError: if there are fewer than two cases, lengths differ, or the position is
        the same in all orders of a case.
    """
    _check_cases(position=position, hit=hit)
    sums = []
    for case, (place, first) in enumerate(zip(position, hit, strict=True)):
        x, h = np.asarray(place, np.float64), np.asarray(first, np.float64)
        if x.ndim != 1 or x.shape != h.shape:
            raise ValueError(
                f"hit: expected shape {x.shape} as in position for case {case}, got "
                f"{h.shape}"
            )
        if not len(x) or not np.ptp(x) > 0:
            raise ValueError(
                f"position: expected two or more places of the causal gene, got {x} "
                f"for case {case}"
            )
        x = x - x.mean()
        sums.append([x @ h, x @ x])
    both = np.array(sums).T
    return _interval(both[0], both[1], key, num_resamples)


def order_stability(
    ranks: Numbers, *, key: RandomKey, num_resamples: int = 2000
) -> Interval:
    """Mean Kendall tau between rankings of the same genes from different input orders.

    Over all pairs of orders of a case, then over cases.

    Args:
      ranks: ranks by input order and gene, [orders, genes], for each case; the columns
        are the same genes in all orders.
      key: random key.
      num_resamples: resamples of the cases, at least 1.

    Returns:
      The mean tau, from -1 to 1; 1 where the order of the input has no influence.

    Raises:
      ValueError: if there are fewer than two cases, or a case has fewer than two
        orders, fewer than two genes, or ranks that are all equal.

    References:
      Kendall, "The Treatment of Ties in Ranking Problems", Biometrika 1945 (tau-b).
    """
    _check_cases(ranks=ranks)
    taus = []
    for case, each in enumerate(ranks):
        rows = _rows(each, case, least_rows=2, least_genes=2)
        if (np.ptp(rows, axis=1) == 0).any():
            raise ValueError(
                f"ranks: expected different ranks, got ties in case {case}"
            )
        pairs: list[Any] = [kendalltau(a, b) for a, b in combinations(rows, 2)]
        taus.append(np.mean([pair.statistic for pair in pairs]))
    return _interval(np.array(taus), np.ones(len(taus)), key, num_resamples)


def popularity_correlation(
    ranks: Numbers,
    popularity: Numbers,
    causal: Sequence[int] | Integer[np.ndarray | Array, " cases"],
    *,
    key: RandomKey,
    num_resamples: int = 2000,
) -> Interval:
    """Mean Spearman correlation of rank and popularity among non-causal genes.

    The causal gene is left out: it is ranked first by its merit, and is often well
    known. Over the input orders of a case, then over cases.

    Args:
      ranks: ranks from 1 for the best, by input order and gene, [orders, genes], for
        each case.
      popularity: citations or annotations by gene, [genes], for each case.
      causal: column of the causal gene by case.
      key: random key.
      num_resamples: resamples of the cases, at least 1.

    Returns:
      The mean correlation, from -1 to 1; negative where well-known genes are ranked
      better.

    Raises:
      ValueError: if there are fewer than two cases, lengths differ, or the non-causal
        genes of a case are fewer than two, or all of the same popularity or rank.
    """
    _check_cases(ranks=ranks, popularity=popularity, causal=causal)
    means = []
    for case, each in enumerate(ranks):
        rows = _rows(each, case, least_rows=1, least_genes=3)
        known, own = np.asarray(popularity[case]), int(causal[case])
        _check_popularity(known, own, rows.shape[1], case)
        others = np.arange(rows.shape[1]) != own
        x = rankdata(rows[:, others], axis=1)
        if (np.ptp(x, axis=1) == 0).any():
            raise ValueError(
                f"ranks: expected different ranks, got ties in case {case}"
            )
        y = rankdata(known[others])
        x, y = x - x.mean(1, keepdims=True), y - y.mean()
        means.append(np.mean(x @ y / np.sqrt((x**2).sum(1) * (y @ y))))
    return _interval(np.array(means), np.ones(len(means)), key, num_resamples)


def measure(
    ranker: Ranker,
    cases: Sequence[Candidates],
    *,
    num_shifts: int | None = None,
    num_permutations: int = 5,
    key: RandomKey,
    num_resamples: int = 2000,
) -> Bias:
    """Measure a ranker's bias on shifts and permutations of lists of candidates.

    Each list is shifted cyclically, so that the causal gene stands at evenly spaced
    places while neighbours stay neighbours, and shuffled. The position slope is from
    the shifts, the other two from the permutations. All lists go to the ranker
    together, ``num_shifts + num_permutations`` a case.

    Args:
      ranker: to be measured; a strategy can be one, by `conquer.as_ranker`.
      cases: candidates of each patient.
      num_shifts: shifts of each list, at least 2; every one by default.
      num_permutations: permutations of each list, at least 2.
      key: random key.
      num_resamples: resamples of the cases, at least 1.

    Returns:
      The three measures.

    Raises:
      ValueError: if there are fewer than two cases, a count is too small, a list has
        fewer than three genes or repeats one, or the non-causal genes of a case have
        all the same popularity.
    """
    _check_cases(cases=cases)
    for name, count in (
        ("num_shifts", num_shifts),
        ("num_permutations", num_permutations),
    ):
        if count is not None and count < 2:
            raise ValueError(f"{name}: expected at least 2, got {count}")
    for number, case in enumerate(cases):
        check_genes(case.genes)
        known = np.asarray(case.popularity)
        # Before the ranker, which may be slow and cost money, is asked anything.
        _check_popularity(known, int(case.causal), len(case.genes), number)
    shifts = [_shifts(case, num_shifts) for case in cases]
    shuffles = [_shuffles(case, num_permutations, key) for case in cases]
    orders = [np.concatenate(both) for both in zip(shifts, shuffles, strict=True)]
    rankings = iter(ask(ranker, _requests(cases, orders)))
    position, hit, ranks = [], [], []
    for case, shifted, shuffled in zip(cases, shifts, shuffles, strict=True):
        place = np.argmax(shifted == case.causal, axis=1)
        position.append(place / (len(case.genes) - 1))
        firsts = [next(rankings).order[0] for _ in shifted]
        hit.append(place == firsts)
        ranks.append(np.stack([_ranks(next(rankings), order) for order in shuffled]))
    keys = jax.random.split(key, 3)
    options = {"num_resamples": num_resamples}
    return Bias(
        position_slope(position, hit, key=keys[0], **options),
        order_stability(ranks, key=keys[1], **options),
        popularity_correlation(
            ranks,
            [case.popularity for case in cases],
            [case.causal for case in cases],
            key=keys[2],
            **options,
        ),
    )


def _shifts(case: Candidates, num_shifts: int | None) -> np.ndarray:
    """Positions in the list, by shift and place."""
    count = len(case.genes)
    number = count if num_shifts is None else min(num_shifts, count)
    starts = np.arange(number) * count // number
    return (np.arange(count) + starts[:, None]) % count


def _shuffles(case: Candidates, number: int, key: RandomKey) -> np.ndarray:
    rng = generator(key, case.phenotypes, case.genes)
    return np.stack([rng.permutation(len(case.genes)) for _ in range(number)])


def _requests(
    cases: Sequence[Candidates], orders: Sequence[np.ndarray]
) -> list[Request]:
    requests: list[Request] = []
    for case, all_orders in zip(cases, orders, strict=True):
        for order in all_orders:
            requests.append((case.phenotypes, [case.genes[int(i)] for i in order]))
    return requests


def _ranks(ranking: Ranking, order: np.ndarray) -> np.ndarray:
    """Ranks from 1 by position in the list of the case."""
    ranks = np.empty(len(order), int)
    ranks[order[ranking.order]] = np.arange(1, len(order) + 1)
    return ranks


def _check_cases(**lists: Sequence | np.ndarray | Array) -> None:
    lengths = {name: len(each) for name, each in lists.items()}
    first, wanted = next(iter(lengths.items()))
    for name, length in lengths.items():
        if length != wanted:
            raise ValueError(
                f"{name}: expected {wanted} cases as in {first}, got {length}"
            )
    if wanted < 2:
        raise ValueError(
            f"{first}: expected at least two cases for an interval, got {wanted}"
        )


def _rows(
    each: np.ndarray | Array, case: int, *, least_rows: int, least_genes: int
) -> np.ndarray:
    rows = np.asarray(each, np.float64)
    if rows.ndim != 2 or rows.shape[0] < least_rows or rows.shape[1] < least_genes:
        raise ValueError(
            f"ranks: expected at least {least_rows} orders of {least_genes} genes, got "
            f"shape {rows.shape} for case {case}"
        )
    if not np.isfinite(rows).all():
        raise ValueError(f"ranks: expected finite ranks, got {rows} for case {case}")
    return rows


def _check_popularity(known: np.ndarray, causal: int, count: int, case: int) -> None:
    if known.shape != (count,):
        raise ValueError(
            f"popularity: expected shape ({count},) as of the genes, got {known.shape} "
            f"for case {case}"
        )
    if not 0 <= causal < count:
        raise ValueError(
            f"causal: expected a position from 0 to {count - 1}, got {causal} for case "
            f"{case}"
        )
    others = np.delete(known, causal)
    if len(others) < 2 or not np.ptp(others) > 0:
        raise ValueError(
            "popularity: expected different numbers for the non-causal genes, got "
            f"{others.tolist()} for case {case}; leave the case out"
        )


def _interval(
    part: np.ndarray, whole: np.ndarray, key: RandomKey, num_resamples: int
) -> Interval:
    """Interval of a ratio of sums over the cases; a mean, where the whole is ones."""
    rows = padded(part.astype(np.float32)), padded(whole.astype(np.float32))
    found = _ratio(*rows, jnp.asarray(len(part)), key, num_resamples)
    return Interval(*(float(each) for each in found))


# Compiled once for like numbers of cases.
@functools.partial(jax.jit, static_argnums=4)
def _ratio(
    part: Array, whole: Array, cases: Array, key: RandomKey, num_resamples: int
) -> tuple[Array, Array, Array]:
    return bootstrap_interval(
        lambda part, whole: part.sum() / whole.sum(),
        (part, whole),
        key=key,
        num_samples=num_resamples,
        real=cases,
    )
