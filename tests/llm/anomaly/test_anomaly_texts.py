"""Test reading of texts: tables, JSON lines and plain lines, whole and damaged."""

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jeff_llm.anomaly.texts import Text, distinct, read_lines, read_texts


@pytest.fixture
def write(tmp_path):
    def make(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def texts(path, **options):
    return [each.text for each in read_texts(path, **options)]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "id,text\n1,one\n2,two\n", ["one", "two"]),
        ("a.CSV", 'text\n"two\nlines"\n"a ""b"""\n', ["two\nlines", 'a "b"']),
        ("a.csv", 'id;text\n1;"a;b"\n2;c,d\n', ["a;b", "c,d"]),
        ("a.csv", b"\xef\xbb\xbftext,id\r\none,1\r\n,2\r\n", ["one", ""]),
        ("a.csv", b'text,id\r\n"a\r\nb",1\r\n', ["a\nb"]),
        ("a.csv", "text,id\nmore than,1\n\nlast,2", ["more than", "last"]),
        ("a.csv", "mail\nonly column\n", ["only column"]),
        ("a.csv", "text,id\n\u2028x\x85y\x0cz,1\n", ["\u2028x\x85y\x0cz"]),
        ("a.tsv", "id\ttext\n1\ta, b; c\n", ["a, b; c"]),
        ("a.jsonl", '{"text": "a\\nb"}\n\n{"text": "\u2028"}\n', ["a\nb", "\u2028"]),
        ("a.ndjson", b'\xef\xbb\xbf{"body": "x"}\r\n', ["x"]),
        ("a.jsonl", '{"text": "\\ud83d"}', ["\ud83d"]),
        ("a.txt", "one\n\n two \nthree", ["one", "", " two ", "three"]),
        ("a", b"\xef\xbb\xbfone\r\ntwo\r\n", ["one", "two"]),
        ("a.log", "a\u2028b\x0bc\x1cd\n日本\n", ["a\u2028b\x0bc\x1cd", "日本"]),
        ("a.txt", "", []),
        ("a.jsonl", "", []),
    ],
)
def test_formats(write, name, content, expected):
    assert texts(write(name, content)) == expected


def test_columns(write):
    table = write("a.csv", "text,body\nx,y\n")
    assert texts(table) == ["x"] and texts(table, column="body") == ["y"]
    lines = write("a.jsonl", '{"text": "x", "body": "y"}\n')
    assert texts(lines) == ["x"] and texts(lines, column="body") == ["y"]


