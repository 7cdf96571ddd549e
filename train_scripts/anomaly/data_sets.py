"""The data sets of the runs: normal texts, anomalous ones, and what to call them."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jeff import assets, files
from jeff_llm.anomaly.categories import Categories
from train_scripts.anomaly.intents import BANKING, DOMAINS, THEMES

__all__ = ["LOADERS", "DataSet", "Split", "available", "load", "split"]

# Definitions in an ontology, and what a backslash protects there.
_DEFINITION = re.compile(r'^def: "((?:[^"\\]|\\.)*)"', re.MULTILINE)
_ESCAPED = re.compile(r"\\(.)")
_SHORTEST = 60  # characters of a paragraph of Python's documentation


class DataSet(NamedTuple):
    """Texts of which the normal ones alone may be learnt from.

    Attributes:
      name: of the data set.
      normal: normal texts, each once.
      kind: name of the category of each.
      anomalous: anomalous texts, each once and none of them normal too.
      candidates: sets of descriptions to choose from without labels; each names all
        kinds of the data set.
    """

    name: str
    normal: tuple[str, ...]
    kind: tuple[str, ...]
    anomalous: tuple[str, ...]
    candidates: tuple[Categories, ...]


class Split(NamedTuple):
    """Parts of a data set, as indices.

    Attributes:
      train: of normal texts, to fit detectors.
      calibration: of normal texts that no detector has seen, for p-values.
      test: of normal texts for the evaluation.
    """

    train: np.ndarray
    calibration: np.ndarray
    test: np.ndarray


def available(names: Sequence[str]) -> tuple[str, ...]:
    """Choose the data sets that this machine has.

    Args:
      names: the wanted ones.

    Returns:
      Those whose file is there; "pydoc" needs only the asset hpo.
    """

    def there(name: str) -> bool:
        try:
            return bool(_files(name))
        except FileNotFoundError:
            return False

    return tuple(name for name in names if name == "pydoc" or there(name))


def load(name: str) -> DataSet:
    """Load a data set.

    Args:
      name: one of `LOADERS`.

    Returns:
      The data set. Texts that stand more than once are taken once.

    Raises:
      FileNotFoundError: if its file is missing; says where it was looked for.
      ValueError: if the name is unknown or a file is not as expected.
    """
    if name not in LOADERS:
        raise ValueError(f"data sets: expected some of {list(LOADERS)}, got {name!r}")
    return LOADERS[name]()


def split(
    data: DataSet, *, share: tuple[float, float], most: int, key: jax.Array
) -> Split:
    """Draw training, calibration and test texts of the normal ones.

    Args:
      data: the data set.
      share: of the normal texts for training and for calibration.
      most: of all normal texts, to keep a run short; 0 for all.
      key: random key.

    Returns:
      Three parts without a common text.
    """
    order = np.asarray(jax.random.permutation(key, len(data.normal)))
    order = order[: most or len(order)]
    first = round(share[0] * len(order))
    second = first + round(share[1] * len(order))
    return Split(order[:first], order[first:second], order[second:])


def _sms() -> DataSet:
    rows = _rows(_files("sms_spam"))
    return _assemble(
        "sms_spam",
        [(text, "ham") for text, label in rows if label == "ham"],
        [text for text, label in rows if label == "spam"],
        [
            Categories({"ham": normal}, {"spam": spam})
            for normal in (
                "a ham text message",
                "a text message between friends or family",
                "a casual chat message to a friend",
                "a personal SMS text message sent by a friend",
            )
            for spam in (
                "a spam text message",
                "an advertisement",
                "a spam SMS text message, advertising prizes, offers or services",
                "an unsolicited commercial text message that promotes a prize, a "
                "subscription or a phone service",
            )
        ],
    )


def _banking() -> DataSet:
    def theme(label: str) -> str:
        return next(
            (name for name, words in BANKING if re.search(words, label)), "other"
        )

    rows = [(text, theme(label)) for text, label in _rows(_files("banking77"))]
    return _assemble(
        "banking77",
        [row for row in rows if row[1] != "top_up"],
        [text for text, name in rows if name == "top_up"],
        _templates(THEMES, ("top_up",)),
    )


def _clinc() -> DataSet:
    domain = {
        intent: name
        for name, (_, intents) in DOMAINS.items()
        for intent in intents.split()
    }
    rows = _rows(_files("clinc150"))
    unknown = {label for _, label in rows} - set(domain) - {"oos"}
    if unknown:
        raise ValueError(f"clinc150: expected known intents, got {sorted(unknown)}")
    return _assemble(
        "clinc150",
        [(text, domain[label]) for text, label in rows if label != "oos"],
        [text for text, label in rows if label == "oos"],
        _templates({name: words for name, (words, _) in DOMAINS.items()}, ()),
    )


def _pydoc() -> DataSet:
    from pydoc_data import topics

    normal = [
        (" ".join(paragraph.split()), "python")
        for topic in topics.topics.values()
        for paragraph in topic.split("\n\n")
        if len(paragraph) >= _SHORTEST and not paragraph.startswith("   ")
    ]
    ontology = files.read_text(assets.find("hpo"))
    # Every tenth is enough, and keeps the run short.
    definitions = _DEFINITION.findall(ontology)[::10]
    anomalous = [_ESCAPED.sub(r"\1", each) for each in definitions]
    return _assemble(
        "pydoc",
        normal,
        anomalous,
        [
            Categories({"python": python}, {"medicine": medicine})
            for python in (
                "a text",
                "a paragraph about programming",
                "a paragraph of the documentation of the Python language",
            )
            for medicine in (
                "a medical text",
                "a description of a symptom of a disease",
            )
        ],
    )


LOADERS: dict[str, Callable[[], DataSet]] = {
    "sms_spam": _sms,
    "banking77": _banking,
    "clinc150": _clinc,
    "pydoc": _pydoc,
}

_FILES = {
    "sms_spam": ("sms.jsonl",),
    "banking77": ("banking77_train.jsonl", "banking77_test.jsonl"),
    "clinc150": (
        "clinc150_train_small.jsonl",
        "clinc150_val.jsonl",
        "clinc150_test.jsonl",
    ),
}


def _files(name: str) -> list[Path]:
    return [assets.shared_file(f"{name}/{file}") for file in _FILES[name]]


def _rows(paths: Sequence[Path]) -> list[tuple[str, str]]:
    rows = []
    for path in paths:
        for place, fields in files.read_json_lines(path):
            if not all(isinstance(fields.get(name), str) for name in ("text", "label")):
                raise ValueError(
                    f"{place}: expected `text` and `label`, got {fields!r:.100}"
                )
            rows.append((fields["text"], fields["label"]))
    return rows


def _assemble(
    name: str,
    normal: Sequence[tuple[str, str]],
    anomalous: Sequence[str],
    candidates: Sequence[Categories],
) -> DataSet:
    """Each text once; a text on both sides counts as normal."""
    kinds: dict[str, str] = {}
    for text, kind in normal:
        kinds.setdefault(text, kind)
    rest = tuple(text for text in dict.fromkeys(anomalous) if text not in kinds)
    return DataSet(name, tuple(kinds), tuple(kinds.values()), rest, tuple(candidates))


def _templates(words: dict[str, str], anomalous: Sequence[str]) -> list[Categories]:
    templates = (
        "{}",
        "a question about {}",
        "a message of a user to an assistant about {}",
        "what a customer wrote about {}",
    )
    found = []
    for template in templates:
        both = {name: template.format(value) for name, value in words.items()}
        found.append(
            Categories(
                {name: text for name, text in both.items() if name not in anomalous},
                {name: both[name] for name in anomalous},
            )
        )
    return found
