"""Numbers of sentences in the reply of a chat model.

The grammar is strict, so that an age or a blood pressure that a model repeats is never
taken for a pick. Thoughts in ``<think>`` are dropped. Then the last list counts:

* a line of numbers alone, "3, 1, 2", or lines of one number each; numbers may be joined
  by commas, semicolons, arrows, "and" and "then", and stand behind "Answer:";
* lines "1) 3" and "2) 1", whose first number counts the lines;
* a JSON list of numbers alone, on a line of its own or after a colon at the end of one;
* if there is none of these, lines "3. He coughs." that repeat the sentence that has the
  number, word for word.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

from jeff_llm.clinic.maze import Maze

__all__ = ["Reason", "parse"]

Reason: TypeAlias = Literal[
    "no number", "too few", "too many", "repeated", "not listed", "cut off"
]
# Longer ones are no places, and Python refuses to convert the longest.
_DIGITS = r"\d{1,9}"
_JOINT = (
    r"(?:\s*(?:,|;|\u3001|->|\u2192|>)\s*(?:(?:and|then)\s+)?|\s+(?:(?:and|then)\s+)?)"
)
_NUMBERS = re.compile(rf"{_DIGITS}(?:{_JOINT}{_DIGITS})*", re.IGNORECASE)
_RANKED = re.compile(rf"({_DIGITS})[.):]\s+({_DIGITS})")
_ENTRY = re.compile(rf"({_DIGITS})[\s.):*_-]+(.+)")
_JSON = re.compile(rf'\[\s*"?{_DIGITS}"?(?:\s*,\s*"?{_DIGITS}"?)*\s*\]')
_AT_END = re.compile(r"(?:.*:\s*)?\[([\d,]+)\][\s.}\]`*]*")
_LABEL = re.compile(
    r"(?:(?:the\s+)?(?:final\s+)?answers?|numbers?|sentences?)\b[\s:*_]*", re.IGNORECASE
)
_BULLET = re.compile(r"[-*\u2022]\s+")
_AROUND = " \t*_`\"'()\u201c\u201d"
_THOUGHT_ENDS = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_THOUGHT_BEGINS = re.compile(r"<think(?:ing)?>", re.IGNORECASE)


class _Line(NamedTuple):
    """What a line of a reply says.

    Attributes:
      numbers: the numbers, or none if it is no list.
      rank: number of the line in "1) 3", else 0.
      one: whether it may be one of several lines that make one list.
    """

    numbers: tuple[int, ...]
    rank: int = 0
    one: bool = False


def parse(
    reply: str, maze: Maze, *, count: int | None = None, taken: Sequence[int] = ()
) -> list[int] | Reason:
    """Read the picks in a reply.

    Args:
      reply: text of the model.
      maze: the task.
      count: number of picks that were asked for; by default as many as there is
        evidence.
      taken: places that were picked before.

    Returns:
      ``count`` different places in ``maze.listed``, from 0, none of them taken; or why
      there are none.

    Raises:
      ValueError: if ``count`` is not positive.
    """
    count = len(maze.gold) if count is None else count
    if count < 1:
        raise ValueError(f"count: expected at least 1, got {count}")
    lines = _lines(reply)
    lists = list(_lists(map(_numbers, lines)))
    if not lists:
        lists = list(_lists(_quoted(line, maze) for line in lines))
    if not lists:
        return "no number"
    places = [number - 1 for number in lists[-1]]
    if not all(0 <= place < len(maze.listed) for place in places):
        return "not listed"
    if len({*places, *taken}) < len(places) + len(taken):
        return "repeated"
    if len(places) != count:
        return "too few" if len(places) < count else "too many"
    return places


def _lines(reply: str) -> list[str]:
    """Lines that are not empty, without thoughts and fences."""
    # Some chat templates open the thoughts themselves, so the end may stand alone.
    said = _THOUGHT_BEGINS.split(_THOUGHT_ENDS.split(reply)[-1])[0]
    # Full-width digits and commas become plain ones.
    said = unicodedata.normalize("NFKC", said)
    said = _JSON.sub(lambda found: re.sub(r'[\s"]', "", found[0]), said)
    lines = (line.strip() for line in said.splitlines())
    return [line for line in lines if line and not line.startswith("```")]


def _lists(lines: Iterable[_Line]) -> Iterator[list[int]]:
    """Lists of numbers; neighbouring lines of one number each are one list."""
    block: list[_Line] = []
    for line in lines:
        if block and not _follows(block[-1], line):
            yield [each.numbers[0] for each in block]
            block = []
        if block or (line.one and line.rank <= 1):
            block.append(line)
        elif not line.one and line.numbers:
            yield list(line.numbers)
    if block:
        yield [each.numbers[0] for each in block]


def _follows(line: _Line, after: _Line) -> bool:
    return after.one and after.rank == (line.rank + 1 if line.rank else 0)


def _numbers(line: str) -> _Line:
    if found := _AT_END.fullmatch(line):
        return _Line(_integers(found[1]))
    text = _bare(line)
    if found := _RANKED.fullmatch(text):
        return _Line((int(found[2]),), int(found[1]), True)
    text = _unlabelled(text).strip(_AROUND).rstrip(".):")
    if not _NUMBERS.fullmatch(text):
        return _Line(())
    numbers = _integers(text)
    return _Line(numbers, one=len(numbers) == 1)


def _quoted(line: str, maze: Maze) -> _Line:
    """The number of a line that repeats it together with its sentence."""
    text = _unlabelled(_bare(line))
    for _ in range(2):  # "3: He coughs.", and the same behind a rank, "1) 3: ..."
        found = _ENTRY.fullmatch(text)
        if found is None:
            break
        number, text = int(found[1]), found[2]
        in_list = 1 <= number <= len(maze.listed)
        if in_list and _same(text, maze.listed[number - 1]):
            return _Line((number,), one=True)
    return _Line(())


def _bare(line: str) -> str:
    return _BULLET.sub("", line, count=1).strip(_AROUND)


def _unlabelled(text: str) -> str:
    label = _LABEL.match(text)
    return text[label.end() :] if label else text


def _same(first: str, second: str) -> bool:
    one, two = (
        " ".join(unicodedata.normalize("NFKC", each).strip(_AROUND + ".").split())
        for each in (first, second)
    )
    return one.casefold() == two.casefold()


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(_DIGITS, text))
