"""Samples of answers, by question: arranged, checked, and the result of a vote.

Answers are integer codes, equal codes for equal answers; -1 is no answer, which never
votes. Samples stand in the order in which they were drawn. Padding is masked with
``where`` and stands at the end of a row.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Integer, Shaped

from jeff_llm.reasoning.groups import dtype_of

__all__ = [
    "Answers",
    "Folded",
    "Mask",
    "Numbers",
    "Vote",
    "check_votes",
    "fold",
]

Answers = Integer[Array, "questions samples"] | Integer[np.ndarray, "questions samples"]
Numbers = Shaped[Array, "questions samples"] | Shaped[np.ndarray, "questions samples"]
Mask = Bool[Array, "questions samples"] | Bool[np.ndarray, "questions samples"]


class Vote(NamedTuple):
    """The answers that a rule gives, and what they cost.

    Attributes:
      answer: code of the answer; -1 where no sample had one.
      samples: samples that were started.
      tokens: tokens that were generated; the samples where no lengths were given.
    """

    answer: Int[Array, " questions"] | Int[np.ndarray, " questions"]
    samples: Int[Array, " questions"] | Int[np.ndarray, " questions"]
    tokens: Float[Array, " questions"] | Float[np.ndarray, " questions"]


class Folded(NamedTuple):
    """Flat arrays with one row per question.

    Attributes:
      group: the question of each row, in order of first appearance.
      where: False for padding, which stands at the end of a row.
      arrays: the folded arrays; 0 in the padding.
    """

    group: Shaped[np.ndarray, " questions"]
    where: Bool[np.ndarray, "questions samples"]
    arrays: tuple[Shaped[np.ndarray, "questions samples"], ...]


def fold(
    group: Shaped[np.ndarray, " rows"] | Shaped[Array, " rows"],
    *arrays: Shaped[np.ndarray, " rows"] | Shaped[Array, " rows"],
) -> Folded:
    """Arrange flat arrays over samples by question. Runs on the host.

    Args:
      group: question of each sample, in any order.
      *arrays: one value per sample.

    Returns:
      Rows of samples in their order in the file, padded to the longest.

    Raises:
      ValueError: if lengths differ, there is no sample, or a question is NaN.

    >>> fold(np.array([7, 3, 7]), np.array([1, 2, 3])).arrays[0]
    array([[1, 3],
           [2, 0]])
    """
    group = np.asarray(group)
    if group.ndim != 1 or not group.size:
        raise ValueError(f"group: expected one a sample, got shape {group.shape}")
    # All of them would be one question.
    if group.dtype.kind == "f" and np.isnan(group).any():
        raise ValueError("group: expected the question of every sample, got NaN")
    names, first, index, counts = np.unique(
        group, return_index=True, return_inverse=True, return_counts=True
    )
    row = np.empty(len(names), int)
    row[np.argsort(first)] = np.arange(len(names))
    row = row[index]
    order = np.argsort(row, kind="stable")
    starts = np.searchsorted(row[order], row[order])
    column = np.empty(len(row), int)
    column[order] = np.arange(len(row)) - starts
    shape = (len(names), int(counts.max()))
    folded = []
    for place, array in enumerate(map(np.asarray, arrays)):
        if array.shape != group.shape:
            raise ValueError(
                f"array {place}: expected {len(group)} values as in group, got shape "
                f"{array.shape}"
            )
        folded.append(np.zeros(shape, array.dtype))
        folded[-1][row, column] = array
    where = np.zeros(shape, bool)
    where[row, column] = True
    return Folded(names[np.argsort(first)], where, tuple(folded))


def check_votes(
    answer: Answers,
    where: Mask | None,
    **numbers: Numbers | None,
) -> tuple[Array, Array, tuple[Array, ...]]:
    """Check samples of answers, and fill in what is left out.

    Values are checked only if they are concrete.

    Args:
      answer: codes, at least -1.
      where: False for padding; all samples count by default.
      **numbers: finite numbers of at least 0 by argument name; ones by default.

    Returns:
      Answers, mask and the numbers, as JAX arrays.

    Raises:
      ValueError: naming the argument, if shapes differ, there is no sample, or a value
        is out of range.
      TypeError: if ``answer`` is not integer or ``where`` not bool.
    """
    shape = np.shape(answer)
    if len(shape) != 2 or not all(shape):
        raise ValueError(f"answer: expected [questions, samples], got shape {shape}")
    if not jnp.issubdtype(dtype_of(answer), jnp.integer):
        raise TypeError(
            f"answer: expected integer codes, got {dtype_of(answer)}; give equal "
            "answers equal numbers, and -1 to none"
        )
    if where is not None and jnp.result_type(where) != jnp.bool_:
        raise TypeError(f"where: expected a bool array, got {jnp.result_type(where)}")
    for name, array in (*numbers.items(), ("where", where)):
        if array is not None and np.shape(array) != shape:
            raise ValueError(
                f"{name}: expected shape {shape} as in answer, got {np.shape(array)}"
            )
    mask = jnp.ones(shape, bool) if where is None else jnp.asarray(where)
    filled = tuple(
        jnp.ones(shape) if array is None else jnp.asarray(array, float)
        for array in numbers.values()
    )
    if not any(isinstance(x, Tracer) for x in (answer, where, *numbers.values())):
        _check_values(np.asarray(answer), np.asarray(mask), numbers)
    codes = jnp.asarray(answer)
    # Unsigned integers have no -1 for a question without an answer.
    if jnp.issubdtype(codes.dtype, jnp.unsignedinteger):
        codes = codes.astype(jnp.int32)
    return codes, mask, filled


def _check_values(
    answer: np.ndarray, mask: np.ndarray, numbers: dict[str, Numbers | None]
) -> None:
    if (answer[mask] < -1).any():
        raise ValueError(
            f"answer: expected codes of at least -1, got {answer[mask].min()}"
        )
    # JAX would cut longer codes to 32 bits, and different answers could become equal.
    if (answer[mask] > np.iinfo(np.int32).max).any():
        raise ValueError(
            f"answer: expected codes below 2^31, got {answer[mask].max()}; number them"
        )
    if (mask[:, 1:] > mask[:, :-1]).any():
        raise ValueError(
            "where: expected padding at the end of each row, got a sample behind it; "
            "see fold"
        )
    for name, array in numbers.items():
        if array is None:
            continue
        values = np.asarray(array)[mask]
        # Negated, so that NaN is found as well.
        if (bad := ~((values >= 0) & (values < np.inf))).any():
            raise ValueError(
                f"{name}: expected finite numbers of at least 0, got "
                f"{values[bad.argmax()]}"
            )
