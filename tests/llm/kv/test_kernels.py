"""Test the Pallas kernels: against the reference and numpy, skipping, lowering.

On a GPU its kernel is compiled and run; elsewhere both are run in Pallas' interpreter.
"""

import functools
import re
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jeff_llm import kv
from jeff_llm.kv import attention, kernels_gpu, kernels_tpu
from jeff_llm.kv.quantize import BLOCK, Axis, QuantizedTensor
from jeff_llm.models.partial import Partial

KERNELS = {"gpu": kernels_gpu.packed_partial, "tpu": kernels_tpu.packed_partial}
reference = jax.jit(attention.packed_partial, static_argnames="soft_cap")
quantize = jax.jit(
    kv.quantize, static_argnames=("bits", "group_size", "axis", "scale_dtype")
)
CHIP = jax.default_backend() if jax.default_backend() in KERNELS else None
HERE = [CHIP] if CHIP else list(KERNELS)
both = pytest.mark.parametrize("kernel", HERE)


def with_options(*pairs: tuple[str, dict[str, int]]) -> Any:
    kept = [pair for pair in pairs if pair[0] in HERE]
    return pytest.mark.parametrize(("kernel", "options"), kept)


class Case(NamedTuple):
    key_bits: int = 4
    value_bits: int = 2
    axis: Axis = "channel"
    group_size: int = 64
    rows: int = 4
    width: int = 64
    blocks: int = 2
    dtype: Any = jnp.float32
    scale_dtype: Any = jnp.bfloat16


def tensors(case: Case, batch: int, kv_heads: int = 1) -> list[jax.Array]:
    """Rows, keys and values before they are quantised."""
    draw = np.random.default_rng(0).normal
    tokens = (batch, kv_heads, case.blocks * BLOCK, case.width)
    rows = 2 * case.width**-0.5 * draw(size=(batch, kv_heads, case.rows, case.width))
    # Outlying channels, as keys have them, and logits of several units.
    keys = np.exp(draw(size=case.width)) * draw(size=tokens)
    return [jnp.asarray(x, case.dtype) for x in (rows, keys, draw(size=tokens))]


def operands(
    case: Case, batch: int, kv_heads: int = 1
) -> tuple[jax.Array, QuantizedTensor, QuantizedTensor]:
    rows, keys, values = tensors(case, batch, kv_heads)
    size, dtype = case.group_size, case.scale_dtype
    return (
        rows,
        quantize(keys, case.key_bits, size, case.axis, scale_dtype=dtype),
        quantize(
            values, case.value_bits, min(size, case.width), "token", scale_dtype=dtype
        ),
    )


def compiled(kernel: str, **options: Any) -> Any:
    if kernel == CHIP:
        return jax.jit(functools.partial(KERNELS[kernel], **options))
    call = functools.partial(KERNELS[kernel], interpret=True, **options)
    # What runs once is compiled in half the time without the optimiser.
    return jax.jit(call, compiler_options={"xla_backend_optimization_level": 0})


def run(kernel: str, *args: Any, **options: Any) -> Partial:
    return compiled(kernel, **options)(*args)


def normalised(partial: Partial) -> tuple[np.ndarray, np.ndarray]:
    """Attention, and the logarithm of the sum of exponentials; zeros where none."""
    seen = np.asarray(partial.total) > 0
    np.testing.assert_array_equal(partial.highest[~seen], np.float32(-1e30))
    np.testing.assert_array_equal(partial.out[~seen], 0)
    total = np.where(seen, partial.total, 1)
    return (
        np.asarray(partial.out) / total[..., None],
        np.where(seen, partial.highest + np.log(total), 0),
    )


def exact(
    rows: Any, keys: Any, values: Any, first: jax.Array, end: jax.Array
) -> tuple[np.ndarray, np.ndarray]:
    """The same in numpy's float64, over keys and values that are restored first."""
    query, key, value = (
        np.asarray(kv.dequantize(x) if isinstance(x, QuantizedTensor) else x, float)
        for x in (rows, keys, values)
    )
    token = np.arange(key.shape[2])
    seen = (token >= first[..., None]) & (token < end[..., None])
    weights = np.where(seen[:, None], np.exp(query @ key.swapaxes(2, 3)), 0)
    total = weights.sum(-1)
    some = np.where(total > 0, total, 1)
    return weights @ value / some[..., None], np.log(some)


def agree(found: Any, expected: Any) -> None:
    # Float32 on both sides: sums of up to 384 terms in another order.
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


def spans(ends: Any, rows: int, window: int | None = None) -> tuple[Any, Any]:
    end = jnp.tile(jnp.array(ends)[:, None], (1, rows))
    first = jnp.zeros_like(end) if window is None else jnp.maximum(end - window, 0)
    return first, end


