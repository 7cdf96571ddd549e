"""All genes or diseases ranked for every case, by every measure."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from configs.genes import Config
from jeff_llm.genes import evaluation, fusion, own_papers, prioritise, scoring
from jeff_llm.genes.cases import Case
from jeff_llm.genes.embedding import TermMatchRanker
from jeff_llm.genes.evaluation import Evaluation
from jeff_llm.genes.ranking import Phenotypes
from jeff_llm.models import encoder
from train_scripts.genes.data import Source, World
from train_scripts.running import machines
from train_scripts.running.seeds import seed_key

__all__ = ["ENSEMBLE", "Study", "best_rank", "make_study", "rows", "with_gene"]

ENSEMBLE = "ensemble"
# MiniLM on names of terms, and its sum with `combined`; the weight was chosen on the
# shared phenopackets.
WORDS, BOTH = "minilm", "combined and minilm"
WORDS_WEIGHT = 40.0
_PURPOSE = 1


@dataclasses.dataclass(frozen=True)
class Study:
    """Ranks of the right answers of one source of cases.

    Attributes:
      source: the cases.
      clusters: what is resampled, by case: the causal gene, or the diagnosis.
      genes: ranks of the causal gene by measure; infinite where HPO lacks it.
      without: the same, without the annotations of each case's own paper.
      diseases: ranks of the diagnosis among all diseases, by measure.
      scores: scores of all genes by the measures that later parts use.
      held_out: the same scores without the annotations of the own paper.
    """

    source: Source
    clusters: np.ndarray
    genes: dict[str, np.ndarray]
    without: dict[str, np.ndarray]
    diseases: dict[str, np.ndarray]
    scores: dict[str, np.ndarray]
    held_out: dict[str, np.ndarray]


def make_study(
    config: Config, world: World, source: Source, *, papers: bool, kept: Sequence[str]
) -> Study:
    """Score all cases, and find the ranks of the right answers.

    Args:
      config: settings of the run.
      world: release of HPO.
      source: the cases.
      papers: whether to score without each case's own paper too.
      kept: measures whose scores later parts use; the ensemble's are kept always.

    Returns:
      The ranks; the ensemble is there if all of its measures are.
    """
    measures = config.measures or scoring.MEASURES
    patients = [case.phenotypes for case in source.cases]
    full = scoring.score(world.tables, patients, measures, mesh=machines.mesh())
    words = _words(config, world, measures)
    if words is not None:
        full[WORDS] = words.scores(patients)
        full[BOTH] = _joined(full)
    ranks: dict[str, dict[str, np.ndarray]] = {
        "genes": {},
        "without": {},
        "diseases": {},
    }
    scores: dict[str, np.ndarray] = {}
    held_out: dict[str, np.ndarray] = {}
    for name, values in full.items():
        found = prioritise.to_genes(world.hpo, values)
        ranks["diseases"][name] = best_rank(values, _diseases(source.cases, world))
        ranks["genes"][name] = best_rank(found, _genes(source.cases, world))
        if name in kept or name in scoring.ENSEMBLE:
            scores[name] = found
    if papers:
        references = [case.references for case in source.cases]
        less = _less(world, patients, full, references, words)
        for name, values in less.items():
            found = prioritise.to_genes(world.hpo, values)
            ranks["without"][name] = best_rank(found, _genes(source.cases, world))
            if name in kept or name in scoring.ENSEMBLE:
                held_out[name] = found
    if set(scoring.ENSEMBLE) <= set(measures):
        _add_ensemble(
            world, source, ranks, {"genes": scores, "without": held_out}, full
        )
    return Study(
        source,
        _clusters(source.cases, world),
        scores=scores,
        held_out=held_out,
        **ranks,
    )


def with_gene(study: Study) -> Study:
    """Keep the cases whose right gene is known to HPO.

    Args:
      study: ranks of all cases.

    Returns:
      The ranks of these cases.
    """
    some = np.isfinite(next(iter(study.genes.values())))
    kept = {name: values[some] for name, values in study.genes.items()}
    return dataclasses.replace(study, clusters=study.clusters[some], genes=kept)


def _words(
    config: Config, world: World, measures: Sequence[str]
) -> TermMatchRanker | None:
    """MiniLM on the names of terms, where the run loads it beside `combined`."""
    if "minilm" not in config.rankers or "combined" not in measures:
        return None
    model = encoder.load("minilm", mesh=machines.mesh())
    return TermMatchRanker(model.encode, world.hpo, name="minilm")


def _joined(scores: Mapping[str, np.ndarray]) -> np.ndarray:
    return scores["combined"] + WORDS_WEIGHT * scores[WORDS]


def _less(
    world: World,
    patients: Sequence[Phenotypes],
    full: Mapping[str, np.ndarray],
    references: Sequence[Collection[str]],
    words: TermMatchRanker | None,
) -> dict[str, np.ndarray]:
    """Scores without what rests on each patient's own papers."""
    ontology = {name: each for name, each in full.items() if name in scoring.MEASURES}
    out = prioritise.leave_out(world.hpo, world.tables, patients, ontology, references)
    if words is not None:
        out[WORDS] = full[WORDS].copy()
        replaced = own_papers.without_own_papers(world.hpo, references)
        new = words.scores(patients, replaced.profiles)
        rows = np.arange(len(replaced.cases))
        out[WORDS][replaced.cases, replaced.diseases] = new[replaced.cases, rows]
        out[BOTH] = _joined(out)
    return out


