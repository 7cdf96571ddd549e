"""Tables of the parts."""

from collections.abc import Mapping

from configs.genes import Config
from jeff_llm.genes.abstention import Quality
from jeff_llm.genes.evaluation import Evaluation, Interval
from jeff_llm.genes.solvability import LabelAccuracy
from train_scripts.genes.genome import Study
from train_scripts.genes.gpt4o import Stored
from train_scripts.genes.sets import Sets, strategy_names
from train_scripts.genes.solvable import Agents, Solvable
from train_scripts.running.endpoint import counted
from train_scripts.running.seeds import spread

__all__ = [
    "agents_table",
    "bias_table",
    "evaluations",
    "notes",
    "percent",
    "sets_table",
    "solvable_table",
    "stored_table",
    "strategy_table",
    "transfer_table",
]

_COLUMNS = ("top1", "top3", "top5", "top10", "mrr")
_HEADS = ("top 1", "top 3", "top 5", "top 10", "MRR")


def percent(interval: Interval) -> str:
    """A share with its interval, in per cent.

    Args:
      interval: the share.

    Returns:
      The text.

    >>> percent(Interval(0.475, 0.43, 0.519))
    '47.5 (43.0 to 51.9)'
    """
    middle, low, high = (100 * each for each in interval)
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


def evaluations(found: Mapping[str, Evaluation], title: str) -> str:
    """Table of top-k accuracy, a row per ranker.

    Args:
      found: evaluations by name.
      title: head of the first column.

    Returns:
      Markdown.
    """
    lines = [
        f"| {title} | {' | '.join(_HEADS)} |",
        f"|---|{'---|' * len(_HEADS)}",
    ]
    for name, each in found.items():
        cells = " | ".join(percent(getattr(each, column)) for column in _COLUMNS)
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"


def stored_table(found: Stored) -> str:
    """Tables of the stored rankings.

    Args:
      found: the measurements.

    Returns:
      Markdown.
    """
    thirds = "\n".join(
        f"| {third.low:.2f} to {third.high:.2f} | {third.cases} "
        f"| {percent(third.accuracy.top1)} | {percent(third.accuracy.top10)} |"
        for third in found.thirds
    )
    return (
        f"\n## Stored rankings of GPT-4o\n\n{found.cases} phenopackets have one. A "
        "diagnosis stands for the genes of its disease; weights of the fusion were "
        "chosen on other genes.\n\n"
        + evaluations(found.genes, "genes ranked by")
        + "\nDifferences, paired by case, in points:\n\n"
        + evaluations(found.gains, "difference")
        + "\nDiagnoses right (the disease or a kind of it), all stored cases:\n\n"
        + evaluations(found.languages, "prompt language")
        + "\nIn English, by third of the mean information content of the terms:\n\n"
        "| mean information | cases | top 1 | top 10 |\n|---|---|---|---|\n"
        f"{thirds}\n"
        + "\nFurther cases without a phenopacket, by diagnosis:\n\n"
        + evaluations(found.unlinked, "prompt language")
    )


def solvable_table(name: str, found: Solvable) -> str:
    """Tables of one set of annotations.

    Args:
      name: of the set.
      found: the measurements.

    Returns:
      Markdown.
    """
    threshold = found.threshold
    given = (
        f"answer when the probability is above {threshold.threshold:.2f}: "
        f"{found.answered:.0%} of the held-out cases, {found.held_out:.1%} of these "
        "wrong"
        if found.cases
        else "no threshold keeps the bound, so no case is answered"
    )
    areas = "\n".join(
        f"| {label} | {area.estimate:.3f} ({area.low:.3f}-{area.high:.3f}) |"
        for label, area in found.areas.items()
    )
    return (
        f"\n### {name}\n\n| separates solved from unsolved | AUROC |\n|---|---|\n"
        f"{areas}\n\n"
        f"{_labels(found.labels, 'committee of measures')}\n"
        f"{_labels(found.thirds, 'information of the terms')}\n"
        f"{_labels(found.branches, 'organ system')}\n"
        "Probability that the top gene is right, on genes that the model was not "
        f"trained on: calibration error {found.quality.calibration_error:.3f} (10 "
        f"bins), AUROC {found.quality.auroc:.3f}, Brier score "
        f"{found.quality.brier:.3f}. At most {threshold.max_error:.0%} wrong with "
        f"probability {1 - threshold.delta:.0%}: "
        f"{given}.\n"
    )


def agents_table(found: Agents) -> str:
    """Table of what agents of a language model say.

    Args:
      found: the measurements.

    Returns:
      Markdown.
    """
    judgement, area = found.judgement, found.area
    return (
        f"\n### Agents of SmolLM2\n\nThree roles, {len(judgement.verdicts)} cases: "
        f"{judgement.calls} calls, {counted(judgement.tokens)}, {judgement.unreadable} "
        f"answers unreadable. AUROC of the consensus {area.estimate:.3f} "
        f"({area.low:.3f} to {area.high:.3f}).\n\n" + _labels(found.labels, "consensus")
    )


