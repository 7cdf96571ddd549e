"""Test the drivers on a tiny random decoder, against single steps of the same model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.generate import Sampling, generate
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.reasoning import exiting, probing, stopping, thinking
from jeff_llm.reasoning.thinking import Markers

OPEN, CLOSE, END = 1, 2, 3
CAP, ANSWER = 24, 4
PROMPTS = [[7 + row, 20 + row % 3] for row in range(24)]
SIZES = {"max_thought_tokens": CAP, "max_answer_tokens": ANSWER}


@pytest.fixture(scope="module")
def model(tiny_config, make_params):
    """A random model with a head of its own that ends thoughts now and then."""
    config = dataclasses.replace(tiny_config, tied=False)
    params = make_params(config, seed=3)
    head = np.array(params["head"]["kernel"])
    head[:, [CLOSE, END]] *= 2
    params["head"] = {"kernel": jnp.asarray(head)}
    return LanguageModel(config, params, None, "untied")


@pytest.fixture(scope="module")
def common(model):
    """Tokens that the model writes often."""
    plain = generate(model, [[*p, OPEN] for p in PROMPTS], max_new_tokens=CAP).tokens
    tokens, counts = np.unique(plain, return_counts=True)
    often = [int(t) for t in tokens[np.argsort(-counts)] if t > END]
    return often


@pytest.fixture(scope="module")
def markers(common):
    return Markers((OPEN,), (CLOSE,), wait=(common[2],), transitions=(*common[:2],))


@pytest.fixture(scope="module")
def chains(model, markers):
    return thinking.think(model, PROMPTS, markers, **SIZES, stop_ids=[END])


def test_chains_are_those_of_plain_generation(model, markers, chains):
    """A chain of one generation, closed by force where it is too long."""
    assert chains.closed.any() and not chains.closed.all()
    for prompt, thought, answer, closed, length, finished in zip(
        PROMPTS,
        *chains[:2],
        chains.closed,
        chains.lengths,
        chains.finished,
        strict=True,
    ):
        row = [*prompt, OPEN]
        plain = generate(model, [row], max_new_tokens=CAP + 8, stop_ids=[CLOSE, END])
        cut = plain.tokens[0, : plain.lengths[0] - plain.finished[0]].tolist()
        assert thought == cut[:CAP]
        ended = int(plain.tokens[0, plain.lengths[0] - 1])
        assert closed == (ended == CLOSE and len(cut) < CAP) or len(cut) == CAP
        after = generate(
            model,
            [[*row, *thought, CLOSE]],
            max_new_tokens=ANSWER,
            stop_ids=[END],
        )
        assert answer == after.tokens[0, : after.lengths[0] - finished].tolist()
        assert finished == after.finished[0]
        assert length == len(thought) + 1 + after.lengths[0]


def test_opening_is_added_once(model, markers, chains):
    already = [[*prompt, OPEN] for prompt in PROMPTS]
    again = thinking.think(model, already, markers, **SIZES, stop_ids=[END])
    assert again.tokens == chains.tokens and again.answers == chains.answers


def test_a_chain_depends_on_its_key_and_prompt_alone(model, markers):
    keys = jax.random.split(jax.random.key(0), len(PROMPTS))
    settings = {"sampling": Sampling(temperature=1.0), "stop_ids": [END], **SIZES}
    whole = thinking.think(model, PROMPTS, markers, keys=keys, **settings)
    some = thinking.think(
        model, PROMPTS[5:8], markers, keys=keys[5:8], batch_size=2, **settings
    )
    assert some.tokens == whole.tokens[5:8] and some.answers == whole.answers[5:8]
    assert len({tuple(each) for each in whole.tokens}) > 12


def test_no_thinking_closes_an_empty_thought(model, markers):
    found = thinking.no_thinking(
        model, PROMPTS, markers, max_answer_tokens=ANSWER, stop_ids=[END]
    )
    assert found.tokens == [[]] * len(PROMPTS) and not found.closed.any()
    after = generate(
        model,
        [[*p, OPEN, CLOSE] for p in PROMPTS],
        max_new_tokens=ANSWER,
        stop_ids=[END],
    )
    np.testing.assert_array_equal(found.lengths, 1 + after.lengths)
    said = thinking.no_thinking(
        model,
        PROMPTS,
        markers,
        max_answer_tokens=ANSWER,
        thought=[9, 9],
        stop_ids=[END],
    )
    assert said.tokens == [[9, 9]] * len(PROMPTS)


def test_budget_forcing_replaces_ends(model, markers, chains):
    """Without waits it is `think`; each wait stands where an end was."""
    none = thinking.force_budget(
        model, PROMPTS, markers, waits=0, stop_ids=[END], **SIZES
    )
    assert none.tokens == chains.tokens and none.answers == chains.answers
    np.testing.assert_array_equal(none.closed, chains.closed)
    once = thinking.force_budget(
        model, PROMPTS, markers, waits=1, stop_ids=[END], **SIZES
    )
    (wait,) = markers.wait
    grown = 0
    for before, after in zip(chains.tokens, once.tokens, strict=True):
        if len(before) < CAP:  # the model had ended it
            assert after[: len(before) + 1] == [*before, wait]
            grown += len(after) > len(before) + 1
        else:
            assert after == before
        assert len(after) <= CAP
    assert grown > 3


def test_waits_of_several_tokens_are_cut_at_the_cap(model, markers):
    long = markers._replace(wait=(9,) * 40)
    found = thinking.force_budget(
        model, PROMPTS[:4], long, waits=3, stop_ids=[END], **SIZES
    )
    assert [len(each) for each in found.tokens] == [CAP] * 4
    assert not found.closed.any()


def test_a_model_without_markers_of_its_own(model):
    """The end of its text ends the thought; a phrase closes it."""
    phrase = Markers((), (9, 10, 11), ends=(END,))
    found = thinking.think(model, PROMPTS, phrase, **SIZES, stop_ids=[END])
    assert found.closed.any()
    row = int(np.flatnonzero(found.closed)[0])
    plain = generate(model, [PROMPTS[row]], max_new_tokens=CAP, stop_ids=[END])
    assert found.tokens[row] == plain.tokens[0, : plain.lengths[0] - 1].tolist()
    spoken = len(found.answers[row]) + found.finished[row]
    assert found.lengths[row] == len(found.tokens[row]) + 3 + spoken


@pytest.fixture(scope="module")
def trials(model, markers, chains):
    return probing.probe(
        model,
        PROMPTS,
        chains.tokens,
        markers,
        max_answer_tokens=ANSWER,
        stop_ids=[END],
        batch_size=16,
    )


def test_trials_are_answers_of_cut_thoughts(model, markers, chains, trials):
    """Each against a generation of its own; the last one is the chain's answer."""
    assert trials.where.sum() > 2 * len(PROMPTS)
    steps = markers.transitions
    for chain in (0, 3, 11):
        thought = chains.tokens[chain]
        places = [n + 1 for n, token in enumerate(thought) if token in steps]
        places = sorted({*places, len(thought)})
        assert trials.places[chain, : len(places)].tolist() == places
        assert trials.where[chain].sum() == len(places)
        for number, place in enumerate(places[:3]):
            row = [*PROMPTS[chain], OPEN, *thought[:place], CLOSE]
            found = generate(model, [row], max_new_tokens=ANSWER, stop_ids=[END])
            size = found.lengths[0] - found.finished[0]
            answer = trials.answers[chain, number]
            assert answer[answer >= 0].tolist() == found.tokens[0, :size].tolist()
            assert trials.lengths[chain, number] == 1 + found.lengths[0]
            where = np.arange(ANSWER) < size
            sure = stopping.trial_confidence(found.log_probs[0], where)
            np.testing.assert_allclose(
                trials.confidence[chain, number], sure, rtol=1e-4
            )
            logits = next_logits(model, row)
            prob = np.asarray(jax.nn.softmax(logits))
            entropy = -np.sum(prob * np.log(prob))
            np.testing.assert_allclose(
                trials.entropy[chain, number], entropy, rtol=1e-4
            )
        last = trials.answers[chain, len(places) - 1]
        assert last[last >= 0].tolist() == chains.answers[chain]


