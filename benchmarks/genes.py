"""All ontology measures on 600 patients and all diseases, and against hpo3.

``python -m benchmarks.genes`` prints a record and writes it to
``benchmarks/results/genes-<device>.json``.

  all        every measure, 600 patients x all diseases, and the genes; then the same
             again, with all compiled
  single     one patient after the other, by ``combined``, once loaded; a new length of
             patient compiles, which the second of two rounds leaves out
  load       HPO from its cache, and the tables of the diseases
  hpo3       ``helper.batch_set_similarity`` (Rust, all cores) for Resnik's similarity,
             both ways, of some patients and genes, per pair; ours is timed on the same
             patients and all genes, in rounds that alternate with it

The phenopackets of ``$JEFF_DATA`` are scored, or simulated patients where there are
none. The package hpo3 is timed where it is installed; its genes have its own sets of
terms, of the same release.
"""

import dataclasses
import importlib.util
import json
import resource
import statistics
import time

import jax
import numpy as np
import tyro

from benchmarks import records
from jeff import assets
from jeff_llm.genes import hpo as releases
from jeff_llm.genes.cases import from_phenopackets
from jeff_llm.genes.prioritise import score_cases
from jeff_llm.genes.ranking import Phenotypes
from jeff_llm.genes.scoring import MEASURES, score
from jeff_llm.genes.simulate import simulate_cases
from jeff_llm.genes.tables import Tables, make_tables

_PACKETS = "phenopackets/cases.jsonl"


@dataclasses.dataclass(frozen=True)
class Config:
    """What is timed."""

    # Patients of the whole run, and those of the comparison with hpo3.
    patients: int = 600
    compared: int = 64
    # Patients that are ranked one by one.
    singles: int = 100
    # Alternating rounds of the comparison.
    rounds: int = 3


def find_patients(hpo: releases.Hpo, count: int) -> tuple[list[Phenotypes], str]:
    """Phenopackets of the shared data, or simulated patients; and which they are."""
    try:
        cases, _ = from_phenopackets(assets.shared_file(_PACKETS), hpo)
        kind = "phenopackets"
    except (FileNotFoundError, NotADirectoryError):
        cases, kind = simulate_cases(hpo, count, key=jax.random.key(0)), "simulated"
    return [case.phenotypes for case in cases[:count]], kind


def time_all(
    hpo: releases.Hpo, tables: Tables, patients: list[Phenotypes]
) -> list[float]:
    """Seconds of all measures: with compilation, and without."""
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        score_cases(hpo, tables, patients, MEASURES)
        seconds.append(time.perf_counter() - began)
    return seconds


def time_singles(
    hpo: releases.Hpo, tables: Tables, patients: list[Phenotypes]
) -> dict[str, float]:
    """Milliseconds per patient, and what the first round cost in addition."""
    rounds = []
    for _ in range(2):
        rounds.append([])
        for patient in patients:
            began = time.perf_counter()
            score_cases(hpo, tables, [patient])
            rounds[-1].append(1e3 * (time.perf_counter() - began))
    warm = np.array(rounds[1])
    return {
        "median_ms": float(np.median(warm)),
        "p95_ms": float(np.quantile(warm, 0.95)),
        "max_ms": float(warm.max()),
        "compilation_s": (sum(rounds[0]) - sum(rounds[1])) / 1e3,
    }


def time_loading() -> dict[str, float]:
    """Seconds to read the cache and to make the tables; both have run before."""
    began = time.perf_counter()
    hpo = releases.load()
    middle = time.perf_counter()
    make_tables(hpo).buckets  # noqa: B018 (made at first use)
    return {"hpo_s": middle - began, "tables_s": time.perf_counter() - middle}


def compare_hpo3(
    hpo: releases.Hpo, patients: list[Phenotypes], num_rounds: int
) -> dict[str, float] | None:
    """Pairs of patient and gene per second, ours and hpo3's."""
    if importlib.util.find_spec("pyhpo") is None:
        return None
    from pyhpo import HPOSet, Ontology, helper

    Ontology(str(assets.find("hpo").parent))
    genes = [gene.hpo_set() for gene in Ontology.genes]
    asked = [HPOSet.from_queries(list(patient.observed)) for patient in patients]
    tables = make_tables(hpo, profiles="genes", information="genes", unannotated=0)
    measure = ("resnik_both_ways",)
    score(tables, patients, measure)
    seconds: dict[str, list[float]] = {"jeff": [], "hpo3": []}
    # A part of the genes is enough for hpo3, whose time is that of the pairs.
    part = genes[:: max(len(genes) // 500, 1)]
    pairs = [(one, gene) for one in asked for gene in part]
    for _ in range(num_rounds):
        began = time.perf_counter()
        score(tables, patients, measure)
        middle = time.perf_counter()
        helper.batch_set_similarity(pairs, "gene", "resnik", "funSimAvg")
        seconds["jeff"].append(middle - began)
        seconds["hpo3"].append(time.perf_counter() - middle)
    ours = len(patients) * tables.num_profiles / statistics.median(seconds["jeff"])
    theirs = len(pairs) / statistics.median(seconds["hpo3"])
    return {
        "jeff_pairs_per_s": ours,
        "hpo3_pairs_per_s": theirs,
        "ratio": ours / theirs,
        "jeff_pairs": len(patients) * tables.num_profiles,
        "hpo3_pairs": len(pairs),
    }


def main(config: Config) -> None:
    """Measure, print, write."""
    hpo = releases.load()
    patients, kind = find_patients(hpo, config.patients)
    tables = make_tables(hpo)
    singles = time_singles(hpo, tables, patients[: config.singles])
    first, again = time_all(hpo, tables, patients)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    record = {
        "releases": hpo.releases,
        "patients": {"kind": kind, "number": len(patients)},
        "diseases": tables.num_profiles,
        "measures": len(MEASURES),
        "all_measures_s": {"with_compilation": first, "compiled": again},
        "single": singles,
        "peak_gib": peak,
        "load": time_loading(),
        "hpo3": compare_hpo3(hpo, patients[: config.compared], config.rounds),
    }
    print(json.dumps(record, indent=1))
    records.write("genes", record, config)


if __name__ == "__main__":
    main(tyro.cli(Config))
