"""Output-based branches: votes, controlled thoughts and early exits, on the base."""

import functools

import numpy as np

from jeff_llm.reasoning import (
    arithmetic,
    decoding,
    exiting,
    probing,
    stopping,
    thinking,
    voting,
)
from train_scripts.reasoning import small
from train_scripts.reasoning.branches.bench import (
    STOP,
    Bench,
    Point,
    answered,
    point,
    sampled,
)

__all__ = ["WAITS", "base", "controls", "exits", "votes"]

WAITS = (1, 2, 4)
_CAPS = (16, 32, 64)


def base(bench: Bench) -> dict[str, Point]:
    """The base, and what its own samples say about length.

    Args:
      bench: what all branches share.

    Returns:
      Points by name.
    """
    pool = bench.pool
    points = {
        "one sample": point(pool.correct, pool.length),
        "greedy": sampled(bench.base, bench.test, bench.key(0), greedy=True),
    }
    # Thirds of each question's own samples, so that hard questions do not make long
    # samples look worse.
    order = np.argsort(pool.length, axis=1, kind="stable")
    thirds = np.array_split(order, 3, axis=1)
    for name, some in zip(("shortest", "middle", "longest"), thirds, strict=True):
        points[f"{name} third"] = point(
            np.take_along_axis(pool.correct, some, 1),
            np.take_along_axis(pool.length, some, 1),
        )
    return points


def votes(bench: Bench) -> dict[str, Point]:
    """Rules over the pool of samples.

    Args:
      bench: what all branches share.

    Returns:
      Points by name.
    """
    return {
        name: Point(
            float(np.mean(np.asarray(vote.answer) == bench.test.answer)),
            float(np.mean(vote.tokens)),
            float(np.mean(vote.samples)),
        )
        for name, vote in _rules(bench.pool.answer, bench.pool.length).items()
    }


def controls(bench: Bench) -> dict[str, Point]:
    """Logit processors and forced budgets.

    Args:
      bench: what all branches share.

    Returns:
      Points by name.
    """
    size = bench.base.config.vocab_size
    points = {
        "no wait": sampled(
            bench.base,
            bench.test,
            bench.key(2),
            processors=[decoding.no_wait([arithmetic.WAIT], size)],
        )
    }
    for cap in _CAPS:
        forced = decoding.budget_forcing(
            arithmetic.CLOSE,
            arithmetic.WAIT,
            waits=0,
            max_tokens=cap,
            vocab_size=size,
        )
        points[f"cap {cap}"] = sampled(
            bench.base, bench.test, bench.key(3), processors=[forced]
        )
    return points | _driven(bench)


def exits(bench: Bench) -> dict[str, Point]:
    """Rules that end a thought early, on the first sample of each question.

    Args:
      bench: what all branches share.

    Returns:
      Points by name.
    """
    thoughts = _first_samples(bench)
    starts = {arithmetic.WAIT, *arithmetic.encode("abcdefgh")}
    places = [
        [*(n for n, token in enumerate(each) if token in starts and n), len(each)]
        for each in thoughts.tokens
    ]
    trials = probing.probe(
        bench.base,
        bench.test.prompts,
        thoughts.tokens,
        small.MARKERS,
        max_answer_tokens=2,
        places=places,
        stop_ids=STOP,
        batch_size=512,
    )
    rules = {
        "DEER": stopping.deer(trials.confidence, trials.where),
        "answer convergence": stopping.answer_convergence(
            trials.codes, trials.where, repeats=6
        ),
        "entropy after thought": stopping.entropy_after_think(
            trials.entropy, trials.where, threshold=0.01, warm_up=6
        ),
    }
    points = {}
    for name, index in rules.items():
        found = exiting.stop(thoughts, trials, index)
        points[name] = point = answered(bench, found)
        # A cache shared with the chain makes a probe cheap, but not free.
        spent = point.tokens + float(found.cost.mean())
        points[f"{name}, probes counted"] = point._replace(tokens=spent)
    return points


def _rules(answer: np.ndarray, length: np.ndarray) -> dict[str, voting.Vote]:
    most = answer.shape[1]
    return {
        f"vote of {most}": voting.majority_vote(answer, length=length),
        "early stopping (ESC)": voting.early_stopping(
            answer, window=min(5, most), length=length
        ),
        "adaptive consistency": voting.adaptive_consistency(answer, length=length),
        "short-1@3": voting.short_m_of_k(answer[:, :3], finish=1, length=length[:, :3]),
        "short-3@8": voting.short_m_of_k(answer[:, :8], finish=3, length=length[:, :8]),
    }


def _driven(bench: Bench) -> dict[str, Point]:
    """Thoughts that go on by force, and none at all."""
    think = functools.partial(
        thinking.force_budget,
        bench.base,
        bench.test.prompts,
        small.MARKERS,
        max_thought_tokens=small.MAX_TOKENS,
        max_answer_tokens=2,
        keys=bench.key(4),
        sampling=small.SAMPLED,
        stop_ids=STOP,
        batch_size=256,
    )
    points = {f"wait x{waits}": answered(bench, think(waits=waits)) for waits in WAITS}
    found = thinking.no_thinking(
        bench.base,
        bench.test.prompts,
        small.MARKERS,
        max_answer_tokens=2,
        stop_ids=STOP,
        batch_size=256,
    )
    points["no thinking"] = answered(bench, found)
    return points


def _first_samples(bench: Bench) -> thinking.Thoughts:
    """The first sample of each question as a chain."""
    thoughts, answers = [], []
    for row, length in zip(
        bench.pool.tokens[:, 0], bench.pool.length[:, 0], strict=True
    ):
        tokens = row[:length].tolist()
        cut = tokens.index(arithmetic.CLOSE) if arithmetic.CLOSE in tokens else length
        thoughts.append(tokens[:cut])
        answers.append([t for t in tokens[cut + 1 :] if t != arithmetic.END])
    closed = np.array([len(each) > 0 for each in answers])
    return thinking.Thoughts(
        thoughts, answers, bench.pool.length[:, 0].astype(int), closed, closed
    )
