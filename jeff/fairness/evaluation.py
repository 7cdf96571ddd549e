"""Evaluation of a line: metrics at every level, and a level chosen under a constraint.

The paper reports accuracy against a gap at 11 or 21 levels. Unlike the paper's
protocol, one compiled call measures all levels here. `choose_alpha`, from
`jeff.fairness.choice`, chooses a level on validation data with a guarantee.
`fixed_step` trains the baseline of separate models.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Shaped

from jeff import metrics
from jeff.as_arrays import as_array
from jeff.fairness import cells, gaps
from jeff.fairness.choice import Choice, EmptyCellError, NoLevelError, choose_alpha
from jeff.fairness.examples import Column, as_examples
from jeff.fairness.front import hypervolume
from jeff.fairness.model import (
    ApplyFn,
    Examples,
    GapFn,
    Line,
    error_and_gap,
    predict,
)
from jeff.steps import Metrics, Step, make_step

__all__ = [
    "Choice",
    "EmptyCellError",
    "Evaluation",
    "NoLevelError",
    "choose_alpha",
    "evaluate",
    "fixed_step",
    "measure",
]


class Evaluation(NamedTuple):
    """Metrics of decisions at threshold 0.5, one entry per level.

    Where people have weights, every metric is weighted. A gap, ratio or rate without
    people in one of its cells is NaN: nothing is known of it. So is what the model
    predicts NaN for.

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
          A scalar in [0, 1]; larger is better, NaN where no gap is known. See
          `jeff.fairness.hypervolume`.
        """
        gaps = getattr(self, gap)
        area = hypervolume(1 - self.accuracy, gaps, reference)
        return jnp.where(jnp.isnan(gaps).all(), jnp.nan, area)


def measure(
    prob: Float[Array, "levels people"] | Column,
    label: Shaped[Array, " people"] | Column,
    group: Shaped[Array, " people"] | Column,
    alphas: Float[Array, " levels"] | Column,
    *,
    weight: Shaped[Array, " people"] | Column | None = None,
) -> Evaluation:
    """Measure given probabilities, from any source.

    Args:
      prob: probability of the favourable outcome by each model, [levels, people].
      label: outcomes, 0 or 1.
      group: groups, 0 or 1.
      alphas: the level of each row.
      weight: non-negative weight of each person; ones by default.

    Returns:
      An `Evaluation`.

    Raises:
      ValueError: if lengths differ, an outcome or group is neither 0 nor 1, or a weight
        is negative or NaN.
    """
    prob = as_array(prob, "prob")
    people = as_examples(Examples(jnp.swapaxes(prob, 0, -1), label, group, weight))
    return _measure(prob, *people[1:], as_array(alphas, "alphas"))


@jax.jit
def _measure(prob, label, group, weight, alphas):
    # Each gap with the cells that it compares: a loss may count an empty cell as no
    # gap, but as a measurement that would read as fair.
    present = cells.present(group, label, weight=weight)
    parity, opportunity, odds = present.any(0).all(), present[1].all(), present.all()

    def by_group(metric, prob: Array, where: Array = parity) -> Array:
        return jnp.where(where, metric(prob, group, weight=weight), jnp.nan)

    def by_cell(metric, prob: Array, where: Array) -> Array:
        return jnp.where(where, metric(prob, group, label, weight=weight), jnp.nan)

    def one(prob: Array, alpha: Array) -> Evaluation:
        hard = gaps.harden(prob)
        return Evaluation(
            alpha=alpha,
            accuracy=metrics.accuracy(prob, label, weight=weight),
            auroc=metrics.auroc(prob, label, weight=weight),
            demographic_parity=by_group(gaps.demographic_parity_gap, hard),
            equal_opportunity=by_cell(gaps.equal_opportunity_gap, hard, opportunity),
            equalized_odds=by_cell(gaps.equalized_odds_gap, hard, odds),
            soft_demographic_parity=by_group(gaps.demographic_parity_gap, prob),
            soft_equal_opportunity=by_cell(
                gaps.equal_opportunity_gap, prob, opportunity
            ),
            p_rule=by_group(gaps.p_rule, hard),
            abcc=by_group(gaps.abcc, prob),
            group_rates=by_group(gaps.group_rates, hard, present.any(0)),
        )

    return jax.vmap(one)(prob, jnp.asarray(alphas, jnp.float32))


def evaluate(
    apply_fn: ApplyFn,
    line: Line,
    examples: Examples,
    alphas: Float[Array, " levels"] | Column,
    *,
    alphas_at_once: int = 1,
) -> Evaluation:
    """Measure a line at many levels in one compiled call.

    Args:
      apply_fn: as in `jeff.fairness.predict`.
      line: the two ends.
      examples: the people, their outcomes and groups, 0 or 1; arrays of any kind.
      alphas: levels in [0, 1], shape [levels].
      alphas_at_once: as in `jeff.fairness.predict`.

    Returns:
      An `Evaluation`.

    Raises:
      ValueError: if lengths differ, ``alphas`` is not a vector, an outcome or group is
        neither 0 nor 1, or a weight is negative or NaN.
    """
    levels = as_array(alphas, "alphas")
    return _evaluate(apply_fn, line, as_examples(examples), levels, alphas_at_once)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _evaluate(apply_fn, line, examples, alphas, alphas_at_once):
    if alphas.ndim != 1:
        raise ValueError(f"alphas: expected a vector of levels, got {alphas.shape}")
    prob = predict(
        apply_fn, line, examples.inputs, alphas, alphas_at_once=alphas_at_once
    )
    return _measure(prob, *examples[1:], alphas)


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
