"""Find the anomalies among the user's own texts."""

import functools
import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.anomaly import Config
from jeff import files
from jeff_llm import anomaly
from jeff_llm.anomaly import (
    conformal,
    false_discovery,
    likelihood,
    similarity,
    store,
    text_detector,
)
from jeff_llm.anomaly.categories import Categories
from jeff_llm.anomaly.text_detector import TextDetector
from jeff_llm.anomaly.texts import Text, distinct, read_lines, read_texts
from jeff_llm.anomaly.views import Encode, Scorer
from jeff_llm.models import encoder, weights
from train_scripts.anomaly import endpoint
from train_scripts.running import machines
from train_scripts.running.cells import table_cell
from train_scripts.running.results import Part
from train_scripts.running.rows import Shared
from train_scripts.running.seeds import seed_key
from train_scripts.running.stages import say

__all__ = ["analyse"]

_HALF = re.compile(r"[\ud800-\udfff]")
_PURPOSE = 40
_DESCRIPTIONS = ("normal", "anomalous")
_NEAREST = 1000  # characters of a nearest text in a row: long ones would fill the disk


class _Scored(NamedTuple):
    """Texts with everything that was found of them, in the file's order."""

    texts: list[Text]
    rows: list[dict[str, Any]]


def analyse(config: Config, workdir: Path, *, progress: bool = True) -> Part:
    """Fit a detector to normal texts, or read one, and score texts with it.

    Args:
      config: settings of the run.
      workdir: the run's folder; what an interrupted run has scored is not scored again.
      progress: say what is being done.

    Returns:
      Numbers and table; ``scores.jsonl`` and ``detector`` are in the folder.

    Raises:
      ValueError: if a file is not as expected, or there are too few normal texts for
        the level.
      FileNotFoundError: if a file or an asset is missing.
      OSError: if the endpoint fails; what was answered stays stored.
    """
    if not config.score:
        machines.first_alone()
    encoders: dict[str, Encode] = {"minilm": lambda texts: _minilm().encode(texts)}
    # Read first, so that a fault in the file shows before minutes of fitting.
    texts = _read_new(config) if config.score else []
    if config.score and not texts:
        source = "standard input" if config.score == "-" else config.score
        raise ValueError(f"{source}: expected at least one text, got none")
    detector, scorers, fitted = _detector(config, workdir, encoders, progress)
    limit = conformal.threshold(detector.calibration, config.level, delta=config.delta)
    numbers = {
        "training_texts": float(len(detector.texts)),
        "calibration_texts": float(len(detector.calibration)),
    }
    if not config.score:
        return Part(numbers, (), f"# Anomalies\n\n{fitted}")
    rows = _score(config, workdir, detector, encoders, scorers, texts, progress)
    p_values = np.array([row["p_value"] for row in rows], np.float32)
    found = np.asarray(
        false_discovery.benjamini_hochberg(p_values, config.false_discoveries)
    )
    # A score is above the threshold where its p-value is at most `rank / (n + 1)`, and
    # p-values repeat exactly where a score may lose its last digit.
    at_least = np.rint(p_values * (limit.calibration + 1))
    for row, count, discovered in zip(rows, at_least, found, strict=True):
        row["flagged"] = bool(count <= limit.rank)
        row["discovered"] = bool(discovered)
    asked = endpoint.ask(config, workdir, texts, rows) if config.chat else ""
    files.write_text(
        workdir / "scores.jsonl",
        "".join(map(_line, rows)),
    )
    _part_file(workdir).unlink(missing_ok=True)
    numbers["scored"] = float(len(rows))
    numbers["flagged"] = float(sum(row["flagged"] for row in rows))
    numbers["discovered"] = float(found.sum())
    table = _table(config, detector, limit, _Scored(texts, rows))
    return Part(numbers, (), f"# Anomalies\n\n{fitted}{table}{asked}")


