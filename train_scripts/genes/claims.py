"""Claims of the paper, of its sources and of the goals that a run can test."""

from collections.abc import Mapping

import numpy as np

from configs.genes import Config
from jeff.binomial import upper_bound
from jeff_llm.genes import evaluation
from jeff_llm.genes.evaluation import Evaluation, Interval
from train_scripts.genes.genome import BOTH, ENSEMBLE, Study
from train_scripts.genes.gpt4o import Stored
from train_scripts.genes.sets import ADJUSTED, Sets, most_divided, strategy_names
from train_scripts.genes.solvable import Solvable
from train_scripts.running.claims import above, all_of, at_least, at_most
from train_scripts.running.results import Claim
from train_scripts.running.seeds import seed_key, spread

__all__ = ["PHENOBRAIN", "genome", "gpt4o", "phenobrain", "sets", "solvable"]

# Top 1, 3 and 10 of PhenoBrain's ensemble on the whole public test set.
PHENOBRAIN = (0.304, 0.483, 0.640)
_PURPOSE = 9


def phenobrain(found: Mapping[str, Evaluation]) -> tuple[Claim, ...]:
    """Compare with PhenoBrain's ensemble on its public cases.

    Args:
      found: evaluations of the diagnosis by measure, best first.

    Returns:
      One claim.
    """
    # Chosen on the phenopackets, not on these cases.
    name = next(each for each in (BOTH, ENSEMBLE, *found) if each in found)
    best = found[name]
    shown = (best.top1, best.top3, best.top10)
    return (
        Claim(
            f"PhenoBrain's cases, phenotype only: {_words(name)} is at least as good "
            "as PhenoBrain's own ensemble at top 1, 3 and 10.",
            "ensemble 30.4 / 48.3 / 64.0% among 9,260 diseases",
            " / ".join(f"{100 * each.estimate:.1f}" for each in shown)
            + f"% among more diseases; top 1 {_range(best.top1)}",
            all_of(
                *(
                    at_least([], threshold, ends=(each.low, each.high))
                    for each, threshold in zip(shown, PHENOBRAIN, strict=True)
                )
            ),
        ),
    )


def genome(
    config: Config,
    study: Study,
    full: Mapping[str, Evaluation],
    less: Mapping[str, Evaluation],
) -> tuple[Claim, ...]:
    """Compare with the goal, the first sketch and Exomiser; and show the flattery.

    Args:
      config: settings of the run.
      study: ranks of the cases.
      full: evaluations with all annotations, best first.
      less: evaluations without the own papers; empty if not measured.

    Returns:
      The claims.
    """
    name = next(iter(full))
    top1 = full[name].top1
    out = [
        Claim(
            f"Phenopackets, all annotations: {_words(name)}, the best measure, puts "
            "the gene first in at least 45% of the cases.",
            "goal 45%; Resnik, one way, 38.7%; Exomiser 35.5% (diseases, other cases)",
            _range(top1),
            at_least([], 0.45, ends=(top1.low, top1.high)),
        )
    ]
    if less:
        drop = evaluation.paired_difference(
            study.genes[name],
            study.without[name],
            study.clusters,
            key=seed_key(config.seeds[0], _PURPOSE),
            num_resamples=config.resamples,
        ).top1
        best = next(iter(less))
        out.append(
            Claim(
                "Annotations from the cases' own papers flatter the ontology: without "
                f"them {_words(name)} loses at least 10 points at top 1.",
                "HPO is annotated from the papers of these cases",
                f"{_points(drop)} lost; the best measure then is {_words(best)} with "
                f"{_range(less[best].top1)}",
                at_least([], 0.1, ends=(drop.low, drop.high)),
            )
        )
    return tuple(out)


