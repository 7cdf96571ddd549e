"""Test tensor files: parity with gguf and safetensors, round trips, bad files."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jeff import assets
from jeff_llm.models.tensor_info import NUMPY_DTYPES
from jeff_llm.models.tensors import open_gguf, open_safetensors, save_safetensors

gguf = pytest.importorskip("gguf")
safetensors_numpy = pytest.importorskip("safetensors.numpy")


def has_code(kind: int, block_bytes: int) -> bool:
    """Whether gguf can dequantise a type, which differs between its releases."""
    try:
        gguf.quants.dequantize(np.zeros((1, block_bytes), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


CODED = {
    kind.name: has_code(kind, block_bytes)
    for kind, (_, block_bytes) in gguf.GGML_QUANT_SIZES.items()
    if kind.name not in NUMPY_DTYPES
}


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def write_gguf(path: Path, tensors: dict[str, tuple[np.ndarray, str]]) -> Path:
    """A file by the package gguf itself; arrays of bytes where quantised."""
    writer = gguf.GGUFWriter(path, "made")
    writer.add_array("made.words", ["a", "b"])
    writer.add_float32("made.number", 0.5)
    for name, (array, kind) in tensors.items():
        raw = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, array, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", [kind for kind, coded in CODED.items() if coded])
def test_quantised(kind: str, tmp_path: Path) -> None:
    """Each type that gguf can dequantise, over more rows than one step takes."""
    raw_kind = gguf.GGMLQuantizationType[kind]
    block, block_bytes = gguf.GGML_QUANT_SIZES[raw_kind]
    rows = (1 << 18) // (2 * block) + 5
    raw = np.random.default_rng(0).integers(
        0, 256, (rows, 2 * block_bytes), dtype=np.uint8
    )
    path = write_gguf(tmp_path / "f.gguf", {"t": (raw, kind)})
    tensor = open_gguf(path)["t"]
    assert (tensor.shape, tensor.dtype) == ((rows, 2 * block), kind)
    got = tensor.read()
    with np.errstate(all="ignore"):
        want = gguf.quants.dequantize(raw, raw_kind)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, want)


def test_gguf_plain(tmp_path: Path) -> None:
    """Types that need no dequantisation keep their own dtype and are not copied."""
    numbers = random(3, 4)
    half = numbers.astype(ml_dtypes.bfloat16)
    path = write_gguf(
        tmp_path / "f.gguf",
        {
            "f32": (numbers, "F32"),
            "f16": (numbers.astype(np.float16), "F16"),
            "bf16": (half.view(np.uint8), "BF16"),
            "i32": (np.arange(4, dtype=np.int32), "I32"),
        },
    )
    file = open_gguf(str(path))
    assert repr(file) == f"TensorFile({str(path)!r}, 4 tensors)"
    assert file.metadata["made.words"] == ["a", "b"]
    assert file.metadata["made.number"] == 0.5
    want = {
        "f32": numbers,
        "f16": numbers.astype(np.float16),
        "bf16": half,
        "i32": np.arange(4, dtype=np.int32),
    }
    for name, array in want.items():
        got = file[name].read()
        assert (got.dtype, got.flags.writeable, got.base is None) == (
            array.dtype,
            False,
            False,
        )
        np.testing.assert_array_equal(got, array)


def test_gguf_without_code(tmp_path: Path) -> None:
    """A type of known size that gguf cannot dequantise is refused when it is read."""
    kind = next(kind for kind, coded in CODED.items() if not coded)
    _, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    raw = np.zeros((2, block_bytes), np.uint8)
    file = open_gguf(write_gguf(tmp_path / "f.gguf", {"t": (raw, kind)}))
    with pytest.raises(ValueError, match=rf"f\.gguf: tensor 't': .* got {kind};"):
        file["t"].read()


def test_real_gguf() -> None:
    """SmolLM2: all metadata, and tensors of each type, as gguf itself reads them."""
    try:
        path = assets.find("smollm2")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    file, peer = open_gguf(path), gguf.GGUFReader(path)
    fields = {name: f.contents() for name, f in peer.fields.items()}
    assert file.metadata == {n: v for n, v in fields.items() if n[:5] != "GGUF."}
    assert list(file) == [tensor.name for tensor in peer.tensors]
    for tensor in [*peer.tensors[:14], peer.tensors[-1]]:
        got = file[tensor.name].read()
        want = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(got, want)
    assert file["token_embd.weight"].shape == (49152, 576)


ARRAYS = {
    "f32": random(2, 3),
    "f64": random(2).astype(np.float64),
    "f16": random(5).astype(np.float16),
    "bf16": random(3, 1).astype(ml_dtypes.bfloat16),
    "i64": np.array([-1, 2**40]),
    "u8": np.arange(3, dtype=np.uint8),
    "bool": np.array([True, False]),
    "complex": np.array([1 + 2j], np.complex64),
    "scalar": np.array(3.0, np.float32),
    "empty": np.zeros((0, 4), np.float32),
}


def assert_same(got: np.ndarray, want: np.ndarray) -> None:
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    np.testing.assert_array_equal(got, want)


def test_peer_reads_ours(tmp_path: Path) -> None:
    """What we write, the package safetensors and we ourselves read alike."""
    path = save_safetensors(tmp_path / "f.safetensors", ARRAYS, metadata={"by": "us"})
    peer = safetensors_numpy.load_file(path)
    ours = open_safetensors(path)
    assert ours.metadata == {"format": "pt", "by": "us"}
    assert set(peer) == set(ours) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert_same(peer[name], array)
        got = ours[name].read()
        assert_same(got, array)
        assert got.flags.aligned
    assert ours["bf16"].dtype == "BF16"


def test_torch_reads_ours(tmp_path: Path) -> None:
    """torch demands that each tensor is aligned to its type."""
    torch = pytest.importorskip("torch")
    load_file = pytest.importorskip("safetensors.torch").load_file
    order = ["u8", "bool", "f16", "f32", "f64"]
    path = save_safetensors(tmp_path, {name: ARRAYS[name] for name in order})
    assert path == tmp_path / "model.safetensors"
    for name, tensor in load_file(path).items():
        assert_same(tensor.numpy(), ARRAYS[name])
    assert load_file(path)["f64"].dtype == torch.float64


def test_we_read_the_peer(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors_numpy.save_file(ARRAYS, path, {"format": "np"})
    for opened in (open_safetensors(path), open_safetensors(tmp_path)):
        assert opened.metadata == {"format": "np"}
        for name, array in ARRAYS.items():
            assert_same(opened[name].read(), array)


def test_8_bit_floats(tmp_path: Path) -> None:
    """safetensors.numpy asks numpy for types that it lacks; we read our own."""
    for dtype in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2):
        save_safetensors(tmp_path, {"t": random(3).astype(dtype)})
        assert_same(open_safetensors(tmp_path)["t"].read(), random(3).astype(dtype))


def test_jax_takes_what_is_mapped(tmp_path: Path) -> None:
    save_safetensors(tmp_path, {"t": ARRAYS["f32"]})
    got = jax.jit(lambda x: x + 1)(jnp.asarray(open_safetensors(tmp_path)["t"].read()))
    np.testing.assert_array_equal(got, ARRAYS["f32"] + 1)


def test_unusual_layouts(tmp_path: Path) -> None:
    """Transposed, strided and big-endian arrays are written as their values."""
    arrays = {
        "transposed": random(4, 6).T,
        "strided": random(4, 6)[::2, ::-3],
        "big": np.arange(3, dtype=">i4"),
    }
    save_safetensors(tmp_path, arrays)
    got = safetensors_numpy.load_file(tmp_path / "model.safetensors")
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], array)


def test_shards(tmp_path: Path) -> None:
    """Small shards with an index; functions are called once, in their turn."""
    calls = []

    def make(number: int) -> Callable[[], np.ndarray]:
        def call() -> np.ndarray:
            calls.append(number)
            return np.full(10, number, np.float32)

        return call

    index = save_safetensors(
        tmp_path / "new", {f"t{i}": make(i) for i in range(5)}, max_shard_bytes=80
    )
    assert calls == [0, 1, 2, 3, 4]
    assert index == tmp_path / "new" / "model.safetensors.index.json"
    assert sorted(os.listdir(tmp_path / "new")) == [
        *(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)),
        "model.safetensors.index.json",
    ]
    content = json.loads(index.read_text())
    assert content["metadata"] == {"total_size": 200}
    assert content["weight_map"]["t4"] == "model-00003-of-00003.safetensors"
    file = open_safetensors(tmp_path / "new")
    assert file.metadata == {"total_size": 200}
    assert list(file) == [f"t{i}" for i in range(5)]
    for i in range(5):
        assert_same(file[f"t{i}"].read(), np.full(10, i, np.float32))


def test_transformers_opens_ours(tmp_path: Path) -> None:
    """A sharded checkpoint of ours is one of transformers."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    model = transformers.LlamaForCausalLM(config)
    arrays = {name: x.detach().numpy() for name, x in model.named_parameters()}
    config.save_pretrained(tmp_path)
    index = save_safetensors(tmp_path, arrays, max_shard_bytes=2000)
    assert index.suffix == ".json"
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    for name, tensor in again.named_parameters():
        assert_same(tensor.detach().numpy(), arrays[name])


