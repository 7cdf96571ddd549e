"""Test labels, classes, probabilities of a right top gene, and the threshold."""

from typing import Any

import jax
import numpy as np
import pytest

from jeff_llm.genes import abstention, hpo_class, solvability, top_probability
from jeff_llm.genes.obo import parse_ontology
from jeff_llm.genes.ranking import Phenotypes

KEY = jax.random.key(0)
OBO = """format-version: 1.2
data-version: hp/releases/2030-01-02

[Term]
id: HP:0000001
name: All

[Term]
id: HP:0000118
name: Phenotypic abnormality
is_a: HP:0000001

[Term]
id: HP:0000010
name: Eye
is_a: HP:0000118

[Term]
id: HP:0000020
name: Heart
is_a: HP:0000118

[Term]
id: HP:0000021
name: Both
is_a: HP:0000010
is_a: HP:0000020

[Term]
id: HP:0000022
name: Murmur
is_a: HP:0000020
"""


@pytest.fixture(scope="module")
def ontology():
    return parse_ontology(OBO, source="test")


def test_consensus():
    assert solvability.consensus(["no", "no", "yes"]) == "no"
    assert solvability.consensus(["yes", "no", "maybe"]) == "maybe"
    assert solvability.consensus([None, "yes"]) == "yes"
    assert solvability.consensus([None, None]) == solvability.UNREADABLE
    with pytest.raises(ValueError, match=r"labels: expected .* got 'perhaps'"):
        solvability.consensus(["perhaps"])


def test_agreement_and_its_labels():
    scores = np.array(
        [
            [[5.0, 1.0, 0.0], [0.0, 1.0, 2.0]],
            [[1.0, 1.0, 0.0], [3.0, -np.inf, 0.0]],
        ]
    )
    share = solvability.agreement(scores, np.array([0, 2]))
    assert share.tolist() == [0.75, 0.5]
    assert solvability.committee_labels(share) == ("yes", "maybe")
    # Three measures of four, however they are added up.
    assert solvability.committee_labels(np.array([0.3 + 0.45])) == ("yes",)


@pytest.mark.usefixtures("unchecked")
def test_agreement_refuses():
    scores = np.zeros((2, 2, 3))
    for top in ([0], [0, 3], [-1, 0]):
        with pytest.raises(ValueError, match="top: expected"):
            solvability.agreement(scores, np.array(top))
    with pytest.raises(ValueError, match="got NaN"):
        solvability.agreement(scores * np.nan, np.array([0, 0]))
    with pytest.raises(ValueError, match="scores: expected measures"):
        solvability.agreement(scores[:0], np.array([0, 2]))
    with pytest.raises(ValueError, match="share: expected"):
        solvability.committee_labels(np.array([1.5]))
    with pytest.raises(ValueError, match="maybe: expected"):
        solvability.committee_labels(np.ones(1), yes=0.2, maybe=0.4)


def test_accuracy_by_label():
    labels = ["no", "yes", "Eye", "yes", "yes", "no"]
    correct = np.array([False, True, True, True, False, False])
    found = solvability.accuracy_by_label(
        labels, correct, np.arange(6), key=KEY, num_resamples=200
    )
    assert list(found) == ["yes", "no", "Eye"]
    assert [each.cases for each in found.values()] == [3, 2, 1]
    assert found["yes"].accuracy.estimate == pytest.approx(2 / 3)
    # No right case among two does not prove that there is none.
    assert found["no"].accuracy.estimate == 0 < found["no"].accuracy.high < 1


@pytest.mark.usefixtures("unchecked")
def test_accuracy_by_label_refuses():
    labels, correct = ["no"] * 6, np.zeros(6, bool)
    with pytest.raises(ValueError, match="correct: expected shape"):
        solvability.accuracy_by_label(labels, correct[:2], np.arange(6), key=KEY)
    with pytest.raises(ValueError, match="labels: expected at least one"):
        solvability.accuracy_by_label([], correct[:0], np.arange(0), key=KEY)