def gpt4o(found: Stored) -> tuple[Claim, ...]:
    """Fusing the ontology with GPT-4o beats both alone.

    Args:
      found: the measurements.

    Returns:
      One claim per set of annotations.
    """
    out = []
    for name in found.weights:
        gains = [
            found.gains[f"fused, {name} - {part}"]
            for part in (f"ontology, {name}", "GPT-4o, ten languages")
        ]
        shown = "; ".join(
            f"top 1 {_points(each.top1)}, MRR {_points(each.mrr)} over {part}"
            for each, part in zip(gains, ("the ontology", "GPT-4o"), strict=True)
        )
        out.append(
            Claim(
                f"Stored GPT-4o rankings and the ontology ({name}), fused, beat both "
                "alone by more than the interval (MRR of the gene).",
                "goal: beats both",
                shown,
                all_of(
                    *(_positive(each.mrr) for each in gains),
                ),
            )
        )
    return tuple(out)


def solvable(config: Config, found: Mapping[str, Solvable]) -> tuple[Claim, ...]:
    """Labels separate, the probability is calibrated, and the threshold holds.

    Args:
      config: settings of the run.
      found: measurements by set of annotations.

    Returns:
      The claims.
    """
    name, each = list(found.items())[-1]
    area = each.areas["committee of measures"]
    errors = [other.quality.calibration_error for other in found.values()]
    return (
        Claim(
            "Agreement of independent measures separates solved cases from unsolved "
            "ones.",
            "multi-agent labels and HPO classes separate them",
            f"AUROC {area.estimate:.3f} ({area.low:.3f} to {area.high:.3f}), {name}; "
            "mean information of the terms "
            f"{each.areas['mean information content'].estimate:.3f}",
            _positive(_minus(area, 0.5)),
        ),
        Claim(
            "The probability that the top gene is right is calibrated: an error of at "
            "most .05 on genes that it was not trained on.",
            "goal .05",
            ", ".join(
                f"{error:.3f} ({kind})"
                for kind, error in zip(found, errors, strict=True)
            ),
            max(errors) <= 0.05,
        ),
        *(_threshold(config, kind, other) for kind, other in found.items()),
    )


def _threshold(config: Config, name: str, found: Solvable) -> Claim:
    """The guarantee keeps its word on genes that did not set the threshold."""
    count, holds = found.cases, None
    wrong = round(found.held_out * count) if count else 0
    if count:
        high = upper_bound(wrong, count, delta=0.025)
        low = 1 - upper_bound(count - wrong, count, delta=0.025)
        holds = at_most([], config.max_error, ends=(low, high))
    measured = (
        f"{wrong} of {count} answers wrong; {found.answered:.0%} of the cases answered"
        if count
        else "nothing can be proved, so no case is answered"
    )
    return Claim(
        f"Above the threshold at most {config.max_error:.0%} of the answers are wrong, "
        f"on genes that did not set it ({name}).",
        f"guarantee at {1 - config.delta:.0%}",
        measured,
        holds,
    )


def sets(config: Config, found: Sets) -> tuple[Claim, ...]:
    """Accuracy falls with the size of the set, and divide and conquer recovers it.

    Args:
      config: settings of the run.
      found: the measurements.

    Returns:
      The claims that the run's rankers can test.
    """
    ordered = dict.fromkeys(i.ranker for i in found.items if i.kind == "strategy")
    out = [
        _size(config, found, name)
        for name in dict.fromkeys(i.ranker for i in found.items if i.kind == "size")
        if name not in ordered
    ]
    for ranker in ordered:
        out += [_size(config, found, ranker), _recovers(config, found, ranker)]
        out.append(_bias(config, found, ranker))
    return tuple(out)


def _size(config: Config, found: Sets, ranker: str) -> Claim:
    kind = config.distractors[0]
    sizes = sorted(
        i.size for i in found.items if (i.kind, i.ranker) == ("size", ranker)
    )
    small, large = sizes[0], sizes[-1]
    ends = [
        found.values("top1", kind="size", ranker=ranker, distractors=kind, size=size)
        for size in (small, large)
    ]
    return Claim(
        f"{ranker}: accuracy falls as the candidate set grows, from "
        f"{small} to {large} genes (chance {1 / small:.0%} to {1 / large:.0%}).",
        "GPT-4 near 30% at rank 1, lower in larger sets",
        " to ".join(f"{spread(100 * values, 1)}%" for values in ends),
        above(*ends)
        if len(ends[0]) > 1
        else _apart(found, ranker, kind, (small, large)),
    )