def next_logits(model, row):
    from jeff_llm.models import decoder

    tokens = jnp.array([row])
    return decoder.apply(model.config, model.params, tokens).logits[0, -1]


def test_codes_tell_answers_apart(trials):
    said = [
        (tuple(answer[answer >= 0].tolist()), code)
        for answer, code in zip(
            trials.answers[trials.where], trials.codes[trials.where], strict=True
        )
    ]
    assert len(set(said)) == len({answer for answer, _ in said}) > 3
    assert all((code == -1) == (answer == ()) for answer, code in said)
    assert (trials.codes[~trials.where] == -1).all()


def test_answers_are_read(model, markers, chains):
    some = [row for row, thought in enumerate(chains.tokens) if thought][:4]
    found = probing.probe(
        model,
        [PROMPTS[row] for row in some],
        [chains.tokens[row] for row in some],
        markers,
        max_answer_tokens=ANSWER,
        read=lambda answer: len(answer) % 2 or None,
        places=[[0], [1], [0, 1], []],
        stop_ids=[END],
    )
    assert found.where[:, :3].sum(axis=1).tolist() == [1, 1, 2, 0]
    odd = (found.answers >= 0).sum(axis=-1) % 2 == 1
    np.testing.assert_array_equal(found.codes >= 0, odd & found.where)


