"""Probability that the top gene of a ranking is the causal one.

A logistic regression on features of the scores: how far the first gene stands before
the others, how many terms the patient has and how special they are, and how many other
measures agree. It is trained on some genes and used on others, never on cases of a gene
that it has seen. `jeff_llm.genes.abstention` measures the probabilities.
"""

from importlib import resources
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Integer, Real, Shaped
from scipy.optimize import minimize
from scipy.special import expit

from jeff.bootstrap import RandomKey
from jeff.files import read_json, reading

__all__ = [
    "FEATURES",
    "TopModel",
    "out_of_fold",
    "pretrained",
    "read_model",
    "top_features",
    "train",
]

FEATURES = (
    "log margin to the second gene",
    "margin to the tenth gene",
    "best score by term",
    "log number of terms",
    "mean information content",
    "share of measures that agree",
)
_TENTH = 9


class TopModel(NamedTuple):
    """Logistic regression on standardised features.

    Attributes:
      mean: mean of each feature in training.
      scale: standard deviation of each feature in training; 1 for a constant one.
      weights: weight of each standardised feature, in nats.
      bias: log-odds at the mean of all features.
    """

    mean: Float[np.ndarray, " features"]
    scale: Float[np.ndarray, " features"]
    weights: Float[np.ndarray, " features"]
    bias: float

    def probability(
        self, features: Float[np.ndarray, "cases features"]
    ) -> Float[np.ndarray, " cases"]:
        """Probability that the top gene is the causal one.

        Args:
          features: as in training.

        Returns:
          The probability by case, in (0, 1).
        """
        return expit((features - self.mean) / self.scale @ self.weights + self.bias)