def test_replaces_what_was_there(tmp_path: Path) -> None:
    """One file and a set of shards take each other's place."""
    old, new = {"t": random(9)}, {"t": random(9) + 1, "u": random(9)}
    for first, then in ((5e9, 36), (36, 5e9), (36, 36)):
        save_safetensors(tmp_path, old | {"u": random(9)}, max_shard_bytes=first)
        save_safetensors(tmp_path, new, max_shard_bytes=then)
        got = open_safetensors(tmp_path)
        assert_same(got["t"].read(), new["t"])
        single = (tmp_path / "model.safetensors").exists()
        assert single == (then == 5e9)
        assert single != (tmp_path / "model.safetensors.index.json").exists()


@pytest.mark.parametrize("sharded", [False, True])
def test_nothing_half_written(sharded: bool, tmp_path: Path) -> None:
    """Where the last tensor fails, the old file stands and nothing is left over."""

    def interrupt() -> np.ndarray:
        raise KeyboardInterrupt

    save_safetensors(tmp_path, {"t": random(3)})
    limit = 1 if sharded else 5e9
    with pytest.raises(KeyboardInterrupt):
        save_safetensors(
            tmp_path, {"a": random(3), "b": interrupt}, max_shard_bytes=limit
        )
    assert os.listdir(tmp_path) == ["model.safetensors"]
    assert list(open_safetensors(tmp_path)) == ["t"]


