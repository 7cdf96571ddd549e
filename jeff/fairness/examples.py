"""People with outcomes, groups and weights, taken from arrays of any kind.

numpy arrays, columns and frames of pandas, lists and JAX arrays become JAX arrays here,
once, at the door of every public function. What would lose its value on the way, such
as a missing value or a number beyond float32, is rejected by name.
"""

from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PyTree, Shaped

from jeff.as_arrays import as_array
from jeff.checks import check_binary, check_weights

__all__ = [
    "Column",
    "Examples",
    "as_codes",
    "as_examples",
    "as_inputs",
]


@runtime_checkable
class _Convertible(Protocol):
    def __array__(self, *args: Any, **options: Any) -> Any: ...


# Whatever numpy can read: arrays, pandas columns, lists of numbers.
Column: TypeAlias = _Convertible | list | tuple


class Examples(NamedTuple):
    """People with their outcomes and groups; every leaf has a leading axis ``people``.

    Arrays of any kind; `as_examples` makes JAX arrays of them.

    Attributes:
      inputs: inputs of the network, any pytree of arrays.
      label: 1 for the favourable outcome, else 0; shape [people].
      group: 1 for the protected group, else 0; shape [people].
      weight: non-negative sample weight of each person, shape [people], such as the
        weights of a survey; None where all count alike. A weight of 2 counts as two
        people.
    """

    inputs: PyTree
    label: Shaped[Any, " people"]
    group: Shaped[Any, " people"]
    weight: Shaped[Any, " people"] | None = None


def as_inputs(inputs: PyTree) -> PyTree:
    """Convert the inputs of a network, a pytree of arrays of any kind.

    Args:
      inputs: a pytree; nested lists of numbers are one array.

    Returns:
      The pytree, with JAX arrays as leaves.

    Raises:
      TypeError: as `jeff.as_arrays.as_array`.
      ValueError: as `jeff.as_arrays.as_array`.
    """
    leaves = jax.tree.leaves(inputs)
    numbers = bool(leaves) and all(isinstance(x, bool | int | float) for x in leaves)
    if isinstance(inputs, list | tuple) and numbers:
        return as_array(inputs, "inputs")
    return jax.tree.map(lambda leaf: as_array(leaf, "inputs"), inputs)


def as_examples(examples: Examples) -> Examples:
    """Convert people to JAX arrays, and check their codes and weights.

    Args:
      examples: people, as arrays of any kind.

    Returns:
      The people; outcomes and groups that were floating point are integers.

    Raises:
      TypeError: if an argument has values that are no numbers.
      ValueError: if an outcome or group is neither 0 nor 1, lengths differ, or a weight
        is negative or NaN, or all are 0.
    """
    label, group = (
        as_codes(getattr(examples, name), name) for name in ("label", "group")
    )
    weight = examples.weight
    if weight is not None:
        weight = as_array(weight, "weight")
        if weight.shape != label.shape[:1]:
            raise ValueError(
                f"weight: expected one number a person, shape {label.shape[:1]}, got "
                f"{weight.shape}"
            )
        check_weights(weight=weight)
        weight = weight.astype(jnp.promote_types(weight.dtype, jnp.float32))
    inputs = as_inputs(examples.inputs)
    sizes = [jnp.shape(leaf)[:1] for leaf in jax.tree.leaves((inputs, group, weight))]
    if any(size != label.shape[:1] for size in sizes):
        raise ValueError(
            f"label: expected as many people as in inputs and group, got "
            f"{label.shape[:1]} and leading axes {sorted(set(sizes))}"
        )
    return Examples(inputs, label, group, weight)


def as_codes(value: Any, name: str, *, where: Array | None = None) -> Array:
    """Convert codes 0 and 1 of any kind to an array, and check them where concrete.

    Args:
      value: codes; bool, integers, or floating point as columns with gaps have it.
      name: their name in errors.
      where: rows to check, bool; all by default.

    Returns:
      The codes; concrete ones of floating point as integers.

    Raises:
      TypeError: as `jeff.as_arrays.as_array`.
      ValueError: if there is another value, NaN for one.
    """
    values = as_array(value, name)
    floating = jnp.issubdtype(values.dtype, jnp.floating)
    if not floating:
        check_binary(where, **{name: values})
    elif _concrete(values) and (where is None or _concrete(where)):
        seen = np.asarray(values, np.float64)
        seen = seen if where is None else seen[np.asarray(where)]
        if (bad := (seen != 0) & (seen != 1)).any():
            found = ", ".join(f"{value:g}" for value in np.unique(seen[bad])[:5])
            raise ValueError(
                f"{name}: expected only 0 and 1, got values {found}; recode it, as in "
                f"({name} == code), and leave out people whose code is missing"
            )
        return values.astype(jnp.int32)
    return values


def _concrete(values: Array) -> bool:
    """Whether values can be read: not under jit, and no part on another host."""
    return not isinstance(values, Tracer) and values.is_fully_addressable
