"""Restore a checkpoint after each of many flipped bits, and print what came of it.

usage: flipped_bits.py FOLDER COUNT
"""

import random
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jeff import checkpoint

TREE = {
    "w": jax.random.normal(jax.random.key(1), (5, 7)),
    "half": {"b": jnp.arange(9, dtype=jnp.bfloat16) / 7, "i": jnp.int8(-3)},
    "long": np.arange(4) * 2**40,
    "none": jnp.zeros((0, 3)),
    "key": jax.random.key(2),
    "rate": 0.1,
}
USER = {"note": [1, "a"], "best_value": 0.25}


def words(tree: dict) -> list[bytes]:
    plain = tree | {"key": jax.random.key_data(tree["key"])}
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(plain)]


def outcome(path: Path, expected: list[bytes]) -> str:
    try:
        same = words(checkpoint.restore(path, TREE)) == expected
        same &= checkpoint.metadata(path) == USER
    except checkpoint.DamagedError as error:
        return "named" if str(path) in str(error) else f"no name: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "same" if same else "OTHER NUMBERS"


def main(folder: str, count: int) -> None:
    path = checkpoint.save(Path(folder) / "saved", TREE, metadata=USER)
    expected = words(checkpoint.restore(path, TREE))
    files = sorted(file for file in path.rglob("*") if file.is_file())
    draw = random.Random(0)
    for number in range(count):
        file = files[number % len(files)]
        whole = file.read_bytes()
        place, bit = draw.randrange(len(whole)), draw.randrange(8)
        broken = bytearray(whole)
        broken[place] ^= 1 << bit
        file.write_bytes(broken)
        print(f"{file.relative_to(path)}:{place}.{bit} {outcome(path, expected)}")
        file.write_bytes(whole)
    print("whole", outcome(path, expected))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
