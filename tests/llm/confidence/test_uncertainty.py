"""Test confidence measures against numbers worked by hand and lm-polygraph."""

import importlib
import importlib.util
import sys
import types

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from jeff_llm.confidence import samples, uncertainty


def test_token_probabilities_by_hand() -> None:
    """Arithmetic and geometric mean of 1/2 and 1/8, over real tokens alone."""
    log_probs = jnp.log(jnp.array([[0.5, 0.125, 1.0], [0.25, 1.0, 1.0]]))
    where = jnp.array([[True, True, False], [True, False, False]])
    mean = uncertainty.average_token_probability(log_probs, where=where)
    geometric = uncertainty.perplexity_confidence(log_probs, where=where)
    np.testing.assert_allclose(mean, [0.3125, 0.25], rtol=1e-6)
    np.testing.assert_allclose(geometric, [0.25, 0.25], rtol=1e-6)


def test_an_answer_without_tokens_has_no_confidence() -> None:
    none = jnp.zeros((1, 2), bool)
    found = uncertainty.average_token_probability(jnp.zeros((1, 2)), where=none)
    assert jnp.isnan(found).all()


def test_entropy_by_hand() -> None:
    """(1/2, 1/4, 1/4) has 1.5 bits of at most log2(3)."""
    logits = jnp.log(jnp.array([0.5, 0.25, 0.25]))
    expected = 1 - 1.5 / np.log2(3)
    np.testing.assert_allclose(
        uncertainty.entropy_confidence(logits), expected, rtol=1e-5
    )


def test_entropy_at_the_edges() -> None:
    """One option left, an impossible one, and equal ones."""
    logits = jnp.array([[0.0, 0.0, 5.0], [0.0, 0.0, -jnp.inf], [3.0, 3.0, 3.0]])
    where = jnp.array([[True, False, False], [True, True, True], [True, True, True]])
    found = uncertainty.entropy_confidence(logits, where=where)
    np.testing.assert_allclose(found, [1, 1 - np.log(2) / np.log(3), 0], atol=1e-6)


def test_margin_and_options_by_hand() -> None:
    logits = jnp.log(jnp.array([[0.6, 0.3, 0.1], [0.4, 0.2, 0.4]]))
    np.testing.assert_allclose(uncertainty.margin(logits), [0.3, 0.0], atol=1e-6)
    chosen = uncertainty.option_confidence(logits, jnp.array([1, 2]))
    np.testing.assert_allclose(chosen, [0.3, 0.4], rtol=1e-6)


def test_p_true_by_hand() -> None:
    found = uncertainty.p_true(
        jnp.log(jnp.array([0.3, 0.2])), jnp.log(jnp.array([0.1, 0.2]))
    )
    np.testing.assert_allclose(found, [0.75, 0.5], rtol=1e-6)


def test_degree_has_the_right_sign() -> None:
    """Samples that agree are surer; it is one minus trace(m I - D) / m^2."""
    same, different = samples.jaccard(["a b", "a b"]), samples.jaccard(["a b", "c d"])
    found = [
        float(uncertainty.degree_confidence(jnp.asarray(w))) for w in (same, different)
    ]
    assert found == [1.0, 0.5]
    similarity = samples.jaccard(["a b c", "a b", "d"])
    degrees = np.diag(similarity.sum(1))
    published = np.trace(3 * np.eye(3) - degrees) / 9
    mine = uncertainty.degree_confidence(jnp.asarray(similarity))
    np.testing.assert_allclose(mine, 1 - published, rtol=1e-6)


def test_semantic_entropy_by_hand() -> None:
    """Two meanings of three quarters and one quarter, of at most four."""
    share = np.array([0.75, 0.25])
    expected = 1 + (share * np.log(share)).sum() / np.log(4)
    found = uncertainty.semantic_entropy_confidence(jnp.array([0, 0, 1, 0]))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # The same by probability: one sample of the second meaning is as likely as three.
    weighted = uncertainty.semantic_entropy_confidence(
        jnp.array([0, 1]), jnp.log(jnp.array([0.3, 0.1]))
    )
    expected = 1 + (share * np.log(share)).sum() / np.log(2)
    np.testing.assert_allclose(weighted, expected, rtol=1e-5)


def test_consistency_by_hand() -> None:
    clusters = jnp.array([[0, 0, 1], [1, 2, 3]])
    found = uncertainty.consistency(clusters, jnp.array([0, 0]))
    np.testing.assert_allclose(found, [2 / 3, 0], rtol=1e-6)


@pytest.mark.parametrize(
    "measure",
    [
        uncertainty.average_token_probability,
        uncertainty.perplexity_confidence,
        uncertainty.entropy_confidence,
        uncertainty.margin,
    ],
)
def test_unit_range_batches_and_gradients(measure, key) -> None:
    """In [0, 1], the same one by one, and differentiable."""
    values = jax.nn.log_softmax(jax.random.normal(key, (7, 5)))
    found = measure(values)
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(found, jax.vmap(measure)(values), rtol=1e-6)
    np.testing.assert_allclose(found, jax.jit(measure)(values), rtol=1e-6)
    assert jnp.isfinite(jax.grad(lambda x: measure(x).sum())(values)).all()


