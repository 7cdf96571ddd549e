"""Transfer of routing thresholds from some data sets to another one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs.routing import Config
from jeff_llm.confidence import calibration
from train_scripts.running.claims import all_of, at_most
from train_scripts.running.results import Claim, Part

__all__ = ["RATES", "Answered", "transfers"]

RATES = np.linspace(0, 1, 21)


class Answered(NamedTuple):
    """Answered queries of one data set.

    Attributes:
      confidence: confidence in the small model's answers, in [0, 1], by measure.
      small_correct: whether the small model's answer is right.
      large_correct: whether the large model's answer is right.
    """

    confidence: dict[str, np.ndarray]
    small_correct: np.ndarray
    large_correct: np.ndarray


def transfers(
    config: Config, sets: dict[str, Answered], measure: str, prefix: str
) -> Part:
    """Apply the thresholds from all other data sets to each data set in turn.

    Args:
      config: settings of the run.
      sets: the data sets.
      measure: name of the confidence measure.
      prefix: prefix of the numbers' names.

    Returns:
      Numbers, claim and table.
    """
    lines = [
        f"Thresholds by {measure} from the other data sets.",
        "",
        "| left out | rate error | accuracy error | drift |",
        "|---|---|---|---|",
    ]
    numbers, errors = {}, []
    for name, each in sets.items():
        others = [other for key, other in sets.items() if key != name]
        kept = calibration.calibrate(
            jnp.asarray(np.concatenate([o.confidence[measure] for o in others])),
            jnp.asarray(np.concatenate([o.small_correct for o in others])),
            jnp.asarray(np.concatenate([o.large_correct for o in others])),
            key=jax.random.key(config.seed),
            share=config.share,
            num_bins=config.bins,
        )
        found = calibration.transfer(
            kept,
            jnp.asarray(each.confidence[measure]),
            jnp.asarray(each.small_correct),
            jnp.asarray(each.large_correct),
            jnp.asarray(RATES),
        )
        errors.append((found.rate_error, found.accuracy_error, found.drift))
        lines.append(f"| {name} | " + " | ".join(f"{x:.3f}" for x in errors[-1]) + " |")
        for label, value in zip(("rate", "accuracy", "drift"), errors[-1], strict=True):
            numbers[f"{prefix}_transfer_{name}_{label}"] = value
    mean = np.mean(errors, axis=0)
    lines.append("| mean | " + " | ".join(f"{x:.3f}" for x in mean) + " |")
    claim = Claim(
        f"Thresholds by {measure} carry over to a data set left out: the mean error of "
        f"rate and of accuracy is at most .05 ({prefix.partition('_')[0]}).",
        "calibration data carry over to unseen data sets",
        f"rate {mean[0]:.3f}, accuracy {mean[1]:.3f}",
        all_of(*(at_most(np.array(errors)[:, k], 0.05) for k in (0, 1))),
    )
    return Part(numbers, (claim,), "\n".join(lines) + "\n")
