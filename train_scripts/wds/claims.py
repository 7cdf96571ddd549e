"""The claims of the paper, and jeff's goals, that a run on gene pairs tests."""

import numpy as np

from train_scripts.running.results import Claim
from train_scripts.wds.summary import NAMES, Report, values

__all__ = ["claims"]

_GOAL = "not in the paper; jeff's goal"


def claims(report: Report) -> tuple[Claim, ...]:
    """What this run can test, computed.

    Args:
      report: what was found.

    Returns:
      One `Claim` each.
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
    each = {
        way: values(report, _name(report, way, "agreement"))
        for way in report.config.samplers
    }
    best = max(rivals, key=lambda way: each[way].mean(), default="wds")
    return Claim(
        f"{report.config.share:.1%} of the cells, picked by weighted diversified "
        "sampling, agree better with the map of all cells than any other pick.",
        "higher than uniform and geometric sketch",
        f"rank correlation {spread(each['wds'])}, {NAMES[best]} {spread(each[best])}",
        bool(best == "wds" or each["wds"].mean() > each[best].mean()),
    )


def _near_all(report: Report) -> Claim:
    few, whole = (
        values(report, name) for name in (_name(report, "wds", "auroc"), "all_auroc")
    )
    return Claim(
        f"{report.config.share:.1%} of the cells find the known pairs with an AUROC "
        "within .02 of all cells, or above it.",
        _GOAL,
        f"{spread(few)} against {spread(whole)}",
        bool(few.mean() >= whole.mean() - 0.02),
    )


def _above_uniform(report: Report) -> Claim:
    few, even = (
        values(report, _name(report, way, "auroc")) for way in ("wds", "uniform")
    )
    gain = few - even
    deviation = np.std(gain, ddof=1) if len(gain) > 1 else np.inf
    return Claim(
        "It is above uniform sampling's, seed by seed, by at least twice the standard "
        "deviation of the difference.",
        _GOAL,
        f"{spread(few)} against {spread(even)}; difference {spread(gain)}",
        bool(gain.mean() >= 2 * deviation),
    )


def _above_baselines(report: Report) -> Claim:
    ways = ("pearson", "spearman", "cs_core", "nid", "product")
    each = {way: values(report, f"{way}_nes") for way in ways}
    found = {way: nes for way, nes in each.items() if nes.size}
    whole = values(report, "all_nes")
    best = max(found, key=lambda way: found[way].mean())
    return Claim(
        "Attention on all cells enriches the known pairs more than every baseline.",
        "higher NES than Pearson, CS-CORE, Spearman, NID",
        f"NES {spread(whole, 2)}; "
        + ", ".join(f"{way} {spread(nes, 2)}" for way, nes in found.items()),
        bool(whole.mean() > found[best].mean()),
    )


def _rare(report: Report) -> Claim:
    multiple, effective = (
        values(report, _name(report, "wds", name))
        for name in ("rare_multiple", "effective")
    )
    return Claim(
        "Each rare cell type is drawn at least twice as often as it occurs, at an "
        "effective sample size of at least 10%.",
        _GOAL,
        f"{spread(multiple, 1)} times, {spread(100 * effective, 0)}%",
        bool(multiple.mean() >= 2 and effective.mean() >= 0.1),
    )


def spread(each: np.ndarray, digits: int = 3) -> str:
    """Mean and standard deviation over seeds.

    Args:
      each: one value a seed.
      digits: behind the point.

    Returns:
      Text.
    """
    mean = f"{np.mean(each):.{digits}f}"
    if np.size(each) < 2:
        return mean
    return f"{mean} ± {np.std(each, ddof=1):.{digits}f}"
