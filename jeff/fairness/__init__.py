"""Fairness: YODO, its metrics and its data.

`yodo` is the method, `model` has the line of classifiers, `evaluation` measures and
chooses levels, `simplex` has several fair ends. `nets` (flax), `tabular` and `images`
are imported by name.
"""

from jeff.fairness import evaluation, model, simplex, yodo
from jeff.fairness.evaluation import (
    Choice,
    Evaluation,
    choose_alpha,
    evaluate,
    fixed_step,
    measure,
)
from jeff.fairness.front import hypervolume, monotone_levels, pareto_front
from jeff.fairness.gaps import (
    abcc,
    demographic_parity_gap,
    equal_opportunity_gap,
    equalized_odds_gap,
    group_rates,
    harden,
    p_rule,
)
from jeff.fairness.model import Examples, Line, predict, predict_each
from jeff.fairness.yodo import train, train_step

__all__ = [
    "Choice",
    "Evaluation",
    "Examples",
    "Line",
    "abcc",
    "choose_alpha",
    "demographic_parity_gap",
    "equal_opportunity_gap",
    "equalized_odds_gap",
    "evaluate",
    "evaluation",
    "fixed_step",
    "group_rates",
    "harden",
    "hypervolume",
    "measure",
    "model",
    "monotone_levels",
    "p_rule",
    "pareto_front",
    "predict",
    "predict_each",
    "simplex",
    "train",
    "train_step",
    "yodo",
]
