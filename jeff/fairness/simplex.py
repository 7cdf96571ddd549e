"""Several fair ends from one training: a simplex instead of a line.

Vertex 0 is accurate. Every other vertex is fair for one attribute (sex, race) or one
notion of fairness (demographic parity, equal opportunity). At inference the
user mixes them with barycentric weights. With one fair end this is the line of
`jeff.fairness.yodo`. The paper has only a line; the simplex is jeff's own.
"""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from jeff import line as lines
from jeff.as_arrays import as_array
from jeff.calls import call
from jeff.fairness.examples import Column, as_examples, as_inputs
from jeff.fairness.model import (
    ApplyFn,
    Examples,
    GapFn,
    gap_of,
    weighted_mean,
)
from jeff.steps import Metrics, Step, make_step

__all__ = ["loss", "predict", "sample_weights", "stack", "train_step"]


def stack(ends: Sequence[PyTree]) -> PyTree:
    """Stack the vertices: the accurate one first.

    Args:
      ends: parameters of each vertex, at least two, of one structure.

    Returns:
      One pytree with a leading axis ``ends``.

    Raises:
      ValueError: if there are fewer than two, or their structures differ.
    """
    if len(ends) < 2:
        raise ValueError(f"ends: expected at least two vertices, got {len(ends)}")
    for end in ends[1:]:
        lines.check_same_structure(ends[0], end)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *ends)


def sample_weights(
    num_ends: int, *, key: PRNGKeyArray, end_mass: float = 0.5
) -> Float[Array, " ends"]:
    """Draw a point: a vertex with probability ``end_mass``, else a uniform one.

    Args:
      num_ends: number of vertices.
      key: random key.
      end_mass: probability of a vertex, in [0, 1].

    Returns:
      Barycentric weights, non-negative, summing to 1.

    Raises:
      ValueError: if ``end_mass`` lies outside [0, 1].
    """
    if not 0 <= end_mass <= 1:
        raise ValueError(f"end_mass: expected a probability in [0, 1], got {end_mass}")
    which, where, side = jax.random.split(key, 3)
    vertex = jax.nn.one_hot(jax.random.randint(side, (), 0, num_ends), num_ends)
    # A Dirichlet with ones is uniform on the simplex.
    inside = jax.random.dirichlet(where, jnp.ones(num_ends))
    return jnp.where(jax.random.bernoulli(which, end_mass), vertex, inside)


