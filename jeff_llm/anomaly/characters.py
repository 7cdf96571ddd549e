"""Texts to vectors by the short runs of characters in them.

Sentence encoders see what a text says. How it is written (capitals, digits, spelling,
punctuation) shows in runs of one to three characters, hashed into a fixed number of
buckets and weighted by how rare they are among the training texts.

References:
  Salton and Buckley, "Term-weighting approaches in automatic text retrieval",
  Information Processing and Management, 1988.
  Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

__all__ = ["CharacterEncoder", "character_encoder"]

# Characters that are hashed at once: bounds the memory beyond the result.
_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class CharacterEncoder:
    """Weighted counts of runs of characters, at unit length.

    Attributes:
      weights: inverse document frequency of each bucket.
      lengths: of the runs, in characters.
    """

    weights: Float[np.ndarray, " buckets"]
    lengths: tuple[int, ...] = (1, 2, 3)

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "texts buckets"]:
        """Embed texts.

        A bucket has ``log(1 + count) weight``; then the vector is scaled to length 1.

        Args:
          texts: any number of texts, of any characters and length.

        Returns:
          Embeddings, float32; zeros for a text without characters. They take 4 bytes
          times the buckets for each text.

        Raises:
          TypeError: if ``texts`` is a single text, or holds anything but texts.
        """
        _check_texts("texts", texts)
        buckets = len(self.weights)
        embeddings = np.zeros((len(texts), buckets), np.float32)
        for first, place, count in _counts(texts, self.lengths, buckets):
            text, bucket = np.divmod(place, buckets)
            value = np.log1p(count) * self.weights[bucket]
            norm = np.sqrt(np.bincount(text, value**2))
            embeddings[first + text, bucket] = value / norm[text]
        return embeddings


def character_encoder(
    train_texts: Sequence[str],
    *,
    lengths: Sequence[int] = (1, 2, 3),
    buckets: int = 8192,
) -> CharacterEncoder:
    """Learn how rare each run of characters is among normal texts.

    ``log((1 + texts) / (1 + texts with it)) + 1``.

    Args:
      train_texts: normal texts.
      lengths: of the runs, in characters; case is kept.
      buckets: into which runs are hashed.

    Returns:
      The encoder.

    Raises:
      TypeError: if ``train_texts`` is a single text, or holds anything but texts.
      ValueError: if there are no texts, or a length or ``buckets`` is out of range.

    References:
      Salton and Buckley, 1988.

    >>> encoder = character_encoder(["see you at 5", "ok, at 6"], buckets=512)
    >>> normal, spam = encoder.encode(["see you at 6", "WIN £1000 NOW!!!"])
    >>> encoder.encode(["ok, at 5"]) @ normal > encoder.encode(["ok, at 5"]) @ spam
    array([ True])
    """
    _check_texts("train_texts", train_texts)
    if not train_texts:
        raise ValueError("train_texts: expected at least 1 text, got none")
    if not lengths or min(lengths) < 1 or len(set(lengths)) < len(lengths):
        raise ValueError(
            f"lengths: expected distinct lengths of at least 1, got {tuple(lengths)}"
        )
    if buckets < 1:
        raise ValueError(f"buckets: expected at least 1, got {buckets}")
    holding = np.zeros(buckets, np.int64)
    for _, place, _ in _counts(train_texts, lengths, buckets):
        holding += np.bincount(place % buckets, minlength=buckets)
    weights = np.log((1 + len(train_texts)) / (1 + holding)) + 1
    return CharacterEncoder(weights.astype(np.float32), tuple(lengths))


def _check_texts(name: str, texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise TypeError(f"{name}: expected a sequence of texts, got {texts!r:.100}")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{name}: expected texts, got {text!r:.100} at {number}")


def _counts(
    texts: Sequence[str], lengths: Sequence[int], buckets: int
) -> Iterator[tuple[int, Int[np.ndarray, " cells"], Int[np.ndarray, " cells"]]]:
    """For some texts at a time: the first, ``text buckets + bucket``, and the count."""
    first = 0
    while first < len(texts):
        last, size = first, 0
        while last < len(texts) and (last == first or size < _AT_ONCE):
            size += len(texts[last])
            last += 1
        places = _places(texts[first:last], lengths, buckets)
        yield first, *np.unique(places, return_counts=True)
        first = last


def _places(
    texts: Sequence[str], lengths: Sequence[int], buckets: int
) -> Int[np.ndarray, " runs"]:
    """Text and bucket of every run that ends in the text where it starts."""
    # Half of a surrogate pair is no valid text, but JSON can hold one.
    joined = "".join(texts).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(joined, np.uint32).astype(np.uint64)
    sizes = np.array([len(text) for text in texts])
    text = np.repeat(np.arange(len(texts)), sizes)
    left = np.repeat(sizes.cumsum(), sizes) - np.arange(len(codes))
    found = []
    for length in lengths:
        whole = left >= length
        mixed = np.full(whole.sum(), length, np.uint64)
        start = np.flatnonzero(whole)
        for offset in range(length):
            mixed = _mix(mixed ^ codes[start + offset])
        bucket = (mixed % np.uint64(buckets)).astype(np.int64)
        found.append(text[start] * buckets + bucket)
    return np.concatenate(found)


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: the same on every machine, unlike `hash`."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
