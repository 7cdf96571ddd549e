"""The parts of a run without data of the user's own."""

from pathlib import Path

import numpy as np

from configs.genes import Config
from jeff import files
from jeff_llm.genes import reasons, top_probability
from jeff_llm.genes.evaluation import Evaluation
from jeff_llm.genes.top_probability import TopModel
from train_scripts.genes import (
    claims,
    data,
    drawings,
    genome,
    gpt4o,
    own_report,
    sets,
    solvable,
    summary,
)
from train_scripts.genes.data import World
from train_scripts.genes.genome import Study
from train_scripts.running import machines
from train_scripts.running.results import Part
from train_scripts.running.seeds import seed_key
from train_scripts.running.stages import say

__all__ = ["run", "share"]

_RESEARCH = "For research; this is not a medical device.\n"
_SKIPPED = "\n## {}\n\nSkipped: {}.\n"
# Cases that the report explains, genes of each, and simulated patients to compare with.
_SHOWN, _GENES, _UNRELATED = 10, 3, 200
_PURPOSE = 30
_NO_DATA = "JEFF_DATA holds no such data"


def run(config: Config, workdir: Path, *, progress: bool) -> list[Part]:
    """Run the parts in their order.

    Args:
      config: settings of the run.
      workdir: the run's folder.
      progress: say what is being done.

    Returns:
      One part each.
    """
    world = data.make_world(config)
    releases = ", ".join(f"{n} {r}" for n, r in world.hpo.releases.items())
    found = [Part({}, (), f"# Gene prioritisation\n\n{_RESEARCH}HPO: {releases}.\n")]
    study: Study | None = None
    elsewhere: Study | None = None
    for name in config.parts:
        say("genes", progress, name)
        if name == "phenobrain":
            part, elsewhere = _phenobrain(config, world, workdir)
            found.append(part)
        elif name == "genome":
            study = study or _study(config, world)
            found.append(_genome(config, study, workdir))
            _explain(config, world, study, workdir)
        elif name == "gpt4o":
            found.append(_gpt4o(config, world))
        elif name == "solvability":
            study = study or _study(config, world)
            found.append(_solvability(config, world, study, elsewhere, workdir))
        else:
            found.append(_candidates(config, world, workdir, progress))
    return found


def share(config: Config, workdir: Path, *, progress: bool) -> list[Part]:
    """Do this process's part: rows of the part "candidates", which takes longest.

    Args:
      config: settings of the run.
      workdir: the run's folder.
      progress: show a progress bar.

    Returns:
      Nothing: the rows are stored, and the first process reports them.

    Raises:
      train_scripts.running.options.Done: when they are.
    """
    if "candidates" not in config.parts:
        machines.first_alone()
    sets.measure(config, data.make_world(config), workdir, progress=progress)
    return []


def _study(config: Config, world: World) -> Study:
    source = data.phenopackets(config, world)
    return genome.make_study(
        config, world, source, papers=not source.simulated, kept=()
    )


def _phenobrain(
    config: Config, world: World, workdir: Path
) -> tuple[Part, Study | None]:
    source = data.phenobrain(config, world)
    title = "Cases of PhenoBrain"
    if source is None:
        return Part({}, (), _SKIPPED.format(title, _NO_DATA)), None
    study = genome.make_study(config, world, source, papers=False, kept=())
    diseases = genome.rows(config, study.diseases, study.clusters)
    linked = genome.with_gene(study)
    genes = genome.rows(config, linked.genes, linked.clusters)
    path = workdir / "01_phenobrain.png"
    drawings.plot_measures(path, {"diseases": diseases}, claims.PHENOBRAIN)
    text = (
        f"\n## {title}\n\n{len(source.cases)} public cases, whose papers are not where "
        f"HPO's annotations come from.\n\n{summary.notes(study)}\n"
        f"Diagnosis among {len(world.hpo.annotations.diseases):,} diseases:\n\n"
        f"{summary.evaluations(diseases, 'measure')}\n"
        f"Gene among {len(world.hpo.annotations.genes):,}, the {len(linked.clusters)} "
        f"cases whose diagnosis has one:\n\n{summary.evaluations(genes, 'measure')}"
    )
    numbers = _numbers("phenobrain_disease", diseases)
    numbers |= _numbers("phenobrain_gene", genes)
    return Part(numbers, claims.phenobrain(diseases), text), study


def _genome(config: Config, study: Study, workdir: Path) -> Part:
    full = genome.rows(config, study.genes, study.clusters)
    name = study.source.name
    settings = {"all annotations": full}
    text = (
        f"\n## Whole genome, {name}\n\n{len(study.clusters)} cases; a gene that this "
        f"release of HPO lacks counts as a miss.\n\n{summary.notes(study)}\n"
        f"All annotations:\n\n{summary.evaluations(full, 'measure')}"
    )
    numbers = _numbers("genome", full)
    less: dict[str, Evaluation] = {}
    if study.without:
        less = genome.rows(config, study.without, study.clusters)
        settings["own paper left out"] = less
        numbers |= _numbers("genome_without", less)
        text += (
            "\nWithout the annotations that rest on the case's own paper alone:\n\n"
            + summary.evaluations(less, "measure")
        )
    drawings.plot_measures(workdir / "02_genome.png", settings, ())
    found = () if study.source.simulated else claims.genome(config, study, full, less)
    return Part(numbers, found, text)


