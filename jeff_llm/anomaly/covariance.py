"""Mahalanobis distance with a covariance shrunk towards a multiple of the identity.

With fewer texts than columns the covariance is singular; shrinkage makes it invertible,
and by Ledoit and Wolf's formula needs no setting.

References:
  Mahalanobis, "On the generalised distance in statistics", 1936.
  Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance
  matrices", Journal of Multivariate Analysis, 2004.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jeff_llm.anomaly.neighbors import check_embeddings

__all__ = ["Mahalanobis", "ledoit_wolf_shrinkage", "mahalanobis"]

_HIGHEST = jax.lax.Precision.HIGHEST
_WIDEST = 4096


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Mahalanobis:
    """Distance from the mean of the training texts, in units of their spread.

    Attributes:
      mean: of the training texts.
      whiten: maps a centred text to coordinates in which the covariance is the
        identity.
      shrinkage: share of the identity in the covariance.
      reference: distances of the training texts, each without itself.
    """

    mean: Float[Array, " width"]
    whiten: Float[Array, "width width"]
    shrinkage: Float[Array, ""]
    reference: Float[Array, " train"]

    def score(
        self, embeddings: Float[Array | np.ndarray, "texts width"]
    ) -> Float[Array, " texts"]:
        """Score texts by their Mahalanobis distance.

        Args:
          embeddings: one row a text, as wide as the training texts'.

        Returns:
          Distances, higher for a more anomalous text.

        Raises:
          TypeError: if the embeddings are not floating point.
          ValueError: if their shape does not fit, or a value is NaN or infinite.
        """
        check_embeddings("embeddings", embeddings, width=len(self.mean))
        return _distance(self.mean, self.whiten, jnp.asarray(embeddings, jnp.float32))


def mahalanobis(
    embeddings: Float[Array | np.ndarray, "train width"],
    *,
    shrinkage: float | None = None,
) -> Mahalanobis:
    """Make a detector from the distance to the mean of normal texts.

    ``sqrt((x - mean)^T C^-1 (x - mean))`` with
    ``C = (1 - shrinkage) S + shrinkage trace(S) / width I``, where ``S`` is the
    covariance of the training texts, divided by their number.

    Args:
      embeddings: one row a normal text; float32 is used.
      shrinkage: share of the identity, in (0, 1]; Ledoit and Wolf's by default.

    Returns:
      The detector. Its ``reference`` leaves each text out of mean and covariance; the
      identity's part is that of all texts.

    Raises:
      TypeError: if the embeddings are not floating point.
      ValueError: if there are fewer than 2 texts, more than 4,096 columns, or all
        texts are equal, ``shrinkage`` is out
        of range, or a value is NaN or infinite.

    References:
      Ledoit and Wolf, 2004, eq. 14.

    >>> texts = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> mahalanobis(texts, shrinkage=0.5).score(jnp.array([[1.0, 1.0]])).round(3)
    Array([2.], dtype=float32)
    """
    check_embeddings("embeddings", embeddings, at_least=2)
    if shrinkage is not None and not 0 < shrinkage <= 1:
        raise ValueError(f"shrinkage: expected a share in (0, 1], got {shrinkage}")
    if jnp.shape(embeddings)[1] > _WIDEST:
        raise ValueError(
            f"embeddings: expected at most {_WIDEST} columns, got "
            f"{jnp.shape(embeddings)[1]}; the covariance of wider ones takes minutes, "
            "so use another detector or fewer columns"
        )
    train = jnp.asarray(embeddings, jnp.float32)
    if bool((train == train[0]).all()):
        raise ValueError("embeddings: expected texts that differ, got equal ones alone")
    return _fitted(train, shrinkage)


def ledoit_wolf_shrinkage(centred: Float[Array, "texts width"]) -> Float[Array, ""]:
    """Share of the identity that minimises the expected error of the covariance.

    ``min(b / d, 1)`` with ``d = |S - m I|^2``, ``m = trace(S) / width`` and
    ``b = sum_i |x_i x_i^T - S|^2 / texts^2``, all norms Frobenius.

    Args:
      centred: rows whose mean is 0.

    Returns:
      The shrinkage, in [0, 1]; 1 where ``S`` is a multiple of the identity.

    References:
      Ledoit and Wolf, 2004, section 3.3.
    """
    texts, width = centred.shape
    covariance = jnp.matmul(centred.T, centred, precision=_HIGHEST) / texts
    scale = jnp.trace(covariance) / width
    distance = jnp.sum((covariance - scale * jnp.eye(width)) ** 2)
    fourth = jnp.sum(jnp.sum(centred**2, axis=1) ** 2)
    spread = (fourth / texts - jnp.sum(covariance**2)) / texts
    some = distance > 0
    ratio = jnp.maximum(spread, 0) / jnp.where(some, distance, 1)
    return jnp.where(some, jnp.minimum(ratio, 1), 1)


@jax.jit
def _fitted(train: Float[Array, "train width"], shrinkage: Array | None) -> Mahalanobis:
    texts, width = train.shape
    # Twice: far from the origin the first mean has lost digits.
    first = train.mean(axis=0)
    mean = first + (train - first).mean(axis=0)
    centred = train - mean
    # A covariance that needs no shrinkage may be singular to rounding all the same.
    share = ledoit_wolf_shrinkage(centred) if shrinkage is None else shrinkage
    share = jnp.maximum(share, jnp.finfo(jnp.float32).eps)
    scatter = jnp.matmul(centred.T, centred, precision=_HIGHEST)
    ridge = share * jnp.trace(scatter) / (texts * width)
    values, vectors = jnp.linalg.eigh(scatter)
    values = (1 - share) * jnp.maximum(values, 0)
    along = jnp.matmul(centred, vectors, precision=_HIGHEST)
    left_out = jnp.sum(along**2 / (values / (texts - 1) + ridge), axis=1)
    return Mahalanobis(
        mean=mean,
        whiten=vectors / jnp.sqrt(values / texts + ridge),
        shrinkage=share,
        reference=_without_itself(left_out, share, texts),
    )


def _without_itself(
    squares: Float[Array, " train"], share: Float[Array, ""], texts: int
) -> Float[Array, " train"]:
    """Distances to mean and covariance of the other texts, by Sherman and Morrison.

    Leaving out a text moves the mean by ``e / (texts - 1)`` and takes
    ``texts / (texts - 1) e e^T`` from the scatter, where ``e`` is the centred text.
    """
    taken = (1 - share) * texts / (texts - 1) ** 2
    # Above 0 but for rounding: what is left of the scatter is no less than 0.
    kept = jnp.maximum(1 - taken * squares, jnp.finfo(jnp.float32).eps)
    return texts / (texts - 1) * jnp.sqrt(squares / kept)


@jax.jit
def _distance(mean: Array, whiten: Array, embeddings: Array) -> Array:
    along = jnp.matmul(embeddings - mean, whiten, precision=_HIGHEST)
    return jnp.sqrt(jnp.sum(along**2, axis=1))
