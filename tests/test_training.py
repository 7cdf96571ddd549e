"""Test the training loop: reproducible batches and bits, and recovery from failures."""

import json
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jeff import training

PROGRAM = Path(__file__).parent / "programs" / "resumable.py"


@pytest.fixture
def problem(key):
    x = jax.random.normal(key, (50, 3))
    data = {"x": x, "y": x @ jnp.array([1.0, -2.0, 0.5])}

    def loss(params, batch, key):
        error = batch["x"] @ params - batch["y"]
        return jnp.mean(error**2) + 0 * jax.random.normal(key), {}

    optimizer = optax.sgd(0.1)
    state = training.init_state(jnp.zeros(3), optimizer, key=key)
    batches = training.Shuffled(data, 8, key)
    return training.make_step(loss, optimizer), state, batches


def test_every_epoch_visits_distinct_examples(problem):
    batches = problem[2]
    first, second = batches.order(0), batches.order(1)
    assert first.shape == (6, 8)
    assert len(np.unique(first)) == 48
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, batches.order(0))


def test_step_is_gradient_descent_by_hand():
    optimizer = optax.sgd(0.5)
    step = training.make_step(lambda p, b, k: (p * b, {"b": b}), optimizer)
    state = training.init_state(jnp.array(2.0), optimizer, key=jax.random.key(0))
    state, metrics = step(state, jnp.array(3.0))
    assert state.params == 2.0 - 0.5 * 3.0
    assert (metrics["loss"], metrics["b"], state.step) == (6.0, 3.0, 1)


def test_fit_equals_run_epochs_and_a_plain_loop(problem):
    step_fn, state, batches = problem
    fitted = training.fit(step_fn, state, batches, num_steps=12, progress=False)
    scanned, metrics = training.run_epochs(step_fn, state, batches, num_epochs=2)
    chex.assert_trees_all_close(fitted.state.params, scanned.params, rtol=1e-6)
    assert metrics["loss"].shape == (2, 6)
    loop = state
    for epoch in range(2):
        for rows in batches.order(epoch):
            batch = jax.tree.map(lambda leaf, rows=rows: leaf[rows], batches.data)
            loop, _ = step_fn(loop, batch)
    chex.assert_trees_all_close(fitted.state.params, loop.params, rtol=1e-5)
    assert np.linalg.norm(loop.params) > 0.5


def test_chunks_that_cut_epochs_change_nothing(problem):
    step_fn, state, batches = problem
    whole = training.fit(step_fn, state, batches, num_steps=14, progress=False)
    cut = training.fit(
        step_fn, state, batches, num_steps=14, chunk_steps=4, progress=False
    )
    chex.assert_trees_all_close(whole.state.params, cut.state.params, rtol=1e-6)
    assert [row["step"] for row in cut.history] == [4, 8, 12, 14]


def test_batches_from_a_function(problem):
    step_fn, state, batches = problem

    def batch_at(step):
        epoch, place = divmod(step, batches.steps_per_epoch)
        rows = np.asarray(batches.order(epoch)[place])
        return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], batches.data)

    streamed = training.fit(
        step_fn, state, batch_at, num_steps=12, chunk_steps=5, progress=False
    )
    shuffled = training.fit(step_fn, state, batches, num_steps=12, progress=False)
    chex.assert_trees_all_close(streamed.state.params, shuffled.state.params, rtol=1e-6)


def test_the_initial_state_survives(problem):
    step_fn, state, batches = problem
    training.fit(step_fn, state, batches, num_steps=6, progress=False)
    np.testing.assert_array_equal(state.params, np.zeros(3))


def test_one_compilation_for_many_runs(problem):
    _, state, batches = problem
    traces = []

    def step_fn(state, batch):
        traces.append(1)
        return state, {"loss": jnp.mean(batch["y"])}

    for _ in range(3):
        training.fit(step_fn, state, batches, num_steps=18, progress=False)
    assert len(traces) == 1


def test_vmapped_over_seeds_equals_one_by_one(problem):
    step_fn, state, batches = problem
    starts = jnp.array([[0.0, 0, 0], [1.0, 1, 1]])
    states = jax.vmap(lambda p: state._replace(params=p))(starts)
    together = training.fit(
        jax.vmap(step_fn, in_axes=(0, None)),
        states,
        batches,
        num_steps=6,
        progress=False,
    )
    for place, start in enumerate(starts):
        alone = training.fit(
            step_fn,
            state._replace(params=start),
            batches,
            num_steps=6,
            progress=False,
        )
        np.testing.assert_allclose(
            together.state.params[place], alone.state.params, rtol=1e-5
        )


