"""Terms as people type them: lists with any separator, quotes and signs."""

import re
from collections.abc import Container

from jeff_llm.genes.ontology import canonical_id

__all__ = ["signed", "split_terms"]

# A sign of absence; word processors turn a hyphen into one of the longer dashes.
_ABSENT = "-!\N{MINUS SIGN}\N{EN DASH}\N{EM DASH}"
_QUOTES = "\"'`\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}" + (
    "\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"
)


def split_terms(text: str, labels: Container[str]) -> list[str]:
    """Split a typed list of terms.

    Terms are separated by commas, semicolons or ends of lines; ids by spaces too. A
    name of a term may hold commas: the longest run of pieces that is one counts.

    Args:
      text: ids and names, each with or without quotes and a sign.
      labels: names and synonyms of terms, in lower case.

    Returns:
      The terms, without quotes; a sign is kept.

    >>> split_terms("HP:0001250; -Otitis media, chronic", {"otitis media, chronic"})
    ['HP:0001250', '-Otitis media, chronic']
    """
    pieces = [
        _bare(word) for piece in re.split(r"[,;\n]", text) for word in _words(piece)
    ]
    pieces = [piece for piece in pieces if piece]
    found, start = [], 0
    while start < len(pieces):
        ends = range(len(pieces), start + 1, -1)
        joined = {end: ", ".join(pieces[start:end]) for end in ends}
        end = next((e for e in ends if _label(joined[e]) in labels), start + 1)
        found.append(joined.get(end, pieces[start]))
        start = end
    return found


def signed(text: str) -> tuple[bool, str]:
    """Separate the sign of a term that was looked for and not found.

    Args:
      text: an id or a name, which a minus (or a dash) or an exclamation mark may
        precede.

    Returns:
      Whether there is a sign, and the text without it and without quotes.

    >>> signed("- HP:0001250"), signed("Seizure")
    ((True, 'HP:0001250'), (False, 'Seizure'))
    """
    text = _bare(text)
    return text[:1] in tuple(_ABSENT), _bare(text.lstrip(_ABSENT))


def _bare(text: str) -> str:
    return text.strip().strip(_QUOTES).strip()


def _label(text: str) -> str:
    return " ".join(signed(text)[1].split()).lower()


def _words(piece: str) -> list[str]:
    """The words of a piece if all of them are ids, else the piece as it stands."""
    words = piece.split()
    ids = all(canonical_id(signed(word)[1]) for word in words)
    return words if ids else [piece]