def _explain(config: Config, world: World, study: Study, workdir: Path) -> None:
    """Explain the first genes and the causal one of some cases, for the report."""
    if "combined" not in study.scores:
        return
    names = world.hpo.annotations.genes
    key = seed_key(config.seeds[0], _PURPOSE)
    unrelated = reasons.unrelated_ranks(
        world.hpo, world.tables, num_patients=_UNRELATED, key=key
    )
    shown = []
    numbers = {id(case): row for row, case in enumerate(study.source.cases)}
    for case in data.spread(study.source.cases, min(_SHOWN, len(numbers))):
        row = numbers[id(case)]
        order = np.argsort(-study.scores["combined"][row], kind="stable")
        genes = [names[place] for place in order[:_GENES]]
        genes += [case.gene] if case.gene and case.gene not in genes else []
        found = reasons.explain(
            world.hpo, world.tables, case.phenotypes, genes, unrelated=unrelated
        )
        rank = study.genes["combined"][row]
        place = f"rank {rank:.0f}" if np.isfinite(rank) else "not in this release"
        text = (
            f"{len(case.phenotypes.observed)} terms; causal gene {case.gene}: {place}"
        )
        ranks = np.array([each.rank for each in found])
        shown.append(own_report.report_case(case.name, text, found, ranks))
    own_report.write_report(workdir / "reasons.json", shown)


def _gpt4o(config: Config, world: World) -> Part:
    found = gpt4o.measure(config, world)
    if found is None:
        title = "Stored rankings of GPT-4o"
        return Part({}, (), _SKIPPED.format(title, _NO_DATA))
    numbers = {
        f"gpt4o_{_plain(name)}_top1": each.top1.estimate
        for name, each in found.genes.items()
    }
    return Part(numbers, claims.gpt4o(found), summary.stored_table(found))


def _solvability(
    config: Config,
    world: World,
    study: Study,
    elsewhere: Study | None,
    workdir: Path,
) -> Part:
    kinds = {"all annotations": True}
    if study.held_out:
        kinds["own paper left out"] = False
    found = {
        name: each
        for name, own in kinds.items()
        if (each := solvable.measure(config, world, study, own_papers=own))
    }
    title = "How solvable a case looks"
    if not found:
        reason = "it needs all measures of the ensemble, and right and wrong cases"
        return Part({}, (), _SKIPPED.format(title, reason))
    drawings.plot_solvable(workdir / "06_abstaining.png", found)
    text = f"\n## {title}\n" + "".join(
        summary.solvable_table(name, each) for name, each in found.items()
    )
    last = list(found.values())[-1]
    _write_model(workdir / "top_model.json", last.model)
    numbers: dict[str, float] = {}
    for name, each in found.items():
        short = _plain(name)
        numbers[f"solvable_ece_{short}"] = each.quality.calibration_error
        numbers[f"solvable_auroc_{short}"] = each.quality.auroc
        numbers[f"solvable_answered_{short}"] = each.answered
        numbers[f"solvable_wrong_{short}"] = each.held_out
    asked = solvable.ask_agents(config, world, study)
    if asked is not None:
        text += summary.agents_table(asked)
        numbers["agents_auroc"] = asked.area.estimate
    if elsewhere is not None:
        moved = solvable.transfer(world, elsewhere, last.model)
        text += summary.transfer_table(moved, len(last.correct))
        if moved is not None:
            numbers["solvable_ece_phenobrain"] = moved.calibration_error
            numbers["solvable_auroc_phenobrain"] = moved.auroc
    return Part(numbers, claims.solvable(config, found), text)


def _candidates(config: Config, world: World, workdir: Path, progress: bool) -> Part:
    found = sets.measure(config, world, workdir, progress=progress)
    drawings.plot_sets(workdir / "03_accuracy_by_size.png", config, found)
    if any(item.kind == "strategy" for item in found.items):
        drawings.plot_strategies(workdir / "04_accuracy_by_calls.png", config, found)
    text = (
        "\n## Sets of candidates\n\nRight at rank 1, in %; the causal gene among "
        "distractors, in random order.\n"
        + summary.sets_table(config, found)
        + summary.strategy_table(config, found)
        + summary.bias_table(found)
    )
    numbers = {}
    for item, row in zip(found.items, found.rows, strict=True):
        parts = [
            item.kind,
            item.ranker,
            item.distractors,
            str(item.size),
            item.strategy,
        ]
        for name, value in row.items():
            if name != "step" and item.seed == config.seeds[0]:
                numbers[f"{_plain(' '.join(parts))}_{name}"] = float(value)
    return Part(numbers, claims.sets(config, found), text)


def _write_model(path: Path, model: TopModel) -> None:
    """Write the model that tells how far to trust a ranking, for `read_model`."""
    files.write_json(
        path,
        {
            "features": list(top_probability.FEATURES),
            "mean": model.mean.tolist(),
            "scale": model.scale.tolist(),
            "weights": model.weights.tolist(),
            "bias": model.bias,
        },
    )


def _numbers(prefix: str, found: dict[str, Evaluation]) -> dict[str, float]:
    return {
        f"{prefix}_{name}_{column}": getattr(each, column).estimate
        for name, each in found.items()
        for column in ("top1", "top3", "top10", "mrr")
    }


def _plain(text: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
