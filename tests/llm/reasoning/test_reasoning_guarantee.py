"""Test the guarantee on agreement: by hand, at small counts, and on a thousand logs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jeff_llm.reasoning import guarantee_simulation, rules, voting_adaptive
from jeff_llm.reasoning.guarantee import agreement_guarantee, choose_rule
from jeff_llm.reasoning.votes import Vote
from jeff_llm.reasoning.voting import majority_vote


def vote(answer, samples=4.0, tokens=100.0):
    count = len(answer)
    return Vote(
        np.asarray(answer), np.full(count, int(samples)), np.full(count, float(tokens))
    )


FULL = np.array([1, 2, -1, 4] * 50)


def test_by_hand() -> None:
    """5 of 200 apart: the bound is the p at which so few have probability delta / 2."""
    off = FULL.copy()
    off[:5] = 9
    found = agreement_guarantee(
        FULL, {"same": vote(FULL), "off": vote(off, 2, 30)}, delta=0.1
    )
    assert found.names == ("same", "off") and found.questions == 200
    assert found.disagreement.tolist() == [0, 0.025]
    assert found.bound[0] == pytest.approx(1 - 0.05 ** (1 / 200))
    assert stats.binom.cdf(5, 200, found.bound[1]) == pytest.approx(0.05)
    assert found.samples.tolist() == [4, 2] and found.tokens.tolist() == [100, 30]


def test_no_answer_agrees_with_no_answer_alone() -> None:
    none = np.full(len(FULL), -1)
    some = np.where(FULL == 1, 1, -1)
    assert agreement_guarantee(some, {"a": vote(some)}).disagreement == 0
    assert agreement_guarantee(some, {"a": vote(FULL)}).disagreement == 0.5
    assert agreement_guarantee(FULL, {"a": vote(none)}).disagreement == 0.75


def test_the_cheapest_rule_within_the_limit() -> None:
    off = FULL.copy()
    off[:5] = 9
    votes = {
        "dear": vote(FULL, 9, 900),
        "wrong": vote(FULL + 1, 1, 10),
        "few samples": vote(off, 3, 500),
        "few tokens": vote(off, 4, 50),
    }
    found = agreement_guarantee(FULL, votes)
    best = choose_rule(found, max_disagreement=0.1)
    assert best.name == "few samples" and best.bound <= 0.1
    assert (best.delta, best.max_disagreement, best.questions) == (0.1, 0.1, 200)
    best = choose_rule(found, max_disagreement=0.1, by="tokens")
    assert (best.name, best.samples, best.tokens) == ("few tokens", 4, 50)
    assert choose_rule(found, max_disagreement=0.04).name == "dear"
    assert choose_rule(found, max_disagreement=0.01) is None


@pytest.mark.parametrize("count", [1, 2, 5])
def test_small_logs_prove_nothing_small(count) -> None:
    """Full agreement on one question says next to nothing, and the bound says so."""
    found = agreement_guarantee(FULL[:count], {"a": vote(FULL[:count])}, delta=0.1)
    assert found.bound[0] == pytest.approx(1 - 0.1 ** (1 / count))
    apart = agreement_guarantee(FULL[:count], {"a": vote(FULL[:count] + 1)})
    assert apart.bound[0] == 1 and np.isfinite(apart.bound).all()


def test_more_rules_cost_more() -> None:
    one = agreement_guarantee(FULL, {"a": vote(FULL)})
    many = agreement_guarantee(FULL, {str(n): vote(FULL) for n in range(10)})
    assert (many.bound > one.bound[0]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: agreement_guarantee(FULL[:0], {"a": vote(FULL[:0])}),
            "at least 1 que",
        ),
        (lambda: agreement_guarantee(FULL, {}), "votes: expected at least 1 rule"),
        (
            lambda: agreement_guarantee(FULL, {"a": vote(FULL[:3])}),
            r"votes\['a'\].answer: expected 200 questions as in full, got shape \(3,\)",
        ),
        (
            lambda: agreement_guarantee(FULL, {"a": vote(FULL, tokens=np.nan)}),
            r"votes\['a'\].tokens: expected finite numbers",
        ),
        (
            lambda: agreement_guarantee(FULL, {"a": vote(FULL, samples=-1)}),
            r"votes\['a'\].samples: expected finite numbers of at least 0, got -1",
        ),
        (lambda: agreement_guarantee(FULL, {"a": vote(FULL)}, delta=1.0), "delta: exp"),
        (
            lambda: agreement_guarantee(np.full(9, -1), {"a": vote(np.full(9, -1))}),
            "full: expected an answer to at least one of 9 questions, got none",
        ),
        (
            lambda: choose_rule(
                agreement_guarantee(FULL, {"a": vote(FULL)}), max_disagreement=0.0
            ),
            "max_disagreement: expected a number in",
        ),
        (
            lambda: choose_rule(
                agreement_guarantee(FULL, {"a": vote(FULL)}),
                max_disagreement=0.1,
                by="luck",
            ),
            "by: expected one of",
        ),
        (
            lambda: guarantee_simulation.simulate(key=jax.random.key(0), questions=0),
            "questions: expected at least 1, got 0",
        ),
        (lambda: rules.default_rules(0), "num_samples: expected at least 1, got 0"),
    ],
)
def test_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_codes_are_integers() -> None:
    with pytest.raises(TypeError, match="full: expected integer codes, got float"):
        agreement_guarantee.__wrapped__(FULL * np.nan, {"a": vote(FULL)})


def test_a_thousand_logs(key) -> None:
    """Any bound broken in at most delta of the logs; the choices keep to the limit."""
    found = guarantee_simulation.simulate(key=key, draws=1000, delta=0.1)
    slack = 4 * math.sqrt(0.1 * 0.9 / 1000)
    print(f"broken in {found.broken.mean():.1%}, allowed 10% + {slack:.1%} (4 sd)")
    assert found.broken.mean() <= 0.1 + slack
    assert found.exceeded.mean() <= 0.1 + slack
    assert not (found.exceeded & ~found.broken).any(), "a choice fails with its bound"
    # It is not empty either: most logs give a rule, and it saves a good part.
    assert (found.chosen >= 0).mean() > 0.9 and found.saved > 0.2
    assert found.disagreement.max() > 0.3 > 0.02 > found.disagreement.min()


def test_one_rule_is_as_tight_as_the_binomial_allows(key) -> None:
    """A single bound fails nearly as often as delta, so it gives nothing away."""
    rule = {"adaptive": rules.default_rules(20)["adaptive 0.8"]}
    found = guarantee_simulation.simulate(key=key, draws=1000, delta=0.1, rules=rule)
    assert 0.05 < found.broken.mean() <= 0.1 + 4 * math.sqrt(0.09 / 1000)


def test_without_the_margin_it_would_fail(key) -> None:
    """Choosing by the disagreement of the log itself breaks its promise very often."""
    made, drawn = jax.random.split(key)
    answer = guarantee_simulation.simulate_answers(5000, 20, key=made)
    full = np.asarray(majority_vote(answer).answer)
    found = voting_adaptive.adaptive_consistency(answer, threshold=0.9)
    apart = np.asarray(found.answer) != full
    rows = np.asarray(jax.random.randint(drawn, (1000, 300), 0, 5000))
    assert (apart[rows].mean(1) < apart.mean()).mean() > 0.3


def test_the_default_rules_run_and_save(key) -> None:
    answer = guarantee_simulation.simulate_answers(50, 6, key=key)
    length = 1.0 + jnp.arange(300.0).reshape(50, 6) % 17
    votes = rules.votes_by_rule(answer, rules.default_rules(6), length=length)
    full = majority_vote(answer, length=length)
    assert {"first 1", "first 3", "esc 5", "adaptive 0.95", "short 3 of k"} <= set(
        votes
    )
    for found in votes.values():
        assert (found.tokens <= full.tokens).all()
    assert votes["first 3"].samples.tolist() == [3] * 50
    padded = rules.votes_by_rule(
        answer,
        {"first 3": rules.default_rules(6)["first 3"]},
        where=np.arange(6) < np.full((50, 1), 2),
    )
    assert padded["first 3"].samples.tolist() == [2] * 50
    assert rules.default_rules(1) == {}
    # An order of finishing reaches the rules that use one.
    late = rules.votes_by_rule(
        answer, rules.default_rules(6), length=length, order=100 - length
    )
    assert (late["short 1 of k"].answer != votes["short 1 of k"].answer).any()
