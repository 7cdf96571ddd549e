"""Test the safetensors header on generated files: complete, truncated, forged."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jeff_llm.models.safetensors_header import parse_safetensors


def entry(dtype: object, shape: object, start: object, stop: object) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def made(header: object, data: int = 28) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"\7" * data


GOOD = {
    "__metadata__": {"format": "pt"},
    "b": entry("F16", [2], 24, 28),
    "a": entry("F32", [2, 3], 0, 24),
}
WHOLE = made(GOOD)
FIRST = len(WHOLE) - 28


def test_whole() -> None:
    """Tensors come in the order of their data, empty ones and scalars too."""
    metadata, (a, b) = parse_safetensors(WHOLE, "f")
    assert metadata == {"format": "pt"}
    assert a == ("a", (2, 3), "F32", FIRST, FIRST + 24)
    assert b == ("b", (2,), "F16", FIRST + 24, FIRST + 28)
    header = {"s": entry("U8", [], 0, 1), "e": entry("I64", [0, 5], 1, 1)}
    _, tensors = parse_safetensors(made(header, 1), "f")
    assert [t.shape for t in tensors] == [(), (0, 5)]
    assert parse_safetensors(made(b"{}  ", 0), "f") == ({}, [])


@pytest.mark.parametrize("length", range(0, len(WHOLE), 3))
def test_cut(length: int) -> None:
    with pytest.raises(ValueError, match=r"^f: .*get it again"):
        parse_safetensors(WHOLE[:length], "f")


def one(dtype: object, shape: object, start: object = 0, stop: object = 28) -> bytes:
    return made({"t": entry(dtype, shape, start, stop)})


LIES = {
    "length": (b"\xff" * 8 + b"{}", "that says 18446744073709551615 bytes"),
    "length by one": (made(b"{}", 0)[:-1], "that says 2 bytes, the file has 9"),
    "not JSON": (made(b"{'a': 1}"), "expected a header in JSON"),
    "not UTF-8": (made(b'{"\xff": 1}'), "expected a header in JSON"),
    "deep": (made(b'{"a":' * 100_000), "expected a header in JSON"),
    "huge number": (made(b'{"a":' + b"9" * 5000 + b"}"), "expected a header in JSON"),
    "not an object": (made([1]), "expected a JSON object as header, got list"),
    "metadata": (made({"__metadata__": {"a": 1}}), "expected texts by name"),
    "name twice": (made(b'{"t": 1, "t": 2}'), "'t' stands twice"),
    "not an entry": (made({"t": 1}), "tensor 't': expected dtype, shape and two"),
    "no offsets": (made({"t": {"dtype": "F32", "shape": []}}), "tensor 't': expected"),
    "three offsets": (
        made({"t": {"dtype": "F32", "shape": [7], "data_offsets": [0, 28, 1]}}),
        "tensor 't': expected dtype, shape and two data_offsets",
    ),
    "dtype": (one("F31", [7]), "tensor 't': expected a dtype among .* got 'F31'"),
    "dtype of no text": (one(["F32"], [7]), "tensor 't': expected dtype"),
    "shape": (one("F32", 7), "tensor 't': expected sizes"),
    "negative": (one("F32", [-7, -1]), "tensor 't': expected sizes"),
    "bool": (one("F32", [7, True]), "tensor 't': expected sizes"),
    "float": (one("F32", [7.0]), "tensor 't': expected sizes"),
    "overflow": (one("F32", [2**40, 2**40]), "tensor 't': expected sizes"),
    "overflow beside 0": (one("F32", [0, 2**62], 0, 0), "tensor 't': expected sizes"),
    "rank": (one("F32", [1] * 65), "tensor 't': expected sizes"),
    "bytes": (
        one("F32", [6]),
        r"tensor 't': expected 24 bytes of data for F32\[6\], its data_offsets give 28",
    ),
    "backwards": (one("F32", [7], 28, 0), "expected 28 bytes of data .* give -28"),
    "out of the file": (one("F32", [8], 0, 32), "tensor 't': expected data from byte"),
    "gap before": (one("F32", [6], 4, 28), "tensor 't': expected data from byte"),
    "gap behind": (one("F32", [6], 0, 24), "expected data up to the end of the file"),
    "overlap": (
        made({"t": entry("F32", [4], 0, 16), "u": entry("F32", [4], 12, 28)}),
        "tensor 'u': expected data from byte",
    ),
}


@pytest.mark.parametrize("kind", LIES)
def test_lies(kind: str) -> None:
    """A file that contradicts itself is refused by name."""
    content, match = LIES[kind]
    with pytest.raises(ValueError, match=rf"^f: .*{match}"):
        parse_safetensors(content, "f")


@settings(deadline=5000)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(WHOLE) - 1),
            st.binary(min_size=1, max_size=4) | st.sampled_from([b"9", b"-", b'"']),
        ),
        max_size=4,
    ),
    st.integers(0, len(WHOLE)),
)
def test_damaged(changes: list[tuple[int, bytes]], length: int) -> None:
    """Random damage gives a named error, or tensors that cover the file."""
    content = bytearray(WHOLE)
    for place, value in changes:
        content[place : place + len(value)] = value
    content = bytes(content[: length if length % 2 else None])
    first = 8 + int.from_bytes(content[:8], "little")
    message = "f: "
    try:
        _, tensors = parse_safetensors(content, "f")
        assert sum(t.stop - t.start for t in tensors) == len(content) - first
    except ValueError as error:
        message = str(error)
    assert message.startswith("f: ")
