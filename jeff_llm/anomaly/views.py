"""Views give vectors of texts, scorers give scores; what they give is checked."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from jeff_llm.anomaly.characters import CharacterEncoder

__all__ = [
    "CHARACTERS",
    "Encode",
    "Scorer",
    "check_encoders",
    "check_reference",
    "scorer_scores",
    "view_functions",
    "view_vectors",
]

Encode = Callable[[list[str]], np.ndarray]
Scorer = Callable[[list[str]], np.ndarray]
CHARACTERS = "characters"  # the view that is fitted here and needs no encoder


def view_functions(
    views: Sequence[str],
    encoders: Mapping[str, Encode],
    characters: CharacterEncoder | None,
) -> list[Encode]:
    """Find the function of each view.

    Args:
      views: names of the views.
      encoders: functions from texts to vectors, by name.
      characters: the character view, if it is fitted.

    Returns:
      One function per view.

    Raises:
      ValueError: if a view has no function.
    """
    found = []
    for name in views:
        if name == CHARACTERS and characters is not None:
            found.append(characters.encode)
        elif name in encoders:
            found.append(encoders[name])
        else:
            raise ValueError(
                f"encoders: expected one named {name!r}, got {list(encoders)}"
            )
    return found


def check_encoders(encoders: Mapping[str, Encode]) -> None:
    """Check that encoders are functions by name.

    Args:
      encoders: what was given.

    Raises:
      TypeError: if they are not.
    """
    if not isinstance(encoders, Mapping):
        raise TypeError(
            "encoders: expected a mapping of names to functions from texts to vectors, "
            f"got {encoders!r:.100}"
        )
    for name, each in encoders.items():
        if not callable(each):
            raise TypeError(
                f"encoders: expected a function for {name!r}, got {each!r:.100}"
            )


def view_vectors(
    name: str, encode: Encode, texts: list[str]
) -> Float[np.ndarray, "texts width"]:
    """Embed texts; a missing row would give a text the vector of another.

    Args:
      name: of the view, for messages.
      encode: its function.
      texts: the texts.

    Returns:
      Vectors in float32.

    Raises:
      TypeError: if the vectors are no numbers.
      ValueError: if a vector is missing, NaN or infinite.
    """
    given = np.asarray(encode(texts))
    if given.ndim != 2 or len(given) != len(texts) or not given.shape[1]:
        raise ValueError(
            f"encoders: expected a vector for each of {len(texts)} texts from "
            f"{name!r}, got shape {given.shape}"
        )
    if given.dtype.kind not in "fiub" and given.dtype.name != "bfloat16":
        raise TypeError(
            f"encoders: expected vectors of numbers from {name!r}, got {given.dtype}"
        )
    with np.errstate(over="ignore"):  # what overflows is refused below
        found = given.astype(np.float32)
    if bad := np.flatnonzero(~np.isfinite(found).all(axis=1)).tolist():
        raise ValueError(
            f"encoders: expected finite numbers in float32 from {name!r}, got NaN or "
            f"infinity for {len(bad)} of {len(texts)} texts, such as "
            f"{texts[bad[0]]!r:.60}"
        )
    return found


def check_reference(name: str, reference: Float[np.ndarray, " train"]) -> None:
    """Refuse a view that tells no texts apart, or whose distances overflow.

    Alone, without a fusion, it would give every text the same score in silence.

    Args:
      name: of the view, for messages.
      reference: scores of the training texts.

    Raises:
      ValueError: if scores are not finite, or all are equal.
    """
    if not np.isfinite(reference).all():
        raise ValueError(
            f"views: expected finite distances in {name!r}, got NaN or infinity; scale "
            "its vectors down"
        )
    if (reference == reference[0]).all():
        raise ValueError(
            f"views: expected texts that differ in {name!r}, got the same score "
            f"{reference[0]:g} for each of {len(reference)}; leave the view out"
        )


def scorer_scores(
    name: str, scorer: Scorer, texts: list[str]
) -> Float[np.ndarray, " texts"]:
    """Score texts by one scorer.

    Args:
      name: of the scorer, for messages.
      scorer: its function.
      texts: the texts.

    Returns:
      Scores in float32.

    Raises:
      ValueError: if a score is missing, NaN or infinite.
    """
    found = np.asarray(scorer(texts), np.float32)
    if found.shape != (len(texts),) or not np.all(np.isfinite(found)):
        raise ValueError(
            f"scorers: expected a finite score for each of {len(texts)} texts from "
            f"{name!r}, got shape {found.shape}"
            + (" with NaN or infinity" if found.shape == (len(texts),) else "")
        )
    return found
