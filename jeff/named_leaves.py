"""Leaves of a tree by name: the path, with its parts joined by slashes."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

__all__ = ["flatten", "is_key", "nest"]


def flatten(tree: PyTree) -> tuple[list[str], list[Any], Any]:
    """Flatten a tree into the names of its leaves, the leaves, and its structure.

    Args:
      tree: the tree.

    Returns:
      Names such as ``params/layers/0/kernel``, the leaves, and the structure.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
    return (
        [_path_name(path) for path, _ in leaves],
        [leaf for _, leaf in leaves],
        treedef,
    )


def nest(leaves: dict[str, Any]) -> dict[str, Any]:
    """Nest leaves by the parts of their names.

    Args:
      leaves: leaves by name.

    Returns:
      A nested dictionary.

    Raises:
      ValueError: if one leaf's name is the beginning of another's.

    >>> nest({"a/b": 1, "c": 2})
    {'a': {'b': 1}, 'c': 2}
    """
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        node = tree
        for depth, parent in enumerate(parents, start=1):
            if "/".join(parents[:depth]) in leaves:
                raise ValueError(
                    f"{name}: expected a name of its own, got one that begins with "
                    f"that of another leaf, {'/'.join(parents[:depth])}; rename one"
                )
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def is_key(leaf: Any) -> bool:
    """Whether a leaf is a typed random key, or an array of them.

    Args:
      leaf: the leaf, or its `jax.ShapeDtypeStruct`.

    Returns:
      True if it is.
    """
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _path_name(path: tuple[Any, ...]) -> str:
    # A bare array has an empty path.
    return jax.tree_util.keystr(path, simple=True, separator="/") or "value"