def test_integers_are_refused(unchecked) -> None:
    with pytest.raises(TypeError, match="log_probs: expected a floating-point"):
        uncertainty.average_token_probability(jnp.array([0, -1]))
    with pytest.raises(ValueError, match="at least 2 options, got 1"):
        uncertainty.margin(jnp.zeros(1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("85%", 0.85),
        ("I am 85 percent sure", 0.85),
        ("0.85", 0.85),
        (".5", 0.5),
        ("1", 1.0),
        ("100", 1.0),
        ("1%", 0.01),
        ("8/10", 0.8),
        ("8 out of 10", 0.8),
        ("72 / 100", 0.72),
        ("Peru, 20", 0.2),
        ("0", 0.0),
        ("-5", None),
        ("850", None),
        ("very sure", None),
        ("", None),
    ],
)
def test_numbers_that_are_said(text, expected) -> None:
    assert samples.parse_confidence(text) == expected


def test_parse_rate() -> None:
    found = samples.verbalized(["90%", "well", "20"], missing=0.5)
    np.testing.assert_allclose(found.confidence, [0.9, 0.5, 0.2])
    assert found.parsed.tolist() == [True, False, True]
    assert found.parse_rate == pytest.approx(2 / 3)
    assert np.isnan(samples.verbalized([]).parse_rate)


@pytest.mark.parametrize(
    "same",
    [
        ["Paris", " paris. ", "PARIS!", "(Paris)", "**Paris**", "`Paris`", "$Paris$"],
        ["Caf\u00e9", "Cafe\u0301", "cafe\u0301."],
        ["-5", "\u22125", "\u20135.", "(-5)"],
        ["C++", "c++."],
        ["10%", "10 %."],
        ["a < b", "a<b"],
        ["C\u00f4te d'Ivoire", "Co\u0302te d\u2019Ivoire"],
        ["Guinea-Bissau", "Guinea Bissau"],
        ["\u0926\u093f\u0928", "\u0926\u093f\u0928\u0964"],
    ],
)
def test_equal_texts(same: list[str]) -> None:
    assert len({samples.normalise(each) for each in same}) == 1


def test_different_texts() -> None:
    different = [
        *("5", "-5", ".5", "5!", "1.5", "1 5", "1:5", "$5", "5 euros", "#5"),
        *("C", "C++", "C#", "10", "10%", "a<b", "a>b", "a b", "R&D", "R D", "-x", "x"),
        # Hindi for day and poor, which differ in the length of a vowel.
        *("\u0926\u093f\u0928", "\u0926\u0940\u0928", "\u0926\u0928"),
    ]
    assert len({samples.normalise(each) for each in different}) == len(different)
    assert len(set(samples.cluster_texts(different).tolist())) == len(different)


@hypothesis.given(st.text(max_size=30))
def test_a_normal_text_stays(text: str) -> None:
    once = samples.normalise(text)
    assert samples.normalise(once) == once


def test_words_of_one_spelling() -> None:
    assert samples.jaccard(["Stra\u00dfe caf\u00e9", "STRASSE cafe\u0301"])[0, 1] == 1


def test_clusters() -> None:
    assert samples.cluster_texts(["The UK.", "the uk", "Peru", ""]).tolist() == [
        0,
        0,
        1,
        2,
    ]


@pytest.fixture(scope="module")
def polygraph():
    """lm-polygraph's estimators by themselves: the package imports much else."""
    spec = importlib.util.find_spec("lm_polygraph")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("lm-polygraph is not here")
    root = spec.submodule_search_locations[0]
    before = set(sys.modules)
    for name in ("lm_polygraph", "lm_polygraph.estimators"):
        package = types.ModuleType(name)
        package.__path__ = [root + name.removeprefix("lm_polygraph").replace(".", "/")]
        sys.modules[name] = package
    # Their base class alone reaches for the models; the arithmetic does not need it.
    base = types.ModuleType("lm_polygraph.estimators.estimator")
    base.Estimator = type("Estimator", (), {"__init__": lambda self, *_: None})
    sys.modules[base.__name__] = base
    yield lambda name: importlib.import_module(f"lm_polygraph.estimators.{name}")
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_parity_of_perplexity(polygraph, key) -> None:
    log_probs = np.asarray(-jax.random.exponential(key, (4, 6)))
    theirs = polygraph("perplexity").Perplexity()({"greedy_log_likelihoods": log_probs})
    mine = uncertainty.perplexity_confidence(jnp.asarray(log_probs))
    np.testing.assert_allclose(-np.log(mine), theirs, rtol=1e-5)


def test_parity_of_degree(polygraph) -> None:
    """Theirs is the uncertainty of the same graph."""
    texts = ["New York", "york", "Paris in France", "new york city"]
    estimator = polygraph("deg_mat").DegMat(similarity_score="Jaccard_score")
    (theirs,) = estimator({"sample_texts": [texts]})
    mine = uncertainty.degree_confidence(jnp.asarray(samples.jaccard(texts)))
    np.testing.assert_allclose(1 - mine, theirs, rtol=1e-5)
