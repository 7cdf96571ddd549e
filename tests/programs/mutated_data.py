"""Formats of data: people, graphs, cells, images, texts, logs."""

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from mutate import Format

import jeff_llm.confidence
from jeff.fairness import images, tabular
from jeff_graph.cells import h5ad
from jeff_graph.editing import loaders
from jeff_llm.anomaly import select, store, text_detector, texts
from jeff_llm.clinic import questions
from jeff_llm.reasoning import traces

__all__ = ["FORMATS"]

RNG = np.random.default_rng(0)


def finite(*arrays: Any) -> None:
    """Numbers that a reader hands over are finite."""
    for array in arrays:
        assert np.isfinite(np.asarray(array)).all(), "not finite"


# People: a table of numbers.
def people(path: Path) -> Path:
    rows = [
        "age,work,sex,pay",
        *(f"{30 + i},{i % 3},{i % 2},{i // 2 % 2}" for i in range(30)),
    ]
    text = "\n".join(rows) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("people.csv", text)
    else:
        path.write_text(text)
    return path


def saved_people(path: Path) -> Path:
    import datasets

    columns = {
        "age": [30.5 + i for i in range(30)],
        "sex": [i % 2 for i in range(30)],
        "pay": [i % 4 > 1 for i in range(30)],
    }
    data = datasets.Dataset.from_dict(columns)
    data = data.cast_column("sex", datasets.ClassLabel(names=["f", "m"]))
    datasets.DatasetDict(train=data).save_to_disk(str(path))
    return path


def read_saved_people(path: Path) -> Any:
    return tabular.read_saved(path, label="pay", group="sex")


def read_people(path: Path) -> Any:
    return tabular.read_csv(path, label="pay", group="sex")


def check_people(path: Path, found: Any) -> None:
    finite(found.inputs)
    for binary in (found.label, found.group):
        assert set(np.unique(binary)) <= {0, 1}


# Graphs.
def dense_graph(path: Path) -> Path:
    edges = RNG.integers(0, 12, (30, 2))
    np.savez(
        path,
        features=RNG.normal(size=(12, 5)).astype(np.float32),
        labels=np.arange(12) % 3,
        edges=edges[edges[:, 0] != edges[:, 1]],
    )
    return path


def compact_graph(path: Path) -> Path:
    np.savez(
        path,
        shape=np.array([4, 6]),
        y=np.array([0, 1, 2, 1]),
        adj_indptr=np.array([0, 2, 3, 4, 6]),
        adj_indices=np.array([1, 3, 0, 3, 0, 2]),
        x_indptr=np.array([0, 1, 3, 4, 5]),
        x_indices=np.array([5, 0, 2, 1, 3]),
        x_data=np.array(1.0, np.float32),
    )
    return path


def check_graph(path: Path, loaded: Any) -> None:
    graph, known = loaded
    finite(graph.nodes)
    with np.load(path) as raw:
        labels = raw["labels"] if "labels" in raw else raw["y"]
        # A number that does not fit must not come back as another one.
        np.testing.assert_array_equal(known, labels.astype(float))
        if "x_indices" in raw:
            assert (raw["x_indices"] >= 0).all() and (raw["adj_indices"] >= 0).all()
            assert graph.nodes.shape == tuple(raw["shape"])


# Cells.
def cells_file(path: Path) -> Path:
    import anndata
    import pandas
    from scipy.sparse import csr_matrix

    dense = np.where(RNG.random((20, 16)) < 0.4, RNG.integers(1, 9, (20, 16)), 0)
    obs = pandas.DataFrame(
        {"kind": list("ab" * 10)}, index=[f"c{i}" for i in range(20)]
    )
    var = pandas.DataFrame(index=[f"g{i}" for i in range(16)])
    cells = anndata.AnnData(csr_matrix(dense.astype(np.float32)), obs, var)
    cells.layers["counts"] = dense.astype(np.float32)
    cells.write_h5ad(path)
    return path


def read_cells(path: Path) -> Any:
    with h5ad.open_cells(path) as source:
        once, twice = ([rows.toarray() for rows in source.chunks(7)] for _ in range(2))
        picked = source.take(np.array([3, 0, 3])).toarray()
        return [*once, picked], twice, source.column("kind"), source.genes


def check_cells(path: Path, found: Any) -> None:
    import h5py

    once, twice, kind, genes = found
    *whole, picked = once
    values = np.concatenate(whole)
    # Memory outside of the matrix would differ from pass to pass.
    np.testing.assert_array_equal(values, np.concatenate(twice))
    np.testing.assert_array_equal(picked, values[[3, 0, 3]])
    finite(values)
    assert (values >= 0).all() and len(kind) == len(values)
    assert len(set(genes)) == values.shape[1]
    with h5py.File(path) as file:
        if isinstance(file["X"], h5py.Group):
            stored = np.asarray(file["X/data"], np.float32)
            assert values.sum(dtype=float) == stored.sum(dtype=float)


def zarr_folder(path: Path) -> Path:
    import anndata

    file = cells_file(path.with_suffix(".h5ad"))
    anndata.read_h5ad(file).write_zarr(path)
    file.unlink()
    return path


def check_zarr(path: Path, found: Any) -> None:
    once, twice, kind, _ = found
    values = np.concatenate(once[:-1])
    np.testing.assert_array_equal(values, np.concatenate(twice))
    np.testing.assert_array_equal(once[-1], values[[3, 0, 3]])
    finite(values)
    assert (values >= 0).all() and len(kind) == len(values)