@both
@pytest.mark.parametrize(
    ("case", "window", "soft_cap"),
    [
        (Case(width=128), None, None),
        (Case(width=128, axis="token"), None, None),
        (Case(2, 4, "channel", 32, rows=3, width=96), None, None),
        (Case(8, 8, "token", 32, rows=1, width=96), None, None),
        (Case(2, 2, "channel", 128, rows=8), None, None),
        (Case(16, 2, rows=8, scale_dtype=jnp.float32), None, None),
        (Case(8, 16, "token", 32, rows=3), None, None),
        (Case(16, 16, rows=1, blocks=1), None, None),
        (Case(4, 8, "token", 64, rows=4, blocks=3), 130, None),
        (Case(4, 2, "channel", 32, rows=4), None, 3.0),
    ],
)
def test_the_reference_in_float32(kernel, case, window, soft_cap) -> None:
    """Sequences of a batch that end before, at and behind a block, and everywhere."""
    capacity = case.blocks * BLOCK
    ends = [0, 1, 127, 128, min(129, capacity), capacity]
    given_ = (*operands(case, len(ends)), *spans(ends, case.rows, window))
    found = run(kernel, *given_, soft_cap=soft_cap)
    assert found.out.shape == given_[0].shape
    assert all(part.dtype == jnp.float32 for part in found)
    agree(normalised(found), normalised(reference(*given_, soft_cap=soft_cap)))


@both
@pytest.mark.parametrize("axis", ["channel", "token"])
def test_attention_in_float64(kernel, axis) -> None:
    """Several heads, written without anything of the package's attention."""
    case = Case(8, 4, axis, 32, rows=2)
    given_ = (*operands(case, 2, kv_heads=3), *spans([200, 77], case.rows, 100))
    agree(normalised(run(kernel, *given_)), exact(*given_))
    agree(normalised(reference(*given_)), exact(*given_))


@both
@pytest.mark.parametrize(
    "case",
    [
        Case(4, 2, dtype=jnp.bfloat16),
        Case(2, 4, "token", 32, dtype=jnp.bfloat16),
        Case(4, 8, "token", dtype=jnp.bfloat16, scale_dtype=jnp.float32),
        Case(16, 16, dtype=jnp.bfloat16),
        Case(4, 2, "token", width=128, dtype=jnp.bfloat16),
        Case(2, 2, "channel", 32, rows=3, width=96, dtype=jnp.bfloat16),
        Case(4, 4, "channel", 16, rows=1, width=16, dtype=jnp.bfloat16),
        Case(2, 2, "channel", 16, rows=16, width=32, dtype=jnp.bfloat16),
        Case(4, 2, width=128, dtype=jnp.bfloat16),
    ],
)
def test_bfloat16(kernel, case) -> None:
    """A little further from float64 than the reference, beside what quantising does."""
    given_ = (*operands(case, 2), *spans([256, 129], case.rows))
    truth = exact(*given_)

    def error(found: Any) -> np.ndarray:
        pairs = zip(found, truth, strict=True)
        return np.array([np.sqrt(np.mean((a - b) ** 2)) for a, b in pairs])

    allowed = error(normalised(reference(*given_)))
    rows, keys, values = tensors(case, 2)
    quantised = error(exact(rows, keys, values, *spans([256, 129], case.rows)))
    found = error(normalised(run(kernel, *given_)))
    assert (found <= 1.5 * allowed + 0.1 * quantised).all()
    # A chip rounds where XLA on a CPU keeps more bits.
    assert found[0] < max(2**-6, 0.05 * quantised[0] if CHIP else 0)


KEPT = {kernel: compiled(kernel) for kernel in HERE}


@both
@given(
    ends=st.lists(st.integers(0, 3 * BLOCK), min_size=4, max_size=4),
    lengths=st.lists(st.integers(0, 3 * BLOCK), min_size=4, max_size=4),
)
@settings(deadline=None, max_examples=30)
def test_any_span(kernel, ends, lengths) -> None:
    """Rows with spans of their own, some empty."""
    case = Case(4, 2, blocks=3, rows=2)
    end = jnp.array(ends).reshape(2, 2)
    first = jnp.maximum(end - jnp.array(lengths).reshape(2, 2), 0)
    given_ = (*operands(case, 2), first, end)
    agree(normalised(KEPT[kernel](*given_)), exact(*given_))


@with_options(
    ("gpu", {"splits": 1}),
    ("gpu", {"splits": 2}),
    ("gpu", {"splits": 7}),
    ("gpu", {"num_warps": 8, "num_stages": 3}),
    ("tpu", {"tile": 1}),
    ("tpu", {"tile": 2}),
    ("tpu", {"tile": 99}),
)
@pytest.mark.parametrize("bits", [2, 16])
def test_shares_and_tiles(kernel, options, bits) -> None:
    """Any division of three blocks; the last tile of two hangs over the end."""
    case = Case(4, bits, blocks=3)
    given_ = (*operands(case, 2), *spans([384, 130], case.rows))
    agree(normalised(run(kernel, *given_, **options)), normalised(reference(*given_)))


