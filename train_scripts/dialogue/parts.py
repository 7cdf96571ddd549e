"""The parts of a run without data of the user's own."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from configs.dialogue import Config
from jeff import assets, files
from train_scripts.dialogue import claims, data, drawings, summary
from train_scripts.dialogue.measure import Chosen, measure
from train_scripts.dialogue.pooled import calibration, pooled, select
from train_scripts.running import machines
from train_scripts.running.claims import mark
from train_scripts.running.results import Part

__all__ = ["run"]


def run(config: Config, workdir: Path, *, progress: bool) -> list[Part]:
    """Run the parts on every data set.

    Args:
      config: settings of the run.
      workdir: the run's folder.
      progress: say what is being done.

    Returns:
      One part for each data set, behind one that says how the tables were made.

    Raises:
      FileNotFoundError: if none of the data sets is here.
      ValueError: if there is no model for the arms, or their batches do not divide by
        the devices.
    """
    if "arms" in config.parts and not config.model:
        raise ValueError(
            "model: expected a model for the part arms, got none; name one with "
            "--model, or leave out the part"
        )
    if "arms" in config.parts:
        machines.batch_sharding(config.batch_size)  # refused now, not after an hour
    names = [name for name in config.data_sets if name != "medqa" or _has_medqa()]
    missing = [name for name in config.data_sets if name not in names]
    if not names:
        raise FileNotFoundError(
            "data_sets: expected JEFF_DATA to hold medqa/, found none; set it, or add "
            "--data-sets simulated"
        )
    lines = [f"# Dialogue tuning and evidence\n\n{summary.notes(config)}"]
    if missing:
        lines.append(f"Left out, since JEFF_DATA lacks them: {', '.join(missing)}.\n")
    if "simulated" in names:
        lines.append('The data set "simulated" is made from HPO, by no clinician.\n')
    found = [Part({}, (), "\n".join(lines))]

    def one(item: tuple[str, int]) -> tuple[list[Chosen], str]:
        study = data.make_study(config, *item)
        return measure(config, study, workdir, progress=progress)

    # Only arms take long, and what they chose is stored.
    machines.deal([(name, seed) for name in names for seed in config.seeds], one)
    for number, name in enumerate(names):
        chosen, said = [], ""
        for seed in config.seeds:
            more, note = one((name, seed))
            chosen, said = [*chosen, *more], said + note
        part = _part(config, name, chosen, workdir, number)
        found.append(dataclasses.replace(part, table=part.table + said))
    return found


def _has_medqa() -> bool:
    folder = assets.data_dir()
    return folder is not None and (folder / "medqa").is_dir()


def _part(
    config: Config, name: str, found: Sequence[Chosen], workdir: Path, number: int
) -> Part:
    decided = claims.claims(config, name, found)
    text = summary.scores_table(config, name, found)
    text += summary.source_table(config, name, found)
    text += summary.kind_table(config, name, found)
    text += summary.calibration_table(config, name, found)
    text += _tuned(name, workdir)
    text += f"\n### {name}, in words\n\n"
    text += "".join(
        f"* {mark(each.holds).capitalize()}: {each.claim} {each.measured}.\n"
        for each in decided
    )
    _draw(config, name, found, workdir, 10 * number)
    return Part(_numbers(config, name, found), decided, text)


def _numbers(config: Config, name: str, found: Sequence[Chosen]) -> dict[str, float]:
    numbers = {}
    for part, method, rounds in summary.methods(found):
        for noise in config.noise:
            own = select(found, part, method, rounds=(rounds,), noise=(noise,))
            scores = pooled(own)
            key = f"{name}_{part}_{method}_{rounds}_{noise}"
            numbers[f"{key}_pos"] = float(scores.position.mean())
            numbers[f"{key}_f1"] = float(scores.f1.mean())
        if part not in ("rules", "official", "chat"):
            own = select(found, part, method, rounds=(rounds,))
            numbers[f"{name}_{part}_{method}_{rounds}_ece"] = calibration(own).error
    return numbers


def _tuned(name: str, workdir: Path) -> str:
    rows = []
    for file in sorted((workdir / "arms").glob(f"{name}_*/tuned.json")):
        each = files.read_json(file)
        _, seed, arm = file.parent.name.split("_", 2)
        rows.append(
            f"| {arm.replace('_', ' ')} | {seed} | {each['items']} | "
            f"{each['tokens']:,} | {each['learned']:,} | {each['loss']:.3f} |\n"
        )
    if not rows:
        return ""
    return (
        f"\n### {name}, what the arms were tuned on\n\n| arm | seed | items | tokens "
        "read | in the loss | last loss |\n|---|---|---|---|---|---|\n" + "".join(rows)
    )


def _draw(
    config: Config, name: str, found: Sequence[Chosen], workdir: Path, number: int
) -> None:
    named = summary.labels(config)
    titles = {part: named[part] for part in ("heads", "number", "text")}
    for part, title in titles.items():
        rounds = {each.rounds for each in found if each.part == part}
        for each in sorted(rounds):
            number += 1
            drawings.plot_noise(
                workdir / f"{number:02d}_{name}_{part}_{each}.png",
                config,
                found,
                part,
                each,
                f"{name}: {title}, {each} round{'s' if each == 'several' else ''}",
            )
    shown = next((p for p in titles if any(e.part == p for e in found)), None)
    if shown is None:
        return
    if max(config.noise):
        drawings.plot_sources(
            workdir / f"{number + 1:02d}_{name}_distractors.png",
            found,
            shown,
            f"{name}: {titles[shown]}",
        )
    drawings.plot_calibration(
        workdir / f"{number + 2:02d}_{name}_calibration.png",
        found,
        shown,
        f"{name}: {titles[shown]}",
    )
