"""Scores of the user's own patients, computed by all processes of a run."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jeff import files
from jeff.arrays import load_arrays
from jeff_llm.genes import prioritise
from jeff_llm.genes.prioritise import Scored
from jeff_llm.genes.ranking import Phenotypes
from train_scripts.genes.data import World
from train_scripts.running import machines

__all__ = ["score"]


def score(
    world: World,
    patients: Sequence[Phenotypes],
    measures: Sequence[str],
    folder: Path,
    *,
    block: int = 512,
) -> dict[str, Scored]:
    """Score all patients; several processes take a block each in turn.

    Args:
      world: release of HPO.
      patients: observed and excluded terms.
      measures: names from `jeff_llm.genes.scoring.MEASURES`.
      folder: where processes leave the scores of a block, until all are read.
      block: patients that a process scores and stores at once.

    Returns:
      Scores by measure.
    """

    def compute(first: int) -> dict[str, Scored]:
        return prioritise.score_cases(
            world.hpo,
            world.tables,
            patients[first : first + block],
            measures,
            mesh=machines.mesh(),
        )

    def store(first: int) -> None:
        path = _path(folder, first)
        if path.is_file():
            return
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {
            f"{name}|{field}": getattr(each, field)
            for name, each in compute(first).items()
            for field in Scored._fields
        }
        with files.replacing(path) as part, part.open("wb") as file:
            np.savez(file, **arrays)

    firsts = range(0, len(patients), block)
    machines.deal(firsts, store)
    blocks = [
        _read(_path(folder, first), measures) or compute(first) for first in firsts
    ]
    shutil.rmtree(folder, ignore_errors=True)
    return {
        name: Scored(
            *(
                np.concatenate(parts)
                for parts in zip(*(b[name] for b in blocks), strict=True)
            )
        )
        for name in measures
    }


def _path(folder: Path, first: int) -> Path:
    return folder / f"{first}.npz"


def _read(path: Path, measures: Sequence[str]) -> dict[str, Scored]:
    if not path.is_file():
        return {}
    arrays = load_arrays(path)
    with files.reading(path, "scores of this run", advice="delete it"):
        return {
            name: Scored(*(arrays[f"{name}|{field}"] for field in Scored._fields))
            for name in measures
        }
