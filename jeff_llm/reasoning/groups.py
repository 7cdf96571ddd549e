"""Samples in groups: sums, means and ranks over the samples of each prompt.

A group is any integer that names a prompt. The samples of a group may stand anywhere in
the arrays, and groups may differ in size. All functions are safe under jit.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Shaped

from jeff.checks import check_mask, check_same_length

__all__ = [
    "Samples",
    "Tokens",
    "check_samples",
    "dtype_of",
    "group_extremes",
    "group_index",
    "group_mean",
    "group_rank",
    "group_sum",
    "tokens",
]

Samples = Shaped[Array, " samples"] | Shaped[np.ndarray, " samples"]
# A length for all samples, or one for each.
Tokens = Samples | Shaped[Array, ""] | float | int


def group_index(group: Samples) -> Int[Array, " samples"]:
    """Number the groups from 0, so that they can index an array.

    Args:
      group: prompt of each sample, any integers.

    Returns:
      Numbers below the count of samples, in order of the groups' names.

    >>> group_index(jnp.array([7, 3, 7]))
    Array([1, 0, 1], dtype=int32)
    """
    group = jnp.asarray(group)
    # A fixed size, since the number of groups is unknown under jit.
    return jnp.unique(group, return_inverse=True, size=group.shape[0])[1].reshape(-1)


def group_sum(values: Samples, group: Samples) -> Float[Array, " samples"]:
    """Sum over the group of each sample.

    Args:
      values: one per sample.
      group: prompt of each sample, any integers.

    Returns:
      For each sample the sum over its group.

    >>> group_sum(jnp.array([1.0, 2.0, 3.0]), jnp.array([7, 3, 7]))
    Array([4., 2., 4.], dtype=float32)
    """
    index = group_index(group)
    values = jnp.asarray(values, float)
    return jax.ops.segment_sum(values, index, num_segments=index.shape[0])[index]


def group_mean(
    values: Samples, group: Samples, *, weight: Samples | None = None
) -> Float[Array, " samples"]:
    """Mean over the group of each sample, ``sum(w x) / sum(w)``.

    Args:
      values: one per sample.
      group: prompt of each sample, any integers.
      weight: of each sample, at least 0; ones by default.

    Returns:
      For each sample the mean over its group; 0 where the group has no weight.

    >>> right = jnp.array([True, True, False])
    >>> group_mean(jnp.array([1.0, 2.0, 3.0]), jnp.array([7, 3, 7]), weight=right)
    Array([1., 2., 1.], dtype=float32)
    """
    values = jnp.asarray(values, float)
    weight = jnp.ones_like(values) if weight is None else jnp.asarray(weight, float)
    total = group_sum(weight, group)
    return group_sum(weight * values, group) / jnp.where(total > 0, total, 1.0)


def group_extremes(
    values: Samples, group: Samples
) -> tuple[Float[Array, " samples"], Float[Array, " samples"]]:
    """Smallest and largest value in the group of each sample.

    Args:
      values: one per sample.
      group: prompt of each sample, any integers.

    Returns:
      For each sample the least and the greatest value of its group.
    """
    index = group_index(group)
    values, size = jnp.asarray(values, float), index.shape[0]
    least = jax.ops.segment_min(values, index, num_segments=size)
    greatest = jax.ops.segment_max(values, index, num_segments=size)
    return least[index], greatest[index]


def group_rank(values: Samples, group: Samples) -> Int[Array, " samples"]:
    """Rank of each sample in its group, from 0 for the smallest value.

    Args:
      values: one per sample; of equal values the earlier sample has the lower rank.
      group: prompt of each sample, any integers.

    Returns:
      Ranks from 0, each once in a group.

    >>> group_rank(jnp.array([5.0, 2.0, 5.0, 1.0]), jnp.array([0, 0, 0, 1]))
    Array([1, 0, 2, 0], dtype=int32)
    """
    index = group_index(group)
    place = jnp.arange(index.shape[0])
    # lexsort is stable: samples that tie stay in the order of their positions.
    order = jnp.lexsort((jnp.asarray(values), index))
    first = jnp.searchsorted(index[order], index[order], side="left")
    return jnp.zeros_like(place).at[order].set(place - first)


def check_samples(
    *,
    correct: Samples | None = None,
    length: Samples | None = None,
    group: Samples | None = None,
    finished: Bool[Array, " samples"] | Bool[np.ndarray, " samples"] | None = None,
    **values: Samples | None,
) -> None:
    """Refuse samples whose shapes, dtypes or values do not fit.

    Values are checked only if they are concrete: under jit an array has none yet.

    Args:
      correct: whether each answer is right, or how right, in [0, 1].
      length: tokens, at least 0.
      group: prompt of each sample, integers.
      finished: whether the end token was met.
      **values: other numbers by argument name; they must be finite, and in the range
        of ``correct`` or ``length`` if their name ends so.

    Raises:
      ValueError: if lengths differ, there is no sample, or a value is out of range.
      TypeError: if ``finished`` is not bool or ``group`` not integer.
    """
    if group is not None and not jnp.issubdtype(dtype_of(group), jnp.integer):
        raise TypeError(
            f"group: expected integers that name the prompt of each sample, got "
            f"{dtype_of(group)}; numpy.unique(group, return_inverse=True)[1] has them"
        )
    if group is not None and not isinstance(group, Tracer):
        _check_group(np.asarray(group))
    given = dict(values, correct=correct, length=length, group=group)
    arrays = {name: jnp.asarray(v) for name, v in given.items() if v is not None}
    if finished is not None:
        check_mask(finished=jnp.asarray(finished))
        arrays["finished"] = jnp.asarray(finished)
    check_same_length(**arrays)
    for name, array in given.items():
        if array is None:
            continue
        if not np.shape(array)[0]:
            raise ValueError(f"{name}: expected at least 1 sample, got 0")
        if not isinstance(array, Tracer):
            _check_range(name, np.asarray(array))


def dtype_of(values: object) -> np.dtype:
    """Type of the elements, also of those that JAX has none for, such as text.

    Args:
      values: an array of JAX, under jit too, or anything that numpy takes.

    Returns:
      The type.

    >>> dtype_of(["a"]), dtype_of(jnp.arange(2))
    (dtype('<U1'), dtype('int32'))
    """
    return values.dtype if isinstance(values, jax.Array) else np.asarray(values).dtype


def tokens(name: str, value: Tokens, length: Samples) -> Float[Array, "..."]:
    """A limit, target or budget given for all samples or for each, checked.

    Args:
      name: the argument's name, for errors.
      value: tokens, at least 0, one number or one a sample.
      length: tokens of each sample, which fixes how many there are.

    Returns:
      The value as a float array that broadcasts with the samples.

    Raises:
      ValueError: if a value is negative or NaN, or their number is not the samples'.
    """
    array = jnp.asarray(value, float)
    if array.ndim:
        check_same_length(length=jnp.asarray(length), **{name: array})
    # Infinity is no limit at all, and is allowed.
    if not isinstance(array, Tracer) and not bool((array >= 0).all()):
        raise ValueError(f"{name}: expected at least 0 tokens, got {value}")
    return array


def _check_group(group: np.ndarray) -> None:
    """JAX would cut longer integers to 32 bits, and prompts could be mixed up."""
    limits = np.iinfo(np.int32)
    bad = (group < limits.min) | (group > limits.max)
    if bad.any():
        raise ValueError(
            f"group: expected integers of 32 bits, got {group[bad][0]}; number the "
            "prompts"
        )


def _check_range(name: str, values: np.ndarray) -> None:
    low = 0.0 if name.endswith(("correct", "length")) else -np.inf
    high = 1.0 if name.endswith("correct") else np.inf
    # Negated, so that NaN is found as well.
    bad = ~((values >= low) & (values <= high) & np.isfinite(values))
    if bad.any():
        place = int(bad.argmax())
        raise ValueError(
            f"{name}: expected finite numbers in [{low:g}, {high:g}], got "
            f"{values[place]} for sample {place}"
        )
