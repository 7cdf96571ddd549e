"""Test streaming of every file format that anndata writes."""

import contextlib
import json

import numpy as np
import pytest
import scipy.sparse as sp

from jeff import assets
from jeff_graph.cells import columns, expression, h5ad

anndata = pytest.importorskip("anndata", reason="reading h5ad files needs anndata")
h5py = pytest.importorskip("h5py")
pd = pytest.importorskip("pandas")
# What anndata says of its own formats is no concern of these tests.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(0)
    x = sp.random_array((90, 12), density=0.3, rng=rng, format="csr")
    x.data = np.ceil(x.data * 9)
    return x


def obs(rows: int):
    return pd.DataFrame(
        {
            "disease": pd.Categorical((["ill", "well", None] * rows)[:rows]),
            "age": np.arange(float(rows)),
            "site": ["lung"] * rows,
        },
        index=[f"cell{i}" for i in range(rows)],
    )


def write(path, x, **options):
    names = pd.DataFrame(index=[f"G{i}" for i in range(x.shape[1])])
    cells = anndata.AnnData(x, obs=obs(x.shape[0]), var=names, **options)
    if path.suffix == ".zarr":
        cells.write_zarr(path)
    else:
        cells.write_h5ad(path)
    return path


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("logged", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint16"])
@pytest.mark.parametrize("dense", [False, True])
def test_every_form_streams_the_same(tmp_path, counts, suffix, logged, dtype, dense):
    if logged and "int" in dtype:
        pytest.skip("logarithms are no integers")
    x = counts.astype(dtype)
    if logged:
        x.data = np.log1p(x.data)
    path = write(tmp_path / f"cells{suffix}", x.toarray() if dense else x)
    with h5ad.open_cells(path) as source:
        assert isinstance(source, expression.Source)
        assert source.num_cells == 90
        assert source.genes[:2].tolist() == ["G0", "G1"]
        parts = list(source.chunks(37))
        assert [part.shape[0] for part in parts] == [37, 37, 16]
        assert parts[0].dtype == np.float32
        assert abs(sp.vstack(parts) - x.astype("f4")).max() == 0
        chosen = np.array([80, 3, 3, 41])
        np.testing.assert_array_equal(
            source.take(chosen).toarray(), x.toarray()[chosen].astype("f4")
        )
        assert source.take(np.zeros(0, int)).shape == (0, 12)
        assert source.column("disease")[:3].tolist() == ["ill", "well", ""]
        assert source.column("age")[4] == 4.0
        codes, classes = columns.label_codes(source.column("disease"))
        assert codes[:3].tolist() == [0, 1, -1]
        assert classes == ("ill", "well")


def test_layers_and_raw(tmp_path, counts):
    cells = anndata.AnnData(counts, obs=obs(90))
    cells.layers["doubled"] = counts * 2
    cells.raw = cells.copy()
    cells = cells[:, :5].copy()
    cells.write_h5ad(tmp_path / "cells.h5ad")
    for layer, factor, genes in (("X", 1, 5), ("doubled", 2, 5), ("raw", 1, 12)):
        with h5ad.open_cells(tmp_path / "cells.h5ad", layer) as source:
            assert len(source.genes) == genes
            found = next(source.chunks(90)).toarray()
            np.testing.assert_array_equal(found, factor * counts.toarray()[:, :genes])


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_layers_without_x(tmp_path, counts, suffix, dense):
    var = pd.DataFrame({"symbol": [*"ABCDEFGHIJK", None]}, index=map(str, range(12)))
    made = anndata.AnnData(None, obs=obs(90), var=var)
    made.layers["counts"] = counts.toarray() if dense else counts
    path = tmp_path / f"cells{suffix}"
    made.write_zarr(path) if suffix == ".zarr" else made.write_h5ad(path)
    with h5ad.open_cells(path, "counts", symbols="symbol") as source:
        np.testing.assert_array_equal(next(source.chunks()).toarray(), counts.toarray())
        assert source.genes[-2:].tolist() == ["K", "11"]
    with pytest.raises(ValueError, match="expected a layer among counts, got 'X'"):
        h5ad.open_cells(path)
    with pytest.raises(ValueError, match="var: expected one of symbol, got 'name'"):
        h5ad.open_cells(path, "counts", symbols="name")


@pytest.mark.parametrize("dense", [False, True])
def test_half_precision_and_the_note_of_scanpy(tmp_path, counts, dense):
    made = anndata.AnnData(counts.toarray() if dense else counts, obs=obs(90))
    made.obs["flag"] = pd.array([True, None, False] * 30, "boolean")
    made.uns["log1p"] = {"base": None}
    made.write_h5ad(tmp_path / "cells.h5ad")
    with h5py.File(tmp_path / "cells.h5ad", "r+") as file:
        place = "X" if dense else "X/data"
        half, notes = file[place][:].astype("f2"), dict(file[place].attrs)
        del file[place]
        file[place] = half
        file[place].attrs.update(notes)
    with h5ad.open_cells(tmp_path / "cells.h5ad") as source:
        assert source.logged
        assert source.column("flag")[:3].tolist() == ["True", "", "False"]
        found = sp.vstack(list(source.chunks(37))).toarray()
        np.testing.assert_array_equal(found, counts.toarray())
        some = source.take(np.array([80, 3, 3])).toarray()
        np.testing.assert_array_equal(some, counts.toarray()[[80, 3, 3]])


def test_mistakes_in_a_file(tmp_path, counts, unchecked):
    negative = counts.copy()
    negative.data = negative.data - 5
    path = write(tmp_path / "scaled.h5ad", negative)
    with h5ad.open_cells(path) as source:
        with pytest.raises(ValueError, match=r'scaled.h5ad: X: .*layer="raw"'):
            list(source.chunks())
        with pytest.raises(ValueError, match="expected one of disease, age, site, got"):
            source.column("tissue")
        with pytest.raises(IndexError, match="from 0 to 89, got 5 to 90"):
            source.take(np.array([5, 90]))
    with pytest.raises(ValueError, match="a layer among X, got 'counts'"):
        h5ad.open_cells(path, "counts")
    column = write(tmp_path / "columns.h5ad", sp.csc_array(counts))
    with pytest.raises(ValueError, match=r"compressed columns.*tocsr"):
        h5ad.open_cells(column)
    twice = anndata.AnnData(counts)
    twice.var_names = ["A"] * 12
    twice.write_h5ad(tmp_path / "twice.h5ad")
    with pytest.raises(ValueError, match=r"twice.h5ad: .*repeat, such as A"):
        h5ad.open_cells(tmp_path / "twice.h5ad")


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize(
    ("part", "place", "value", "words"),
    [
        (
            "indices",
            200,
            12,
            r"X/indices: expected columns from 0 to 11, got 12 in row",
        ),
        ("indices", 200, -1, r"X/indices: .* got -1 in row"),
        ("indptr", 10, 10**6, r"X/indptr: .* got 1000000 at row 10"),
        ("indptr", 10, 0, r"X/indptr: .* got 0 at row 10"),
        ("indptr", 0, 1, r"X/indptr: .* got 1 at row 0"),
        ("indptr", 90, 5, r"X/indptr: .* got 5 at row 90"),
    ],
)
def test_indices_that_point_elsewhere(
    tmp_path, counts, suffix, part, place, value, words
):
    """They would be followed into memory that is not the matrix's."""
    path = write(tmp_path / f"cells{suffix}", counts)
    with opened(path) as file:
        row = int(np.searchsorted(file["X/indptr"][:], place, side="right")) - 1
        file[f"X/{part}"][place] = value
    if part == "indptr":
        with pytest.raises(ValueError, match=f"cells{suffix}: {words}"):
            h5ad.open_cells(path)
        return
    with h5ad.open_cells(path) as source:
        with pytest.raises(ValueError, match=rf"cells{suffix}: {words} {row};"):
            list(source.chunks(37))
        with pytest.raises(ValueError, match=rf"cells{suffix}: {words} {row};"):
            source.take(np.array([80, row, 3]))
        assert source.take(np.array([80, row + 1, 3])).shape == (3, 12)


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("indptr", lambda x: x.astype("S8"), "indptr: expected a vector of whole num"),
        ("indptr", lambda x: x.astype("f8"), "indptr: .* got float64 of shape"),
        ("indices", lambda x: x[:-1], "expected 91 row pointers and one index a value"),
        ("indptr", lambda x: x[:-1], "got 90 pointers"),
        ("data", lambda x: None, "got none called data"),
    ],
)
def test_compressed_rows_of_another_make(tmp_path, counts, part, change, words):
    path = write(tmp_path / "cells.h5ad", counts)
    with opened(path) as file:
        changed = change(file[f"X/{part}"][:])
        del file[f"X/{part}"]
        if changed is not None:
            file[f"X/{part}"] = changed
    with pytest.raises(ValueError, match=rf"cells.h5ad: X.*{words}"):
        h5ad.open_cells(path)


