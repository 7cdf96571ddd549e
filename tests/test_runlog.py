"""Test that a damaged log gives what is known, and never an earlier epoch as final."""

import json
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jeff import checkpoint, training
from jeff.runlog import LastRow, RunLog, read_rows

OPTIMIZER = optax.sgd(0.1)
ROWS = [{"step": 2 * n, "loss": 1.0 / n} for n in range(1, 5)]
LAST = LastRow(ROWS[-1], 4)


def _loss(params, batch, key):
    del key
    return jnp.mean((params["w"] - batch["x"]) ** 2), {}


STEP = training.make_step(_loss, OPTIMIZER)


def write(folder, lines):
    (folder / "metrics.jsonl").write_bytes(b"".join(lines))


def lines_of(rows):
    return [json.dumps(row).encode() + b"\n" for row in rows]


def train(workdir, num_steps=8):
    data = {"x": jnp.arange(8.0)}
    return training.fit(
        STEP,
        training.init_state({"w": jnp.zeros(())}, OPTIMIZER, key=jax.random.key(0)),
        training.Shuffled(data, 4, jax.random.key(1)),
        num_steps=num_steps,
        workdir=workdir,
        progress=False,
    )


@pytest.mark.parametrize(
    ("change", "known", "note"),
    [
        (lambda x: x, 4, None),
        (lambda x: x[:3], 4, None),
        (lambda x: [*x[:3], x[3][:9]], 4, None),
        (lambda x: [*x[:3], x[3].replace(b"0.", b"9.")], 4, None),
        (lambda x: [*x, b'{"step": 10, "lo'], 4, None),
        (lambda x: [], 1, "expected 4 rows up to step 8, found 1"),
        (lambda x: [x[0], *x[2:]], 3, "expected 4 rows up to step 8, found 3"),
        (lambda x: [x[0], b"\xff" + x[1][1:], *x[2:]], 3, r"metrics\.jsonl:2: .*utf-8"),
        (lambda x: [x[0], b"[1]\n", *x[2:]], 3, r"metrics\.jsonl:2: .*no object with"),
        (
            lambda x: [x[0], b'{"loss": 1}\n', *x[2:]],
            3,
            r"metrics\.jsonl:2: .*\"step\"",
        ),
        (lambda x: [*x[:2], *x], 4, r"metrics\.jsonl:3: step 2 stands there again"),
        (
            lambda x: [b"[" * 10**5 + b"\n", *x[1:]],
            3,
            r"metrics\.jsonl:1: expected a row",
        ),
    ],
)
def test_the_log_is_mended_to_the_checkpoint(tmp_path, change, known, note):
    write(tmp_path, change(lines_of(ROWS)))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        rows = RunLog(tmp_path, 8, 8, last=LAST, show=False).rows
    assert rows[-1] == ROWS[-1]
    assert len(rows) == known
    assert all(row in ROWS for row in rows)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(lines_of(rows))
    assert len(seen) == (note is not None)
    if note:
        assert re.search(note, str(seen[0].message))


def test_a_lost_row_that_no_checkpoint_knows_is_an_error(tmp_path):
    write(tmp_path, lines_of(ROWS[:3]))
    with pytest.raises(
        ValueError, match=r"metrics\.jsonl: expected the row of step 8.*end at step 6"
    ):
        RunLog(tmp_path, 8, 8, show=False)


def test_a_finished_run_without_its_log_reports_its_last_epoch(tmp_path):
    whole = train(tmp_path)
    log = tmp_path / "metrics.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    write(tmp_path, lines[:-1])
    again = train(tmp_path)
    assert (again.history, again.step) == (whole.history, whole.step)
    write(tmp_path, [])
    with pytest.warns(UserWarning, match="expected 4 rows up to step 8, found 1"):
        again = train(tmp_path)
    assert again.history == whole.history[-1:]


def test_a_damaged_checkpoint_says_how_to_go_on(tmp_path):
    whole = train(tmp_path)
    record = tmp_path / "checkpoints" / "8" / "metadata" / "metadata"
    record.write_text(record.read_text().replace("waited", "wasted"))
    with pytest.raises(
        checkpoint.DamagedError,
        match=r"checkpoints/8: .*go on from step 6, delete (\S*/checkpoints/8) and",
    ):
        train(tmp_path)
    # What the message says to do.
    for path in sorted((tmp_path / "checkpoints" / "8").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "checkpoints" / "8").rmdir()
    again = train(tmp_path)
    np.testing.assert_array_equal(again.state.params["w"], whole.state.params["w"])
    assert [row["loss"] for row in again.history] == [
        row["loss"] for row in whole.history
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda x: [x[0], b"{\n", x[2]],
            r"metrics\.jsonl:2: expected a row of the log",
        ),
        (lambda x: [x[0], x[0], *x[1:]], r"metrics\.jsonl:2: expected step 2, got 1"),
        (lambda x: [x[0], x[2]], r"metrics\.jsonl:2: expected step 2, got 3"),
    ],
)
def test_a_log_that_is_the_truth_is_not_mended(tmp_path, change, words):
    rows = [{"step": n} for n in (1, 2, 3)]
    write(tmp_path, change(lines_of(rows)))
    kept = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=words + ".*delete the lines from this one on"):
        read_rows(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == kept
