"""The parts of a run without data of the user's own."""

from pathlib import Path

from configs.anomaly import Config
from jeff_llm.anomaly import select
from jeff_llm.anomaly.conformal_simulation import simulate_guarantees
from train_scripts.anomaly import (
    augmenting,
    claims,
    drawings,
    quality,
    selecting,
    summary,
)
from train_scripts.anomaly.collect import STYLE, Collected, collect
from train_scripts.anomaly.quality import Ends
from train_scripts.running.results import Part
from train_scripts.running.seeds import seed_key
from train_scripts.running.stages import say

__all__ = ["run"]

_MADE = 21
_MADE_CALIBRATION = 200
# Detectors whose thresholds are tried: the default, and its better half.
_TRIED = (STYLE, "kNN, MiniLM")


def run(config: Config, workdir: Path, *, progress: bool) -> list[Part]:
    """Run the parts in their order.

    Args:
      config: settings of the run.
      workdir: the run's folder.
      progress: say what is being done.

    Returns:
      One part each.
    """
    collected = collect(config, workdir, progress=progress)
    missing = [name for name in config.data_sets if name not in collected]
    lines = [f"# Anomalies in text\n\n{summary.notes(config)}"]
    if missing:
        lines.append(f"Left out, since JEFF_DATA lacks them: {', '.join(missing)}.\n")
    found = [Part({}, (), "\n".join(lines))]
    for name in config.parts:
        say("anomaly", progress, name)
        if name == "table":
            found.append(_table(config, collected, workdir))
        elif name == "false_alarms":
            found.append(_false_alarms(config, collected, workdir))
        elif name == "augment":
            found.append(_augment(config, collected, workdir, progress))
        else:
            found.append(_select(config, collected, workdir))
    return found


def _table(
    config: Config, collected: dict[str, list[Collected]], workdir: Path
) -> Part:
    found = {name: quality.quality(config, rows) for name, rows in collected.items()}
    drawings.plot_quality(workdir / "01_detectors.png", found)
    text = "\n## Detectors and zero-shot scorers\n" + "".join(
        summary.quality_table(name, rows) for name, rows in found.items()
    )
    words, failures = [], []
    for name, rows in collected.items():
        for model, chosen in rows[0].words.items():
            words.append(f"* {name}, {model}: {chosen}")
        for method, share in rows[0].failed.items():
            failures.append(f"* {name}, {method}: {share:.1%}")
    if words:
        text += "\nDescriptions chosen without labels:\n\n" + "\n".join(words) + "\n"
    if failures:
        text += "\nAnswers that could not be used, scored .5:\n\n"
        text += "\n".join(failures) + "\n"
    numbers = {
        f"{name}_{_plain(row.method)}_auroc": row.auroc.estimate
        for name, rows in found.items()
        for row in rows
    }
    return Part(numbers, claims.table(config, collected, found), text)


