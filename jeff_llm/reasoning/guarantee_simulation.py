"""A test of the guarantee: logs drawn from a population whose truth is known.

A finite population of questions, each with its samples, is made once. Over the whole
of it the disagreement of every rule is known exactly. Logs are then drawn from it, each
question independently, and every log gives bounds and a choice as a user's would.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jeff_llm.reasoning.guarantee import agreement_guarantee, choose_rule
from jeff_llm.reasoning.rules import Rule, default_rules, votes_by_rule
from jeff_llm.reasoning.votes import Vote
from jeff_llm.reasoning.voting_windows import majority_vote

__all__ = ["Simulation", "simulate", "simulate_answers"]


class Simulation(NamedTuple):
    """What the guarantee did on many logs.

    Attributes:
      names: of the rules.
      disagreement: true disagreement of each rule, over the population.
      broken: logs in which the bound of any rule is below the rule's disagreement.
      chosen: place of the rule chosen from each log; -1 for none.
      exceeded: logs in which the chosen rule's disagreement is above the limit.
      saved: mean share of the samples that the chosen rules save over the population;
        0 where none was chosen.
    """

    names: tuple[str, ...]
    disagreement: Float[np.ndarray, " rules"]
    broken: Bool[np.ndarray, " draws"]
    chosen: Int[np.ndarray, " draws"]
    exceeded: Bool[np.ndarray, " draws"]
    saved: float


def simulate_answers(
    questions: int,
    samples: int,
    *,
    key: Array,
    answers: int = 5,
    spread: float = 3.0,
    missing: float = 0.02,
) -> Int[Array, "questions samples"]:
    """Make samples of answers to questions of all degrees of difficulty.

    Each question has its own distribution over the answers, ``softmax(s z)`` with
    normal z and a sharpness s drawn evenly from [0, spread].

    Args:
      questions: number of questions.
      samples: samples of each.
      key: random key.
      answers: possible answers of a question.
      spread: largest sharpness; higher makes more questions easy.
      missing: probability that a sample has no answer, in [0, 1).

    Returns:
      Codes from 0, and -1 for no answer.
    """
    sharp, normal, draw, lost = jax.random.split(key, 4)
    scale = jax.random.uniform(sharp, (questions, 1), maxval=spread)
    logits = scale * jax.random.normal(normal, (questions, answers))
    code = jax.random.categorical(
        draw, logits[:, None], axis=-1, shape=(questions, samples)
    )
    gone = jax.random.bernoulli(lost, missing, (questions, samples))
    return jnp.where(gone, -1, code)


def simulate(
    *,
    key: Array,
    draws: int = 1000,
    questions: int = 300,
    samples: int = 20,
    population: int = 5000,
    max_disagreement: float = 0.05,
    delta: float = 0.1,
    rules: Mapping[str, Rule] | None = None,
) -> Simulation:
    """Draw logs from a known population, and compare each log's bounds with the truth.

    Args:
      key: random key.
      draws: number of logs.
      questions: questions of a log, drawn with replacement.
      samples: samples of a question.
      population: questions of the population.
      max_disagreement: limit for the choice of a rule, in (0, 1).
      delta: probability with which a log's bounds may fail, in (0, 1).
      rules: rules by name; those of `default_rules` by default.

    Returns:
      What happened in each log. ``broken.mean()`` should be at most ``delta``, up to
      the chance of the draws.

    Raises:
      ValueError: if a number is below 1 or a probability outside (0, 1).
    """
    numbers = {"draws": draws, "questions": questions, "population": population}
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name}: expected at least 1, got {number}")
    made, drawn = jax.random.split(key)
    answer = simulate_answers(population, samples, key=made)
    full = np.asarray(majority_vote(answer).answer)
    found = votes_by_rule(answer, default_rules(samples) if rules is None else rules)
    votes = {name: Vote(*map(np.asarray, vote)) for name, vote in found.items()}
    truth = np.array([np.mean(vote.answer != full) for vote in votes.values()])
    cost = np.array([np.mean(vote.samples) for vote in votes.values()]) / samples
    rows = np.asarray(jax.random.randint(drawn, (draws, questions), 0, population))
    broken, chosen = np.zeros(draws, bool), np.full(draws, -1)
    for place, row in enumerate(rows):
        log = {n: Vote(*(values[row] for values in vote)) for n, vote in votes.items()}
        agreement = agreement_guarantee(full[row], log, delta=delta)
        broken[place] = (agreement.bound < truth).any()
        choice = choose_rule(agreement, max_disagreement=max_disagreement)
        if choice is not None:
            chosen[place] = agreement.names.index(choice.name)
    any_chosen = chosen >= 0
    exceeded = any_chosen & (truth[chosen] > max_disagreement)
    saved = float(np.mean(np.where(any_chosen, 1 - cost[chosen], 0.0)))
    return Simulation(tuple(votes), truth, broken, chosen, exceeded, saved)
