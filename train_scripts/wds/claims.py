"""Claims of the paper, and goals of jeff, that a run on gene pairs tests."""

import numpy as np

from train_scripts.running.claims import above, all_of, at_least
from train_scripts.running.results import Claim
from train_scripts.running.seeds import spread
from train_scripts.wds.summary import NAMES, Report, paired, values

__all__ = ["claims"]

_GOAL = "not in the paper; jeff's goal"


def claims(report: Report) -> tuple[Claim, ...]:
    """Evaluate the claims that this run can test.

    Args:
      report: measurements of the run.

    Returns:
      The claims.
    """
    found = [_agreement(report)]
    if values(report, "all_auroc").size:
        found += [_near_all(report), _above_baselines(report)]
        if "uniform" in report.config.samplers:
            found.append(_above_uniform(report))
    if values(report, _name(report, "wds", "rare_multiple")).size:
        found.append(_rare(report))
    return tuple(found)


def _name(report: Report, way: str, measure: str) -> str:
    return f"{way}_{report.config.share:g}_{measure}"


def _agreement(report: Report) -> Claim:
    rivals = [way for way in report.config.samplers if way != "wds"]
    ways = ["wds", *rivals]
    numbers = paired(report, *(_name(report, way, "agreement") for way in ways))
    each = dict(zip(ways, numbers, strict=True))
    # Without a seed that has them all there is no best, and the claim stays open.
    ranked = rivals if each["wds"].size else []
    best = max(ranked, key=lambda way: each[way].mean(), default="wds")
    return Claim(
        f"{report.config.share:.1%} of the cells, picked by weighted diversified "
        "sampling, agree better with the map of all cells than any other pick.",
        "higher than uniform and geometric sketch",
        f"rank correlation {spread(each['wds'], 3)}, {NAMES[best]} "
        f"{spread(each[best], 3)}",
        None if best == "wds" else above(each["wds"], each[best]),
    )


def _near_all(report: Report) -> Claim:
    few, whole = paired(report, _name(report, "wds", "auroc"), "all_auroc")
    return Claim(
        f"{report.config.share:.1%} of the cells find the known pairs with an AUROC "
        "within .02 of all cells, or above it.",
        _GOAL,
        f"{spread(few, 3)} against {spread(whole, 3)}",
        at_least(few - whole, -0.02),
    )


def _above_uniform(report: Report) -> Claim:
    few, even = paired(
        report, *(_name(report, way, "auroc") for way in ("wds", "uniform"))
    )
    # Paired by seed: both samplers use the same network and cells.
    gain = few - even
    deviation = float(np.std(gain, ddof=1)) if len(gain) > 1 else 0.0
    return Claim(
        "It is above uniform sampling's, seed by seed, by at least twice the standard "
        "deviation of the difference.",
        _GOAL,
        f"{spread(few, 3)} against {spread(even, 3)}; difference {spread(gain, 3)}",
        at_least(gain, 2 * deviation) if len(gain) > 1 else None,
    )


def _above_baselines(report: Report) -> Claim:
    ways = ("pearson", "spearman", "cs_core", "nid", "product")
    here = [way for way in ways if values(report, f"{way}_nes").size]
    whole, *rest = paired(report, "all_nes", *(f"{way}_nes" for way in here))
    found = dict(zip(here, rest, strict=True))
    best = max(found, key=lambda way: found[way].mean()) if whole.size and here else ""
    return Claim(
        "Attention on all cells enriches the known pairs more than every baseline.",
        "higher NES than Pearson, CS-CORE, Spearman, NID",
        f"NES {spread(whole, 2)}; "
        + ", ".join(f"{way} {spread(nes, 2)}" for way, nes in found.items()),
        above(whole, found[best]) if best else None,
    )


def _rare(report: Report) -> Claim:
    multiple, effective = paired(
        report,
        *(_name(report, "wds", name) for name in ("rare_multiple", "effective")),
    )
    return Claim(
        "Each rare cell type is drawn at least twice as often as it occurs, at an "
        "effective sample size of at least 10%.",
        _GOAL,
        f"{spread(multiple, 1)} times, {spread(100 * effective, 0)}%",
        all_of(at_least(multiple, 2), at_least(effective, 0.1)),
    )
