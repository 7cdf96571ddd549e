"""Meshes and placement, from one device to many hosts.

One mesh shape serves all: axes ``data`` (the batch is split, parameters are copied),
``fsdp`` (both are split) and ``tensor`` (parameters alone are split). Axes of size 1
cost nothing, so code written for the mesh runs unchanged on a laptop. The compiler
inserts the communication: place the inputs, then call the jitted function.

On several hosts call ``jax.distributed.initialize()`` first, before any other use of
JAX. Each process then holds its own part of a batch and calls the same functions.
"""

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import PyTree

__all__ = [
    "batch_sharding",
    "batches_of",
    "check_own_devices",
    "gather",
    "is_local",
    "make_mesh",
    "mesh_of",
    "replicate",
    "shard_batch",
    "shard_params",
    "specs",
]

Rules: TypeAlias = Sequence[tuple[str, PartitionSpec]]

_BATCH_AXES = ("data", "fsdp")


def make_mesh(
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    *,
    devices: Sequence[jax.Device] | None = None,  # pyright: ignore
) -> Mesh:
    """A mesh with the axes ``data``, ``fsdp`` and ``tensor``.

    Args:
      data: devices along ``data``; one of the three sizes may be -1, for all devices
        that are left.
      fsdp: devices along ``fsdp``.
      tensor: devices along ``tensor``.
      devices: the devices to use; all devices of all processes by default.

    Returns:
      The mesh, laid out so that neighbours along ``tensor`` are close to each other.

    Raises:
      ValueError: if a size is neither positive nor -1, more than one is -1, or the
        sizes do not multiply to the number of devices.

    >>> dict(make_mesh(devices=jax.devices()[:1]).shape)
    {'data': 1, 'fsdp': 1, 'tensor': 1}
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    for name, size in sizes.items():
        if size < 1 and size != -1:
            raise ValueError(f"{name}: expected a positive size or -1, got {size}")
    free = [name for name, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise ValueError(f"expected at most one size of -1, got {' and '.join(free)}")
    taken = int(np.prod([size for size in sizes.values() if size != -1]))
    if free:
        sizes[free[0]] = len(devices) // taken
    if int(np.prod(list(sizes.values()))) != len(devices):
        given = ", ".join(f"{name}={size}" for name, size in sizes.items())
        raise ValueError(
            f"{given}: expected sizes whose product is the number of devices, "
            f"{len(devices)}; choose divisors of it, or pass fewer devices"
        )
    return jax.make_mesh(
        tuple(sizes.values()),
        tuple(sizes),
        axis_types=(AxisType.Auto,) * len(sizes),
        devices=devices,
    )


def check_own_devices(mesh: Mesh) -> None:
    """Refuse a mesh that spans processes, where each works on rows of its own.

    Args:
      mesh: the mesh.

    Raises:
      ValueError: if it has devices of another process.
    """
    if any(device.process_index != jax.process_index() for device in mesh.devices.flat):
        raise ValueError(
            "mesh: expected devices of this process alone, got those of others; give "
            "each process its own rows and make_mesh(devices=jax.local_devices())"
        )


def mesh_of(params: PyTree) -> Mesh | None:
    """The mesh on which parameters lie.

    Args:
      params: a pytree of arrays.

    Returns:
      A mesh of `make_mesh`; None where they lie on a single device, or elsewhere.

    >>> mesh = make_mesh(devices=jax.devices()[:1])
    >>> mesh_of(replicate(np.ones(3), mesh)) == mesh
    True
    """
    home = getattr(next(iter(jax.tree.leaves(params)), None), "sharding", None)
    mesh = getattr(home, "mesh", None)
    ours = isinstance(mesh, Mesh) and set(mesh.axis_names) >= {*_BATCH_AXES, "tensor"}
    return mesh if ours else None


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: first axis over ``data`` and ``fsdp``, others whole.

    Args:
      mesh: a mesh of `make_mesh`.

    Returns:
      The sharding, for arrays of any rank above 0.
    """
    # Over fsdp too: devices that hold parts of the parameters work on different rows.
    return NamedSharding(mesh, PartitionSpec(_BATCH_AXES))