@with_options(("gpu", {}), ("tpu", {"tile": 1}))
def test_blocks_outside_the_span_are_not_touched(kernel, options) -> None:
    """They hold what is no number, and nothing of it comes through."""
    case = Case(blocks=5)
    rows, keys, values = operands(case, 2)
    first, end = spans([384, 256], case.rows, 128)
    poisoned = [
        QuantizedTensor(
            q.words,
            q.scale.at[0, :, jnp.array([0, 1, 3, 4])].set(jnp.nan),
            q.zero.at[1, :, jnp.array([0, 2, 3, 4])].set(jnp.nan),
            q.bits,
            q.group_size,
            q.axis,
        )
        for q in (keys, values)
    ]
    found = run(kernel, rows, *poisoned, first, end, **options)
    agree(normalised(found), exact(rows, keys, values, first, end))


def in_stack(tree: Any, layers: int) -> Any:
    """The sequences of a batch, shared out among layers."""
    return jax.tree.map(
        lambda x: x.reshape(layers, len(x) // layers, *x.shape[1:]), tree
    )


@pytest.mark.parametrize("kernel", ["xla", *HERE])
@pytest.mark.parametrize(
    "case",
    [
        Case(width=128),
        Case(4, 16, "token", 32, width=64, dtype=jnp.bfloat16),
    ],
)
def test_a_layer_of_a_stack(kernel, case) -> None:
    """By a number that a scan gives, and by one known when the program is made."""
    given_ = operands(case, 6, kv_heads=2)
    rows, keys, values = in_stack(given_, 3)
    first, end = spans([case.blocks * BLOCK, 77], case.rows, 100)
    attend = (
        attention.packed_partial
        if kernel == "xla"
        else functools.partial(KERNELS[kernel], interpret=kernel != CHIP)
    )

    # Nothing here is fast enough to be worth the optimiser's time.
    quick = functools.partial(
        jax.jit, compiler_options={"xla_backend_optimization_level": 0}
    )

    @quick
    def of_layers(rows: Any, keys: Any, values: Any) -> Any:
        def one(pair: Any) -> Partial:
            layer, rows = pair
            return attend(rows, keys, values, first, end, layer=layer)

        last = attend(rows[2], keys, values, first, end, layer=2)
        return jax.lax.map(one, (jnp.arange(3), rows)), last

    found, last = of_layers(rows, keys, values)
    cut_out = quick(attend)(*given_, jnp.tile(first, (3, 1)), jnp.tile(end, (3, 1)))
    agree(found, in_stack(cut_out, 3))
    agree(last, Partial(*(x[2] for x in found)))


def test_no_layer_is_copied_out_of_its_stack(monkeypatch) -> None:
    """XLA's program has tiles of a layer, and nothing as large as one."""
    monkeypatch.setattr(attention, "_TILE", BLOCK)
    case = Case(blocks=5)
    rows, keys, values = in_stack(operands(case, 6), 3)
    first, end = spans([640, 300], case.rows)

    @functools.partial(jax.jit, static_argnames="where_it_lies")
    def of_layers(rows: Any, keys: Any, values: Any, *, where_it_lies: bool) -> Any:
        def one(pair: Any) -> Partial:
            layer, rows = pair
            held, place = (keys, values), layer
            if not where_it_lies:
                held, place = jax.tree.map(lambda x: x[layer], held), None
            return attention.packed_partial(rows, *held, first, end, layer=place)

        return jax.lax.map(one, (jnp.arange(3), rows))

    def copies(where_it_lies: bool) -> int:
        lowered = of_layers.lower(rows, keys, values, where_it_lies=where_it_lies)
        text = lowered.compile().as_text()
        assert "u32[3,2,1,5,16,64]" in text
        return len(re.findall(r"\[(?:1,)?2,1,5,\d+,\d+\]", text))

    assert copies(where_it_lies=False)
    assert not copies(where_it_lies=True)


@both
@pytest.mark.parametrize("axis", ["channel", "token"])
@pytest.mark.parametrize(("width", "layers"), [(64, 3), (128, 2**16)])
def test_lowering(kernel, axis, width, layers) -> None:
    """Both platforms' modules are made on a machine that has neither.

    The kernel's words are those of all layers; the larger stack has more bytes than 32
    bits can address.
    """
    platform, target = {
        "gpu": ("cuda", "__gpu$xla.gpu.triton"),
        "tpu": ("tpu", "tpu_custom_call"),
    }[kernel]
    if kernel == "gpu" != CHIP and jax.__version_info__ > (0, 10, 2):
        pytest.skip("later versions lower a Triton kernel only where a GPU is")
    case = Case(axis=axis, width=width, blocks=17, dtype=jnp.bfloat16)
    rows, *stack = jax.eval_shape(functools.partial(operands, case, 1))
    stack = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((layers, *x.shape), x.dtype), stack
    )
    given_ = (rows, *stack, *spans([1000], case.rows, 500))
    attend = functools.partial(KERNELS[kernel], soft_cap=30.0)
    exported = jax.export.export(
        jax.jit(lambda layer, *given_: attend(*given_, layer=layer)),
        platforms=[platform],
        disabled_checks=[jax.export.DisabledSafetyCheck.custom_call(target)],
    )(jnp.array(1), *given_)
    lines = exported.mlir_module().splitlines()
    [call] = [line for line in lines if f"custom_call @{target}(" in line]
    read = set(re.findall(r"tensor<(\d+)x1x1x17x(?:1x)?\d+x\d+xui32>", call))
    # A TPU's lanes are filled by heads of 128 only.
    assert read == {"1" if kernel == "tpu" and width == 64 else str(layers)}
    assert exported.out_avals[0].shape == given_[0].shape


