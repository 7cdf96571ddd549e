"""Rank genes for the user's own patients, with reasons."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from configs.genes import Config
from jeff import files
from jeff_llm.genes import (
    cases,
    evaluation,
    pheval,
    prioritise,
    reasons,
    scoring,
    solvability,
    top_probability,
)
from jeff_llm.genes.cases import Case
from train_scripts.genes import data, endpoint, genome, own_report, solvable
from train_scripts.genes.data import Source, World
from train_scripts.running.results import Part
from train_scripts.running.seeds import seed_key
from train_scripts.running.stages import say

__all__ = ["Answer", "analyse", "read_candidates"]

_PURPOSE = 20
# Patients that are explained gene by gene in the report; the files have all.
SHOWN = 20
# Simulated patients with other diseases, to see which genes are high for anybody.
_UNRELATED = 200


class Answer(NamedTuple):
    """The ranking of one patient.

    Attributes:
      case: the patient.
      genes: candidates, best first.
      scores: their scores, in the same order.
      places: their columns among all genes of HPO.
      explained: reasons of the first genes.
      probability: that the first of all genes is right.
      label: how solvable the case looks: "yes", "maybe" or "no".
    """

    case: Case
    genes: list[str]
    scores: np.ndarray
    places: np.ndarray
    explained: list[reasons.Explanation]
    probability: float
    label: str


def analyse(config: Config, workdir: Path, *, progress: bool = True) -> Part:
    """Rank genes for every patient, and write the rankings with their reasons.

    Args:
      config: settings of the run.
      workdir: the run's folder.
      progress: say what is being done.

    Returns:
      Numbers and table.

    Raises:
      ValueError: if no patient can be used, or a file is not as expected.
      FileNotFoundError: if a file is missing.
    """
    world = data.make_world(config)
    source = _source(config, world)
    chosen, unknown = read_candidates(config.candidates, world)
    say("genes", progress, f"patients: {len(source.cases)}, genes: {len(chosen)}")
    answers = _answers(config, world, source, chosen)
    asked = ""
    if config.chat:
        answers, asked = endpoint.rerank(config, world, answers, workdir)
    _write_csv(workdir / "rankings.csv", config, answers)
    own_report.write_reasons(workdir / "reasons.json", answers[:SHOWN])
    files.write_json(
        workdir / "explanations.json", own_report.explanations(world, answers)
    )
    if config.pheval:
        _write_pheval(config, world, answers)
    numbers = {"patients": float(len(answers)), "genes": float(len(chosen))}
    text = own_report.table(config, world, source, answers, unknown) + asked
    known = [a for a in answers if a.case.gene is not None]
    if known:
        found = _evaluate(config, known)
        numbers |= {name: getattr(found, name).estimate for name in found._fields}
        text += own_report.accuracy(found, len(known))
    return Part(numbers, (), text)


def read_candidates(path: str, world: World) -> tuple[np.ndarray, list[str]]:
    """Columns of the candidate genes.

    Args:
      path: file with one gene per line (symbol, former symbol, HGNC, Entrez or Ensembl
        id); empty for all genes of HPO.
      world: release of HPO.

    Returns:
      The columns, each once, and the lines that are no gene with a phenotype in HPO.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if fewer than two lines are such genes.
    """
    if not path:
        return np.arange(len(world.hpo.annotations.genes)), []
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"candidates: expected a file, found none: {file}")
    lines = [line.split("#")[0].strip() for line in file.read_text().splitlines()]
    names = list(dict.fromkeys(line for line in lines if line))
    symbols, _ = world.nomenclature.resolve(names)
    columns, unknown = [], []
    for name, symbol in zip(names, symbols, strict=True):
        known = world.current_names.get(symbol or "", name)
        if known in world.gene_place:
            columns.append(world.gene_place[known])
        else:
            unknown.append(name)
    if len(set(columns)) < 2:
        raise ValueError(
            f"{file}: expected at least two genes with a phenotype in HPO, got "
            f"{len(set(columns))} of {len(names)} lines; not known: {unknown[:5]}"
        )
    return np.array(list(dict.fromkeys(columns))), unknown


def _source(config: Config, world: World) -> Source:
    if config.terms:
        found, report = cases.from_terms(config.terms, world.hpo)
        return Source("--terms", found, report.lines())
    return data.read(Path(config.data).expanduser(), world)


def _answers(
    config: Config, world: World, source: Source, chosen: np.ndarray
) -> list[Answer]:
    patients = [case.phenotypes for case in source.cases]
    measures = dict.fromkeys((config.measure, *scoring.ENSEMBLE))
    found = prioritise.score_cases(world.hpo, world.tables, patients, tuple(measures))
    labels, prob = _solvable(world, source, found)
    names = world.hpo.annotations.genes
    scores = found[config.measure].genes
    explains = config.measure in reasons.EXPLAINED
    unrelated = None
    if explains:
        key = seed_key(config.seeds[0], _PURPOSE)
        unrelated = reasons.unrelated_ranks(
            world.hpo, world.tables, config.measure, num_patients=_UNRELATED, key=key
        )
    out = []
    for number, case in enumerate(source.cases):
        own = scores[number, chosen].astype(np.float64)
        order = chosen[np.argsort(-own, kind="stable")]
        first = [names[place] for place in order[: config.top]]
        explained = (
            reasons.explain(
                world.hpo,
                world.tables,
                case.phenotypes,
                first,
                measure=config.measure,
                unrelated=unrelated,
            )
            if explains
            else []
        )
        out.append(
            Answer(
                case,
                [names[place] for place in order],
                scores[number, order],
                order,
                explained,
                float(prob[number]),
                labels[number],
            )
        )
    return out


def _solvable(
    world: World, source: Source, found: dict[str, prioritise.Scored]
) -> tuple[Sequence[str], np.ndarray]:
    """Label of the committee, and the probability that the first gene is right."""
    scores = {name: each.genes for name, each in found.items()}
    features, share = solvable.features_of(world, source.cases, scores)
    model = top_probability.pretrained()
    return solvability.committee_labels(share), model.probability(features)


def _evaluate(config: Config, known: Sequence[Answer]) -> evaluation.Evaluation:
    ranks = []
    for answer in known:
        place = (
            answer.genes.index(answer.case.gene)
            if answer.case.gene in answer.genes
            else -1
        )
        row = answer.scores[None]
        ranks.append(genome.best_rank(row, [[place] if place >= 0 else []])[0])
    clusters = np.unique([str(a.case.gene) for a in known], return_inverse=True)[1]
    return evaluation.evaluate(
        np.array(ranks),
        clusters,
        key=seed_key(config.seeds[0], _PURPOSE),
        num_resamples=config.resamples,
    )


def _write_pheval(config: Config, world: World, answers: Sequence[Answer]) -> None:
    """Write rankings of genes in PhEval's format; the answer is there to compare."""
    pheval.write(
        config.pheval,
        [
            pheval.Result(
                _stem(answer.case),
                answer.genes,
                answer.scores.astype(np.float64),
                () if answer.case.gene is None else (answer.case.gene,),
            )
            for answer in answers
        ],
        nomenclature=world.nomenclature,
    )


def _stem(case: Case) -> str:
    """Name of the phenopacket's file, by which PhEval finds its truth."""
    return Path(case.source).name or case.name


def _write_csv(path: Path, config: Config, answers: Sequence[Answer]) -> None:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["patient", "source", "rank", "gene", "score", "probability_top"])
    for answer in answers:
        patient = answer.case.name, answer.case.source
        for rank, (gene, score) in enumerate(
            zip(answer.genes, answer.scores, strict=True), start=1
        ):
            first = f"{answer.probability:.4f}" if rank == 1 else ""
            writer.writerow([*patient, rank, gene, f"{score:.6g}", first])
    files.write_text(path, out.getvalue())