def _false_alarms(
    config: Config, collected: dict[str, list[Collected]], workdir: Path
) -> Part:
    found = {
        name: [
            alarm for method in _TRIED for alarm in quality.alarms(config, rows, method)
        ]
        for name, rows in collected.items()
    }
    drawings.plot_alarms(workdir / "02_false_alarms.png", found, STYLE)
    text = (
        "\n## False alarms under control\n\nEach threshold allows its level with "
        f"probability {1 - config.delta:.0%} over the texts kept aside. Discoveries: "
        "Benjamini-Hochberg at 10% on batches of 200 texts, 20 of them anomalous.\n"
        + "".join(summary.alarm_table(name, rows) for name, rows in found.items())
    )
    numbers = {
        f"{name}_{_plain(row.method)}_{row.level:g}_{kind}": value
        for name, rows in found.items()
        for row in rows
        if not row.refused
        for kind, value in (
            ("false_alarms", row.false_alarms.estimate),
            ("power", row.power.estimate),
        )
    }
    level = sorted(config.levels)[len(config.levels) // 2]
    simulated = simulate_guarantees(
        _MADE_CALIBRATION,
        level=level,
        delta=config.delta,
        key=seed_key(config.seeds[0], _MADE),
        num_sets=config.made,
    )
    numbers["made_broken"] = float(simulated.broken)
    decided = claims.alarms(found) + claims.made(config, level, simulated)
    return Part(numbers, decided, text)


def _augment(
    config: Config,
    collected: dict[str, list[Collected]],
    workdir: Path,
    progress: bool,
) -> Part:
    found, lines = {}, []
    for name, rows in collected.items():
        study, label = rows[0].study, rows[0].label
        if study is None:
            continue
        say("anomaly", progress, f"augment {name}")
        made = augmenting.measure(config, study, workdir)
        found[name] = quality.gains(config, made, label)
        for each in made:
            left = ", ".join(f"{count} {kind}" for kind, count in each.copies.items())
            samples = " / ".join(text[:100] for text in each.samples)
            lines.append(
                f"* {name}, {each.source}: {each.written} texts; left out: {left}; "
                f"categories with too few keywords: {each.short}. {samples}"
            )
        if study.data.candidates[0].anomalous:
            given, richer = augmenting.described(config, study, workdir).values()
            change = quality.difference(config, richer, given, label)
            lines.append(
                f"* {name}: SmolLM2's descriptions change MiniLM's similarity by "
                f"{_shown(change)}"
            )
    drawings.plot_augment(workdir / "03_augmentation.png", found)
    text = (
        f"\n## Synthetic texts\n\nSmall part: {config.small_part} normal texts.\n"
        + "".join(summary.augment_table(name, rows) for name, rows in found.items())
        + "\n"
        + "\n".join(lines)
        + "\n"
    )
    numbers = {
        f"{name}_{_plain(row.source)}_{_plain(row.detector)}_gain": row.gain.estimate
        for name, rows in found.items()
        for row in rows
    }
    return Part(numbers, claims.augmentation(found), text)


def _select(
    config: Config, collected: dict[str, list[Collected]], workdir: Path
) -> Part:
    found: dict[str, selecting.Selection] = {}
    published = selecting.published()
    if published is not None:
        table, about = published
        chosen = selecting.select_by_model(config, table, about, workdir)
        found["published table"] = chosen
    if len(collected) > 1:
        aurocs = {
            name: {
                row.method: row.auroc.estimate for row in quality.quality(config, rows)
            }
            for name, rows in collected.items()
        }
        table = selecting.own_table(list(collected), aurocs)
        about = []
        for rows in collected.values():
            study = rows[0].study
            if study is not None:
                kinds = [study.data.kind[place] for place in study.split.train]
                about.append(select.facts(study.data.name, study.train, kinds))
        chosen = selecting.select_by_model(config, table, about, workdir)
        found["this run's detectors"] = chosen
    if not found:
        reason = "it needs the published table or two data sets"
        return Part({}, (), f"\n## Choosing a detector\n\nSkipped: {reason}.\n")
    if config.queries:
        drawings.plot_regret(workdir / "04_regret.png", found)
    text = "\n## Choosing a detector\n\nRegret: AUROC lost to the best pair.\n"
    text += "".join(summary.select_table(title, each) for title, each in found.items())
    numbers = {
        f"{_plain(title)}_{kind}": float(value.mean())
        for title, each in found.items()
        for kind, value in (
            ("told", each.told),
            ("control", each.control),
            ("average", each.baselines.average),
            ("random", each.baselines.random),
        )
        if config.queries or kind in ("average", "random")
    }
    decided = tuple(
        claims.selection(title, each) for title, each in found.items() if config.queries
    )
    return Part(numbers, decided, text)


def _shown(ends: Ends) -> str:
    return f"{ends.estimate:+.3f} ({ends.low:+.3f} to {ends.high:+.3f})"


def _plain(text: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