RULES = {
    "deer": lambda trials: stopping.deer(
        trials.confidence, trials.where, threshold=0.15
    ),
    "convergence": lambda trials: stopping.answer_convergence(
        trials.codes, trials.where, repeats=2
    ),
    "entropy": lambda trials: stopping.entropy_after_think(
        trials.entropy, trials.where, threshold=0.05, warm_up=2
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_online_equals_offline(model, markers, chains, name):
    places = probing.transition_places(chains.tokens, markers, end=False)
    settings = {"max_answer_tokens": ANSWER, "stop_ids": [END]}
    offline = probing.probe(
        model, PROMPTS, chains.tokens, markers, places=places, **settings
    )
    want = exiting.stop(chains, offline, RULES[name](offline))
    found = exiting.think_until(
        model, PROMPTS, markers, RULES[name], max_thought_tokens=CAP, **settings
    )
    assert want.stopped.any() and not want.stopped.all()
    assert found.answers == want.answers
    np.testing.assert_array_equal(found.lengths, want.lengths)
    np.testing.assert_array_equal(found.stopped, want.stopped)
    np.testing.assert_array_equal(found.cost, want.cost)


def test_stops_by_hand(chains, trials):
    """No stop is the chain with all probes paid; a stop at the first pays none."""
    count = len(PROMPTS)
    never = exiting.stop(chains, trials, np.full(count, -1))
    assert never.answers == chains.answers and not never.stopped.any()
    np.testing.assert_array_equal(never.lengths, chains.lengths)
    np.testing.assert_array_equal(never.cost, trials.lengths.sum(axis=1))
    first = exiting.stop(chains, trials, np.zeros(count, int))
    np.testing.assert_array_equal(first.cost, 0)
    np.testing.assert_array_equal(
        first.lengths, trials.places[:, 0] + trials.lengths[:, 0]
    )
    with pytest.raises(ValueError, match="index: expected a probe of chain 0, got"):
        exiting.stop(chains, trials, np.full(count, trials.where.shape[1] - 1))


def test_a_second_run_compiles_nothing(model, markers):
    from jeff_llm.generate import generation

    def once(seed):
        thinking.think(
            model,
            PROMPTS,
            markers,
            sampling=Sampling(temperature=1.0),
            keys=jax.random.key(seed),
            stop_ids=[END],
            max_thought_tokens=4,
            max_answer_tokens=ANSWER,
        )

    once(0)
    before = generation._generate._cache_size()
    once(1)
    assert generation._generate._cache_size() == before


def test_errors_name_the_argument(model, markers):
    with pytest.raises(ValueError, match=r"markers\.close: expected at least one"):
        thinking.think(model, PROMPTS, markers._replace(close=()), **SIZES)
    with pytest.raises(ValueError, match=r"markers\.wait: expected tokens below 61"):
        thinking.think(model, PROMPTS, markers._replace(wait=(61,)), **SIZES)
    with pytest.raises(ValueError, match=r"markers\.wait: expected at least one"):
        thinking.force_budget(
            model, PROMPTS, markers._replace(wait=()), waits=1, **SIZES
        )
    with pytest.raises(ValueError, match="prompt 0: expected at most"):
        thinking.think(
            model, PROMPTS, markers, max_thought_tokens=200, max_answer_tokens=1
        )
    with pytest.raises(ValueError, match="places: expected numbers from 0 to 1"):
        probing.probe(model, [[5]], [[6]], markers, max_answer_tokens=1, places=[[2]])
    with pytest.raises(ValueError, match=r"markers\.transitions: expected"):
        exiting.think_until(
            model, PROMPTS, markers._replace(transitions=()), RULES["deer"], **SIZES
        )
