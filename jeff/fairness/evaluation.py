"""Evaluation of a line: metrics at every level, and a level chosen under a constraint.

The paper reports accuracy against a gap at 11 or 21 levels. Unlike the paper's
protocol, one compiled call measures all levels here. `choose_alpha` chooses a level on
validation data, with a confidence that accounts for the choice. `fixed_step` trains the
baseline of separate models.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, Shaped

from jeff import metrics
from jeff.fairness import gaps
from jeff.fairness.front import hypervolume
from jeff.fairness.model import (
    ApplyFn,
    Examples,
    GapFn,
    Line,
    check_codes,
    error_and_gap,
    named_gap,
    predict,
)
from jeff.steps import Metrics, Step, make_step

__all__ = [
    "Choice",
    "Evaluation",
    "NoLevelError",
    "choose_alpha",
    "evaluate",
    "fixed_step",
    "measure",
]


class Evaluation(NamedTuple):
    """Metrics of decisions at threshold 0.5, one entry per level.

    Attributes:
      alpha: the levels, shape [levels].
      accuracy: share of correct decisions.
      auroc: area under the ROC curve of the probabilities.
      demographic_parity: `jeff.fairness.demographic_parity_gap` of the decisions.
      equal_opportunity: `jeff.fairness.equal_opportunity_gap` of the decisions.
      equalized_odds: `jeff.fairness.equalized_odds_gap` of the decisions.
      soft_demographic_parity: the demographic parity gap of the probabilities.
      soft_equal_opportunity: the equal opportunity gap of the probabilities.
      p_rule: ratio of the groups' rates of favourable decisions.
      abcc: area between the groups' distributions of probabilities.
      group_rates: rate of favourable decisions by group, shape [levels, 2].
    """

    alpha: Float[Array, " levels"]
    accuracy: Float[Array, " levels"]
    auroc: Float[Array, " levels"]
    demographic_parity: Float[Array, " levels"]
    equal_opportunity: Float[Array, " levels"]
    equalized_odds: Float[Array, " levels"]
    soft_demographic_parity: Float[Array, " levels"]
    soft_equal_opportunity: Float[Array, " levels"]
    p_rule: Float[Array, " levels"]
    abcc: Float[Array, " levels"]
    group_rates: Float[Array, "levels 2"]

    def hypervolume(
        self,
        gap: str = "demographic_parity",
        reference: tuple[float, float] = (0.25, 0.25),
    ) -> Float[Array, ""]:
        """Share of the box from (0, 0) to ``reference`` that the levels dominate.

        Args:
          gap: name of a gap field of this class.
          reference: error and gap at the worst corner; 0.25 and 0.25 by default.

        Returns:
          A scalar in [0, 1]; larger is better. See `jeff.fairness.hypervolume`.
        """
        return hypervolume(1 - self.accuracy, getattr(self, gap), reference)


def measure(
    prob: Float[Array, "levels people"],
    label: Shaped[Array, " people"],
    group: Shaped[Array, " people"],
    alphas: Float[Array, " levels"],
) -> Evaluation:
    """Measure given probabilities, from any source.

    Args:
      prob: probability of the favourable outcome by each model, [levels, people].
      label: outcomes, 0 or 1.
      group: groups, 0 or 1.
      alphas: the level of each row.

    Returns:
      An `Evaluation`.

    Raises:
      ValueError: if lengths differ, or an outcome or group is neither 0 nor 1.
    """
    check_codes(label, group)
    return _measure(prob, label, group, alphas)


@jax.jit
def _measure(prob, label, group, alphas):
    def one(prob: Array, alpha: Array) -> Evaluation:
        hard = gaps.harden(prob)
        return Evaluation(
            alpha=alpha,
            accuracy=metrics.accuracy(prob, label),
            auroc=metrics.auroc(prob, label),
            demographic_parity=gaps.demographic_parity_gap(hard, group),
            equal_opportunity=gaps.equal_opportunity_gap(hard, group, label),
            equalized_odds=gaps.equalized_odds_gap(hard, group, label),
            soft_demographic_parity=gaps.demographic_parity_gap(prob, group),
            soft_equal_opportunity=gaps.equal_opportunity_gap(prob, group, label),
            p_rule=gaps.p_rule(hard, group),
            abcc=gaps.abcc(prob, group),
            group_rates=gaps.group_rates(hard, group),
        )

    return jax.vmap(one)(prob, jnp.asarray(alphas, jnp.float32))


def evaluate(
    apply_fn: ApplyFn,
    line: Line,
    examples: Examples,
    alphas: Float[Array, " levels"],
    *,
    alphas_at_once: int = 1,
) -> Evaluation:
    """Measure a line at many levels in one compiled call.

    Args:
      apply_fn: as in `jeff.fairness.predict`.
      line: the two ends.
      examples: the people, their outcomes and groups, 0 or 1.
      alphas: levels in [0, 1], shape [levels].
      alphas_at_once: as in `jeff.fairness.predict`.

    Returns:
      An `Evaluation`.

    Raises:
      ValueError: if lengths differ, ``alphas`` is not a vector, or an outcome or group
        is neither 0 nor 1.
    """
    check_codes(examples.label, examples.group)
    return _evaluate(apply_fn, line, examples, jnp.asarray(alphas), alphas_at_once)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _evaluate(apply_fn, line, examples, alphas, alphas_at_once):
    if alphas.ndim != 1:
        raise ValueError(f"alphas: expected a vector of levels, got {alphas.shape}")
    prob = predict(
        apply_fn, line, examples.inputs, alphas, alphas_at_once=alphas_at_once
    )
    return measure(prob, examples.label, examples.group, alphas)


class Choice(NamedTuple):
    """The level that `choose_alpha` picked.

    Attributes:
      alpha: the level.
      accuracy: its accuracy on the validation data.
      gap: its gap on the validation data.
      gap_upper: upper confidence bound of its gap; at most the limit.
    """

    alpha: float
    accuracy: float
    gap: float
    gap_upper: float


class NoLevelError(ValueError):
    """Raised when no level keeps the gap within the limit at the given confidence."""


def choose_alpha(
    apply_fn: ApplyFn,
    line: Line,
    examples: Examples,
    alphas: Float[Array, " levels"],
    *,
    key: PRNGKeyArray,
    metric: str = "demographic_parity",
    at_most: float,
    confidence: float = 0.95,
    num_samples: int = 500,
) -> Choice:
    """Choose the most accurate level whose gap is within a limit, with confidence.

    The people are resampled ``num_samples`` times. Let ``q`` be the ``confidence``
    quantile over resamples of ``max_alpha (gap*(alpha) - gap(alpha))``. The upper bound
    for a level is ``gap(alpha) + q``. The bound holds for all levels at once, and so
    also for the level that is chosen because it looks best. A resample without members
    of a group gives no estimate of its rate, so it counts as the largest possible gap.

    Args:
      apply_fn: as in `jeff.fairness.predict`.
      line: the two ends.
      examples: validation people, used neither in training nor in testing; their
        outcomes and groups, 0 or 1.
      alphas: candidate levels, shape [levels].
      key: random key of the resampling.
      metric: a name in `jeff.fairness.model.GAPS`, computed on hard decisions.
      at_most: limit on the gap, in (0, 1].
      confidence: probability that the bound holds, in (0, 1).
      num_samples: number of bootstrap resamples.

    Returns:
      A `Choice`.

    Raises:
      ValueError: if an argument is out of range, an outcome or group is neither 0 nor
        1, a group whose rate the gap compares has no members, or the model predicts
        NaN.
      NoLevelError: if no level satisfies the limit; the message gives the smallest
        bound over all levels.
    """
    named_gap(metric)
    if not 0 < at_most <= 1:
        raise ValueError(f"at_most: expected a gap in (0, 1], got {at_most}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number in (0, 1), got {confidence}")
    inputs, label, group = examples
    check_codes(label, group)
    _check_cells(metric, label, group)
    prob = predict(apply_fn, line, inputs, alphas)
    if not jnp.isfinite(prob).all():
        bad = int((~jnp.isfinite(prob)).any(0).sum())
        raise ValueError(
            f"apply_fn: expected finite probabilities, got NaN for {bad} of "
            f"{prob.shape[1]} people; a gap cannot be bounded from them"
        )
    gap, upper = _gap_bounds(prob, label, group, key, metric, confidence, num_samples)
    accuracy = jax.vmap(metrics.accuracy, in_axes=(0, None))(prob, label)
    allowed = upper <= at_most
    if not allowed.any():
        best = int(jnp.argmin(upper))
        raise NoLevelError(
            f"at_most: no level keeps the {metric} gap at or below {at_most} with "
            f"confidence {confidence}; the smallest bound is {float(upper[best]):.4f} "
            f"at alpha {float(alphas[best]):g}; raise the limit, train with a larger "
            "strength, or validate on more people"
        )
    best = int(jnp.argmax(jnp.where(allowed, accuracy, -1.0)))
    return Choice(
        float(alphas[best]), float(accuracy[best]), float(gap[best]), float(upper[best])
    )


def _cells(
    metric: str, label: Shaped[Array, " people"], group: Shaped[Array, " people"]
) -> dict[str, Bool[Array, " people"]]:
    """Members of each cell whose rate enters a gap, by name of the cell."""
    groups = {"group 0": group == 0, "group 1": group == 1}
    if metric == "demographic_parity":
        return groups
    outcomes = (1,) if metric == "equal_opportunity" else (0, 1)
    return {
        f"{name} with outcome {outcome}": member & (label == outcome)
        for name, member in groups.items()
        for outcome in outcomes
    }


def _check_cells(
    metric: str, label: Shaped[Array, " people"], group: Shaped[Array, " people"]
) -> None:
    cells = _cells(metric, jnp.asarray(label), jnp.asarray(group))
    empty = [name for name, member in cells.items() if not member.any()]
    if empty:
        raise ValueError(
            f"group: expected people in every cell that the {metric} gap compares, got "
            f"none in {', '.join(empty)}; nothing can be guaranteed about a rate that "
            "was never seen: validate on people of both groups"
        )


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _gap_bounds(prob, label, group, key, metric, confidence, num_samples):
    hard = gaps.harden(prob)
    people = label.shape[0]
    cells = jnp.stack(list(_cells(metric, label, group).values()))
    largest = 2.0 if metric == "equalized_odds" else 1.0

    def gap_at(weight: Array) -> Array:
        return jax.vmap(lambda h: _weighted_gap(metric, h, group, label, weight))(hard)

    def resampled(key: Array) -> Array:
        # A resample is a vector of counts used as weights, which has a fixed shape and
        # needs no copy of the predictions.
        drawn = jax.random.randint(key, (people,), 0, people)
        weight = jnp.zeros(people).at[drawn].add(1.0)
        whole = jnp.all(jnp.any(cells & (weight > 0), axis=1))
        return jnp.where(whole, gap_at(weight), largest)

    # A loop over resamples, not a vmap, whose memory would grow with their number.
    gap = gap_at(jnp.ones(people))
    samples = jax.lax.map(resampled, jax.random.split(key, num_samples))
    excess = jnp.max(samples - gap, axis=1)
    # One quantile for all levels: it is of the maximum over levels, so the bounds hold
    # together.
    return gap, jnp.minimum(gap + jnp.quantile(excess, confidence), largest)


def _weighted_gap(metric: str, hard, group, label, weight):
    if metric == "demographic_parity":
        return gaps.demographic_parity_gap(hard, group, weight=weight)
    if metric == "equal_opportunity":
        return gaps.equal_opportunity_gap(hard, group, label, weight=weight)
    return gaps.equalized_odds_gap(hard, group, label, weight=weight)


def fixed_step(
    apply_fn: ApplyFn,
    optimizer: optax.GradientTransformation,
    *,
    gap: str | GapFn = "demographic_parity",
) -> Step:
    """Training step of the baseline: one model with a fixed weight of the gap.

    The loss is ``BCE(theta) + weight gap(theta)``. The weight is part of the state
    ``(train_state, weight)``, so all weights share one compilation or one vmapped call.

    Args:
      apply_fn: as in `jeff.fairness.yodo.loss`.
      optimizer: any optax transformation.
      gap: as in `jeff.fairness.yodo.loss`.

    Returns:
      ``step((state, weight), batch) -> ((state, weight), metrics)``.
    """

    def step(state: tuple, batch: Examples) -> tuple[tuple, Metrics]:
        inner, weight = state

        def loss(params: PyTree, batch: Examples, key: PRNGKeyArray):
            error, value = error_and_gap(apply_fn, params, batch, gap=gap, key=key)
            return error + weight * value, {"error": error, "gap": value}

        inner, logged = make_step(loss, optimizer)(inner, batch)
        return (inner, weight), logged

    return step
