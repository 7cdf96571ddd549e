"""Seeded damage to files: by bytes, by lines, by JSON values, by what the format holds.

A mutation is a function of a file and a random generator that changes the file in
place. `mutate` picks one that fits the file's format.
"""

import gzip
import json
import random
import sqlite3
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Mutation", "mutate"]

_BOMB = 2304 << 20  # bytes that a bomb expands to, more than a case may take

Mutation = Callable[[Path, random.Random], None]

# Numbers that break what trusts them: signs, widths of integers and floats, sizes.
NUMBERS = [
    *(0, -1, 1, 2, 7, 16, 127, 255, 65_535, 10**6, 10**7, 10**8, 10**9),
    *(2**31 - 1, 2**31, 2**31 + 5, 2**32 - 1, 2**32 + 1, 2**63 - 1, 2**63, -(2**63)),
    *(10**400, 0.5, -0.5, 1e39, 1e300, 5e-324, float("nan"), float("inf")),
]
TEXTS = [
    *(
        "",
        "\0",
        "\ud800",
        "\u2028",
        "NaN",
        "1e999",
        "-",
        ",",
        "\t",
        '"',
        "'",
        "{{",
        "é",
    ),
    *(
        "x" * 200_000,
        "../../etc/passwd",
        "<script>",
        "a\nb",
        "a\r\nb",
        "null",
        "\ufeff",
    ),
]


def mutate(path: Path, rng: random.Random) -> str:
    """Damage a file.

    Args:
      path: the file.
      rng: makes the choices.

    Returns:
      Name of the mutation.
    """
    special = SPECIAL.get(path.suffix, [])
    kinds: list[Mutation] = [flip, flip, empty, *4 * special]
    mutation = rng.choice(kinds)
    try:
        mutation(path, rng)
    except ValueError:
        # A binary file without an ending is no JSON.
        mutation = flip
        mutation(path, rng)
    return getattr(mutation, "__name__", "?")


def flip(path: Path, rng: random.Random) -> None:
    """Flip, cut, insert, repeat or overwrite some bytes."""
    data = bytearray(path.read_bytes())
    size = len(data)
    at, length = rng.randrange(size + 1), min(size, 1 << rng.randrange(13))
    stop = min(size, at + length)
    match rng.randrange(9):
        case 0 | 1 if size:
            data[at % size] ^= 1 << rng.randrange(8)
        case 2 if size:
            data[at % size] = rng.randrange(256)
        case 3:
            del data[at:]
        case 4:
            del data[at:stop]
        case 5:
            data[at:at] = rng.randbytes(length)
        case 6:
            data[at:stop] = bytes(stop - at)
        case 7:
            data[at:at] = data[at:stop]
        case _:
            data[at:stop] = _number_bytes(rng)[: stop - at]
    path.write_bytes(data)


def _number_bytes(rng: random.Random) -> bytes:
    value = rng.choice([n for n in NUMBERS if isinstance(n, int) and n < 2**63])
    return struct.pack("<q", value) if value < 0 else struct.pack("<Q", value)


def lines(path: Path, rng: random.Random) -> None:
    """Change a field or a line of a text file."""
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    rows = text.split("\n")
    at = rng.randrange(len(rows))
    match rng.randrange(8):
        case 0:
            rows.insert(rng.randrange(len(rows)), rows[at])
        case 1:
            del rows[at]
        case 2:
            rows[at] = rows[at][: rng.randrange(len(rows[at]) + 1)]
        case 3:
            other = rng.randrange(len(rows))
            rows[at], rows[other] = rows[other], rows[at]
        case 4:
            rows[at] = rng.choice(TEXTS)
        case _:
            mark = rng.choice([c for c in ",\t: " if c in rows[at]] or [" "])
            fields = rows[at].split(mark)
            place = rng.randrange(len(fields))
            fields[place] = str(rng.choice([*NUMBERS, *TEXTS]))
            rows[at] = mark.join(fields)
    path.write_bytes("\n".join(rows).encode("utf-8", "surrogatepass"))


def json_value(path: Path, rng: random.Random) -> None:
    """Replace a value, a key or a part of a JSON document."""
    path.write_text(_damaged_json(path.read_text(), rng), "utf-8", "surrogatepass")


def json_line(path: Path, rng: random.Random) -> None:
    """Replace a value in one line of a file of JSON lines."""
    rows = path.read_text().split("\n")
    full = [number for number, row in enumerate(rows) if row.strip()]
    at = rng.choice(full)
    rows[at] = _damaged_json(rows[at], rng).replace("\n", " ")
    path.write_text("\n".join(rows), "utf-8", "surrogatepass")