def test_save_refuses(tmp_path: Path) -> None:
    bad = np.array(["text"])
    with pytest.raises(TypeError, match=r"tensor 't': expected a numpy array .*<U4"):
        save_safetensors(tmp_path, {"t": bad})
    with pytest.raises(TypeError, match=r"tensor 't': expected .* got float32"):
        save_safetensors(tmp_path, {"t": lambda: jnp.ones(2)})  # pyright: ignore
    with pytest.raises(ValueError, match="cannot be named '__metadata__'"):
        save_safetensors(tmp_path, {"__metadata__": np.ones(2)})
    with pytest.raises(ValueError, match="max_shard_bytes: expected > 0, got 0"):
        save_safetensors(tmp_path, {}, max_shard_bytes=0)
    assert os.listdir(tmp_path) == []


def test_no_file(tmp_path: Path) -> None:
    """Missing, empty, a directory: the error says what was found."""
    (tmp_path / "empty").touch()
    for opened in (open_gguf, open_safetensors):
        with pytest.raises(FileNotFoundError, match=r"no: expected a file .* nothing"):
            opened(tmp_path / "no")
        with pytest.raises(ValueError, match="empty: expected a"):
            opened(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="found a directory"):
        open_gguf(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"expected model\.safetensors or .*\['empty'\]"
    ):
        open_safetensors(tmp_path)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A set of two shards, t and u."""
    save_safetensors(tmp_path, {"t": random(9), "u": random(9)}, max_shard_bytes=36)
    return tmp_path


def test_shard_is_missing(shards: Path) -> None:
    (shards / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"00002-of-00002.*bring the missing"):
        open_safetensors(shards)


def test_shard_lacks_a_tensor(shards: Path) -> None:
    one, two = sorted(shards.glob("model-0*"))
    two.write_bytes(one.read_bytes())
    with pytest.raises(ValueError, match=r"00002-of.*expected the tensor 'u' in this"):
        open_safetensors(shards)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "expected a JSON object whose weight_map"),
        ("[]", "expected a JSON object whose weight_map"),
        ("{}", "KeyError: 'weight_map'"),
        ('{"weight_map": 3}', "expected a JSON object whose weight_map"),
        ('{"weight_map": {"t": "../x"}}', r"'t': .* beside the index, got '\.\./x'"),
        ('{"weight_map": {"t": "/etc/x"}}', "'t': expected the name of a file beside"),
        ('{"weight_map": {"t": 3}}', "'t': expected the name of a file beside"),
    ],
)
def test_index_lies(content: str, match: str, shards: Path) -> None:
    (shards / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match=rf"index\.json: .*{match}"):
        open_safetensors(shards)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small file of each format."""
    folder = tmp_path_factory.mktemp("small")
    raw = np.arange(136, dtype=np.uint8).reshape(2, 68)
    write_gguf(folder / "f.gguf", {"a": (random(2, 3), "F32"), "b": (raw, "Q8_0")})
    save_safetensors(folder, {"a": random(2, 3), "b": raw})
    names = {"gguf": "f.gguf", "safetensors": "model.safetensors"}
    return {kind: (folder / name).read_bytes() for kind, name in names.items()}


@pytest.mark.parametrize("kind", ["gguf", "safetensors"])
@settings(deadline=5000)
@given(st.data())
def test_damaged(
    kind: str,
    small: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    """A damaged file gives a named error, or tensors of the shapes it states."""
    content = bytearray(small[kind])
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    message, arrays = f"{path}: ", []
    try:
        file = open_gguf(path) if kind == "gguf" else open_safetensors(path)
        arrays = [(tensor, tensor.read()) for tensor in file.values()]
    except ValueError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    for tensor, array in arrays:
        assert array.shape == tensor.shape
        assert array.dtype == NUMPY_DTYPES.get(tensor.dtype, np.float32)
