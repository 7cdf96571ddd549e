"""A training step as a pure function, and the scans that repeat it."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from jeff.batches import Shuffled
from jeff.frozen import Frozen, freeze, join, split

__all__ = [
    "LossFn",
    "Metrics",
    "Step",
    "TrainState",
    "init_state",
    "make_step",
    "run_epochs",
    "scan_indexed",
    "scan_stacked",
]

Metrics: TypeAlias = dict[str, Float[Array, "..."]]
# (params, batch, key, *constants), and (state, batch, *constants).
LossFn: TypeAlias = Callable[..., tuple[Array, Metrics]]
Step: TypeAlias = Callable[..., tuple[PyTree, Metrics]]


class TrainState(NamedTuple):
    """State of a training. Invariant: ``step`` counts finished steps."""

    params: PyTree
    opt_state: PyTree
    key: PRNGKeyArray
    step: Int[Array, ""]


def init_state(
    params: PyTree, optimizer: optax.GradientTransformation, *, key: PRNGKeyArray
) -> TrainState:
    """Training state at step 0.

    Args:
      params: pytree of arrays. The optimiser sees its floating-point leaves; integers,
        bools and random keys are None to it.
      optimizer: optax transformation.
      key: random key of the run; step t uses ``fold_in(key, t)``.

    Returns:
      The state.
    """
    floats, _ = split(params, ())
    return TrainState(params, optimizer.init(floats), key, jnp.zeros((), jnp.int32))


def make_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    frozen: Frozen | None = None,
) -> Step:
    """One optimiser step as a pure function.

    Transformations that ask for more than a gradient get it: ``value``, ``grad``, and
    as functions of the parameters ``value_fn`` or ``obj_fn``, the loss of this batch,
    and ``grad_fn``, its gradient. `optax.lbfgs` evaluates them in its line search.

    Args:
      loss_fn: ``(params, batch, key, *constants) -> (loss, metrics)``.
      optimizer: the optax transformation that made the state; any.
      frozen: parameters that are not trained, as in `jeff.frozen.is_frozen`. Leaves
        that are not floating point never are.

    Returns:
      ``step(state, batch, *constants) -> (state, metrics)``; metrics gain ``"loss"``.
      It raises a ValueError if ``loss_fn`` returns a metric of that name, a name in
      ``frozen`` is in no path, or running statistics would be trained.
    """
    optimizer = freeze(optimizer, frozen)

    def step(
        state: TrainState, batch: PyTree, *constants: PyTree
    ) -> tuple[TrainState, Metrics]:
        # From the step's number, not from a chain of splits: a resumed run draws the
        # same.
        key = jax.random.fold_in(state.key, state.step)
        floats, rest = split(state.params, ())

        def value(floats: PyTree) -> tuple[Array, Metrics]:
            return loss_fn(join(floats, rest), batch, key, *constants)

        # optax insists that `value_fn` takes every extra argument that it does not.
        def value_fn(floats: PyTree, obj_fn: Any = None, grad_fn: Any = None) -> Array:
            del obj_fn, grad_fn
            return value(floats)[0]

        (loss, metrics), grads = jax.value_and_grad(value, has_aux=True)(floats)
        if "loss" in metrics:
            raise ValueError(
                'loss_fn: expected metrics of other names than "loss", which the step '
                f"adds, got {sorted(metrics)}"
            )
        # Of a complex parameter JAX gives the conjugate of the direction of ascent.
        grads = jax.tree.map(jnp.conj, grads)
        updates, opt_state = optimizer.update(
            grads,
            state.opt_state,
            state.params,
            value=loss,
            grad=grads,
            value_fn=value_fn,
            obj_fn=value_fn,
            grad_fn=lambda floats, *_: jax.grad(value, has_aux=True)(floats)[0],
        )
        moved = optax.apply_updates(floats, split(updates, ())[0])
        state = TrainState(join(moved, rest), opt_state, state.key, state.step + 1)
        return state, {"loss": loss, **metrics}

    return step


def run_epochs(
    step_fn: Step, state: PyTree, batches: Shuffled, *, num_epochs: int
) -> tuple[PyTree, Metrics]:
    """A whole training as one pure function.

    Jit it, or vmap it over keys, initial parameters or hyperparameters that ``step_fn``
    closes over.

    Args:
      step_fn: ``(state, batch) -> (state, metrics)``.
      state: initial state.
      batches: the examples and the order in which they come.
      num_epochs: passes over the examples.

    Returns:
      ``(state, metrics)``; each metric has shape [num_epochs, steps_per_epoch].

    Raises:
      ValueError: if ``num_epochs`` is negative.
    """
    if num_epochs < 0:
        raise ValueError(f"num_epochs: expected at least 0, got {num_epochs}")

    def epoch(state: PyTree, number: Array) -> tuple[PyTree, Metrics]:
        return scan_indexed(step_fn, state, batches.data, batches.order(number))

    # A scan of scans: one epoch is compiled, however many there are.
    return jax.lax.scan(epoch, state, jnp.arange(num_epochs))


def scan_indexed(
    step_fn: Step,
    state: PyTree,
    data: PyTree,
    order: Int[Array, "steps batch"],
    sharding: jax.sharding.NamedSharding | None = None,
    constants: tuple[PyTree, ...] = (),
) -> tuple[PyTree, Metrics]:
    """Scan a step over batches that are rows of in-memory data.

    Args:
      step_fn: ``(state, batch, *constants) -> (state, metrics)``.
      state: initial state.
      data: pytree of arrays, leading axis ``examples``.
      order: rows of each step's batch; all must exist.
      sharding: placement of each batch over a mesh, or None.
      constants: passed to every step.

    Returns:
      ``(state, metrics)``; metrics have a leading axis ``steps``.
    """

    def step(state: PyTree, rows: Array) -> tuple[PyTree, Metrics]:
        # Gathered inside the scan, so that no shuffled copy of the data is made. Rows
        # come from `Shuffled` and exist, so no bounds are checked.
        batch = jax.tree.map(
            lambda leaf: jnp.asarray(leaf).at[rows].get(mode="promise_in_bounds"), data
        )
        return step_fn(state, _place(batch, sharding), *constants)

    return jax.lax.scan(step, state, order)


def scan_stacked(
    step_fn: Step,
    state: PyTree,
    stacked: PyTree,
    sharding: jax.sharding.NamedSharding | None,
    constants: tuple[PyTree, ...] = (),
) -> tuple[PyTree, Metrics]:
    """Scan a step over batches that are stacked already.

    Args:
      step_fn: ``(state, batch, *constants) -> (state, metrics)``.
      state: initial state.
      stacked: batches, leading axis ``steps`` on every leaf.
      sharding: placement of each batch over a mesh, or None.
      constants: passed to every step.

    Returns:
      ``(state, metrics)``; metrics have a leading axis ``steps``.
    """
    return jax.lax.scan(
        lambda state, batch: step_fn(state, _place(batch, sharding), *constants),
        state,
        stacked,
    )


def _place(batch: PyTree, sharding: jax.sharding.NamedSharding | None) -> PyTree:
    return (
        batch if sharding is None else jax.lax.with_sharding_constraint(batch, sharding)
    )