def opened(path):
    """The file, to be damaged."""
    if path.suffix == ".zarr":
        import zarr

        return contextlib.nullcontext(zarr.open_group(str(path), mode="r+"))
    import h5py

    return h5py.File(path, "r+")


def test_files_that_are_none(tmp_path, counts):
    import h5py

    with pytest.raises(FileNotFoundError, match=r"nothing.h5ad"):
        h5ad.open_cells(tmp_path / "nothing.h5ad")
    (tmp_path / "text.h5ad").write_text("gene,cell\n")
    with pytest.raises(
        ValueError,
        match="an h5ad file or a zarr folder that anndata wrote, but it cannot",
    ):
        h5ad.open_cells(tmp_path / "text.h5ad")
    whole = write(tmp_path / "whole.h5ad", counts).read_bytes()
    (tmp_path / "cut.h5ad").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut.h5ad: expected"):
        h5ad.open_cells(tmp_path / "cut.h5ad")
    with h5py.File(tmp_path / "other.h5ad", "w") as file:
        file["table"] = np.zeros(3)
    with pytest.raises(ValueError, match="one without obs, var"):
        h5ad.open_cells(tmp_path / "other.h5ad")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="folder: expected an h5ad file or a zarr"):
        h5ad.open_cells(tmp_path / "folder")


