"""Conversion between tensors of a file and a pytree of parameters, by rules.

A `Rule` maps a tensor to a leaf: ``Rule("blk.{layer}.ffn_up.weight",
"layers/up/kernel", "transpose")``. Where the name has a ``{layer}``, the leaf stacks
all layers along its first axis. One table serves reading and writing.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import PyTree

from jeff_llm.models.finite import check_finite, check_weights

__all__ = ["Readable", "Rule", "Transform", "to_params", "to_tensors"]

_MAX_NAMES = 8


@runtime_checkable
class Readable(Protocol):
    """A tensor of a file that has not been read yet."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...

    def read(self) -> np.ndarray:
        """Read it.

        Returns:
          Its values.
        """
        ...


class Transform(NamedTuple):
    """A change of layout between tensor and leaf, both ways.

    Attributes:
      read: of the file's array.
      write: the inverse.
    """

    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]


class Rule(NamedTuple):
    """The mapping of one tensor, or of one in each layer, to a leaf.

    Attributes:
      name: tensor in the file; ``{layer}`` stands for the number of a layer.
      path: leaf of the parameters, keys joined by "/".
      transform: "none", "transpose" (files hold [out, in], jeff holds [in, out]), or a
        `Transform`.
    """

    name: str
    path: str
    transform: str | Transform = "none"


_TRANSFORMS = {
    "none": Transform(lambda x: x, lambda x: x),
    "transpose": Transform(np.transpose, np.transpose),
}


def to_params(
    rules: Sequence[Rule],
    tensors: Mapping[str, Readable],
    shapes: PyTree,
    *,
    ignore: Sequence[str] = (),
    dtype: Any = np.float32,
    place: Callable[[str, np.ndarray], Any] | None = None,
) -> dict[str, Any]:
    """Read parameters from tensors.

    It reads leaf by leaf, so that beside the parameters at most two leaves are in
    memory. Two threads read, since dequantising takes longer than the disk.

    Args:
      rules: the table; rules whose leaf is not in ``shapes`` are left out.
      tensors: the file.
      shapes: nested dictionaries of the shapes of the parameters.
      ignore: regular expressions of tensors to ignore.
      dtype: of the parameters.
      place: ``(path, array) -> leaf``, puts a leaf on its devices; the default
        device by default.

    Returns:
      Nested dictionaries like ``shapes``.

    Raises:
      ValueError: naming the tensors that are missing, surplus, of another shape, or
        not finite.
    """
    leaves = dict(_leaves(shapes))
    wanted = {rule.path: rule for rule in rules if rule.path in leaves}
    if absent := sorted(set(leaves) - set(wanted)):
        raise ValueError(f"rules: expected one for every leaf, none for {absent}")
    # Before anything is read: a wrong file is found in a moment, not after gigabytes.
    _check_names(wanted, leaves, tensors, ignore)
    _check_shapes(wanted, leaves, tensors)
    place = place or (lambda path, array: jax.numpy.asarray(array))

    def load(path: str) -> Any:
        return place(path, _read(wanted[path], tensors, leaves[path].shape, dtype))

    with ThreadPoolExecutor(2) as pool:
        return _nest(zip(leaves, pool.map(load, leaves), strict=True))


def to_tensors(rules: Sequence[Rule], params: PyTree) -> dict[str, np.ndarray]:
    """Convert parameters to tensors.

    Args:
      rules: the table.
      params: nested dictionaries of arrays.

    Returns:
      Tensor by name, layers apart.

    Raises:
      ValueError: naming a leaf without a rule.
    """
    by_path = {rule.path: rule for rule in rules}
    tensors = {}
    for path, leaf in _leaves(params):
        if path not in by_path:
            raise ValueError(f"{path}: expected a leaf among {sorted(by_path)}")
        rule = by_path[path]
        write = _transform(rule).write
        array = np.asarray(leaf)
        if "{layer}" not in rule.name:
            tensors[rule.name] = np.ascontiguousarray(write(array))
            continue
        for layer, part in enumerate(array):
            name = rule.name.format(layer=layer)
            tensors[name] = np.ascontiguousarray(write(part))
    return tensors


def _transform(rule: Rule) -> Transform:
    if isinstance(rule.transform, Transform):
        return rule.transform
    return _TRANSFORMS[rule.transform]


