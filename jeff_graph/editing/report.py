"""Measurements of the editing protocols."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jeff_graph.editing.rows import right_rows
from jeff_graph.editing.task import EditTask, divergence

__all__ = [
    "HOPS",
    "EditReport",
    "at",
    "final_report",
    "hop_counts",
    "hop_points",
    "points",
    "predictions_lost",
    "share",
]

# Distances from the targets at which drawdown is reported.
HOPS = (1, 2, 3)


class EditReport(NamedTuple):
    """Measurements of a protocol.

    Drawdown is the loss of accuracy on the test nodes, in points; negative where edits
    made the model better.

    Attributes:
      success: was the target right after its edit?
      retained: was it right at the end? After independent edits, the same.
      steps: steps of each edit; of a batch, all the same.
      drawdown: at the end; the mean over independent edits.
      drawdowns: after each edit.
      hop_drawdown: drawdown of the test nodes 1, 2 and 3 hops from the target, or from
        the nearest of all; pooled over independent edits; NaN where there is none.
      divergence: mean of KL(before || after) over the nodes that were not edited, in
        nats; the mean over independent edits.
    """

    success: Bool[Array, " edits"]
    retained: Bool[Array, " edits"]
    steps: Int[Array, " edits"]
    drawdown: Float[Array, ""]
    drawdowns: Float[Array, " edits"]
    hop_drawdown: Float[Array, " hops"]
    divergence: Float[Array, ""]


def at(right: Bool[Array, " nodes"], targets: Array | int) -> Bool[Array, "..."]:
    """Whether targets are right; False for a node that does not exist.

    Args:
      right: of each node.
      targets: node numbers.

    Returns:
      A bool for each target.
    """
    # Under jit a number cannot be refused. One that is too large would be clamped, and
    # a negative one counted from the end: the answer of some other node.
    targets = jnp.where(jnp.asarray(targets) < 0, right.shape[0], targets)
    return right.at[targets].get(mode="fill", fill_value=False)


def predictions_lost(
    reference: Array, logits: Array, task: EditTask
) -> Int[Array, " nodes"]:
    """Right predictions lost since the reference.

    Args:
      reference: logits before, [nodes, classes].
      logits: logits now.
      task: has the right classes.

    Returns:
      1 where one was lost, -1 where one was won, else 0.
    """
    was, now = (right_rows(each, task.labels) for each in (reference, logits))
    return was.astype(jnp.int32) - now.astype(jnp.int32)


def share(part: Int[Array, "..."], whole: Int[Array, "..."]) -> Float[Array, "..."]:
    """A part in hundredths of the whole.

    Args:
      part: counts.
      whole: counts.

    Returns:
      The shares; NaN where the whole is 0.
    """
    # NaN is put there and not computed, so that jax_debug_nans finds faults alone.
    found = 100 * part.astype(jnp.float32) / jnp.maximum(whole, 1).astype(jnp.float32)
    return jnp.where(whole > 0, found, jnp.nan)


def points(lost: Array, where: Array) -> Float[Array, ""]:
    """Drawdown over some nodes, in points.

    Args:
      lost: from `predictions_lost`.
      where: the nodes.

    Returns:
      A scalar; NaN where there are none.
    """
    return share(jnp.sum(lost, where=where), where.sum())


def hop_counts(
    lost: Array, test: Array, distance: Array | None
) -> Int[Array, "hops 2"]:
    """Predictions lost, and nodes, at each of `HOPS`.

    Args:
      lost: from `predictions_lost`.
      test: nodes that count.
      distance: hops of each node from the target, or None.

    Returns:
      Integers [hops, 2]; zeros without a distance.
    """
    if distance is None:
        return jnp.zeros((len(HOPS), 2), jnp.int32)
    # Counts, not shares: they add over edits before they are divided.
    at = test[None] & (distance[None] == jnp.asarray(HOPS)[:, None])
    lost = jnp.sum(jnp.where(at, lost[None], 0), axis=1)
    return jnp.stack([lost, at.sum(1)], axis=1)


def hop_points(counts: Int[Array, "hops 2"]) -> Float[Array, " hops"]:
    """Drawdown at each distance, in points.

    Args:
      counts: from `hop_counts`.

    Returns:
      The drawdowns; NaN where there are no nodes.
    """
    return share(counts[:, 0], counts[:, 1])


def final_report(
    reference: Array,
    logits: Array,
    task: EditTask,
    targets: Array,
    test: Array,
    hops: Array | None,
    success: Array,
    steps: Array,
    drawdowns: Array,
    edited: Array,
) -> EditReport:
    """The report on a model that has seen all edits.

    Args:
      reference: logits before the first, [nodes, classes].
      logits: logits at the end.
      task: what was edited on.
      targets: a node for each edit.
      test: nodes whose accuracy counts.
      hops: distance of every node from each target, or None.
      success: of each edit.
      steps: of each edit.
      drawdowns: after each edit.
      edited: the targets as a mask.

    Returns:
      The report.
    """
    lost = predictions_lost(reference, logits, task)
    nearest = None if hops is None else hops.min(0)
    return EditReport(
        success,
        at(right_rows(logits, task.labels), targets),
        steps,
        drawdowns[-1],
        drawdowns,
        hop_points(hop_counts(lost, test, nearest)),
        divergence(reference, logits, task.where & ~edited),
    )
