"""The small reasoning model: its training, and how it solves questions."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from configs.reasoning import Config
from jeff import training
from jeff_llm import generate, tuning
from jeff_llm.generate.sampling import Processor
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.reasoning import arithmetic, thinking
from train_scripts.running import machines
from train_scripts.running.seeds import seed_key

__all__ = [
    "MARKERS",
    "MAX_TOKENS",
    "SAMPLED",
    "Solved",
    "pretrain",
    "questions_of",
    "solve",
]

MARKERS = thinking.Markers(
    open=(arithmetic.OPEN,), close=(arithmetic.CLOSE,), wait=(arithmetic.WAIT,)
)
# The longest chain, five operations with three checks each, has 123 tokens.
MAX_TOKENS = 128
SAMPLED = generate.Sampling(1.0)
_EXAMPLES = 20_000
_ROW = 256
# Rows of one call of `generate`, which bound its memory.
_BATCH = 256


class Solved(NamedTuple):
    """Samples of questions, [questions, samples].

    Attributes:
      answer: 0 to 9, or -1 without an answer.
      correct: whether it is right.
      length: generated tokens.
      tokens: the samples, [questions, samples, tokens].
    """

    answer: np.ndarray
    correct: np.ndarray
    length: np.ndarray
    tokens: np.ndarray


def questions_of(config: Config, seed: int, use: str) -> arithmetic.Questions:
    """Questions of one seed; no two uses share a draw.

    Args:
      config: settings of the run.
      seed: the seed.
      use: "pretrain", "reinforce", "tune" or "test".

    Returns:
      The questions.
    """
    counts = {
        "pretrain": _EXAMPLES,
        "reinforce": config.rl_steps * config.batch_size,
        "tune": config.tune,
        "test": config.test,
    }
    number = list(counts).index(use)
    return arithmetic.draw(counts[use], seed=4 * seed + number, signs=config.signs)


def pretrain(
    config: Config, seed: int, folder: Path, *, progress: bool = False
) -> LanguageModel:
    """Train the base on worked solutions; resumes in its folder.

    Args:
      config: settings of the run.
      seed: the seed.
      folder: for log and checkpoints.
      progress: show a progress bar.

    Returns:
      The base.
    """
    sizes = arithmetic.model_config(config.width, config.num_layers)
    questions = questions_of(config, seed, "pretrain")
    packed = tuning.pack(arithmetic.worked(questions, seed=seed), _ROW)
    params = arithmetic.init(sizes, key=seed_key(seed, 0))
    params = _fit(
        sizes, params, packed, config.pretrain_steps, 2e-3, seed, folder, progress
    )
    return LanguageModel(sizes, params, None, f"arithmetic-{seed}")


def solve(
    model: LanguageModel,
    questions: arithmetic.Questions,
    *,
    samples: int,
    key: jax.Array,
    processors: Sequence[Processor] = (),
    temperature: float = 1.0,
    max_tokens: int = MAX_TOKENS,
) -> Solved:
    """Sample solutions of each question.

    Args:
      model: the model.
      questions: the questions.
      samples: samples of each question.
      key: random key.
      processors: change the logits.
      temperature: of the sampling; 0 is greedy.
      max_tokens: longest solution.

    Returns:
      The samples.
    """
    rows = [row for row in questions.prompts for _ in range(samples)]
    keys = jax.random.split(key, len(rows))
    answer = np.repeat(questions.answer, samples)
    found = []
    for begin in range(0, len(rows), _BATCH):
        part = slice(begin, begin + _BATCH)
        drawn = generate.generate(
            model,
            rows[part],
            max_new_tokens=max_tokens,
            sampling=generate.Sampling(temperature),
            keys=keys[part],
            stop_ids=[arithmetic.END],
            processors=processors,
        )
        read = arithmetic.read(
            drawn.tokens, drawn.lengths, drawn.finished, answer[part]
        )
        found.append((read.answer, read.correct, read.length, drawn.tokens))
    shape = (len(questions.answer), samples)
    columns = [np.concatenate(each) for each in zip(*found, strict=True)]
    return Solved(*(each.reshape(*shape, *each.shape[1:]) for each in columns))


def _fit(
    sizes: DecoderConfig,
    params: PyTree,
    packed: tuning.Packed,
    num_steps: int,
    learning_rate: float,
    seed: int,
    folder: Path,
    progress: bool,
) -> PyTree:
    schedule = optax.warmup_cosine_decay_schedule(
        0, learning_rate, max(1, num_steps // 20), num_steps, learning_rate / 20
    )
    optimizer = optax.adamw(schedule, b2=0.98, weight_decay=0.01)
    step = training.make_step(
        lambda params, batch, _: tuning.loss(sizes, params, batch), optimizer
    )
    keys = jax.random.split(seed_key(seed, 1))
    rows = min(8, len(packed.tokens))
    fitted = training.fit(
        step,
        machines.placed(training.init_state(params, optimizer, key=keys[0])),
        training.Shuffled(jax.tree.map(jnp.asarray, packed), rows, keys[1]),
        batch_sharding=machines.batch_sharding(rows, whole=True),
        num_steps=num_steps,
        chunk_steps=min(100, num_steps),
        workdir=machines.kept(folder),
        progress=progress,
        description="base",
    )
    return fitted.state.params