def test_blood_cells():
    try:
        path = assets.find("pbmc")
    except FileNotFoundError as error:
        pytest.skip(f"the blood cells are not here: {error}")
    cells = h5ad.load_pbmc()
    assert cells.values.shape == (700, 765)
    codes, classes = columns.label_codes(cells.column("bulk_labels"))
    assert len(classes) == 10
    assert np.bincount(codes).max() == 240
    with h5ad.open_cells(path) as scaled, pytest.raises(ValueError, match="negative"):
        next(scaled.chunks())


def test_links_to_other_files_are_refused(tmp_path):
    path = tmp_path / "cells.h5ad"
    _small().write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = h5py.ExternalLink("secret.h5", "/X")
    with pytest.raises(ValueError, match=r"cells\.h5ad: /X: .*a link to 'secret\.h5'"):
        h5ad.open_cells(path)


def test_a_column_that_is_only_stated_takes_no_memory(tmp_path):
    path = tmp_path / "cells.h5ad"
    _small().write_h5ad(path)
    with h5py.File(path, "r+") as file:
        # Four gigabytes of which the file stores nothing.
        file.create_dataset("obs/more", (10**9,), "f4", chunks=(1 << 16,))
    with pytest.raises(ValueError, match=r"cells\.h5ad: .* bytes for obs.*JEFF_MAX"):
        h5ad.open_cells(path)


@pytest.fixture
def zarr_array(tmp_path):
    """The names of cells in a zarr folder: the folder, the array, its only chunk."""
    path = tmp_path / "cells.zarr"
    _small().write_zarr(path)
    array = path / "obs" / "_index"
    if not (array / "0").is_file():
        pytest.skip("this anndata writes another format of zarr")
    return path, array, array / "0"


def test_a_chunk_that_states_many_texts_takes_no_memory(zarr_array):
    numcodecs = pytest.importorskip("numcodecs")
    path, array, chunk = zarr_array
    meta = json.loads((array / ".zarray").read_text())
    codec = numcodecs.get_codec(meta["compressor"])
    data = bytearray(codec.decode(chunk.read_bytes()))
    data[:4] = (10**9).to_bytes(4, "little")
    chunk.write_bytes(codec.encode(bytes(data)))
    with pytest.raises(ValueError, match=r"_index/0: expected at most 3 texts, got 10"):
        h5ad.open_cells(path)


def test_a_chunk_cut_short_is_not_read_beyond_its_end(zarr_array):
    # blosc reads as many bytes as the chunk's header says, whatever there is.
    path, _, chunk = zarr_array
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"_index/0: .* another length than"):
        h5ad.open_cells(path)


def test_a_shape_of_many_chunks_is_not_visited(zarr_array):
    path, array, _ = zarr_array
    meta = json.loads((array / ".zarray").read_text()) | {"shape": [10**9]}
    (array / ".zarray").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match=r"\.zarray: expected about the 1 chunks"):
        h5ad.open_cells(path)


def _small():
    return anndata.AnnData(np.eye(3, dtype=np.float32))


def test_what_is_never_read_may_be_of_any_kind(tmp_path, counts):
    path = write(tmp_path / "a.h5ad", counts)
    with h5py.File(path, "a") as file:
        file["uns/type"] = np.dtype("float32")
        file["uns/gone"] = h5py.SoftLink("/nothing")
        file["obsm/gone"] = h5py.SoftLink("/nothing")
    with h5ad.open_cells(path) as source:
        assert sum(chunk.sum() for chunk in source.chunks()) == counts.sum()
