"""The local outlier factor: how much sparser a text lies than its neighbours.

In its form for novelties: the neighbours of a scored text are training texts, and their
own densities are those among the training texts.

References:
  Breunig, Kriegel, Ng and Sander, "LOF: Identifying Density-Based Local Outliers",
  SIGMOD 2000.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jeff_llm.anomaly.neighbors import Nearest, check_embeddings, nearest

__all__ = ["LOF", "local_reachability_density", "lof"]

# Keeps the density of texts with equal neighbours finite; scikit-learn has the same.
_FLOOR = 1e-10


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class LOF:
    """The local outlier factor among training texts.

    Attributes:
      train: embeddings of the training texts.
      radius: distance of each training text to the last of its neighbours.
      density: local reachability density of each training text.
      reference: factors of the training texts, each without itself.
      neighbors: neighbours of a text.
    """

    train: Float[Array, "train width"]
    radius: Float[Array, " train"]
    density: Float[Array, " train"]
    reference: Float[Array, " train"]
    neighbors: int = field(metadata={"static": True})

    def score(
        self, embeddings: Float[Array | np.ndarray, "texts width"]
    ) -> Float[Array, " texts"]:
        """Score texts by their local outlier factor.

        Args:
          embeddings: one row a text, as wide as the training texts'.

        Returns:
          Factors, about 1 where a text lies as densely as its neighbours, higher for a
          more anomalous text.

        Raises:
          TypeError: if the embeddings are not floating point.
          ValueError: if their shape does not fit, or a value is NaN or infinite.
        """
        found = nearest(self.train, embeddings, neighbors=self.neighbors)
        own = local_reachability_density(found, self.radius)
        return self.density[found.index].mean(axis=1) / own


def lof(
    embeddings: Float[Array | np.ndarray, "train width"], *, neighbors: int = 20
) -> LOF:
    """Make a detector from the local outlier factor.

    ``mean over neighbours o of density(o) / density(text)``. A factor jumps where the
    last neighbour and the next text are equally far; where they are to float32's
    rounding, it may differ from float64's by about 1e-4.

    Args:
      embeddings: one row a normal text; float32 is used.
      neighbors: neighbours of a text. More than this many equal training texts have a
        density of 1e10, and texts beside them a very large factor.

    Returns:
      The detector.

    Raises:
      TypeError: if the embeddings are not floating point.
      ValueError: if ``neighbors`` is below 1, there are fewer texts than
        ``neighbors + 1``, or a value is NaN or infinite.

    References:
      Breunig et al., SIGMOD 2000, definition 7.

    >>> detector = lof(jnp.array([[0.0], [1.0], [2.0], [3.0]]), neighbors=2)
    >>> [round(float(score), 2) for score in detector.score(jnp.array([[1.5], [9.0]]))]
    [0.67, 4.33]
    """
    check_embeddings("embeddings", embeddings, at_least=1)
    train = jnp.asarray(embeddings, jnp.float32)
    found = nearest(train, train, neighbors=neighbors, exclude_self=True)
    radius = found.distance[:, -1]
    density = local_reachability_density(found, radius)
    reference = density[found.index].mean(axis=1) / density
    return LOF(train, radius, density, reference, neighbors)


def local_reachability_density(
    found: Nearest, radius: Float[Array, " train"]
) -> Float[Array, " texts"]:
    """Inverse of the mean reachability distance to the neighbours.

    ``1 / (mean over o of max(radius(o), distance(o)) + 1e-10)``.

    Args:
      found: neighbours of each text among the training texts.
      radius: distance of each training text to the last of its own neighbours.

    Returns:
      Densities, above 0, one a text.

    References:
      Breunig et al., SIGMOD 2000, definitions 5 and 6.
    """
    reach = jnp.maximum(found.distance, radius[found.index])
    return 1 / (reach.mean(axis=1) + _FLOOR)
