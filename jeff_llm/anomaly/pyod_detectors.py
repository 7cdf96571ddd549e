"""Detectors of the package PyOD, fitted on embeddings of normal texts.

Three things differ from PyOD by itself, so that a score depends on the text and the
training texts alone:

- A scaler, where one is asked for, is fitted on training texts alone (the official code
  of AD-LLM fits a second one on test texts).
- The empirical distributions of ECOD and COPOD are those of the training texts and the
  one text that is scored. PyOD takes those of training texts and all texts of a call.
- A variational autoencoder decodes the mean of the code. PyOD decodes a random draw, in
  scoring too.

References:
  Zhao, Nasrullah and Li, "PyOD: A Python Toolbox for Scalable Outlier Detection", JMLR
  2019.
  Li et al., "COPOD: Copula-Based Outlier Detection", ICDM 2020.
  Li et al., "ECOD: Unsupervised Outlier Detection Using Empirical Cumulative
  Distribution Functions", TKDE 2022.
"""

import contextlib
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from jeff_llm.anomaly.neighbors import check_embeddings

__all__ = ["PYOD_DETECTORS", "PyODDetector", "fit_pyod"]

# Names as in the paper and PyOD, and PyOD's modules.
PYOD_DETECTORS = {
    "AutoEncoder": "auto_encoder",
    "COPOD": "copod",
    "DeepSVDD": "deep_svdd",
    "ECOD": "ecod",
    "HBOS": "hbos",
    "IForest": "iforest",
    "KNN": "knn",
    "LOF": "lof",
    "LUNAR": "lunar",
    "OCSVM": "ocsvm",
    "PCA": "pca",
    "VAE": "vae",
}
_TAILS = ("COPOD", "ECOD")
_NETWORKS = ("AutoEncoder", "DeepSVDD", "LUNAR", "VAE")
# Numbers of a block of texts in float64, for ECOD and COPOD.
_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class PyODDetector:
    """A fitted detector of PyOD.

    Attributes:
      name: of `PYOD_DETECTORS`.
      model: PyOD's object.
      reference: scores of the training texts. KNN and LOF leave each text out; the
        others were fitted with it.
      width: columns of the embeddings.
      scaler: scikit-learn's, fitted on the training texts; none by default.
    """

    name: str
    model: Any
    reference: Float[np.ndarray, " train"]
    width: int
    scaler: Any = None

    def score(
        self, embeddings: Float[Array | np.ndarray, "texts width"]
    ) -> Float[np.ndarray, " texts"]:
        """Score texts.

        Args:
          embeddings: one row a text, as wide as the training texts'.

        Returns:
          Scores, float64, higher for a more anomalous text.

        Raises:
          TypeError: if the embeddings are not floating point.
          ValueError: if their shape does not fit, or a value is NaN or infinite.
        """
        check_embeddings("embeddings", embeddings, width=self.width)
        rows = np.asarray(embeddings, np.float64)
        if not len(rows):
            return np.zeros(0)
        if self.scaler is not None:
            rows = self.scaler.transform(rows)
        if self.name in _TAILS:
            return _tail_scores(self.model.X_train, rows, self.name)
        return np.asarray(self.model.decision_function(rows), np.float64)


def fit_pyod(
    name: str,
    embeddings: Float[Array | np.ndarray, "train width"],
    *,
    seed: int,
    standardize: bool = False,
    progress: bool = False,
    **options: Any,
) -> PyODDetector:
    """Fit a detector of PyOD on normal texts.

    The random state of numpy and PyTorch is as before when it returns.

    Args:
      name: of `PYOD_DETECTORS`.
      embeddings: one row a normal text.
      seed: of everything random; the same seed gives the same detector.
      standardize: scale each column to mean 0 and variance 1 of the training texts.
      progress: let PyOD's networks report theirs.
      **options: of PyOD's class.

    Returns:
      The detector.

    Raises:
      ImportError: if PyOD, or PyTorch for a network, is missing; says what to install.
      TypeError: if the embeddings are not floating point, or PyOD's class lacks an
        option.
      ValueError: if the name is unknown, there are fewer than 2 texts, or a value is
        NaN or infinite.

    References:
      Zhao et al., JMLR 2019.
    """
    if name not in PYOD_DETECTORS:
        names = ", ".join(PYOD_DETECTORS)
        raise ValueError(f"name: expected one of {names}, got {name!r}")
    check_embeddings("embeddings", embeddings, at_least=2)
    make = _find_class(name)
    accepted = inspect.signature(make).parameters
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        raise TypeError(
            f"options of {name}: expected those of PyOD's class, "
            f"{', '.join(accepted)}, got {', '.join(unknown)}"
        )
    rows = np.asarray(embeddings, np.float64)
    given = {
        "random_state": seed,
        "verbose": int(progress),
        "n_features": rows.shape[1],
    }
    given = {key: value for key, value in given.items() if key in accepted}
    scaler = None
    if standardize:
        scaler = importlib.import_module("sklearn.preprocessing").StandardScaler()
        rows = scaler.fit_transform(rows)
    with _seeded(seed, name in _NETWORKS):
        model = make(**given | options).fit(rows)
    reference = np.asarray(model.decision_scores_, np.float64)
    if name == "VAE":
        model.model.reparameterize = lambda mean, _: mean
        reference = np.asarray(model.decision_function(rows), np.float64)
    return PyODDetector(name, model, reference, rows.shape[1], scaler)


