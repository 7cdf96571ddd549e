"""Batches whose order is a function of a key and an epoch number.

No position in the data is stored: step t of a run always sees the same examples, so a
run can be stopped and resumed at any step.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from jeff.checks import check_integers_fit

__all__ = ["Shuffled"]


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """Batches of in-memory examples, reshuffled every epoch.

    Epoch e visits the examples in the order ``permutation(fold_in(key, e))``; the last
    ``num_examples % batch_size`` of them are left out of that epoch, so every batch is
    full.

    Attributes:
      data: pytree of arrays with a common leading axis ``examples``; columns of a
        table become numpy arrays.
      batch_size: examples per batch.
      key: random key of the orders.
    """

    data: PyTree
    batch_size: int
    key: PRNGKeyArray

    def __post_init__(self):
        """Check the leaves and the sizes."""
        object.__setattr__(self, "data", jax.tree.map(_array, self.data))
        check_integers_fit(data=self.data)
        sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(self.data)}
        if len(sizes) != 1 or sizes == {()}:
            raise ValueError(
                "data: expected arrays with one common leading axis, got leading axes "
                f"{sorted(sizes)}"
            )
        if self.num_examples == 0:
            raise ValueError("data: expected at least one example, got none")
        if not 1 <= self.batch_size <= self.num_examples:
            raise ValueError(
                f"batch_size: expected 1 to {self.num_examples} (the number of "
                f"examples), got {self.batch_size}"
            )

    @property
    def num_examples(self) -> int:
        """Number of examples."""
        return jax.tree.leaves(self.data)[0].shape[0]

    @property
    def steps_per_epoch(self) -> int:
        """Full batches an epoch."""
        return self.num_examples // self.batch_size

    def order(self, epoch: Int[Array, ""] | int) -> Int[Array, "steps batch"]:
        """Which examples each batch of an epoch holds.

        Args:
          epoch: number of the epoch, from 0; may be traced.

        Returns:
          Indices, shape [steps_per_epoch, batch_size].
        """
        key = jax.random.fold_in(self.key, epoch)
        # Full batches alone: another size would be another compiled program.
        order = jax.random.permutation(key, self.num_examples)
        used = self.steps_per_epoch * self.batch_size
        return order[:used].reshape(self.steps_per_epoch, self.batch_size)


def _array(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array) or not hasattr(leaf, "__array__"):
        return leaf
    array = np.asarray(leaf)
    if array.dtype.kind in "OSUMm":
        raise TypeError(
            f"data: expected arrays of numbers, got {array.dtype}; encode texts and "
            "dates, and fill what is missing"
        )
    return array
