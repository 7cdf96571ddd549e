"""Results as files of PhEval, so that its benchmark compares them with other tools.

PhEval runs tools such as Exomiser and LIRICAL on a corpus of phenopackets and compares
their ranks. `write` makes the files that its version 0.7.14 reads, one per phenopacket:

    pheval_gene_results/<phenopacket>-gene_result.parquet
    pheval_disease_results/<phenopacket>-disease_result.parquet

Genes of equal score share the worst rank among them. A right answer that was not ranked
has a row of rank 0, which counts as not found. PhEval pins old versions of its
requirements, so it belongs in an environment of its own; nothing of it is used here.

References:
  Bridges et al., "Towards a standard benchmark for phenotype-driven variant and gene
  prioritisation algorithms: PhEval", BMC Bioinformatics 2025.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jeff import assets
from jeff.files import replacing
from jeff_llm.genes.nomenclature import Nomenclature, read_hgnc, read_mondo

__all__ = ["DISEASE_FOLDER", "GENE_FOLDER", "Result", "write"]

GENE_FOLDER = "pheval_gene_results"
DISEASE_FOLDER = "pheval_disease_results"


class Result(NamedTuple):
    """What a ranker made of one phenopacket, and the answer.

    Attributes:
      phenopacket: name of its file, with or without its folder and ``.json``.
      genes: symbols that were ranked, each once.
      gene_scores: score of each, larger is better; -inf for one that is not ranked.
      causal: symbols of the causative genes.
      diseases: ids of the diseases that were ranked, such as ``"OMIM:301310"``; no file
        of diseases is written if none was.
      disease_scores: score of each.
      diagnoses: ids of the patient's own diseases.
    """

    phenopacket: str
    genes: Sequence[str]
    gene_scores: Float[np.ndarray, " genes"]
    causal: Collection[str]
    diseases: Sequence[str] = ()
    disease_scores: Float[np.ndarray, " diseases"] | None = None
    diagnoses: Collection[str] = ()


def write(
    folder: str | Path,
    results: Iterable[Result],
    *,
    nomenclature: Nomenclature | None = None,
    mondo: Mapping[str, Sequence[str]] | None = None,
) -> list[Path]:
    """Write one file per phenopacket, and one more where diseases were ranked.

    Args:
      folder: the ``results_dir`` of PhEval's configuration; made if missing.
      results: one per phenopacket.
      nomenclature: HGNC's names, for the current symbols and the ids of Ensembl; from
        the asset ``hgnc`` if None. A gene that it lacks keeps its symbol and has an
        empty id.
      mondo: ids of OMIM and Orphanet by MONDO id; from the asset ``mondo`` if None and
        diseases were ranked. PhEval compares diseases by their MONDO ids; a disease
        without one keeps its own.

    Returns:
      The files.

    Raises:
      ValueError: if two results have the same name, a score is NaN or +inf, there is
        not one score per gene or disease, or one is listed twice.
      FileNotFoundError: if an asset is needed and missing.
    """
    names = nomenclature or read_hgnc(assets.find("hgnc"))
    to_mondo: dict[str, str] | None = None
    results = list(results)
    # Resolved together, since most results list the same genes.
    asked = {name: None for r in results for name in (*r.genes, *r.causal)}
    current, _ = names.resolve(asked)
    symbols = {old: new or old for old, new in zip(asked, current, strict=True)}
    written: dict[Path, None] = {}
    for result in results:
        stem = Path(result.phenopacket).name.removesuffix(".json")
        path = Path(folder) / GENE_FOLDER / f"{stem}-gene_result.parquet"
        if not stem or path in written:
            raise ValueError(
                f"phenopacket: expected a name of its own, got {result.phenopacket!r}"
            )
        written[_write(path, _gene_table(result, symbols, names))] = None
        scores = result.disease_scores
        if scores is None:
            continue
        if to_mondo is None:
            mondo = read_mondo(assets.find("mondo")) if mondo is None else mondo
            to_mondo = {own: name for name, ids in mondo.items() for own in ids}
        path = Path(folder) / DISEASE_FOLDER / f"{stem}-disease_result.parquet"
        written[_write(path, _disease_table(result, scores, to_mondo))] = None
    return list(written)


class _Rows(NamedTuple):
    """Ranked names, best first, then right answers that were not ranked."""

    names: list[str]
    rank: np.ndarray
    score: np.ndarray
    right: list[bool]


def _gene_table(
    result: Result, symbols: Mapping[str, str], names: Nomenclature
) -> dict[str, Any]:
    _check(result.phenopacket, "gene", result.genes, result.gene_scores)
    genes = [symbols[name] for name in result.genes]
    causal = list(dict.fromkeys(symbols[name] for name in result.causal))
    rows = _ranked(genes, genes, result.gene_scores, causal, causal)
    return {
        "rank": rows.rank,
        "score": rows.score,
        "gene_symbol": rows.names,
        "gene_identifier": [names.ensembl.get(symbol, "") for symbol in rows.names],
        "true_positive": rows.right,
    }


def _disease_table(
    result: Result, scores: np.ndarray, to_mondo: Mapping[str, str]
) -> dict[str, Any]:
    _check(result.phenopacket, "disease", result.diseases, scores)
    mondo, answers = (
        [to_mondo.get(name, name) for name in names]
        for names in (result.diseases, result.diagnoses)
    )
    rows = _ranked(result.diseases, mondo, scores, list(result.diagnoses), answers)
    return {
        "rank": rows.rank,
        "score": rows.score,
        "disease_identifier": rows.names,
        "mondo_identifier": [to_mondo.get(name, name) for name in rows.names],
        "true_positive": rows.right,
    }


def _ranked(
    names: Sequence[str],
    compared: Sequence[str],
    scores: np.ndarray,
    right: Sequence[str],
    answers: Sequence[str],
) -> _Rows:
    """Rank names; those that are equal when ``compared`` with ``answers`` are right."""
    best: dict[str, int] = {}
    for place in map(int, np.argsort(-scores, kind="stable")):
        # Two former symbols of one gene are one row, that of the better score.
        if np.isfinite(scores[place]):
            best.setdefault(names[place], place)
    order = list(best.values())
    values = np.asarray(scores, np.float64)[order]
    # Ranks are the number of scores that are at least as high.
    ranks = len(values) - np.searchsorted(values[::-1], values)
    hits = [compared[place] in answers for place in order]
    shown = {compared[place] for place in order}
    pairs = zip(right, answers, strict=True)
    missing = [name for name, answer in pairs if answer not in shown]
    none = np.zeros(len(missing))
    return _Rows(
        [*best, *missing],
        np.append(ranks, none).astype(np.int64),
        np.append(values, none),
        [*hits, *[True] * len(missing)],
    )


def _check(
    phenopacket: str, kind: str, names: Sequence[str], scores: np.ndarray
) -> None:
    place = f"{phenopacket}: {kind}_scores"
    if np.shape(scores) != (len(names),):
        raise ValueError(
            f"{place}: expected {len(names)} numbers, got shape {np.shape(scores)}"
        )
    if np.isnan(scores).any() or np.isposinf(scores).any():
        raise ValueError(f"{place}: expected numbers below infinity, got NaN or inf")
    if len(set(names)) < len(names):
        raise ValueError(f"{phenopacket}: expected each {kind} once, got a repetition")


def _write(path: Path, columns: dict[str, Any]) -> Path:
    # Only those who write such files need the package.
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"rank": pa.int64(), "score": pa.float64(), "true_positive": pa.bool_()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in columns])
    with replacing(path) as part:
        parquet.write_table(pa.table(columns, schema), part, compression="zstd")
    return path