def _find_class(name: str) -> Any:
    needed = "pyod torch" if name in _NETWORKS else "pyod"
    try:
        if name in _NETWORKS:
            # First: without it PyOD prints a line and fails later.
            importlib.import_module("torch")
        module = importlib.import_module(f"pyod.models.{PYOD_DETECTORS[name]}")
    except ImportError as error:
        raise ImportError(
            f"{name} needs {needed.replace(' ', ' and ')} ({error}); "
            f"run: pip install {needed}"
        ) from error
    return getattr(module, name)


@contextlib.contextmanager
def _seeded(seed: int, network: bool) -> Iterator[None]:
    """Seed the global generators, which PyOD draws from, and restore them."""
    before = np.random.get_state()
    with contextlib.ExitStack() as stack:
        if network:
            torch = importlib.import_module("torch")
            stack.enter_context(torch.random.fork_rng())
            torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)


def _tail_scores(
    train: Float[np.ndarray, "train width"],
    rows: Float[np.ndarray, "texts width"],
    name: str,
) -> Float[np.ndarray, " texts"]:
    """Scores of ECOD or COPOD, each text by itself among the training texts.

    With ``l`` and ``r`` the shares of texts no larger and no smaller in a column, and
    ``s`` the tail on the side of the skewness, the sum over columns of
    ``max(-log l, -log r, s)`` (ECOD) or ``max(-(log l + log r) / 2, s)`` (COPOD).
    """
    ascending = np.sort(train, axis=0)
    block = max(1, _AT_ONCE // train.shape[1])
    scores = np.empty(len(rows))
    for first in range(0, len(rows), block):
        part = rows[first : first + block]
        left, right = _tails(ascending, part)
        side = np.sign(_third_moment(train, part))
        # Both tails where a column is symmetric, as in PyOD.
        skewed = left * -np.sign(side - 1) + right * np.sign(side + 1)
        plain = (left + right) / 2 if name == "COPOD" else np.maximum(left, right)
        scores[first : first + block] = np.maximum(skewed, plain).sum(axis=1)
    return scores


def _tails(
    ascending: Float[np.ndarray, "train width"], rows: Float[np.ndarray, "texts width"]
) -> tuple[np.ndarray, np.ndarray]:
    """Negative logarithms of the shares of texts no larger, and no smaller."""
    count = len(ascending) + 1
    below, above = np.empty(rows.shape), np.empty(rows.shape)
    for column, (known, values) in enumerate(zip(ascending.T, rows.T, strict=True)):
        # The text itself counts in both.
        below[:, column] = np.searchsorted(known, values, side="right") + 1
        above[:, column] = count - np.searchsorted(known, values, side="left")
    return -np.log(below / count), -np.log(above / count)


def _third_moment(
    train: Float[np.ndarray, "train width"], rows: Float[np.ndarray, "texts width"]
) -> Float[np.ndarray, "texts width"]:
    """Third central moment of each column of the training texts and one text more."""
    centre = train.mean(axis=0)
    away, rows = train - centre, rows - centre
    first, second, third = (
        ((away**power).sum(axis=0) + rows**power) / (len(train) + 1)
        for power in (1, 2, 3)
    )
    return third - 3 * first * second + 2 * first**3
