"""Trees of arrays in a file, for what one process hands to another.

A checkpoint is written by all processes together, these files by any one of them.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jeff import files, named_leaves
from jeff.arrays import load_arrays

__all__ = ["read_tree", "write_tree"]


def write_tree(path: Path, tree: PyTree) -> None:
    """Write the leaves of a tree under their names, as an ``.npz`` file.

    Args:
      path: the file.
      tree: arrays and numbers; no typed keys.

    Raises:
      OSError: if it cannot be written.
    """
    names, leaves, _ = named_leaves.flatten(tree)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: Any = dict(zip(names, map(np.asarray, leaves), strict=True))
    with files.replacing(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)


def read_tree(path: Path, like: PyTree) -> PyTree:
    """Read a tree that `write_tree` wrote.

    Args:
      path: the file.
      like: a tree of the same structure; its leaves are not looked at.

    Returns:
      The tree.

    Raises:
      ValueError: if the file is damaged, or of another tree; says what to do.
    """
    found = load_arrays(path)
    names, _, treedef = named_leaves.flatten(like)
    if set(names) != set(found):
        raise ValueError(
            f"{path}: expected leaves {sorted(names)[:5]}, got {sorted(found)[:5]}; "
            "delete it, and it is made again"
        )
    return jax.tree.unflatten(treedef, [jnp.asarray(found[name]) for name in names])
