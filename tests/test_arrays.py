"""Test arrays from npz files: what numpy wrote, and what a file only claims to hold."""

import io
import struct
import zipfile

import numpy as np
import pytest

from jeff import arrays


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_wrote_is_read(tmp_path, save) -> None:
    wanted = {
        "a": np.arange(6.0).reshape(2, 3).T,
        "b": np.array(7, np.uint8),
        "c": np.zeros((0, 4)),
        "d": np.array(["x", "yz"]),
        "e": np.zeros(2, [("u", "<i4"), ("v", "<f8")]),
    }
    save(tmp_path / "a.npz", **wanted)
    found = arrays.load_arrays(tmp_path / "a.npz")
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def _npy(shape: tuple[int, ...], data: bytes) -> bytes:
    buffer = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + data


def test_a_header_that_claims_more_takes_no_memory(tmp_path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", _npy((10, 10**9), bytes(80)))
    with pytest.raises(ValueError, match=r"a\.npz: a: expected 80,000,000,000 bytes"):
        arrays.load_arrays(path)


def test_a_bomb_takes_no_memory(tmp_path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", _npy((40 << 20,), bytes(320 << 20)))
    with pytest.raises(ValueError, match=r"a\.npz: .*its compressed arrays"):
        arrays.load_arrays(path)


def test_pickles_and_other_files_are_refused(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"a\.npz: a: .*pickled objects"):
        arrays.load_arrays(tmp_path / "a.npz")
    np.save(tmp_path / "b.npy", np.zeros(3))
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    with pytest.raises(ValueError, match=r"b\.npz: expected an npz of plain arrays"):
        arrays.load_arrays(tmp_path / "b.npz")
    with pytest.raises(FileNotFoundError, match=r"c\.npz: .*found none"):
        arrays.load_arrays(tmp_path / "c.npz")


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path) -> None:
    path, wanted = tmp_path / "a.npz", np.arange(12, dtype=np.int64)
    np.savez_compressed(path, a=wanted)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    messages = []
    for bit in rng.choice(8 * len(whole), 200, replace=False).tolist():
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            found = arrays.load_arrays(path)
        except ValueError as error:
            messages.append(str(error))
        else:
            # The name in the archive alone has no checksum.
            assert [each.tolist() for each in found.values()] in ([wanted.tolist()], [])
    assert len(messages) > 100
    assert all(message.startswith(str(path)) for message in messages)


def test_two_sizes_of_one_member_are_refused(tmp_path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros(4))
    data = path.read_bytes()
    directory = data.rindex(b"PK\x01\x02")
    forged = struct.pack("<I", 10**9)
    path.write_bytes(data[: directory + 24] + forged + data[directory + 28 :])
    with pytest.raises(ValueError, match=r"a\.npz: a: expected one size"):
        arrays.load_arrays(path)
