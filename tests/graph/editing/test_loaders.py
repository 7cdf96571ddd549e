"""Test data sets by their published sizes, your own files, and invalid files."""

import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from jeff_graph.editing import loaders
from jeff_graph.editing.graphs import num_edges, num_nodes
from jeff_graph.editing.hops import degrees

GOOD = {
    "features": np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]),
    "labels": np.array([0, 1, 1]),
    "edges": np.array([[0, 1], [1, 2]]),
}
COMPACT = {
    "shape": np.array([3, 2]),
    "y": np.array([0, 1, 1], np.int16),
    "adj_indptr": np.array([0, 1, 3, 4]),
    "adj_indices": np.array([1, 0, 2, 1]),
    "x_indptr": np.array([0, 1, 2, 4]),
    "x_indices": np.array([0, 1, 0, 1], np.int16),
    "x_data": np.array([1.0, 2.0, 3.0, 3.0]),
}


def shared(load):
    try:
        return load()
    except FileNotFoundError as error:
        pytest.skip(f"the graph is not here: {error}")


@pytest.mark.parametrize(
    ("name", "nodes", "edges", "width", "classes"),
    [("cora", 2708, 5278, 1433, 7), ("citeseer", 3327, 4552, 3703, 6)],
)
def test_citations(name, nodes, edges, width, classes):
    graph, labels = shared(lambda: loaders.load_planetoid(name))
    assert (num_nodes(graph), num_edges(graph)) == (nodes, 2 * edges)
    assert graph.nodes.shape == (nodes, width)
    np.testing.assert_array_equal(np.unique(labels), range(classes))
    norms = np.sqrt((graph.nodes**2).sum(1))
    empty = {"cora": 0, "citeseer": 15}[name]  # papers without a word of the list
    np.testing.assert_allclose(np.sort(norms)[empty:], 1, rtol=1e-5)
    np.testing.assert_array_equal(np.sort(norms)[:empty], 0)


@pytest.mark.parametrize(
    ("load", "nodes", "edges", "width", "classes"),
    [
        (loaders.load_amazon_photo, 7650, 119081, 745, 8),
        (loaders.load_amazon_computers, 13752, 245861, 767, 10),
    ],
)
def test_purchases(load, nodes, edges, width, classes):
    graph, labels = shared(load)
    assert (num_nodes(graph), num_edges(graph)) == (nodes, 2 * edges)
    assert graph.nodes.shape == (nodes, width)
    np.testing.assert_array_equal(np.unique(labels), range(classes))


def test_digits():
    sklearn = pytest.importorskip("sklearn.datasets")
    graph, labels = loaders.load_digits_graph(5)
    assert graph.nodes.shape == (1797, 64) and graph.nodes.max() == 1
    np.testing.assert_array_equal(labels, sklearn.load_digits().target)
    assert degrees(graph).min() >= 5
    assert 1797 * 5 < num_edges(graph) < 1797 * 10
    same = labels[graph.senders] == labels[graph.receivers]
    assert same.mean() > 0.97


def test_neighbours_are_those_of_scikit_learn():
    """Over the edge of a block of rows, too."""
    peer = pytest.importorskip("sklearn.neighbors")
    points = np.random.default_rng(0).normal(size=(1500, 3))
    tree = peer.NearestNeighbors(n_neighbors=5).fit(points)
    expected = tree.kneighbors(return_distance=False)
    found = loaders.knn_edges(points, 5)
    np.testing.assert_array_equal(
        found[:, 1].reshape(1500, 5), np.arange(1500)[:, None] + np.zeros((1, 5))
    )
    np.testing.assert_array_equal(found[:, 0].reshape(1500, 5), expected)


@pytest.mark.parametrize("arrays", [GOOD, COMPACT])
def test_a_file_of_ones_own(tmp_path, arrays):
    np.savez(tmp_path / "g.npz", **arrays)
    graph, labels = loaders.load_npz(tmp_path / "g.npz")
    np.testing.assert_array_equal(graph.nodes, GOOD["features"])
    np.testing.assert_array_equal(labels, [0, 1, 1])
    assert labels.dtype == np.int32 and graph.edges is None
    np.testing.assert_array_equal(graph.senders, [1, 0, 2, 1])
    np.testing.assert_array_equal(graph.receivers, [0, 1, 1, 2])


