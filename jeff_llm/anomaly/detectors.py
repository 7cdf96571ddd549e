"""Anomaly detectors fitted on embeddings of normal texts: the protocol, and KNN.

A detector scores a text, higher for a more anomalous one, from its own embedding and
those of the training texts. No statistic of other scored texts enters, so shuffling or
subsetting them changes no score. (The official code of AD-LLM fits a second scaler on
the test texts.)

References:
  Ramaswamy, Rastogi and Shim, "Efficient Algorithms for Mining Outliers from Large
  Data Sets", SIGMOD 2000 (distance to the k-th neighbour).
  Angiulli and Pizzuti, "Fast Outlier Detection in High Dimensional Spaces", PKDD 2002
  (mean distance).
"""

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jeff.checks import check_choice
from jeff_llm.anomaly.neighbors import check_embeddings, nearest

__all__ = ["KNN", "Detector", "knn", "neighbor_score"]

_METHODS = ("largest", "mean", "median")


@runtime_checkable
class Detector(Protocol):
    """What scores embeddings, fitted on those of normal texts."""

    @property
    def reference(self) -> Any:
        """Scores of the training texts, each without itself, ``[texts]``."""
        ...

    def score(self, embeddings: Array | np.ndarray) -> Any:
        """Score texts.

        Args:
          embeddings: one row a text, floating point.

        Returns:
          Scores, ``[texts]``, higher for a more anomalous text.
        """
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class KNN:
    """Distance to the nearest training texts.

    Attributes:
      train: embeddings of the training texts.
      reference: scores of the training texts, each without itself.
      neighbors: nearest training texts that count.
      method: the distance that is the score: ``largest``, ``mean`` or ``median``.
    """

    train: Float[Array, "train width"]
    reference: Float[Array, " train"]
    neighbors: int = field(metadata={"static": True})
    method: str = field(metadata={"static": True})

    def score(
        self, embeddings: Float[Array | np.ndarray, "texts width"]
    ) -> Float[Array, " texts"]:
        """Score texts by their distance to the nearest training texts.

        Args:
          embeddings: one row a text, as wide as the training texts'.

        Returns:
          Distances, higher for a more anomalous text.

        Raises:
          TypeError: if the embeddings are not floating point.
          ValueError: if their shape does not fit, or a value is NaN or infinite.
        """
        found = nearest(self.train, embeddings, neighbors=self.neighbors)
        return neighbor_score(found.distance, method=self.method)


def knn(
    embeddings: Float[Array | np.ndarray, "train width"],
    *,
    neighbors: int = 5,
    method: str = "largest",
) -> KNN:
    """Make a detector from the distance to the nearest normal texts.

    Args:
      embeddings: one row a normal text; float32 is used.
      neighbors: nearest training texts that count.
      method: the distance that is the score: ``largest`` (to the last of them),
        ``mean`` or ``median``.

    Returns:
      The detector.

    Raises:
      TypeError: if the embeddings are not floating point.
      ValueError: if ``neighbors`` or ``method`` is none that is allowed, there are
        fewer texts than ``neighbors + 1``, or a value is NaN or infinite.

    References:
      Ramaswamy et al., SIGMOD 2000; Angiulli and Pizzuti, PKDD 2002.

    >>> detector = knn(jnp.array([[0.0], [1.0], [3.0]]), neighbors=1)
    >>> detector.reference
    Array([1., 1., 2.], dtype=float32)
    >>> detector.score(jnp.array([[7.0]]))
    Array([4.], dtype=float32)
    """
    check_choice("method", method, _METHODS)
    check_embeddings("embeddings", embeddings, at_least=1)
    train = jnp.asarray(embeddings, jnp.float32)
    found = nearest(train, train, neighbors=neighbors, exclude_self=True)
    reference = neighbor_score(found.distance, method=method)
    return KNN(train, reference, neighbors, method)


def neighbor_score(
    distance: Float[Array, "texts neighbors"], *, method: str
) -> Float[Array, " texts"]:
    """Largest, mean or median distance to the neighbours.

    Args:
      distance: to the nearest neighbours, ascending.
      method: ``largest``, ``mean`` or ``median``.

    Returns:
      One score a text.

    Raises:
      ValueError: if the method is none of the three.

    >>> neighbor_score(jnp.array([[1.0, 2.0, 6.0]]), method="mean")
    Array([3.], dtype=float32)
    """
    check_choice("method", method, _METHODS)
    if method == "largest":
        return distance[:, -1]
    return jnp.mean(distance, axis=1) if method == "mean" else _median(distance)


def _median(ascending: Float[Array, "texts neighbors"]) -> Float[Array, " texts"]:
    last = ascending.shape[1] - 1
    return (ascending[:, last // 2] + ascending[:, (last + 1) // 2]) / 2