def loss(
    apply_fn: ApplyFn,
    points: PyTree,
    batch: Examples,
    weights: Float[Array, " ends"] | Column,
    *,
    strengths: Sequence[float],
    gaps: Sequence[str | GapFn],
    cosine_weight: float = 1.0,
    key: PRNGKeyArray | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """Loss of the simplex at one point.

    ``BCE(theta) + sum_k weights_k strength_k gap_k(theta) + cosine_weight C``, with
    ``theta = sum_k weights_k point_k``, k = 1.. over the fair ends, and C the mean
    squared cosine over pairs of vertices.

    Args:
      apply_fn: as in `jeff.fairness.yodo.loss`.
      points: vertices, stacked (see `stack`).
      batch: people; ``batch.group`` has shape [people] (one attribute for all ends) or
        [people, ends - 1] (an attribute an end).
      weights: point of the simplex, shape [ends]; not the weights of people, which are
        ``batch.weight``.
      strengths: weight of each fair end's gap.
      gaps: gap of each fair end, a name or a function of (prob, group, label).
      cosine_weight: weight of the term that keeps the vertices apart.
      key: random key of this step, or None to run without dropout.

    Returns:
      ``(loss, {"error", "gap_0", "gap_1", ...})``, scalars.

    Raises:
      ValueError: if the numbers of ends, strengths, gaps and attributes disagree.
    """
    batch, weights = as_examples(batch), as_array(weights, "weights")
    num_fair = weights.shape[0] - 1
    group = batch.group
    if group.ndim == 1:
        # One attribute may serve several notions of fairness.
        group = jnp.broadcast_to(group[:, None], (group.shape[0], num_fair))
    if not num_fair == len(strengths) == len(gaps) == group.shape[1]:
        raise ValueError(
            f"expected a strength, gap and attribute for each of {num_fair} fair ends "
            f"(weights has {weights.shape[0]}), got {len(strengths)} strengths, "
            f"{len(gaps)} gaps and {group.shape[1]} attributes"
        )
    params = lines.simplex(points, weights)
    logit = call(apply_fn, params, batch.inputs, key)
    label = batch.label.astype(logit.dtype)
    each = optax.sigmoid_binary_cross_entropy(logit, label)
    error = weighted_mean(each, batch.weight)
    prob = jax.nn.sigmoid(logit)
    values = [gap_of(gap, prob, group[:, k], batch) for k, gap in enumerate(gaps)]
    penalty = sum(
        weight * strength * value
        for weight, strength, value in zip(weights[1:], strengths, values, strict=True)
    )
    cosine = _mean_cosine(points, num_fair + 1)
    logged = {f"gap_{k}": value for k, value in enumerate(values)}
    return error + penalty + cosine_weight * cosine, {"error": error, **logged}


def train_step(
    apply_fn: ApplyFn,
    optimizer: optax.GradientTransformation,
    *,
    strengths: Sequence[float],
    gaps: Sequence[str | GapFn],
    end_mass: float = 0.5,
) -> Step:
    """The pure training step of a simplex, for `jeff.training.fit`.

    Args:
      apply_fn: as in `jeff.fairness.yodo.loss`.
      optimizer: any optax transformation.
      strengths: as in `loss`.
      gaps: as in `loss`.
      end_mass: as in `sample_weights`.

    Returns:
      ``step(state, batch) -> (state, metrics)``; the state comes from
      ``jeff.training.init_state(points, optimizer, key=key)``.
    """

    def step_loss(points: PyTree, batch: Examples, key: PRNGKeyArray):
        draw, noise = jax.random.split(key)
        weights = sample_weights(len(gaps) + 1, key=draw, end_mass=end_mass)
        return loss(
            apply_fn, points, batch, weights, strengths=strengths, gaps=gaps, key=noise
        )

    return make_step(step_loss, optimizer)


def predict(
    apply_fn: ApplyFn,
    points: PyTree,
    inputs: PyTree,
    weights: Float[Array, "mixtures ends"] | Column,
) -> Float[Array, "mixtures people"]:
    """Probability of the favourable outcome at many points of the simplex.

    Args:
      apply_fn: as in `jeff.fairness.predict`.
      points: vertices, stacked.
      inputs: what the network reads, leading axis ``people``.
      weights: barycentric weights of each mixture, shape [mixtures, ends].

    Returns:
      Probabilities, shape [mixtures, people].

    Raises:
      ValueError: if ``weights`` is not a matrix or its width is not the number of ends.
    """
    mixtures = as_array(weights, "weights")
    if mixtures.ndim != 2:
        raise ValueError(f"weights: expected [mixtures, ends], got {mixtures.shape}")
    return _predict(apply_fn, points, as_inputs(inputs), mixtures)


@functools.partial(jax.jit, static_argnums=0)
def _predict(apply_fn, points, inputs, weights):
    # One mixture after the other, so that memory stays that of one model.
    return jax.lax.map(
        lambda mixture: jax.nn.sigmoid(
            apply_fn(lines.simplex(points, mixture), inputs)
        ),
        weights,
    )


def _mean_cosine(points: PyTree, num_ends: int) -> Float[Array, ""]:
    ends = [jax.tree.map(lambda leaf, k=k: leaf[k], points) for k in range(num_ends)]
    pairs = list(itertools.combinations(ends, 2))
    return sum((lines.cosine_squared(u, v) for u, v in pairs), jnp.zeros(())) / len(
        pairs
    )
