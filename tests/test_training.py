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


def test_a_longer_run_has_checkpoints_from_where_it_resumes(problem, tmp_path):
    """From step 25 in chunks of 10: at 35, 45 and so on, so a kill loses one chunk."""
    step_fn, state, batches = problem
    options = {"workdir": tmp_path, "chunk_steps": 10, "progress": False}
    training.fit(step_fn, state, batches, num_steps=25, **options)
    found = []

    def validate(state):
        # Of the chunk before, whose writing may still go on.
        found.append(int(state.step))
        if found[-1] == 75:
            raise KeyboardInterrupt
        return {"norm": jnp.linalg.norm(state.params)}

    with pytest.raises(KeyboardInterrupt):
        training.fit(
            step_fn, state, batches, num_steps=100, validate=validate, **options
        )
    assert found == [35, 45, 55, 65, 75]
    saved = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert saved == [55, 65]
    result = training.fit(step_fn, state, batches, num_steps=100, **options)
    whole = training.fit(step_fn, state, batches, num_steps=100, progress=False)
    np.testing.assert_allclose(result.state.params, whole.state.params, rtol=1e-6)


def test_checkpoints_of_every_other_chunk_after_a_resumption(problem, tmp_path):
    step_fn, state, batches = problem
    options = {"workdir": tmp_path, "progress": False, "checkpoint_every": 2}
    training.fit(step_fn, state, batches, num_steps=7, chunk_steps=7, **options)
    training.fit(step_fn, state, batches, num_steps=30, chunk_steps=5, **options)
    saved = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert saved == [27, 30]


def test_a_shorter_run_than_the_checkpoint_is_refused(problem, tmp_path):
    options = {"workdir": tmp_path, "progress": False}
    training.fit(*problem, num_steps=12, **options)
    with pytest.raises(ValueError, match=r"num_steps: expected at least 12.*got 6"):
        training.fit(*problem, num_steps=6, **options)


NAN = float("nan")


@pytest.mark.parametrize(
    ("mode", "scores", "best"),
    [
        ("min", [NAN, 5, 4, 3], 3),
        ("max", [NAN, 3, 5, 4], 2),
        ("min", [NAN, NAN, 3, NAN], 2),
        ("max", [1, NAN, NAN, NAN], 0),
        ("min", [float("inf"), 5, NAN, 6], 1),
    ],
)
def test_nan_is_worse_than_every_number(problem, mode, scores, best):
    values, seen = iter(scores), []

    def validate(state):
        seen.append(np.asarray(state.params))
        return {"score": next(values)}

    result = training.fit(
        *problem,
        num_steps=24,
        validate=validate,
        early_stop=training.EarlyStop("score", patience=4, mode=mode),
        progress=False,
    )
    np.testing.assert_array_equal(result.state.params, seen[best])


def test_only_nan_gives_the_last_state_and_a_warning(problem, tmp_path):
    """Also where it resumes: nothing of the best state is lost or made up."""
    options = {
        "validate": lambda state: {"score": NAN},
        "early_stop": training.EarlyStop("score", patience=9),
        "workdir": tmp_path,
        "progress": False,
    }
    for num_steps in (6, 12):
        with pytest.warns(UserWarning, match="score was NaN in every validation"):
            result = training.fit(*problem, num_steps=num_steps, **options)
        assert result.state.step == num_steps
    options["early_stop"] = training.EarlyStop("score", mode="max")
    with pytest.raises(ValueError, match=r"early_stop: .*\['score', 'min'\] of the"):
        training.fit(*problem, num_steps=18, **options)


def test_more_patience_goes_on_after_an_early_stop(problem, tmp_path):
    options = {
        "validate": lambda state: {"score": state.step},
        "workdir": tmp_path,
        "progress": False,
        "num_steps": 30,
    }
    for patience, step, stopped in ((1, 12, "early"), (2, 18, "early")):
        rule = training.EarlyStop("score", patience=patience)
        result = training.fit(*problem, early_stop=rule, **options)
        assert (result.step, result.stopped, int(result.state.step)) == (
            step,
            stopped,
            6,
        )


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"loss": 1.0}, r"got \['loss'\]; call it 'valid_loss'"),
        ({"step": 1.0, "auc": 1.0}, r"validate: .*got \['step'\]"),
        ({"seconds": 1.0}, r"validate: .*got \['seconds'\]"),
        ({"auc": np.ones(3)}, r"validate: auc: expected a number, got shape \(3,\)"),
    ],
)
def test_what_validate_may_not_return(problem, found, words):
    with pytest.raises(ValueError, match=words):
        training.fit(
            *problem, num_steps=6, validate=lambda state: found, progress=False
        )


def test_metrics_of_any_other_name(problem, tmp_path):
    """Slashes and 0-d arrays, in the log and in what resumes."""
    options = {
        "validate": lambda state: {"valid/loss": jnp.ones(()), "n": np.int64(3)},
        "workdir": tmp_path,
        "progress": False,
    }
    training.fit(*problem, num_steps=6, **options)
    result = training.fit(*problem, num_steps=12, **options)
    assert [row["valid/loss"] for row in result.history] == [1.0, 1.0]
    assert [row["n"] for row in result.history] == [3, 3]

    def step_fn(state, batch):
        return state, {"loss": jnp.ones(()), "seconds": jnp.ones(())}

    with pytest.raises(ValueError, match=r"step_fn: .*got \['seconds'\]"):
        training.fit(step_fn, *problem[1:], num_steps=6, progress=False)


def test_integers_that_jax_would_cut_are_refused(problem):
    step_fn, state, batches = problem
    large = np.array([1, 2**32 + 1])
    with pytest.raises(ValueError, match=r"data\['y'\]: .*32 bits, got 1 to 42949"):
        training.Shuffled({"y": large}, 1, jax.random.key(0))
    with pytest.raises(ValueError, match=r"batches\['y'\]: .*32 bits"):
        training.fit(
            step_fn, state, lambda step: {"y": large}, num_steps=1, progress=False
        )
    with pytest.raises(ValueError, match=r"state.step: .*32 bits"):
        training.fit(
            step_fn,
            state._replace(step=np.int64(2**40 + 1)),
            batches,
            num_steps=6,
            progress=False,
        )


def test_a_table_is_data_too(key):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(
        {"x": [1.0, 2, 3, 4], "y": [1, 0, 1, 0]}, index=[9, 7, 5, 3]
    )
    batches = training.Shuffled({"x": table["x"], "y": table["y"]}, 2, key)

    def step_fn(state, batch):
        return state + batch["x"].sum(), {"loss": batch["y"].mean()}

    total, _ = training.run_epochs(step_fn, jnp.zeros(()), batches, num_epochs=1)
    fitted = training.fit(step_fn, jnp.zeros(()), batches, num_steps=2, progress=False)
    assert total == fitted.state == 10
    with pytest.raises(TypeError, match="data: expected arrays of numbers, got object"):
        training.Shuffled(pandas.Series(["a", None]), 1, key)


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
        ({"x": jnp.ones((0, 2))}, 1, "data: expected at least one example"),
    ],
)
def test_bad_batches(data, size, words, key):
    with pytest.raises(ValueError, match=words):
        training.Shuffled(data, size, key)
