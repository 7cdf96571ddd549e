"""Reads a ranking of numbered genes from a model's answer.

Models answer with numbers or with symbols, as JSON or as a list, with reasons, in code
fences, after prose. `parse_ranking` takes what it can find and counts what is wrong.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

__all__ = ["ParsedRanking", "parse_ranking"]

_THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_FINAL = re.compile(r"(?:final|ranking|answer|order)\b[^:\n]{0,40}:", re.IGNORECASE)
_MARKER = re.compile(r"\s*(?:[-*\u2022>]|\(?\d+[.):]|\#\d+[:.]?)\s+")
_SPACE_OR_MARKUP = re.compile(r"[*_`\"']")
_CUT = re.compile(r"\[[^\]]*\Z")
# A line of numbers alone, with what separates them.
_NUMBERS = re.compile(r"[\s\d,;>\[\]()#=.|-]*\d[\s\d,;>\[\]()#=.|-]*")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9@.\-]*")
_DECODER = json.JSONDecoder(strict=False)


class ParsedRanking(NamedTuple):
    """What an answer says about the order of genes.

    Attributes:
      order: positions of the genes that it names, best first, each once.
      unknown: entries that name no gene of the list.
      repeated: entries that name a gene again.
      missing: genes that it does not name.
    """

    order: tuple[int, ...]
    unknown: int
    repeated: int
    missing: int


def parse_ranking(text: str, genes: Sequence[str]) -> ParsedRanking:
    r"""Read the order of genes from an answer.

    Looked for in this order: a list in JSON, of numbers, symbols, or objects with
    either; the lines of a list; symbols or lines of numbers in prose. Where an entry
    has a symbol, that counts, since the number before it may be its rank.

    Args:
      text: the answer.
      genes: symbols; number ``i`` of the prompt is ``genes[i - 1]``.

    Returns:
      The order, and what was wrong with the answer.

    >>> parse_ranking("1. BRCA2 (likely)\n2. TP53\n3. MYC", ["TP53", "BRCA2", "ATM"])
    ParsedRanking(order=(1, 0), unknown=1, repeated=0, missing=1)
    """
    names = _Names(genes)
    # What a reasoning model thinks is no answer.
    text = _THOUGHT.sub(" ", text)
    if cut := _CUT.search(text):
        # The last number of a list that was cut off may be the beginning of another.
        text = text[: max(text.rfind(","), cut.start())]
    entries = _from_json(text, names)
    if not entries:
        finals = [match.end() for match in _FINAL.finditer(text)]
        for start in (*finals[-1:], 0):
            entries = _from_lines(text[start:], names)
            if any(entry is not None for entry in entries):
                break
    order: dict[int, None] = {}
    unknown = repeated = 0
    for entry in entries:
        unknown += entry is None
        repeated += entry is not None and entry in order
        if entry is not None:
            order[entry] = None
    return ParsedRanking(tuple(order), unknown, repeated, len(genes) - len(order))


class _Names:
    """Genes by number and by symbol."""

    def __init__(self, genes: Sequence[str]):
        self.count = len(genes)
        self.exact = {gene: place for place, gene in enumerate(genes)}
        self.folded = {gene.upper(): place for place, gene in enumerate(genes)}

    def number(self, text: str | int) -> int | None:
        place = int(text) - 1
        return place if 0 <= place < self.count else None

    def entry(self, text: str) -> int | None:
        """Gene of an entry of a list: a symbol anywhere, or a number in front."""
        text = _SPACE_OR_MARKUP.sub("", text)
        words = _WORD.findall(text)
        for word in words:
            if (place := self.exact.get(word.rstrip(".-"))) is not None:
                return place
        # "was" in a sentence is not WAS: only the first word may be in small letters.
        first = words[0].rstrip(".-") if words else ""
        if (place := self.folded.get(first.upper())) is not None:
            return place
        match = re.match(r"\D{0,8}(\d+)(?![\w])", text)
        return self.number(match[1]) if match else None

    def symbols(self, text: str) -> list[int]:
        """All symbols in prose, in capitals as they are written."""
        words = (word.rstrip(".-") for word in _WORD.findall(text))
        return [self.exact[word] for word in words if word in self.exact]


def _from_json(text: str, names: _Names) -> list[int | None]:
    """Entries of the list in JSON that names most genes; none if no list names one."""
    best: list[int | None] = []
    for value in _values(text):
        for items in _lists(value):
            entries = [_json_entry(item, names) for item in items]
            if _known(entries) > _known(best):
                best = entries
    return best


def _known(entries: list[int | None]) -> int:
    return len({entry for entry in entries if entry is not None})


def _values(text: str) -> Iterator[Any]:
    start = 0
    while found := re.compile(r"[\[{]").search(text, start):
        try:
            value, start = _DECODER.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            start = found.end()
        else:
            yield value


def _lists(value: Any) -> Iterator[list[Any]]:
    if isinstance(value, list):
        yield value
        for inner in value:
            yield from _lists(inner) if isinstance(inner, list) else ()
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _lists(inner)


def _json_entry(item: Any, names: _Names) -> int | None:
    if isinstance(item, bool) or item is None:
        return None
    if isinstance(item, int):
        return names.number(item)
    if isinstance(item, str):
        return names.entry(item)
    if isinstance(item, dict):
        # A symbol before a number: the number may be the rank.
        values = sorted(
            (each for key, each in item.items() if key != "rank"),
            key=lambda each: not isinstance(each, str),
        )
        found = (_json_entry(each, names) for each in values)
        return next((entry for entry in found if entry is not None), None)
    return None


def _from_lines(text: str, names: _Names) -> list[int | None]:
    lines = [line for line in text.splitlines() if line.strip(" `")]
    marked = [match.end() for line in lines if (match := _MARKER.match(line))]
    if len(marked) > 1 or (marked and len(lines) == 1):
        return [
            names.entry(line[match.end() :])
            for line in lines
            if (match := _MARKER.match(line))
        ]
    entries: list[int | None] = []
    for line in lines:
        found: list[int | None] = [*names.symbols(line)]
        if not found and _NUMBERS.fullmatch(line):
            found = [names.number(number) for number in re.findall(r"\d+", line)]
        entries += found
    return entries
