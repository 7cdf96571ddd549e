"""A fitted text detector in a folder: safetensors, JSON and the training texts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jeff import files
from jeff_llm.anomaly.characters import CharacterEncoder
from jeff_llm.anomaly.text_detector import METHODS, TextDetector
from jeff_llm.anomaly.views import CHARACTERS, Encode
from jeff_llm.models.safetensors_writer import save_safetensors
from jeff_llm.models.tensors import open_safetensors

__all__ = ["load", "read_notes", "save"]

_TENSORS, _SETTINGS, _TEXTS = "detector.safetensors", "detector.json", "normal.jsonl"
_FORMAT = 1
# A text that tells encoders apart: what was fitted with one is not read with another.
_PROBE = "Der Zug nach Lyon leaves at 7:45, platform 3!"
_CLOSE = 0.999


def save(
    detector: TextDetector,
    folder: str | Path,
    encoders: Mapping[str, Encode],
    *,
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Write a detector to a folder, whole or not at all.

    Args:
      detector: from `jeff_llm.anomaly.fit`.
      folder: a new folder, or one that holds an earlier detector, which is replaced.
      encoders: the encoders it was fitted with; one vector of each is stored, so that
        `load` can refuse another encoder.
      notes: texts to keep with it, such as what the scorers were told (`read_notes`).

    Returns:
      The folder. It holds the training texts in clear, since they are the reasons.

    Raises:
      ValueError: if the folder holds other things, or an encoder is missing.
    """
    folder = Path(folder)
    _check_folder(folder)
    tensors = {"calibration": np.asarray(detector.calibration, np.float32)}
    for name, each in zip(detector.views, detector.embeddings, strict=True):
        tensors[f"embeddings.{name}"] = np.asarray(each, np.float32)
        if name != CHARACTERS:
            tensors[f"probe.{name}"] = _probe(name, encoders)
    for name, each in zip(detector.scorers, detector.scored, strict=True):
        tensors[f"scores.{name}"] = np.asarray(each, np.float32)
    settings: dict[str, Any] = {
        "format": _FORMAT,
        "method": detector.method,
        "views": list(detector.views),
        "scorers": list(detector.scorers),
        "notes": dict(notes or {}),
    }
    if detector.characters is not None:
        tensors["characters.weights"] = np.asarray(detector.characters.weights)
        settings["lengths"] = list(detector.characters.lengths)
    with files.replacing_folder(folder) as draft:
        save_safetensors(draft / _TENSORS, tensors)
        files.write_text(
            draft / _TEXTS,
            "".join(f"{json.dumps({'text': text})}\n" for text in detector.texts),
        )
        files.write_json(draft / _SETTINGS, settings)
    return folder


def load(folder: str | Path, encoders: Mapping[str, Encode]) -> TextDetector:
    """Read a detector; no code is run from the files.

    Args:
      folder: as `save` wrote it.
      encoders: the encoders it was fitted with.

    Returns:
      The detector.

    Raises:
      FileNotFoundError: if there is no detector in the folder.
      ValueError: if a file is damaged, or an encoder is missing or another one.
    """
    folder = Path(folder)
    files.recover_folder(folder)
    if not (folder / _SETTINGS).is_file():
        raise FileNotFoundError(f"{folder}: expected a detector, found no {_SETTINGS}")
    settings = _settings(folder / _SETTINGS)
    views, method = tuple(settings["views"]), settings["method"]
    texts = _texts(folder / _TEXTS)
    stored = _Tensors(folder / _TENSORS, len(texts))
    embeddings = tuple(stored.per_text(f"embeddings.{name}", 2) for name in views)
    for name in views:
        if name != CHARACTERS:
            _check_probe(folder, name, stored.read(f"probe.{name}", 1), encoders)
    characters = None
    if CHARACTERS in views:
        width = embeddings[views.index(CHARACTERS)].shape[1]
        characters = CharacterEncoder(
            stored.read("characters.weights", 1, length=width),
            tuple(settings["lengths"]),
        )
    calibration = stored.read("calibration", 1)
    if not len(calibration):
        raise ValueError(
            f"{folder / _TENSORS}: calibration: expected numbers, got none"
        )
    scorers = tuple(settings["scorers"])
    scored = tuple(stored.per_text(f"scores.{name}", 1) for name in scorers)
    try:
        parts = tuple(METHODS[method](each) for each in embeddings)
    except ValueError as error:
        raise ValueError(f"{folder / _TENSORS}: {error}") from error
    return TextDetector(
        method,
        views,
        parts,
        characters,
        texts,
        calibration,
        embeddings,
        scorers,
        scored,
    )