def run_program(*arguments):
    done = subprocess.run(
        [sys.executable, PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={"PYTHONPATH": str(Path.cwd()), "PATH": "", "PYTHONHASHSEED": "0"},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_bits(tmp_path):
    status, whole, error = run_program(tmp_path / "whole")
    assert status == 0, error
    for kill_at in (30, 84):
        status, out, _ = run_program(tmp_path / "broken", kill_at)
        assert status == -9
        assert out == ""
    # The log may run ahead of the last checkpoint, and a line may be cut short.
    with (tmp_path / "broken" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 9')
    status, resumed, error = run_program(tmp_path / "broken")
    assert status == 0, error
    assert resumed == whole
    steps = [
        json.loads(line)["step"]
        for line in (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == list(range(6, 121, 6))


def test_finished_runs_are_not_run_again(problem, tmp_path):
    step_fn, state, batches = problem
    arguments = {"num_steps": 12, "workdir": tmp_path, "progress": False}
    first = training.fit(step_fn, state, batches, **arguments)

    def never(state, batch):
        raise AssertionError("ran again")

    second = training.fit(never, state, batches, **arguments)
    chex.assert_trees_all_equal(first.state.params, second.state.params)
    assert second.history == first.history


def test_early_stop_returns_the_best_state(problem):
    step_fn, state, batches = problem
    scores = iter([3.0, 1.0, 2.0, 2.0, 0.0])
    seen = []

    def validate(state):
        seen.append(np.asarray(state.params))
        return {"score": next(scores)}

    result = training.fit(
        step_fn,
        state,
        batches,
        num_steps=60,
        validate=validate,
        early_stop=training.EarlyStop("score", patience=2),
        progress=False,
    )
    assert result.stopped == "early"
    assert result.step == 24
    np.testing.assert_array_equal(result.state.params, seen[1])


def test_nan_stops_and_keeps_the_last_good_checkpoint(problem, tmp_path):
    _, state, batches = problem

    def step_fn(state, batch):
        loss = jnp.where(state.step == 15, jnp.nan, 1.0)
        return state._replace(step=state.step + 1), {"loss": loss}

    with pytest.raises(training.NonFiniteLossError, match=r"step 15.*checkpoints/12"):
        training.fit(
            step_fn, state, batches, num_steps=30, workdir=tmp_path, progress=False
        )
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["6", "12"]


def test_parameters_that_break_in_the_last_step_are_not_saved(problem, tmp_path):
    _, state, batches = problem

    def step_fn(state, batch):
        params = jnp.where(state.step == 11, jnp.nan, state.params)
        return state._replace(step=state.step + 1, params=params), {
            "loss": jnp.ones(())
        }

    with pytest.raises(training.NonFiniteLossError, match=r"step 12.*checkpoints/6"):
        training.fit(
            step_fn, state, batches, num_steps=30, workdir=tmp_path, progress=False
        )
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["6"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_steps": 0}, "num_steps: expected at least 1, got 0"),
        ({"chunk_steps": 0}, "chunk_steps"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"early_stop": training.EarlyStop("loss")}, "validate"),
    ],
)
def test_bad_arguments(problem, change, words):
    with pytest.raises(ValueError, match=words):
        training.fit(*problem, **{"num_steps": 6, "progress": False, **change})


def test_metrics_without_loss_or_rule(problem):
    step_fn, state, batches = problem
    with pytest.raises(ValueError, match='"loss", got'):
        training.fit(
            lambda s, b: (s, {"error": jnp.zeros(())}),
            state,
            batches,
            num_steps=6,
            progress=False,
        )
    with pytest.raises(ValueError, match=r"early_stop.metric: .*'auc'"):
        training.fit(
            step_fn,
            state,
            batches,
            num_steps=6,
            validate=lambda s: {"score": 1.0},
            early_stop=training.EarlyStop("auc"),
            progress=False,
        )


@pytest.mark.parametrize(
    ("data", "size", "words"),
    [
        ({"x": jnp.ones((4, 2)), "y": jnp.ones(3)}, 2, "leading axis"),
        ({"x": jnp.ones((4, 2))}, 5, "1 to 4 .*got 5"),
        ({"x": jnp.ones((4, 2))}, 0, "1 to 4 .*got 0"),
        ({"x": jnp.float32(1)}, 1, "leading axis"),
        ({}, 1, "leading axis"),
    ],
)
def test_bad_batches(data, size, words, key):
    with pytest.raises(ValueError, match=words):
        training.Shuffled(data, size, key)