def test_thirds():
    found = hpo_class.thirds(np.array([9.0, 1, 2, 3, 4, 5]))
    assert found == ("high", "low", "low", "middle", "middle", "high")
    # Equal values are in one third.
    assert set(hpo_class.thirds(np.ones(5))) == {"low"}
    with pytest.raises(ValueError, match="values: expected at least three"):
        hpo_class.thirds(np.ones(2))
    with pytest.raises(ValueError, match="got NaN"):
        hpo_class.thirds(np.array([1, 2, np.nan]))


def test_classes(ontology):
    information = np.zeros(len(ontology.ids))
    for term, value in (("HP:0000021", 3.0), ("HP:0000022", 5.0), ("HP:0000010", 1.0)):
        information[ontology.index(term)] = value
    terms = [("HP:0000021", "HP:0000022"), ("HP:0000010",), ("HP:0000118",)]
    patients = [Phenotypes(each) for each in terms]
    found = hpo_class.hpo_classes(patients, ontology, information)
    assert found == [
        ("high", 4.0, 2, "Heart"),
        ("middle", 1.0, 1, "Eye"),
        ("low", 0.0, 1, "Phenotypic abnormality"),
    ]
    both = np.array([ontology.index("HP:0000021")])
    assert hpo_class._top_branch(ontology, both) == "Eye"
    with pytest.raises(ValueError, match=r"patients\[1\]: expected at least one"):
        hpo_class.hpo_classes([patients[0], Phenotypes(())], ontology, information)
    with pytest.raises(ValueError, match="information: expected shape"):
        hpo_class.hpo_classes(patients, ontology, information[:2])


def test_features_by_hand():
    scores = np.stack([np.arange(12.0), np.full(12, -np.inf)])
    scores[1, 3:5] = 4.0, 1.0
    found = top_probability.top_features(
        scores, np.array([2, 1]), np.array([3.0, 5.0]), np.array([0.5, 1.0])
    )
    wanted = [
        [np.log(2), 9, 5.5, np.log(2), 3, 0.5],
        # Genes without a score stand at the lowest one.
        [np.log(4), 3, 4, 0, 5, 1],
    ]
    np.testing.assert_allclose(found, wanted)
    assert found.shape[1] == len(top_probability.FEATURES)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.zeros((2, 1))}, "at least two genes"),
        ({"scores": np.full((2, 3), np.nan)}, "scores: expected finite numbers"),
        ({"scores": np.full((2, 3), -np.inf)}, "scores: expected finite numbers"),
        ({"num_terms": np.array([0, 1])}, "num_terms: expected at least 1"),
        ({"agreement": np.zeros(3)}, "agreement: expected shape"),
        ({"mean_information": np.full(2, np.nan)}, "mean_information: expected finite"),
    ],
)
def test_features_refuse(change, message):
    given = {
        "scores": np.zeros((2, 3)),
        "num_terms": np.ones(2, int),
        "mean_information": np.ones(2),
        "agreement": np.ones(2),
    }
    with pytest.raises(ValueError, match=message):
        top_probability.top_features(**given | change)


@pytest.fixture(scope="module")
def simulated():
    """Two features that decide, one that is constant; two cases a gene."""
    rng = np.random.default_rng(0)
    features = np.append(rng.normal(size=(1200, 2)), np.ones((1200, 1)), axis=1)
    prob = 1 / (1 + np.exp(-(2 * features[:, 0] - features[:, 1])))
    return features, rng.random(1200) < prob, np.arange(1200) // 2, prob


