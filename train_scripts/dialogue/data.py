"""Items of the dialogue script, and their mazes."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from configs.dialogue import Config
from jeff import assets
from jeff_llm.clinic.items import Item, make_items
from jeff_llm.clinic.making import make_mazes
from jeff_llm.clinic.maze import Maze
from jeff_llm.clinic.questions import read_questions
from jeff_llm.clinic.simulation import simulate_questions
from jeff_llm.genes import hpo
from train_scripts.running.seeds import seed_key

__all__ = ["Study", "items", "make_study"]

_MEDQA = "medqa/medqa_us_test.jsonl"
_SPLIT, _MAZES, _QUESTIONS = 1, 2, 3


class Study(NamedTuple):
    """Items of one data set and seed.

    Attributes:
      name: of the data set.
      seed: of split and mazes.
      train: items to train on.
      mazes: tasks of the test items by noise.
    """

    name: str
    seed: int
    train: list[Item]
    mazes: dict[int, list[Maze]]

    @property
    def test(self) -> list[Item]:
        """Test items, in the order of the mazes."""
        return [maze.item for maze in next(iter(self.mazes.values()))]

    def subset(self, places: list[int]) -> dict[int, list[Maze]]:
        """Mazes of some test items.

        Args:
          places: of the items.

        Returns:
          Tasks by noise.
        """
        return {n: [mazes[p] for p in places] for n, mazes in self.mazes.items()}


@functools.lru_cache(maxsize=4)
def items(name: str, simulated: int) -> list[Item]:
    """Every item of a data set.

    Args:
      name: "medqa" or "simulated".
      simulated: number of simulated questions.

    Returns:
      The items; questions that make none are left out.

    Raises:
      FileNotFoundError: if the data are missing; says how to get them.
    """
    if name == "medqa":
        questions = read_questions(assets.shared_file(_MEDQA)).questions
    else:
        questions = simulate_questions(
            hpo.load(), simulated, key=seed_key(0, _QUESTIONS)
        )
    return make_items(questions).items


def make_study(config: Config, name: str, seed: int) -> Study:
    """Split a data set, and make the mazes of its test items.

    Args:
      config: settings of the run.
      name: of the data set.
      seed: of the split.

    Returns:
      The study.

    Raises:
      ValueError: if no item remains to train on or to test.
    """
    found = items(name, config.simulated)
    order = np.asarray(jax.random.permutation(seed_key(seed, _SPLIT), len(found)))
    num_train = int(config.split * len(found))
    fewest, most = config.evidence
    test = [
        found[place]
        for place in order[num_train:]
        if fewest <= len(found[place].evidence) <= most
    ]
    if not num_train or not test:
        raise ValueError(
            f"split, evidence: expected items of {name} to train on and to test, got "
            f"{num_train} and {len(test)} of {len(found)}; tested items have {fewest} "
            f"to {most} sentences of evidence"
        )
    test = test[: config.test_items or len(test)]
    mazes = make_mazes(test, noise=config.noise, key=seed_key(seed, _MAZES))
    return Study(name, seed, [found[place] for place in order[:num_train]], mazes)