def batches_of(
    rows: int,
    mesh: Mesh | None,
    *,
    whole: bool = False,
    name: str = "batch_size",
) -> NamedSharding | None:
    """How batches of a size are split, as `jeff.training.fit` takes it.

    Args:
      rows: of each batch.
      mesh: a mesh of `make_mesh`, or None for a single device.
      whole: whether all devices get rows whole that cannot be split evenly: for a size
        that is not the one asked for.
      name: of the number, for the error.

    Returns:
      `batch_sharding` of the mesh; None without one, and for rows that stay whole.

    Raises:
      ValueError: if the rows cannot be split evenly.

    >>> batches_of(3, None) is None
    True
    """
    if mesh is None:
        return None
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if rows % parts:
        if whole:
            return None
        raise ValueError(
            f"{name}: expected a multiple of {parts}, the devices along data and fsdp "
            f"that share them, got {rows} rows; take another number or mesh"
        )
    return batch_sharding(mesh)


def shard_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """Split a batch over the devices of a mesh.

    With several processes each passes its own rows, equally many, and gets the global
    array, whose first axis holds the rows of all processes. Processes that
    share a place along ``data`` and ``fsdp`` (a ``tensor`` axis that spans them) must
    pass the same rows.

    Args:
      batch: a pytree of arrays; their first axes may differ.
      mesh: a mesh of `make_mesh`.

    Returns:
      A pytree of global arrays, sharded by `batch_sharding`.

    Raises:
      ValueError: naming the first leaf whose first axis cannot be split evenly.

    >>> mesh = make_mesh(devices=jax.devices()[:1])
    >>> batch = shard_batch({"x": np.ones((4, 2))}, mesh)
    >>> batch["x"].sharding == batch_sharding(mesh)
    True
    """
    sharding = batch_sharding(mesh)
    # A row of places shares one part of the batch; this process must hold the parts of
    # all rows in which it has a device.
    places = mesh.devices.reshape(-1, mesh.shape["tensor"])
    mine = jax.process_index()
    local = sum(any(d.process_index == mine for d in place) for place in places)

    def shard(path: jax.tree_util.KeyPath, leaf: ArrayLike) -> jax.Array:
        shape = np.shape(leaf)
        if not shape or shape[0] % local:
            raise ValueError(
                f"batch leaf {_name(path)}: expected a first axis that is a multiple "
                f"of {local}, the part of the mesh's data x fsdp in this process, got "
                f"shape {shape}; drop or pad the last rows"
            )
        rows = shape[0] // local * len(places)
        return jax.make_array_from_process_local_data(
            sharding, leaf, (rows, *shape[1:])
        )

    return jax.tree_util.tree_map_with_path(shard, batch)


def specs(params: PyTree, rules: Rules) -> PyTree:
    """The partition of every parameter, by rules on its name.

    A name is the path of the leaf joined with "/", such as ``layers/0/kernel``. The
    first rule whose pattern is found in the name decides; without one the leaf is
    replicated.

    Args:
      params: a pytree of arrays.
      rules: pairs of a regular expression (searched, so anchor it where it matters) and
        a partition.

    Returns:
      A pytree like ``params``, with a `PartitionSpec` for each leaf.

    Raises:
      ValueError: naming the leaf whose rule has more dimensions than it.

    >>> rules = [("kernel", PartitionSpec("fsdp", None))]
    >>> chosen = specs({"kernel": np.ones((4, 2)), "bias": np.ones(2)}, rules)
    >>> tuple(chosen["kernel"]), tuple(chosen["bias"])
    (('fsdp', None), ())
    """
    patterns = [(re.compile(pattern), spec) for pattern, spec in rules]

    def choose(path: jax.tree_util.KeyPath, leaf: ArrayLike) -> PartitionSpec:
        name = _name(path)
        found = next((rule for rule in patterns if rule[0].search(name)), None)
        if found is None:
            return PartitionSpec()
        pattern, spec = found
        if len(spec) > np.ndim(leaf):
            raise ValueError(
                f"rule {pattern.pattern!r} for {name}: expected a partition of at most "
                f"{np.ndim(leaf)} dimensions for shape {np.shape(leaf)}, got {spec}"
            )
        return spec

    return jax.tree_util.tree_map_with_path(choose, params)