def test_training_finds_the_weights(simulated):
    features, correct, _, prob = simulated
    model = top_probability.train(features, correct, penalty=1e-3)
    np.testing.assert_allclose(model.weights / model.scale, [2, -1, 0], atol=0.25)
    np.testing.assert_allclose(model.probability(features), prob, atol=0.08)
    # The mean of the probabilities is that of the outcomes: the bias is not shrunk.
    assert model.probability(features).mean() == pytest.approx(correct.mean(), abs=1e-3)
    sure = top_probability.train(features[:5], np.ones(5, bool))
    assert 0.9 < sure.probability(features[:5]).min() < 1


def test_probabilities_of_unseen_genes_are_calibrated(simulated):
    features, correct, cluster, prob = simulated
    found = top_probability.out_of_fold(
        features, correct, cluster, key=KEY, num_repeats=2
    )
    quality = abstention.evaluate(found, correct)
    assert quality.calibration_error < 0.05
    assert quality.auroc == pytest.approx(
        abstention.evaluate(prob, correct).auroc, abs=0.01
    )
    assert quality.coverage[-1] == 1
    assert quality.risk[-1] == pytest.approx(1 - quality.accuracy, abs=1e-6)
    # A feature that names the gene must not help: no gene is in two folds.
    spoilt = np.append(features[:, 2:], np.eye(600)[cluster][:, :300], axis=1)
    blind = top_probability.out_of_fold(
        spoilt[:60], correct[:60], cluster[:60], key=KEY, num_repeats=1
    )
    assert abstention.evaluate(blind, correct[:60]).auroc < 0.65


@pytest.mark.usefixtures("unchecked")
def test_training_refuses(simulated):
    features, correct, cluster, _ = simulated
    for given, message in (
        ((features[:0], correct[:0]), "features: expected at least one"),
        ((features, correct[:3]), "correct: expected shape"),
        ((features * np.nan, correct), "features: expected finite"),
    ):
        with pytest.raises(ValueError, match=message):
            top_probability.train(*given)
    with pytest.raises(ValueError, match="penalty: expected"):
        top_probability.train(features, correct, penalty=0.0)
    for change, message in (
        ({"num_folds": 1}, "num_folds: expected 2 to 600"),
        ({"num_folds": 601}, "num_folds: expected 2 to 600"),
        ({"num_repeats": 0}, "num_repeats: expected"),
        ({"cluster": cluster[:5]}, "cluster: expected shape"),
    ):
        options: dict[str, Any] = {"cluster": cluster, "key": KEY} | change
        with pytest.raises(ValueError, match=message):
            top_probability.out_of_fold(features, correct, **options)


def test_threshold(simulated):
    _, correct, cluster, prob = simulated
    found = abstention.answer_threshold(prob, correct, cluster, key=KEY)
    assert 0.4 < found.threshold < 0.9
    assert found.wrong <= found.max_error == 0.2
    assert found.answered == pytest.approx((prob > found.threshold).mean(), abs=0.01)
    strict = abstention.answer_threshold(
        prob, correct, cluster, max_error=0.05, key=KEY
    )
    assert strict.threshold > found.threshold
    # Nothing can be proved where everything is wrong.
    never = abstention.answer_threshold(prob, np.zeros(1200, bool), cluster, key=KEY)
    assert never[:3] == (np.inf, 0.0, 0.0)


@pytest.mark.usefixtures("unchecked")
def test_threshold_refuses(simulated):
    _, correct, cluster, prob = simulated
    # Many cases of one gene prove as little as one.
    with pytest.raises(ValueError, match="at least 2 clusters, got 1"):
        abstention.answer_threshold(prob, correct, np.zeros(1200), key=KEY)
    with pytest.raises(ValueError, match="prob: expected one number for each"):
        abstention.answer_threshold(prob[:3], correct, cluster, key=KEY)
    with pytest.raises(ValueError, match="at least 2 clusters, got 0"):
        abstention.answer_threshold(prob[:0], correct[:0], cluster[:0], key=KEY)
    with pytest.raises(ValueError, match="prob: expected at least one case"):
        abstention.evaluate(prob[:0], correct[:0])
