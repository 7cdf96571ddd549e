"""Test the stopping rules by hand, with padding, under jit and from numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.reasoning import stopping

ALL = np.ones((1, 5), bool)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_confidence_of_a_trial_by_hand(array):
    """First and last token are left out of three; one or two tokens all count."""
    prob = np.array(
        [[0.1, 0.5, 0.8, 0.2], [0.9, 0.4, 0.6, 0.0], [0.3, 0.5, 0.0, 0.0], [0.7] * 4],
        np.float32,
    )
    count = np.array([4, 3, 2, 0])
    where = np.arange(4) < count[:, None]
    log_probs = np.log(np.where(where, prob, 1))
    log_probs[~where] = -np.inf  # padding may hold anything
    found = stopping.trial_confidence(array(log_probs), array(where))
    np.testing.assert_allclose(found, [0.65, 0.4, 0.4, 0.0], rtol=1e-6)
    found = stopping.trial_confidence(array(log_probs), array(where), geometric=True)
    np.testing.assert_allclose(found, [0.4**0.5, 0.4, 0.15**0.5, 0], rtol=1e-6)


def test_deer_takes_the_first_confident_probe():
    confidence = np.array([[0.2, 0.96, 0.99], [0.95, 0.95, 0.9], [0.99, 0.1, 0.97]])
    where = np.array([[1, 1, 1], [1, 1, 1], [0, 1, 1]], bool)
    assert stopping.deer(confidence, where).tolist() == [1, -1, 2]
    assert stopping.deer(confidence, where, threshold=0.9).tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("codes", "repeats", "index"),
    [
        ([3, 3, 3, 3, 3], 1, 0),
        ([3, 3, 4, 4, 4], 3, 4),
        ([3, 4, 3, 4, 3], 2, -1),
        ([-1, -1, -1, 2, 2], 2, 4),  # no answer is no agreement
        ([2, -1, 2, 2, 5], 2, 3),
        ([0, 0, 1, 1, 1], 4, -1),
    ],
)
def test_convergence_by_hand(codes, repeats, index):
    codes = np.array([codes])
    assert stopping.answer_convergence(codes, ALL, repeats=repeats).tolist() == [index]


def test_convergence_passes_over_masked_probes():
    codes = np.array([[7, 9, 7, 7, 7]])
    where = np.array([[True, False, True, False, True]])
    assert stopping.answer_convergence(codes, where, repeats=2).tolist() == [2]
    assert stopping.answer_convergence(codes, where, repeats=3).tolist() == [4]


def debiased_variances(values, decay):
    """The recurrence of the docstring, step by step."""
    mean, variance, found = values[0], 0.0, [np.inf]
    for n, value in enumerate(values[1:], 1):
        mean = decay * mean + (1 - decay) * value
        variance = decay * variance + (1 - decay) * (value - mean) ** 2
        found.append(variance / (1 - decay**n))
    return np.array(found)


def test_entropy_by_the_recurrence():
    values = np.random.default_rng(0).gamma(1.0, size=(20, 12)) * np.linspace(2, 0, 12)
    where = np.ones(values.shape, bool)
    for decay, threshold, warm_up in ((0.8, 0.5, 4), (0.5, 0.2, 2), (0.1, 0.01, 3)):
        found = stopping.entropy_after_think(
            values, where, threshold=threshold, decay=decay, warm_up=warm_up
        )
        for row, index in zip(values, found.tolist(), strict=True):
            variance = debiased_variances(row, decay)
            below = np.flatnonzero(variance < threshold)
            below = below[below >= warm_up - 1]
            assert index == (below[0] if below.size else -1)
        assert len(set(found.tolist())) > 3


def test_entropy_that_does_not_move_stops_after_the_warm_up():
    flat = np.full((1, 5), 0.7, np.float32)
    found = stopping.entropy_after_think(flat, ALL, threshold=1e-6, warm_up=3)
    assert found.tolist() == [2]


RULES = {
    "deer": lambda values, codes, where: stopping.deer(values, where, threshold=0.8),
    "convergence": lambda values, codes, where: stopping.answer_convergence(
        codes, where, repeats=2
    ),
    "entropy": lambda values, codes, where: stopping.entropy_after_think(
        values, where, threshold=0.02, warm_up=2
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_rules_look_at_prefixes_alone(name):
    """Cutting the probes behind a stop changes nothing; jit and padding neither."""
    rule, rng = RULES[name], np.random.default_rng(1)
    values = rng.random((30, 8)).astype(np.float32)
    codes = rng.integers(-1, 3, (30, 8))
    where = np.ones((30, 8), bool)
    whole = np.asarray(rule(values, codes, where))
    assert len(set(whole.tolist())) > 3
    np.testing.assert_array_equal(jax.jit(rule)(values, codes, where), whole)
    for cut in (3, 5):
        part = np.asarray(rule(values[:, :cut], codes[:, :cut], where[:, :cut]))
        np.testing.assert_array_equal(part, np.where(whole < cut, whole, -1))
        masked = np.asarray(rule(values, codes, where & (np.arange(8) < cut)))
        np.testing.assert_array_equal(masked, part)


def test_chains_without_probes_never_stop():
    empty = np.zeros((2, 0), bool)
    assert stopping.first_probe(empty, empty).tolist() == [-1, -1]
    for rule in RULES.values():
        values, codes = np.zeros((2, 0), np.float32), np.zeros((2, 0), int)
        assert rule(values, codes, empty).tolist() == [-1, -1]


def test_errors_name_the_argument():
    values, codes = np.ones((1, 5), np.float32), np.ones((1, 5), int)
    with pytest.raises(ValueError, match=r"threshold: expected .*, got 2"):
        stopping.deer(values, ALL, threshold=2)
    with pytest.raises(ValueError, match="repeats: expected at least 1, got 0"):
        stopping.answer_convergence(codes, ALL, repeats=0)
    with pytest.raises(ValueError, match="warm_up: expected at least 2, got 1"):
        stopping.entropy_after_think(values, ALL, threshold=0.1, warm_up=1)
    with pytest.raises(ValueError, match="threshold: expected at least 0, got nan"):
        stopping.entropy_after_think(values, ALL, threshold=np.nan)
    with pytest.raises(ValueError, match="decay: expected"):
        stopping.entropy_after_think(values, ALL, threshold=0.1, decay=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 95.0])
def test_numbers_out_of_range_are_refused_at_real_probes_alone(value):
    values = np.array([[0.5, value, 0.99, 0.5, 0.5]], np.float32)
    with pytest.raises(ValueError, match=r"confidence: expected numbers in \[0, 1\]"):
        stopping.deer(values, ALL)
    there = np.array([[True, False, True, True, True]])
    assert stopping.deer(values, there).tolist() == [2]
    if value != 95:
        with pytest.raises(ValueError, match="entropy: expected numbers in"):
            stopping.entropy_after_think(values, ALL, threshold=0.1)


def test_long_codes_are_refused():
    codes = np.array([[1, 1 + 2**32, 5, 5, 5]])
    with pytest.raises(ValueError, match=r"answer: expected numbers in .* 4294967297"):
        stopping.answer_convergence(codes, ALL, repeats=2)


@pytest.mark.usefixtures("unchecked")
def test_shapes_and_types_are_checked():
    values = np.ones((1, 5), np.float32)
    with pytest.raises(ValueError, match=r"where: expected shape \(1, 5\)"):
        stopping.deer(values, np.ones((1, 4), bool))
    with pytest.raises(TypeError, match="where: expected a bool array, got int"):
        stopping.deer(values, np.ones((1, 5), np.int32))
    with pytest.raises(ValueError, match="expected"):
        stopping.deer(values[0], ALL[0])
    with pytest.raises(TypeError, match="answer: expected integer codes, got float32"):
        stopping.answer_convergence(values, ALL, repeats=2)
