"""What the official code of AD-LLM does differently, to show what it changes.

Nothing in jeff uses these functions. Each repeats one departure from a sound protocol,
so that its effect on the reported figures can be measured:

- `scale_on_test` fits a second scaler on the test set, so that the score of a text
  depends on the texts that are scored with it;
- `drop_failures` leaves out texts whose answer could not be parsed, which are not a
  random part of the test set; jeff scores them as .5;
- `example_from_test` puts test texts, with their class, into the prompt that chooses
  the model; jeff takes them from the training texts.

References:
  Yang et al., "AD-LLM: Benchmarking Large Language Models for Anomaly Detection",
  Findings of ACL 2025, and its code.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Integer, Key, UInt32

from jeff import metrics
from jeff.checks import check_mask, check_same_length

__all__ = ["WithoutFailures", "drop_failures", "example_from_test", "scale_on_test"]

RandomKey: TypeAlias = Key[Array, ""] | UInt32[Array, "2"]


class WithoutFailures(NamedTuple):
    """Figures of the texts whose answer could be parsed.

    Attributes:
      auroc: area under the ROC curve; NaN where one class is left.
      average_precision: area under the precision-recall curve.
      dropped: share of the texts that were left out.
    """

    auroc: Float[Array, ""]
    average_precision: Float[Array, ""]
    dropped: Float[Array, ""]


def scale_on_test(
    train: Float[Array, "train width"] | Float[np.ndarray, "train width"],
    test: Float[Array, "test width"] | Float[np.ndarray, "test width"],
) -> tuple[Float32[Array, "train width"], Float32[Array, "test width"]]:
    """Standardise training and test embeddings, each with its own statistics.

    ``(x - mean) / std`` per feature, with the mean and standard deviation of the set
    that ``x`` is in; a constant feature is only centred. What sets anomalies apart
    partly goes into the test set's mean, the more the more of them there are.

    Args:
      train: embeddings of the training texts.
      test: embeddings of the test texts.

    Returns:
      Both sets, standardised.

    Raises:
      ValueError: if a set is no non-empty matrix, or widths differ.

    >>> train, test = jnp.array([[0.0], [2.0]]), jnp.array([[10.0], [30.0]])
    >>> scale_on_test(train, test)[1].ravel()
    Array([-1.,  1.], dtype=float32)
    """
    for name, values in (("train", train), ("test", test)):
        if jnp.ndim(values) != 2 or not values.size:
            raise ValueError(
                f"{name}: expected shape [texts, width], got {jnp.shape(values)}"
            )
    if train.shape[1] != test.shape[1]:
        raise ValueError(
            f"test: expected width {train.shape[1]} as of train, got {test.shape[1]}"
        )
    return _standardised(train), _standardised(test)


def drop_failures(
    scores: Float[Array, " texts"],
    label: Bool[Array, " texts"] | Integer[Array, " texts"],
    failed: Bool[Array, " texts"],
) -> WithoutFailures:
    """AUROC and average precision of the texts whose answer could be parsed.

    Args:
      scores: of the texts; ignored where the answer failed.
      label: whether a text is an anomaly, bool or 0/1.
      failed: whether its answer could not be parsed.

    Returns:
      The figures of the others, and the share of those left out.

    Raises:
      ValueError: if lengths differ.
      TypeError: if a dtype is wrong.

    >>> scores, label = jnp.array([0.9, 0.1, 0.5]), jnp.array([1, 0, 1])
    >>> drop_failures(scores, label, jnp.array([False, False, True])).auroc
    Array(1., dtype=float32)
    """
    check_same_length(scores=scores, label=label, failed=failed)
    check_mask(failed=failed)
    return WithoutFailures(
        metrics.auroc(scores, label, where=~failed),
        metrics.average_precision(scores, label, where=~failed),
        jnp.mean(failed),
    )


def example_from_test(
    texts: Sequence[str], classes: Sequence[str], *, key: RandomKey
) -> dict[str, str]:
    """Draw one test text of each class, as an example for the selection prompt.

    Args:
      texts: the test texts.
      classes: class of each.
      key: random key.

    Returns:
      A text for each class, by class in alphabetical order.

    Raises:
      ValueError: if there is no text, or lengths differ.

    >>> example_from_test(["hi", "win!"], ["ham", "spam"], key=jax.random.key(0))
    {'ham': 'hi', 'spam': 'win!'}
    """
    if not len(texts) or len(texts) != len(classes):
        raise ValueError(
            f"classes: expected one for each of {len(texts)} texts, at least one, got "
            f"{len(classes)}"
        )
    names = sorted(set(classes))
    found = {}
    for name, each in zip(names, jax.random.split(key, len(names)), strict=True):
        places = np.flatnonzero(np.array([c == name for c in classes]))
        found[name] = texts[int(jax.random.choice(each, places))]
    return found


def _standardised(
    values: Float[Array, "texts width"] | Float[np.ndarray, "texts width"],
) -> Float32[Array, "texts width"]:
    values = jnp.asarray(values, jnp.float32)
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / jnp.where(spread > 0, spread, 1)
