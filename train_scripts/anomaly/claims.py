"""Claims of the paper and goals that a run can test."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from configs.anomaly import Config
from jeff_llm.anomaly.conformal_simulation import Simulation
from train_scripts.anomaly.collect import FUSIONS, RATIO, Collected
from train_scripts.anomaly.quality import Alarm, Ends, Gain, Quality, difference
from train_scripts.anomaly.selecting import Selection
from train_scripts.running.claims import all_of, at_least, at_most, interval
from train_scripts.running.results import Claim

__all__ = ["alarms", "augmentation", "beats", "made", "selection", "table"]

_RATIO_GOAL, _BEST_GOAL = 0.78, 0.9


def table(
    config: Config,
    collected: Mapping[str, Sequence[Collected]],
    found: Mapping[str, Sequence[Quality]],
) -> tuple[Claim, ...]:
    """Compare zero-shot scorers, detectors and their fusion.

    Args:
      config: settings of the run.
      collected: scores by data set.
      found: figures by data set.

    Returns:
      Claims on SMS spam, and the paper's on zero-shot scorers.
    """
    claims = []
    if "sms_spam" in found:
        rows = {row.method: row for row in found["sms_spam"]}
        claims += _goals(rows)
        claims += _fusion(config, collected["sms_spam"][0])
    claims += _both_lists(config, collected)
    claims += _against_training(config, collected)
    return tuple(claims)


def alarms(found: Mapping[str, Sequence[Alarm]]) -> tuple[Claim, ...]:
    """Check that false alarms stay at or under their level.

    Args:
      found: by data set.

    Returns:
      One claim on false alarms, one on discoveries.
    """
    rows = [row for each in found.values() for row in each if not row.refused]
    if not rows:
        return ()
    above = [row for row in rows if row.false_alarms.low > row.level]
    worst = max(rows, key=lambda row: row.false_alarms.estimate / row.level)
    shares = [row.false_share for row in rows if not np.isnan(row.false_share)]
    claims = [
        Claim(
            "False alarms on held-out normal texts are at or under the level, within "
            "the binomial interval, on every data set.",
            "a guarantee (Bates et al. 2023)",
            f"{len(rows) - len(above)} of {len(rows)}; highest "
            f"{100 * worst.false_alarms.estimate:.2f}% at {worst.level:.0%}",
            not above,
        )
    ]
    if shares:
        claims.append(
            Claim(
                "Benjamini-Hochberg at 10%: on average at most 10% of what is flagged "
                "is a false alarm, on every data set.",
                "a guarantee (Bates et al. 2023)",
                f"highest {100 * max(shares):.1f}% over {len(found)} data sets",
                # 1,000 batches: their mean is known to about half a point.
                bool(max(shares) <= 0.1 + 0.005),
            )
        )
    return tuple(claims)


def made(config: Config, level: float, found: Simulation) -> tuple[Claim, ...]:
    """Check on made data sets that guarantees break as often as they may.

    Args:
      config: settings of the run.
      level: false-alarm rate.
      found: simulated data sets.

    Returns:
      One claim.
    """
    rates = np.asarray(found.conditional_rate)
    broken = int((rates > level).sum())
    tested = stats.binomtest(broken, len(rates))
    ends = tested.proportion_ci(method="exact")
    return (
        Claim(
            f"{len(rates):,} made data sets: a threshold's false-alarm rate exceeds "
            f"{level:.0%} in at most {config.delta:.0%} of them.",
            f"at most {config.delta:.0%}",
            f"{100 * broken / len(rates):.1f}% "
            f"({100 * ends.low:.1f} to {100 * ends.high:.1f})",
            at_most([], config.delta, ends=(ends.low, ends.high)),
        ),
    )


def augmentation(found: Mapping[str, Sequence[Gain]]) -> tuple[Claim, ...]:
    """Check the paper's claim that synthetic texts help.

    Args:
      found: gains by data set.

    Returns:
      One claim per source.
    """
    sources = dict.fromkeys(row.source for rows in found.values() for row in rows)
    claims = []
    for source in sources:
        rows = [row for each in found.values() for row in each if row.source == source]
        better = sum(row.gain.low > 0 for row in rows)
        worse = sum(row.gain.high < 0 for row in rows)
        mean = float(np.mean([row.gain.estimate for row in rows]))
        # Most, beyond the interval: a few are as easily lost as won.
        decided = True if 2 * better > len(rows) else None
        if 2 * worse > len(rows):
            decided = False
        claims.append(
            Claim(
                f"Synthetic texts ({source}) improve most detectors with few texts.",
                "AUROC rises for most detectors (AD-LLM, table 3)",
                f"{better} of {len(rows)} better, {worse} worse beyond the interval; "
                f"mean {mean:+.3f}",
                decided,
            )
        )
    return tuple(claims)


def selection(title: str, found: Selection) -> Claim:
    """Check the paper's claim that a model chooses well.

    Args:
      title: which table was chosen from.
      found: regrets.

    Returns:
      One claim.
    """
    gain = found.baselines.random - found.told
    ends = Ends(float(gain.mean()), *interval(gain))
    return Claim(
        f"{title}: a model that is told the data set's facts chooses a better pair "
        "than chance (SmolLM2).",
        "LLM picks are near the best on average (AD-LLM, section 5)",
        f"regret {found.told.mean():.3f}, random {found.baselines.random.mean():.3f}, "
        f"told nothing {found.control.mean():.3f}, best on the others "
        f"{found.baselines.average.mean():.3f}",
        beats(ends),
    )


def beats(difference: Ends) -> bool | None:
    """Whether a difference lies above 0 beyond its interval.

    Args:
      difference: with its interval.

    Returns:
      True or False beyond the interval; None within it, also where both methods are
      perfect and nothing differs.
    """
    if difference.low > 0:
        return True
    return False if difference.high < 0 else None


def _goals(rows: Mapping[str, Quality]) -> list[Claim]:
    claims = []
    if RATIO in rows:
        first, chosen = rows.get(f"{RATIO}, first descriptions"), rows[RATIO]
        given = "" if first is None else f"; as first given {first.auroc.estimate:.3f}"
        claims.append(
            Claim(
                "SMS spam: SmolLM2's likelihood ratio reaches AUROC .78 with no "
                "training, its descriptions chosen without labels.",
                "goal .78",
                _shown(chosen.auroc) + given,
                at_least([], _RATIO_GOAL, ends=chosen.auroc[1:]),
            )
        )
    names = [name for name in ("MiniLM similarity", "kNN, characters") if name in rows]
    claims.append(
        Claim(
            "SMS spam: MiniLM (similarity to descriptions) and the best detector reach "
            "AUROC .90.",
            "goal .90; DATE .940, GPT-4o .986",
            "; ".join(f"{name} {_shown(rows[name].auroc)}" for name in names),
            all_of(
                *(at_least([], _BEST_GOAL, ends=rows[name].auroc[1:]) for name in names)
            ),
        )
    )
    return claims


def _fusion(config: Config, first: Collected) -> list[Claim]:
    """Is a fusion better than each of its parts, beyond the interval?"""
    label = first.label[first.chosen]
    scores = dict(first.zero_shot)
    scores["kNN, characters"] = first.detectors["kNN, characters"].test[first.chosen]
    claims = []
    for name, parts in FUSIONS.items():
        if name not in scores:
            continue
        ends = {
            part: difference(config, scores[name], scores[part], label)
            for part in parts
        }
        claims.append(
            Claim(
                f"SMS spam: {name}, fused without a label, beats each of its parts by "
                "more than the interval.",
                "goal",
                "; ".join(
                    f"over {part} {each.estimate:+.3f} "
                    f"({each.low:+.3f} to {each.high:+.3f})"
                    for part, each in ends.items()
                ),
                all_of(*(beats(each) for each in ends.values())),
            )
        )
    return claims


def _both_lists(
    config: Config, collected: Mapping[str, Sequence[Collected]]
) -> list[Claim]:
    """The paper: naming the anomalous kind helps a zero-shot scorer."""
    name = "SmolLM2 ratio, normal kinds only"
    ends = {
        data: difference(
            config,
            rows[0].zero_shot[RATIO],
            rows[0].zero_shot[name],
            rows[0].label[rows[0].chosen],
        )
        for data, rows in collected.items()
        if name in rows[0].zero_shot
    }
    if not ends:
        return []
    return [
        Claim(
            "Naming the anomalous kind as well helps a zero-shot scorer "
            "(SmolLM2 ratio), on every data set.",
            "GPT-4o gains up to 22 points (AD-LLM, table 2)",
            _listed(ends),
            all_of(*(beats(each) for each in ends.values())),
        )
    ]


def _against_training(
    config: Config, collected: Mapping[str, Sequence[Collected]]
) -> list[Claim]:
    """The paper: zero-shot scorers beat trained detectors."""
    ends = {}
    for data, rows in collected.items():
        first = rows[0]
        if RATIO not in first.zero_shot:
            continue
        trained = first.detectors["kNN, MiniLM + characters"].test[first.chosen]
        ends[data] = difference(
            config, first.zero_shot[RATIO], trained, first.label[first.chosen]
        )
    if not ends:
        return []
    return [
        Claim(
            "A zero-shot language model beats detectors trained on normal texts, on "
            "every data set (SmolLM2-135M against kNN).",
            "GPT-4o does on 5 of 5 (AD-LLM, table 2)",
            _listed(ends),
            all_of(*(beats(each) for each in ends.values())),
        )
    ]


def _listed(ends: Mapping[str, Ends]) -> str:
    return "; ".join(
        f"{data} {each.estimate:+.3f} ({each.low:+.3f} to {each.high:+.3f})"
        for data, each in ends.items()
    )


def _shown(ends: Ends) -> str:
    return f"{ends.estimate:.3f} ({ends.low:.3f} to {ends.high:.3f})"