def _damaged_json(text: str, rng: random.Random) -> str:
    document = json.loads(text)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        items = list(value.items()) if isinstance(value, dict) else []
        items = list(enumerate(value)) if isinstance(value, list) else items
        # Long lists, such as a vocabulary, would crowd out all else.
        for key, item in items if len(items) < 50 else rng.sample(items, 50):
            places.append((value, key))
            walk(item)

    walk(document)
    if not places:
        return rng.choice(["[]", "null", "3", '""', "[[]]", "{}"])
    holder, key = rng.choice(places)
    marker = "\x01hole\x01"
    old, holder[key] = holder[key], marker
    hole = json.dumps(marker)
    text = json.dumps(document)
    old_text = json.dumps(old)
    match rng.randrange(10):
        case 0 | 1 | 2 | 3:
            new = json.dumps(rng.choice(NUMBERS))
        case 4 | 5:
            new = json.dumps(rng.choice(TEXTS))
        case 6:
            new = rng.choice(["null", "true", "[]", "{}", "[null]", '{"a": 1}'])
        case 7:
            new = "[" * 30_000 + "]" * 30_000
        case 8:
            new = f"[{old_text}, {old_text}]"
        case _ if isinstance(holder, dict):
            # The key twice, or gone under another name.
            name = json.dumps(key)
            if rng.random() < 0.5:
                return text.replace(f"{name}: {hole}", f"{name}: {old_text}, {name}: 1")
            return text.replace(f"{name}: {hole}", f'"another": {old_text}')
        case _:
            new = f"{old_text}, {old_text}"
    return text.replace(hole, new)


