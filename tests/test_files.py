"""Test the door to files: places, limits, named errors, and writing on a full disk."""

import errno
import gzip
import json
import os
import re
import zipfile
from pathlib import Path

import pytest

from jeff import files
from jeff.csv_rows import csv_rows


def test_rows_and_their_places(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    text = json.dumps({"a": "one\u2028line \x85"}, ensure_ascii=False)
    path.write_bytes(f"\ufeff{text}\r\n\r\n{{}}\n".encode())
    rows = [(f"{path}:1", {"a": "one\u2028line \x85"}), (f"{path}:3", {})]
    assert files.read_json_lines(path) == rows
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert [row for _, row in files.json_lines(packed)] == [row for _, row in rows]


def test_an_error_names_its_file_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text("{}\n{")
    Path("a.csv").write_text('a,b\n"1,2\n')
    home = re.escape(str(tmp_path))
    for read, path, place in (
        (files.read_json_lines, "~/a.jsonl", rf"{home}/a\.jsonl:2"),
        (files.read_json_lines, "./a.jsonl", r"a\.jsonl:2"),
        (list_rows, "~/a.csv", rf"{home}/a\.csv:2"),
        (list_rows, "./a.csv", r"a\.csv:2"),
    ):
        with pytest.raises(ValueError, match=rf"^{place}: expected [^/]*$"):
            read(path)


def list_rows(path: str) -> list[list[str]]:
    return [fields for _, fields in csv_rows(path)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_as_other_programs_write_them(tmp_path, end) -> None:
    text = f'\ufeff"a",b{end}1,"2"{end}'
    rows = [["a", "b"], ["1", "2"]]
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert list_rows(str(tmp_path / "a.csv")) == rows
    # Finder adds files of attributes to an archive.
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("A.CSV", text)
        archive.writestr("__MACOSX/._A.CSV", b"\0\5\26\7")
    assert list_rows(str(tmp_path / "a.zip")) == rows


def test_a_byte_order_mark_is_dropped(tmp_path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert files.read_json(tmp_path / "a.json") == [1]


def test_another_encoding_is_named(tmp_path) -> None:
    (tmp_path / "a.csv").write_bytes("größe,b\n1,2\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.csv: .*save it in UTF-8"):
        list_rows(str(tmp_path / "a.csv"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{}\n{"a": ', r"a\.jsonl:2: expected JSON"),
        (b"{}\n\n3", r"a\.jsonl:3: expected an object, got '3'"),
        (b"\xff\xfe{\x00", r"a\.jsonl:1: expected text in UTF-8"),
        (b'{"a": 1, "a": 2}', r"a\.jsonl:1: .*key 'a' stands twice"),
        (b'{"a": NaN}', r"a\.jsonl:1: .*expected a finite number, came NaN"),
        (b'{"a": 1e999}', r"a\.jsonl:1: .*expected a finite number, came 1e999"),
        (b'{"a": 1' + b"0" * 400 + b"}", r"a\.jsonl:1: .*expected a finite number"),
        (b'{"a": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", r"a\.jsonl:1: .*depth"),
    ],
)
def test_lines_that_are_refused(tmp_path, content, message) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        files.read_json_lines(path)
    with pytest.raises(FileNotFoundError, match="expected a file of JSON lines"):
        files.read_json_lines(tmp_path / "b.jsonl")


@pytest.mark.parametrize("text", ["1e300", "-12345678901234567890", '"1e999"', "0.1"])
def test_numbers_that_fit_are_read_as_they_are(text) -> None:
    assert files.parse_json(text, "a.json") == json.loads(text)


def test_a_bomb_is_refused_and_the_limit_can_be_raised(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.txt.gz"
    with gzip.GzipFile(path, "wb", 1) as file:
        for _ in range(300):
            file.write(bytes(1 << 20))
    with pytest.raises(
        ValueError, match=r"a\.txt\.gz: .*or more; .* set JEFF_MAX_BYTES"
    ):
        files.read_bytes(path)
    monkeypatch.setenv("JEFF_MAX_BYTES", str(300 << 20))
    assert len(files.read_bytes(path)) == 300 << 20
    monkeypatch.setenv("JEFF_MAX_BYTES", "")  # as if it were not set
    with pytest.raises(ValueError, match="expected at most 268,435,456 bytes"):
        files.read_bytes(path)
    monkeypatch.setenv("JEFF_MAX_BYTES", "1G")
    with pytest.raises(ValueError, match="JEFF_MAX_BYTES to be a number of bytes"):
        files.read_bytes(path)


class _PanicError(BaseException):
    """Stands for a panic of a library written in Rust."""


def _endless(depth: int = 0) -> int:
    return _endless(depth + 1)


def _panic() -> None:
    raise _PanicError("called `Option::unwrap()` on a `None` value")


@pytest.mark.parametrize(
    "fault",
    [_endless, _panic, lambda: 1 / 0, lambda: {}["a"], lambda: 1.0**-1 + 10**400],
)
def test_whatever_a_library_raises_names_the_file(fault) -> None:
    with (
        pytest.raises(ValueError, match=r"^a\.bin: expected numbers, but it cannot"),
        files.reading("a.bin", "numbers"),
    ):
        fault()


def test_errors_that_name_the_file_or_stop_the_program_pass(tmp_path) -> None:
    for error in (
        KeyboardInterrupt(),
        ImportError("no gguf"),
        ValueError("a.bin: 3"),
        FileNotFoundError(errno.ENOENT, "none", "a.bin"),
    ):
        with pytest.raises(type(error)) as caught, files.reading("a.bin", "numbers"):
            raise error
        assert caught.value is error
    with (
        pytest.raises(OSError, match=r"Input/output error: 'a\.bin'"),
        files.reading("a.bin", "numbers"),
    ):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_full_disk_keeps_the_old_file_and_names_it(tmp_path) -> None:
    path = files.write_text(tmp_path / "a.txt", "old")
    message = r"a\.txt: could not be written \(No space"
    with (
        pytest.raises(OSError, match=message) as full,
        files.replacing(path) as part,
    ):
        _write_half(part)
    assert full.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def _write_half(part: Path) -> None:
    part.write_text("half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_a_kill_left_is_swept_and_nothing_else(tmp_path) -> None:
    other = tmp_path / "other"
    kept = [tmp_path / "a.part", tmp_path / ".a.txt.part", tmp_path / "sub" / "b.txt"]
    kept += [other / "lock", other / ".a.txt.12-0123abcd.part"]
    left = [
        tmp_path / ".a.txt.12-0123abcd.part",
        tmp_path / "sub" / ".b.9-00000000.part",
    ]
    unfinished = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp-17"
    unfinished.mkdir(parents=True)
    for path in (*kept, *left, unfinished / "data"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    assert sorted(files.sweep(tmp_path)) == sorted([*left, unfinished])
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in (*left, unfinished))
    assert files.sweep(tmp_path / "none") == []


def test_a_folder_is_replaced_as_a_whole(tmp_path) -> None:
    folder = tmp_path / "model"
    for text in ("old", "new"):
        with files.replacing_folder(folder) as draft:
            (draft / "a.txt").write_text(text)
            if text == "new":
                assert (folder / "a.txt").read_text() == "old"
    assert (folder / "a.txt").read_text() == "new"
    with pytest.raises(ZeroDivisionError), files.replacing_folder(folder) as draft:
        (draft / "a.txt").write_text(str(1 / 0))
    assert (folder / "a.txt").read_text() == "new"
    assert os.listdir(tmp_path) == ["model"]


def test_a_folder_that_a_kill_left_between_two_renames_comes_back(tmp_path) -> None:
    folder = tmp_path / "model"
    with files.replacing_folder(folder) as draft:
        (draft / "a.txt").write_text("old")
    folder.rename(tmp_path / ".model.before")
    (tmp_path / ".model.12-0123abcd.part").mkdir()
    assert files.sweep(tmp_path) == [tmp_path / ".model.12-0123abcd.part"]
    files.recover_folder(folder)
    assert (folder / "a.txt").read_text() == "old"