def rows(
    config: Config, ranks: dict[str, np.ndarray], clusters: np.ndarray
) -> dict[str, Evaluation]:
    """Top-k and reciprocal rank with intervals, best first.

    Args:
      config: settings of the run.
      ranks: ranks by measure.
      clusters: what is resampled, by case.

    Returns:
      The evaluations by measure.
    """
    key = seed_key(config.seeds[0], _PURPOSE)
    found = {
        name: evaluation.evaluate(
            values, clusters, key=key, num_resamples=config.resamples
        )
        for name, values in ranks.items()
    }
    return dict(sorted(found.items(), key=lambda item: -item[1].mrr.estimate))


def best_rank(scores: np.ndarray, right: Sequence[Sequence[int]]) -> np.ndarray:
    """Best rank among the right answers of each case; infinite if there is none.

    Args:
      scores: by case and column.
      right: right columns of each case.

    Returns:
      The ranks, ties by their mean.
    """
    out = np.full(len(scores), np.inf)
    for case, columns in enumerate(right):
        for column in columns:
            row = scores[case]
            if np.isfinite(row[column]):
                above, equal = (row > row[column]).sum(), (row == row[column]).sum()
                out[case] = min(out[case], 1 + above + (equal - 1) / 2)
    return out


def _add_ensemble(
    world: World, source: Source, ranks: dict, scores: dict, full: dict
) -> None:
    right = _genes(source.cases, world)
    for name, found in scores.items():
        if found:
            stacked = np.stack([found[measure] for measure in scoring.ENSEMBLE])
            found[ENSEMBLE] = _rank_sum(stacked)
            ranks[name][ENSEMBLE] = best_rank(found[ENSEMBLE], right)
    stacked = np.stack([full[measure] for measure in scoring.ENSEMBLE])
    ranks["diseases"][ENSEMBLE] = best_rank(
        _rank_sum(stacked), _diseases(source.cases, world)
    )


def _rank_sum(stacked: np.ndarray) -> np.ndarray:
    """Sums of ranks; a column that no measure knows stays unranked."""
    points = fusion.rank_sum(stacked).astype(np.float32)
    return np.where(np.isfinite(stacked).any(0), points, -np.inf)


def _genes(cases: Sequence[Case], world: World) -> list[list[int]]:
    """Columns of the causal gene, or of all genes of the diagnosis if none is named."""
    by_disease: dict[int, list[int]] = {}
    for gene, disease in world.hpo.annotations.links.tolist():
        by_disease.setdefault(disease, []).append(gene)
    out = []
    for case in cases:
        if case.gene is not None:
            found = (
                [world.gene_place[case.gene]] if case.gene in world.gene_place else []
            )
        else:
            places = [world.disease_place.get(name, -1) for name in case.diseases]
            found = sorted({g for place in places for g in by_disease.get(place, [])})
        out.append(found)
    return out


def _diseases(cases: Sequence[Case], world: World) -> list[list[int]]:
    return [
        [
            world.disease_place[name]
            for name in case.diseases
            if name in world.disease_place
        ]
        for case in cases
    ]


def _clusters(cases: Sequence[Case], world: World) -> np.ndarray:
    """Number of the gene of each case; of its diagnosis where no gene is named."""
    names = [case.gene or " ".join(sorted(case.diseases)) for case in cases]
    return np.unique(names, return_inverse=True)[1]
