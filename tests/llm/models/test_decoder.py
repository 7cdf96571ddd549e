"""Test the decoder: invariances of its logits, and parity with transformers.

Logits of the tiny models have a standard deviation near 5 and lie within 20, so one
rounding of float32 is 1e-6; `ROUNDING` is three times the largest difference measured.
"""

import dataclasses
import itertools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jeff_llm.models import decoder
from jeff_llm.models.cache import init_cache
from jeff_llm.models.config import DecoderConfig

ROUNDING = 1.5e-5
apply = jax.jit(decoder.apply, static_argnames=("config", "hidden_layers", "remat"))

SMALL = DecoderConfig(
    vocab_size=61,
    num_layers=3,
    width=32,
    mlp_width=48,
    num_heads=4,
    num_kv_heads=2,
    head_width=8,
    max_positions=128,
    tied=True,
)
# One of each option, and a window that only some layers have.
FULL = dataclasses.replace(
    SMALL,
    tied=False,
    attention_bias=True,
    output_bias=True,
    qk_norm=True,
    sliding_window=4,
    sliding_layers=(True, False, True),
)
CONFIGS = {"small": SMALL, "full": FULL}
ROWS = [[5, 9, 2, 60, 7, 31, 8, 8, 1, 12], [3], [44, 0, 9, 17, 21], [2, 2, 2, 7, 7, 7]]


@pytest.fixture(params=CONFIGS, scope="module")
def model(request, make_params):
    config = CONFIGS[request.param]
    return config, make_params(config)


# Where one configuration is enough.
with_all_options = pytest.mark.parametrize(
    "model", ["full"], indirect=True, scope="module"
)


@pytest.fixture(scope="module")
def alone(model):
    """Logits of each row by itself, without padding."""
    return [apply(*model, jnp.array([row])).logits[0] for row in ROWS]


def padded(rows, left, right, fill=13):
    """Rows with so much padding on each side, and the shorter ones in between."""
    width = left + max(map(len, rows)) + right
    tokens = np.full((len(rows), width), fill, np.int32)
    mask = np.zeros(tokens.shape, bool)
    for number, row in enumerate(rows):
        begin = left + (number % 3 if len(row) < width - left - 2 else 0)
        tokens[number, begin : begin + len(row)] = row
        mask[number, begin : begin + len(row)] = True
    return jnp.asarray(tokens), jnp.asarray(mask)


def test_parameters() -> None:
    """Named by what they are, stacked over layers; kernels of deviation 0.02."""
    params = decoder.init(FULL, key=jax.random.key(0))
    chex.assert_trees_all_equal_shapes_and_dtypes(params, decoder.shapes(FULL))
    layers = params["layers"]
    assert layers["attention"]["query"]["kernel"].shape == (3, 32, 32)
    assert layers["attention"]["key"]["kernel"].shape == (3, 32, 16)
    assert layers["attention"]["value"]["bias"].shape == (3, 16)
    assert layers["attention"]["query_norm"]["scale"].shape == (3, 8)
    assert layers["gate"]["kernel"].shape == (3, 32, 48)
    assert params["head"]["kernel"].shape == (32, 61)
    assert not layers["attention"]["output"]["bias"].any()
    assert (layers["mlp_norm"]["scale"] == 1).all()
    # 4,608 draws: three standard errors are 3 %.
    assert float(layers["up"]["kernel"].std()) == pytest.approx(0.02, rel=0.03)
    first, second = layers["gate"]["kernel"][:2]
    assert not (first == second).any(), "layers are drawn apart"
    assert set(decoder.shapes(SMALL)) == {"embedding", "layers", "norm"}
    assert "bias" not in decoder.shapes(SMALL)["layers"]["attention"]["query"]


def test_the_module_and_the_function_are_one() -> None:
    """`Decoder` called as a module is `apply` of its own parameters."""
    module = decoder.Decoder(SMALL, rngs=nnx.Rngs(3))
    params = nnx.to_pure_dict(nnx.split(module)[1])
    tokens = jnp.array([ROWS[0]])
    expected = decoder.apply(SMALL, params, tokens)
    np.testing.assert_array_equal(module(tokens).logits, expected.logits)
    assert expected.cache is None and expected.hidden.shape == (0, 1, 10, 32)


