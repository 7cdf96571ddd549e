"""How solvable a case looks: labels, a calibrated probability, and when to abstain."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from configs.genes import Config
from jeff import metrics
from jeff.bootstrap import bootstrap_interval
from jeff_llm import chat
from jeff_llm.genes import (
    abstention,
    agents,
    hpo_class,
    scoring,
    solvability,
    top_probability,
)
from jeff_llm.genes.abstention import Quality, Threshold
from jeff_llm.genes.agents import Judgement
from jeff_llm.genes.cases import Case
from jeff_llm.genes.evaluation import Interval
from jeff_llm.genes.profile_texts import ProfileTexts
from jeff_llm.genes.solvability import LabelAccuracy
from jeff_llm.genes.top_probability import TopModel
from jeff_llm.models import weights
from train_scripts.genes.data import World
from train_scripts.genes.genome import Study
from train_scripts.running import machines
from train_scripts.running.seeds import seed_key

__all__ = ["Agents", "Solvable", "ask_agents", "features_of", "measure", "transfer"]

_PURPOSE = 3
# Cases that the language model is asked about.
_ASKED = 60
_LABEL_SCORE = {"no": 0.0, "maybe": 1.0, "yes": 2.0}


@dataclasses.dataclass(frozen=True)
class Solvable:
    """What separates solved cases from unsolved ones, with one set of annotations.

    Attributes:
      labels: accuracy by label of the committee of measures.
      thirds: accuracy by third of the mean information content.
      branches: accuracy by organ system, of those with at least 20 cases.
      areas: area under the ROC curve of each label or probability, for solved cases.
      quality: of the calibrated probability, on genes that it was not trained on.
      prob: that probability, by case.
      correct: whether the top gene is right, by case.
      threshold: when to answer, set on one half of the genes.
      held_out: share of errors among the answers on the other half; NaN if none.
      answered: share of the other half that is answered.
      cases: cases of the other half that are answered.
      model: trained on all cases.
    """

    labels: dict[str, LabelAccuracy]
    thirds: dict[str, LabelAccuracy]
    branches: dict[str, LabelAccuracy]
    areas: dict[str, Interval]
    quality: Quality
    prob: np.ndarray
    correct: np.ndarray
    threshold: Threshold
    held_out: float
    answered: float
    cases: int
    model: TopModel


@dataclasses.dataclass(frozen=True)
class Agents:
    """What agents of a language model say of how solvable cases look.

    Attributes:
      labels: accuracy of the first gene by consensus label.
      area: area under the ROC curve of the label, for solved cases.
      judgement: the verdicts, and what they took.
    """

    labels: dict[str, LabelAccuracy]
    area: Interval
    judgement: Judgement


def ask_agents(config: Config, world: World, study: Study) -> Agents | None:
    """Ask SmolLM2 in three roles about some of the cases.

    Args:
      config: settings of the run.
      world: release of HPO.
      study: ranks of the cases.

    Returns:
      The measurements; None where the run loads no language model, or the first gene of
      these cases is always or never right.
    """
    if "smollm2" not in config.rankers or "combined" not in study.genes:
        return None
    rows = np.linspace(0, len(study.clusters) - 1, _ASKED).astype(int)
    correct = study.genes["combined"][rows] == 1
    if correct.all() or not correct.any():
        return None
    judgement = agents.judge(
        chat.Local(weights.load("smollm2", mesh=machines.mesh())),
        [study.source.cases[row].phenotypes for row in rows],
        ProfileTexts(world.hpo, information=world.tables.information),
    )
    labels = [verdict.consensus for verdict in judgement.verdicts]
    # An unreadable answer says as little as "maybe".
    values = np.array(
        [_LABEL_SCORE.get(label, _LABEL_SCORE["maybe"]) for label in labels]
    )
    key = seed_key(config.seeds[0], _PURPOSE)
    return Agents(
        solvability.accuracy_by_label(
            labels,
            correct,
            study.clusters[rows],
            key=key,
            num_resamples=config.resamples,
        ),
        _area(config, values, correct),
        judgement,
    )


def measure(
    config: Config, world: World, study: Study, *, own_papers: bool
) -> Solvable | None:
    """Label the cases, and calibrate the probability that the top gene is right.

    Args:
      config: settings of the run.
      world: release of HPO.
      study: scores of the cases.
      own_papers: whether each case's own paper counts.

    Returns:
      The measurements; None where only one measure was scored, or the top gene is
      never or always right.
    """
    scores = study.scores if own_papers else study.held_out
    ranks = study.genes if own_papers else study.without
    if not set(scoring.ENSEMBLE) <= set(scores):
        return None
    correct = ranks["combined"] == 1
    if correct.all() or not correct.any():
        return None
    features, share = features_of(world, study.source.cases, scores)
    patients = [case.phenotypes for case in study.source.cases]
    classes = hpo_class.hpo_classes(
        patients, world.hpo.ontology, world.tables.information
    )
    key = seed_key(config.seeds[0], _PURPOSE)
    prob = top_probability.out_of_fold(features, correct, study.clusters, key=key)
    labels = solvability.committee_labels(share)
    by = {"key": key, "num_resamples": config.resamples}
    branches = solvability.accuracy_by_label(
        [each.branch for each in classes], correct, study.clusters, **by
    )
    given = {
        "committee of measures": np.array([_LABEL_SCORE[label] for label in labels]),
        "mean information content": np.array([c.mean_information for c in classes]),
        "number of terms": np.array([float(c.num_terms) for c in classes]),
        "calibrated probability": prob,
    }
    half = _halves(config, study.clusters)
    threshold = abstention.answer_threshold(
        prob[half],
        correct[half],
        study.clusters[half],
        max_error=config.max_error,
        delta=config.delta,
        key=key,
    )
    answered = ~half & (prob.astype(np.float32) > threshold.threshold)
    return Solvable(
        solvability.accuracy_by_label(labels, correct, study.clusters, **by),
        solvability.accuracy_by_label(
            [each.specificity for each in classes], correct, study.clusters, **by
        ),
        {name: each for name, each in branches.items() if each.cases >= 20},
        {name: _area(config, values, correct) for name, values in given.items()},
        abstention.evaluate(prob, correct),
        prob,
        correct,
        threshold,
        float((~correct[answered]).mean()) if answered.any() else float("nan"),
        float(answered.sum() / (~half).sum()),
        int(answered.sum()),
        top_probability.train(features, correct),
    )


def features_of(
    world: World, cases: Sequence[Case], scores: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Features of the rankings of `combined`, and how many other measures agree.

    Args:
      world: release of HPO.
      cases: the patients.
      scores: scores of all genes by the measures of the ensemble.

    Returns:
      Features by case, and the share of the other measures with the same first gene.
    """
    best = scores["combined"]
    others = [scores[name] for name in scoring.ENSEMBLE if name != "combined"]
    share = solvability.agreement(np.stack(others), best.argmax(1))
    ontology, information = world.hpo.ontology, world.tables.information
    terms = [
        sorted({ontology.index(term) for term in case.phenotypes.observed})
        for case in cases
    ]
    features = top_probability.top_features(
        best,
        np.array([len(own) for own in terms]),
        np.array([information[own].mean() for own in terms]),
        share,
    )
    return features, share


