"""Files of JSON lines, as people have them."""

import json

import pytest

from jeff_llm import json_lines


def test_rows_and_their_places(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    text = json.dumps({"a": "one\u2028line \x85"}, ensure_ascii=False)
    path.write_bytes(f"\ufeff{text}\r\n\r\n{{}}\n".encode())
    assert json_lines.read(path) == [
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
        json_lines.read(path)
    with pytest.raises(FileNotFoundError, match="expected a file of JSON lines"):
        json_lines.read(tmp_path / "b.jsonl")
