"""Part "model": what each control does to the length of a real model's thoughts.

The claims are about length, since a small model answers few word problems rightly: a
budget is kept, "Wait" lengthens, brief prompts shorten, suppressed words do not occur.
Accuracy, and agreement with plain step-by-step answers, are measured beside it.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from configs.reasoning import Config
from jeff.bootstrap import bootstrap_interval
from jeff_llm.models import weights
from train_scripts.reasoning import model_chat, model_local, model_setup, problems
from train_scripts.reasoning.model_local import Branch, Measured
from train_scripts.reasoning.problems import Problem
from train_scripts.running import machines, plots
from train_scripts.running.claims import at_least, at_most
from train_scripts.running.endpoint import naming_failures, open_endpoint
from train_scripts.running.results import Claim, Part

__all__ = ["measure"]

_PAPERS = {
    "concise": ("Concise CoT (2401.05618)", "about half the length"),
    "chain of draft": (
        "Chain of Draft (2502.18600)",
        "as little as 7.6% of the tokens",
    ),
    "TALE": ("TALE (2412.18547)", "67% fewer tokens on average"),
    "DEER": ("DEER (2504.15895)", "19% to 80% shorter"),
    "convergence": ("Answer convergence (2506.02536)", "up to 40% fewer tokens"),
}


def measure(config: Config, workdir: Path) -> Part:
    """Answer word problems under every control of a real model.

    Args:
      config: settings of the run; `chat` asks an endpoint in place of `model`.
      workdir: the run's folder; gets a plot and, for an endpoint, the stored answers.

    Returns:
      Numbers, claims and table.

    Raises:
      OSError: if requests fail for good; what was answered stays stored.
    """
    asked, source = problems.load(config.questions)
    if config.chat:
        chat = open_endpoint(
            config.chat,
            config.chat_model,
            workdir,
            prices=config.prices,
            max_cost=config.max_cost,
        )
        with naming_failures(config.chat):
            branches, spent = model_chat.measure(
                chat, asked, max_tokens=config.max_new_tokens
            )
        numbers = {f"model_{name}": float(x) for name, x in spent._asdict().items()}
        # Over all starts of the run: a killed one has paid too.
        if (cost := chat.spent()) is not None:
            numbers["model_cost"] = cost
        claims, name = _shorter(branches), config.chat_model
    else:
        setup = model_setup.set_up(
            weights.load(config.model, mesh=machines.mesh()), config.max_new_tokens
        )
        key = jax.random.key(config.seeds[0])
        found = model_local.measure(setup, asked, key=key)
        branches, numbers = found.branches, {}
        claims = [*_controls(found), *_shorter(branches)]
        name = setup.model.name
    numbers |= _numbers(branches, asked)
    title = f"{name} on {len(asked)} questions of {source}."
    _draw(workdir / "model.png", branches, numbers)
    return Part(numbers, tuple(claims), _table(title, branches, numbers))


def _numbers(branches: dict[str, Branch], asked: Sequence[Problem]) -> dict[str, float]:
    """Tokens, accuracy and agreement with the plain answers, of each branch."""
    plain = branches["plain"].answers
    found = {}
    for name, branch in branches.items():
        right = [a == p.answer for a, p in zip(branch.answers, asked, strict=True)]
        same = [
            a is not None and a == p for a, p in zip(branch.answers, plain, strict=True)
        ]
        found[f"model_{name}_tokens"] = float(branch.tokens.mean())
        found[f"model_{name}_probe_tokens"] = float(np.mean(branch.extra))
        found[f"model_{name}_accuracy"] = float(np.mean(right))
        found[f"model_{name}_agreement"] = float(np.mean(same))
    return found


def _shorter(branches: dict[str, Branch]) -> list[Claim]:
    """Whether the brief branches are shorter than plain step by step."""
    plain = branches["plain"].tokens
    found = []
    for name, (method, paper) in _PAPERS.items():
        if name in branches:
            ends = _interval(branches[name].tokens - plain)
            share = branches[name].tokens.mean() / plain.mean()
            found.append(
                Claim(
                    f"{method} writes fewer tokens than step by step.",
                    paper,
                    f"{share:.0%} of the tokens, difference {_words(ends)}",
                    _negative(ends),
                )
            )
    return found


def _controls(found: Measured) -> list[Claim]:
    """Whether each control of a thought does what it says."""
    branches, plain = found.branches, found.branches["plain"].tokens
    longest = int(found.capped.max())
    before, after = found.reflections
    # A thought that was cut at the limit cannot become longer.
    grown = (branches["wait"].tokens - plain)[found.ended]
    rivals = {n: b.tokens for n, b in branches.items() if n != "NoThinking"}
    rival = min(rivals, key=lambda name: rivals[name].mean())
    least = _interval(branches["NoThinking"].tokens - rivals[rival])
    # With one question or none the interval decides nothing.
    longer = _interval(grown) if len(grown) > 1 else (-np.inf, np.inf)
    return [
        Claim(
            "Budget forcing (2501.19393) keeps every thought within its budget.",
            "perfect control",
            f"longest thought {longest} tokens, budget {found.cap}",
            at_most(longest, found.cap, ends=(longest, longest)),
        ),
        Claim(
            'A forced "Wait" (2501.19393) lengthens a thought that would have ended.',
            "longer thoughts",
            f"{len(grown)} questions, difference {_words(longer)} tokens",
            _negative((-longer[1], -longer[0])),
        ),
        Claim(
            "NoWait (2506.08343) writes no reflection word.",
            "27% to 51% shorter thoughts",
            f"{after} of its tokens, {before} without it",
            at_most(after, 0, ends=(after, after)),
        ),
        Claim(
            "An empty finished thought (2504.09858) gives the shortest answers.",
            "2 to 5 times fewer tokens than thinking",
            f"difference to {rival} {_words(least)} tokens",
            _negative(least),
        ),
    ]


def _interval(differences: np.ndarray) -> tuple[float, float]:
    """Bootstrap interval of a mean of paired differences."""
    _, low, high = bootstrap_interval(
        jnp.mean, (jnp.asarray(differences, jnp.float32),), key=jax.random.key(0)
    )
    return float(low), float(high)


def _negative(ends: tuple[float, float]) -> bool | None:
    """Whether a quantity is below zero, by its interval; zero is not."""
    if ends[1] < 0:
        return True
    return False if at_least(0.0, 0.0, ends=ends) else None


def _words(ends: tuple[float, float]) -> str:
    return f"{ends[0]:+.1f} to {ends[1]:+.1f}"


def _table(title: str, branches: dict[str, Branch], numbers: dict[str, float]) -> str:
    lines = [
        title,
        "",
        "| control | tokens | of probes | accuracy | agreement with plain |",
        "|---|---|---|---|---|",
    ]
    for name in branches:
        tokens, probes, right, same = (
            numbers[f"model_{name}_{each}"]
            for each in ("tokens", "probe_tokens", "accuracy", "agreement")
        )
        lines.append(
            f"| {name} | {tokens:.1f} | {probes:.1f} | {right:.0%} | {same:.0%} |"
        )
    return "\n".join(lines) + "\n"


def _draw(path: Path, branches: dict[str, Branch], numbers: dict[str, float]) -> None:
    """One plane: tokens against accuracy and agreement."""
    with plots.figure(path) as axes:
        for what, colour in (("accuracy", "line"), ("agreement", "fixed")):
            axes.scatter(
                [numbers[f"model_{name}_tokens"] for name in branches],
                [numbers[f"model_{name}_{what}"] for name in branches],
                color=plots.COLOURS[colour],
                label=what if what == "accuracy" else "agreement with plain",
                s=18,
            )
        axes.set_xscale("log")
        axes.set_xlabel("tokens per question")
        axes.set_ylabel("share of the questions")
        plots.label_points(
            axes,
            {
                name: (
                    numbers[f"model_{name}_tokens"],
                    numbers[f"model_{name}_agreement"],
                )
                for name in branches
            },
        )
