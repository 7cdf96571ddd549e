"""Test the error model and bounds: by hand, attained, and against measured errors."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jeff_llm.kv.bounds import (
    attention_error_bound,
    logits_error_bound,
    output_error_bound,
    quantization_error,
    score_error_bound,
)
from jeff_llm.kv.quantize import dequantize, quantize

KINDS = ("normal", "uniform", "outlier channels", "low rank", "one hot", "shifted")


def matrix(kind: str, rng: np.random.Generator, rows: int, width: int) -> jax.Array:
    x = rng.normal(size=(rows, width))
    if kind == "uniform":
        x = rng.uniform(-1, 1, (rows, width))
    elif kind == "outlier channels":
        x[:, :: width // 2] *= 30
    elif kind == "low rank":
        x = rng.normal(size=(rows, 1)) * rng.normal(size=(1, width))
    elif kind == "one hot":
        x = 10 * np.eye(width)[rng.integers(width, size=rows)]
    elif kind == "shifted":
        x += 5
    return jnp.asarray(x, jnp.float32)


def frobenius(x: jax.Array) -> float:
    return float(np.linalg.norm(np.asarray(x, np.float64)))


class Head(NamedTuple):
    """One head of attention, exact and with quantised keys and values."""

    queries: jax.Array
    keys: jax.Array
    values: jax.Array
    quantised_keys: jax.Array
    quantised_values: jax.Array

    def attention(self, keys: jax.Array) -> jax.Array:
        logits = self.queries @ keys.T / self.queries.shape[1] ** 0.5
        seen = jnp.arange(128) <= 120 + jnp.arange(len(self.queries))[:, None]
        return jax.nn.softmax(jnp.where(seen, logits, -jnp.inf))


def head(kind: str, seed: int, bits: int, tokens: int, width: int) -> Head:
    rng = np.random.default_rng(seed)
    queries = matrix("normal", rng, tokens, width)
    keys, values = matrix(kind, rng, 128, width), matrix(kind, rng, 128, width)
    restored_keys = dequantize(quantize(keys, bits, 32, "channel"))
    restored_values = dequantize(quantize(values, bits, 32, "token"))
    return Head(queries, keys, values, restored_keys, restored_values)


heads = {
    "kind": st.sampled_from(KINDS),
    "seed": st.integers(0, 10**6),
    "bits": st.sampled_from((2, 4, 8)),
    "tokens": st.sampled_from((1, 7)),
    "width": st.sampled_from((32, 96)),
}
# Float32's rounding, of both sides.
SLACK = 1 + 1e-5


@given(**heads)
@settings(deadline=None, max_examples=40)
def test_measured_errors_of_logits(kind, seed, bits, tokens, width) -> None:
    """Of one logit, and of all."""
    one = head(kind, seed, bits, tokens, width)
    error = np.asarray(one.keys - one.quantised_keys, np.float64)
    measured = np.asarray(one.queries, np.float64) @ error.T
    bounds = jax.vmap(score_error_bound, (None, 0))(
        one.queries[0], one.keys - one.quantised_keys
    )
    assert (np.abs(measured[0]) <= SLACK * bounds).all()
    bound = logits_error_bound(one.queries, one.keys - one.quantised_keys)
    assert np.linalg.norm(measured) <= SLACK * bound


@given(**heads)
@settings(deadline=None, max_examples=40)
def test_measured_errors_of_attention_and_output(
    kind, seed, bits, tokens, width
) -> None:
    """With a causal mask; both pairings of an exact with a quantised factor."""
    one = head(kind, seed, bits, tokens, width)
    exact, quantised = one.attention(one.keys), one.attention(one.quantised_keys)
    bound = attention_error_bound(
        logits_error_bound(one.queries, one.keys - one.quantised_keys), width
    )
    # A weight has an absolute rounding of its own, which bounds of 8 bits come near.
    rounding = 1e-6 * len(one.queries)
    assert frobenius(exact - quantised) <= SLACK * bound + rounding
    measured = frobenius(exact @ one.values - quantised @ one.quantised_values)
    value_error = one.values - one.quantised_values
    for attention, values in (
        (exact, one.quantised_values),
        (quantised, one.values),
    ):
        whole = output_error_bound(attention, values, value_error, bound)
        assert measured <= SLACK * whole + rounding * frobenius(one.values)


@given(seed=st.integers(0, 10**6), size=st.sampled_from((1e-3, 1.0, 1e3)))
@settings(deadline=None, max_examples=40)
def test_a_softmax_moves_by_at_most_half(seed, size) -> None:
    """Of any logits, however far they move."""
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(rng.normal(size=(3, 5)) * rng.choice([0.1, 1, 10]))
    moved = logits + size * jnp.asarray(rng.normal(size=(3, 5)))
    width = 16
    measured = jax.nn.softmax(logits / 4) - jax.nn.softmax(moved / 4)
    bound = attention_error_bound(jnp.linalg.norm(logits - moved), width)
    assert frobenius(measured) <= SLACK * bound + 1e-6


def test_attained_by_a_key_error_along_the_query() -> None:
    """3, 4 times 6, 8: 50 of 5 x 10; and across it, nothing."""
    query = jnp.array([3.0, 4.0])
    assert score_error_bound(query, jnp.array([6.0, 8.0])) == 50
    assert query @ jnp.array([6.0, 8.0]) == 50
    assert query @ jnp.array([-8.0, 6.0]) == 0
    assert score_error_bound(query, jnp.array([-8.0, 6.0])) == 50


def test_attained_by_key_errors_along_a_singular_vector() -> None:
    """Singular values 5 and 1: errors along the first, of norm 5, give 25."""
    queries = jnp.array([[3.0, 0.0], [4.0, 0.0], [0.0, 1.0]])
    error = jnp.array([[3.0, 0.0], [-4.0, 0.0]])
    np.testing.assert_allclose(logits_error_bound(queries, error), 25, rtol=1e-6)
    assert frobenius(queries @ error.T) == 25
    # With Frobenius's norm of the queries, sqrt(26), no errors would attain it.
    assert frobenius(queries @ error[:, ::-1].T) == 5


def test_attained_by_two_slots_of_equal_weight() -> None:
    """Of logits 0, 0 moved by e, -e the weights move by tanh(e) / 2 each."""
    for moved in (0.01, 0.1):
        before, after = jnp.zeros((1, 2)), jnp.array([[moved, -moved]])
        bound = attention_error_bound(jnp.linalg.norm(after), 1)
        measured = frobenius(jax.nn.softmax(after) - jax.nn.softmax(before))
        np.testing.assert_allclose(bound, moved / np.sqrt(2), rtol=1e-6)
        np.testing.assert_allclose(measured, np.tanh(moved) / np.sqrt(2), rtol=1e-4)
        assert (1 - moved**2) * bound < measured <= bound


def test_the_output_needs_one_quantised_factor() -> None:
    """Weights 1/2, 1/2 become 0, 1, and values 0, 0 become 0, 1: the output moves by 1.

    With both factors exact the sum would be ``1/sqrt(2)``, less than the error.
    """
    exact, quantised = jnp.array([[0.5, 0.5]]), jnp.array([[0.0, 1.0]])
    values, restored = jnp.zeros((2, 1)), jnp.array([[0.0], [1.0]])
    moved = jnp.linalg.norm(exact - quantised)
    assert frobenius(exact @ values - quantised @ restored) == 1
    error = values - restored
    np.testing.assert_allclose(
        output_error_bound(exact, restored, error, moved), np.sqrt(2), rtol=1e-6
    )
    assert output_error_bound(quantised, values, error, moved) == 1  # attained
    np.testing.assert_allclose(
        output_error_bound(exact, values, error, moved), np.sqrt(0.5), rtol=1e-6
    )


def test_attained_by_tokens_that_attend_to_one_slot_each() -> None:
    """The output has the error of the values, 5; Frobenius's norm of A is sqrt(2)."""
    error = jnp.array([[3.0, 0.0], [0.0, 4.0]])
    found = output_error_bound(jnp.eye(2), error, error, jnp.array(0.0))
    np.testing.assert_allclose(found, 5, rtol=1e-6)


