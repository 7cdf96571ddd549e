"""Claims of "Quantize What Counts" that a KV-AdaQuant run tests."""

import numpy as np

from train_scripts.kv import summary
from train_scripts.running.claims import above, at_least, below
from train_scripts.running.results import Claim
from train_scripts.running.seeds import spread

__all__ = ["claims"]


def claims(report: summary.Report) -> tuple[Claim, ...]:
    """Evaluate the claims of the paper that this run tests.

    Args:
      report: measurements of the run.

    Returns:
      The claims.
    """
    found = []
    for axis in report.config.key_axes:
        groups = "tokens of a channel" if axis == "channel" else "channels of a token"
        found += _pair_claims(report, axis, f"(keys in groups of {groups})")
    return (*found, *_norm_claims(report), *_allocation_claims(report), _greedy(report))


def _pair_claims(report: summary.Report, axis: str, where: str) -> list[Claim]:
    def cell(name: str) -> summary.Measured:
        return report.cells[axis, name]

    more, less, both = cell("k4v2"), cell("k2v4"), cell("k4v4")
    kept = both.perplexity / more.perplexity
    claims = [
        Claim(
            f"K4V2 is better than K2V4 in perplexity, in every seed {where}.",
            "GSM8K .752 against .547 (Llama 3.1 8B)",
            f"{spread(more.perplexity)} against {spread(less.perplexity)}",
            below(more.perplexity, less.perplexity),
        ),
        Claim(
            f"K4V2 keeps 98% of K4V4 (inverse perplexity) {where}.",
            "98.3% of the accuracy with 25% less memory",
            f"{spread(100 * kept, 1)}% with {1 - more.share[0] / both.share[0]:.0%} "
            "less memory, scales and window counted",
            at_least(kept, 0.98),
        ),
    ]
    if more.accuracy.size:
        claims.append(
            Claim(
                f"K4V2 answers more questions than K2V4, in the mean {where}.",
                "GSM8K .752 against .547 (Llama 3.1 8B)",
                f"{spread(100 * more.accuracy, 1)}% against "
                f"{spread(100 * less.accuracy, 1)}%",
                above(more.accuracy, less.accuracy),
            )
        )
    return claims


def _norm_claims(report: summary.Report) -> list[Claim]:
    layers = report.layers
    count = len(layers.activations)
    shares = {
        name: float(np.mean(np.subtract(*getattr(layers, name).T) > 0))
        for name in ("activations", "spectral", "frobenius")
    }
    measured = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    # Counts over all layers are exact, so this claim needs no interval.
    found = [
        Claim(
            "Keys have larger norms than values in nearly every layer (nine of ten; "
            "activations and both norms of the weights).",
            "nearly every layer",
            f"{measured} of {count} layers",
            min(shares.values()) >= 0.9,
        )
    ]
    if layers.published:
        shares = {norm: some / all_ for norm, (some, all_) in layers.published.items()}
        measured = ", ".join(f"{norm} {share:.0%}" for norm, share in shares.items())
        found.append(
            Claim(
                "The same of the weights of nine published models.",
                "nearly every layer",
                f"{measured} of {layers.published['spectral'][1]} layers",
                min(shares.values()) >= 0.9,
            )
        )
    for axis in report.config.key_axes:
        keys, values = layers.errors[axis, 2].T
        ratio = keys / values
        found.append(
            Claim(
                "At 2 bits the squared error of keys is at least 9 times that of "
                f"values (mean of the layers, keys by {axis}).",
                "9 to 44 times",
                f"{ratio.mean():.1f} times ({ratio.min():.1f} to {ratio.max():.1f})",
                at_least(ratio, 9),
            )
        )
    return found


def _allocation_claims(report: summary.Report) -> list[Claim]:
    return [
        _allocation_claim(report, axis, kind)
        for axis in report.config.key_axes
        for kind in ("norms", "errors")
    ]


def _allocation_claim(report: summary.Report, axis: str, kind: str) -> Claim:
    budgets = report.config.budgets
    gains = {budget: summary.gain(report, axis, kind, budget) for budget in budgets}
    words = ", ".join(f"{gain:.2f} at {budget} bits" for budget, gain in gains.items())
    words = f"error ratio {words}"
    for budget in report.config.run_budgets:
        mine = report.cells[axis, f"{kind}{budget}"].perplexity
        words += f"; perplexity {spread(mine)} at {budget} bits"
    by = "norms" if kind == "norms" else "measured 2-bit errors (our own scores)"
    return Claim(
        f"Widths allocated to layers by their {by} give no larger squared error than "
        f"one pair for all layers at the same bytes (keys by {axis}).",
        "greedy allocation by norms is no worse",
        words,
        max(gains.values()) <= 1,
    )


def _greedy(report: summary.Report) -> Claim:
    shares = report.agreement
    return Claim(
        f"{report.config.new_tokens} greedy tokens with an 8-bit cache are those of "
        "full precision.",
        "not in the paper",
        f"{shares[8].mean():.0%} of the tokens; {shares[4].mean():.0%} with 4 bits",
        at_least(shares[8], 1.0),
    )
