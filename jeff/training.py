"""The one training loop: a pure step under `lax.scan`, resumable bit for bit.

Three levels, each usable without the next:

* `make_step` turns a loss and an optax optimiser into ``step(state, batch)``;
* `run_epochs` scans a step over shuffled epochs: a whole training as one pure function,
  so it can be jitted, and vmapped over seeds or strengths;
* `fit` runs the same thing chunk by chunk from the host, with progress, a log,
  checkpoints, resumption, early stopping and a stop at the first NaN.

`run_epochs` and `fit` see the same batches in the same order: `Shuffled` derives the
order of an epoch from its key and number alone. That is also why a run that was killed
resumes with the same batches.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree

from jeff.batches import Shuffled
from jeff.checks import check_integers_fit
from jeff.rows import NonFiniteLossError, any_nan, chunk_row, valid_row
from jeff.runlog import RunLog
from jeff.runstate import EarlyStop, RunState
from jeff.sharding import is_local
from jeff.steps import (
    LossFn,
    Metrics,
    Step,
    TrainState,
    init_state,
    make_step,
    run_epochs,
    scan_indexed,
    scan_stacked,
)

__all__ = [
    "EarlyStop",
    "FitResult",
    "LossFn",
    "NonFiniteLossError",
    "Shuffled",
    "Step",
    "TrainState",
    "fit",
    "init_state",
    "make_step",
    "run_epochs",
]

# Compiled once per step function for the whole process, however many runs use it. The
# state is donated: parameters and moments are updated in place.
_scan_indexed_jit = jax.jit(
    scan_indexed, static_argnames=("step_fn", "sharding"), donate_argnames="state"
)
_scan_stacked_jit = jax.jit(
    scan_stacked, static_argnames=("step_fn", "sharding"), donate_argnames="state"
)


class FitResult(NamedTuple):
    """Result of `fit`.

    Attributes:
      state: the final state; with early stopping, the best one.
      step: number of finished steps.
      history: one row per chunk: step, mean training metrics, seconds (those of the
        first chunk include compilation), validation metrics.
      stopped: "finished" or "early".
    """

    state: PyTree
    step: int
    history: list[dict[str, int | float]]
    stopped: Literal["finished", "early"]


def fit(
    step_fn: Step,
    state: PyTree,
    batches: Shuffled | Callable[[int], PyTree],
    *,
    num_steps: int,
    constants: tuple[PyTree, ...] = (),
    chunk_steps: int | None = None,
    workdir: str | Path | None = None,
    checkpoint_every: int = 1,
    validate: Callable[[PyTree], Mapping[str, float]] | None = None,
    early_stop: EarlyStop | None = None,
    batch_sharding: NamedSharding | None = None,
    progress: bool = True,
    description: str = "training",
) -> FitResult:
    """Train, and resume after an interruption.

    Steps run in chunks under one compiled `lax.scan`; between chunks the host writes
    the log, validates, and writes a checkpoint. Called again with the same arguments
    after an interruption, it resumes from the last checkpoint and ends with the same
    bits as an uninterrupted run on the same machine. With a larger ``num_steps`` it
    goes on from there.

    With `optax.apply_if_finite` in the optimiser, a step whose loss is not finite stops
    nothing as long as the state stays finite. The log counts such steps as
    ``"skipped"``, and its means leave them out.

    Args:
      step_fn: pure ``(state, batch, *constants) -> (state, metrics)``; metrics contain
        ``"loss"``. Pass the same object to train again without compiling again.
      state: initial state (see `init_state`); its arrays stay valid. Placed over a mesh
        beforehand, it stays so.
      batches: `Shuffled` examples, or ``step -> batch`` for data that come from
        elsewhere; the function must give the same batch for the same step.
      num_steps: steps in all, those before an interruption counted in.
      constants: passed to each step after the batch; neither trained nor written to
        checkpoints, such as the frozen base of LoRA. Arrays that ``step_fn`` closes
        over would instead be compiled into the program.
      chunk_steps: steps per chunk; an epoch by default, or 50 where ``batches`` is a
        function.
      workdir: where ``metrics.jsonl`` and ``checkpoints/`` go; nothing is written when
        it is None. Several processes that train together name one folder. Of those that
        train by themselves, on their own devices, only the first may name one.
      checkpoint_every: chunks between checkpoints, counted from the last one; the last
        chunk always has one.
      validate: ``state -> {name: number}``, called after each chunk. Names may not be
        those of the training metrics, ``"step"``, ``"seconds"`` or ``"skipped"``.
      early_stop: rule over the metrics of ``validate``. NaN is worse than any number.
      batch_sharding: placement of each batch over a mesh
        (`jeff.sharding.batch_sharding`); one device by default.
      progress: show a progress bar on standard error.
      description: text beside the bar.

    Returns:
      A `FitResult`.

    Raises:
      jeff.checkpoint.DamagedError: if the newest checkpoint is damaged; a ValueError
        that says what to delete to go on from the one before it.
      NonFiniteLossError: at the first NaN or infinite loss.
      OSError: if log or checkpoint cannot be written; the earlier ones stay.
      ValueError: if an argument is out of range, the metrics lack ``"loss"`` or the
        early-stop metric, two metrics have one name, a metric of ``validate`` is not a
        number, another process than the first keeps checkpoints alone, or the
        checkpoint in ``workdir`` is of another or a longer run.
    """
    chunk = _check_arguments(batches, num_steps, chunk_steps, checkpoint_every)
    if early_stop is not None and validate is None:
        raise ValueError("early_stop: expected `validate` beside it, got None")
    if early_stop is not None and early_stop.mode not in ("min", "max"):
        raise ValueError(
            f"early_stop.mode: expected 'min' or 'max', got {early_stop.mode!r}"
        )
    with contextlib.ExitStack() as stack:
        saved = None
        if workdir is not None:
            from jeff.checkpoint import Checkpoints  # orbax takes a second to import

            folder = Path(workdir) / "checkpoints"
            saved = stack.enter_context(Checkpoints(folder, like=state))
        # A copy, since the first chunk is given its buffers and the caller keeps
        # `state`.
        check_integers_fit(state=state)
        run = RunState(jax.tree.map(jnp.copy, state), early_stop)
        run.resume(saved)
        if run.step > num_steps:
            raise ValueError(
                f"num_steps: expected at least {run.step}, the step of the checkpoint "
                f"in {workdir}, got {num_steps}; choose another folder"
            )
        log = RunLog(
            workdir,
            num_steps,
            run.step,
            last=run.last,
            show=progress,
            title=description,
            alone=is_local(state),
        )
        stack.enter_context(log)
        while run.step < num_steps and not run.stopped:
            began = time.perf_counter()
            indices = np.arange(run.step, min(run.step + chunk, num_steps))
            run.state, metrics = _run_chunk(
                step_fn, run.state, batches, indices, batch_sharding, constants
            )
            # Reading the metrics waits for the chunk, so the time below is that of the
            # work.
            row = chunk_row(metrics, run.state, run.step, saved)
            row["seconds"] = time.perf_counter() - began
            run.step += len(indices)
            if validate is not None:
                row |= valid_row(validate(run.state), row)
            log.write({"step": run.step, **row})
            run.judge(row)
            done = run.stopped or run.step == num_steps
            # By the steps since the last one: a run that resumes at another step than
            # a multiple of its chunks has checkpoints too.
            if saved and (done or run.step - run.saved_at >= chunk * checkpoint_every):
                # The last update may have broken what the loss did not see.
                if any_nan(run.state):
                    raise NonFiniteLossError(run.step, saved)
                run.save(saved, log.rows)
    return FitResult(
        run.final(), run.step, log.rows, "early" if run.stopped else "finished"
    )


def _check_arguments(
    batches: Shuffled | Callable[[int], PyTree],
    num_steps: int,
    chunk_steps: int | None,
    checkpoint_every: int,
) -> int:
    if chunk_steps is None:
        chunk_steps = batches.steps_per_epoch if isinstance(batches, Shuffled) else 50
    for name, value in [
        ("num_steps", num_steps),
        ("chunk_steps", chunk_steps),
        ("checkpoint_every", checkpoint_every),
    ]:
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    return chunk_steps


def _run_chunk(
    step_fn: Step,
    state: PyTree,
    batches: Shuffled | Callable[[int], PyTree],
    steps: np.ndarray,
    sharding: NamedSharding | None,
    constants: tuple[PyTree, ...],
) -> tuple[PyTree, Metrics]:
    if isinstance(batches, Shuffled):
        epochs, places = np.divmod(steps, batches.steps_per_epoch)
        # A chunk may span epochs; only those that it touches are permuted.
        order = jnp.concatenate(
            [
                batches.order(epoch)[places[epochs == epoch]]
                for epoch in np.unique(epochs).tolist()
            ]
        )
        return _scan_indexed_jit(
            step_fn, state, batches.data, order, sharding, constants
        )
    # Stacked on the host: one transfer per chunk instead of one per step.
    stacked = jax.tree.map(lambda *rows: np.stack(rows), *map(batches, steps.tolist()))
    check_integers_fit(batches=stacked)
    if sharding is not None:
        # The first axis is the scan's: steps follow each other and are not split.
        over_steps = NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))
        stacked = jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(over_steps, leaf),
            stacked,
        )
    return _scan_stacked_jit(step_fn, state, stacked, sharding, constants)
