"""JSON, strictly: no NaN, no number out of range, no key twice, no endless nesting."""

import json
import re
from typing import Any, NoReturn

__all__ = ["parse_json"]

# Numbers that could be infinite as a float, or too long for one.
_LARGE = re.compile(r"[eE]\+?\d{3}|\d{19}")


def parse_json(text: str | bytes, place: str, *, finite: bool = True) -> Any:
    """Parse JSON strictly.

    Args:
      text: the text, or its bytes in UTF-8.
      place: where it comes from, such as ``"file:line"``; errors begin with it.
      finite: refuse NaN and infinity. Without it they come as floats, as Python writes
        them, and the caller must look at each number that it uses.

    Returns:
      The value.

    Raises:
      ValueError: if it is no JSON or nested too deeply, a number is not finite or
        beyond a float of 64 bits, or a key occurs twice in one object.

    >>> parse_json('{"a": 1e400}', "a.json:1")
    Traceback (most recent call last):
    ValueError: a.json:1: expected JSON (expected a finite number, came 1e400)
    """
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        # Checking each number in Python takes longer than parsing: only where needed.
        if not finite:
            return _parse_any(text)
        return (_parse_large if _LARGE.search(text) else _parse)(text)
    except RecursionError:
        raise ValueError(f"{place}: expected JSON of a moderate depth") from None
    except ValueError as error:
        raise ValueError(f"{place}: expected JSON ({error})") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} stands twice in one object")
    return found


def _refuse(number: str) -> NoReturn:
    raise ValueError(f"expected a finite number, came {number:.40}")


def _float(number: str) -> float:
    value = float(number)
    return value if abs(value) < float("inf") else _refuse(number)


def _int(number: str) -> int:
    # Longer ones overflow wherever they become a float.
    return int(number) if len(number.lstrip("-")) <= 308 else _refuse(number)


_parse_any = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_int).decode
_parse = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse).decode
_parse_large = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_constant=_refuse,
    parse_float=_float,
    parse_int=_int,
).decode