def test_one_layer_by_hand() -> None:
    """Zero kernels leave the embedding alone: logits are E . normalised E."""
    config = dataclasses.replace(SMALL, num_layers=1, norm_eps=0.0)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape), decoder.shapes(config))
    table = jnp.zeros((61, 32)).at[3].set(2.0).at[4, 0].set(5.0)
    params = {**zeros, "embedding": table, "norm": {"scale": jnp.full(32, 0.5)}}
    logits = decoder.apply(config, params, jnp.array([[3, 4]])).logits
    # Token 3 is normalised to ones, token 4 to sqrt(32) in its first place.
    expected = np.zeros((2, 61))
    expected[0, 3], expected[0, 4] = 2 * 32 * 0.5, 5 * 0.5
    expected[1, 3], expected[1, 4] = 2 * 32**0.5 * 0.5, 5 * 32**0.5 * 0.5
    np.testing.assert_allclose(logits[0], expected, rtol=1e-6)


@with_all_options
def test_causal(model) -> None:
    """What comes later changes nothing before it; what came before does."""
    first = apply(*model, jnp.array([ROWS[0]])).logits[0]
    second = apply(*model, jnp.array([[*ROWS[0][:6], 50, 51, 52, 53]])).logits[0]
    np.testing.assert_array_equal(first[:6], second[:6])
    assert (jnp.abs(first[6:] - second[6:]).max(axis=1) > 0.1).all()


@pytest.mark.parametrize(("left", "right"), [(4, 0), (0, 4), (2, 2)])
def test_padding_and_batch_mates(model, alone, left, right) -> None:
    """Neither side's padding, nor the other rows, nor what stands in the padding."""
    tokens, mask = padded(ROWS, left, right)
    logits = apply(*model, tokens, mask=mask).logits
    assert jnp.isfinite(logits).all()
    for row, expected in enumerate(alone):
        np.testing.assert_allclose(logits[row][mask[row]], expected, atol=ROUNDING)
    other, _ = padded(ROWS, left, right, fill=59)
    again = apply(*model, other, mask=mask).logits
    np.testing.assert_array_equal(logits[mask], again[mask])


@pytest.mark.parametrize("chunks", [[1] * 10, [4, 1, 4, 1]])
def test_cache(model, alone, chunks) -> None:
    """One by one, in chunks or at once: the logits of no cache."""
    cache = init_cache(model[0], 1, 12)
    got, begin = [], 0
    for size in chunks:
        tokens = jnp.array([ROWS[0][begin : begin + size]])
        out = apply(*model, tokens, cache=cache)
        got.append(out.logits[0])
        cache, begin = out.cache, begin + size
        np.testing.assert_array_equal(cache.lengths, [begin])
    np.testing.assert_allclose(jnp.concatenate(got), alone[0], atol=ROUNDING)


@with_all_options
def test_ragged_cache(model, alone) -> None:
    """Rows of different lengths go on from where each of them is."""
    cut = [4, 1, 2, 5]
    heads = [row[:size] for row, size in zip(ROWS, cut, strict=True)]
    tails = [row[size:] for row, size in zip(ROWS, cut, strict=True)]
    got: list[list[Any]] = [[] for _ in ROWS]
    cache = init_cache(model[0], len(ROWS), 16)
    for part in (heads, tails):
        tokens, mask = padded(part, 2, 3)
        out = apply(*model, tokens, mask=mask, cache=cache)
        cache = out.cache
        for row in range(len(ROWS)):
            got[row].append(out.logits[row][mask[row]])
    np.testing.assert_array_equal(cache.lengths, list(map(len, ROWS)))
    for row, expected in enumerate(alone):
        np.testing.assert_allclose(jnp.concatenate(got[row]), expected, atol=ROUNDING)