def _recovers(config: Config, found: Sets, ranker: str) -> Claim:
    most = most_divided(config, ranker)
    wanted = {"kind": "strategy", "ranker": ranker}
    before = found.values("top1", strategy="full list", **wanted)
    after = found.values("top1", strategy=most, **wanted)
    calls = found.values("calls", strategy=most, **wanted)
    cheapest = _cheapest(config, found, ranker)
    size = next(
        i.size for i in found.items if (i.kind, i.ranker) == ("strategy", ranker)
    )
    return Claim(
        f"{ranker}: {most} is right more often than the full list of {size} genes.",
        "divide and conquer improves accuracy",
        f"{spread(100 * before, 1)} to {spread(100 * after, 1)}% with "
        f"{calls.mean():.0f} calls; {cheapest}",
        above(after, before) if len(after) > 1 else _ranges(found, ranker, most),
    )


def _cheapest(config: Config, found: Sets, ranker: str) -> str:
    """Which strategy is within two points of the best one at the fewest calls."""
    rows = {
        name: (
            found.values("top1", kind="strategy", ranker=ranker, strategy=name).mean(),
            found.values("calls", kind="strategy", ranker=ranker, strategy=name).mean(),
        )
        for name in strategy_names(config, ranker)
    }
    best = max(top1 for top1, _ in rows.values())
    name = min(
        (each for each, (top1, _) in rows.items() if top1 >= best - 0.02),
        key=lambda each: rows[each][1],
    )
    return f"cheapest within 2 points of the best: {name}, {rows[name][1]:.0f} calls"


def _bias(config: Config, found: Sets, ranker: str) -> Claim:
    most = most_divided(config, ranker)
    values = {
        (name, strategy): found.values(
            name, kind="bias", ranker=ranker, strategy=strategy
        )
        for name in ("position", "stability", "popularity")
        for strategy in ("full list", most, most + ADJUSTED)
    }
    known = [values["popularity", each] for each in ("full list", most + ADJUSTED)]
    before, after = (values["position", name] for name in ("full list", most))
    less = np.abs(before), np.abs(after)
    more = values["stability", most], values["stability", "full list"]
    single = len(before) < 2
    return Claim(
        f"{ranker}: {most} lowers the position slope, makes the order more stable, and "
        "with what popularity is worth taken off lowers the popularity bias.",
        "less sensitive to the order of the input and to how well genes are studied",
        f"slope {spread(before)} to {spread(after)}, stability "
        f"{spread(more[1])} to {spread(more[0])}, popularity "
        f"{spread(known[0])} to {spread(values['popularity', most])}, adjusted "
        f"{spread(known[1])}",
        None
        if single
        else all_of(above(*less), above(*more), above(*(abs(x) for x in known))),
    )


def _apart(found: Sets, ranker: str, kind: str, sizes: tuple[int, int]) -> bool | None:
    """With one seed, by the intervals over cases of the smallest and largest set."""
    small, large = (
        Interval(
            *(
                found.values(
                    name, kind="size", ranker=ranker, distractors=kind, size=size
                )[0]
                for name in ("top1", "low", "high")
            )
        )
        for size in sizes
    )
    return True if small.low > large.high else False if small.high < large.low else None


def _ranges(found: Sets, ranker: str, strategy: str) -> bool | None:
    before, after = (
        [
            found.values(name, kind="strategy", ranker=ranker, strategy=each)[0]
            for name in ("low", "high")
        ]
        for each in ("full list", strategy)
    )
    return True if after[0] > before[1] else False if after[1] < before[0] else None


def _positive(difference: Interval) -> bool | None:
    if difference.low > 0:
        return True
    return False if difference.high <= 0 else None


def _minus(interval: Interval, value: float) -> Interval:
    return Interval(*(each - value for each in interval))


def _range(share: Interval) -> str:
    return (
        f"{100 * share.estimate:.1f}% ({100 * share.low:.1f} to {100 * share.high:.1f})"
    )


def _points(difference: Interval) -> str:
    return (
        f"{100 * difference.estimate:.1f} points ({100 * difference.low:.1f} to "
        f"{100 * difference.high:.1f})"
    )


def _words(name: str) -> str:
    return name.replace("_", " ")
