"""Claims of "Learning to Route LLMs with Confidence Tokens" that a run tests."""

from train_scripts.running.claims import above, at_least, below
from train_scripts.running.results import Claim
from train_scripts.running.seeds import spread
from train_scripts.selfref.summary import Report

__all__ = ["UNTUNED", "claims"]

UNTUNED = (
    "average probability",
    "perplexity",
    "sequence probability",
    "first token",
    "entropy",
    "margin",
    "degree",
    "semantic entropy",
    "self-consistency",
    "p(true)",
    "yes or no",
    "verbalised, one turn",
    "verbalised, two turns",
)


def claims(report: Report) -> tuple[Claim, ...]:
    """Evaluate the claims of the paper that this run tests.

    Args:
      report: measurements of the run.

    Returns:
      The claims.
    """
    # The best baseline is chosen by its measured area, which favours the baseline.
    names = [n for n in UNTUNED if f"base|{n}|area" in report.rows[0]]
    best = max(names, key=lambda n: report.column(f"base|{n}|area").mean())
    own = max(
        ("first token", "average probability", "sequence probability"),
        key=lambda n: report.column(f"plain|{n}|area").mean(),
    )
    return (
        _above(
            report,
            "The token, judging the base's answers, routes better than every untuned "
            f"measure of the base (the best: {best}).",
            "base|token",
            f"base|{best}",
        ),
        _above(
            report,
            "It routes better than the probability that plain fine-tuning gives the "
            "base's answers.",
            "base|token",
            "base|fine-tuned probability",
        ),
        _above(
            report,
            f"It routes better than the fine-tuned model's {own} does its own answers.",
            "base|token",
            f"plain|{own}",
        ),
        _above(
            report,
            "The tuned model's own answers, the paper's setting: the token routes "
            f"better than the fine-tuned model's {own}.",
            "selfref|token",
            f"plain|{own}",
        ),
        _rate(report, best),
        _calibration(report, best),
        _rejection(report),
    )


def _above(report: Report, text: str, one: str, other: str) -> Claim:
    """Claim that one area exceeds another by more than the spread of the difference."""
    first, second = (report.column(f"{name}|area") for name in (one, other))
    difference = first - second
    deviation = difference.std(ddof=1) if len(difference) > 1 else 0.0
    return Claim(
        f"{text} By more than the spread of the difference.",
        "token above all baselines on four data sets",
        f"{spread(first, 3)} against {spread(second, 3)}; difference "
        f"{spread(difference, 3)}",
        at_least(difference, deviation) if len(difference) > 1 else None,
    )


def _rate(report: Report, best: str) -> Claim:
    target = report.config.target
    one, other = (report.column(f"base|{n}|match") for n in ("token", best))
    return Claim(
        f"The token reaches {target:.0%} with fewer questions sent on than {best}.",
        "39% of the questions match the large model (MMLU), baselines 90 to 100%",
        f"{spread(one, 3)} against {spread(other, 3)}",
        below(one, other),
    )


def _calibration(report: Report, best: str) -> Claim:
    one, other = (report.column(f"base|{n}|ece") for n in ("token", best))
    return Claim(
        f"The token is better calibrated (ECE) than {best}.",
        "aligned rather than calibrated: it need not be",
        f"{spread(one, 3)} against {spread(other, 3)}",
        below(one, other),
    )


def _rejection(report: Report) -> Claim:
    token = report.column("rejection|token")
    others = {
        n.partition("|")[2]: report.column(n)
        for n in report.rows[0]
        if n.startswith("rejection|") and n != "rejection|token"
    }
    best = max(others, key=lambda n: others[n].mean())
    return Claim(
        "The token tells questions without a right option better than every baseline "
        f"(the best: {best}).",
        "ROC above all baselines, without training for it",
        f"AUROC {spread(token, 3)} against {spread(others[best], 3)}",
        above(token, others[best]),
    )
