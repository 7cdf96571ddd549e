"""Descriptions chosen without a label, by how they sort the normal texts.

Only normal texts are at hand. Where they have classes, good descriptions send each text
to its own class. Where they are one class, good descriptions leave them clearly on the
normal side. Neither looks at an anomalous text.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jeff_llm.anomaly.categories import Categories
from jeff_llm.anomaly.likelihood import NEUTRAL, ratio

__all__ = ["Choice", "choose", "class_accuracy", "normal_margin"]

Affinity = Callable[[list[str]], Float[np.ndarray, "descriptions texts"]]


class Choice(NamedTuple):
    """The result of `choose`.

    Attributes:
      categories: the chosen descriptions.
      index: their place among the candidates.
      quality: of each candidate, higher is better: `normal_margin`; where the texts
        have classes `class_accuracy`, plus ``tanh(margin) / (2 texts + 1)``, which
        decides between equals alone.
    """

    categories: Categories
    index: int
    quality: Float[np.ndarray, " candidates"]


def normal_margin(ratios: Float[Array | np.ndarray, " texts"]) -> Float[Array, ""]:
    """Compute how far normal texts lie on the normal side, in standard deviations.

    ``-mean(r) / std(r)``.

    Args:
      ratios: of normal texts, positive for the anomalous side, such as
        `jeff_llm.anomaly.likelihood.ratio` gives; NaN is left out.

    Returns:
      The margin; minus infinity if no ratio is known or all are equal.
    """
    ratios = jnp.asarray(ratios)
    known = ~jnp.isnan(ratios)
    spread = jnp.std(ratios, where=known)
    margin = -jnp.mean(ratios, where=known) / spread
    return jnp.where(spread > 0, margin, -jnp.inf)


def class_accuracy(
    affinity: Float[Array | np.ndarray, "classes texts"],
    label: Int[Array | np.ndarray, " texts"],
) -> Float[Array, ""]:
    """Compute the share of normal texts whose own description fits them best.

    Args:
      affinity: of each class's description to each text: log-likelihoods or cosines.
      label: class of each text.

    Returns:
      A share in [0, 1]; NaN counts as wrong.

    Raises:
      ValueError: if the numbers of texts differ, or there are none.
    """
    affinity, label = jnp.asarray(affinity), jnp.asarray(label)
    if affinity.shape[1] != len(label) or not len(label):
        raise ValueError(
            f"label: expected one for each of {affinity.shape[1]} texts and at least "
            f"one text, got {len(label)}"
        )
    known = ~jnp.any(jnp.isnan(affinity), axis=0)
    return jnp.mean((jnp.argmax(affinity, axis=0) == label) & known)


def choose(
    affinity: Affinity,
    candidates: Sequence[Categories],
    kinds: Sequence[str],
) -> Choice:
    """Choose among descriptions by normal texts alone.

    Args:
      affinity: descriptions to their affinity to the same normal texts, one row a
        description: log-likelihoods per token, or cosines. It is called once, with
        every description that any candidate has.
      candidates: sets of descriptions; each names the same normal kinds.
      kinds: kind of each normal text; with a single kind the margin decides alone.

    Returns:
      The best candidate, the first of equals.

    Raises:
      ValueError: if there is no candidate or no text, or a text's kind is not named.
    """
    if not candidates or not kinds:
        raise ValueError(
            "candidates, kinds: expected at least one each, got "
            f"{len(candidates)} and {len(kinds)}"
        )
    for each in candidates:
        if unknown := set(kinds) - set(each.normal):
            raise ValueError(
                f"kinds: expected the kinds {list(each.normal)}, got "
                f"{sorted(unknown)} too"
            )
    words = [[*each.normal.values(), *_anomalous(each)] for each in candidates]
    distinct = list(dict.fromkeys(word for row in words for word in row))
    rows = dict(zip(distinct, np.asarray(affinity(distinct)), strict=True))
    quality = []
    for each, own in zip(candidates, words, strict=True):
        table = np.stack([rows[word] for word in own])
        split = len(each.normal)
        margin = float(normal_margin(ratio(table[split:], table[:split])))
        if split > 1:
            place = {name: i for i, name in enumerate(each.normal)}
            label = np.array([place[kind] for kind in kinds])
            # Accuracies tie easily; the margin decides between equals, and counts less
            # than one text.
            accuracy = float(class_accuracy(table[:split], label))
            margin = accuracy + float(np.tanh(margin)) / (2 * len(kinds) + 1)
        quality.append(margin)
    best = int(np.argmax(quality))
    return Choice(candidates[best], best, np.array(quality))


def _anomalous(categories: Categories) -> list[str]:
    return list(categories.anomalous.values()) or [NEUTRAL]
