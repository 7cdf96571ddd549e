"""Bounds on filters and methods of chat templates that multiply what they are given.

``'a'|center(10**9)`` is small until it has run. The size of each such result follows
from its arguments, so it is compared with the limits before anything is made.
"""

from typing import Any

from jeff_llm.models.chat_limits import TooMuchError, current, measure

__all__ = ["before_filter", "before_method"]

# The largest numbers that may be given to filters which pad, cut or round.
_NUMBERS = {
    **dict.fromkeys(("center", "indent", "wordwrap", "truncate"), 10**6),
    **dict.fromkeys(("batch", "slice", "tojson"), 10**6),
    "round": 1000,
}


def before_filter(name: str, value: Any, options: list[Any]) -> None:
    """Bound what a filter makes.

    Args:
      name: the filter.
      value: what it is applied to.
      options: its arguments.

    Raises:
      TooMuchError: if the result may be too large.
    """
    budget = current()
    given = budget.touch(options)
    if given.largest > _NUMBERS.get(name, given.largest):
        raise TooMuchError(f"{name}: expected smaller numbers, got {given.largest}")
    if name == "format":
        budget.percent(str(value), given)
    elif name in ("replace", "join"):
        _before_text(name, value, options)
    elif name in ("indent", "wordwrap", "urlize", "xmlattr"):
        size = measure(value)
        lines = str(value).count("\n") + 1 if name == "indent" else size.characters
        each = given.characters + (given.largest if name == "indent" else 80)
        budget.room(size.characters + lines * each)
    elif name == "tojson":
        size = measure(value)
        margin = size.depth * (given.largest + given.characters) + given.characters
        budget.room(6 * size.characters + size.elements * (8 + margin))


def _before_text(name: str, value: Any, options: list[Any]) -> None:
    """Bound what ``replace`` and ``join`` make, as filters."""
    if name == "join":
        parts, mark = measure(value), measure(options[:1])
        current().room(parts.characters + parts.elements * mark.characters)
    elif len(options) > 1:
        text, old, new = str(value), str(options[0]), str(options[1])
        current().room(len(text) + text.count(old) * len(new))


def before_method(method: Any, args: Any, kwargs: Any) -> None:
    """Bound what a method of a text, number or list makes.

    Args:
      method: what is called; anything that is no such method passes.
      args: its arguments.
      kwargs: its arguments by name.

    Raises:
      TooMuchError: if the result may be too large.
    """
    owner = getattr(method, "__self__", None)
    name = getattr(method, "__name__", "")
    budget = current()
    if isinstance(owner, list | tuple) and name in ("index", "count"):
        budget.touch(owner)
    if isinstance(owner, int) and name == "to_bytes":
        budget.room(measure((args, kwargs)).largest)
    if not isinstance(owner, str | bytes):
        return
    given = budget.touch((args, kwargs))
    length = budget.touch(owner).characters
    if name in ("center", "ljust", "rjust", "zfill"):
        budget.room(length + given.largest)
    elif name == "expandtabs":
        budget.room(length * max(8, given.largest))
    elif name == "join":
        budget.room(given.characters + given.elements * length)
    elif name == "replace" and len(args) > 1 and isinstance(args[1], type(owner)):
        budget.room(length + owner.count(args[0]) * len(args[1]))
    elif name == "translate":
        budget.room(length * max(1, given.characters))
