"""The options ``--mesh`` and ``--distributed`` of every script.

They are read without JAX, so that a wrong one is told at once.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Done", "Options", "OtherProcessError", "cluster", "sizes", "take"]

_AXES = ("data", "fsdp", "tensor")


class Done(Exception):  # noqa: N818  (it is no error)
    """Raised in a process that has done its part, once the run has ended well."""


class OtherProcessError(Exception):
    """Raised in a process whose run failed in another one."""


class Options(NamedTuple):
    """What the command line says of the machine.

    Attributes:
      mesh: sizes of the axes, such as "data=4,tensor=2"; empty for one device.
      distributed: "auto", or "HOST:PORT,COUNT,NUMBER"; empty for one process.
    """

    mesh: str = ""
    distributed: str = ""


def take(words: Sequence[str]) -> tuple[Options, list[str]]:
    """Take ``--mesh`` and ``--distributed`` off a command line.

    Args:
      words: the command line.

    Returns:
      Both options, empty where they are missing, and the other words.

    Raises:
      ValueError: if an option is given twice, or ``--mesh`` has no value.

    >>> take(["run", "gre", "--mesh", "data=8", "--distributed"])
    (Options(mesh='data=8', distributed='auto'), ['run', 'gre'])
    """
    found: dict[str, str] = {}
    rest: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if name not in ("--mesh", "--distributed"):
            rest.append(word)
            continue
        if name in found:
            raise ValueError(f"{name}: expected it once, got it twice")
        if not equals and name == "--mesh":
            value = left.pop(0) if left else ""
        elif not equals:
            # Alone it lets JAX find the cluster; a PRESET may follow it.
            by_hand = bool(left) and re.search("[:,]", left[0]) is not None
            value = left.pop(0) if by_hand and left[0][0] != "-" else "auto"
        if not value:
            raise ValueError(f"{name}: expected a value such as data=8, got none")
        found[name] = value
    options = Options(found.get("--mesh", ""), found.get("--distributed", ""))
    sizes(options.mesh)
    cluster(options.distributed)
    return options, rest


def sizes(words: str) -> dict[str, int]:
    """Read the value of ``--mesh``.

    Args:
      words: the value, or nothing.

    Returns:
      Devices by axis; empty where nothing is given.

    Raises:
      ValueError: if it is another thing.

    >>> sizes("data=4,tensor=2"), sizes("tensor=2")
    ({'data': 4, 'tensor': 2}, {'data': 1, 'tensor': 2})
    """
    found: dict[str, int] = {}
    for word in filter(None, words.split(",")):
        axis, _, size = word.partition("=")
        if axis not in _AXES or axis in found or not re.fullmatch(r"-1|[1-9]\d*", size):
            raise ValueError(
                "--mesh: expected sizes of data, fsdp and tensor such as "
                f"data=4,tensor=2 (-1 for all devices that are left), got {words!r}"
            )
        found[axis] = int(size)
    # An axis that is not named has one device.
    return {"data": 1} | found if found else found


def cluster(words: str) -> tuple[str, int, int] | None:
    """Read the value of ``--distributed``.

    Args:
      words: the value, or nothing.

    Returns:
      Address, number of processes, and this one's number; None where JAX is to find
      them, or nothing is given.

    Raises:
      ValueError: if it is another thing.

    >>> cluster("10.0.0.1:1234,2,0"), cluster("auto")
    (('10.0.0.1:1234', 2, 0), None)
    """
    if words in ("", "auto"):
        return None
    match = re.fullmatch(r"([^,]+:\d+),([1-9]\d*),(\d+)", words)
    if not match or int(match[3]) >= int(match[2]):
        raise ValueError(
            "--distributed: expected HOST:PORT,COUNT,NUMBER with a NUMBER from 0 to "
            f"COUNT - 1, such as 10.0.0.1:1234,2,0, got {words!r}; leave it out on "
            "Slurm, GKE and TPU pods, where JAX finds the processes"
        )
    return match[1], int(match[2]), int(match[3])