def test_the_model_by_hand() -> None:
    """A norm of 4 at 3 bits, twice 16/64; bits may be an array or a fraction."""
    np.testing.assert_allclose(quantization_error(jnp.array(16.0), 3, 2.0), 0.5)
    np.testing.assert_allclose(
        quantization_error(jnp.array([1.0, 2.0]), jnp.array([0.5, 1])), [0.5, 0.5]
    )


def restored(x: np.ndarray, bits: int) -> np.ndarray:
    """The formula of the quantiser for rows as groups, at any width of a code."""
    low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
    step = (high - low) / (2**bits - 1)
    return np.round((x - low) / step) * step + low


def test_the_model_falls_fourfold_a_bit() -> None:
    """Uniform values, fitted over 3 to 8 bits: 4.2, and 4.0 for a step of range / 2^b.

    A step is ``range / (2^b - 1)``, so the factor is ``(15/7)^2 = 4.6`` from 3 to 4
    bits and ``(255/127)^2 = 4.03`` from 7 to 8: a fit over 3 to 8 gives 4.19, and the
    measured one lies within 2 % of it.
    """
    x = np.random.default_rng(0).uniform(-1, 1, (2000, 64))
    bits = np.arange(3, 9)
    errors = np.array([((x - restored(x, int(b))) ** 2).sum() for b in bits])
    fall = np.exp(-np.polyfit(bits, np.log(errors), 1)[0])
    np.testing.assert_allclose(fall, 4.19, rtol=0.02)
    steps = 2.0**bits - 1
    fall = np.exp(-np.polyfit(bits, np.log(errors * steps**2 / 4.0**bits), 1)[0])
    np.testing.assert_allclose(fall, 4, rtol=0.01)


