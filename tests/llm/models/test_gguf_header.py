"""Test the GGUF header on generated files: complete, truncated and forged."""

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jeff_llm.models.gguf_header import parse_gguf

pytest.importorskip("gguf")

U32, STRING, ARRAY, U64, BOOL = 4, 8, 9, 10, 7
F32, Q8_0 = 0, 8


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, values: list[bytes]) -> bytes:
    return struct.pack("<IQ", kind, len(values)) + b"".join(values)


def info(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    """ggml's order: the innermost dimension first."""
    sizes = struct.pack(f"<{len(shape)}Q", *reversed(shape))
    rank = struct.pack("<I", len(shape))
    return text(name) + rank + sizes + struct.pack("<IQ", kind, offset)


PAIRS = [
    pair("general.architecture", STRING, text("llama")),
    pair("count", U32, struct.pack("<I", 7)),
    pair("flag", BOOL, b"\1"),
    pair("tokens", ARRAY, array(STRING, [text("a"), text("Ġé")])),
    pair("scores", ARRAY, array(6, [struct.pack("<f", x) for x in (0.5, -1.0)])),
]
# 24 bytes of floats, padded to 32, then two blocks of 32 numbers in 34 bytes each.
INFOS = [info("first", (2, 3), F32, 0), info("second", (2, 32), Q8_0, 32)]


def made(
    pairs: list[bytes] = PAIRS,
    infos: list[bytes] = INFOS,
    *,
    magic: bytes = b"GGUF",
    version: bytes = b"\3\0\0\0",
    counts: tuple[int, int] | None = None,
    align: int = 32,
    data: int = 100,
) -> bytes:
    counts = counts or (len(infos), len(pairs))
    header = magic + version + struct.pack("<QQ", *counts) + b"".join(pairs + infos)
    return header + b"\0" * (-len(header) % align) + b"\7" * data


WHOLE = made()
HEADER_BYTES = len(made(data=0))


def test_whole() -> None:
    """Values are plain Python; shapes are outermost first; data follow each other."""
    metadata, (first, second) = parse_gguf(WHOLE, "f")
    assert metadata == {
        "general.architecture": "llama",
        "count": 7,
        "flag": True,
        "tokens": ["a", "Ġé"],
        "scores": [0.5, -1.0],
    }
    assert first == ("first", (2, 3), "F32", HEADER_BYTES, HEADER_BYTES + 24)
    assert second == (
        "second",
        (2, 32),
        "Q8_0",
        HEADER_BYTES + 32,
        HEADER_BYTES + 32 + 68,
    )
    assert second.stop == len(WHOLE)
    assert parse_gguf(made(version=b"\2\0\0\0"), "f").metadata == metadata
    assert parse_gguf(made([], []), "f") == ({}, [])


def test_alignment() -> None:
    """The key general.alignment moves the data."""
    pairs = [pair("general.alignment", U32, struct.pack("<I", 8))]
    infos = [info("first", (2, 3), F32, 0), info("second", (3,), F32, 24)]
    content = made(pairs, infos, align=8, data=36)
    _, (first, second) = parse_gguf(content, "f")
    assert (first.stop, second.stop) == (second.start, len(content))
    for bad in (0, 3):
        pairs = [pair("general.alignment", U32, struct.pack("<I", bad))]
        with pytest.raises(ValueError, match=f"expected a power of two, not {bad},"):
            parse_gguf(made(pairs), "f")


@pytest.mark.parametrize("length", range(0, len(WHOLE), 3))
def test_cut(length: int) -> None:
    """Wherever the file ends, the error names it, and the tensor if there is one."""
    match = r"^f: "
    if length >= HEADER_BYTES:
        match += "tensor '(first|second)': expected (24|68) bytes of data"
    with pytest.raises(ValueError, match=match):
        parse_gguf(WHOLE[:length], "f")


HUGE = 2**63 - 1
LIES = {
    "magic": (made(magic=b"GGML"), "begins with b'GGUF', got b'GGML'"),
    "empty": (b"", "got b''"),
    "version 1": (made(version=b"\1\0\0\0"), "version 2 or 3 in little endian, got 1"),
    "big endian": (made(version=b"\0\0\0\3"), "the file is big endian"),
    "tensor count": (made(counts=(HUGE, 5)), "number of tensors: expected"),
    "key count": (made(counts=(2, HUGE)), "number of keys: expected"),
    "key length": (made([struct.pack("<Q", HUGE)]), "key 0: expected text of"),
    "text length": (
        made([pair("k", STRING, struct.pack("<Q", HUGE))]),
        "key 'k': expected text of",
    ),
    "array length": (
        made([pair("k", ARRAY, struct.pack("<IQ", U64, HUGE))]),
        f"key 'k': expected {HUGE} times 8 bytes",
    ),
    "text array length": (
        made([pair("k", ARRAY, struct.pack("<IQ", STRING, HUGE))]),
        f"key 'k': expected {HUGE} times 8 bytes",
    ),
    "not UTF-8": (
        made([pair("k", STRING, struct.pack("<Q", 1) + b"\xff")]),
        "key 'k': expected 1 texts in UTF-8",
    ),
    "value type": (made([pair("k", 13, b"")]), "key 'k': expected a number, a text"),
    "nested arrays": (
        made([pair("k", ARRAY, array(ARRAY, []))]),
        "key 'k': expected a number, a text or an array of them, not 9,",
    ),
    "key twice": (made([PAIRS[1], PAIRS[1]]), "key 'count': expected no key twice"),
    "rank": (
        made(infos=[info("t", (1,) * 5, F32, 0)]),
        "tensor 't': expected at most 4 dimensions, not 5",
    ),
    "size": (
        made(infos=[info("t", (2**40, 2**40), F32, 0)]),
        "tensor 't': expected a shape that memory can hold",
    ),
    "size beside 0": (
        made(infos=[info("t", (2**62, 0), F32, 0)]),
        "tensor 't': expected a shape that memory can hold",
    ),
    "tensor type": (
        made(infos=[info("t", (2,), 999, 0)]),
        "tensor 't': expected a quantisation type .* got number 999",
    ),
    "row of a block": (
        made(infos=[info("t", (32, 2), Q8_0, 0)]),
        r"tensor 't': expected rows of a multiple of 32 .* got shape \(32, 2\)",
    ),
    "beyond the end": (
        made(infos=[info("t", (2**30,), F32, 0)]),
        "tensor 't': expected 4294967296 bytes of data",
    ),
    "offset": (
        made(infos=[INFOS[0], info("t", (1,), F32, 0)]),
        "tensor 't': expected 4 bytes of data from byte .* behind the tensor before",
    ),
    "name twice": (
        made(infos=[INFOS[0], INFOS[0]]),
        "tensor 'first': expected no name twice",
    ),
}


@pytest.mark.parametrize("kind", LIES)
def test_lies(kind: str) -> None:
    """A file that contradicts itself is refused by name."""
    content, match = LIES[kind]
    with pytest.raises(ValueError, match=rf"^f: (?s:.)*{match}"):
        parse_gguf(content, "f")


@settings(deadline=5000, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=8)),
        max_size=4,
    ),
    st.integers(0, len(WHOLE)),
)
def test_damaged(changes: list[tuple[int, bytes]], length: int) -> None:
    """Random damage gives a named error, or a header that fits the file."""
    content = bytearray(WHOLE)
    for place, value in changes:
        content[place : place + len(value)] = value
    content = bytes(content[: length if length % 2 else None])
    message = "f: "
    try:
        _, tensors = parse_gguf(content, "f")
    except ValueError as error:
        message, tensors = str(error), []
    assert message.startswith("f: ")
    for tensor in tensors:
        assert HEADER_BYTES - 40 < tensor.start <= tensor.stop <= len(content)
