"""Report on a confidence token for a user's own questions: table, plots and files."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from configs.selfref import Config
from jeff import files
from jeff_llm.confidence import evaluation, router, routing
from train_scripts.routing import logs
from train_scripts.routing.transfers import RATES
from train_scripts.running import plots
from train_scripts.running.results import Part

__all__ = ["Verdict", "report"]


class Verdict(NamedTuple):
    """Held-out questions with the model's answers and confidences.

    Attributes:
      asked: the prompts as they stand in the file.
      texts: the model's answers.
      correct: whether each answer is right.
      confidence: confidence in each answer, by measure; "token" is Self-REF's.
      learned: whether each answer in the training part is right.
    """

    asked: list[Any]
    texts: list[str]
    correct: np.ndarray
    confidence: dict[str, np.ndarray]
    learned: np.ndarray


def report(config: Config, workdir: Path, verdict: Verdict) -> Part:
    """Write table, plots, ``router.json`` and ``answers.jsonl``.

    Args:
      config: settings of the run.
      workdir: the run's folder.
      verdict: answers and confidences of the held-out questions.

    Returns:
      Numbers and table.
    """
    right = jnp.asarray(verdict.correct)
    # No second model has answered, so the expert is assumed to be always right.
    scores = {
        name: evaluation.evaluate(
            jnp.asarray(sure, jnp.float32), right, jnp.ones(len(right))
        )
        for name, sure in verdict.confidence.items()
    }
    guards = {
        name: dataclasses.replace(
            router.with_guarantee(
                jnp.asarray(verdict.confidence[name], jnp.float32),
                right,
                max_error=config.max_error,
                delta=config.delta,
            ),
            measure="selfref" if name == "token" else name,
        )
        for name in ("token", _untuned(scores))
    }
    logs.write_routers(workdir / "router.json", guards)
    _write_answers(workdir / "answers.jsonl", verdict)
    _plot(workdir, verdict, _untuned(scores))
    numbers = {
        "learned_from": float(len(verdict.learned)),
        "held_out": float(len(right)),
        "accuracy": float(right.mean()),
    }
    if (rate := guards["token"].rate) is not None:
        numbers["sent_on"] = rate
    for name, each in scores.items():
        for field in ("area", "alignment", "ece", "brier"):
            numbers[f"{name}|{field}"] = float(getattr(each, field))
    return Part(numbers, (), _table(config, verdict, scores, guards))


def _untuned(scores: dict[str, evaluation.Scores]) -> str:
    """Name of the best measure that needs no training."""
    return max((n for n in scores if n != "token"), key=lambda n: scores[n].area)


def _write_answers(path: Path, verdict: Verdict) -> None:
    """Write rows for ``routing --data``; the user adds the field ``large_correct``."""
    lines = [
        {
            "prompt": asked,
            "response": text,
            "small_correct": bool(right),
            "confidence": float(sure),
            "confidence_measure": "selfref",
        }
        for asked, text, right, sure in zip(
            verdict.asked,
            verdict.texts,
            verdict.correct,
            verdict.confidence["token"],
            strict=True,
        )
    ]
    files.write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def _table(
    config: Config,
    verdict: Verdict,
    scores: dict[str, evaluation.Scores],
    guards: dict[str, router.Router],
) -> str:
    lines = [
        f"The token was learned from {len(verdict.learned)} answers, "
        f"{verdict.learned.mean():.1%} of them right; of {len(verdict.correct)} held "
        f"out {verdict.correct.mean():.1%} are right.",
        "",
        "| confidence | area | AUROC | ECE | Brier |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {s.area:.3f} | {s.alignment:.3f} | {s.ece:.3f} | {s.brier:.3f} |"
        for name, s in sorted(scores.items(), key=lambda item: -item[1].area)
    ]
    lines += [
        "",
        "Area: 0 random, 1 an oracle, with an expert who is always right.",
        "",
    ]
    for name, guard in guards.items():
        words = logs.promise(guard, config.max_error, config.delta)
        lines.append(f"- By {name}: {words[0].lower()}{words[1:]}")
    return "\n".join(lines) + "\n"


def _plot(workdir: Path, verdict: Verdict, untuned: str) -> None:
    right, rates = jnp.asarray(verdict.correct), jnp.asarray(RATES)
    with plots.figure(workdir / "01_routing.png") as axes:
        for name, colour in (("token", "third"), (untuned, "line")):
            sure = jnp.asarray(verdict.confidence[name], jnp.float32)
            curve = routing.curve(sure, right, jnp.ones(len(right)), rates)
            axes.plot(
                RATES,
                np.asarray(curve.accuracy),
                color=plots.COLOURS[colour],
                label=name,
            )
        ends = [float(right.mean()), 1.0]
        axes.plot([0, 1], ends, ":", color="#999999", label="at random")
        axes.set_xlabel("share of the questions sent to an expert who is always right")
        axes.set_ylabel("accuracy")
    with plots.figure(workdir / "02_confidence.png") as axes:
        plots.marked(axes, verdict.confidence["token"], verdict.correct)
        axes.set_xlabel("P(confident token)")
        axes.set_ylabel("answers")
