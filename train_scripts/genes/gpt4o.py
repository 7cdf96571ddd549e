"""Stored rankings of GPT-4o: alone, by language, and fused with the ontology."""

import dataclasses
from pathlib import Path

import numpy as np

from configs.genes import Config
from jeff import assets
from jeff_llm.genes import (
    answer_genes,
    cases,
    evaluation,
    language_votes,
    nomenclature,
    prioritise,
    stored,
)
from jeff_llm.genes.cases import Case
from jeff_llm.genes.evaluation import Evaluation
from train_scripts.genes import data, genome
from train_scripts.genes.data import World
from train_scripts.running.seeds import seed_key

__all__ = ["Stored", "measure", "stored_ranker"]

_FOLDER = "gpt4o_gene_rankings"
_PURPOSE = 2
_FOLDS = 5
_WEIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0)


@dataclasses.dataclass(frozen=True)
class Stored:
    """What the stored rankings show.

    Attributes:
      cases: cases with both phenotypes and rankings.
      genes: top-k of the causal gene by ranker, with and without own papers.
      gains: difference of the fused ranking to each of its parts.
      languages: accuracy of the diagnoses by language, over all stored cases.
      thirds: accuracy in English by third of the mean information content.
      unlinked: the same as `languages`, for the cases without a phenopacket.
      weights: weights that the folds chose, with and without own papers.
    """

    cases: int
    genes: dict[str, Evaluation]
    gains: dict[str, Evaluation]
    languages: dict[str, Evaluation]
    thirds: tuple[stored.Third, ...]
    unlinked: dict[str, Evaluation]
    weights: dict[str, list[float]]


def measure(config: Config, world: World) -> Stored | None:
    """Compare the stored rankings with the ontology and with both fused.

    Args:
      config: settings of the run.
      world: release of HPO.

    Returns:
      The measurements; None where there are no shared data.
    """
    try:
        table = assets.shared_file(f"{_FOLDER}/rankings.csv.gz")
    except FileNotFoundError:
        return None
    rankings = stored.read_rankings(table)
    found = _cases(config, world, rankings)
    ranker = stored_ranker(world, rankings, found)
    genes = world.hpo.annotations.genes
    votes = np.stack([ranker(case.phenotypes, genes).scores for case in found])
    patients = [case.phenotypes for case in found]
    full = prioritise.score_cases(world.hpo, world.tables, patients)["combined"]
    less = prioritise.score_cases(
        world.hpo, world.tables, patients, references=[c.references for c in found]
    )["combined"]
    ranks, weights = _ranks(
        config,
        world,
        found,
        votes,
        {"all": full.genes, "own paper left out": less.genes},
    )
    clusters = np.unique([str(case.gene) for case in found], return_inverse=True)[1]
    key = seed_key(config.seeds[0], _PURPOSE)
    options = {"key": key, "num_resamples": config.resamples}
    gains = {}
    for name in weights:
        for part in (f"ontology, {name}", "GPT-4o, ten languages"):
            gains[f"fused, {name} - {part}"] = evaluation.paired_difference(
                ranks[f"fused, {name}"], ranks[part], clusters, **options
            )
    other = stored.read_rankings(assets.shared_file(f"{_FOLDER}/rankings_only.csv.gz"))
    information = stored.read_information(assets.shared_file(f"{_FOLDER}/mean_ic.csv"))
    return Stored(
        len(found),
        {
            name: evaluation.evaluate(values, clusters, **options)
            for name, values in ranks.items()
        },
        gains,
        stored.accuracy_by_language(rankings, **options),
        stored.accuracy_by_information(rankings, information, "en", **options),
        stored.accuracy_by_language(other, **options),
        weights,
    )


def stored_ranker(
    world: World, rankings: stored.StoredRankings, found: list[Case]
) -> language_votes.StoredRanker:
    """Rank genes by the stored diagnoses of all languages.

    Args:
      world: release of HPO.
      rankings: the diagnoses.
      found: cases, to know which diagnoses belong to which phenotypes.

    Returns:
      The ranker.
    """
    mondo = assets.find("mondo")
    genes_of = answer_genes.genes_of_answers(
        rankings.diseases,
        world.hpo.annotations,
        nomenclature.read_mondo(mondo),
        stored.read_mondo_names(mondo),
    )
    return language_votes.StoredRanker(rankings, found, genes_of)


def _cases(config: Config, world: World, rankings: stored.StoredRankings) -> list[Case]:
    """All shared phenopackets that have a stored ranking."""
    further = Path(assets.shared_file(f"{_FOLDER}/cases.jsonl.gz"))
    both = [
        *data.phenopackets(dataclasses.replace(config, cases=0), world).cases,
        *data.current(cases.from_phenopackets(further, world.hpo)[0], world),
    ]
    known = [c for c in both if stored.case_key(c.source) in rankings.answers]
    return data.spread(known, config.cases)


def _ranks(
    config: Config,
    world: World,
    found: list[Case],
    votes: np.ndarray,
    scores: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    """Ranks by ranker; the weight of a fold comes from the other folds."""
    right = [
        [world.gene_place[case.gene]] if case.gene in world.gene_place else []
        for case in found
    ]
    voted = np.where(votes > 0, votes, -np.inf)
    ranks = {"GPT-4o, ten languages": genome.best_rank(voted, right)}
    names = np.unique([str(case.gene) for case in found], return_inverse=True)[1]
    fold = np.random.default_rng(config.seeds[0]).permutation(names.max() + 1)[names]
    fold = fold % _FOLDS
    weights: dict[str, list[float]] = {}
    for name, values in scores.items():
        ranks[f"ontology, {name}"] = genome.best_rank(values, right)
        tried = np.stack(
            [
                genome.best_rank(
                    language_votes.fused(values, votes, weight=weight), right
                )
                for weight in _WEIGHTS
            ]
        )
        chosen = [
            int((1 / tried[:, fold != f]).mean(1).argmax()) for f in range(_FOLDS)
        ]
        weights[name] = [_WEIGHTS[place] for place in chosen]
        ranks[f"fused, {name}"] = tried[np.array(chosen)[fold], np.arange(len(found))]
    return ranks, weights