def inside_gzip(path: Path, rng: random.Random) -> None:
    """Damage what a gzip file holds, or make a bomb of it."""
    content = gzip.decompress(path.read_bytes())
    if rng.random() < 0.1:
        # The parts of a gzip file may be repeated: three gigabytes in a moment.
        line = content.split(b"\n")[1 % (content.count(b"\n") + 1)] + b"\n"
        part = gzip.compress(line * (1 + (16 << 20) // len(line)), 1)
        path.write_bytes(gzip.compress(content) + part * 192)
        return
    inner = path.with_suffix("")
    inner.write_bytes(content)
    mutate(inner, rng)
    path.write_bytes(gzip.compress(inner.read_bytes()))
    inner.unlink()


def inside_npz(path: Path, rng: random.Random) -> None:
    """Damage an array, its header, or the archive."""
    with np.load(path) as archive:
        arrays = dict(archive)
    name = rng.choice(sorted(arrays))
    array = arrays[name].copy()
    match rng.randrange(8):
        case 0 | 1 | 2:
            arrays[name] = _with_number(array, rng)
        case 3:
            arrays[name] = (
                array[: rng.randrange(len(array) + 1)] if array.ndim else array
            )
        case 4:
            arrays[name] = array.astype(
                rng.choice(["f2", "i8", "U9", "u1", "c16", "?"])
            )
        case 5:
            arrays[name] = array.reshape(-1)[None]
        case 6:
            del arrays[name]
        case _:
            return _claim(path, name, rng)
    np.savez(path, **arrays)
    return None


def _with_number(array: np.ndarray, rng: random.Random) -> np.ndarray:
    if array.dtype.kind not in "iufb" or not array.size:
        return array
    value = rng.choice([n for n in NUMBERS if abs(n) < 2**63 or isinstance(n, float)])
    # Wide enough that the number arrives as it is.
    wide = array.astype(np.float64 if isinstance(value, float) else np.int64)
    wide.reshape(-1)[rng.randrange(array.size)] = value
    return wide


def _claim(path: Path, name: str, rng: random.Random) -> None:
    """An array whose header says more than it holds, or that expands without end."""
    with zipfile.ZipFile(path) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    bomb = rng.random() < 0.3
    shape = (_BOMB // 4,) if bomb else (10, rng.choice([10**8, 10**10]))
    head = np.lib.format.magic(1, 0)
    text = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).ljust(117)
    head += struct.pack("<H", 118) + text.encode() + b"\n"
    members[f"{name}.npy"] = head
    # The quickest level: a case's seconds are for its reader.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for each, data in members.items():
            with archive.open(each, "w", force_zip64=True) as file:
                file.write(data)
                for _ in range(_BOMB >> 24 if bomb and data is head else 0):
                    file.write(bytes(1 << 24))


def inside_zip(path: Path, rng: random.Random) -> None:
    """Damage the one file of a zip."""
    with zipfile.ZipFile(path) as archive:
        name = archive.namelist()[0]
        inner = path.with_name(f"inner{Path(name).suffix}")
        inner.write_bytes(archive.read(name))
    mutate(inner, rng)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(inner, name)
    inner.unlink()


def safetensors_header(path: Path, rng: random.Random) -> None:
    """Damage the header, or put a number that is none into a weight."""
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    if rng.random() < 0.3:
        at = 8 + size + 4 * rng.randrange((len(data) - 8 - size) // 4)
        data[at : at + 4] = struct.pack("<f", rng.choice([np.nan, np.inf, -1e38]))
        path.write_bytes(data)
        return
    text = _damaged_json(data[8 : 8 + size].decode(), rng)
    head = text.encode("utf-8", "surrogatepass")
    path.write_bytes(struct.pack("<Q", len(head)) + head + data[8 + size :])


def gguf_field(path: Path, rng: random.Random) -> None:
    """Overwrite the value of a number among the keys, or a weight."""
    data = bytearray(path.read_bytes())
    keys = [
        at + len(key)
        for key in (
            b"_count",
            b"_length",
            b"epsilon",
            b"freq_base",
            b"_kv",
            b"alignment",
        )
        if (at := data.find(key)) >= 0
    ]
    if keys and rng.random() < 0.7:
        at = rng.choice(keys)
        kind = int.from_bytes(data[at : at + 4], "little")
        if kind == 6:
            new = struct.pack("<f", rng.choice([np.nan, np.inf, -1.0, 0.0, 1e30]))
        else:
            new = struct.pack("<I", rng.choice([0, 1, 3, 10**6, 10**8, 2**31 - 1]))
        data[at + 4 : at + 8] = new
    else:
        at = len(data) - 4 * rng.randrange(1, len(data) // 8)
        data[at : at + 4] = struct.pack("<f", rng.choice([np.nan, np.inf, 1e38]))
    path.write_bytes(data)


def inside_database(path: Path, rng: random.Random) -> None:
    """Damage what a row of a database holds."""
    database = sqlite3.connect(path)
    rows = database.execute("SELECT rowid, answer FROM answers").fetchall()
    number, text = rng.choice(rows)
    match rng.randrange(5):
        case 0:
            database.execute("DROP TABLE answers")
        case 1:
            database.execute(f"PRAGMA user_version = {rng.choice([0, 2, 99])}")
        case _:
            row = (_damaged_json(text, rng).encode("utf-8", "surrogatepass"), number)
            sql = "UPDATE answers SET answer = CAST(? AS TEXT) WHERE rowid = ?"
            database.execute(sql, row)
    database.commit()
    database.close()


def inside_hdf5(path: Path, rng: random.Random) -> None:
    """Damage one dataset, attribute or link of an HDF5 file."""
    import h5py

    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(
            lambda name, item: (
                names.append(name) if isinstance(item, h5py.Dataset) else None
            )
        )
        likely = [
            name for name in names if name.split("/")[0] in ("X", "raw", "layers")
        ]
        name = rng.choice(likely if likely and rng.random() < 0.7 else names)
        item = file[name]
        kept = dict(item.attrs)
        match rng.randrange(8):
            case 0 | 1 | 2 | 3 if item.dtype.kind in "iuf" and item.size:
                new = _with_number(item[...], rng)
                if rng.random() < 0.5:
                    new = new.astype(item.dtype)
                del file[name]
                file[name] = new
                file[name].attrs.update(kept)
            case 4:
                del file[name]
            case 5:
                del file[name]
                # A size that is stated, and of which nothing is stored.
                file.create_dataset(name, (10**9,), "f4", chunks=(1 << 16,))
            case 6:
                del file[name]
                file[name] = h5py.ExternalLink("other.h5", "/X")
            case _:
                group = item.parent
                for key in sorted(group.attrs)[:3]:
                    if rng.random() < 0.5:
                        group.attrs[key] = rng.choice(
                            [0, 10**9, "csr", b"\xff", [1, 2]]
                        )


def empty(path: Path, rng: random.Random) -> None:
    """A file of no byte, or one of zeros."""
    path.write_bytes(bytes(rng.choice([0, 1, 4096])))


SPECIAL: dict[str, list[Mutation]] = {
    **{kind: [lines] for kind in (".csv", ".tsv", ".txt", ".obo", ".hpoa", ".jinja")},
    ".json": [json_value],
    ".jsonl": [json_line, lines],
    ".ndjson": [json_line, lines],
    ".gz": [inside_gzip],
    ".npz": [inside_npz],
    ".zip": [inside_zip],
    ".safetensors": [safetensors_header],
    ".gguf": [gguf_field],
    ".db": [inside_database],
    ".h5ad": [inside_hdf5],
    "": [json_value],
}