def _detector(
    config: Config, workdir: Path, encoders: dict[str, Encode], progress: bool
) -> tuple[TextDetector, dict[str, Scorer], str]:
    """The detector, its scorers, and a report of the normal texts."""
    if config.detector:
        notes = store.read_notes(config.detector)
        detector = store.load(config.detector, encoders)
        _check_kept(config, detector, notes)
        scorers = _scorers(detector.scorers, notes, encoders)
        text = f"Detector of {config.detector}: {len(detector.texts)} normal texts.\n"
        return detector, scorers, text
    normal, empty, repeated = distinct(read_texts(config.data, column=config.column))
    text = (
        f"Normal texts of {config.data}: {len(normal)}; {empty} empty ones and "
        f"{repeated} repeats were left out.\n"
    )
    folder = workdir / "detector"
    notes = {name: getattr(config, name) for name in _DESCRIPTIONS}
    notes["texts"] = _digest(normal)
    names = config.scorers if config.anomalous else ()
    if (folder / "detector.json").is_file():  # an interrupted run left it
        if store.read_notes(folder).get("texts") != notes["texts"]:
            raise ValueError(
                f"{config.data}: expected the texts that {folder} was fitted to, got "
                f"others; the file has changed, so delete {workdir} to start anew"
            )
        detector = store.load(folder, encoders)
        return detector, _scorers(names, notes, encoders), text
    # Refused before the texts are embedded: it can take minutes.
    kept = int(np.ceil(config.holdout * len(normal)))
    fewest = conformal.fewest_calibration(config.level, config.delta)
    if kept < fewest:
        needed = int((fewest - 1) / config.holdout) + 1
        raise ValueError(
            f"{config.data}: expected at least {needed} "
            f"different normal texts for a false-alarm rate of {config.level:g} (with "
            f"holdout={config.holdout:g} and delta={config.delta:g}), got "
            f"{len(normal)}; give more texts or a higher level"
        )
    scorers = _scorers(names, notes, encoders)
    say("anomaly", progress, f"fit to {len(normal)} normal texts")
    detector = anomaly.fit(
        [each.text for each in normal],
        {name: encoders[name] for name in config.views if name in encoders},
        views=config.views,
        scorers=scorers,
        method=config.method,
        holdout=config.holdout,
        key=seed_key(config.seeds[0], _PURPOSE),
    )
    if machines.first():  # each process fits the same one
        store.save(detector, folder, encoders, notes=notes)
    return detector, scorers, text


def _check_kept(config: Config, detector: TextDetector, notes: dict[str, str]) -> None:
    """Refuse settings of the fit that a stored detector was not fitted with."""
    kept = {
        "method": detector.method,
        "views": detector.views,
        "scorers": detector.scorers,
    }
    for name in (*kept, *_DESCRIPTIONS):
        given, fitted = getattr(config, name), kept.get(name, notes.get(name, ""))
        if given not in (getattr(Config, name), fitted):
            raise ValueError(
                f"{name}: expected {fitted!r}, as {config.detector} was fitted, got "
                f"{given!r}; leave it out, or fit anew with `data`"
            )


def _scorers(
    names: tuple[str, ...], notes: dict[str, str], encoders: dict[str, Encode]
) -> dict[str, Scorer]:
    if not names:
        return {}
    known = ("similarity", "likelihood")
    if not set(names) <= set(known) or not set(_DESCRIPTIONS) <= set(notes):
        raise ValueError(
            f"detector: expected scorers among {known} with their descriptions, got "
            f"{names}; one with scorers of your own is used from Python"
        )
    normal, anomalous = (notes[name] for name in _DESCRIPTIONS)
    kinds = Categories({"normal": normal}, {"anomalous": anomalous})
    makers: dict[str, Callable[[], Scorer]] = {
        "similarity": lambda: (
            lambda texts: (
                similarity.description_similarity(
                    encoders["minilm"], texts, kinds
                ).score
            )
        ),
        "likelihood": lambda: _likelihood(kinds),
    }
    return {name: makers[name]() for name in names}


@functools.cache
def _minilm() -> encoder.SentenceEncoder:
    return encoder.load("minilm", mesh=machines.mesh())


def _likelihood(kinds: Categories) -> Scorer:
    model = weights.load("smollm2", mesh=machines.mesh())
    return lambda texts: likelihood.likelihood_ratio(model, texts, kinds).score


def _read_new(config: Config) -> list[Text]:
    if config.score == "-":
        try:
            return read_lines(sys.stdin, source="standard input")
        except UnicodeDecodeError as error:
            raise ValueError(f"standard input: expected UTF-8, but {error}") from error
    return read_texts(config.score, column=config.column)