def test_window_reaches_as_far_as_it_says(make_params) -> None:
    """With three layers and a window of 4, a token sees 3 * 3 tokens back, no more."""
    config = dataclasses.replace(SMALL, sliding_window=4)
    params = make_params(config)
    tokens = jnp.array([ROWS[0] * 2])
    base = apply(config, params, tokens).logits[0]
    changed = apply(config, params, tokens.at[0, 2].set(50)).logits[0]
    differs = np.asarray(jnp.abs(base - changed).max(axis=1) > 0)
    assert differs[2:12].all() and not differs[:2].any() and not differs[12:].any()
    wide = dataclasses.replace(config, sliding_window=20)
    plain = apply(SMALL, params, tokens).logits
    np.testing.assert_array_equal(apply(wide, params, tokens).logits, plain)


@with_all_options
def test_packed_texts(model, alone) -> None:
    """Texts that share a row do not see each other."""
    order = [2, 0, 3]
    lengths = [len(ROWS[row]) for row in order]
    tokens = [*itertools.chain(*(ROWS[row] for row in order)), 9, 9]
    positions = [*itertools.chain(*map(range, lengths)), 0, 0]
    segments = np.repeat([1, 2, 3, 0], [*lengths, 2])
    logits = apply(
        *model,
        jnp.array([tokens]),
        mask=jnp.asarray(segments > 0)[None],
        positions=jnp.array([positions]),
        segments=jnp.asarray(segments)[None],
    ).logits[0]
    for row, part in zip(order, np.split(logits, np.cumsum(lengths)), strict=False):
        np.testing.assert_allclose(part, alone[row], atol=ROUNDING)


@with_all_options
def test_select(model, alone) -> None:
    """The head after chosen tokens alone, in any order."""
    tokens, mask = padded(ROWS, 2, 2)
    last = jnp.array([[9, 0], [0, 0], [4, 1], [5, 5]])
    # Rows that are shorter than the longest begin later, as `padded` does it.
    begin = jnp.argmax(mask, axis=1)[:, None]
    got = apply(*model, tokens, mask=mask, select=last + begin).logits
    for row, expected in enumerate(alone):
        np.testing.assert_allclose(got[row], expected[last[row]], atol=ROUNDING)


def test_hidden_layers(model) -> None:
    """0 is the embedding, -1 what the logits are made of; negatives count back."""
    config, params = model
    tokens = jnp.array([ROWS[0]])
    out = apply(config, params, tokens, hidden_layers=(0, 1, 2, 3, -1, -2, -4, 1))
    assert out.hidden.shape == (8, 1, 10, 32)
    np.testing.assert_array_equal(out.hidden[0], params["embedding"][tokens])
    for one, other in ((3, 4), (2, 5), (0, 6), (1, 7)):
        np.testing.assert_array_equal(out.hidden[one], out.hidden[other])
    table = params["embedding"].T if config.tied else params["head"]["kernel"]
    np.testing.assert_allclose(out.hidden[4] @ table, out.logits, atol=ROUNDING)
    # Layer by layer: a decoder of the first layer alone says what layer 1 gives.
    first = {**params, "layers": jax.tree.map(lambda x: x[:1], params["layers"])}
    layers = config.sliding_layers and config.sliding_layers[:1]
    one = dataclasses.replace(config, num_layers=1, sliding_layers=layers)
    normed = apply(one, first, tokens, hidden_layers=(-1,)).hidden[0]
    x = out.hidden[1]
    root = jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + config.norm_eps)
    np.testing.assert_allclose(
        normed, x / root * params["norm"]["scale"], atol=ROUNDING
    )


@with_all_options
def test_hidden_states_with_a_cache(model) -> None:
    """Those of no cache."""
    tokens = jnp.array([ROWS[0]])
    expected = apply(*model, tokens, hidden_layers=(1, -1)).hidden
    first = apply(
        *model, tokens[:, :6], cache=init_cache(model[0], 1, 10), hidden_layers=(1, -1)
    )
    rest = apply(*model, tokens[:, 6:], cache=first.cache, hidden_layers=(1, -1))
    got = jnp.concatenate([first.hidden, rest.hidden], axis=2)
    np.testing.assert_allclose(got, expected, atol=ROUNDING)