@pytest.mark.parametrize(
    ("kind", "constant", "tolerance"), [("uniform", 1.0, 0.1), ("normal", 2.0, 0.1)]
)
def test_the_constant_of_the_model(kind, constant, tolerance) -> None:
    """At 8 bits, in groups of 64: as the docstring says, to a tenth."""
    x = matrix(kind, np.random.default_rng(1), 1280, 64)
    measured = frobenius(x - dequantize(quantize(x, 8, 64, "token"))) ** 2
    model = quantization_error(jnp.sum(x**2), 8, constant)
    np.testing.assert_allclose(measured, model, rtol=tolerance)


def test_sixteen_bits_do_not_overflow() -> None:
    """Norms are taken in float32: 128 x 1000^2 is beyond float16."""
    big = jnp.full((8, 16), 1000.0, jnp.float16)
    found = [
        score_error_bound(big[0], big[1]),
        logits_error_bound(big, big),
        output_error_bound(big, big.T, big.T, jnp.array(1.0, jnp.float16)),
        attention_error_bound(jnp.array(1000.0, jnp.float16), 64),
        quantization_error(jnp.array(60_000.0, jnp.float16), 2, 16.0),
    ]
    for bound, expected in zip(
        found, [1.6e7, 1.28e8, 1.28e8 + 11313.7, 62.5, 60_000], strict=True
    ):
        assert bound.dtype == jnp.float32
        np.testing.assert_allclose(bound, expected, rtol=1e-5)


VECTOR, SQUARE, WIDE = jnp.ones(2), jnp.ones((2, 2)), jnp.ones((2, 3))
ONE = jnp.array(1.0)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (score_error_bound, (VECTOR, jnp.ones(3)), "key_error: expected 2 elements"),
        (score_error_bound, (SQUARE, VECTOR), "query: expected a vector"),
        (logits_error_bound, (VECTOR, SQUARE), "queries: expected a matrix, got"),
        (logits_error_bound, (SQUARE, WIDE), "key_error: expected width 2 .* got 3"),
        (attention_error_bound, (ONE, 0), "head_width: expected at least 1, got 0"),
        (output_error_bound, (SQUARE, WIDE, SQUARE, ONE), "value_error: expected"),
        (output_error_bound, (WIDE, WIDE, WIDE, ONE), r"got \(2, 3\), \(2, 3\) and"),
        (output_error_bound, (WIDE, VECTOR, VECTOR, ONE), "values: expected a matrix"),
    ],
)
def test_shapes_that_are_refused(unchecked, function, arguments, message) -> None:
    """By the name of the argument, what was expected and what came."""
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def test_integers_are_refused(unchecked) -> None:
    """In each function, by the argument's name."""
    whole, square = jnp.ones(2, jnp.int32), jnp.ones((2, 2), jnp.int32)
    calls = {
        "squared_norm": lambda: quantization_error(whole, 2),
        "key_error": lambda: score_error_bound(VECTOR, whole),
        "queries": lambda: logits_error_bound(square, SQUARE),
        "logits_error": lambda: attention_error_bound(whole[0], 64),
        "attention_error": lambda: output_error_bound(SQUARE, SQUARE, SQUARE, whole[0]),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=f"{name}: expected a floating-point array"):
            call()