def _names(rule: Rule, shape: tuple[int, ...]) -> list[str]:
    if "{layer}" not in rule.name:
        return [rule.name]
    return [rule.name.format(layer=layer) for layer in range(shape[0])]


def _check_names(
    wanted: Mapping[str, Rule],
    leaves: Mapping[str, Any],
    tensors: Mapping[str, Readable],
    ignore: Sequence[str],
) -> None:
    for path, rule in wanted.items():
        layers = leaves[path].shape[0] if "{layer}" in rule.name else 0
        # Before their names are listed: a configuration may say any number.
        if layers > len(tensors):
            raise ValueError(
                f"layers: expected at most {len(tensors)}, as the file has so many "
                f"tensors, got {layers}; is it another architecture, or a part of a "
                "model?"
            )
    names = [
        n for path, rule in wanted.items() for n in _names(rule, leaves[path].shape)
    ]
    missing = [name for name in names if name not in tensors]
    known = set(names)
    ignored = re.compile("|".join(f"(?:{pattern})" for pattern in ignore) or r"(?!)")
    # An unread tensor means that a part of the model is missing.
    surplus = [n for n in tensors if n not in known and not ignored.search(n)]
    for kind, found in (("missing", missing), ("surplus", surplus)):
        if found:
            more = f" and {len(found) - _MAX_NAMES} more" * (len(found) > _MAX_NAMES)
            raise ValueError(
                f"{kind} tensors: expected exactly those of the architecture, {kind} "
                f"are {', '.join(found[:_MAX_NAMES])}{more}; is it another "
                "architecture, or a part of a model?"
            )


def _check_shapes(
    wanted: Mapping[str, Rule],
    leaves: Mapping[str, Any],
    tensors: Mapping[str, Readable],
) -> None:
    """Check every size before memory is taken for a leaf."""
    for path, rule in wanted.items():
        shape = leaves[path].shape
        expected = shape[1:] if "{layer}" in rule.name else shape
        for name in _names(rule, shape):
            got = tensors[name].shape
            if rule.transform == "transpose":
                got = got[::-1]
            # What another transform does to a shape is its own.
            if isinstance(rule.transform, Transform):
                fits = math.prod(got) == math.prod(expected)
            else:
                fits = got == expected
            if not fits:
                raise _wrong_shape(name, expected, got)


def _read(
    rule: Rule, tensors: Mapping[str, Readable], shape: tuple[int, ...], dtype: Any
) -> np.ndarray:
    if "{layer}" not in rule.name:
        array = _transformed(rule, rule.name, tensors, shape)
        with np.errstate(over="ignore"):
            converted = np.ascontiguousarray(array, dtype=dtype)
        _check_range(converted, array.dtype, rule.name)
        return converted
    # Filled layer by layer, so that no second copy of the stack exists.
    out = np.empty(shape, dtype)
    for layer, name in enumerate(_names(rule, shape)):
        array = _transformed(rule, name, tensors, shape[1:])
        with np.errstate(over="ignore"):
            out[layer] = array
        _check_range(out[layer], array.dtype, name)
    return out


def _transformed(
    rule: Rule, name: str, tensors: Mapping[str, Readable], shape: tuple[int, ...]
) -> np.ndarray:
    array = tensors[name].read()
    check_weights(array.dtype, f"tensor {name}")
    check_finite(array, f"tensor {name}")
    return _shaped(name, _transform(rule).read(array), shape)


def _check_range(array: np.ndarray, source: np.dtype, name: str) -> None:
    """Check numbers again where their new type holds less than the file's."""
    if jax.numpy.finfo(array.dtype).max < jax.numpy.finfo(source).max:
        check_finite(array, f"tensor {name} as {array.dtype}")


def _shaped(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.shape != shape:
        raise _wrong_shape(name, shape, array.shape)
    return array


def _wrong_shape(
    name: str, expected: tuple[int, ...], got: tuple[int, ...]
) -> ValueError:
    return ValueError(
        f"tensor {name}: expected shape {expected} after its transform, got {got}"
    )


def _leaves(tree: PyTree) -> Iterator[tuple[str, Any]]:
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def _nest(items: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, leaf in items:
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree
