"""Sets of candidate genes: their size and order, and what divide and conquer mends."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.genes import Config
from jeff_llm.genes import bias, candidates, conquer, evaluation, popularity
from jeff_llm.genes.bias import Candidates
from jeff_llm.genes.ranking import Ranker
from jeff_llm.genes.rounds import ask
from train_scripts.genes import models
from train_scripts.genes.data import World
from train_scripts.running import rows
from train_scripts.running.seeds import seed_key

__all__ = ["ADJUSTED", "Item", "Sets", "measure", "most_divided", "strategy_names"]

_PURPOSE = 4
# Cases, and shifts and permutations of each list, for the measures of bias.
_BIAS, _SLOW_BIAS = (None, 5, 4), (6, 3, 2)
# Lists of other cases from which the worth of popularity is learned.
_LEARN = 10
DIVIDED = "divide and conquer x"
ADJUSTED = ", adjusted"


@dataclasses.dataclass(frozen=True)
class Item:
    """One measurement.

    Attributes:
      kind: "size", "strategy" or "bias".
      seed: of the candidate sets and shuffles.
      ranker: name of the ranker.
      distractors: how the wrong candidates were drawn.
      size: candidates of a case.
      strategy: how the list was ranked.
    """

    kind: str
    seed: int
    ranker: str
    distractors: str
    size: int
    strategy: str = "full list"


@dataclasses.dataclass(frozen=True)
class Sets:
    """All measurements.

    Attributes:
      items: what was measured.
      rows: the numbers of each: ``top1``, ``calls`` and ``tokens`` per case, or the
        measures of bias.
      cases: cases of each ranker.
    """

    items: list[Item]
    rows: list[dict[str, float]]
    cases: dict[str, int]

    def values(self, name: str, **wanted: Any) -> np.ndarray:
        """One number by seed.

        Args:
          name: of the number.
          **wanted: values of the item's fields.

        Returns:
          The numbers, in the order of the seeds; empty if nothing fits.
        """
        return np.array(
            [
                row[name]
                for item, row in zip(self.items, self.rows, strict=True)
                if name in row
                and all(getattr(item, key) == value for key, value in wanted.items())
            ]
        )


def measure(
    config: Config, world: World, workdir: Path, *, progress: bool = False
) -> Sets:
    """Rank candidate sets by every ranker, size and strategy.

    Args:
      config: settings of the run.
      world: release of HPO.
      workdir: the run's folder; measured rows are not measured again.
      progress: show a progress bar.

    Returns:
      The measurements.
    """
    rankers = models.Rankers(config, world)
    items = _items(config, rankers)
    counts = dict(
        zip(
            world.hpo.annotations.genes,
            world.popularity.astype(int).tolist(),
            strict=True,
        )
    )

    def one(item: Item) -> dict[str, float]:
        lists = candidates.make_candidates(
            world.hpo,
            rankers.cases[item.ranker],
            item.size,
            kind=item.distractors,
            popularity=counts,
            key=seed_key(item.seed, _PURPOSE),
        )
        learn = candidates.make_candidates(
            world.hpo,
            rankers.others[:_LEARN],
            item.size,
            kind=item.distractors,
            popularity=counts,
            key=seed_key(item.seed, _PURPOSE),
        )
        base = rankers.ranker(item.ranker, item.seed)
        ranker = _strategies(config, base, item, learn, counts)
        if item.kind == "bias":
            return _bias(config, ranker, lists, item)
        return _accuracy(
            config, ranker, lists, rankers.clusters[item.ranker], item.seed
        )

    found = rows.measure_rows(
        workdir, items, one, progress=progress, title="candidate sets", shown="top1"
    )
    return Sets(items, found, {n: len(c) for n, c in rankers.cases.items()})


def _items(config: Config, rankers: "models.Rankers") -> list[Item]:
    items: list[Item] = []
    for ranker in rankers.names:
        for seed in config.seeds[:1] if ranker in models.SLOW else config.seeds:
            for kind in config.distractors:
                most = models.MOST.get(ranker, max(config.sizes))
                items += [
                    Item("size", seed, ranker, kind, size)
                    for size in config.sizes
                    if size <= most
                ]
            if ranker in models.ORDERED:
                items += _strategy_items(config, ranker, seed)
    return items


def _strategy_items(config: Config, ranker: str, seed: int) -> list[Item]:
    slow = ranker in models.SLOW
    size = min(config.strategy_size, models.SLOW_SIZE if slow else 10**9)
    names = strategy_names(config, ranker)
    base = Item("strategy", seed, ranker, config.distractors[0], size)
    most = next(name for name in reversed(names) if name.endswith(ADJUSTED))
    chosen = dict.fromkeys((names[0], most.removesuffix(ADJUSTED), most))
    return [
        *(dataclasses.replace(base, strategy=name) for name in names),
        *(dataclasses.replace(base, kind="bias", strategy=name) for name in chosen),
    ]


def strategy_names(config: Config, ranker: str) -> list[str]:
    """Names of the strategies: the full list first, then divide and conquer.

    Args:
      config: settings of the run.
      ranker: name of the ranker; a slow one has fewer permutations.

    Returns:
      The names.
    """
    counts = list(config.permutations)
    if ranker in models.SLOW:
        counts = [n for n in counts if n <= models.SLOW_PERMUTATIONS] or counts[:1]
    return [
        "full list",
        *(f"{DIVIDED}{count}" for count in counts),
        f"{DIVIDED}{max(counts)}{ADJUSTED}",
        "sliding window",
        "Swiss pairing",
    ]


def most_divided(config: Config, ranker: str) -> str:
    """Name of divide and conquer with the most permutations.

    Args:
      config: settings of the run.
      ranker: name of the ranker.

    Returns:
      The name.
    """
    names = strategy_names(config, ranker)
    return next(n for n in names if n.endswith(ADJUSTED)).removesuffix(ADJUSTED)


def _strategies(
    config: Config,
    ranker: Ranker,
    item: Item,
    learn: Sequence[Candidates],
    counts: Mapping[str, int],
) -> Ranker:
    """The ranker under a strategy; popularity is learned from lists of other cases."""
    key = seed_key(item.seed, _PURPOSE + 1)
    name = item.strategy.removesuffix(ADJUSTED)
    if name.startswith(DIVIDED):
        found: Ranker = conquer.as_ranker(
            conquer.divide_and_conquer,
            ranker,
            group_size=config.group_size,
            keep=config.keep,
            permutations=int(name.removeprefix(DIVIDED)),
            key=key,
        )
    elif name == "sliding window":
        found = conquer.as_ranker(
            conquer.sliding_window,
            ranker,
            window=2 * config.group_size,
            step=config.group_size,
        )
    elif name == "Swiss pairing":
        found = conquer.as_ranker(conquer.swiss, ranker, key=key)
    else:
        found = conquer.as_ranker(conquer.full_list, ranker)
    if name == item.strategy:
        return found
    rankings = ask(found, [(each.phenotypes, list(each.genes)) for each in learn])
    slope = popularity.popularity_slope(rankings, [e.genes for e in learn], counts)
    return popularity.Adjusted(found, counts, slope)


def _accuracy(
    config: Config,
    ranker: Ranker,
    lists: Sequence[Candidates],
    clusters: np.ndarray,
    seed: int,
) -> dict[str, float]:
    found = ask(ranker, [(each.phenotypes, list(each.genes)) for each in lists])
    places = [
        1 + int(np.flatnonzero(ranking.order == each.causal)[0])
        for ranking, each in zip(found, lists, strict=True)
    ]
    top1 = evaluation.evaluate(
        np.array(places, float),
        clusters,
        key=seed_key(seed, _PURPOSE + 2),
        num_resamples=config.resamples,
    ).top1
    return {
        "top1": top1.estimate,
        "low": top1.low,
        "high": top1.high,
        "calls": float(np.mean([ranking.calls for ranking in found])),
        "tokens": float(
            np.mean([math.nan if r.tokens is None else r.tokens for r in found])
        ),
    }


def _bias(
    config: Config, ranker: Ranker, lists: Sequence[Candidates], item: Item
) -> dict[str, float]:
    cases, shifts, permutations = _SLOW_BIAS if item.ranker in models.SLOW else _BIAS
    found = bias.measure(
        ranker,
        lists[:cases],
        num_shifts=shifts,
        num_permutations=permutations,
        key=seed_key(item.seed, _PURPOSE + 3),
        num_resamples=config.resamples,
    )
    return {
        f"{name}{suffix}": getattr(interval, end)
        for name, interval in zip(
            ("position", "stability", "popularity"), found, strict=True
        )
        for suffix, end in (("", "estimate"), ("_low", "low"), ("_high", "high"))
    }