def test_one_number_for_all_entries(tmp_path):
    np.savez(tmp_path / "g.npz", **COMPACT | {"x_data": np.ones(1)})
    graph, _ = loaders.load_npz(tmp_path / "g.npz")
    np.testing.assert_array_equal(graph.nodes, [[1, 0], [0, 1], [1, 1]])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"features": GOOD["features"]}, "expected the arrays .* 'labels' is missing"),
        ({"adj_data": np.ones(3)}, "'shape' is missing among .'adj_data'."),
        (GOOD | {"edges": np.array([[0, 3]])}, r"g.npz: edges: .* got \[0, 3\] in row"),
        (GOOD | {"labels": np.ones(3)}, "g.npz: labels: expected integers"),
        (COMPACT | {"adj_indptr": np.array([0, 4])}, "expected 4 row pointers"),
        (
            COMPACT | {"x_indices": np.array([0, 1, 0, 7])},
            "g.npz: x_indices: expected columns from 0 to 1, got 7",
        ),
        (COMPACT | {"adj_indices": np.array([1, 0])}, "g.npz: "),
        (
            GOOD | {"edges": np.array([{}, None])},
            "edges: .*pickled objects, which are never loaded",
        ),
    ],
)
def test_arrays_that_make_no_graph(tmp_path, arrays, words):
    np.savez(tmp_path / "g.npz", **arrays)
    with pytest.raises(ValueError, match=words):
        loaders.load_npz(tmp_path / "g.npz")


def test_files_that_are_none(tmp_path):
    np.savez(tmp_path / "whole.npz", **GOOD)
    whole = (tmp_path / "whole.npz").read_bytes()
    np.save(tmp_path / "one.npy", np.ones(3))
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    broken = {
        "half.npz": whole[: len(whole) // 2],
        "empty.npz": b"",
        "text.npz": b"a,b\n1,2\n",
        "array.npz": (tmp_path / "one.npy").read_bytes(),
        "flipped.npz": whole[:100] + bytes(40) + whole[140:],
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    for name in (*broken, "zip.npz"):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            loaders.load_npz(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        loaders.load_npz(tmp_path / "none.npz")


def test_graphs_of_other_libraries():
    torch = pytest.importorskip("torch")
    index = np.array([[0, 1], [1, 2]])
    data = SimpleNamespace(
        x=torch.tensor(GOOD["features"]),
        y=torch.tensor([[0], [1], [1]]),
        edge_index=torch.tensor(index),
    )
    graph, labels = loaders.from_pyg(data)
    np.testing.assert_array_equal(labels, [0, 1, 1])
    np.testing.assert_array_equal(graph.senders, [0, 1])
    np.testing.assert_array_equal(graph.receivers, [1, 2])
    item = {"node_feat": GOOD["features"], "edge_index": index}
    graph, labels = loaders.from_ogb(item, np.array([[0.0], [np.nan], [1.0]]))
    np.testing.assert_array_equal(labels, [0, -1, 1])
    np.testing.assert_array_equal(graph.receivers, [0, 1, 1, 2])


def test_mistakes(unchecked):
    with pytest.raises(ValueError, match=r"name: expected one of .* got 'pubmed'"):
        loaders.load_planetoid("pubmed")
    for neighbours in (0, 3):
        with pytest.raises(ValueError, match="neighbours: expected 1 to 2, got"):
            loaders.knn_edges(np.ones((3, 2)), neighbours)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # As int32 these two would wrap to the classes 1 and -2147483643.
        ({"y": np.array([0, 2**32 + 1, 1])}, r"got 4294967297; number the classes"),
        ({"y": np.array([0, 2**31 + 5, 1])}, r"got 2147483653; number the classes"),
        # A network would have ten million outputs.
        ({"y": np.array([0, 10**7, 1])}, r"got 10000000; number the classes"),
        # numpy would take the last column.
        ({"x_indices": np.array([0, -1, 0, 1])}, "x_indices: .* got -1"),
        ({"adj_indices": np.array([1, 0, 2, -1])}, "adj_indices: .* got -1"),
        ({"x_indptr": np.array([0, 3, 2, 4])}, "x_indptr: expected pointers that rise"),
        ({"shape": np.array([10, 10**9])}, "features of shape .* set JEFF_MAX_BYTES"),
        ({"shape": np.array([-3, 2])}, "shape: expected two numbers of at least 1"),
    ],
)
def test_numbers_that_a_file_gets_wrong(tmp_path, change, words):
    np.savez(tmp_path / "g.npz", **(COMPACT | change))
    with pytest.raises(ValueError, match=rf"g\.npz: .*{words}"):
        loaders.load_npz(tmp_path / "g.npz")
