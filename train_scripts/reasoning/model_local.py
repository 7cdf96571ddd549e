"""Every control of a thought on a language model in this process."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from jeff_llm import generate
from jeff_llm.generate.sampling import Processor
from jeff_llm.reasoning import (
    asking,
    decoding,
    exiting,
    probing,
    prompts,
    stopping,
    thinking,
)
from jeff_llm.reasoning.continuing import continue_rows
from jeff_llm.reasoning.thinking import Thoughts
from train_scripts.questions.answering import tokenizer_of
from train_scripts.reasoning.model_setup import Setup
from train_scripts.reasoning.problems import Problem

__all__ = ["SAMPLES", "THRESHOLD", "Branch", "Measured", "measure"]

# Samples of a vote: with 16 questions they are one batch.
SAMPLES = 4
# Of the adaptive vote: two equal samples are enough, with a probability of 7/8. The
# paper's 0.95 would take all four.
THRESHOLD = 0.87
# A batch takes as long as its longest row; more rows cost memory.
_BATCH = 64
# Probes of a chain. Each reads the chain up to its place again.
_PROBES = 4


class Branch(NamedTuple):
    """Answers under one control.

    Attributes:
      tokens: tokens that the model wrote for each question; probes that did not become
        an answer are not among them.
      answers: the answers, None where there is none.
      extra: tokens of such probes.
    """

    tokens: np.ndarray
    answers: list[str | None]
    extra: np.ndarray | float = 0.0


class Measured(NamedTuple):
    """All branches, and what the claims need besides.

    Attributes:
      branches: by name; "plain" is thinking step by step.
      cap: the token budget that was forced.
      capped: tokens of thought of each question under it.
      ended: questions whose plain thought the model ended by itself.
      reflections: reflection tokens in all thoughts, plain and under NoWait.
    """

    branches: dict[str, Branch]
    cap: int
    capped: np.ndarray
    ended: np.ndarray
    reflections: tuple[int, int]


def measure(setup: Setup, problems: Sequence[Problem], *, key: jax.Array) -> Measured:
    """Answer all problems under every control.

    Args:
      setup: the model.
      problems: the problems.
      key: random key of the samples.

    Returns:
      The branches.
    """
    questions = [problem.question for problem in problems]
    rows, count = (
        setup.rows([prompts.step_by_step(q) for q in questions]),
        len(questions),
    )
    budgets, spent = _budgets(setup, questions)
    styles = {
        "concise": [prompts.concise(q) for q in questions],
        "chain of draft": [prompts.chain_of_draft(q) for q in questions],
        "TALE": [
            prompts.tale_budget(q, budget)
            for q, budget in zip(questions, budgets, strict=True)
        ],
    }
    # In one call: a batch of many rows takes little longer than one of few.
    every = rows + setup.rows([text for texts in styles.values() for text in texts])
    chains = _chains(setup, every)
    plain = _part(chains, 0, count)
    branches = {"plain": _branch(setup, plain)}
    for number, name in enumerate(styles, 1):
        part = _part(chains, number * count, (number + 1) * count)
        branches[name] = _branch(setup, part)
    tale = branches["TALE"]
    branches["TALE"] = tale._replace(tokens=tale.tokens + spent)

    tokenizer = tokenizer_of(setup.model)
    words = decoding.reflection_ids(tokenizer)
    quiet = _chains(
        setup, rows, [decoding.no_wait(words, setup.model.config.vocab_size)]
    )
    branches["NoWait"] = _branch(setup, quiet)
    branches["NoThinking"] = _closed(setup, _no_thinking(setup, rows))
    cap = max(setup.max_tokens // 4, 1)
    capped = _forced(setup, rows, waits=0, cap=cap)
    branches["budget"] = _closed(setup, capped)
    branches["wait"] = _closed(
        setup, _forced(setup, rows, waits=1, cap=setup.max_tokens)
    )
    branches |= _early(setup, rows, plain)
    branches |= _votes(setup, rows, key=key)
    return Measured(
        branches=branches,
        cap=cap,
        capped=np.array([len(each) for each in capped.tokens]),
        ended=plain.closed,
        reflections=(_count(plain, words), _count(quiet, words)),
    )


def _budgets(setup: Setup, questions: Sequence[str]) -> tuple[list[int], np.ndarray]:
    """Budgets that the model estimates, and the tokens that the estimates took."""
    rows = setup.rows([prompts.tale_estimate(question) for question in questions])
    if setup.thinks:
        found = _no_thinking(setup, rows)
        said, spent = found.answers, found.lengths
    else:
        given = continue_rows(
            setup.model, rows, max_new_tokens=16, stop_ids=setup.model.stop_ids
        )
        said = given.tokens
        spent = np.array([len(each) for each in said]) + (given.ends >= 0)
    decode = tokenizer_of(setup.model).decode
    budgets = [prompts.parse_budget(decode(each)) for each in said]
    # A model that names no number, or one past its limit, gets half of the limit.
    most = setup.max_tokens
    return [b if b and b <= most else max(most // 2, 1) for b in budgets], spent


def _chains(
    setup: Setup,
    rows: Sequence[list[int]],
    processors: Sequence[Processor] = (),
    *,
    sampling: generate.Sampling = generate.GREEDY,
    keys: jax.Array | None = None,
) -> Thoughts:
    """Chains that end as the model ends them."""
    if setup.thinks:
        return thinking.think(
            setup.model,
            rows,
            setup.markers,
            max_thought_tokens=setup.max_tokens,
            max_answer_tokens=setup.answer_tokens,
            sampling=sampling,
            keys=keys,
            processors=processors,
            batch_size=_BATCH,
        )
    found = continue_rows(
        setup.model,
        rows,
        max_new_tokens=setup.max_tokens,
        stop_ids=setup.model.stop_ids,
        sampling=sampling,
        keys=keys,
        processors=processors,
        batch_size=_BATCH,
    )
    ended = found.ends >= 0
    lengths = np.array([len(each) for each in found.tokens]) + ended
    # The thought is the whole text, and holds the answer.
    return Thoughts(found.tokens, found.tokens, lengths, ended, ended)


def _no_thinking(setup: Setup, rows: Sequence[list[int]]) -> Thoughts:
    return thinking.no_thinking(
        setup.model,
        rows,
        setup.markers,
        max_answer_tokens=setup.answer_tokens,
        stop_ids=setup.answer_stops,
        batch_size=_BATCH,
    )


def _forced(
    setup: Setup, rows: Sequence[list[int]], *, waits: int, cap: int
) -> Thoughts:
    return thinking.force_budget(
        setup.model,
        rows,
        setup.markers,
        waits=waits,
        max_thought_tokens=cap,
        max_answer_tokens=setup.answer_tokens,
        stop_ids=setup.model.stop_ids,
        batch_size=_BATCH,
    )


def _early(
    setup: Setup, rows: Sequence[list[int]], plain: Thoughts
) -> dict[str, Branch]:
    """Plain chains stopped by rules, at places spread evenly over their steps."""
    places = probing.transition_places(plain.tokens, setup.markers, end=False)
    places = [_spread(each) for each in places]
    decode = tokenizer_of(setup.model).decode
    trials = probing.probe(
        setup.model,
        rows,
        plain.tokens,
        setup.markers,
        max_answer_tokens=setup.answer_tokens,
        places=places,
        read=lambda answer: prompts.parse_answer(setup.closing + decode(answer)),
        stop_ids=setup.answer_stops,
        batch_size=_BATCH,
    )
    rules = {
        "DEER": stopping.deer(trials.confidence, trials.where),
        "convergence": stopping.answer_convergence(
            trials.codes, trials.where, repeats=2
        ),
    }
    found = {}
    for name, index in rules.items():
        out = exiting.stop(plain, trials, index)
        texts = [
            (setup.closing if stopped else "") + decode(answer)
            for answer, stopped in zip(out.answers, out.stopped, strict=True)
        ]
        answers = [prompts.parse_answer(text) for text in texts]
        found[name] = Branch(out.lengths.astype(float), answers, out.cost)
    return found


def _votes(
    setup: Setup, rows: Sequence[list[int]], *, key: jax.Array
) -> dict[str, Branch]:
    """The vote of several samples, and of as many as a rule asks for."""
    many = [row for row in rows for _ in range(SAMPLES)]
    chains = _chains(
        setup,
        many,
        sampling=generate.Sampling(temperature=0.7),
        keys=jax.random.split(key, len(many)),
    )
    one = _branch(setup, chains)
    tokens = one.tokens.reshape(len(rows), SAMPLES)
    rules = {
        f"vote of {SAMPLES}": asking.all_samples_rule(),
        "adaptive vote": asking.adaptive_consistency_rule(THRESHOLD),
    }
    found = {name: Branch(np.zeros(len(rows)), []) for name in rules}
    for place in range(len(rows)):
        said = one.answers[place * SAMPLES : (place + 1) * SAMPLES]
        for name, rule in rules.items():
            used = _used(said, rule)
            found[name].answers.append(_most_frequent(said[:used]))
            found[name].tokens[place] = tokens[place, :used].sum()
    return found


def _used(said: Sequence[str | None], rule: asking.Rule) -> int:
    """Samples that a rule asks for, one after the other."""
    names = [each for each in dict.fromkeys(said) if each is not None]
    codes = np.array([-1 if s is None else names.index(s) for s in said])
    stops = (n for n in range(1, len(said)) if rule(codes[:n]))
    return next(stops, len(said))


def _most_frequent(said: Sequence[str | None]) -> str | None:
    given = [each for each in said if each is not None]
    # `max` takes the first of equally frequent ones.
    return max(given, key=given.count, default=None)


def _branch(setup: Setup, chains: Thoughts) -> Branch:
    """Answers of chains that ended as the model ends them."""
    decode = tokenizer_of(setup.model).decode
    answers = [prompts.parse_answer(decode(each)) for each in chains.answers]
    return Branch(chains.lengths.astype(float), answers)


def _closed(setup: Setup, chains: Thoughts) -> Branch:
    """Answers of chains whose thought was closed by the markers."""
    decode = tokenizer_of(setup.model).decode
    answers = [
        prompts.parse_answer(setup.closing + decode(each)) for each in chains.answers
    ]
    return Branch(chains.lengths.astype(float), answers)


def _part(chains: Thoughts, begin: int, end: int) -> Thoughts:
    return Thoughts(
        chains.tokens[begin:end],
        chains.answers[begin:end],
        chains.lengths[begin:end],
        chains.closed[begin:end],
        chains.finished[begin:end],
    )


def _spread(places: Sequence[int]) -> list[int]:
    """At most `_PROBES` of some places, spread evenly over them."""
    if len(places) <= _PROBES:
        return list(places)
    chosen = np.linspace(0, len(places) - 1, _PROBES + 1).round().astype(int)[1:]
    return [places[number] for number in chosen]


def _count(chains: Thoughts, tokens: Sequence[int]) -> int:
    """How often some tokens stand in thoughts."""
    return int(sum(np.isin(each, tokens).sum() for each in chains.tokens))
