"""Make every mistake in a table and print its error message, one JSON line each.

usage: bad_input.py FOLDER   a folder to write in; run with four forced CPU devices

It runs in a process of its own, without the shape checks that the tests switch on, so
that the messages are those that users see.
"""

import contextlib
import gzip
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

from configs.yodo import Config
from jeff import assets, checkpoint, files, line, metrics, sharding, training
from jeff.fairness import evaluation, front, gaps, simplex, tabular, yodo
from jeff.sharding import make_mesh
from train_scripts.cli import main
from train_scripts.running import results


class Row(NamedTuple):
    """One mistake, and the parts that its message must have.

    Attributes:
      what: the mistake.
      call: makes it; gets a folder to write in.
      error: name of the exception's type.
      argument: what the message names: an argument, a column, a file.
      expected: what the message says was expected, a regular expression.
      came: what the message says came instead, a regular expression.
    """

    what: str
    call: Callable[[Path], Any]
    error: str
    argument: str
    expected: str
    came: str


PROB = jnp.array([0.9, 0.2, 0.6, 0.4])
LABEL = jnp.array([1, 0, 0, 1])
GROUP = jnp.array([1, 1, 0, 0])
PEOPLE = yodo.Examples(jnp.stack([PROB, PROB**2], axis=1), LABEL, GROUP)
END = {"w": jnp.ones(2), "b": jnp.full(1, -0.5)}
LINE = yodo.Line(END, END)
KEY = jax.random.key(0)
SGD = optax.sgd(0.1)
ALPHAS = jnp.array([0.0, 1.0])
AUROC = training.EarlyStop("auroc")
GOOD = {"age": "31 52 47 28", "work": "1 0 1 1", "sex": "1 1 0 0", "pay": "1 0 0 1"}


def linear(params, inputs, *, key=None):
    return inputs @ params["w"] + params["b"][0]


def csv(folder: Path, label: str = "pay", **columns: str) -> tabular.Dataset:
    """Read the good table with some of its columns replaced."""
    rows = zip(*(text.split() for text in (GOOD | columns).values()), strict=True)
    path = folder / "people.csv"
    path.write_text("\n".join([",".join(GOOD), *map(",".join, rows)]))
    return tabular.read_csv(path, label=label, group="sex")


def csv_file(folder: Path, name: str, content: bytes) -> tabular.Dataset:
    (folder / name).write_bytes(content)
    return tabular.read_csv(folder / name, label="pay", group="sex")


def choose(**options: Any) -> evaluation.Choice:
    return evaluation.choose_alpha(linear, LINE, PEOPLE, ALPHAS, key=KEY, **options)


def fit(loss: Any = 1.0, **options: Any) -> training.FitResult:
    """Train for twelve steps; ``loss`` is that of every step, or a function of it."""
    value = loss if callable(loss) else lambda step: jnp.asarray(loss)

    def step_fn(state, batch):
        return state + 1, {"loss": value(state)}

    batches = training.Shuffled(PEOPLE, 2, KEY)
    options = {"num_steps": 12, "progress": False} | options
    return training.fit(step_fn, jnp.zeros(()), batches, **options)


def nan_from_7(step: jax.Array) -> jax.Array:
    return jnp.where(step < 7, 1, jnp.nan)


def saved(folder: Path) -> Path:
    path = folder / "saved"
    return path if path.exists() else checkpoint.save(path, END)


