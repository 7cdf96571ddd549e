"""Fields of a model's configuration, read by the kind of value that each must have.

A configuration is untrusted input: a size may be a text, a list, 10^400 or -1. Each
function gives the value or an error that names the field; what calls it adds the file.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = [
    "check_real",
    "check_whole",
    "flag",
    "mapping",
    "real",
    "shown",
    "text",
    "whole",
]

# Places in a sequence, and sizes of a tensor's axis, are integers of 32 bits.
_LARGEST = 2**31 - 1
# What float32, in which a decoder computes, can tell from 0 and from infinity.
_TINY, _HUGE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


def whole(values: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A size.

    Args:
      values: the configuration.
      name: the field.
      default: where the field is missing or null; None if it is required.

    Returns:
      The number, at least 1.

    Raises:
      ValueError: if it is no such number.

    >>> whole({"hidden_size": "12"}, "hidden_size")
    Traceback (most recent call last):
    ValueError: hidden_size: expected a whole number of at least 1, got '12'
    """
    value = values.get(name)
    value = default if value is None else value
    check_whole(name, value)
    assert value is not None
    return value


def check_whole(name: str, value: Any) -> None:
    """Check a size.

    Args:
      name: its name in the error.
      value: what should be a whole number from 1 to 2^31 - 1.

    Raises:
      ValueError: if it is not.
    """
    # A bool is an int.
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        expected = "a whole number" + (" of at least 1" if value is not None else "")
    elif 1 <= value <= _LARGEST:
        return
    else:
        expected = "at least 1" if value < 1 else f"at most {_LARGEST}"
    raise ValueError(f"{name}: expected {expected}, got {shown(value)}")


def real(
    values: Mapping[str, Any],
    name: str,
    default: float | None = None,
    *,
    above: float = 0.0,
    below: float = float("inf"),
) -> float:
    """A number.

    Args:
      values: the configuration.
      name: the field.
      default: where the field is missing or null; None if it is required.
      above: what it must exceed.
      below: what it must not reach.

    Returns:
      The number.

    Raises:
      ValueError: if it is no such number.

    >>> real({"rope_theta": -1}, "rope_theta")
    Traceback (most recent call last):
    ValueError: rope_theta: expected a number above 0, got -1
    """
    value = values.get(name)
    value = default if value is None else value
    check_real(name, value, above=above, below=below)
    assert value is not None
    return float(value)


def check_real(
    name: str, value: Any, *, above: float = 0.0, below: float = float("inf")
) -> None:
    """Check a number.

    Args:
      name: its name in the error.
      value: what should be a number that float32 can hold.
      above: what it must exceed.
      below: what it must not reach.

    Raises:
      ValueError: if it is not.
    """
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    # Compared before any conversion: 10^400 is no float.
    if number and above < value < below and _TINY <= abs(value) <= _HUGE:
        return
    most = "" if below == float("inf") else f" and below {below:g}"
    raise ValueError(
        f"{name}: expected a number above {above:g}{most}, got {shown(value)}"
    )


def flag(values: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """An option that is on or off.

    Args:
      values: the configuration.
      name: the field.
      default: where the field is missing or null.

    Returns:
      The option.

    Raises:
      ValueError: if it is neither true nor false.
    """
    value = values.get(name)
    value = default if value is None else value
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected true or false, got {shown(value)}")
    return value


def text(values: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """A word.

    Args:
      values: the configuration.
      name: the field.
      default: where the field is missing or null; None if it is required.

    Returns:
      The word.

    Raises:
      ValueError: if it is no text.
    """
    value = values.get(name)
    value = default if value is None else value
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected a text, got {shown(value)}")
    return value


def mapping(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A group of fields.

    Args:
      values: the configuration.
      name: the field.

    Returns:
      The group; empty where the field is missing or null.

    Raises:
      ValueError: if it is no object.
    """
    value = values.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"{name}: expected an object, got {shown(value)}")
    return dict(value or {})


def shown(value: Any) -> str:
    """A value as errors show it.

    Args:
      value: anything.

    Returns:
      Its beginning.
    """
    # A number of many digits cannot even be printed.
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"
    return f"{value!r:.100}"