class _Tensors:
    """The numbers of a detector: finite, float32, and as many as there should be."""

    def __init__(self, path: Path, num_texts: int):
        self._path, self._num_texts = path, num_texts
        self._tensors = open_safetensors(path)

    def read(self, name: str, ndim: int, *, length: int | None = None) -> np.ndarray:
        if name not in self._tensors:
            raise ValueError(f"{self._path}: expected a tensor {name!r}")
        found = np.array(self._tensors[name].read())
        if (
            found.ndim != ndim
            or found.dtype != np.float32
            or not np.all(np.isfinite(found))
        ):
            raise ValueError(
                f"{self._path}: {name}: expected {ndim} axes of finite numbers in "
                f"float32, got shape {found.shape} of {found.dtype}"
            )
        if length is not None and len(found) != length:
            raise ValueError(
                f"{self._path}: {name}: expected {length} numbers, got {len(found)}"
            )
        return found

    def per_text(self, name: str, ndim: int) -> np.ndarray:
        found = self.read(name, ndim)
        if len(found) != self._num_texts:
            raise ValueError(
                f"{self._path}: {name}: expected {self._num_texts} rows as in "
                f"{_TEXTS}, got {len(found)}"
            )
        return found


def read_notes(folder: str | Path) -> dict[str, str]:
    """Read the notes that `save` kept with a detector.

    Args:
      folder: as `save` wrote it.

    Returns:
      Texts by name.

    Raises:
      FileNotFoundError: if there is no detector in the folder.
      ValueError: if its settings are not as expected.
    """
    return _settings(Path(folder) / _SETTINGS)["notes"]


def _check_folder(folder: Path) -> None:
    """Refuse to replace anything but a detector; all else in it would be lost."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder, got a file")
    others = {each.name for each in folder.iterdir()} - {_TENSORS, _SETTINGS, _TEXTS}
    if others:
        raise ValueError(
            f"{folder}: expected a new folder, or one of a detector, got one with "
            f"{sorted(others)[:3]}"
        )


def _texts(path: Path) -> tuple[str, ...]:
    found = []
    for place, row in files.read_json_lines(path):
        if list(row) != ["text"] or not isinstance(row["text"], str):
            raise ValueError(f"{place}: expected a `text` alone, got {row!r:.100}")
        found.append(row["text"])
    return tuple(found)


def _settings(path: Path) -> dict[str, Any]:
    settings = files.read_json(path)
    known = {"format", "method", "views", "scorers", "lengths", "notes"}
    if not isinstance(settings, dict) or not set(settings) <= known:
        raise ValueError(f"{path}: expected the fields {sorted(known)} alone")
    if settings.get("format") != _FORMAT:
        raise ValueError(
            f"{path}: expected format {_FORMAT}, got {settings.get('format')!r}; "
            "another release of jeff wrote it"
        )
    settings = {"scorers": [], "lengths": [1], "notes": {}} | settings
    kinds = {"views": str, "scorers": str, "lengths": int}
    for name, kind in kinds.items():
        value = settings.get(name)
        if (
            not isinstance(value, list)
            or not all(type(x) is kind for x in value)
            or len(set(value)) < len(value)
        ):
            raise ValueError(
                f"{path}: {name}: expected a list of different values, got "
                f"{value!r:.100}"
            )
    if not settings["lengths"] or min(settings["lengths"]) < 1:
        raise ValueError(
            f"{path}: lengths: expected numbers of at least 1, got "
            f"{settings['lengths']!r:.100}"
        )
    notes = settings["notes"]
    if not isinstance(notes, dict) or not all(type(x) is str for x in notes.values()):
        raise ValueError(f"{path}: notes: expected texts by name, got {notes!r:.100}")
    method = settings.get("method")
    if not settings["views"] or not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"{path}: expected views and a method of {list(METHODS)}")
    return settings


def _probe(name: str, encoders: Mapping[str, Encode]) -> np.ndarray:
    if name not in encoders:
        raise ValueError(f"encoders: expected one named {name!r}, got {list(encoders)}")
    return np.asarray(encoders[name]([_PROBE]), np.float32)[0]


def _check_probe(
    folder: Path, name: str, stored: np.ndarray, encoders: Mapping[str, Encode]
) -> None:
    found = _probe(name, encoders)
    same = found.shape == stored.shape
    size = np.linalg.norm(found - stored) if same else np.inf
    if not size <= (1 - _CLOSE) * np.linalg.norm(stored):
        raise ValueError(
            f"{folder}: expected the encoder {name!r} that it was fitted with, got "
            "another: the same text has another vector"
        )
