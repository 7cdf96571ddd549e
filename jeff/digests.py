"""Digests that notice a damaged array or record; not a protection against forgery.

An array that a process holds completely is hashed on the host with xxh3_128. An array
that is split over several processes has a sum instead, computed on its devices: each
mixed 32-bit word times an odd number that depends on its place, modulo 2^32. A changed
bit changes both, and neither depends on how the array is placed.
"""

import concurrent.futures
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xxhash

__all__ = [
    "array_digest",
    "array_digests",
    "first_changed",
    "json_digest",
]

# Leaves that are hashed at a time, and so are on the host beside the tree.
_AT_ONCE = min(4, os.cpu_count() or 1)
# From here on threads save more than it takes to start them.
_MANY_BYTES = 1 << 26

_HASH, _SUM = "xxh3_128", "sum32"


def array_digest(array: jax.Array | np.ndarray) -> str:
    """Digest of an array: its dtype, shape and bits.

    Args:
      array: the array. If it is split over several processes, all of them must call.

    Returns:
      ``"xxh3_128:..."``, or ``"sum32:..."`` for an array split over several processes.

    >>> array_digest(np.zeros(2, np.int8)) == array_digest(np.zeros(3, np.int8))
    False
    """
    return f"{_HASH}:{_hashed(array)}" if _whole(array) else f"{_SUM}:{_summed(array)}"


def _same_array(array: jax.Array | np.ndarray, digest: str) -> bool | None:
    """Compare an array with a digest.

    Args:
      array: the array. If it is split over several processes, all of them must call.
      digest: as given by `array_digest`, perhaps for another placement of the array.

    Returns:
      True or False; None if they cannot be compared: the digest is of an array that
      one process held, and this array is split over several processes.
    """
    kind, _, value = digest.partition(":")
    if kind == _SUM:
        return _summed(array) == value
    if not _whole(array):
        return None
    return kind == _HASH and _hashed(array) == value


def array_digests(arrays: Mapping[str, jax.Array | np.ndarray]) -> dict[str, str]:
    """Digests of several arrays, on several cores.

    Args:
      arrays: arrays by name.

    Returns:
      As `array_digest` gives them, by name.
    """
    whole = [name for name, array in arrays.items() if _whole(array)]
    hashed = _map(lambda name: array_digest(arrays[name]), whole, arrays)
    found = dict(zip(whole, hashed, strict=True))
    # Sums are computed by all processes together, in one order.
    return {name: found.get(name) or array_digest(arrays[name]) for name in arrays}


def first_changed(
    arrays: Mapping[str, jax.Array | np.ndarray], known: Mapping[str, str]
) -> str | None:
    """Name of an array that differs from its digest.

    Args:
      arrays: arrays by name.
      known: their digests.

    Returns:
      The first one in the order of ``known``, or None.
    """

    def same(name: str) -> bool | None:
        return _same_array(arrays[name], known[name])

    names = [name for name in known if _whole(arrays[name])]
    apart = [name for name in known if name not in set(names)]
    found = dict(zip(names, _map(same, names, arrays), strict=True))
    # Sums are computed by all processes together, in one order.
    found |= {name: same(name) for name in apart}
    return next((name for name in known if found[name] is False), None)


def _map(
    function: Callable[[str], Any],
    names: list[str],
    arrays: Mapping[str, jax.Array | np.ndarray],
) -> list[Any]:
    if sum(arrays[name].nbytes for name in names) < _MANY_BYTES:
        return [function(name) for name in names]
    # Hashing lets go of Python's lock, and one core does not fill the memory's width.
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(function, names))


def json_digest(value: Any) -> str:
    """Digest of a value that is, or was, JSON.

    Args:
      value: the value; the order of its keys does not matter.

    Returns:
      The digest in hexadecimal.
    """
    # Read back first: only then are all keys texts, which can be sorted.
    plain = json.loads(json.dumps(value))
    return xxhash.xxh3_128_hexdigest(json.dumps(plain, sort_keys=True).encode())


def _whole(array: jax.Array | np.ndarray) -> bool:
    return not isinstance(array, jax.Array) or (
        array.is_fully_addressable or array.is_fully_replicated
    )


def _hashed(array: jax.Array | np.ndarray) -> str:
    if isinstance(array, jax.Array):
        # A jax.Array keeps its copy on the host; that of another view of the same
        # buffers is freed with the view.
        shards = [shard.data for shard in array.addressable_shards]
        array = np.asarray(
            jax.make_array_from_single_device_arrays(
                array.shape, array.sharding, shards
            )
        )
    state = xxhash.xxh3_128(f"{array.dtype.name}{array.shape}".encode())
    state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def _summed(array: jax.Array | np.ndarray) -> str:
    return f"{int(_sum(array)):08x}-{jnp.dtype(array.dtype).name}{array.shape}"


@jax.jit
def _sum(array: jax.Array) -> jax.Array:
    if jnp.iscomplexobj(array):
        array = jnp.stack([array.real, array.imag], axis=-1)
    if array.dtype == bool:
        array = array.astype(jnp.uint8)
    width = jnp.dtype(array.dtype).itemsize
    # A type of 8 bytes becomes two words along a new last axis.
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(width, jnp.uint32)
    words = jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        place = place * jnp.uint32(size)
        place += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    factor = _mixed(place) * jnp.uint32(2) + jnp.uint32(1)
    # Words are mixed too: two changed signs would otherwise cancel.
    return jnp.sum(_mixed(words) * factor, dtype=jnp.uint32)


def _mixed(words: jax.Array) -> jax.Array:
    """Spread each bit over its word; different words stay different."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x9E3779B1)
    return words ^ (words >> 15)
