"""Training on sampled neighbourhoods, for graphs too large for whole steps.

Reference: Hamilton et al., "Inductive Representation Learning on Large Graphs",
NeurIPS 2017.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from jeff.batches import Shuffled
from jeff.calls import call
from jeff.steps import Metrics, Step, init_state, make_step
from jeff.training import EarlyStop, fit
from jeff_graph.editing.checks import check_classes
from jeff_graph.editing.graphs import AnyGraph
from jeff_graph.editing.hops import subgraph
from jeff_graph.editing.network import ApplyFn
from jeff_graph.editing.sampling import Incoming, sample_neighbours
from jeff_graph.editing.splits import Split
from jeff_graph.editing.task import mean_error
from jeff_graph.editing.training import Trained, accuracies, checked_rows

__all__ = ["fit_sampled"]


def fit_sampled(
    apply_fn: ApplyFn,
    params: PyTree,
    graph: AnyGraph,
    labels: Any,
    split: Split,
    *,
    key: PRNGKeyArray,
    fanouts: Sequence[int | None] = (10, 5),
    batch_size: int = 512,
    num_epochs: int = 5,
    chunk_steps: int = 16,
    optimizer: optax.GradientTransformation | None = None,
    workdir: str | Path | None = None,
    progress: bool = False,
) -> Trained:
    """Train on batches of training nodes and a sample of what they depend on.

    As `jeff_graph.editing.training.fit`, inductive and with the best parameters by
    validation kept, but a step costs ``batch_size`` nodes with their samples, whatever
    the size of the graph. A validation is one forward pass over the whole graph.

    Args:
      apply_fn: ``(params, graph) -> logits [nodes, classes]``, with an argument ``key``
        where it has dropout.
      params: initial parameters.
      graph: the whole graph; samples are of its kind, see
        `jeff_graph.editing.sampling`.
      labels: class of each node; -1 for none.
      split: its parts.
      key: random key of order, samples and dropout.
      fanouts: for each layer of the network, the most neighbours to take at a node.
      batch_size: training nodes a step; all of them where there are fewer.
      num_epochs: passes over the training nodes; full batches only.
      chunk_steps: steps between two validations, whose samples are held at a time.
      optimizer: any optax transformation; Adam at .01 by default.
      workdir: as in `jeff.training.fit`, which also resumes there.
      progress: show a progress bar on standard error.

    Returns:
      `Trained`.

    Raises:
      FloatingPointError: at the first loss that is not finite.
      ValueError: if a number is out of range, a label has no logit, or there is no
        training or no validation node.
    """
    labels, split, nodes_labelled = checked_rows(graph, labels, split)
    if not nodes_labelled:
        raise ValueError("labels: expected one for each node, got one for each graph")
    logits = jax.eval_shape(apply_fn, params, graph)
    check_classes("labels", labels, logits.shape[1])
    optimizer = _adam() if optimizer is None else optimizer

    def score(params: PyTree) -> Split:
        return accuracies(apply_fn, params, graph, labels, split)

    order, samples, dropout = jax.random.split(key, 3)
    nodes = np.flatnonzero(np.asarray(split.train))
    batches = Shuffled(jnp.asarray(nodes), min(batch_size, len(nodes)), order)
    num_steps = num_epochs * batches.steps_per_epoch
    result = fit(
        _step(apply_fn, optimizer, batches.batch_size),
        init_state(params, optimizer, key=dropout),
        _sampler(subgraph(graph, split.train), labels, batches, fanouts, samples),
        num_steps=num_steps,
        chunk_steps=min(chunk_steps, num_steps) if num_steps > 0 else None,
        workdir=workdir,
        validate=lambda state: {"valid": float(score(state.params).valid)},
        early_stop=EarlyStop("valid", patience=max(num_steps, 1), mode="max"),
        progress=progress,
    )
    best = result.state.params
    return Trained(best, *map(float, score(best)))


_adam = functools.cache(functools.partial(optax.adam, 0.01))


def _sampler(
    graph: AnyGraph,
    labels: Array,
    batches: Shuffled,
    fanouts: Sequence[int | None],
    key: PRNGKeyArray,
) -> Callable[[int], tuple[AnyGraph, Array]]:
    """The neighbourhood of each step and its seeds' labels, by its number alone."""
    edges, nodes = Incoming(graph), np.asarray(batches.data)
    known = np.asarray(labels)
    # Steps come in order, so one epoch's permutation is enough.
    order = functools.lru_cache(maxsize=1)(lambda e: np.asarray(batches.order(e)))

    def sample(step: int) -> tuple[AnyGraph, Array]:
        epoch, place = divmod(int(step), batches.steps_per_epoch)
        seeds = nodes[order(epoch)[place]]
        # A function of the step alone: a resumed run draws the same samples.
        drawn = jax.random.fold_in(key, int(step))
        near = sample_neighbours(edges, seeds, fanouts, key=drawn)
        return near.graph, jnp.asarray(known[seeds])

    return sample


@functools.lru_cache(maxsize=16)
def _step(
    apply_fn: ApplyFn, optimizer: optax.GradientTransformation, seeds: int
) -> Step:
    """The step of `fit`: only the seeds, which come first, count."""

    def loss(
        params: PyTree, batch: tuple[AnyGraph, Array], key: PRNGKeyArray
    ) -> tuple[Array, Metrics]:
        graph, labels = batch
        # The other nodes are there for their messages; their own are cut off.
        logits = call(apply_fn, params, graph, key)[:seeds]
        return mean_error(logits, labels, jnp.ones(seeds, bool)), {}

    return make_step(loss, optimizer)
