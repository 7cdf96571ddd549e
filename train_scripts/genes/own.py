"""Rank genes for the user's own patients, with reasons."""

import csv
import io
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from configs.genes import Config
from jeff import files
from jeff.checks import check_choice
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
from train_scripts.genes import (
    answers as own_answers,
)
from train_scripts.genes import (
    data,
    endpoint,
    genome,
    own_report,
    scored,
    solvable,
)
from train_scripts.genes.answers import Answer
from train_scripts.genes.data import Source, World
from train_scripts.running.endpoint import open_endpoint
from train_scripts.running.results import Part
from train_scripts.running.seeds import seed_key
from train_scripts.running.stages import say

__all__ = ["analyse", "read_candidates"]

_PURPOSE = 20
# Patients that are explained gene by gene in the report; the files have all.
SHOWN = 20
# Simulated patients with other diseases, to see which genes are high for anybody.
_UNRELATED = 200


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
      OSError: if the endpoint fails, or the folder for PhEval cannot be written.
    """
    check_choice("measure", config.measure, scoring.MEASURES)
    world = data.make_world(config)
    source = _source(config, world)
    chosen, unknown = read_candidates(config.candidates, world)
    if config.pheval:
        _open_folder(config.pheval)
        own_answers.check_file_names(source.cases)
    model = None
    if config.chat:
        model = open_endpoint(
            config.chat,
            config.chat_model,
            workdir,
            prices=config.prices,
            max_cost=config.max_cost,
        )
    say("genes", progress, f"patients: {len(source.cases)}, genes: {len(chosen)}")
    answers = _answers(config, world, source, chosen, workdir)
    asked = ""
    if model:
        answers, asked = endpoint.rerank(config, world, answers, model)
    _write_csv(workdir / "rankings.csv", answers)
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
      ValueError: if fewer than two lines are such genes, a line holds several names, or
        the file is not text in UTF-8.
    """
    if not path:
        return np.arange(len(world.hpo.annotations.genes)), []
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"candidates: expected a file, found none: {file}")
    names = _lines(file)
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


def _lines(file: Path) -> list[str]:
    """Names in a file, each once, without comments and quotes."""
    text = files.read_text(file)
    names: dict[str, None] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        name = line.split("#")[0].strip()
        # A column of numbers would pass for NCBI's ids of genes.
        if re.search(r"[,;\t]", name):
            raise ValueError(
                f"{file}:{number}: expected one gene per line, got {name[:60]!r}"
            )
        if name := name.strip("\"' "):
            names[name] = None
    return list(names)


def _source(config: Config, world: World) -> Source:
    if config.terms:
        found, report = cases.from_terms(config.terms, world.hpo)
        return Source("--terms", found, report.lines())
    return data.read(Path(config.data).expanduser(), world)


def _answers(
    config: Config, world: World, source: Source, chosen: np.ndarray, workdir: Path
) -> list[Answer]:
    patients = [case.phenotypes for case in source.cases]
    measures = dict.fromkeys((config.measure, *scoring.ENSEMBLE))
    found = scored.score(world, patients, tuple(measures), workdir / "scored")
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
                own_answers.best_ranks(scores[number, order]),
                explained,
                names[int(found["combined"].genes[number].argmax())],
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
        row = own_answers.standing(answer)[None]
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
        Path(config.pheval).expanduser(),
        [
            pheval.Result(
                own_answers.file_name(answer.case),
                answer.genes,
                own_answers.standing(answer)
                if config.chat
                else answer.scores.astype(np.float64),
                () if answer.case.gene is None else (answer.case.gene,),
            )
            for answer in answers
        ],
        nomenclature=world.nomenclature,
    )


def _open_folder(path: str) -> None:
    """Make the folder before the work whose results go there."""
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(f"pheval: expected a folder to write to ({error})") from error


def _write_csv(path: Path, answers: Sequence[Answer]) -> None:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["patient", "source", "rank", "equal", "gene", "score", "probability_top"]
    writer.writerow(head)
    for answer in answers:
        patient = answer.case.name, answer.case.source
        rows = zip(
            answer.ranks,
            own_answers.tied(answer),
            answer.genes,
            answer.scores,
            strict=True,
        )
        for rank, equal, gene, score in rows:
            right = f"{answer.probability:.4f}" if gene == answer.first else ""
            writer.writerow([*patient, rank, equal, gene, f"{score:.6g}", right])
    files.write_text(path, out.getvalue())