def cut_short(folder: Path) -> Path:
    """A checkpoint whose largest file, that of its arrays, lost its second half."""
    path = checkpoint.save(folder / "short", jax.random.normal(KEY, (64, 64)))
    files = (file for file in path.rglob("*") if file.is_file())
    largest = max(files, key=lambda file: file.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    return path


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def find(name: str, path: Path | None = None, **values: object) -> Path:
    with environment(**{key: str(value) for key, value in values.items()}):
        return assets.find(name, path)


def command(*words: str) -> None:
    """Run a command line; what it said is the message of the SystemExit."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            status = main(words)
        except SystemExit as stop:
            status = stop.code
    raise SystemExit(f"status {status}; {said.getvalue()}")


V, T, F = "ValueError", "TypeError", "FileNotFoundError"
# A mistake a row: what and call; then error, argument, expected and came.
# fmt: off
ROWS = [
    # Files of people.
    Row("a column is missing", lambda tmp: csv(tmp, label="wage"),
        V, "people.csv", "a column 'wage'", "4 columns: age, work, sex, pay"),
    Row("one class", lambda tmp: csv(tmp, pay="1 1 1 1"),
        V, "column 'pay'", "both 0 and 1", "got 1"),
    Row("one group", lambda tmp: csv(tmp, sex="0 0 0 0"),
        V, "column 'sex'", "both 0 and 1", "got 0"),
    Row("three groups", lambda tmp: csv(tmp, sex="0 1 2 0"),
        V, "column 'sex'", "nothing else", "got 0, 1, 2"),
    Row("NaN in a feature", lambda tmp: csv(tmp, age="31 nan 47 28"),
        V, "csv:3: column 'age'", "a finite number", "got 'nan'"),
    Row("text in a feature", lambda tmp: csv(tmp, work="1 yes 0 1"),
        V, "people.csv:3: column 'work'", "a finite number", "'yes'"),
    Row("rows of different lengths",
        lambda tmp: csv_file(tmp, "ragged.csv", b"sex,pay\n0,1\n1\n"),
        V, "ragged.csv:3", "2 values", "got 1"),
    Row("an empty file", lambda tmp: csv_file(tmp, "empty.csv", b""),
        V, "empty.csv", "a header", "no row"),
    Row("a file cut short",
        lambda tmp: csv_file(tmp, "cut.csv.gz", gzip.compress(b"sex,pay\n0,1")[:-9]),
        V, "cut.csv.gz", "a csv, csv.gz or zip", "ended before"),
    Row("no file", lambda tmp: tabular.read_csv(tmp / "none.csv", label="y", group="s"),
        F, "none.csv", "a csv", "found none"),
    Row("unknown attribute", lambda tmp: tabular.adult("religion"),
        V, "sensitive", r"one of \['race', 'sex'\]", "'religion'"),
    Row("nobody left for the test",
        lambda tmp: tabular.split(csv(tmp), key=KEY, fractions=(0.9, 0.2)),
        V, "fractions", "below 1 in sum", r"\(0.9, 0.2\)"),
    Row("a part without one group", lambda tmp: tabular.split(csv(tmp), key=KEY),
        V, "train part: group", "both 0 and 1", "got 1"),
    # Arrays.
    Row("probabilities of integers",
        lambda tmp: gaps.demographic_parity_gap(LABEL, GROUP),
        T, "prob", "floating-point", "int32"),
    Row("groups of floats", lambda tmp: gaps.demographic_parity_gap(PROB, PROB),
        V, "group", "only 0 and 1", r"values 0\.2"),
    Row("a mask of integers", lambda tmp: gaps.p_rule(PROB, GROUP, where=LABEL),
        T, "where", "a bool array", "int32"),
    Row("lengths that differ",
        lambda tmp: gaps.equal_opportunity_gap(PROB, GROUP, LABEL[:3]),
        V, "label", "4 elements as in prob", "got 3"),
    Row("a batch where a vector is meant", lambda tmp: metrics.auroc(PROB[None], LABEL),
        V, "score", "a vector", r"\(1, 4\)"),
    Row("labels of floats", lambda tmp: metrics.auroc(PROB, PROB),
        T, "label", "bool or 0/1", "float32"),
    Row("unknown way to bin",
        lambda tmp: metrics.expected_calibration_error(PROB, LABEL, strategy="equal"),
        V, "strategy", "'uniform', 'quantile'", "'equal'"),
    Row("a reference of zero", lambda tmp: front.hypervolume(PROB, PROB, (0.0, 1.0)),
        V, "reference", "two positive numbers", r"\(0.0, 1.0\)"),
    # Lines.
    Row("ends of different structures",
        lambda tmp: line.interpolate(END, {"w": END["w"]}, 0.5),
        V, "start and end", "pytrees of one structure", r"PyTreeDef\(\{'w': \*\}\)"),
    Row("ends of different shapes",
        lambda tmp: line.interpolate(END, END | {"w": jnp.ones(3)}, 0.5),
        V, r"\['w'\]", r"float32\(2,\)", r"float32\(3,\)"),
    Row("other integers at the end", lambda tmp: line.interpolate(LABEL, GROUP, 0.5),
        V, "end: ", "int32 values as at the start", "others"),
    Row("a weight too many",
        lambda tmp: line.simplex(simplex.stack([END, END]), jnp.ones(3)),
        V, r"points\['b'\]", "leading axis of 3", r"\(2, 1\)"),
    Row("levels in a matrix",
        lambda tmp: yodo.predict(linear, LINE, PEOPLE.inputs, jnp.zeros((2, 2))),
        V, "alphas", "a scalar or vector", r"\(2, 2\)"),
    Row("too few levels for the people",
        lambda tmp: yodo.predict_each(linear, LINE, PEOPLE.inputs, ALPHAS),
        V, "alphas", "one level a person", r"\(2,\)"),
    Row("unknown gap", lambda tmp: yodo.loss(linear, LINE, PEOPLE, 0.5, gap="parity"),
        V, "gap", "'demographic_parity', 'equal_opportunity'", "'parity'"),
    Row("a column of logits",
        lambda tmp: yodo.loss(lambda p, x: linear(p, x)[:, None], LINE, PEOPLE, 0.5),
        V, "apply_fn", r"one logit a person, shape \(4,\)", r"\(4, 1\)"),
    Row("a limit above 1", lambda tmp: choose(at_most=8.0),
        V, "at_most", r"in \(0, 1\]", "8.0"),
    Row("a confidence in percent", lambda tmp: choose(at_most=0.1, confidence=95),
        V, "confidence", r"in \(0, 1\)", "95"),
    Row("a limit that no level keeps", lambda tmp: choose(at_most=1e-6),
        "NoLevelError", "at_most", "at or below 1e-06", r"alpha 1, it is 0\.\d"),
    Row("a share above 1", lambda tmp: yodo.sample_alpha(key=KEY, end_mass=2.0),
        V, "end_mass", r"in \[0, 1\]", "2.0"),
    # Training.
    Row("a batch larger than the data",
        lambda tmp: yodo.train(linear, LINE, PEOPLE, key=KEY, optimizer=SGD),
        V, "batch_size", "1 to 4", "512"),
    Row("a loss that becomes NaN", lambda tmp: fit(nan_from_7, workdir=tmp / "run"),
        "NonFiniteLossError", "run/checkpoints/6", "a finite loss", "at step 7"),
    Row("a loss that is infinite at once", lambda tmp: fit(jnp.inf),
        "NonFiniteLossError", "loss", "a finite loss", "at step 0; no checkpoint"),
    Row("no steps", lambda tmp: fit(num_steps=0),
        V, "num_steps", "at least 1", "got 0"),
    Row("an early stop without validation", lambda tmp: fit(early_stop=AUROC),
        V, "early_stop", "`validate`", "None"),
    Row("an early stop by an unknown metric",
        lambda tmp: fit(validate=lambda state: {"auc": 1.0}, early_stop=AUROC),
        V, "early_stop.metric", r"\['auc', ", "'auroc'"),
    # Checkpoints.
    Row("no checkpoint", lambda tmp: checkpoint.restore(tmp / "none"),
        F, "none", "a checkpoint directory", "found none"),
    Row("a folder that is no checkpoint",
        lambda tmp: checkpoint.restore((tmp / "plain").mkdir() or tmp / "plain"),
        "DamagedError", "plain", "the checkpoint as it was saved", "cannot be read"),
    Row("a checkpoint cut short", lambda tmp: checkpoint.restore(cut_short(tmp)),
        "DamagedError", "short", "the checkpoint as it was saved", "cannot be read"),
    Row("a checkpoint of another structure",
        lambda tmp: checkpoint.restore(saved(tmp), {"w": END["w"], "c": ALPHAS}),
        V, "saved", r"lacks \['c'\]", r"has \['b'\]"),
    Row("a checkpoint of other shapes",
        lambda tmp: checkpoint.restore(saved(tmp), END | {"w": jnp.ones(3)}),
        V, "saved: w", r"float32\(3,\)", r"float32\(2,\)"),
    Row("a checkpoint in the way", lambda tmp: checkpoint.save(saved(tmp), END),
        "FileExistsError", "saved", "another name", "exists already"),
    # Meshes; there are four devices.
    Row("sizes that do not multiply", lambda tmp: make_mesh(3),
        V, "data=3, fsdp=1, tensor=1", "the number of devices, 4", "data=3"),
    Row("two free sizes", lambda tmp: make_mesh(-1, -1),
        V, "data and fsdp", "at most one size of -1", "data and fsdp"),
    Row("a batch that does not divide",
        lambda tmp: sharding.shard_batch({"x": np.ones((6, 2))}, make_mesh()),
        V, "batch leaf x", "a multiple of 4", r"\(6, 2\)"),
    Row("a rule of too many dimensions",
        lambda tmp: sharding.specs(END, [("w", PartitionSpec("data", "fsdp"))]),
        V, "for w", "at most 1 dimensions", r"\('data', 'fsdp'\)"),
    # Assets.
    Row("JEFF_DATA that is no folder",
        lambda tmp: find("adult", JEFF_DATA=tmp / "none"),
        "NotADirectoryError", "JEFF_DATA", "a directory", "none is missing"),
    Row("an asset at a path that is missing",
        lambda tmp: find("adult", tmp / "adult.csv"),
        F, "adult.csv", "the file of the asset 'adult'", "missing"),
    Row("an asset that is nowhere",
        lambda tmp: find("hpo", JEFF_DATA=tmp, JEFF_CACHE=tmp),
        F, "'hpo'", "To bring it: python -m jeff.assets hpo",
        "hp.obo is missing"),
    Row("an unknown asset", lambda tmp: find("adults"),
        V, "name", "one of adult, german", "'adults'"),
    # Configurations and runs.
    Row("a field out of range", lambda tmp: Config(num_epochs=0),
        V, "num_epochs", "at least 1", "got 0"),
    Row("a seed twice", lambda tmp: Config(seeds=(1, 1)),
        V, "seeds", "distinct numbers", r"\(1, 1\)"),
    Row("an unknown preset", lambda tmp: command("run", "yodo", "nope"),
        "SystemExit", "PRESET", "one of acs, adult", "'nope'"),
    Row("an unknown field",
        lambda tmp: command("run", "yodo", "smoke", "--epochs", "3"),
        "SystemExit", "--epochs", "status 2", "Unrecognized"),
    Row("an unknown system", lambda tmp: command("run", "yoda"),
        "SystemExit", "SYSTEM", "one of yodo", "'yoda'"),
    Row("a result cut short",
        lambda tmp: results.read(files.write_text(tmp / "result.json", '{"seed": ')),
        V, "result.json", "valid JSON", "9 bytes"),
]
# fmt: on


if __name__ == "__main__":
    for row in ROWS:
        try:
            row.call(Path(sys.argv[1]))
        except (Exception, SystemExit) as error:
            told = {"type": type(error).__name__, "message": str(error)}
        else:
            told = {"type": "nothing", "message": ""}
        print(json.dumps({"what": row.what, **told}), flush=True)
