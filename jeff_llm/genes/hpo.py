"""Load the Human Phenotype Ontology and its annotations.

Three files of one release make an `Hpo`: ``hp.obo``, ``phenotype.hpoa`` and
``genes_to_phenotype.txt``. Reading them takes seconds, so the arrays are kept in the
asset cache under the checksum of the files, and read from there the next time.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from jeff import assets, files
from jeff.arrays import load_arrays
from jeff.files import reading, replacing
from jeff_llm.genes.annotations import AnnotationReport, Annotations
from jeff_llm.genes.hpoa import parse_annotations
from jeff_llm.genes.obo import parse_ontology
from jeff_llm.genes.ontology import Ontology

__all__ = ["FILES", "Hpo", "load"]

FILES = ("hp.obo", "phenotype.hpoa", "genes_to_phenotype.txt")

# To be raised whenever the arrays in the cache change their meaning.
_FORMAT = 1
_BROKEN = (OSError, KeyError, TypeError, ValueError)
_ASSETS = ("hpo", "hpo_annotations", "hpo_genes")


@dataclass(frozen=True)
class Hpo:
    """The ontology with its annotations.

    Attributes:
      ontology: the terms.
      annotations: annotations of diseases and genes by these terms.
    """

    ontology: Ontology
    annotations: Annotations

    @property
    def releases(self) -> dict[str, str]:
        """Releases of the ontology and of the annotations, to name in results."""
        return {
            "ontology": self.ontology.release,
            "annotations": self.annotations.release,
        }


def load(folder: str | Path | None = None, *, cache: bool = True) -> Hpo:
    """Load HPO from a folder, or the pinned release from the assets.

    Args:
      folder: folder with the three `FILES` of one release, each plain or with ``.gz``;
        the assets if None.
      cache: whether to keep the arrays in the asset cache, and to take them from there.

    Returns:
      The ontology and its annotations.

    Raises:
      FileNotFoundError: if a file is missing; names it.
      ValueError: if a file is malformed; names the file and the line.
    """
    paths = _find(folder)
    contents = [files.read_bytes(path, "a file of HPO") for path in paths]
    stored = assets.cache_dir() / "genes" / f"hpo-{_key(contents)}.npz"
    if cache and (found := _unpack(stored)):
        return found
    text = [_decode(path, data) for path, data in zip(paths, contents, strict=True)]
    ontology = parse_ontology(text[0], source=str(paths[0]))
    sources = str(paths[1]), str(paths[2])
    annotations = parse_annotations(text[1], text[2], ontology, sources=sources)
    hpo = Hpo(ontology, annotations)
    if cache:
        # A cache that cannot be written costs the next run time, and nothing else.
        with contextlib.suppress(OSError), replacing(stored) as part:
            _pack(part, hpo)
    return hpo


def _find(folder: str | Path | None) -> list[Path]:
    if folder is None:
        return [assets.find(name) for name in _ASSETS]
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder with {', '.join(FILES)}")
    found = []
    for name in FILES:
        choices = [folder / name, folder / f"{name}.gz"]
        path = next((choice for choice in choices if choice.is_file()), None)
        if path is None:
            raise FileNotFoundError(
                f"{choices[0]}: expected this file of an HPO release, found none; "
                f"the folder must hold {', '.join(FILES)}"
            )
        found.append(path)
    return found


def _decode(path: Path, data: bytes) -> str:
    with reading(path, "text in UTF-8"):
        return data.decode("utf-8-sig")


def _key(contents: Iterable[bytes]) -> str:
    digest = hashlib.sha256(str(_FORMAT).encode())
    for data in contents:
        digest.update(hashlib.sha256(data).digest())
    return digest.hexdigest()[:32]


def _pack(path: Path, hpo: Hpo) -> None:
    """Write every field as an array; texts are joined, since npz has no strings."""
    arrays: dict[str, Any] = {}
    for part in (hpo.ontology, hpo.annotations):
        for field in fields(part):
            value = getattr(part, field.name)
            name = f"{type(part).__name__}.{field.name}"
            if isinstance(value, np.ndarray):
                arrays[name] = value
            elif isinstance(value, AnnotationReport):
                arrays[name] = np.array(value, dtype=np.int64)
            elif isinstance(value, Mapping):
                arrays[f"{name}.keys"] = _joined(value)
                arrays[name] = _joined(_flat(v) for v in value.values())
            else:
                arrays[name] = _joined([value] if isinstance(value, str) else value)
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _unpack(path: Path) -> Hpo | None:
    """Read the cache; None if it is missing or not whole."""
    try:
        arrays = load_arrays(path)
        return Hpo(_ontology(arrays), _annotations(arrays))
    except _BROKEN:
        return None


def _ontology(arrays: Mapping[str, np.ndarray]) -> Ontology:
    values = _values(Ontology, arrays)
    values["labels"] = {label: int(term) for label, term in values["labels"].items()}
    values["obsolete"] = {
        old: tuple(new.split()) for old, new in values["obsolete"].items()
    }
    return Ontology(**values | {"release": values["release"][0]})


def _annotations(arrays: Mapping[str, np.ndarray]) -> Annotations:
    values = _values(Annotations, arrays)
    values["report"] = AnnotationReport(*values["report"].tolist())
    return Annotations(**values | {"release": values["release"][0]})


def _values(kind: type, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in fields(kind):
        name = f"{kind.__name__}.{field.name}"
        array = arrays[name]
        value = _split(array) if array.dtype == np.uint8 else array
        if f"{name}.keys" in arrays:
            keys = _split(arrays[f"{name}.keys"])
            value = dict(zip(keys, value, strict=True))
        values[field.name] = value
    return values


def _flat(value: str | int | tuple[str, ...]) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _joined(texts: Iterable[str]) -> np.ndarray:
    data = "".join(f"{text}\n" for text in texts).encode()
    return np.frombuffer(data, dtype=np.uint8)


def _split(array: np.ndarray) -> tuple[str, ...]:
    return tuple(array.tobytes().decode().split("\n")[:-1])
