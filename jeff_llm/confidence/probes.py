"""A small network that predicts from a hidden state whether the answer is right.

All settings are trained at once: data sets and seeds are leading axes of the arrays,
and the training is vmapped over them. `trained_probe` learns on the data set it is used
on, `ood_probe` on all the others.

The papers' network has four layers with leaky ReLU, trained for 20 epochs by Adam; the
hidden state is that of the eighth layer from the end, at the last token read.

References:
  Mahaut et al., "Factual Confidence of LLMs: on Reliability and Robustness of Current
  Estimators", ACL 2024.
  Chuang et al., "Confident or Seek Stronger", 2025, appendix B.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key, PRNGKeyArray, PyTree

from jeff.batches import Shuffled
from jeff.steps import TrainState, init_state, make_step, run_epochs

__all__ = ["Probe", "apply", "init", "ood_probe", "train", "trained_probe"]


class Probe(NamedTuple):
    """A trained network, and how its inputs are scaled.

    Attributes:
      layers: ``{"kernel", "bias"}`` of each layer.
      mean: of the features it was trained on.
      scale: their standard deviation.
    """

    layers: PyTree
    mean: Float[Array, "*settings width"]
    scale: Float[Array, "*settings width"]


def init(
    width: int, *, key: PRNGKeyArray, hidden: int = 256, num_layers: int = 4
) -> PyTree:
    """Random layers of a perceptron with one output.

    Args:
      width: of the features.
      key: random key.
      hidden: units of a hidden layer.
      num_layers: layers, the last included.

    Returns:
      A list of ``{"kernel": [in, out], "bias": [out]}``; He's initialisation.

    Raises:
      ValueError: if a size is not positive.
    """
    if min(width, hidden, num_layers) < 1:
        raise ValueError(
            f"width, hidden, num_layers: expected at least 1 each, got {width}, "
            f"{hidden}, {num_layers}"
        )
    sizes = [width, *[hidden] * (num_layers - 1), 1]
    draw = jax.nn.initializers.he_normal()
    keys = jax.random.split(key, num_layers)
    return [
        {"kernel": draw(each, (fan_in, fan_out)), "bias": jnp.zeros(fan_out)}
        for each, fan_in, fan_out in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def apply(
    probe: Probe, features: Float[Array, "queries width"]
) -> Float[Array, " queries"]:
    """Probability that each answer is right.

    Args:
      probe: one setting's; vmap for several.
      features: hidden states.

    Returns:
      Confidence in [0, 1].
    """
    scaled = (features - probe.mean) / probe.scale
    return jax.nn.sigmoid(_logits(probe.layers, scaled))


@functools.partial(
    jax.jit, static_argnames=("num_epochs", "batch_size", "hidden", "num_layers")
)
def train(
    features: Float[Array, "settings queries width"],
    correct: Bool[Array, "settings queries"],
    *,
    keys: Key[Array, " settings"],
    where: Bool[Array, "settings queries"] | None = None,
    num_epochs: int = 20,
    learning_rate: float | Array = 5e-4,
    weight_decay: float | Array = 0.0,
    batch_size: int = 32,
    hidden: int = 256,
    num_layers: int = 4,
) -> Probe:
    """Train one probe a setting, all in one compiled call.

    Args:
      features: hidden states, the queries of each setting padded to one number.
      correct: whether the answer was right.
      keys: a random key for each setting.
      where: queries that count; all by default.
      num_epochs: passes over the queries.
      learning_rate: of Adam.
      weight_decay: decoupled, of AdamW.
      batch_size: queries per step.
      hidden: units of a hidden layer.
      num_layers: layers, the last included.

    Returns:
      Probes with a leading axis of settings.

    Raises:
      ValueError: if shapes differ or a size is out of range.
    """
    if features.ndim != 3 or correct.shape != features.shape[:2]:
        raise ValueError(
            "features, correct: expected [settings, queries, width] and [settings, "
            f"queries], got {features.shape} and {correct.shape}"
        )
    if where is None:
        where = jnp.ones(correct.shape, bool)
    # Rates may be arrays: another rate is then no other program.
    optimizer = optax.adamw(learning_rate, weight_decay=weight_decay)
    step = make_step(_loss, optimizer)

    def one(x: Array, y: Array, counts: Array, key: PRNGKeyArray) -> Probe:
        mean, variance = _moments(x, counts)
        # Hidden states have a few channels far larger than the rest.
        scaled = (x - mean) / jnp.sqrt(variance + 1e-6)
        first, second = jax.random.split(key)
        layers = init(x.shape[-1], key=first, hidden=hidden, num_layers=num_layers)
        state: TrainState = init_state(layers, optimizer, key=first)
        batches = Shuffled((scaled, y, counts), min(batch_size, len(y)), second)
        state, _ = run_epochs(step, state, batches, num_epochs=num_epochs)
        return Probe(state.params, mean, jnp.sqrt(variance + 1e-6))

    return jax.vmap(one)(features, correct, where, keys)


def trained_probe(
    features: Float[Array, "sets queries width"],
    correct: Bool[Array, "sets queries"],
    new_features: Float[Array, "sets new_queries width"],
    *,
    key: PRNGKeyArray,
    where: Bool[Array, "sets queries"] | None = None,
) -> Float[Array, "sets new_queries"]:
    """Confidences by probes trained on the data set they are used on.

    20 epochs at a rate of 5e-4, as published.

    Args:
      features: hidden states of the training queries of each data set.
      correct: whether the answer was right.
      new_features: hidden states of the queries to judge.
      key: random key.
      where: training queries that count; all by default.

    Returns:
      Confidence in [0, 1].

    Raises:
      ValueError: if shapes differ.
    """
    keys = jax.random.split(key, len(features))
    probes = train(features, correct, keys=keys, where=where)
    return jax.vmap(apply)(probes, new_features)


def ood_probe(
    features: Float[Array, "sets queries width"],
    correct: Bool[Array, "sets queries"],
    new_features: Float[Array, "sets new_queries width"],
    *,
    key: PRNGKeyArray,
    where: Bool[Array, "sets queries"] | None = None,
) -> Float[Array, "sets new_queries"]:
    """Confidences by probes trained on all data sets but the one they are used on.

    20 epochs at a rate of 1e-4, as published.

    Args:
      features: hidden states of the training queries of each data set.
      correct: whether the answer was right.
      new_features: hidden states of the queries to judge.
      key: random key.
      where: training queries that count; all by default.

    Returns:
      Confidence in [0, 1].

    Raises:
      ValueError: if there is only one data set, or shapes differ.
    """
    sets, queries, _ = features.shape
    if sets < 2:
        raise ValueError(f"features: expected at least 2 data sets, got {sets}")
    if where is None:
        where = jnp.ones((sets, queries), bool)
    # Indices of all other sets, so that one gather pools them for every set.
    others = jnp.array([[k for k in range(sets) if k != own] for own in range(sets)])

    def pooled(values: Array) -> Array:
        return values[others].reshape(sets, (sets - 1) * queries, *values.shape[2:])

    keys = jax.random.split(key, sets)
    probes = train(
        pooled(features),
        pooled(correct),
        keys=keys,
        where=pooled(where),
        learning_rate=1e-4,
    )
    return jax.vmap(apply)(probes, new_features)


def _moments(x: Array, counts: Array) -> tuple[Array, Array]:
    # Two passes: E[x^2] - E[x]^2 would cancel for features far from 0.
    total = jnp.maximum(counts.sum(), 1)
    mean = jnp.where(counts[:, None], x, 0).sum(0) / total
    variance = jnp.where(counts[:, None], (x - mean) ** 2, 0).sum(0) / total
    return mean, variance


def _logits(layers: PyTree, x: Array) -> Array:
    *inner, last = layers
    for layer in inner:
        x = jax.nn.leaky_relu(x @ layer["kernel"] + layer["bias"])
    return (x @ last["kernel"] + last["bias"])[..., 0]


def _loss(
    layers: PyTree, batch: tuple[Array, Array, Array], key: PRNGKeyArray
) -> tuple[Array, dict[str, Array]]:
    del key  # nothing is drawn
    x, y, counts = batch
    each = optax.sigmoid_binary_cross_entropy(_logits(layers, x), y)
    return jnp.where(counts, each, 0).sum() / jnp.maximum(counts.sum(), 1), {}