def shard_params(params: PyTree, mesh: Mesh, rules: Rules = ()) -> PyTree:
    """Place parameters on a mesh, split by rules on their names.

    With several processes all must pass the same values.

    Args:
      params: a pytree of arrays.
      mesh: a mesh of `make_mesh`.
      rules: pairs of a regular expression and a partition, as in `specs`; everything is
        replicated by default.

    Returns:
      A pytree of global arrays.

    Raises:
      ValueError: naming the first leaf whose rule does not fit its shape, or names an
        axis that the mesh lacks.

    >>> mesh = make_mesh(devices=jax.devices()[:1])
    >>> rules = [("kernel", PartitionSpec("fsdp"))]
    >>> params = shard_params({"kernel": np.ones((4, 2))}, mesh, rules)
    >>> tuple(params["kernel"].sharding.spec)
    ('fsdp',)
    """

    def place(
        path: jax.tree_util.KeyPath, leaf: ArrayLike, spec: PartitionSpec
    ) -> jax.Array:
        _check_partition(_name(path), np.shape(leaf), spec, mesh)
        return _place(leaf, NamedSharding(mesh, spec))

    return jax.tree_util.tree_map_with_path(place, params, specs(params, rules))


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Copy arrays to every device of a mesh.

    With several processes all must pass the same values.

    Args:
      tree: a pytree of arrays.
      mesh: a mesh of `make_mesh`.

    Returns:
      A pytree of global arrays.

    >>> copied = replicate(np.ones(3), make_mesh(devices=jax.devices()[:1]))
    >>> copied.sharding.is_fully_replicated
    True
    """
    return shard_params(tree, mesh)


def gather(tree: PyTree) -> PyTree:
    """Bring arrays of several processes to each of them.

    What one process then does with them concerns no other.

    Args:
      tree: a pytree of arrays. All processes must call this together.

    Returns:
      The tree; arrays on devices of other processes too are numpy arrays on the host,
      the rest are as they were.

    >>> gather({"kernel": jnp.ones(3)})["kernel"].shape
    (3,)
    """
    from jax.experimental.multihost_utils import process_allgather

    def whole(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        if leaf.is_fully_replicated:
            return np.asarray(leaf)
        return process_allgather(leaf, tiled=True)

    return jax.tree.map(whole, tree)


def is_local(tree: PyTree) -> bool:
    """Whether, of several processes, only this one holds any part of a tree.

    Such a tree is written and read without the other processes.

    Args:
      tree: arrays, or anything with a ``sharding``; leaves without one are passed over.

    Returns:
      True where there are several processes, and all arrays lie on devices of this one.

    >>> is_local({"kernel": jnp.ones(3)})  # one process
    False
    """
    found = [getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(tree)]
    known = [each for each in found if each is not None]
    return (
        jax.process_count() > 1
        and bool(known)
        and all(each.is_fully_addressable for each in known)
    )


def _name(path: jax.tree_util.KeyPath) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/") or "(the only leaf)"


def _check_partition(
    name: str, shape: tuple[int, ...], spec: PartitionSpec, mesh: Mesh
) -> None:
    for dimension, (size, entry) in enumerate(zip(shape, spec, strict=False)):
        axes = () if entry is None else (entry,) if isinstance(entry, str) else entry
        unknown = [axis for axis in axes if axis not in mesh.shape]
        if unknown:
            raise ValueError(
                f"{name}: expected mesh axes among {mesh.axis_names} in {spec}, "
                f"got {unknown[0]!r}"
            )
        parts = int(np.prod([mesh.shape[axis] for axis in axes]))
        if size % parts:
            raise ValueError(
                f"{name}: expected dimension {dimension} of shape {shape} to be a "
                f"multiple of {parts} (mesh axes {', '.join(axes)}), got {size}"
            )


def _place(leaf: ArrayLike, sharding: NamedSharding) -> jax.Array:
    # On one host JAX places the array itself.
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    # A typed key has no numpy form, so its words are placed.
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        words = _place(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
    # device_put would compare the value across processes, which costs a broadcast.
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(
        whole.shape, sharding, lambda index: whole[index]
    )
