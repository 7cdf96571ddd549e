"""Test the log of edits: exact undo, deltas, budget and files."""

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import checkpoint
from jeff_graph.editing.log import BudgetExceededError, EditLog


@pytest.fixture
def versions(key):
    """Parameters after 0 to 3 edits, of two widths and of sizes far apart."""
    draws = jax.random.normal(key, (4, 3, 5)) * jnp.array([1e-3, 1.0, 1e5])[:, None]
    return [{"w": draw, "b": [draw[0].astype(jnp.bfloat16)]} for draw in draws]


@pytest.fixture
def log(versions):
    log = EditLog.start(versions[0], budget=2.0)
    for node, (params, drawdown) in enumerate(
        zip(versions[1:], (0.5, -1.0, 2.0), strict=True)
    ):
        log = log.add(params, node, drawdown)
    return log


def test_undo_is_bit_for_bit(log, versions):
    for count in range(4):
        back = log.undo(count)
        chex.assert_trees_all_equal(back.params, versions[3 - count], strict=True)
        assert [entry.target for entry in back.entries] == list(range(3 - count))
    chex.assert_trees_all_equal(log.params, versions[3])
    # What a difference in floating point would have given.
    lossy = log.params["w"] - log.delta(-1)["w"]
    assert (np.asarray(lossy) != np.asarray(versions[2]["w"])).any()


def test_after_undo_the_log_goes_on(log, versions):
    other = log.undo().add(versions[0], "again", 0.0)
    assert [entry.target for entry in other.entries] == [0, 1, "again"]
    chex.assert_trees_all_equal(other.undo().params, versions[2])


def test_deltas(log, versions):
    for index in (0, 2, -3):
        place = index % 3
        expected = np.asarray(versions[place + 1]["w"]) - np.asarray(
            versions[place]["w"]
        )
        np.testing.assert_array_equal(log.delta(index)["w"], expected)


def test_the_budget_refuses(versions):
    log = EditLog.start(versions[0], budget=1.5)
    assert log.accepts(1.5) and not log.accepts(1.6)
    for drawdown in (1.6, math.nan, math.inf):
        with pytest.raises(BudgetExceededError, match=r"budget of 1.5 .* edit of 7"):
            log.add(versions[1], 7, drawdown)
    assert log.entries == ()
    chex.assert_trees_all_equal(log.params, versions[0])
    assert len(log.add(versions[1], 7, jnp.float32(1.5)).entries) == 1
    endless = EditLog.start(versions[0])
    assert endless.accepts(100.0) and not endless.accepts(math.nan)


@pytest.mark.parametrize("budget", [2.0, math.inf])
def test_saved_and_loaded(log, versions, tmp_path, budget):
    log = dataclasses.replace(log, budget=budget)
    path = log.save(tmp_path / "log")
    shapes = jax.eval_shape(lambda: versions[0])
    again = EditLog.load(path, shapes)
    assert (again.budget, again.entries) == (budget, log.entries)
    for one, other in zip(again.versions, log.versions, strict=True):
        chex.assert_trees_all_equal(one, other, strict=True)
    chex.assert_trees_all_equal(again.undo(2).params, versions[1])
    with pytest.raises(FileExistsError, match="exists already"):
        log.save(path)
    with pytest.raises(ValueError, match="is of another structure"):
        EditLog.load(path, {"w": versions[0]["w"]})


def test_files_that_are_no_log(versions, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a checkpoint"):
        EditLog.load(tmp_path / "nothing", versions[0])
    path = checkpoint.save(tmp_path / "other", versions[0], metadata={"step": 1})
    with pytest.raises(ValueError, match=r"expected a log of edits, .* \['step'\]"):
        EditLog.load(path, versions[0])


def test_what_is_refused(log, versions):
    with pytest.raises(ValueError, match=r"budget: .* at least 0, got -1"):
        EditLog.start(versions[0], budget=-1)
    with pytest.raises(ValueError, match=r"budget: .* got nan"):
        EditLog.start(versions[0], budget=math.nan)
    for count in (4, -1):
        with pytest.raises(IndexError, match=rf"count: .* 0 to 3 edits, got {count}"):
            log.undo(count)
    for index in (3, -4):
        with pytest.raises(IndexError, match=rf"index: .* of 3, got {index}"):
            log.delta(index)
    with pytest.raises(ValueError, match="structure"):
        log.add({"w": versions[0]["w"]}, 1, 0.0)
