"""Test checkpoints: atomic writing, and an error for every failure."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jeff import checkpoint

PROGRAMS = Path(__file__).parent / "programs"


class State(NamedTuple):
    params: dict
    opt_state: optax.OptState
    key: jax.Array
    step: jax.Array


@pytest.fixture
def state():
    params = {"layers": {0: {"w": jnp.arange(6.0).reshape(2, 3) / 7}}, "b": jnp.ones(2)}
    optimizer = optax.adam(1e-3)
    return State(params, optimizer.init(params), jax.random.key(7), jnp.int32(3))


def plain(tree):
    return jax.tree.map(
        lambda leaf: (
            jax.random.key_data(leaf)
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else leaf
        ),
        tree,
    )


def test_round_trip_is_exact(state, tmp_path):
    path = checkpoint.save(tmp_path / "saved", state, metadata={"note": [1, "a"]})
    restored = checkpoint.restore(path, state)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    chex.assert_trees_all_equal(plain(restored), plain(state), strict=True)
    np.testing.assert_array_equal(
        jax.random.uniform(restored.key), jax.random.uniform(state.key)
    )
    assert checkpoint.metadata(path) == {"note": [1, "a"]}


def test_abstract_target(state, tmp_path):
    path = checkpoint.save(tmp_path / "saved", state)
    restored = checkpoint.restore(path, jax.eval_shape(lambda: state))
    chex.assert_trees_all_equal(plain(restored), plain(state))


def test_without_target_by_path(state, tmp_path):
    tree = checkpoint.restore(checkpoint.save(tmp_path / "saved", state))
    np.testing.assert_array_equal(
        tree["params"]["layers"]["0"]["w"], state.params["layers"][0]["w"]
    )
    assert tree["step"] == 3


def test_half_precision(tmp_path):
    tree = {"w": jnp.arange(4, dtype=jnp.bfloat16)}
    restored = checkpoint.restore(checkpoint.save(tmp_path / "saved", tree), tree)
    chex.assert_trees_all_equal(restored, tree, strict=True)


def test_nothing_is_overwritten(state, tmp_path):
    path = checkpoint.save(tmp_path / "saved", state)
    with pytest.raises(FileExistsError, match="choose another name"):
        checkpoint.save(path, {"other": jnp.ones(1)})
    chex.assert_trees_all_equal(plain(checkpoint.restore(path, state)), plain(state))


def test_steps_of_a_run(state, tmp_path):
    with checkpoint.Checkpoints(tmp_path, keep=2) as saved:
        assert saved.latest() is None
        for step in (10, 20, 30):
            stepped = state._replace(step=jnp.int32(step))
            saved.save(step, stepped, metadata={"at": step})
    with checkpoint.Checkpoints(tmp_path) as saved:
        assert saved.latest() == 30
        assert saved.restore(20, state).step == 20
        assert saved.metadata(30) == {"at": 30}
    assert not (tmp_path / "10").exists()


@pytest.mark.parametrize(
    ("like", "words"),
    [
        ({"a": jnp.ones(2), "c": jnp.ones(1)}, r"lacks \['c'\] and has \['b'\]"),
        ({"a": jnp.ones(3), "b": jnp.ones(1)}, r"a: expected float32\(3,\).*\(2,\)"),
        ({"a": jnp.ones(2, int), "b": jnp.ones(1)}, "a: expected int32.*float32"),
        ({"a": jax.random.key(0), "b": jnp.ones(1)}, "a: one side is a random key"),
    ],
)
def test_another_structure(tmp_path, like, words):
    path = checkpoint.save(tmp_path / "saved", {"a": jnp.ones(2), "b": jnp.ones(1)})
    with pytest.raises(ValueError, match=words):
        checkpoint.restore(path, like)


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a checkpoint directory"):
        checkpoint.restore(tmp_path / "nowhere")


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["manifest.ocdbt", "_METADATA", "metadata", "d/*"])
def test_damaged(state, tmp_path, victim):
    """In a process of its own: a failed read leaves an event loop for later."""
    path = checkpoint.save(tmp_path / "saved", state)
    for file in path.rglob(victim):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:20] if "d/" in victim else b"broken")
    program = f"from jeff import checkpoint; checkpoint.restore({str(path)!r})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert re.search(
        r"DamagedError: \S*saved: expected .*checkpoint.*\n?.*restore an earlier one",
        done.stderr,
    ), done.stderr[-2000:]


def test_not_ours(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "model.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="expected"):
        checkpoint.restore(tmp_path / "saved")


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(TypeError, match="f: expected an array"):
        checkpoint.save(tmp_path / "a", {"f": object()})
    with pytest.raises(TypeError, match="metadata: expected what JSON"):
        checkpoint.save(tmp_path / "b", {}, metadata={"x": jnp.ones(1)})
    assert list(tmp_path.iterdir()) == []


def test_every_kind_of_leaf(tmp_path):
    """Numbers of 64 bits too, which JAX would cut short."""
    tree = {
        "int": 2**40 + 1,
        "float": 0.1,
        "bool": True,
        "numpy int": np.int64(2**41),
        "numpy float": np.arange(3) / 7,
        "int8": jnp.int8(-3),
        "int4": jnp.arange(3, dtype=jnp.int4),
        "bfloat16": jnp.arange(3, dtype=jnp.bfloat16),
        "no elements": jnp.zeros((0, 3), jnp.bfloat16),
        "no elements of numpy": np.zeros((2, 0)),
        "keys": jax.random.split(jax.random.key(1), 3),
    }
    restored = checkpoint.restore(checkpoint.save(tmp_path / "saved", tree), tree)
    for each in (tree, restored):
        each["keys"] = jax.random.key_data(each["keys"])
    for name, leaf in tree.items():
        expected, got = np.asarray(leaf), np.asarray(restored[name])
        assert got.dtype == expected.dtype, name
        np.testing.assert_array_equal(got, expected, err_msg=name)
    assert type(restored["int"]) is int


@pytest.mark.parametrize("tree", [{}, {"empty": jnp.zeros(0)}])
def test_nothing_to_save_but_metadata(tmp_path, tree):
    path = checkpoint.save(tmp_path / "saved", tree, metadata={"n": {2: "a", 10: "b"}})
    chex.assert_trees_all_equal(checkpoint.restore(path, tree), tree)
    assert checkpoint.metadata(path) == {"n": {"2": "a", "10": "b"}}


def test_a_flipped_bit_is_noticed_or_harmless(tmp_path):
    """In a process of its own: a failed read leaves an event loop for later."""
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / "flipped_bits.py"), str(tmp_path), "90"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    *flips, whole = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert whole == ["whole", "same"]
    found = {outcome for _, outcome in flips}
    assert found == {"same", "named"}, [x for x in flips if len(x[1]) > 5]
    leaves = [outcome for place, outcome in flips if place.startswith("leaves/d/")]
    assert len(flips) == 90
    assert "named" in leaves


def test_a_leaf_that_changed_is_named(tmp_path, monkeypatch):
    path = checkpoint.save(tmp_path / "saved", {"a": {"b": jnp.ones(2)}})
    read = checkpoint.stored.read_leaves

    def other(*arguments):
        return {n: x.at[1].set(1.0000001) for n, x in read(*arguments).items()}

    monkeypatch.setattr(checkpoint.stored, "read_leaves", other)
    with pytest.raises(
        checkpoint.DamagedError,
        match=r"saved: .*the leaf a/b changed; restore an earlier one",
    ):
        checkpoint.restore(path)


def test_a_checkpoint_without_digests_is_read_with_a_note(tmp_path):
    path = checkpoint.save(tmp_path / "saved", {"a": jnp.ones(2)}, metadata={"n": 1})
    record = path / "metadata" / "metadata"
    assert json.loads(record.read_text())["user"] == {"n": 1}
    record.write_text(json.dumps({"user": {"n": 1}, "keys": {}}))
    with pytest.warns(UserWarning, match=r"saved: this checkpoint has no digests"):
        restored = checkpoint.restore(path)
    chex.assert_trees_all_equal(restored, {"a": jnp.ones(2)})


def test_what_to_do_about_a_damaged_step(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as saved:
        for step in (10, 20):
            saved.save(step, {"a": jnp.ones(2)}, metadata={})
    for step in ("10", "20"):
        record = tmp_path / step / "metadata" / "metadata"
        record.write_text(record.read_text().replace("xxh3", "xxh4"))
    with checkpoint.Checkpoints(tmp_path) as saved:
        with pytest.raises(ValueError, match=r"go on from step 10, delete \S*/20 and"):
            saved.restore(20, {"a": jnp.ones(2)})
        with pytest.raises(ValueError, match=r"from the beginning, delete \S*/10 and"):
            saved.metadata(10)


def test_narrow_numbers_are_kept_or_refused_by_name(tmp_path):
    tree = {
        "int4": jnp.arange(-8, 8).astype(jnp.int4),
        "float8": jnp.linspace(-3, 3, 16).astype(jnp.float8_e4m3fn),
        "bfloat16": jnp.arange(-8, 8, dtype=jnp.bfloat16),
    }
    checkpoint.save(tmp_path / "a", tree)
    chex.assert_trees_all_equal(checkpoint.restore(tmp_path / "a", tree), tree)
    tree["codes"] = jnp.arange(16).astype(jnp.uint4)
    with pytest.raises(TypeError, match=r"codes: .*orbax can write, got uint4"):
        checkpoint.save(tmp_path / "b", tree)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"a/b": 1, "a": {"b": 2}}, "a/b: expected one leaf of this name, got two"),
        ({"": 1, "value": 2}, "value: expected one leaf of this name, got two"),
        ({"a/b": 1, "a": 2}, "a/b: .*begins with that of another leaf, a; rename"),
        ({"a/b": {"c": 1}, "a": {"b": 2}}, "a/b/c: .*another leaf, a/b; rename"),
    ],
)
def test_leaves_of_one_name_are_refused(tree, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        checkpoint.save(tmp_path / "a", tree)
    with (
        checkpoint.Checkpoints(tmp_path / "run") as saved,
        pytest.raises(ValueError, match=words),
    ):
        saved.save(1, tree, metadata={})
    assert not (tmp_path / "a").exists()


def test_names_that_only_look_alike_are_kept_apart(tmp_path):
    """Slashes of Haiku, numbers as keys and as places, dots, attributes."""
    tree = {
        "net/~/linear": {"w": np.float32(1)},
        "net/~/linear_1": {"w": np.float32(2)},
        "lists": [np.float32(3), {1: np.float32(4), 10: np.float32(5)}],
        "..": (np.float32(6), None, {}),
        "state": State({}, (), np.float32(7), np.float32(8)),
    }
    restored = checkpoint.restore(checkpoint.save(tmp_path / "saved", tree), tree)
    assert jax.tree.structure(restored) == jax.tree.structure(tree)
    assert [int(leaf) for leaf in jax.tree.leaves(restored)] == [
        int(leaf) for leaf in jax.tree.leaves(tree)
    ]


def test_another_byte_order_comes_back_as_the_same_numbers(tmp_path):
    tree = {"f": np.array([1.5, -2], ">f4"), "i": np.array([2**40 + 1], ">i8")}
    path = checkpoint.save(tmp_path / "saved", tree)
    for restored in (checkpoint.restore(path), checkpoint.restore(path, tree)):
        np.testing.assert_array_equal(restored["f"], tree["f"])
        np.testing.assert_array_equal(restored["i"], tree["i"])
        assert restored["i"].dtype == np.int64


@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        (np.ma.array([1.0, 2.0], mask=[0, 1]), "x: .*without a mask"),
        (np.zeros(2, [("a", "f4")]), "x: .*orbax can write, got void32"),
        (2**70, "x: .*at most 64 bits"),
        ("text", "x: expected an array or a number"),
    ],
)
def test_what_would_not_come_back_is_refused(leaf, words, tmp_path):
    with pytest.raises(TypeError, match=words):
        checkpoint.save(tmp_path / "a", {"x": leaf})
    assert list(tmp_path.iterdir()) == []
