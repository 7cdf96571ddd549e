"""What digests cost a checkpoint, and jeff's checkpoints against those of plain orbax.

``python -m benchmarks.checkpoint`` prints medians and ratios and writes
``benchmarks/results/checkpoint-<device>.json``. The sides save and restore the same
tree, in turn, in one process:

  jeff      `jeff.checkpoint`
  without   the same without computing digests
  orbax     orbax's `PyTreeCheckpointer`, the peer

The share of digests is the time of computing them alone over the time of a save: both
are of the same process, and the difference of two saves is smaller than their spread.
"""

import dataclasses
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import orbax.checkpoint as ocp
import tyro

from benchmarks import records
from jeff import checkpoint, digests, stored
from train_scripts.running import results

RESULTS = Path(__file__).parent / "results"


@dataclasses.dataclass(frozen=True)
class Config:
    """What is timed."""

    # Sizes of the trees, in megabytes.
    megabytes: tuple[int, ...] = (10, 500)
    # Leaves of a tree, equal in size.
    leaves: int = 20
    # Saves and restores of each side, in turn.
    repeats: int = 21
    # Folder for the checkpoints; a temporary one by default.
    folder: str = ""


def tree_of(megabytes: int, leaves: int) -> dict[str, jax.Array]:
    """Random numbers, which do not compress."""
    draw = np.random.default_rng(0)
    size = megabytes * 1_000_000 // 4 // leaves
    return {
        f"layer{n}": jax.device_put(draw.normal(size=size).astype(np.float32))
        for n in range(leaves)
    }


def save_without(path: Path, tree: Any) -> None:
    with mock.patch.object(stored.digests, "array_digests", return_value=None):
        checkpoint.save(path, tree)


def restore_without(path: Path, tree: Any) -> Any:
    with mock.patch.object(stored.digests, "first_changed", return_value=None):
        return checkpoint.restore(path, tree)


def save_orbax(path: Path, tree: Any) -> None:
    with ocp.PyTreeCheckpointer() as saver:
        saver.save(path, tree)


def restore_orbax(path: Path, tree: Any) -> Any:
    args = ocp.checkpoint_utils.construct_restore_args(tree)
    with ocp.PyTreeCheckpointer() as saver:
        return saver.restore(path, item=tree, restore_args=args)


SIDES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "jeff": (checkpoint.save, checkpoint.restore),
    "without": (save_without, restore_without),
    "orbax": (save_orbax, restore_orbax),
}


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def measure(config: Config, megabytes: int, folder: Path) -> dict[str, float]:
    tree = tree_of(megabytes, config.leaves)
    times: dict[str, list[float]] = {}
    # The first round of all is thrown away.
    for turn in range(config.repeats + 1):
        # Each side comes first in turn: the first one after a pause is slower.
        sides = list(SIDES)
        for side in sides[turn % 3 :] + sides[: turn % 3]:
            save, restore = SIDES[side]
            path = folder / f"{side}-{turn}"
            found = {
                f"save_{side}": seconds(lambda: save(path, tree)),  # noqa: B023
                f"restore_{side}": seconds(lambda: restore(path, tree)),  # noqa: B023
            }
            shutil.rmtree(path)
            for name, value in found.items() if turn else ():
                times.setdefault(name, []).append(value)
        alone = seconds(lambda: digests.array_digests(tree) and 0)
        times.setdefault("digests", []).append(alone)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return medians | {
        "share_of_save": medians["digests"] / medians["save_jeff"],
        "share_of_restore": medians["digests"] / medians["restore_jeff"],
        "save_over_orbax": medians["save_jeff"] / medians["save_orbax"],
        "restore_over_orbax": medians["restore_jeff"] / medians["restore_orbax"],
    }


def main(config: Config) -> None:
    device = results.device_name()
    found = {}
    with tempfile.TemporaryDirectory(dir=config.folder or None) as folder:
        for megabytes in config.megabytes:
            found[f"{megabytes} MB"] = row = measure(config, megabytes, Path(folder))
            print(f"{megabytes} MB on {device}")
            for name, value in row.items():
                print(f"  {name:20} {value:.4f}")
    records.write("checkpoint", {"medians": found}, config)


if __name__ == "__main__":
    main(tyro.cli(Config))
