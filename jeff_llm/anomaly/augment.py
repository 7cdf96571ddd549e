"""Synthetic normal texts, and descriptions, from a chat model.

One request per category asks for triples of keywords, from broad to fine; one request
per triple asks for a text with all three. The triples spread the texts over the
category: asked for many texts at once, a model repeats itself.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

from jeff_llm.anomaly.categories import Categories
from jeff_llm.chat import Answer, ChatModel, Request, ask, conversation

__all__ = [
    "Copies",
    "Synthetic",
    "describe_categories",
    "find_copies",
    "keyword_request",
    "parse_triples",
    "synthesise",
    "text_request",
]

# Bullets and numbers have a space behind them; "3.5 mm" and "**bold**" are no bullets.
_BULLET = re.compile(
    r"^\s*(?:(?:[-*+\u2022\u00b7\u2023\u25e6\u2013\u2014]|\(?\d+[.):])\s+)*"
)
# What was asked for first: keywords may hold commas and dashes themselves. Of other
# scripts: full-width semicolons and commas, arrows, dashes.
_SEPARATORS = (
    re.compile(r"[;\uff1b]"),
    re.compile(r"[|>\u2192,\uff0c\u3001]|\s[-\u2013\u2014]\s"),
)
_AROUND = " \t*_`\"'\u201c\u201d.-"  # marks that models set around a keyword


class Synthetic(NamedTuple):
    """The result of `synthesise`.

    Attributes:
      texts: the synthetic texts; empty answers are left out and counted.
      categories: name of the category of each.
      triples: keywords of each.
      short: categories with fewer usable triples than were asked for, and how many
        they have.
      empty: answers without a text.
    """

    texts: tuple[str, ...]
    categories: tuple[str, ...]
    triples: tuple[tuple[str, str, str], ...]
    short: dict[str, int]
    empty: int


class Copies(NamedTuple):
    """Synthetic texts that say nothing new.

    Attributes:
      exact: equal to a real text, but for case and spaces.
      repeated: equal to an earlier synthetic text.
      near: cosine to a real text or an earlier synthetic one at least the limit, and
        neither of the above.
      cosine: greatest cosine to a real text.
    """

    exact: Bool[np.ndarray, " texts"]
    repeated: Bool[np.ndarray, " texts"]
    near: Bool[np.ndarray, " texts"]
    cosine: Float[np.ndarray, " texts"]

    @property
    def kept(self) -> Bool[np.ndarray, " texts"]:
        """Texts that are none of the three."""
        return ~(self.exact | self.repeated | self.near)


def keyword_request(
    description: str, count: int, examples: Sequence[str] = (), *, seed: int = 0
) -> Request:
    """Ask for triples of keywords of a category.

    Args:
      description: the category, a noun phrase.
      count: how many triples.
      examples: real normal texts that show what is meant.
      seed: of the sampling.

    Returns:
      The request.
    """
    prompt = (
        f"{_shown(description, examples)}"
        f"List {count} different topics that {description} can be about. Write one "
        "topic a line as three keywords, from broad to fine, with semicolons between "
        "them, like this:\nfood; restaurant; table for two\nwork; meeting; running late"
    )
    return Request(
        conversation(prompt), max_tokens=16 * count, temperature=0.8, seed=seed
    )


def parse_triples(text: str) -> list[tuple[str, str, str]]:
    r"""Read triples of keywords, whatever bullets or numbers stand before them.

    Args:
      text: a model's answer.

    Returns:
      The triples, each once; lines with fewer than three keywords are left out.

    >>> parse_triples("1. food; pizza; extra cheese\n- nothing here")
    [('food', 'pizza', 'extra cheese')]
    """
    found: dict[tuple[str, str, str], None] = {}
    for line in text.splitlines():
        item = _BULLET.sub("", line)
        for separator in _SEPARATORS:
            words = [word.strip(_AROUND) for word in separator.split(item)]
            words = [word for word in words if word]
            if len(words) >= 3:
                found.setdefault((words[0], words[1], "; ".join(words[2:])))
                break
    return list(found)


def text_request(
    description: str,
    triple: Sequence[str],
    examples: Sequence[str] = (),
    *,
    max_tokens: int = 80,
    seed: int = 0,
) -> Request:
    """Ask for one text with all keywords of a triple.

    Args:
      description: the category, a noun phrase.
      triple: the keywords.
      examples: real normal texts that show what is meant.
      max_tokens: most tokens of the text.
      seed: of the sampling.

    Returns:
      The request.
    """
    prompt = (
        f"{_shown(description, examples)}"
        f"Write {description} about: {', '.join(triple)}. Answer with the text alone."
    )
    return Request(
        conversation(prompt), max_tokens=max_tokens, temperature=0.8, seed=seed
    )


def synthesise(
    model: ChatModel,
    categories: Mapping[str, str],
    count: int,
    *,
    examples: Mapping[str, Sequence[str]] | None = None,
    max_tokens: int = 80,
    concurrency: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Synthetic:
    """Write synthetic normal texts.

    Args:
      model: the model; wrap it in `jeff_llm.chat.Cached`.
      categories: name to description of the normal categories.
      count: texts per category.
      examples: real normal texts of each category, from the training part alone.
      max_tokens: most tokens of a text.
      concurrency: requests in flight.
      progress: called with the number of texts that are written, and of all.

    Returns:
      The texts. Where a model gives fewer triples than asked for, its triples are used
      several times, with other seeds; without any the category's name is the keyword.

    Raises:
      ValueError: if there is no category, or ``count`` is not positive.
      ExceptionGroup: if requests fail for good, after all were tried; the
        `jeff_llm.chat.AskError` holds the answers that came.
    """
    if not categories or count < 1:
        raise ValueError(
            "categories, count: expected at least one each, got "
            f"{len(categories)} and {count}"
        )
    shown = {name: list((examples or {}).get(name, ())) for name in categories}
    asked = [
        keyword_request(words, count, shown[name], seed=0)
        for name, words in categories.items()
    ]
    answers: list[Answer] = ask(
        model, asked, concurrency=concurrency, return_errors=False
    )
    short: dict[str, int] = {}
    plan: list[tuple[str, tuple[str, str, str], Request]] = []
    for (name, words), answer in zip(categories.items(), answers, strict=True):
        triples = parse_triples(answer.text)[:count]
        if len(triples) < count:
            short[name] = len(triples)
        triples = triples or [(name, words, "everyday")]
        for number in range(count):
            triple = triples[number % len(triples)]
            request = text_request(
                words, triple, shown[name], max_tokens=max_tokens, seed=number
            )
            plan.append((name, triple, request))
    written: list[Answer] = ask(
        model,
        [request for _, _, request in plan],
        concurrency=concurrency,
        progress=progress,
        return_errors=False,
    )
    texts = [_clean(each.text) for each in written]
    kept = [
        (text, name, triple)
        for text, (name, triple, _) in zip(texts, plan, strict=True)
        if text
    ]
    return Synthetic(
        tuple(text for text, _, _ in kept),
        tuple(name for _, name, _ in kept),
        tuple(triple for _, _, triple in kept),
        short,
        len(texts) - len(kept),
    )


def describe_categories(
    model: ChatModel,
    categories: Categories,
    *,
    examples: Mapping[str, Sequence[str]] | None = None,
    max_tokens: int = 60,
) -> Categories:
    """Let a model describe each category in a sentence, for the zero-shot prompt.

    Args:
      model: the model.
      categories: kinds of texts; their descriptions are shown to the model.
      examples: real normal texts by category, from the training part alone.
      max_tokens: most tokens of a description.

    Returns:
      The same kinds, each with "old description: new sentence"; the old one alone where
      the model said nothing.

    Raises:
      ExceptionGroup: if requests fail for good, after all were tried; the
        `jeff_llm.chat.AskError` holds the answers that came.
    """
    shown = {name: list((examples or {}).get(name, ())) for name in categories.names}
    words = {**categories.normal, **categories.anomalous}
    requests = [
        Request(
            conversation(
                f"{_shown(words[name], shown[name])}In one sentence, say what "
                f"{words[name]} is about and how it is written."
            ),
            max_tokens=max_tokens,
        )
        for name in words
    ]
    answers: list[Answer] = ask(model, requests, return_errors=False)
    said = {
        name: f"{words[name]}: {_clean(answer.text)}"
        if _clean(answer.text)
        else words[name]
        for name, answer in zip(words, answers, strict=True)
    }
    return dataclasses.replace(
        categories,
        normal={name: said[name] for name in categories.normal},
        anomalous={name: said[name] for name in categories.anomalous},
    )


def find_copies(
    synthetic: Sequence[str],
    real: Sequence[str],
    synthetic_embeddings: Float[Array | np.ndarray, "texts width"],
    real_embeddings: Float[Array | np.ndarray, "rows width"],
    *,
    limit: float = 0.95,
) -> Copies:
    """Find synthetic texts that copy a real one or each other.

    Args:
      synthetic: the synthetic texts.
      real: the texts they were made from, or all that are known.
      synthetic_embeddings: of unit length.
      real_embeddings: of unit length.
      limit: cosine from which a text is a near-copy.

    Returns:
      Flags per synthetic text.

    Raises:
      ValueError: if numbers of texts and embeddings differ.
    """
    ours, theirs = np.asarray(synthetic_embeddings), np.asarray(real_embeddings)
    if len(ours) != len(synthetic) or len(theirs) != len(real):
        raise ValueError(
            f"embeddings: expected {len(synthetic)} and {len(real)} rows, got "
            f"{len(ours)} and {len(theirs)}"
        )
    known = {_key(text) for text in real}
    exact = np.array([_key(text) in known for text in synthetic], bool)
    seen: set[str] = set()
    repeated = np.zeros(len(synthetic), bool)
    for place, text in enumerate(synthetic):
        repeated[place] = _key(text) in seen
        seen.add(_key(text))
    cosine = np.full(len(synthetic), -1.0, np.float32)
    if len(theirs) and len(ours):
        cosine = np.max(ours @ theirs.T, axis=1)
    earlier = np.tril(ours @ ours.T, -1) if len(ours) else np.zeros((0, 0))
    near = (cosine >= limit) | np.any(earlier >= limit, axis=1)
    return Copies(exact, repeated, near & ~exact & ~repeated, cosine)


def _shown(description: str, examples: Sequence[str]) -> str:
    if not examples:
        return ""
    listed = "\n".join(json.dumps(text, ensure_ascii=False) for text in examples)
    return f"Examples of {description}:\n{listed}\n\n"


def _clean(text: str) -> str:
    """The text without the quotes that models put around it."""
    line = " ".join(text.split())
    if len(line) > 1 and line[0] in "\"'“" and line[-1] in "\"'”":
        line = line[1:-1].strip()
    return line


def _key(text: str) -> str:
    return " ".join(text.lower().split())
