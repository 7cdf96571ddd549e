"""Fill a small disk under whatever jeff writes, then make room, and print what came.

usage: full_disk.py FOLDER MODEL   FOLDER is a file system of its own, of 8 MB
"""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from full_disk_outputs import CASES, Disk, told

from configs.finetune import Config
from jeff import checkpoint, files, runlog, training
from jeff_llm.models import weights
from train_scripts.cli import quiet_libraries
from train_scripts.finetune import run as finetune
from train_scripts.running import results, workdir

OPTIMIZER = optax.sgd(0.1)


def _loss(params: Any, batch: Any, key: jax.Array) -> Any:
    del key
    return jnp.mean((params["w"][:8] - batch["x"]) ** 2), {}


STEP = training.make_step(_loss, OPTIMIZER)


def a_checkpoint(disk: Disk) -> dict[str, Any]:
    path = disk.folder / "saved"
    tree = {"w": jax.random.normal(jax.random.key(0), (50_000,))}
    disk.fill()
    message = told(lambda: checkpoint.save(path, tree))
    left = [p.name for p in disk.folder.iterdir() if p != disk.ballast]
    disk.clear()
    restored = checkpoint.restore(checkpoint.save(path, tree))
    same = np.array_equal(restored["w"], tree["w"])
    return {"message": message, "left": left, "goes_on": same}


def a_training(disk: Disk) -> dict[str, Any]:
    """The disk is full from the third epoch on."""

    def train(folder: Path, validate: Any = None) -> training.FitResult:
        params = {"w": jax.random.normal(jax.random.key(0), (20_000,))}
        return training.fit(
            STEP,
            training.init_state(params, OPTIMIZER, key=jax.random.key(0)),
            training.Shuffled({"x": jnp.ones((8, 8))}, 4, jax.random.key(1)),
            num_steps=12,
            workdir=folder,
            validate=validate,
            progress=False,
        )

    epochs = iter(range(9))

    run = disk.folder / "run"

    def validate(state: Any) -> dict[str, float]:
        if next(epochs) == 2:
            # Written in the background: whole before the disk is full, on any machine.
            while not (run / "checkpoints" / "4").is_dir():
                time.sleep(0.01)
            disk.fill()
        return {}

    message = told(lambda: train(run, validate))
    left = sorted(p.name for p in (run / "checkpoints").iterdir())
    disk.clear()
    again, whole = train(run), train(disk.folder / "whole")
    same = np.array_equal(again.state.params["w"], whole.state.params["w"])
    same &= [r["loss"] for r in again.history] == [r["loss"] for r in whole.history]
    return {"message": message, "left": left, "goes_on": bool(same)}


def a_log(disk: Disk) -> dict[str, Any]:
    with runlog.RunLog(disk.folder, 999, show=False) as log:
        log.write({"step": 1})
        disk.fill()
        message = told(lambda: [log.write({"step": n}) for n in range(2, 999)])
    disk.clear()
    rows = runlog.read_rows(disk.folder)
    again = runlog.RunLog(disk.folder, 999, len(rows), show=False)
    return {"message": message, "left": [], "goes_on": again.rows == rows != []}


def a_result(disk: Disk) -> dict[str, Any]:
    old = results.Result("yodo", "demo", 0, "cpu", 1.0, {"a": "1"}, {"b": 1.0}, ())
    results.write(old, disk.folder)
    new = dataclasses.replace(old, versions={str(n): "1" for n in range(3000)})
    disk.fill()
    message = told(lambda: results.write(new, disk.folder))
    kept = results.read(disk.folder / "result.json") == old
    disk.clear()
    results.write(new, disk.folder)
    done = results.read(disk.folder / "result.json") == new
    return {"message": message, "left": [], "goes_on": kept and done}


def a_new_run(disk: Disk) -> dict[str, Any]:
    @dataclasses.dataclass(frozen=True)
    class Settings:
        text: str = "x" * 9999

    def begin() -> None:
        with workdir.open_workdir(disk.folder, "yodo", "demo", Settings(), "c"):
            pass

    disk.fill()
    message = told(begin)
    left = [p.name for p in disk.folder.rglob("*-demo")]
    disk.clear()
    begin()
    return {"message": message, "left": left, "goes_on": True}


def a_merged_model(disk: Disk, model: str) -> dict[str, Any]:
    data = disk.folder / "data.jsonl"
    row = json.dumps({"prompt": "say red", "answer": "red"})
    data.write_text(f"{row}\n" * 4)
    config = Config(str(data), str(disk.folder / "tuned"), model, num_epochs=1)
    config = dataclasses.replace(config, batch_size=2, max_tokens=64)
    save = weights.save

    def full(*arguments: Any) -> Any:
        disk.fill()
        return save(*arguments)

    weights.save = full
    message = told(lambda: finetune.run(config, progress=False))
    weights.save = save
    run = disk.folder / "tuned"
    left = sorted(p.name for p in run.iterdir() if p.name in ("merged", "summary.json"))
    kept = files.digest(run / "adapters" / "adapter_model.safetensors")
    disk.clear()
    finetune.run(config, progress=False)
    same = kept == files.digest(run / "adapters" / "adapter_model.safetensors")
    weights.load(run / "merged")
    return {"message": message, "left": left, "goes_on": same}


def main(folder: str, model: str) -> None:
    quiet_libraries()
    disk = Disk(Path(folder))
    for case in (a_checkpoint, a_training, a_log, a_result, a_new_run, *CASES):
        print(json.dumps({"case": case.__name__, **case(disk)}), flush=True)
    outcome = a_merged_model(disk, model)
    print(json.dumps({"case": a_merged_model.__name__, **outcome}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
