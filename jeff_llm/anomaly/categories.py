"""What is normal and what is not, in words: the input of the zero-shot scorers."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

__all__ = ["Categories", "Scored", "check_texts"]

_HALF = re.compile(r"[\ud800-\udfff]")


class Scored(NamedTuple):
    """Scores of texts by a zero-shot scorer.

    Attributes:
      score: in [0, 1], higher for a more anomalous text; .5 where ``failed``.
      failed: whether no score could be had: an answer that does not parse, or a text
        without a token. Such texts are counted, never dropped.
    """

    score: Float[np.ndarray, " texts"]
    failed: Bool[np.ndarray, " texts"]


@dataclasses.dataclass(frozen=True)
class Categories:
    """Kinds of texts, each with a name and a description.

    A description is a noun phrase that can stand after "Here is": "a spam message".

    Attributes:
      normal: name to description of the normal kinds; at least one.
      anomalous: the same for the anomalous kinds; may be empty, for the setting in
        which only the normal kinds are known.
    """

    normal: Mapping[str, str]
    anomalous: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
          TypeError: if a name or a description is no text.
          ValueError: if there is no normal kind, a name is empty, or stands twice.
        """
        for side in ("normal", "anomalous"):
            object.__setattr__(self, side, _mapping(side, getattr(self, side)))
        if not self.normal:
            raise ValueError("normal: expected at least one category, got none")
        both = set(self.normal) & set(self.anomalous)
        if both:
            raise ValueError(
                f"anomalous: expected other names than the normal ones, got {both}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the normal kinds, then of the anomalous ones."""
        return (*self.normal, *self.anomalous)


def check_texts(texts: Iterable[str]) -> list[str]:
    """Take texts at the door.

    Args:
      texts: the texts, empty ones too.

    Returns:
      A list of them. Halves of surrogate pairs, which JSON can hold but no tokenizer
      takes, become U+FFFD.

    Raises:
      TypeError: if it is one text, or one of them is no text; names its place.
    """
    if isinstance(texts, str):
        raise TypeError(f"texts: expected a sequence of texts, got {texts!r:.100}")
    found = list(texts)
    for place, text in enumerate(found):
        if not isinstance(text, str):
            raise TypeError(f"texts: expected a text at {place}, got {text!r:.100}")
    return [_HALF.sub("\ufffd", text) for text in found]


def _mapping(side: str, given: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise TypeError(
            f"{side}: expected a mapping of names to descriptions, got {given!r:.100}"
        )
    for name, description in given.items():
        for value in (name, description):
            if not isinstance(value, str):
                raise TypeError(f"{side}: expected texts, got {value!r:.100}")
            if not value.strip():
                raise ValueError(f"{side}: expected words, got an empty text")
    return dict(given)
