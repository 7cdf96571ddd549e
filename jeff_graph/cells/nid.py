"""NID: interactions from the weights of a multilayer perceptron.

Two inputs can only interact where they meet in a unit of the first layer. A unit counts
by the strength of its paths to the output, and a pair by the weaker of its two weights
there. An L1 penalty makes the weights sparse. A linear term beside the network takes
the main effects, which would otherwise look like interactions; the official code has a
small network per input instead.

Reference: Tsang, Cheng and Liu, "Detecting Statistical Interactions from Neural Network
Weights", ICLR 2018.
"""

import functools
import itertools
from collections.abc import Iterable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from jeff.batches import Shuffled
from jeff.checks import check_same_length
from jeff.promotion import promoting
from jeff.steps import Metrics, Step, init_state, make_step, run_epochs
from jeff_graph.cells.arrays import as_codes, as_real

__all__ = ["Weights", "nid_scores", "train_mlp"]

# Kernels [fan in, fan out] from the first layer to the last.
Weights: TypeAlias = list[Float[Array, "fan_in fan_out"]]


def nid_scores(kernels: Iterable[Shaped[Any, "_ _"]]) -> Float[Array, "genes genes"]:
    """Strength of every pair: ``sum_h z_h min(|W1[i, h]|, |W1[j, h]|)``.

    ``z = |W2| |W3| ... |W_L| 1`` is the strength of a first-layer unit's paths to the
    outputs, summed over classes.

    Args:
      kernels: of the layers, first to last.

    Returns:
      A symmetric map of at least 0.

    Raises:
      ValueError: if there are fewer than two kernels, or they do not fit together.

    >>> nid_scores([jnp.array([[1.0], [-3.0]]), jnp.array([[2.0]])])[0, 1].item()
    2.0
    """
    kernels = [as_real(kernel, "kernels") for kernel in kernels]
    if len(kernels) < 2 or any(
        one.shape[1] != other.shape[0] for one, other in itertools.pairwise(kernels)
    ):
        raise ValueError(
            "kernels: expected two or more that fit together, got shapes "
            f"{[kernel.shape for kernel in kernels]}"
        )
    # From the output back, vector by matrix: the product of the kernels is never
    # formed.
    ways = functools.reduce(
        lambda z, k: jnp.abs(k) @ z,
        reversed(kernels[1:-1]),
        jnp.abs(kernels[-1]).sum(1),
    )
    first = jnp.abs(kernels[0]) * 1.0

    # Unit by unit: minima of all units at once are genes by genes by units.
    def add(total: Array, unit: tuple[Array, Array]) -> tuple[Array, None]:
        weight, way = unit
        return total + way * jnp.minimum(weight[:, None], weight[None, :]), None

    zero = jnp.zeros((first.shape[0], first.shape[0]), first.dtype)
    return jax.lax.scan(add, zero, (first.T, ways))[0]


def train_mlp(
    x: Shaped[Any, "cells genes"],
    labels: Shaped[Any, " cells"],
    *,
    key: PRNGKeyArray,
    num_classes: int = 2,
    hidden: Iterable[int] = (64, 32),
    l1: float = 1e-4,
    num_epochs: int = 30,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
) -> Weights:
    """Train a perceptron with a linear term beside it; pure, so it can be jitted.

    Args:
      x: expression; brought to zero mean and unit variance inside.
      labels: class of each cell, from 0.
      key: random key.
      num_classes: number of classes.
      hidden: widths of the hidden layers.
      l1: penalty on the absolute values of the kernels.
      num_epochs: passes over the cells.
      batch_size: cells per step; all of them where there are fewer.
      learning_rate: of Adam.

    Returns:
      The kernels, first to last, without the linear term.

    Raises:
      ValueError: if a number is below 1, lengths differ, there is no cell, or a label
        is no class.
    """
    hidden = tuple(hidden)
    if min(num_epochs, batch_size, num_classes, *hidden) < 1 or not hidden:
        raise ValueError(
            "num_epochs, batch_size, num_classes, hidden: expected at least 1 each, "
            f"got {num_epochs}, {batch_size}, {num_classes}, {hidden}"
        )
    x, labels = as_real(x, "x"), as_codes(labels, "labels", num_classes)
    if x.ndim != 2 or not x.shape[0]:
        raise ValueError(f"x: expected [cells, genes] with a cell, got {x.shape}")
    check_same_length(x=x[:, 0], labels=labels)
    deviation = x.std(0)
    x = (x - x.mean(0)[None]) / jnp.where(deviation > 0, deviation, 1.0)[None]
    widths = (x.shape[1], *hidden, num_classes)
    init, order, steps = jax.random.split(key, 3)
    keys = jax.random.split(init, len(widths) - 1)
    make = jax.nn.initializers.he_normal()
    layers = [
        (make(k, shape, x.dtype), jnp.zeros(shape[1], x.dtype))
        for k, shape in zip(keys, itertools.pairwise(widths), strict=True)
    ]
    # Not penalised, unlike the kernels, so that main effects are cheaper here.
    linear = jnp.zeros((x.shape[1], num_classes), x.dtype)
    optimizer = promoting(optax.adam(learning_rate))
    state = init_state((layers, linear), optimizer, key=steps)
    batches = Shuffled((x, labels), min(batch_size, len(x)), order)
    state, _ = run_epochs(_step(optimizer, l1), state, batches, num_epochs=num_epochs)
    return [kernel for kernel, _ in state.params[0]]


def _step(optimizer: optax.GradientTransformation, l1: float) -> Step:
    def loss(
        params: tuple, batch: tuple[Array, Array], key: PRNGKeyArray
    ) -> tuple[Array, Metrics]:
        (layers, linear), (x, labels) = params, batch
        units = x
        for kernel, bias in layers[:-1]:
            units = jax.nn.relu(units @ kernel + bias[None])
        logits = units @ layers[-1][0] + layers[-1][1][None] + x @ linear
        error = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return error + l1 * sum(jnp.abs(kernel).sum() for kernel, _ in layers), {}

    return make_step(loss, optimizer)