def _score(
    config: Config,
    workdir: Path,
    detector: TextDetector,
    encoders: dict[str, Encode],
    scorers: dict[str, Scorer],
    texts: list[Text],
    progress: bool,
) -> list[dict[str, Any]]:
    """Score in batches; each that is done is stored."""
    path = _part_file(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    rows = _done(path, texts)
    begins = range(len(rows), len(texts), config.batch_size)

    def scored(begin: int) -> list[dict[str, Any]]:
        batch = texts[begin : begin + config.batch_size]
        return _rows(detector, batch, encoders, scorers)

    found = Shared(workdir / "scored", scored)
    machines.deal(begins, found.store)
    for begin in begins:
        new = found(begin)
        _append(path, new)
        rows += new
        say("anomaly", progress, f"scored {len(rows)} of {len(texts)} texts")
    found.forget()
    return rows


def _append(path: Path, rows: list[dict[str, Any]]) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(map(_line, rows))
    except OSError as error:
        raise OSError(
            error.errno or 0,
            f"{path}: the scores could not be written ({error.strerror}); those of "
            "earlier batches are kept: make room, then give the same command again",
        ) from error


def _part_file(workdir: Path) -> Path:
    return workdir / "scores.part.jsonl"


def _done(path: Path, texts: list[Text]) -> list[dict[str, Any]]:
    """Rows of an interrupted run; a line that was cut off is dropped."""
    if not path.is_file():
        return []
    # As bytes: the cut may lie within a character.
    content = files.read_bytes(path)
    with files.reading(path, "text in UTF-8", advice="delete it to score again"):
        whole = content[: content.rfind(b"\n") + 1].decode("utf-8")
    if not content.endswith(b"\n"):
        files.write_text(path, whole)
    rows = [
        files.parse_json(line, f"{path}:{number}")
        for number, line in enumerate(whole.split("\n")[:-1], start=1)
    ]
    if len(rows) > len(texts) or any(
        row["text"] != each.text for row, each in zip(rows, texts, strict=False)
    ):
        raise ValueError(
            f"{path}: expected the texts of this run, got others; the file to score "
            f"has changed, so delete {path.parent} to start anew"
        )
    return rows


def _rows(
    detector: TextDetector,
    batch: list[Text],
    encoders: dict[str, Encode],
    scorers: dict[str, Scorer],
) -> list[dict[str, Any]]:
    found = text_detector.score(
        detector,
        [each.text for each in batch],
        encoders,
        scorers=scorers,
        num_nearest=min(3, len(detector.texts)),
    )
    names = (*detector.views, *detector.scorers)
    rows = []
    for place, each in enumerate(batch):
        nearest = [
            {"text": detector.texts[index][:_NEAREST], "distance": float(distance)}
            for index, distance in zip(
                found.nearest[place], found.distance[place], strict=True
            )
        ]
        rows.append(
            {
                "place": each.place,
                "text": each.text,
                "score": float(found.score[place]),
                "p_value": float(found.p_value[place]),
                "by_view": dict(
                    zip(names, map(float, found.by_view[:, place]), strict=True)
                ),
                "nearest_normal": nearest,
                "note": "" if each.text.strip() else "empty text",
            }
        )
    return rows


def _table(
    config: Config,
    detector: TextDetector,
    limit: conformal.Threshold,
    scored: _Scored,
) -> str:
    rows = scored.rows
    flagged = sum(row["flagged"] for row in rows)
    found = sum(row["discovered"] for row in rows)
    count = len(detector.calibration)
    needed = false_discovery.fewest_flagged(count, len(rows), config.false_discoveries)
    empty = sum(row["note"] != "" for row in rows)
    lines = [
        f"\n## {len(rows)} texts of {config.score}\n",
        f"* {flagged} flagged: of normal texts at most {config.level:.1%} are, unless "
        f"the {count} texts kept aside mislead (probability {config.delta:.0%}).",
        f"* {found} discovered: among them at most {config.false_discoveries:.0%} "
        "false alarms on average (Benjamini-Hochberg).",
    ]
    if not found and needed > 1:
        lines.append(
            f"  With {count} texts kept aside, nothing can be discovered among "
            f"{len(rows)} unless at least {needed} texts stand out; more normal texts "
            "lower that number."
        )
    if empty:
        lines.append(f"* Empty texts: {empty}; they are scored like any other.")
    lines += [
        "\n| text | p-value | nearest normal text |",
        "|---|---|---|",
    ]
    order = sorted(range(len(rows)), key=lambda i: -rows[i]["score"])
    for place in order[: config.top]:
        row = rows[place]
        near = row["nearest_normal"][0]["text"]
        lines.append(
            f"| {table_cell(row['text'])} | {row['p_value']:.4f} | {table_cell(near)} |"
        )
    return "\n".join(lines) + "\n"


def _line(row: dict[str, Any]) -> str:
    """A row as a line of JSON; readable, where UTF-8 can hold it."""
    line = json.dumps(row, ensure_ascii=False)
    if not line.isascii() and _HALF.search(line):
        line = json.dumps(row)
    return f"{line}\n"


def _digest(texts: list[Text]) -> str:
    joined = json.dumps([each.text for each in texts])
    return hashlib.sha256(joined.encode()).hexdigest()
