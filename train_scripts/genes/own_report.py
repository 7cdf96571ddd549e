"""Tables and files of the rankings of the user's own patients."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.genes import Config
from jeff import files
from jeff_llm.genes.evaluation import Evaluation
from jeff_llm.genes.reasons import EXPLAINED, Explanation
from train_scripts.genes import answers as own_answers
from train_scripts.genes import summary
from train_scripts.genes.answers import Answer
from train_scripts.genes.data import Source, World

__all__ = ["accuracy", "explanations", "report_case", "table", "write_reasons"]

# Patients and genes whose reasons stand in the table; the files have all.
_PATIENTS = 5
_EXPLAINED = 3
# Genes of a patient in the report: a page of thousands of tables is of no use.
_ITEMS = 25
# Largest share of the diseases of genes that a whole release does not annotate.
_ALONE = 0.02
RESEARCH = "For research; this is not a medical device."
_TITLE = "Why these genes"
_NOTE = (
    "Each gene by the disease that explains the patient best. What the lines add makes "
    "up the score, in nats. " + RESEARCH
)


def table(
    config: Config,
    world: World,
    source: Source,
    answers: Sequence[Answer],
    unknown: Sequence[str],
) -> str:
    """Rankings and reasons of the first patients.

    Args:
      config: settings of the run.
      world: release of HPO.
      source: the patients.
      answers: their rankings.
      unknown: candidates that HPO does not know.

    Returns:
      Markdown.
    """
    releases = ", ".join(f"{n} {r}" for n, r in world.hpo.releases.items())
    lines = [f"# Genes for {source.name}\n", RESEARCH + "\n", f"HPO: {releases}.\n"]
    lines += [_bullet(note) for note in [*source.notes, *_release_notes(world)]]
    if config.measure not in EXPLAINED:
        lines.append(
            f"- no reasons for {config.measure}: only {' and '.join(EXPLAINED)} have "
            "them"
        )
    if unknown:
        lines.append(
            f"- candidates without a phenotype in this release of HPO: {len(unknown)} "
            f"({', '.join(unknown[:10])})"
        )
    for answer in answers[:_PATIENTS]:
        lines += _patient(config, world, answer)
    if len(answers) > _PATIENTS:
        lines.append(
            f"\n{len(answers) - _PATIENTS} more patients: rankings.csv, "
            "explanations.json and the report have them."
        )
    return "\n".join(lines) + "\n"


def accuracy(found: Evaluation, cases: int) -> str:
    """Top-k accuracy where the causal gene is known.

    Args:
      found: the evaluation.
      cases: number of such patients.

    Returns:
      Markdown.
    """
    return (
        f"\n## Where the gene is known\n\n{cases} patients; what the files say of the "
        "answer was not used to rank.\n\n"
        + summary.evaluations({"ranking": found}, "right")
    )


def explanations(world: World, answers: Sequence[Answer]) -> dict[str, Any]:
    """All explanations, for other programs.

    Args:
      world: release of HPO.
      answers: rankings of all patients.

    Returns:
      A value for JSON.
    """
    return {
        "note": RESEARCH,
        "releases": world.hpo.releases,
        "patients": [
            {
                "name": answer.case.name,
                "source": answer.case.source,
                "observed": list(answer.case.phenotypes.observed),
                "excluded": list(answer.case.phenotypes.excluded),
                "top": answer.first,
                "probability_top": answer.probability,
                "solvable": answer.label,
                "genes": [
                    {"place": int(place)} | each.as_dict()
                    for place, each in zip(answer.ranks, answer.explained, strict=False)
                ],
            }
            for answer in answers
        ],
    }


def write_reasons(path: Path, answers: Sequence[Answer]) -> None:
    """Write the reasons that the report shows; nothing if no gene has any.

    Args:
      path: file to write.
      answers: rankings of the patients to show.
    """
    shown = [
        report_case(
            _title(answer),
            _outlook(answer),
            answer.explained,
            answer.ranks,
        )
        for answer in answers
    ]
    write_report(path, [each for each in shown if each["items"]])


def write_report(path: Path, shown: Sequence[dict[str, Any]]) -> None:
    """Write ``reasons.json`` for the report.

    Args:
      path: file to write.
      shown: cases as `report_case` makes them; nothing is written if there are none.
    """
    if shown:
        head = {"title": _TITLE, "note": _NOTE, "unit": "nats"}
        files.write_json(path, head | {"cases": list(shown)})


def report_case(
    name: str, text: str, explained: Sequence[Explanation], ranks: np.ndarray
) -> dict[str, Any]:
    """One case as the report shows it.

    Args:
      name: of the case.
      text: what stands behind the name.
      explained: explanations of its genes, best first.
      ranks: rank of each among the candidates.

    Returns:
      A value for ``reasons.json``; it holds the first 25 genes.
    """
    return {
        "name": name,
        "summary": text,
        "items": [
            _item(each, int(rank))
            for each, rank in zip(explained[:_ITEMS], ranks, strict=False)
            if np.isfinite(each.score)
        ],
    }


def _item(found: Explanation, rank: int) -> dict[str, Any]:
    lines = [
        {
            "term": each.name,
            "met": each.annotation_name or "nothing",
            "common": each.ancestor_name,
            "information": each.information if each.ancestor else None,
            "contribution": each.contribution,
        }
        for each in sorted(found.terms, key=lambda each: -each.contribution)
    ]
    rest = {
        f"all terms together: {found.overlap_share:.0%} in common": found.overlap,
        f"not shown by the patient: {found.unshown:.0f} nats": found.size,
        "the same for every gene": found.constant,
    }
    lines += [
        {"term": text, "met": "", "common": "", "information": None, "contribution": x}
        for text, x in rest.items()
        if x
    ]
    notes = [
        f"Excluded, but shown by {part.frequency:.0%} of the patients with this "
        f"disease: {part.name}. The score does not use it."
        for part in found.contradictions
    ]
    if found.rank != rank:
        notes.append(
            f"By {found.measure}, rank {found.rank} of all {found.num_genes} genes."
        )
    if found.known_by_study_only:
        notes.append(
            f"Ranks as high for {found.usual:.1%} of unrelated patients: it may be "
            "here only because it is well studied."
        )
    return {
        "rank": rank,
        "name": found.gene,
        "because": f"{found.disease_name} ({found.disease})",
        "score": found.score,
        "notes": notes,
        "lines": lines,
    }


def _patient(config: Config, world: World, answer: Answer) -> list[str]:
    case = answer.case
    ontology = world.hpo.ontology
    names = [ontology.names[ontology.index(term)] for term in case.phenotypes.observed]
    count = "1 term" if len(names) == 1 else f"{len(names)} terms"
    lines = [
        f"\n## {_title(answer)}\n",
        f"{count}: {', '.join(names)}. {_outlook(answer)}.\n",
        "| rank | gene | disease | score | best explained |",
        "|---|---|---|---|---|",
    ]
    by_gene = {each.gene: each for each in answer.explained}
    equal = own_answers.tied(answer)
    for place, gene in enumerate(answer.genes[: config.top]):
        found = by_gene.get(gene)
        rank = own_answers.shown_rank(answer.ranks[place], equal[place])
        score = f"{answer.scores[place]:.2f}"
        if found is None or found.disease is None:
            lines.append(f"| {rank} | {gene} | | {score} | |")
            continue
        best = sorted(found.terms, key=lambda each: -each.contribution)[:3]
        why = ", ".join(each.name for each in best if each.contribution > 0)
        mark = " (well studied)" if found.known_by_study_only else ""
        lines.append(
            f"| {rank} | {gene}{mark} | {found.disease_name} ({found.disease}) "
            f"| {score} | {why} |"
        )
    if more := int((answer.ranks[config.top :] == answer.ranks[place]).sum()):
        lines.append(f"\n{more:,} more genes share the rank of the last one.")
    for found in answer.explained[:_EXPLAINED]:
        lines += ["\n```", *found.lines(), "```"]
    return lines


def _release_notes(world: World) -> list[str]:
    """What a user should know of the files of HPO."""
    releases, annotations = world.hpo.releases, world.hpo.annotations
    notes = []
    if len(set(releases.values())) > 1:
        notes.append("the ontology and the annotations are of different releases")
    if dropped := annotations.report.unknown + annotations.report.obsolete:
        notes.append(f"annotations dropped, whose terms HPO lacks: {dropped:,}")
    # Only genes_to_phenotype.txt names such a disease.
    linked = np.unique(annotations.links[:, 1])
    alone = sum(not annotations.disease_names[place] for place in linked)
    if alone > _ALONE * len(linked):
        notes.append(
            f"{alone:,} of {len(linked):,} diseases of genes have no annotations: "
            "phenotype.hpoa may be cut short, or of another release"
        )
    return notes


def _title(answer: Answer) -> str:
    """Neutral name of a patient, with the name of its file where there is one."""
    name, file = answer.case.name, own_answers.file_name(answer.case)
    return name if file == name else f"{name} ({file})"


def _outlook(answer: Answer) -> str:
    return (
        f"By combined, {answer.first} is the first of all genes, and right with "
        f"probability {answer.probability:.0%}; solvable: {answer.label}"
    )


def _bullet(note: str) -> str:
    """A line of the loader's report; one that is set in belongs to the line above."""
    text = note.lstrip()
    return f"{note[: len(note) - len(text)]}- {text}"
