"""Image data sets for fairness: coloured digits, CelebA and UTKFace.

Every loader returns the same `Dataset` as `jeff.fairness.tabular`, with images as
inputs, so that split, training and evaluation are the same.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from jeff import files
from jeff.extras import require
from jeff.fairness.model import Examples
from jeff.fairness.splits import Dataset, Splits, stratified_indices

__all__ = ["celeba", "coloured_digits", "from_images", "utkface"]


def coloured_digits(
    *,
    key: PRNGKeyArray,
    correlation: float = 0.9,
) -> Splits:
    """Scikit-learn's digits in two colours that reveal the label in training only.

    The label is ``digit >= 5``. In the training and validation parts the colour equals
    the label with probability ``correlation``; in the test part it is a fair coin. A
    model that uses colour is accurate in training, unfair and wrong in the test.
    Of the images 60% train and 10% validate.

    Args:
      key: random key of colours and split.
      correlation: probability in [0.5, 1] that the colour equals the label.

    Returns:
      `Splits`; inputs are 8 x 8 images with two channels (group 0 lights the first,
      group 1 the second), values in [0, 1].

    Raises:
      ImportError: if scikit-learn is not installed.
      ValueError: if ``correlation`` lies outside [0.5, 1].
    """
    if not 0.5 <= correlation <= 1:
        raise ValueError(f"correlation: expected 0.5 to 1, got {correlation}")
    pixels, digit = _digits()
    label = (digit >= 5).astype(np.int32)
    splitting, painting = jax.random.split(key)
    # Split before painting: training and test have different colours by design.
    parts = stratified_indices(label, key=splitting, fractions=(0.6, 0.1))
    chances = (correlation, correlation, 0.5)
    keys = jax.random.split(painting, 3)
    return Splits(
        *(
            _paint(pixels[rows], label[rows], chance, key)
            for rows, chance, key in zip(parts, chances, keys, strict=True)
        )
    )


def from_images(
    rows: Any,
    *,
    image: str,
    label: tuple[str, Any],
    group: tuple[str, Any],
    groups: tuple[str, str],
    size: int = 64,
) -> Dataset:
    """A data set from rows that hold PIL images, such as one of the `datasets` library.

    Args:
      rows: an iterable of dictionaries.
      image: key of the PIL image.
      label: (key, value): outcome 1 where the row's entry equals the value.
      group: (key, value): group 1 where the row's entry equals the value.
      groups: names of groups 0 and 1.
      size: side to which images are resized, in pixels.

    Returns:
      A `Dataset`; inputs are [people, size, size, 3], values in [0, 1].

    Raises:
      ValueError: if there are no rows or a row lacks a key; names the row and the key.
    """
    images, labels, members = [], [], []
    for number, row in enumerate(rows):
        for name in (image, label[0], group[0]):
            if name not in row:
                raise ValueError(
                    f"row {number}: expected {name!r}, got {sorted(map(str, row))}"
                )
        picture = row[image].convert("RGB").resize((size, size))
        images.append(np.asarray(picture, np.float32) / 255)
        labels.append(row[label[0]] == label[1])
        members.append(row[group[0]] == group[1])
    if not images:
        raise ValueError("rows: expected at least one row, got none")
    return Dataset(
        np.stack(images),
        np.asarray(labels, np.int32),
        np.asarray(members, np.int32),
        (),
        groups,
    )


def celeba(
    label: str = "Smiling",
    sensitive: str = "Male",
    *,
    source: str | Path = "flwrlabs/celeba",
    part: str = "train[:20000]",
    size: int = 64,
) -> Dataset:
    """CelebA faces with their 40 attributes, through the `datasets` library.

    Args:
      label: attribute that is the outcome.
      sensitive: attribute that is the group.
      source: hub id, or a local folder that ``datasets.load_dataset`` opens.
      part: split, in the library's slicing syntax.
      size: side of the images, in pixels.

    Returns:
      A `Dataset`.

    Raises:
      ImportError: if `datasets` is not installed.
      ValueError: if an attribute is missing.

    References:
      Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015.
    """
    return from_images(
        _load(source, part),
        image="image",
        label=(label, True),
        group=(sensitive, True),
        groups=(f"not {sensitive}", sensitive),
        size=size,
    )


def utkface(folder: str | Path, *, size: int = 64) -> Dataset:
    """UTKFace: is a person at least 35 years old? Group 1: white.

    Args:
      folder: the extracted images; age, gender and race are read from the file names
        (``<age>_<gender>_<race>_<date>.jpg``, race 0 is white).
      size: side of the images, in pixels.

    Returns:
      A `Dataset`. A few files of the published archive lack a part of their name; they
      are left out.

    Raises:
      FileNotFoundError: if the folder is missing or holds no such image.

    References:
      Zhang et al., "Age Progression/Regression by Conditional Adversarial
      Autoencoder", CVPR 2017.
    """
    image = require("PIL.Image", extra="scripts")
    rows = []
    for path in sorted(Path(folder).glob("*.jpg")):
        age, _, race, *_ = [*path.name.split("_"), "", "", ""]
        if age.isdigit() and race in {"0", "1", "2", "3", "4"}:
            rows.append({"path": path, "old": int(age) >= 35, "race": race})
    if not rows:
        raise FileNotFoundError(
            f"{folder}: expected images named <age>_<gender>_<race>_<date>.jpg, found "
            "none; extract the UTKFace archive there"
        )
    # A generator: each image is opened, resized and dropped before the next.
    opened = ({**row, "image": _opened(image, row["path"])} for row in rows)
    return from_images(
        opened,
        image="image",
        label=("old", True),
        group=("race", "0"),
        groups=("other", "white"),
        size=size,
    )


def _opened(image: Any, path: Path) -> Any:
    with files.reading(path, "an image"), image.open(path) as picture:
        # Read here, where its name is known, and not when it is resized.
        picture.load()
        return picture.copy()


def _digits() -> tuple[np.ndarray, np.ndarray]:
    digits = require("sklearn.datasets", extra="scripts").load_digits()
    return (digits.images / 16).astype(np.float32), digits.target


def _paint(
    pixels: np.ndarray, label: np.ndarray, chance: float, key: PRNGKeyArray
) -> Examples:
    # Group and colour are one: the network can read the group from the channel.
    agrees = jax.random.bernoulli(key, chance, (len(label),))
    group = jnp.where(agrees, label, 1 - label)
    channels = jax.nn.one_hot(group, 2)
    return Examples(
        jnp.asarray(pixels)[..., None] * channels[:, None, None, :],
        jnp.asarray(label),
        group,
    )


def _load(source: str | Path, part: str) -> Any:
    datasets = require("datasets", extra="data")
    return datasets.load_dataset(str(source), split=part)
