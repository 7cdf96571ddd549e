"""Tables and files of the rankings of the user's own patients."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jeff_llm.genes.reasons import Explanation

from configs.genes import Config
from jeff import files
from jeff_llm.genes.evaluation import Evaluation
from train_scripts.genes import summary
from train_scripts.genes.data import Source, World

if TYPE_CHECKING:
    from train_scripts.genes.own import Answer

__all__ = ["accuracy", "explanations", "report_case", "table", "write_reasons"]

# Patients and genes whose reasons stand in the table; the files have all.
_PATIENTS = 5
_EXPLAINED = 3
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
    answers: Sequence["Answer"],
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
    lines += [f"- {note}" for note in source.notes]
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


def explanations(world: World, answers: Sequence["Answer"]) -> dict[str, Any]:
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
                "probability_top": answer.probability,
                "solvable": answer.label,
                "genes": [each.as_dict() for each in answer.explained],
            }
            for answer in answers
        ],
    }


def write_reasons(path: Path, answers: Sequence["Answer"]) -> None:
    """Write the reasons that the report shows; nothing if no gene has any.

    Args:
      path: file to write.
      answers: rankings of the patients to show.
    """
    shown = [
        report_case(
            answer.case.name,
            f"probability that the first is right {answer.probability:.0%}, "
            f"solvable: {answer.label}",
            answer.explained,
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
    name: str, text: str, explained: Sequence[Explanation]
) -> dict[str, Any]:
    """One case as the report shows it.

    Args:
      name: of the case.
      text: what stands behind the name.
      explained: explanations of its genes, best first.

    Returns:
      A value for ``reasons.json``.
    """
    return {
        "name": name,
        "summary": text,
        "items": [_item(each) for each in explained if np.isfinite(each.score)],
    }


def _item(found: Explanation) -> dict[str, Any]:
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
    if found.known_by_study_only:
        notes.append(
            f"Ranks as high for {found.usual:.1%} of unrelated patients: it may be "
            "here only because it is well studied."
        )
    return {
        "rank": found.rank,
        "name": found.gene,
        "because": f"{found.disease_name} ({found.disease})",
        "score": found.score,
        "notes": notes,
        "lines": lines,
    }


def _patient(config: Config, world: World, answer: "Answer") -> list[str]:
    case = answer.case
    ontology = world.hpo.ontology
    names = [ontology.names[ontology.index(term)] for term in case.phenotypes.observed]
    lines = [
        f"\n## {case.name}\n",
        f"{len(names)} terms: {', '.join(names)}. The first gene is right with "
        f"probability {answer.probability:.0%}; solvable: {answer.label}.\n",
        "| rank | gene | disease | score | best explained |",
        "|---|---|---|---|---|",
    ]
    by_gene = {each.gene: each for each in answer.explained}
    for rank, gene in enumerate(answer.genes[: config.top], start=1):
        found = by_gene.get(gene)
        score = f"{answer.scores[rank - 1]:.2f}"
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
    for found in answer.explained[:_EXPLAINED]:
        lines += ["\n```", *found.lines(), "```"]
    return lines
