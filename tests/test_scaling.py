"""Test the page on scaling: its commands, its code and its arithmetic."""

import re
import shlex
from pathlib import Path

import jax
import pytest
import tyro

from benchmarks import cost, records
from configs import finetune
from jeff import assets
from jeff_llm.models import decoder, weights
from train_scripts import cli
from train_scripts.running.options import take

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"


def commands() -> list[list[str]]:
    """Words behind ``python -m`` of every command on the page."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), flags=re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = []
    for line in filter(None, lines):
        words = line.partition("python -m ")[2].rstrip('"')
        found.append(shlex.split(words.replace("$JOB_COMPLETION_INDEX", "15")))
    return found


def test_its_commands_are_understood() -> None:
    """Each is read as the scripts read it, and names a system and a preset."""
    lines = commands()
    assert len(lines) == 7
    for program, *words in lines:
        machine, rest = take(words)
        assert machine != ("", ""), words
        if program == "train_scripts.finetune":
            assert tyro.cli(finetune.Config, args=rest).data
            continue
        command, fields = cli._parse(words)
        assert (command.mesh, command.distributed) == machine
        presets = cli._presets(command.system)
        chosen = presets[command.preset]
        tyro.cli(type(chosen), default=chosen, args=fields)


@pytest.mark.slow
def test_its_code() -> None:
    """A reader with one device runs it too."""
    try:
        for name in ("smollm2", "minilm"):
            assets.find(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    names: dict = {}
    exec(compile(block, PAGE.name, "exec"), names)
    alone = weights.load("smollm2").params["embedding"]
    assert (names["model"].params["embedding"] == alone).all()
    assert names["texts"].encode(["a text"]).shape == (1, 384)
    jax.clear_caches()


def test_its_tables_are_those_of_the_records() -> None:
    """``python -m benchmarks.cost --write`` has nothing to change."""
    found = {name: each for name, each in records.load() if "cpu" in each["device"]}
    assert cost.table(found) in PAGE.read_text()


def test_memory_is_that_of_the_decoder() -> None:
    """The parameters are counted where they are made, and the cache where it is."""
    sizes = cost.memory({"K4V2": 0.25})
    shapes = jax.eval_shape(
        lambda key: decoder.init(cost.LARGE, key=key), jax.random.key(0)
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert sizes["parameters, 10^9"] == pytest.approx(count / 1e9, rel=1e-3)
    cache = sizes["cache of 131,072 tokens in bfloat16"]
    assert cache == 131_072 * 80 * 2 * 8 * 128 * 2 / 2**30
    assert sizes["cache of 131,072 tokens, K4V2"] == cache / 4
