"""Limits on what a chat template may do: steps, sizes of texts, and what it writes.

A template comes with a model. The sandbox of jinja2 keeps it from the machine but not
from running for ever or filling the memory: ``{{ 'a' * 10**10 }}``. `Budget` counts
what a rendering does, in steps: one for each turn of a loop, each call, each element
and each 16 characters that an operation touches. The parts that multiply what they are
given, such as ``*``, ``%`` and padding, are bounded before they run.
"""

import contextvars
import re
import string
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from contextlib import contextmanager
from typing import Any, NamedTuple

__all__ = ["Budget", "Size", "TooMuchError", "current", "limited", "measure"]

_STEPS = 10**6
_MOST_STEPS = 2 * 10**7
_TEXT = 4 << 20
_CHARACTERS = 16  # that one step touches
_BITS = 4096  # of an integer
_ITERABLES = (list, tuple, set, frozenset, KeysView, ValuesView, ItemsView)
_PERCENT = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(\*|\d+)?(?:\.(\*|\d+))?")


class TooMuchError(Exception):
    """A template passed a limit."""


class Size(NamedTuple):
    """What a value holds, with everything in it.

    Attributes:
      elements: values, itself counted.
      characters: of its texts, names of fields counted.
      depth: of nesting.
      largest: its largest integer, by absolute value.
    """

    elements: int
    characters: int
    depth: int
    largest: int

    @property
    def steps(self) -> int:
        """What touching it once costs."""
        return self.elements + self.characters // _CHARACTERS


def measure(value: Any, most: int = _MOST_STEPS) -> Size:
    """Size of a value, each reference counted as often as it is there.

    Args:
      value: anything that a template can hold.
      most: elements at which counting ends.

    Returns:
      Its size.

    Raises:
      TooMuchError: if there are more elements, or an integer of too many digits.

    >>> measure({"a": ["bc", 7]})
    Size(elements=4, characters=3, depth=2, largest=7)
    """
    elements = characters = deepest = largest = 0
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        elements += 1
        deepest = max(deepest, depth)
        if isinstance(item, str | bytes):
            characters += len(item)
        elif isinstance(item, int):
            if item.bit_length() > _BITS:
                raise TooMuchError(f"expected integers of at most {_BITS} bits")
            largest = max(largest, abs(item))
        elif isinstance(item, dict):
            characters += sum(len(k) for k in item if isinstance(k, str))
            stack.extend((each, depth + 1) for each in item.values())
        elif isinstance(item, _ITERABLES):
            stack.extend((each, depth + 1) for each in item)
        elif isinstance(item, range):
            elements += len(item)
        # Children on the stack count already: a list of a list, doubled thirty times.
        if elements + len(stack) > most:
            raise TooMuchError(f"expected at most {most:,} values at once")
    return Size(elements, characters, deepest, largest)