def test_the_default(monkeypatch) -> None:
    """The kernel on one GPU that has its instructions, for what it takes; else XLA."""
    calls = []

    def kernel(*args: Any, **options: Any) -> Partial:
        calls.append(args)
        return reference(*args, **options)

    monkeypatch.setattr(kernels_gpu, "packed_partial", kernel)

    def taken(
        case: Case, capability: str | None, count: int = 1, rows: int = 1
    ) -> bool:
        monkeypatch.setattr(
            jax, "default_backend", lambda: "gpu" if capability else "cpu"
        )
        device = types.SimpleNamespace(compute_capability=capability)
        monkeypatch.setattr(jax, "devices", lambda: [device])
        monkeypatch.setattr(jax, "device_count", lambda: count)
        calls.clear()
        partial = attention._choose_partial(None, single=rows == 1)
        partial(*operands(case, 1), *spans([100], case.rows), soft_cap=None)
        return bool(calls)

    case = Case(dtype=jnp.bfloat16)
    assert taken(case, "9.0")
    assert taken(case._replace(axis="token"), "10.0")
    assert not taken(case._replace(group_size=48, width=96, axis="token"), "9.0")
    assert not taken(case._replace(rows=65), "9.0")
    assert not taken(case._replace(dtype=jnp.float32), "9.0")
    assert not taken(case, "8.0")
    assert not taken(case, "gfx942")
    assert not taken(case, "9.0", count=2)
    assert not taken(case, "9.0", rows=2)
    assert not taken(case, None)


@both
def test_too_many_rows(kernel) -> None:
    """By name, with what to do."""
    given_ = (*operands(Case(rows=65), 1), *spans([1], 65))
    with pytest.raises(ValueError, match=r"rows: .* at most 64 .* got 65; pass .*None"):
        run(kernel, *given_)


def test_layouts_that_are_refused() -> None:
    """Group sizes on GPUs, groups of tokens for values and float16 on TPUs."""
    first, end = spans([1], 4)
    rows, keys, values = operands(Case(group_size=48, width=96, axis="token"), 1)
    with pytest.raises(
        ValueError, match=r"keys: expected a group_size .* got 48; pass"
    ):
        run("gpu", rows, keys, values, first, end)
    rows, keys, values = operands(Case(), 1)
    with pytest.raises(
        ValueError, match=r"values: expected groups of channels, .*; pass"
    ):
        run("tpu", rows, keys, keys, first, end)
    with pytest.raises(
        ValueError, match=r"rows: expected bfloat16 or float32 .*; pass"
    ):
        run("tpu", rows.astype(jnp.float16), keys, values, first, end)


@pytest.mark.parametrize("axis", ["channel", "token"])
def test_attend(axis) -> None:
    """A whole cache through the kernel, with sinks, window and a sequence for each."""
    config = kv.CacheConfig(window=20, sinks=4, key_axis=axis, rotate=axis == "token")
    cache = kv.init_cache(config, 2, 512, kv_heads=2, head_width=64, dtype=jnp.float32)
    seeds = jax.random.split(jax.random.key(1), 3)
    query = jax.random.normal(seeds[0], (2, 400, 8, 64))
    key, value = (jax.random.normal(seed, (2, 400, 2, 64)) for seed in seeds[1:])
    mask = jnp.arange(400) < jnp.array([[400], [170]])
    cache = jax.jit(kv.prefill)(cache, query, key, value, mask=mask)[1]
    attend = jax.jit(kv.attend, static_argnames=("window", "implementation"))
    found, expected = (
        attend(query[:, :1], cache, window=300, implementation=implementation)
        for implementation in (CHIP or "interpret", "xla")
    )
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