def test_remat(make_params) -> None:
    """Computing again takes less memory, and changes neither value nor gradient."""
    params = make_params(FULL)
    tokens, mask = padded(ROWS, 2, 2)

    def loss(params, remat):
        out = decoder.apply(FULL, params, tokens, mask=mask, remat=remat)
        return jnp.sum(jax.nn.log_softmax(out.logits)[..., 7] * mask)

    run = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    kept, computed = (run.lower(params, remat).compile() for remat in (False, True))
    memory = [each.memory_analysis().temp_size_in_bytes for each in (kept, computed)]
    assert memory[1] < 0.75 * memory[0]
    (value, slope), (again, same) = kept(params), computed(params)
    np.testing.assert_allclose(again, value, rtol=1e-6)
    chex.assert_trees_all_close(same, slope, rtol=1e-5, atol=1e-5)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


def test_jit(make_params) -> None:
    """Not jitted, the logits are the same to rounding."""
    params = make_params(FULL)
    tokens, mask = padded(ROWS, 2, 2)
    plain = decoder.apply(FULL, params, tokens, mask=mask).logits
    jitted = apply(FULL, params, tokens, mask=mask).logits
    np.testing.assert_allclose(jitted, plain, atol=ROUNDING)


@with_all_options
def test_bfloat16(model, alone) -> None:
    """Parameters of bfloat16 compute in bfloat16; the logits come in float32."""
    config, params = model
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    out = apply(config, half, jnp.array([ROWS[0]]), hidden_layers=(1,))
    assert (out.logits.dtype, out.hidden.dtype) == (jnp.float32, jnp.bfloat16)
    error = jnp.abs(out.logits[0] - alone[0])
    spread = float(alone[0].std())
    assert float(jnp.sqrt(jnp.mean(error**2))) < 0.03 * spread
    cache = init_cache(config, 1, 10, jnp.bfloat16)
    cached = apply(config, half, jnp.array([ROWS[0]]), cache=cache)
    assert cached.cache.keys.dtype == jnp.bfloat16
    np.testing.assert_array_equal(cached.logits, out.logits)


def test_layers_are_compiled_once() -> None:
    """The program does not grow with the number of layers."""

    def program(layers: int) -> str:
        config = dataclasses.replace(SMALL, num_layers=layers)
        tokens = jax.ShapeDtypeStruct((2, 5), jnp.int32)
        traced = jax.jit(decoder.apply, static_argnums=0).trace(
            config, decoder.shapes(config), tokens
        )
        return str(traced.jaxpr)

    few, many = program(2), program(30)
    assert few.count("dot_general") == many.count("dot_general") == 10
    assert len(few.splitlines()) == len(many.splitlines())


def test_values_compile_nothing(make_params) -> None:
    """Other tokens and parameters of the same shapes run the same program."""
    params = make_params(SMALL)
    traced = jax.jit(chex.assert_max_traces(decoder.apply, 1), static_argnames="config")
    for fill in (1, 2):
        tokens, mask = padded(ROWS, 0, 3, fill)
        other = jax.tree.map(lambda leaf: leaf * fill, params)  # noqa: B023
        traced(SMALL, other, tokens, mask=mask)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segments": jnp.zeros((1, 10), int)}, "segments: expected positions"),
        ({"cache": init_cache(SMALL, 1, 9)}, "cache: .* least 10 tokens, got 9"),
        ({"hidden_layers": (0, 4)}, "hidden_layers: .* from -4 to 3, got 4"),
        ({"hidden_layers": (-5,)}, "hidden_layers: .* got -5"),
    ],
)
def test_arguments_that_do_not_fit(make_params, options, message) -> None:
    """Each is told before anything is computed."""
    with pytest.raises(ValueError, match=message):
        decoder.apply(SMALL, make_params(SMALL), jnp.array([ROWS[0]]), **options)


@pytest.mark.usefixtures("unchecked")
def test_tokens_without_a_batch(make_params) -> None:
    """One text is a batch of one."""
    with pytest.raises(ValueError, match=r"tokens: expected \[batch, tokens\], .*10"):
        decoder.apply(SMALL, make_params(SMALL), jnp.array(ROWS[0]))