# Images.
def faces(path: Path) -> Path:
    from PIL import Image

    path.mkdir()
    for number in range(4):
        pixels = RNG.integers(0, 255, (12, 12, 3)).astype(np.uint8)
        name = f"{20 + 10 * number}_0_{number % 2}_2017.jpg"
        Image.fromarray(pixels).save(path / name)
    return path


def read_faces(path: Path) -> Any:
    return images.utkface(path, size=8)


def check_faces(path: Path, found: Any) -> None:
    finite(found.inputs)
    assert found.inputs.min() >= 0 and found.inputs.max() <= 1


# Lines of objects.
def jsonl(*rows: dict[str, Any]) -> Any:
    def make(path: Path) -> Path:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        if path.suffix == ".gz":
            path.write_bytes(gzip.compress(text.encode()))
        else:
            path.write_text(text)
        return path

    return make


def text(content: str) -> Any:
    def make(path: Path) -> Path:
        if path.suffix == ".gz":
            path.write_bytes(gzip.compress(content.encode()))
        else:
            path.write_text(content)
        return path

    return make


LOG = [
    {
        "confidence": 0.1 * i,
        "small_correct": i % 2 == 0,
        "large_correct": True,
        "cost": 0.5 + i,
        "dataset": "a",
    }
    for i in range(8)
]


def check_log(path: Path, logs: Any) -> None:
    finite(*logs[:4])
    assert ((logs.confidence >= 0) & (logs.confidence <= 1)).all()
    assert (logs.cost >= 0).all()


TRACES = [
    {
        "question": f"q{i // 3}",
        "answer": f"a{i % 2}",
        "correct": i % 2 == 0,
        "tokens": 10 + i,
        "order": i,
        "text": "so",
    }
    for i in range(9)
]


def check_traces(path: Path, found: Any) -> None:
    finite(found.length)
    assert (found.length >= 0).all()
    if found.order is not None:
        finite(found.order)


QUESTIONS = [
    {
        "id": f"q{i}",
        "question": "A man of 40 years has fever. He has a cough. What is it?",
        "options": {"A": "flu", "B": "gout"},
        "answer_idx": "A",
        "answer": "flu",
    }
    for i in range(3)
]


def saved_questions(path: Path) -> Path:
    import datasets

    datasets.Dataset.from_list(QUESTIONS).save_to_disk(str(path))
    return path


AUROC = "encoder,detector,dataset,auroc\n" + "".join(
    f"e{i % 2},d{i // 2 % 2},s{i // 4},0.{5 + i % 5}\n" for i in range(8)
)


def check_table(path: Path, found: Any) -> None:
    values = found.auroc[~np.isnan(found.auroc)]
    assert ((values >= 0) & (values <= 1)).all()


# A fitted detector of texts.
def encode(some: Any) -> np.ndarray:
    return np.array([[len(each), each.count("e"), 1.0] for each in some], np.float32)


def detector(path: Path) -> Path:
    some = [
        f"the {word} ran home"
        for word in ("ab", "cd", "efg", "hij", "kl", "mno", "pqr", "st")
    ] * 3
    some = [f"{each} {number}" for number, each in enumerate(some)]
    fitted = text_detector.fit(some, {"sizes": encode}, method="knn", key=_key())
    store.save(fitted, path, {"sizes": encode})
    return path


def _key() -> Any:
    import jax

    return jax.random.key(0)


def read_detector(path: Path) -> Any:
    found = store.load(path, {"sizes": encode})
    return found.calibration, found.embeddings, found.texts


def check_detector(path: Path, found: Any) -> None:
    finite(found[0], *found[1])


TEXT = 'text,id\nthe first,1\nthe second,2\n"a, b",3\n'
FORMATS = [
    Format("people", "a.csv", people, read_people, check_people),
    Format("people, packed", "a.csv.gz", people, read_people, check_people),
    Format("people, zip", "a.zip", people, read_people, check_people),
    Format(
        "people, saved",
        "saved",
        saved_people,
        read_saved_people,
        check_people,
        needs="datasets",
    ),
    Format("graph", "a.npz", dense_graph, loaders.load_npz, check_graph),
    Format("compact graph", "a.npz", compact_graph, loaders.load_npz, check_graph),
    Format("cells", "a.h5ad", cells_file, read_cells, check_cells, weight=3),
    Format("cells, zarr", "a.zarr", zarr_folder, read_cells, check_zarr, weight=2),
    Format(
        "routing log", "a.jsonl", jsonl(*LOG), jeff_llm.confidence.from_jsonl, check_log
    ),
    Format("traces", "a.jsonl", jsonl(*TRACES), traces.from_jsonl, check_traces),
    Format(
        "traces, packed", "a.jsonl.gz", jsonl(*TRACES), traces.from_jsonl, check_traces
    ),
    Format("questions", "a.jsonl", jsonl(*QUESTIONS), questions.read_questions),
    Format(
        "questions, saved",
        "split",
        saved_questions,
        questions.read_questions,
        needs="datasets",
    ),
    Format("faces", "faces", faces, read_faces, check_faces),
    Format("texts", "a.csv", text(TEXT), texts.read_texts),
    Format("lines", "a.txt", text(TEXT), texts.read_texts),
    Format(
        "texts, lines of JSON",
        "a.jsonl",
        jsonl({"text": "a"}, {"text": "b"}),
        texts.read_texts,
    ),
    Format("table of AUROC", "a.csv", text(AUROC), select.read_table, check_table),
    Format("detector", "detector", detector, read_detector, check_detector),
]