def top_features(
    scores: Real[np.ndarray, "cases genes"],
    num_terms: Integer[np.ndarray, " cases"],
    mean_information: Real[np.ndarray, " cases"],
    agreement: Real[np.ndarray, " cases"],
) -> Float[np.ndarray, "cases 6"]:
    """Features of a ranking from which its certainty is told.

    Args:
      scores: score by case and gene, larger is better; of at least two genes. -inf, of
        a gene that cannot be scored, counts as the case's lowest finite score.
      num_terms: observed terms of each patient, at least 1.
      mean_information: mean information content of these terms.
      agreement: share of other measures with the same top gene, in [0, 1].

    Returns:
      One column for each name in `FEATURES`.

    Raises:
      ValueError: if lengths differ, a patient has no terms, there are fewer than two
        genes, or a score or feature is not finite.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(
            f"scores: expected cases and at least two genes, got shape {scores.shape}"
        )
    columns = {
        "num_terms": num_terms,
        "mean_information": mean_information,
        "agreement": agreement,
    }
    for name, column in columns.items():
        if np.shape(column) != (len(scores),):
            raise ValueError(
                f"{name}: expected shape ({len(scores)},) as scores have cases, got "
                f"{np.shape(column)}"
            )
        if not np.isfinite(column).all():
            raise ValueError(f"{name}: expected finite numbers, got {column}")
    if len(scores) and np.min(num_terms) < 1:
        raise ValueError(f"num_terms: expected at least 1, got {np.min(num_terms)}")
    known = ~np.isneginf(scores)
    if not (np.isfinite(scores) == known).all() or not known.any(1).all():
        raise ValueError(
            "scores: expected finite numbers or -inf, got NaN, inf or none"
        )
    least = np.min(scores, axis=1, keepdims=True, where=known, initial=np.inf)
    last = min(_TENTH, scores.shape[1] - 1)
    best = -np.partition(-np.where(known, scores, least), (0, 1, last), axis=1)
    first = best[:, 0]
    return np.stack(
        [
            np.log1p(first - best[:, 1]),
            first - best[:, last],
            first / num_terms,
            np.log(num_terms),
            np.asarray(mean_information, np.float64),
            np.asarray(agreement, np.float64),
        ],
        axis=1,
    )


def pretrained() -> TopModel:
    """Read the model that comes with jeff.

    ``python -m train_scripts.genes full --parts solvability`` trains it, on the
    `jeff_llm.genes.scoring.ENSEMBLE` scores of the 600 shared phenopackets without the
    annotations of their own papers, and writes it as ``top_model.json``.

    Returns:
      The model.
    """
    place = resources.files("jeff_llm.genes") / "top_model.json"
    with resources.as_file(place) as path:
        return read_model(path)


def read_model(path: str | Path) -> TopModel:
    """Read a trained model.

    Args:
      path: JSON with the fields of `TopModel` and ``features``, their names.

    Returns:
      The model.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the features are not `FEATURES`, or a number is missing or not
        finite.
    """
    found = read_json(path)
    if not isinstance(found, dict) or found.get("features") != list(FEATURES):
        raise ValueError(f"{path}: expected a model of the features {FEATURES}")
    numbers = {}
    for name in ("mean", "scale", "weights"):
        with reading(f"{path}: {name}", f"{len(FEATURES)} finite numbers"):
            values = np.asarray(found.get(name), np.float64)
        if values.shape != (len(FEATURES),) or not np.isfinite(values).all():
            raise ValueError(
                f"{path}: {name}: expected {len(FEATURES)} finite numbers, got "
                f"{found.get(name)}"
            )
        numbers[name] = values
    bias = found.get("bias")
    if not isinstance(bias, float) or not np.isfinite(bias):
        raise ValueError(f"{path}: bias: expected a finite number, got {bias!r}")
    return TopModel(**numbers, bias=bias)


def train(
    features: Float[np.ndarray, "cases features"],
    correct: Bool[np.ndarray, " cases"],
    *,
    penalty: float = 1.0,
) -> TopModel:
    """Train the logistic regression.

    Minimises ``-sum log p(correct) + penalty / 2 |weights|^2`` over the weights of
    standardised features and a bias without penalty.

    Args:
      features: features of each case.
      correct: whether the top gene is right.
      penalty: above 0, so that the weights are finite even if all cases are right.

    Returns:
      The model.

    Raises:
      ValueError: if there are no cases, lengths differ, or ``penalty`` is not above 0.

    References:
      Platt, "Probabilistic Outputs for Support Vector Machines", 1999 (a logistic
      regression on scores).
    """
    features = _checked(features, correct)
    if not 0 < penalty < np.inf:
        raise ValueError(f"penalty: expected a finite number above 0, got {penalty}")
    mean, scale = features.mean(0), features.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    inputs = (features - mean) / scale
    sign = np.where(correct, 1.0, -1.0)
    # A tiny penalty on the bias keeps it finite where all cases are of one kind.
    cost = np.append(np.full(inputs.shape[1], penalty), 1e-3 * penalty)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (inputs @ weights[:-1] + weights[-1])
        slope = -sign * expit(-margin)
        value = np.logaddexp(0, -margin).sum() + 0.5 * cost @ weights**2
        return value, np.append(slope @ inputs, slope.sum()) + cost * weights

    start = np.zeros(inputs.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return TopModel(mean, scale, found[:-1], float(found[-1]))


def out_of_fold(
    features: Float[np.ndarray, "cases features"],
    correct: Bool[np.ndarray, " cases"],
    cluster: Shaped[np.ndarray, " cases"],
    *,
    key: RandomKey,
    num_folds: int = 5,
    num_repeats: int = 10,
    penalty: float = 1.0,
) -> Float[np.ndarray, " cases"]:
    """Probabilities of all cases, each from models that never saw its gene.

    Clusters are dealt into folds at random; the model of a fold is trained on the other
    folds. The probabilities are means over several such divisions, since a single one
    adds noise.

    Args:
      features: features of each case.
      correct: whether the top gene is right.
      cluster: what stays in one fold, usually the causal gene.
      key: random key of the divisions.
      num_folds: folds, at least 2 and at most the number of clusters.
      num_repeats: divisions, at least 1.
      penalty: as in `train`.

    Returns:
      The probability by case, in (0, 1).

    Raises:
      ValueError: if there are no cases, lengths differ, or a number is out of range.
    """
    features = _checked(features, correct)
    if np.shape(cluster) != (len(features),):
        raise ValueError(
            f"cluster: expected shape ({len(features)},), got {np.shape(cluster)}"
        )
    names, own = np.unique(cluster, return_inverse=True)
    if not 2 <= num_folds <= len(names):
        raise ValueError(
            f"num_folds: expected 2 to {len(names)}, the number of clusters, got "
            f"{num_folds}"
        )
    if num_repeats < 1:
        raise ValueError(f"num_repeats: expected at least 1, got {num_repeats}")
    total = np.zeros(len(features))
    for each in jax.random.split(key, num_repeats):
        fold = np.asarray(jax.random.permutation(each, len(names)))[own] % num_folds
        for number in range(num_folds):
            inside = fold == number
            model = train(features[~inside], correct[~inside], penalty=penalty)
            total[inside] += model.probability(features[inside])
    return total / num_repeats


def _checked(features: np.ndarray, correct: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or not len(features):
        raise ValueError(
            f"features: expected at least one case, got shape {features.shape}"
        )
    if np.shape(correct) != (len(features),):
        raise ValueError(
            f"correct: expected shape ({len(features)},), got {np.shape(correct)}"
        )
    if not np.isfinite(features).all():
        raise ValueError("features: expected finite numbers, got others")
    return features
