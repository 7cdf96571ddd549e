"""A guarantee without labels: how often a stopping rule departs from the full vote.

A log of samples shows, question by question, whether a rule that stops early gives the
answer that the vote of all samples gives. Over questions drawn independently from one
distribution, the number of disagreements is binomial, and an exact (Clopper-Pearson)
upper bound holds for its probability. With ``delta`` divided among the rules, all
bounds hold together with probability ``1 - delta`` by the union bound. So any rule may
be chosen, with the log at hand, and its bound stays valid; the order of the log does
not matter. The rules must be fixed before the log is seen.

Labels are not needed, and nothing is said about whether the full vote is right.

References:
  Clopper and Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case
  of the Binomial", Biometrika 1934.
  Angelopoulos et al., "Learn then Test: Calibrating Predictive Algorithms to Achieve
  Risk Control", 2021 (risk control by many tests).
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jeff.binomial import upper_bound
from jeff.checks import check_choice
from jeff_llm.reasoning.votes import Vote

__all__ = ["Agreement", "Choice", "agreement_guarantee", "choose_rule"]


class Agreement(NamedTuple):
    """How rules agree with the vote of all samples, with bounds that hold together.

    Attributes:
      names: of the rules.
      disagreement: share of the log's questions with another answer than the full vote.
      bound: upper bound on the probability of that.
      samples: mean samples of a question.
      tokens: mean tokens of a question.
      questions: in the log.
      delta: probability with which any of the bounds may fail.
    """

    names: tuple[str, ...]
    disagreement: Float[np.ndarray, " rules"]
    bound: Float[np.ndarray, " rules"]
    samples: Float[np.ndarray, " rules"]
    tokens: Float[np.ndarray, " rules"]
    questions: int
    delta: float


class Choice(NamedTuple):
    """The rule chosen, and what is proved of it.

    Attributes:
      name: of the rule.
      disagreement: share of the log's questions with another answer than the full vote.
      bound: upper bound on the probability of that, at most ``max_disagreement``.
      max_disagreement: the limit that was asked for.
      delta: probability with which the bound may fail.
      samples: mean samples of a question.
      tokens: mean tokens of a question.
      questions: in the log.
    """

    name: str
    disagreement: float
    bound: float
    max_disagreement: float
    delta: float
    samples: float
    tokens: float
    questions: int


def agreement_guarantee(
    full: Int[Array, " questions"] | Int[np.ndarray, " questions"],
    votes: Mapping[str, Vote],
    *,
    delta: float = 0.1,
) -> Agreement:
    """Bound how often each of several rules departs from the vote of all samples.

    ``P(for all rules: P(answer != full vote) <= bound) >= 1 - delta``, the outer
    probability over the draw of the log's questions. Each bound is that of Clopper and
    Pearson at level ``delta / number of rules``. Where neither the rule nor the full
    vote has an answer (code -1 for both), they agree.

    Args:
      full: answers of the vote of all samples, as from `majority_vote`.
      votes: answers and costs of each rule on the same questions, by name, for example
        from `jeff_llm.reasoning.rules.votes_by_rule`.
      delta: probability that any bound may fail, in (0, 1).

    Returns:
      Disagreement, bound and cost of each rule. A rule without any disagreement has the
      bound ``1 - (delta / rules)^(1 / questions)``, never 0.

    Raises:
      ValueError: if there is no question, no answer or no rule, numbers of questions
        differ, a cost is negative or not finite, or ``delta`` is outside (0, 1).
      TypeError: if ``full`` is not integer.

    >>> full = jnp.zeros(100, int)
    >>> always = Vote(full, jnp.full(100, 3), jnp.full(100, 60.0))
    >>> agreement_guarantee(full, {"first 3": always}, delta=0.1).bound.round(4)
    array([0.0228])
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta: expected a number in (0, 1), got {delta}")
    codes = np.asarray(full)
    if codes.ndim != 1 or not codes.size:
        raise ValueError(
            f"full: expected answers of at least 1 question, got shape {codes.shape}"
        )
    if not np.issubdtype(codes.dtype, np.integer):
        raise TypeError(f"full: expected integer codes, got {codes.dtype}")
    if (codes < 0).all():
        raise ValueError(
            f"full: expected an answer to at least one of {len(codes)} questions, got "
            "none: agreement on nothing proves nothing"
        )
    if not votes:
        raise ValueError("votes: expected at least 1 rule, got none")
    for name, vote in votes.items():
        _check_vote(name, vote, codes.shape)
    count, level = len(codes), delta / len(votes)
    apart = [int(np.sum(np.asarray(vote.answer) != codes)) for vote in votes.values()]
    return Agreement(
        tuple(votes),
        np.array(apart) / count,
        np.array([upper_bound(wrong, count, delta=level) for wrong in apart]),
        np.array([np.mean(np.asarray(vote.samples)) for vote in votes.values()], float),
        np.array([np.mean(np.asarray(vote.tokens)) for vote in votes.values()], float),
        count,
        delta,
    )


def choose_rule(
    agreement: Agreement, *, max_disagreement: float, by: str = "samples"
) -> Choice | None:
    """Choose the cheapest rule whose bound is within a limit.

    Valid with the log that the bounds come from, since all of them hold together.

    Args:
      agreement: from `agreement_guarantee`.
      max_disagreement: largest probability of another answer than that of the full
        vote, in (0, 1).
      by: cost to make small, "samples" or "tokens".

    Returns:
      The rule, of equally cheap ones the first; None if no bound is within the limit:
      log more questions, or allow more disagreement.

    Raises:
      ValueError: if the limit is outside (0, 1) or ``by`` is unknown.

    >>> full = jnp.zeros(100, int)
    >>> always = Vote(full, jnp.full(100, 3), jnp.full(100, 60.0))
    >>> found = agreement_guarantee(full, {"first 3": always})
    >>> choose_rule(found, max_disagreement=0.03).name
    'first 3'
    >>> choose_rule(found, max_disagreement=0.02)
    """
    check_choice("by", by, ("samples", "tokens"))
    if not 0 < max_disagreement < 1:
        raise ValueError(
            f"max_disagreement: expected a number in (0, 1), got {max_disagreement}"
        )
    cost = np.where(agreement.bound <= max_disagreement, getattr(agreement, by), np.inf)
    best = int(cost.argmin())
    if np.isinf(cost[best]):
        return None
    return Choice(
        agreement.names[best],
        float(agreement.disagreement[best]),
        float(agreement.bound[best]),
        max_disagreement,
        agreement.delta,
        float(agreement.samples[best]),
        float(agreement.tokens[best]),
        agreement.questions,
    )


def _check_vote(name: str, vote: Vote, shape: tuple[int, ...]) -> None:
    for field, values in zip(Vote._fields, vote, strict=True):
        if jnp.shape(values) != shape:
            raise ValueError(
                f"votes[{name!r}].{field}: expected {shape[0]} questions as in full, "
                f"got shape {jnp.shape(values)}"
            )
        numbers, least = np.asarray(values), -1 if field == "answer" else 0
        if not (np.isfinite(numbers) & (numbers >= least)).all():
            raise ValueError(
                f"votes[{name!r}].{field}: expected finite numbers of at least "
                f"{least}, got {numbers.min()} as the least"
            )
