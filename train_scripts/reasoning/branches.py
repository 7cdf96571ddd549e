"""Every branch of the survey on the small model: accuracy and tokens of each.

A branch is a function of `Bench`, which holds the base of one seed, its test questions
and 40 samples of each. It returns its points on the plane.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs.reasoning import Config
from jeff import line, training
from jeff_llm import tuning
from jeff_llm.generate.sampling import Processor
from jeff_llm.models import lora
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.reasoning import (
    arithmetic,
    decoding,
    exiting,
    probing,
    selection,
    stopping,
    thinking,
    valve,
    voting,
)
from train_scripts.reasoning import coconut, reinforce, small
from train_scripts.running.seeds import seed_key

__all__ = [
    "BRANCHES",
    "WAITS",
    "Bench",
    "Point",
    "branch_names",
    "make_bench",
    "measure",
]

# Samples per question where a single sample is measured.
_SAMPLES = 4
_STOP = [arithmetic.END]
_VALVE = (0.0, 0.5, 1.0, 1.5)
_BUDGETS = (24, 40, 64, 88)
WAITS = (1, 2, 4)
_CAPS = (16, 32, 64)


class Point(NamedTuple):
    """A point on the plane.

    Attributes:
      accuracy: share of right answers.
      tokens: mean tokens per question, all samples counted.
      samples: mean samples per question.
    """

    accuracy: float
    tokens: float
    samples: float = 1.0


class Bench(NamedTuple):
    """What all branches of a seed share.

    Attributes:
      config: settings of the run.
      seed: the seed.
      folder: folder of the seed.
      base: the base.
      test: test questions.
      pool: `config.votes` samples of each test question at temperature 1.
    """

    config: Config
    seed: int
    folder: Path
    base: LanguageModel
    test: arithmetic.Questions
    pool: small.Solved

    def key(self, number: int) -> jax.Array:
        """Random key of one branch.

        Args:
          number: a number of its own.

        Returns:
          The key.
        """
        return jax.random.fold_in(seed_key(self.seed, 4), number)


def make_bench(
    config: Config, seed: int, folder: Path, *, progress: bool = False
) -> Bench:
    """Train the base of a seed, and sample its pool.

    Args:
      config: settings of the run.
      seed: the seed.
      folder: folder of the seed.
      progress: show a progress bar.

    Returns:
      The bench.
    """
    base = small.pretrain(config, seed, folder / "base", progress=progress)
    test = small.questions_of(config, seed, "test")
    key = seed_key(seed, 5)
    pool = small.solve(base, test, samples=config.votes, key=key)
    return Bench(config, seed, folder, base, test, pool)


def branch_names(config: Config) -> list[str]:
    """Branches that a configuration measures, in order.

    Args:
      config: settings of the run.

    Returns:
      The names; those of reinforcement learning are ``rl:REWARD``.
    """
    return [*BRANCHES, *(f"rl:{name}" for name in config.rewards)]


def measure(bench: Bench, branch: str) -> dict[str, Point]:
    """The points of a branch.

    Args:
      bench: what all branches share.
      branch: one of `branch_names`.

    Returns:
      Points by name.
    """
    if not branch.startswith("rl:"):
        return BRANCHES[branch](bench)
    reward = branch.removeprefix("rl:")
    trained = reinforce.reinforce(
        bench.config, bench.base, reward, bench.seed, bench.folder / reward
    )
    test = bench.test
    if reward in ("l1_exact", "l1_max"):
        test = arithmetic.with_budget(test, reinforce.TARGET)
    return {
        f"RL, {reward}": _sampled(trained, test, bench.key(1)),
        f"RL, {reward}, greedy": _sampled(trained, test, bench.key(1), greedy=True),
    }


def _base(bench: Bench) -> dict[str, Point]:
    """The base, and what its own samples say about length."""
    pool = bench.pool
    points = {
        "one sample": _point(pool.correct, pool.length),
        "greedy": _sampled(bench.base, bench.test, bench.key(0), greedy=True),
    }
    # Thirds of each question's own samples, so that hard questions do not make long
    # samples look worse.
    order = np.argsort(pool.length, axis=1, kind="stable")
    thirds = np.array_split(order, 3, axis=1)
    for name, some in zip(("shortest", "middle", "longest"), thirds, strict=True):
        points[f"{name} third"] = _point(
            np.take_along_axis(pool.correct, some, 1),
            np.take_along_axis(pool.length, some, 1),
        )
    return points


def _votes(bench: Bench) -> dict[str, Point]:
    """Rules over the pool of samples."""
    answer, length = bench.pool.answer, bench.pool.length
    most = answer.shape[1]
    rules: dict[str, Callable[[], voting.Vote]] = {
        f"vote of {most}": lambda: voting.majority_vote(answer, length=length),
        "early stopping (ESC)": lambda: voting.early_stopping(
            answer, window=min(5, most), length=length
        ),
        "adaptive consistency": lambda: voting.adaptive_consistency(
            answer, length=length
        ),
        "short-1@3": lambda: voting.short_m_of_k(
            answer[:, :3], finish=1, length=length[:, :3]
        ),
        "short-3@8": lambda: voting.short_m_of_k(
            answer[:, :8], finish=3, length=length[:, :8]
        ),
    }
    points = {}
    for name, rule in rules.items():
        vote = rule()
        right = np.asarray(vote.answer) == bench.test.answer
        points[name] = Point(
            float(right.mean()),
            float(np.mean(vote.tokens)),
            float(np.mean(vote.samples)),
        )
    return points


def _controls(bench: Bench) -> dict[str, Point]:
    """Logit processors and forced budgets."""
    size = bench.base.config.vocab_size
    points = {
        "no wait": _sampled(
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
        points[f"cap {cap}"] = _sampled(
            bench.base, bench.test, bench.key(3), processors=[forced]
        )
    think = functools.partial(
        thinking.force_budget,
        bench.base,
        bench.test.prompts,
        small.MARKERS,
        max_thought_tokens=small.MAX_TOKENS,
        max_answer_tokens=2,
        keys=bench.key(4),
        sampling=small.SAMPLED,
        stop_ids=_STOP,
        batch_size=256,
    )
    for waits in WAITS:
        points[f"wait x{waits}"] = _answered(bench, think(waits=waits))
    found = thinking.no_thinking(
        bench.base,
        bench.test.prompts,
        small.MARKERS,
        max_answer_tokens=2,
        stop_ids=_STOP,
        batch_size=256,
    )
    points["no thinking"] = _answered(bench, found)
    return points


def _exits(bench: Bench) -> dict[str, Point]:
    """Rules that end a thought early, on the first sample of each question."""
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
        stop_ids=_STOP,
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
        points[name] = point = _answered(bench, found)
        # A cache shared with the chain makes a probe cheap, but not free.
        spent = point.tokens + float(found.cost.mean())
        points[f"{name}, probes counted"] = point._replace(tokens=spent)
    return points


def _prompts(bench: Bench) -> dict[str, Point]:
    """Budgets in the prompt, and thought only where the direct answer is unsure."""
    points = {
        f"budget {tokens}": _sampled(
            bench.base, arithmetic.with_budget(bench.test, tokens), bench.key(5)
        )
        for tokens in _BUDGETS
    }
    none: list[list[int]] = [[] for _ in bench.test.prompts]
    direct = probing.probe(
        bench.base,
        bench.test.prompts,
        none,
        small.MARKERS,
        max_answer_tokens=2,
        places=[[0]] * len(none),
        stop_ids=_STOP,
        batch_size=512,
    )
    sure = direct.confidence[:, :1] > 0.9
    given = direct.answers[:, 0, 0] - arithmetic.encode("0")[0]
    right = np.where(sure, (given == bench.test.answer)[:, None], bench.pool.correct)
    length = direct.lengths[:, :1] + np.where(sure, 0, bench.pool.length)
    points["think if unsure"] = _point(right, length)
    return points


def _selected(bench: Bench) -> dict[str, Point]:
    """Fine-tuning on selected samples of the base: shortest and longest right ones."""
    train = small.questions_of(bench.config, bench.seed, "tune")
    drawn = small.solve(bench.base, train, samples=8, key=bench.key(6))
    correct, length = drawn.correct.ravel(), drawn.length.ravel()
    group = np.repeat(np.arange(len(train.answer)), 8)
    tokens = drawn.tokens.reshape(len(group), -1)
    ends = {}
    for name, choose in (
        ("longest", selection.longest_correct),
        ("shortest", selection.shortest_correct),
    ):
        solutions = [
            (train.prompts[group[at]], tokens[at, : length[at]].tolist())
            for at in choose(correct, length, group)
            if at >= 0
        ]
        ends[name] = _factors(bench, solutions, bench.folder / name)
    first, last = valve.valve_line(ends["longest"], ends["shortest"])
    points = {}
    for t in _VALVE:
        factors = line.interpolate(first, last, t)
        params = lora.merge(bench.base.params, factors)
        points[f"valve {t:g}"] = _sampled(
            bench.base._replace(params=params), bench.test, bench.key(7)
        )
    return points


def _latent(bench: Bench) -> dict[str, Point]:
    """Latent thoughts; nothing where the configuration has no steps for them."""
    steps = bench.config.latent_steps
    if not steps:
        return {}
    train = small.questions_of(bench.config, bench.seed, "pretrain")
    tuned = coconut.fit_latent(
        bench.base,
        train,
        num_steps=steps,
        key=bench.key(9),
        workdir=bench.folder / "latent",
    )
    right, length = coconut.accuracy(tuned, bench.test)
    return {"latent (Coconut)": Point(float(right.mean()), float(length))}


def _factors(
    bench: Bench, solutions: list[tuple[list[int], list[int]]], folder: Path
) -> lora.Lora:
    """LoRA's factors, trained on prompts and solutions."""
    examples = [
        tuning.Example(prompt + rest, [0.0] * len(prompt) + [1.0] * len(rest))
        for prompt, rest in solutions
    ]
    keys = jax.random.split(bench.key(8), 3)
    factors = lora.init(bench.base.params, key=keys[0], rank=16, where=lora.LINEAR)
    if not examples:  # a base that solves nothing has nothing to teach
        return factors
    packed = jax.tree.map(jnp.asarray, tuning.pack(examples, 256))
    optimizer = optax.adam(3e-3)
    config = bench.base.config

    def loss(trained: lora.Lora, batch: tuning.Packed, _: jax.Array, frozen: dict):
        return tuning.loss(config, lora.apply(frozen, trained), batch)

    fitted = training.fit(
        training.make_step(loss, optimizer),
        training.init_state(factors, optimizer, key=keys[1]),
        training.Shuffled(packed, min(8, len(packed.tokens)), keys[2]),
        num_steps=bench.config.tune_steps,
        chunk_steps=min(50, bench.config.tune_steps),
        constants=(bench.base.params,),
        workdir=folder,
        progress=False,
    )
    return fitted.state.params


def _sampled(
    model: LanguageModel,
    questions: arithmetic.Questions,
    key: jax.Array,
    *,
    greedy: bool = False,
    processors: Sequence[Processor] = (),
) -> Point:
    solved = small.solve(
        model,
        questions,
        samples=1 if greedy else _SAMPLES,
        key=key,
        processors=processors,
        temperature=0.0 if greedy else 1.0,
    )
    return _point(solved.correct, solved.length)


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


def _answered(bench: Bench, found: thinking.Thoughts | exiting.Stopped) -> Point:
    zero = arithmetic.encode("0")[0]
    answer = [each[0] - zero if len(each) == 1 else -1 for each in found.answers]
    return _point(np.array(answer) == bench.test.answer, found.lengths)


def _point(correct: np.ndarray, length: np.ndarray) -> Point:
    return Point(float(np.mean(correct)), float(np.mean(length)))


BRANCHES: dict[str, Callable[[Bench], dict[str, Point]]] = {
    "base": _base,
    "votes": _votes,
    "controls": _controls,
    "exits": _exits,
    "prompts": _prompts,
    "selected": _selected,
    "latent": _latent,
}