def test_places(write):
    """The file and the last line of the text, counted as an editor does."""
    found = read_texts(write("a.csv", 'text,id\n"a\nb",1\nc,2\n'))
    assert [each.place.rpartition(":")[2] for each in found] == ["3", "4"]
    found = read_texts(write("a.jsonl", '\n{"text": "x"}\n'))
    assert found[0].place.endswith("a.jsonl:2")
    assert read_lines(["a\n", "b\r\n"], source="in") == [
        Text("a", "in:1"),
        Text("b", "in:2"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "column", "message"),
    [
        ("a.csv", "", "", r"a\.csv: expected a header in line 1, got none"),
        ("a.csv", "\ntext\n", "", r"a\.csv: expected a header in line 1"),
        ("a.csv", "id,body\n1,x\n", "", r"a\.csv: expected one column 'text', got"),
        ("a.csv", "text,text\n1,x\n", "", "expected one column 'text', got"),
        ("a.csv", "id,body\n1,x\n", "mail", "expected one column 'mail', got"),
        ("a.csv", "text\nx\n", "mail", "expected one column 'mail', got"),
        ("a.csv", "id,text\n1,x\n2\n", "", r"a\.csv:3: expected 2 columns, got 1"),
        ("a.csv", "id,text\n1,x, y\n", "", r"a\.csv:2: expected 2 columns, got 3"),
        ("a.csv", 'id,text\n1,x\n2,"y\nz', "", r"a\.csv:4: expected a table, but"),
        ("a.csv", 'id,text\n1,"x" y\n', "", r"a\.csv:2: expected a table, but"),
        ("a.csv", "id,text\n1,x\0\n", "", r"a\.csv:2: expected text, got a zero byte"),
        ("a.tsv", "id\ttext\n1\tx\ty\n", "", r"a\.tsv:2: expected 2 columns, got 3"),
        ("a.csv", b"text,id\ncaf\xe9,1\n", "", r"a\.csv: expected text in UTF-8, .* 11"),
        ("a.txt", b"caf\xe9\n", "", r"a\.txt: expected text in UTF-8, .* position 3"),
        ("a.txt", b"\xff\xfea\x00", "", "expected text in UTF-8, but"),
        ("a.jsonl", b'{"text": "caf\xe9"}', "", r"a\.jsonl:1: expected text in UTF-8"),
        ("a.txt", "a\nb\0\n", "", r"a\.txt:2: expected text, got a zero byte"),
        ("a.txt", "a\n", "text", "expected no `column` for plain lines, got 'text'"),
        ("a.jsonl", '{"text": "x"}\n{"body": "y", "id": 1}', "",
         r"a\.jsonl:2: expected one column 'text', got \['body', 'id'\]"),
        ("a.jsonl", '{"text": 3}', "", r"a\.jsonl:1: expected a text, got 3"),
        ("a.jsonl", '{"text": null}', "", r"a\.jsonl:1: expected a text, got None"),
        ("a.jsonl", '{"text": "x"}\n["y"]', "", r"a\.jsonl:2: expected an object"),
        ("a.jsonl", "{}", "", r"a\.jsonl:1: expected one column 'text', got \[\]"),
        ("a.jsonl", '{"text": "x', "", r"a\.jsonl:1: expected JSON"),
        ("a.json", '[{"text": "x"}]', "", r"a\.json: expected JSON lines \(\.jsonl\)"),
    ],
)  # fmt: skip
def test_files_that_are_refused(write, name, content, column, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_texts(write(name, content), column=column)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    for name in ("a.csv", "a.jsonl", "a.txt"):
        with pytest.raises(FileNotFoundError, match=name):
            read_texts(tmp_path / name)


def test_the_limit_of_fields_is_put_back(write):
    """A field of a megabyte is read; the process keeps its own limit."""
    before = csv.field_size_limit()
    long = "x" * 1_000_000
    assert texts(write("a.csv", f"text,id\n{long},1\n")) == [long]
    assert texts(write("b.jsonl", json.dumps({"text": long}))) == [long]
    with pytest.raises(ValueError, match="field larger than field limit"):
        texts(write("a.csv", f"text,id\n{long * 17},1\n"))
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_many_lines_are_read(write, name):
    lines = [f"line {number}, or so" for number in range(100_000)]
    rows = {
        "a.txt": lines,
        "a.csv": ["text", *(f'"{line}"' for line in lines)],
        "a.jsonl": [json.dumps({"text": line}) for line in lines],
    }
    path = write(name, "\n".join(rows[name]))
    assert texts(path) == lines


@given(st.lists(st.text(st.characters(exclude_characters="\r\0", codec="utf-8"))))
def test_what_is_written_is_read(tmp_path_factory, rows):
    """Any text in a table and in JSON lines, but for the ends of lines."""
    folder = tmp_path_factory.mktemp("texts")
    with (folder / "a.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *enumerate(rows)])
    assert texts(folder / "a.csv") == rows
    lines = "\n".join(json.dumps({"text": row}, ensure_ascii=False) for row in rows)
    (folder / "a.jsonl").write_text(lines, encoding="utf-8", newline="")
    assert texts(folder / "a.jsonl") == rows


def test_distinct():
    """The first of equal texts stays as it is; spaces around do not count."""
    rows = [
        Text(text, str(i)) for i, text in enumerate(["a ", "", "b", " a", "\n", "b"])
    ]
    assert distinct(rows) == ([Text("a ", "0"), Text("b", "2")], 2, 2)
    assert distinct([]) == ([], 0, 0)