class Budget:
    """What is left to one rendering.

    Attributes:
      steps: steps left.
      text: most characters that a text may have, and that may be written.
    """

    steps: int
    text: int

    def __init__(self, given: Any, messages: int):
        """Begin a rendering.

        Args:
          given: what the template is given; longer conversations may do more.
          messages: messages in it.
        """
        size = measure(given, 1 << 40)
        # Ordinary templates walk over the whole conversation for each message.
        self.steps = _STEPS + min(4 * messages * size.steps, _MOST_STEPS)
        self.text = _TEXT + size.characters
        # Text in a macro is written again by whoever calls it.
        self._to_write = 8 * self.text

    def spend(self, steps: int) -> None:
        """Count steps.

        Args:
          steps: how many.

        Raises:
          TooMuchError: if more than are left.
        """
        self.steps -= steps
        if self.steps < 0:
            raise TooMuchError("expected a template that ends, got too many steps")

    def touch(self, value: Any) -> Size:
        """Count a value that an operation reads or has made.

        Args:
          value: the value.

        Returns:
          Its size.

        Raises:
          TooMuchError: as in `spend`, `room` and `measure`.
        """
        if type(value) is str:
            size = Size(1, len(value), 0, 0)
        else:
            size = measure(value, max(self.steps, 1))
        self.room(size.characters)
        self.spend(size.steps)
        return size

    def room(self, characters: int) -> None:
        """Check the length of a text before it is made.

        Args:
          characters: its length, or a bound on it.

        Raises:
          TooMuchError: if it is too long.
        """
        if characters > self.text:
            raise TooMuchError(
                f"expected texts of at most {self.text:,} characters, got {characters}"
                if characters < 1 << 60
                else f"expected texts of at most {self.text:,} characters"
            )

    def write(self, characters: int) -> None:
        """Count text that is written.

        Args:
          characters: its length.

        Raises:
          TooMuchError: if it is too long in all.
        """
        self._to_write -= characters
        self.spend(1 + characters // _CHARACTERS)
        if self._to_write < 0:
            raise TooMuchError(
                f"expected at most {self.text:,} characters of text, got more"
            )

    def operator(self, name: str, left: Any, right: Any) -> None:
        """Bound the result of an operator before it is made.

        Args:
          name: such as ``*``.
          left: its left side.
          right: its right side.

        Raises:
          TooMuchError: if the result is too large.
        """
        # Arithmetic on small numbers is most of what templates do.
        if type(left) is type(right) is int and name in "+-" and abs(left) < 1 << 64:
            return self.spend(2)
        one, other = self.touch(left), self.touch(right)
        if name == "*":
            for size, value, times in ((one, left, right), (other, right, left)):
                if isinstance(times, int) and not isinstance(value, int | float):
                    self.room(size.characters * max(times, 0))
                    self.spend(size.steps * max(times, 0))
        elif name == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * abs(right) > _BITS:
                raise TooMuchError(f"expected integers of at most {_BITS} bits")
        elif name == "%" and isinstance(left, str | bytes):
            self.percent(left, other)
        elif name == "+" and isinstance(left, str):
            self.room(one.characters + other.characters)

    def percent(self, template: Any, given: Size) -> None:
        """Bound the result of ``template % values``.

        Args:
          template: a text or bytes.
          given: size of the values.

        Raises:
          TooMuchError: if the result is too long.
        """
        text = template.decode("latin-1") if isinstance(template, bytes) else template
        marks = list(_PERCENT.finditer(str(text)))
        widths = [group for mark in marks for group in mark.groups() if group]
        self._formatted(len(marks), len(text), widths, given)

    def braces(self, template: str, given: Size) -> None:
        """Bound the result of ``template.format(values)``.

        Args:
          template: the text.
          given: size of the values.

        Raises:
          TooMuchError: if the result is too long.
        """
        widths, count = [], 0
        for _, name, spec, _ in string.Formatter().parse(template):
            count += name is not None
            widths += re.findall(r"\d+", spec or "")
            widths += ["*"] * (spec or "").count("{")
        self._formatted(count, len(template), widths, given)

    def _formatted(self, count: int, size: int, widths: list, given: Size) -> None:
        # No number of more than 18 digits is worth reading.
        stated = sum(
            given.largest if width == "*" else int(width[:18]) for width in widths
        )
        # Each place may show all that is given; a float has 309 digits at most.
        shown = given.characters * 6 + given.elements * 400
        shown += given.largest.bit_length() // 3 * given.elements
        self.room(size + stated + count * shown)


_budget: contextvars.ContextVar[Budget] = contextvars.ContextVar("budget")


@contextmanager
def limited(given: Mapping[str, Any], messages: int) -> Iterator[Budget]:
    """Give what is done inside a budget of its own.

    Args:
      given: what a template is given.
      messages: messages in it.

    Yields:
      The budget.
    """
    token = _budget.set(Budget(given, messages))
    try:
        yield _budget.get()
    finally:
        _budget.reset(token)


def current() -> Budget:
    """The budget of the rendering under way.

    Returns:
      The budget.
    """
    return _budget.get()