def transfer_table(found: Quality | None, cases: int) -> str:
    """Quality of the probability on cases of another origin.

    Args:
      found: the quality; None if it was not measured.
      cases: cases that the model was trained on.

    Returns:
      Markdown.
    """
    if found is None:
        return ""
    return (
        f"\n### PhenoBrain's cases\n\nThe model trained on the {cases} phenopackets "
        "without their own papers, applied as it stands: calibration error "
        f"{found.calibration_error:.3f}, AUROC {found.auroc:.3f}; the top gene is "
        f"right in {found.accuracy:.1%}.\n"
    )


def sets_table(config: Config, found: Sets) -> str:
    """Table of accuracy by size of the candidate set.

    Args:
      config: settings of the run.
      found: the measurements.

    Returns:
      Markdown.
    """
    out = ""
    for kind in config.distractors:
        lines = [
            f"| candidates ({kind}) | {' | '.join(map(str, config.sizes))} |",
            f"|---|{'---|' * len(config.sizes)}",
            f"| chance | {' | '.join(f'{100 / size:.1f}' for size in config.sizes)} |",
        ]
        for ranker, count in found.cases.items():
            cells = [
                _over_seeds(
                    found,
                    "top1",
                    kind="size",
                    ranker=ranker,
                    distractors=kind,
                    size=size,
                )
                for size in config.sizes
            ]
            lines.append(f"| {ranker}, {count} cases | {' | '.join(cells)} |")
        out += "\n" + "\n".join(lines) + "\n"
    return out


def strategy_table(config: Config, found: Sets) -> str:
    """Table of the strategies: accuracy against calls.

    Args:
      config: settings of the run.
      found: the measurements.

    Returns:
      Markdown.
    """
    rankers = dict.fromkeys(i.ranker for i in found.items if i.kind == "strategy")
    lines = [
        "| strategy | ranker | candidates | top 1, % | calls | tokens |",
        "|---|---|---|---|---|---|",
    ]
    for ranker in rankers:
        size = next(
            i.size for i in found.items if (i.kind, i.ranker) == ("strategy", ranker)
        )
        for name in strategy_names(config, ranker):
            wanted = {"kind": "strategy", "ranker": ranker, "strategy": name}
            top1 = _over_seeds(found, "top1", **wanted)
            calls = found.values("calls", **wanted).mean()
            tokens = found.values("tokens", **wanted).mean()
            lines.append(
                f"| {name} | {ranker} | {size} | {top1} | {calls:.0f} | {tokens:,.0f} |"
            )
    return "\n" + "\n".join(lines) + "\n"


def bias_table(found: Sets) -> str:
    """Table of the three kinds of bias, before and after.

    Args:
      found: the measurements.

    Returns:
      Markdown.
    """
    lines = [
        "| ranker | strategy | position slope | order stability | popularity |",
        "|---|---|---|---|---|",
    ]
    pairs = dict.fromkeys(
        (item.ranker, item.strategy) for item in found.items if item.kind == "bias"
    )
    for ranker, strategy in pairs:
        cells = []
        for name in ("position", "stability", "popularity"):
            values = {
                end: found.values(
                    f"{name}{end}", kind="bias", ranker=ranker, strategy=strategy
                ).mean()
                for end in ("", "_low", "_high")
            }
            cells.append(
                f"{values['']:.2f} ({values['_low']:.2f} to {values['_high']:.2f})"
            )
        lines.append(f"| {ranker} | {strategy} | {' | '.join(cells)} |")
    return "\n" + "\n".join(lines) + "\n"


def notes(study: Study) -> str:
    """What the loader said about a source.

    Args:
      study: the cases.

    Returns:
      Markdown.
    """
    return "\n".join(f"- {note}" for note in study.source.notes) + "\n"


def _labels(found: Mapping[str, LabelAccuracy], title: str) -> str:
    lines = [f"| {title} | cases | top gene right, % |", "|---|---|---|"]
    lines += [
        f"| {name} | {each.cases} | {percent(each.accuracy)} |"
        for name, each in found.items()
    ]
    return "\n".join(lines) + "\n"


def _over_seeds(found: Sets, name: str, **wanted: object) -> str:
    values = 100 * found.values(name, **wanted)
    if not len(values):
        return "-"
    if len(values) == 1:
        low, high = (found.values(end, **wanted)[0] for end in ("low", "high"))
        return percent(Interval(values[0] / 100, low, high))
    return spread(values, 1)
