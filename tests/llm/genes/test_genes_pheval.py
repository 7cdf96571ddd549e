"""Test the files for PhEval: their columns, types, ranks and what counts as right."""

import numpy as np
import pytest

from jeff_llm.genes.nomenclature import Nomenclature
from jeff_llm.genes.pheval import DISEASE_FOLDER, GENE_FOLDER, Result, write

parquet = pytest.importorskip("pyarrow.parquet")

NAMES = Nomenclature(
    symbols=("A", "B", "C", "D"),
    hgnc={name: f"HGNC:{place}" for place, name in enumerate("ABCD")},
    entrez={},
    ensembl={"A": "ENSG1", "B": "ENSG2", "C": "ENSG3"},
    names={**{name: (name,) for name in "ABCD"}, "OLDC": ("C",), "OLDA": ("A",)},
)
MONDO = {"MONDO:1": ("OMIM:1", "ORPHA:1"), "MONDO:2": ("OMIM:2",)}


def written(tmp_path, **values):
    given = {"genes": ["A", "B", "D"], "gene_scores": [1.0, 2.0, 1.0], "causal": ["A"]}
    given |= values
    given["gene_scores"] = np.array(given["gene_scores"], np.float32)
    files = write(
        tmp_path,
        [Result("notebooks/X/P.json", **given)],
        nomenclature=NAMES,
        mondo=MONDO,
    )
    return [parquet.read_table(file) for file in files]


def test_columns_types_and_place(tmp_path):
    (table,) = written(tmp_path)
    assert (tmp_path / GENE_FOLDER / "P-gene_result.parquet").is_file()
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("rank", "int64"),
        ("score", "double"),
        ("gene_symbol", "string"),
        ("gene_identifier", "string"),
        ("true_positive", "bool"),
    ]
    # Equal scores share the worst rank; a gene without an id of Ensembl has "".
    assert table.to_pydict() == {
        "rank": [1, 3, 3],
        "score": [2.0, 1.0, 1.0],
        "gene_symbol": ["B", "A", "D"],
        "gene_identifier": ["ENSG2", "ENSG1", ""],
        "true_positive": [False, True, False],
    }


def test_former_symbols_are_the_current_ones(tmp_path):
    (table,) = written(
        tmp_path,
        genes=["OLDC", "C", "NEW", "B"],
        gene_scores=[1, 3, 2, 0],
        causal=["OLDC"],
    )
    found = table.to_pydict()
    assert found["gene_symbol"] == ["C", "NEW", "B"]
    assert found["rank"] == [1, 2, 3] and found["score"] == [3.0, 2.0, 0.0]
    assert found["true_positive"] == [True, False, False]


def test_right_answers_that_were_not_ranked_have_rank_zero(tmp_path):
    (table,) = written(
        tmp_path, gene_scores=[-np.inf, 2.0, -np.inf], causal=["OLDA", "C", "A"]
    )
    assert table.to_pylist()[1:] == [
        {
            "rank": 0,
            "score": 0.0,
            "gene_symbol": symbol,
            "gene_identifier": NAMES.ensembl[symbol],
            "true_positive": True,
        }
        for symbol in ("A", "C")
    ]
    (table,) = written(tmp_path / "none", genes=[], gene_scores=[])
    assert table.to_pydict()["rank"] == [0]
    assert str(table.schema.field("gene_symbol").type) == "string"


def test_diseases_are_compared_by_mondo(tmp_path):
    _, table = written(
        tmp_path,
        diseases=["OMIM:1", "OMIM:2", "ORPHA:9"],
        disease_scores=np.array([1.0, 5.0, 1.0]),
        diagnoses=["ORPHA:1", "ORPHA:8"],
    )
    assert (tmp_path / DISEASE_FOLDER / "P-disease_result.parquet").is_file()
    assert table.to_pydict() == {
        "rank": [1, 3, 3, 0],
        "score": [5.0, 1.0, 1.0, 0.0],
        "disease_identifier": ["OMIM:2", "OMIM:1", "ORPHA:9", "ORPHA:8"],
        "mondo_identifier": ["MONDO:2", "MONDO:1", "ORPHA:9", "ORPHA:8"],
        "true_positive": [False, True, False, True],
    }


def test_bad_results(tmp_path):
    for values, text in (
        ({"gene_scores": [1.0]}, "gene_scores: expected 3 numbers"),
        ({"gene_scores": [1.0, np.nan, 2.0]}, "got NaN or inf"),
        ({"genes": ["A", "A", "B"]}, "each gene once"),
        ({"diseases": ["OMIM:1"], "disease_scores": np.zeros(2)}, "disease_scores"),
    ):
        with pytest.raises(ValueError, match=text):
            written(tmp_path, **values)
    twice = [Result(f"{folder}/P.json", ["A"], np.zeros(1), ["A"]) for folder in "ab"]
    with pytest.raises(ValueError, match=r"a name of its own, got 'b/P\.json'"):
        write(tmp_path, twice, nomenclature=NAMES)


def test_same_as_pheval_itself(tmp_path):
    """Where PhEval is installed: its own ranks, and its check of the right gene."""
    processing = pytest.importorskip("pheval.post_processing.post_processing")
    polars = pytest.importorskip("polars")
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, 4).astype(np.float64)
    (table,) = written(tmp_path, genes=list("ABCD"), gene_scores=scores)
    frame = polars.DataFrame({"gene_symbol": list("ABCD"), "score": scores})
    theirs = processing._rank_results(frame, processing.SortOrder.DESCENDING)
    ranks = dict(zip(theirs["gene_symbol"], theirs["rank"], strict=True))
    found = table.to_pydict()
    assert dict(zip(found["gene_symbol"], found["rank"], strict=True)) == ranks
