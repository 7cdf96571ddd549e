"""Zero-shot scores from a sentence encoder: how near a text is to descriptions."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jeff_llm.anomaly.categories import Categories, Scored, check_texts

__all__ = ["description_similarity", "similarity_scores"]

Encode = Callable[[list[str]], np.ndarray]


def similarity_scores(
    texts: Float[Array | np.ndarray, "texts width"],
    normal: Float[Array | np.ndarray, "categories width"],
    anomalous: Float[Array | np.ndarray, "kinds width"],
    *,
    scale: int | float = 20.0,
    normal_weight: int | float = 0.5,
) -> Float[Array, " texts"]:
    """Compute how much nearer texts are to anomalous descriptions than to normal ones.

    ``sigmoid(s (max_a cos(x, a) - w max_k cos(x, k)))``, with ``s`` the scale and
    ``w`` the normal weight.

    Without an anomalous description the first term is 0: a text is anomalous if it is
    far from every normal one.

    Args:
      texts: embeddings of the texts.
      normal: embeddings of the normal descriptions.
      anomalous: embeddings of the anomalous descriptions; may have no rows.
      scale: ``s``; changes no order.
      normal_weight: ``w``, in [0, 1]. What is normal is often too wide for one
        description, and a text may be normal without being near it; so the default
        counts that side half. 0 leaves it out.

    Returns:
      Scores in [0, 1].

    Raises:
      ValueError: if there is no description to compare with, or a number is out of its
        range.
    """
    if not 0 <= normal_weight <= 1:
        raise ValueError(f"normal_weight: expected [0, 1], got {normal_weight}")
    if not scale > 0:
        raise ValueError(f"scale: expected a positive number, got {scale}")
    if not len(anomalous) and (not len(normal) or normal_weight == 0):
        raise ValueError("anomalous, normal: expected a description, got none")
    near = _nearest(texts, anomalous) if len(anomalous) else 0.0
    usual = _nearest(texts, normal) if len(normal) else 0.0
    return jax.nn.sigmoid(scale * (near - normal_weight * usual))


def description_similarity(
    encode: Encode,
    texts: Sequence[str],
    categories: Categories,
    *,
    normal_weight: int | float = 0.5,
) -> Scored:
    """Score texts by a sentence encoder and descriptions of the kinds.

    Args:
      encode: texts to embeddings, such as ``encoder.load("minilm").encode``.
      texts: the texts.
      categories: kinds of texts.
      normal_weight: as in `similarity_scores`.

    Returns:
      Scores; failed are texts whose embedding is zero.

    Raises:
      TypeError: if ``texts`` is a single text.
      ValueError: as in `similarity_scores`, or if the encoder's vectors of texts and
        descriptions differ in width.
    """
    texts = check_texts(texts)
    normal = list(categories.normal.values())
    anomalous = list(categories.anomalous.values())
    words = np.asarray(encode(normal + anomalous))
    found = np.asarray(encode(texts) if texts else np.zeros_like(words[:0]))
    if words.ndim != 2 or found.shape != (len(texts), words.shape[1]):
        raise ValueError(
            f"encode: expected a vector for each of {len(normal + anomalous)} "
            f"descriptions and {len(texts)} vectors of width {words.shape[-1]}, got "
            f"shapes {words.shape} and {found.shape}"
        )
    score = similarity_scores(
        found,
        words[: len(normal)],
        words[len(normal) :],
        normal_weight=normal_weight,
    )
    failed = ~np.any(found, axis=1)
    return Scored(np.where(failed, np.float32(0.5), np.asarray(score)), failed)


def _nearest(
    texts: Float[Array | np.ndarray, "texts width"],
    descriptions: Float[Array | np.ndarray, "rows width"],
) -> Float[Array, " texts"]:
    return jnp.max(_unit(texts) @ _unit(descriptions).T, axis=1)


def _unit(x: Float[Array | np.ndarray, "rows width"]) -> Float[Array, "rows width"]:
    x = jnp.asarray(x)
    norm = jnp.linalg.norm(x, axis=1, keepdims=True)
    return x / jnp.maximum(norm, jnp.finfo(x.dtype).tiny)
