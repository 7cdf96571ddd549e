"""Test files of JSON lines as users write them."""

import json

import pytest

from jeff import files


def test_rows_and_their_places(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    text = json.dumps({"a": "one\u2028line \x85"}, ensure_ascii=False)
    path.write_bytes(f"\ufeff{text}\r\n\r\n{{}}\n".encode())
    assert files.read_json_lines(path) == [
        (f"{path}:1", {"a": "one\u2028line \x85"}),
        (f"{path}:3", {}),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{}\n{"a": ', r"a\.jsonl:2: expected JSON, one object a line"),
        (b"{}\n\n3", r"a\.jsonl:3: expected an object, got '3'"),
        (b"\xff\xfe{\x00", r"a\.jsonl: expected text in UTF-8"),
    ],
)
def test_files_that_are_refused(tmp_path, content, message) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        files.read_json_lines(path)
    with pytest.raises(FileNotFoundError, match="expected a file of JSON lines"):
        files.read_json_lines(tmp_path / "b.jsonl")
