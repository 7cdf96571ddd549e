"""Data sets on the host, and their division into training, validation and test."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from jeff.fairness.model import Examples

__all__ = ["Dataset", "Splits", "check_both", "split", "stratified_indices"]


class Dataset(NamedTuple):
    """People with features, outcomes and groups, as numpy arrays.

    Attributes:
      inputs: features, [people, ...]; those of a table in float64, so that large
        numbers that differ little keep their digits until they are standardised.
      label: 1 for the favourable outcome, int32 [people].
      group: 1 for the group named second in ``groups``, int32 [people].
      features: names of the columns of ``inputs``; empty for images.
      groups: names of groups 0 and 1.
      weight: weight of each person, [people], or None where all count alike.
    """

    inputs: np.ndarray
    label: np.ndarray
    group: np.ndarray
    features: tuple[str, ...]
    groups: tuple[str, str]
    weight: np.ndarray | None = None


class Splits(NamedTuple):
    """Three disjoint parts of a data set, standardised by the first."""

    train: Examples
    validation: Examples
    test: Examples


def split(
    dataset: Dataset,
    *,
    key: PRNGKeyArray,
    fractions: tuple[float, float] = (0.8, 0.1),
    standardize: bool = True,
) -> Splits:
    """Random split, stratified by the outcome; features standardised by the first part.

    Args:
      dataset: the people.
      key: random key of the split.
      fractions: shares of training and validation; the rest is the test.
      standardize: subtract each feature's training mean and divide by its training
        standard deviation, in float64. Features that are constant in training become 0
        in every part.

    Returns:
      `Splits` of `Examples`.

    Raises:
      ValueError: if the shares leave a part empty, a part lacks an outcome or group, or
        a feature is not finite or beyond float32.
    """
    indices = stratified_indices(dataset.label, key=key, fractions=fractions)
    _check_finite(dataset)
    inputs = dataset.inputs
    if standardize:
        # Statistics of the training part alone: those of the test would leak into it.
        inputs = _standardized(np.asarray(inputs, np.float64), indices[0])
    names = ("train", "validation", "test")
    for name, rows in zip(names, indices, strict=True):
        for what in ("label", "group"):
            check_both(getattr(dataset, what)[rows], f"{name} part: {what}")
    weight = dataset.weight
    return Splits(
        *(
            Examples(
                jnp.asarray(inputs[rows], jnp.float32),
                jnp.asarray(dataset.label[rows]),
                jnp.asarray(dataset.group[rows]),
                weight if weight is None else jnp.asarray(weight[rows], jnp.float32),
            )
            for rows in indices
        )
    )


def _check_finite(dataset: Dataset) -> None:
    # Beyond float32 a feature would be infinite on the device, and its loss NaN.
    largest = np.finfo(np.float32).max
    bad = np.argwhere(~(np.abs(np.asarray(dataset.inputs, np.float64)) <= largest))
    if len(bad):
        row, *column = bad[0].tolist()
        name = dataset.features[column[0]] if dataset.features else column
        raise ValueError(
            f"inputs: expected finite numbers that float32 holds, got "
            f"{dataset.inputs[tuple(bad[0])]} for person {row}, feature {name}; "
            "leave the feature out, or scale it"
        )


def _standardized(inputs: np.ndarray, seen: np.ndarray) -> np.ndarray:
    train = inputs[seen]
    # Not by the deviation, which rounding keeps from 0: the mean of many .1 is not .1.
    constant = (train == train[:1]).all(0)
    scale = np.where(constant, 1, train.std(0))
    return np.where(constant, 0, (inputs - train.mean(0)) / scale)


def stratified_indices(
    label: np.ndarray, *, key: PRNGKeyArray, fractions: tuple[float, float]
) -> list[np.ndarray]:
    """Rows of the training, validation and test part, stratified by outcome.

    Args:
      label: outcomes, 0 or 1, shape [people].
      key: random key.
      fractions: shares of training and validation; the rest is the test.

    Returns:
      Three arrays of row numbers.

    Raises:
      ValueError: if the shares are not positive or leave nothing for the test.
    """
    train, validation = fractions
    if min(train, validation) <= 0 or train + validation >= 1:
        raise ValueError(
            f"fractions: expected two positive shares below 1 in sum, got {fractions}"
        )
    parts: list[list[np.ndarray]] = [[], [], []]
    # Each outcome is divided by itself: a small test part keeps its share of positives.
    for outcome, subkey in zip((0, 1), jax.random.split(key), strict=True):
        rows = np.flatnonzero(label == outcome)
        rows = rows[np.asarray(jax.random.permutation(subkey, len(rows)))]
        cuts = [int(train * len(rows)), int((train + validation) * len(rows))]
        for part, chosen in zip(parts, np.split(rows, cuts), strict=True):
            part.append(chosen)
    return [np.concatenate(part) for part in parts]


def check_both(values: np.ndarray, where: str) -> np.ndarray:
    """Check that outcomes or groups are 0 and 1, with both there.

    Args:
      values: numbers.
      where: their name in the message.

    Returns:
      The values as int32.

    Raises:
      ValueError: if there is another value, or only one of the two.
    """
    found = np.unique(values)
    if not np.array_equal(found, [0, 1]):
        shown = ", ".join(f"{value:g}" for value in found[:5])
        raise ValueError(
            f"{where}: expected both 0 and 1 and nothing else, got {shown}"
        )
    return values.astype(np.int32)
