"""Test quantisation: packed words, error bound, KIVI's formula, edges, errors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jeff_llm.kv.quantize import QuantizedTensor, dequantize, pack, quantize, unpack

compress = jax.jit(
    quantize, static_argnames=("bits", "group_size", "axis", "scale_dtype")
)
restore = jax.jit(dequantize, static_argnames="dtype")
PACKED = (2, 4, 8)


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def spread(groups: Any, group_size: int, axis: str) -> np.ndarray:
    """A value of each group where its members are, [..., tokens, channels]."""
    full = np.repeat(
        np.asarray(groups, np.float64), group_size, -2 if axis == "channel" else -1
    )
    return full.reshape(*full.shape[:-3], -1, full.shape[-1])


@pytest.mark.parametrize(
    ("bits", "token", "row", "word"),
    [
        (2, 0, 0, 3),
        (2, 7, 7, 3),
        (2, 8, 0, 3 << 2),
        (2, 9, 1, 3 << 2),
        (2, 127, 7, 3 << 30),
        (4, 15, 15, 15),
        (4, 16, 0, 15 << 4),
        (4, 127, 15, 15 << 28),
        (8, 31, 31, 255),
        (8, 32, 0, 255 << 8),
        (8, 96, 0, 255 << 24),
    ],
)
def test_the_word_of_a_token_by_hand(bits, token, row, word) -> None:
    """One token at the highest code among zeros: one word is not 0, in its channel."""
    x = jnp.zeros((128, 3)).at[token, 1].set(1.0)
    words = np.asarray(compress(x, bits, 128).words[0])
    assert words.dtype == np.uint32 and words.shape == (4 * bits, 3)
    expected = np.zeros_like(words)
    expected[row, 1] = word
    np.testing.assert_array_equal(words, expected)


@pytest.mark.parametrize("bits", PACKED)
def test_every_code_at_every_place(bits) -> None:
    """Word row r holds in place j the code of token ``j 128/n + r``; and back."""
    codes = (np.arange(128)[:, None] + np.arange(2**bits)) % 2**bits
    places = codes.reshape(32 // bits, 4 * bits, -1)
    expected = sum(place << (bits * j) for j, place in enumerate(places))
    words = pack(jnp.asarray(codes, jnp.uint32), bits)
    np.testing.assert_array_equal(words, expected)
    np.testing.assert_array_equal(unpack(words, bits), codes)
    stacked = jnp.stack([words, words[::-1]])[:, None]
    np.testing.assert_array_equal(unpack(stacked, bits)[0, 0], codes)


def test_values_by_hand() -> None:
    """Two groups of two channels: the zero is the minimum, the step a third."""
    x = jnp.tile(jnp.array([[-1.0, 5.0, 2.0, 2.5]]), (128, 1))
    q = compress(x, 2, 2, "token")
    np.testing.assert_array_equal(q.zero[0, 0], [-1.0, 2.0])
    np.testing.assert_allclose(q.scale[0, 0], [2.0, 0.5 / 3], rtol=1e-6)
    q = compress(jnp.arange(128.0)[:, None], 2, 64, "channel")
    np.testing.assert_array_equal(q.zero[0, :, 0], [0.0, 64.0])
    np.testing.assert_allclose(q.scale[0, :, 0], [21.0, 21.0], rtol=1e-6)
    restored = restore(q)[:, 0]
    np.testing.assert_allclose(restored[jnp.array([0, 10, 11, 63])], [0, 0, 21, 63])


LAYOUTS = [
    ("channel", 128, (128, 8)),
    ("channel", 32, (2, 256, 96)),
    ("token", 32, (2, 256, 96)),
    ("token", 128, (128, 128)),
]


@given(
    layout=st.sampled_from(LAYOUTS),
    bits=st.sampled_from(PACKED),
    scale_dtype=st.sampled_from(["float32", "bfloat16"]),
    exponent=st.floats(-30, 30),
    offset=st.sampled_from([0.0, 1.0, -7.0, 1e3, -1e3]),
    seed=st.integers(0, 10**6),
)
@example(LAYOUTS[0], 8, "bfloat16", -30.0, 0.0, 0)
@example(LAYOUTS[2], 2, "bfloat16", 30.0, -1e3, 0)
@settings(deadline=None, max_examples=60)
def test_error_is_at_most_half_a_step(
    layout, bits, scale_dtype, exponent, offset, seed
) -> None:
    """Of the step that is stored, whatever the magnitude and the offset."""
    axis, group_size, shape = layout
    x = (normal(seed, *shape) + offset) * np.float32(10.0**exponent)
    q = compress(x, bits, group_size, axis, scale_dtype=jnp.dtype(scale_dtype))
    assert q.scale.dtype == q.zero.dtype == jnp.dtype(scale_dtype)
    step = spread(q.scale, group_size, axis)
    exact = np.asarray(x, np.float64)
    error = np.abs(np.asarray(restore(q), np.float64) - exact)
    # Codes up to 255 are quotients rounded in float32, and so are the values.
    slack = 1e-4 * step + 2.0**-22 * np.abs(exact).max()
    assert (error <= step / 2 + slack).all()
    assert (spread(q.zero, group_size, axis) <= exact).all()


def kivi(
    x: np.ndarray, bits: int, group_size: int, axis: str
) -> tuple[np.ndarray, ...]:
    """Codes (before rounding), scale and zero of "KIVI", eq. 1, in float64."""
    tokens, channels = x.shape
    grouped = (
        x.reshape(-1, group_size, channels)
        if axis == "channel"
        else x.reshape(tokens, -1, group_size)
    )
    over = 1 if axis == "channel" else 2
    zero = grouped.min(over, keepdims=True)
    scale = (grouped.max(over, keepdims=True) - zero) / (2**bits - 1)
    codes = ((grouped - zero) / scale).reshape(x.shape)
    return codes, scale.squeeze(over), zero.squeeze(over)


@pytest.mark.parametrize("bits", PACKED)
@pytest.mark.parametrize("axis", ["channel", "token"])
def test_formula_of_kivi(bits, axis) -> None:
    """``Q = round((X - z) / s)`` with ``z = min X``, in groups of 32."""
    x = np.asarray(normal(bits, 256, 64) + 2)
    q = compress(jnp.asarray(x), bits, 32, axis)
    codes, scale, zero = kivi(x.astype(np.float64), bits, 32, axis)
    np.testing.assert_array_equal(q.zero.reshape(zero.shape), zero)
    np.testing.assert_allclose(q.scale.reshape(scale.shape), scale, rtol=1e-6)
    found = np.asarray(unpack(q.words, bits)).reshape(codes.shape)
    clear = np.abs(codes % 1 - 0.5) > 1e-3
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], np.rint(codes)[clear])
    assert (found.min(), found.max()) == (0, 2**bits - 1)
    expected = np.rint(codes) * spread(q.scale, 32, axis) + spread(q.zero, 32, axis)
    np.testing.assert_allclose(restore(q)[clear], expected[clear], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bits", PACKED)
@pytest.mark.parametrize("scale_dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("axis", ["channel", "token"])
def test_constant_groups_are_exact(bits, scale_dtype, axis) -> None:
    """No NaN from a step of 0; nor beside groups that are not constant."""
    group_size = 64 if axis == "channel" else 2
    constants = jnp.array([0.0, 0.0, 1.5, 1.5, -(2.0**100), -(2.0**100), 2.0**-100])
    x = jnp.broadcast_to(jnp.append(constants, 2.0**-100), (128, 8))
    q = compress(x, bits, group_size, axis, scale_dtype=scale_dtype)
    assert not q.scale.any() and not q.words.any()
    np.testing.assert_array_equal(restore(q), x)
    mixed = jnp.concatenate([x, normal(0, 128, 8)], axis=-1)
    q = compress(mixed, bits, group_size, axis, scale_dtype=scale_dtype)
    np.testing.assert_array_equal(restore(q)[:, :8], x)


def test_constant_groups_divide_by_no_zero() -> None:
    """No step on the way is NaN, which not every back end casts to the code 0."""
    with jax.debug_nans(True):
        quantize(jnp.ones((128, 1)), 2, 128)


@pytest.mark.parametrize("value", [1 / 3, -1 / 3, 255.5, -1e-30])
def test_constants_that_the_scale_cannot_hold(value) -> None:
    """The step makes up for the zero, which bfloat16 rounds down."""
    x = jnp.full((128, 1), value)
    q = compress(x, 2, 128, scale_dtype=jnp.bfloat16)
    zero = float(q.zero[0, 0, 0])
    assert zero < x[0, 0] and abs(zero - value) < abs(value) / 128
    np.testing.assert_allclose(restore(q), x, atol=float(q.scale[0, 0, 0]) / 2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_sixteen_bits_are_the_values(dtype) -> None:
    """As they are, in their dtype, without scales."""
    x = normal(0, 2, 256, 8).astype(dtype)
    q = compress(x, 16, 8, "token", scale_dtype=jnp.bfloat16)
    assert q.words.dtype == dtype and q.words.shape == (2, 2, 128, 8)
    assert q.scale.size == q.zero.size == 0 and q.scale.dtype == jnp.bfloat16
    np.testing.assert_array_equal(restore(q, dtype=dtype), x)


def test_bfloat16_values_are_quantised_in_float32() -> None:
    x = normal(0, 128, 8).astype(jnp.bfloat16)
    found, wide = (compress(each, 4, 64) for each in (x, x.astype(jnp.float32)))
    for mine, theirs in zip(*map(jax.tree.leaves, (found, wide)), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert restore(found, dtype=jnp.bfloat16).dtype == jnp.bfloat16


@pytest.mark.parametrize(("axis", "group_size"), [("channel", 64), ("token", 8)])
def test_leading_axes_vmap_and_jit(axis, group_size) -> None:
    """Each tensor by itself, as without a transformation."""
    x = normal(1, 2, 3, 256, 8)
    whole = compress(x, 4, group_size, axis)
    mapped = jax.vmap(jax.vmap(lambda x: quantize(x, 4, group_size, axis)))(x)
    plain = quantize(x, 4, group_size, axis)
    for other in (mapped, plain):
        assert jax.tree.structure(other) == jax.tree.structure(whole)
        np.testing.assert_array_equal(other.words, whole.words)
        np.testing.assert_allclose(other.scale, whole.scale, rtol=1e-6)
    alone = restore(compress(x[1, 2], 4, group_size, axis))
    np.testing.assert_array_equal(restore(whole)[1, 2], alone)
    np.testing.assert_allclose(jax.vmap(dequantize)(whole), restore(whole), atol=3e-7)


@pytest.mark.parametrize(
    ("bits", "axis", "scale_dtype", "expected"),
    [
        # Words, then scales and zeros of 2 x 3 x 2 blocks of 128 x 64 values.
        (4, "channel", jnp.bfloat16, 12 * (128 * 64 // 2 + 2 * 2 * 64 * 2)),
        (2, "token", jnp.float32, 12 * (128 * 64 // 4 + 2 * 128 * 4)),
        (16, "token", jnp.float32, 12 * 128 * 64 * 4),
    ],
)
def test_nbytes(bits, axis, scale_dtype, expected) -> None:
    q = compress(normal(0, 2, 3, 256, 64), bits, 64, axis, scale_dtype=scale_dtype)
    assert q.nbytes == expected
    assert isinstance(q, QuantizedTensor) and (q.bits, q.axis) == (bits, axis)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((128, 8), {"bits": 3}, r"bits: expected one of \(2, 4, 8, 16\), got 3"),
        ((100, 8), {}, "x: expected a multiple of 128 tokens, got 100; pad it"),
        (
            (128, 8),
            {"group_size": 48},
            "group_size: .* 128 tokens of a block, got 48; 1, 2, .* 64, 128 are",
        ),
        ((128, 8), {"group_size": 0}, "group_size: expected .*, got 0"),
        ((128, 8), {"group_size": 16, "axis": "token"}, "the 8 channels of a head"),
        ((128, 8), {"axis": "row"}, r"axis: expected one of .*, got 'row'"),
        ((0, 8), {}, "x: expected a multiple of 128 tokens, got 0"),
        ((128, 8), {"scale_dtype": jnp.float16}, "scale_dtype: .* got 'float16'"),
    ],
)
def test_mistakes(unchecked, shape, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        quantize(jnp.zeros(shape), **{"bits": 4, **options})


def test_integers_are_refused(unchecked) -> None:
    with pytest.raises(TypeError, match="x: expected a floating-point array, got int"):
        quantize(jnp.zeros((128, 8), jnp.int32), 4)
