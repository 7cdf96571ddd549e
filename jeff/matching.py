"""What each leaf of a checkpoint is to be read as, checked against a tree asked for."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding
from jaxtyping import PyTree

from jeff import named_leaves, storable

__all__ = ["match"]


def match(
    stored: dict[str, jax.ShapeDtypeStruct],
    keys: dict[str, str],
    like: PyTree | None,
    path: Path,
) -> dict[str, jax.ShapeDtypeStruct]:
    """Choose shape, dtype and sharding of each stored leaf, checked against ``like``.

    Args:
      stored: shape and dtype by name, as given by `jeff.stored.describe`.
      keys: names of the leaves that are typed keys.
      like: the tree asked for, or None.
      path: directory of the checkpoint, for errors.

    Returns:
      What each leaf is to be read as, by name.

    Raises:
      ValueError: if the checkpoint differs from ``like``; names what differs.
    """
    # Without a sharding in `like` a leaf goes to the default device: the devices on
    # which it was saved may not exist here.
    here = SingleDeviceSharding(jax.local_devices()[0])
    if like is None:
        return {name: _struct(leaf, here) for name, leaf in stored.items()}
    names, leaves, _ = named_leaves.flatten(like)
    # By name and not by place: a tree of another structure must not be filled in
    # silence.
    missing, surplus = set(names) - set(stored), set(stored) - set(names)
    if missing or surplus or len(names) > len(stored):
        raise ValueError(
            f"{path}: the checkpoint is of another structure: it lacks "
            f"{sorted(missing)[:5]} and has {sorted(surplus)[:5]} besides; build "
            "`like` as it was when the checkpoint was written"
        )
    target = {}
    for name, leaf in zip(names, leaves, strict=True):
        if named_leaves.is_key(leaf) != (name in keys):
            raise ValueError(f"{path}: {name}: one side is a random key, one is not")
        sharding = getattr(leaf, "sharding", None) or here
        if not named_leaves.is_key(leaf):
            # What saving it would store: for a number of Python 64 bits.
            wanted = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
            wanted = (
                storable.native(wanted) if isinstance(wanted, np.ndarray) else wanted
            )
            if (stored[name].shape, stored[name].dtype) != (wanted.shape, wanted.dtype):
                raise ValueError(
                    f"{path}: {name}: expected {wanted.dtype}{wanted.shape}, the "
                    f"checkpoint holds {stored[name].dtype}{stored[name].shape}; build "
                    "`like` as it was when the checkpoint was written"
                )
        target[name] = _struct(stored[name], sharding)
    return target


def _struct(leaf: Any, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