def transfer(world: World, study: Study, model: TopModel) -> Quality | None:
    """Quality of a model's probabilities on cases of another origin.

    Args:
      world: release of HPO.
      study: scores and ranks of these cases; only those with a known gene count.
      model: trained on other cases.

    Returns:
      The quality; None without the measures of the ensemble.
    """
    if not set(scoring.ENSEMBLE) <= set(study.scores):
        return None
    features, _ = features_of(world, study.source.cases, study.scores)
    known = np.isfinite(study.genes["combined"])
    correct = study.genes["combined"][known] == 1
    return abstention.evaluate(model.probability(features)[known], correct)


def _halves(config: Config, clusters: np.ndarray) -> np.ndarray:
    """True for the cases of one half of the genes."""
    order = np.random.default_rng(config.seeds[0]).permutation(clusters.max() + 1)
    return order[clusters] % 2 == 0


def _area(config: Config, values: np.ndarray, correct: np.ndarray) -> Interval:
    arrays = jnp.asarray(values, jnp.float32), jnp.asarray(correct)
    value, low, high = bootstrap_interval(
        metrics.auroc,
        arrays,
        key=seed_key(config.seeds[0], _PURPOSE),
        num_samples=config.resamples,
    )
    return Interval(float(value), float(low), float(high))
