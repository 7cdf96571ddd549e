"""What all branches share: the base of a seed, its questions, and how to measure."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from configs.reasoning import Config
from jeff_llm.generate.sampling import Processor
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.reasoning import arithmetic, exiting, thinking
from train_scripts.reasoning import small
from train_scripts.running.seeds import seed_key

__all__ = ["STOP", "Bench", "Point", "answered", "make_bench", "point", "sampled"]

STOP = [arithmetic.END]
# Samples per question where a single sample is measured.
_SAMPLES = 4


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


def sampled(
    model: LanguageModel,
    questions: arithmetic.Questions,
    key: jax.Array,
    *,
    greedy: bool = False,
    processors: Sequence[Processor] = (),
) -> Point:
    """Accuracy and length of solutions that a model samples.

    Args:
      model: the model.
      questions: the questions.
      key: random key.
      greedy: one greedy solution per question in place of samples.
      processors: change the logits.

    Returns:
      The point.
    """
    solved = small.solve(
        model,
        questions,
        samples=1 if greedy else _SAMPLES,
        key=key,
        processors=processors,
        temperature=0.0 if greedy else 1.0,
    )
    return point(solved.correct, solved.length)


def answered(bench: Bench, found: thinking.Thoughts | exiting.Stopped) -> Point:
    """Accuracy and length of one chain per test question.

    Args:
      bench: what all branches share.
      found: the chains.

    Returns:
      The point.
    """
    zero = arithmetic.encode("0")[0]
    answer = [each[0] - zero if len(each) == 1 else -1 for each in found.answers]
    return point(np.array(answer) == bench.test.answer, found.lengths)


def point(correct: np.ndarray, length: np.ndarray) -> Point:
    """Means over all samples.

    Args:
      correct: whether each is right.
      length: tokens of each.

    Returns:
      The point.
    """
    return Point(float(np.mean(correct)), float(np.mean(length)))
