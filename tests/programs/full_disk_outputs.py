"""Files that are replaced as a whole: what they held stays when the disk is full.

Cases of `full_disk.py`. Each writes a first version, fills the disk under the second,
and writes it again once there is room.
"""

import dataclasses
import hashlib
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from mutated_models import params, tokenizer

from jeff import files, wheels
from jeff_llm.anomaly import store, text_detector
from jeff_llm.confidence import router
from jeff_llm.models import adapters, lora
from train_scripts import report
from train_scripts.routing import logs
from train_scripts.running import plots, results

__all__ = ["CASES", "Disk", "told"]


class Disk:
    """The disk, and what fills it."""

    def __init__(self, folder: Path):
        self.folder, self.ballast = folder, folder / "ballast"

    def fill(self) -> None:
        """Take what is left, down to the last page."""
        for size in (1 << 16, 1 << 12):
            try:
                with self.ballast.open("ab", buffering=0) as file:
                    while file.write(b"x" * size) == size:
                        pass
            except OSError:
                pass

    def clear(self) -> None:
        self.ballast.unlink(missing_ok=True)


def told(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:  # of another kind it is no error that a command shows
        kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
        return kind + str(error)
    return "nothing"


def replaced(disk: Disk, path: Path, write: Callable[[int], Any]) -> dict[str, Any]:
    """Write a file or folder thrice: with room, without, and with room again."""
    write(1)
    old, others = contents(path), beside(disk)
    disk.fill()
    message = told(lambda: write(2))
    kept = contents(path) == old
    left = sorted(beside(disk) - others)
    disk.clear()
    write(2)
    new = contents(path)
    return {
        "message": message,
        "left": left,
        "goes_on": kept and new != old and new.keys() == old.keys(),
    }


def contents(path: Path) -> dict[str, str]:
    inner = path.rglob("*") if path.is_dir() else [path]
    return {str(each): files.digest(each) for each in inner if each.is_file()}


def beside(disk: Disk) -> set[str]:
    every = {str(path.relative_to(disk.folder)) for path in disk.folder.rglob("*")}
    return every - {disk.ballast.name}


def result_of(number: int, folder: Path) -> results.Result:
    part = results.Part({"number": float(number)}, (), f"| {number} |\n" * 2000)
    return results.finish("yodo", "demo", number, 0.0, part, folder)


def a_table(disk: Disk) -> dict[str, Any]:
    return replaced(disk, disk.folder / "table.md", lambda n: result_of(n, disk.folder))


def a_report(disk: Disk) -> dict[str, Any]:
    run = disk.folder / "runs" / "yodo" / "20300102-030405-demo"

    def write(number: int) -> None:
        report.build(disk.folder / "runs", failed={"gre": f"reason {number}"})

    result_of(1, run)
    return replaced(disk, disk.folder / "runs" / "report.html", write)


def a_plot(disk: Disk) -> dict[str, Any]:
    def draw(number: int) -> None:
        with plots.figure(disk.folder / "plot.png") as axes:
            axes.plot([0, number])

    return replaced(disk, disk.folder / "plot.png", draw)


def a_router(disk: Disk) -> dict[str, Any]:
    path = disk.folder / "router.json"
    return replaced(
        disk,
        path,
        lambda n: logs.write_routers(path, {str(n): router.Router(n / 4)}),
    )


def adapters_of_lora(disk: Disk) -> dict[str, Any]:
    factors = lora.init(params(), key=jax.random.key(0), rank=2)

    def write(number: int) -> None:
        scaled = jax.tree.map(lambda leaf: np.asarray(leaf) * number, factors)
        adapters.save(disk.folder / "adapters", scaled, base="tiny")

    return replaced(disk, disk.folder / "adapters", write)


def a_tokenizer(disk: Disk) -> dict[str, Any]:
    def write(number: int) -> None:
        made = tokenizer()
        if number == 2:
            made = made.with_tokens(["<unsure>"])
        made.save(disk.folder / "tokenizer")

    return replaced(disk, disk.folder / "tokenizer", write)


def a_detector(disk: Disk) -> dict[str, Any]:
    texts = [f"text {n}" for n in range(40)]
    detector = text_detector.fit(texts, {}, key=jax.random.key(0))

    def write(number: int) -> None:
        calibration = np.asarray(detector.calibration) * number
        found = dataclasses.replace(detector, calibration=calibration)
        store.save(found, disk.folder / "detector", {})

    return replaced(disk, disk.folder / "detector", write)


def an_asset(disk: Disk) -> dict[str, Any]:
    """A file of a wheel, as it is fetched into the cache."""
    path, versions = disk.folder / "cache" / "data.bin", {}
    for number in (1, 2):
        versions[number] = np.random.default_rng(number).bytes(50_000)
        with zipfile.ZipFile(disk.folder / f"{number}.whl", "w") as wheel:
            wheel.writestr("data.bin", versions[number])

    def write(number: int) -> None:
        wheels.unpack(
            disk.folder / f"{number}.whl",
            "data.bin",
            path,
            size=len(versions[number]),
            sha256=hashlib.sha256(versions[number]).hexdigest(),
        )

    return replaced(disk, path, write)


def a_compiled_program(disk: Disk) -> dict[str, Any]:
    """A program that cannot be cached runs all the same."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    jax.config.update(names[0], str(disk.folder / "xla"))
    jax.config.update(names[1], 0)
    compilation_cache.reset_cache()

    def compute() -> float:
        return float(jax.jit(lambda x: jnp.sin(x) * 3)(jnp.ones(())))

    disk.fill()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first = compute()
    disk.clear()
    jax.clear_caches()
    with warnings.catch_warnings():
        # What was cut short is no program; JAX says so, and compiles it again.
        warnings.simplefilter("ignore")
        second = compute()
    for name, value in zip(names, before, strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    return {
        "message": "; ".join(str(each.message) for each in caught),
        "left": [],
        "goes_on": first == second == float(jnp.sin(1.0) * 3),
    }


CASES = (
    a_table,
    a_report,
    a_plot,
    a_router,
    adapters_of_lora,
    a_tokenizer,
    a_detector,
    an_asset,
    a_compiled_program,
)
