"""Test the batcher: answers as when asked alone, streaming, limits, cancellation."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm import generate
from jeff_llm.kv import CacheConfig
from jeff_llm.kv.make_cache import MakeCache
from jeff_llm.models import decoder
from jeff_llm.serving import Batcher, BusyError, Job
from jeff_llm.serving import engine as engines

WORDS = ["who", "areYou", "twoAndTwo", "b", "sayItAgainAndThenOnceMore"]


@pytest.fixture(scope="module")
def batcher(talking):
    return Batcher(talking, max_batch=4, piece=3)


def jobs(model, words=WORDS, **settings):
    settings = {"max_tokens": 12} | settings
    encode = model.tokenizer.encode
    return [
        Job(tuple(encode(word)), seed=place, **settings)
        for place, word in enumerate(words)
    ]


def alone(model, job, **settings):
    """What `generate` says to the same."""
    found = generate.generate(
        model,
        [list(job.prompt)],
        max_new_tokens=job.max_tokens,
        sampling=generate.Sampling(job.temperature, top_p=job.top_p),
        keys=jax.vmap(jax.random.key)(np.asarray([job.seed], np.uint32)),
        **settings,
    )
    return found.texts[0], found.log_probs[0], int(found.lengths[0])


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 1.0}, {"temperature": 0.7, "top_p": 0.5}]
)
def test_answers_are_those_of_generate(talking, batcher, ask_all, settings):
    """Whatever is asked beside them."""
    asked = jobs(talking, **settings)
    for job, answer in zip(asked, ask_all(batcher, asked), strict=True):
        text, log_probs, length = alone(talking, job)
        assert answer.text == text
        assert answer.pieces[-1].completion_tokens == length
        ended = answer.pieces[-1].finish == "stop"
        shown = [token.log_prob for token in answer.tokens]
        np.testing.assert_allclose(shown, log_probs[: length - ended], atol=1e-4)


def test_rows_of_all_kinds_share_a_batch(talking, batcher, ask_all):
    base = jobs(talking, ["who"])[0]
    mixed = [
        base,
        dataclasses.replace(base, temperature=1.0, seed=3),
        dataclasses.replace(base, temperature=1.0, seed=3, top_k=2),
        dataclasses.replace(base, max_tokens=2),
    ]
    together = [answer.text for answer in ask_all(batcher, mixed)]
    one_by_one = [ask_all(batcher, [job])[0].text for job in mixed]
    assert together == one_by_one
    assert len(set(together)) > 2 and len(together[3]) == 2


def test_text_arrives_in_pieces(talking, batcher, ask_all):
    answer = ask_all(batcher, jobs(talking, ["who"], max_tokens=10))[0]
    assert [len(piece.text) for piece in answer.pieces] == [1, 3, 3, 3]
    assert [piece.finish for piece in answer.pieces] == [None] * 3 + ["length"]


def test_a_stop_text_ends_a_row(talking, batcher, ask_all):
    job = jobs(talking, ["who"])[0]
    text = ask_all(batcher, [job])[0].text
    stop = text[4:6]
    answer = ask_all(batcher, [dataclasses.replace(job, stop=(stop,))])[0]
    at = text.index(stop)
    assert answer.text == text[:at] and answer.pieces[-1].finish == "stop"
    assert answer.pieces[-1].completion_tokens == at + len(stop)
    assert len(answer.tokens) == at


def test_an_end_token_ends_a_row(talking, ask_all):
    job = jobs(talking, ["who"])[0]
    text = ask_all(Batcher(talking), [job])[0].text
    end = talking.tokenizer.token_id(text[3])
    answer = ask_all(Batcher(talking, stop_ids=[end]), [job])[0]
    at = text.index(text[3])
    assert answer.text == text[:at] and answer.pieces[-1].finish == "stop"
    assert answer.pieces[-1].completion_tokens == at + 1


def test_the_likeliest_tokens_are_those_of_the_model(talking, batcher, ask_all):
    job = jobs(talking, ["who"], max_tokens=5)[0]
    job = dataclasses.replace(job, num_likeliest=3)
    tokens = ask_all(batcher, [job])[0].tokens
    ids = [*job.prompt, *(token.number for token in tokens)]
    logits = decoder.apply(talking.config, talking.params, jnp.asarray([ids])).logits[0]
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    for place, token in enumerate(tokens):
        row = log_probs[len(job.prompt) - 1 + place]
        known = row[: talking.tokenizer.vocab_size]
        best = np.argsort(-known)[:3]
        assert [number for number, _ in token.likeliest] == best.tolist()
        np.testing.assert_allclose(
            [value for _, value in token.likeliest], row[best], atol=1e-4
        )


def test_a_second_request_of_a_bucket_compiles_nothing(talking, ask_all):
    batcher = Batcher(talking, max_batch=2)
    batcher.warm_up(max_tokens=12)
    sizes = [f._cache_size() for f in (engines._begin, engines._go_on)]
    ask_all(batcher, jobs(talking, ["who"], max_tokens=7))
    ask_all(batcher, jobs(talking, ["b", "c"], temperature=0.3, max_tokens=9))
    assert [f._cache_size() for f in (engines._begin, engines._go_on)] == sizes


def test_a_cancelled_row_stops_and_others_go_on(talking, collected):
    batcher = Batcher(talking, max_batch=2, piece=1)
    gone, there = collected(), collected()
    reached = threading.Event()

    def leave(piece):
        gone(piece)
        reached.wait(60)  # until it is known which row this is
        rows[0].cancel()

    rows = batcher.submit(jobs(talking, WORDS[:2], max_tokens=20), [leave, there])
    reached.set()
    assert there.wait().pieces[-1].completion_tokens == 20
    assert batcher.join(60)
    assert len(gone.pieces) == 1, "the first piece, after which it left"


def test_a_short_answer_passes_a_long_one(talking, collected):
    """It begins a batch of its own beside the one under way."""
    batcher = Batcher(talking, max_batch=2, piece=1)
    long, short = collected(), collected()
    came = threading.Event()

    def first(piece):
        long(piece)
        came.wait(60)

    batcher.submit(jobs(talking, ["who"], max_tokens=60), [first])
    batcher.submit(jobs(talking, ["b"], max_tokens=2), [short])
    came.set()
    short.wait()
    assert not long.ended.is_set()
    long.wait()


def test_more_than_may_wait_are_refused(talking, collected):
    batcher = Batcher(talking, max_batch=1, max_waiting=3)
    held, answers = threading.Event(), [collected() for _ in range(4)]

    def hold(piece):
        answers[0](piece)
        held.wait(60)

    asked = jobs(talking, ["who"] * 4, max_tokens=2)
    begun = threading.Event()
    batcher.submit(asked[:1], [lambda piece: (begun.set(), hold(piece))])
    assert begun.wait(60)
    batcher.submit(asked[1:4], answers[1:4])
    with pytest.raises(BusyError, match="3 requests wait, of at most 3"):
        batcher.submit(asked[:1], [collected()])
    held.set()
    assert [answer.wait().pieces[-1].finish for answer in answers] == ["length"] * 4


def test_closing_answers_what_was_taken(talking, collected):
    batcher = Batcher(talking)
    answer = collected()
    batcher.submit(jobs(talking, ["who"]), [answer])
    batcher.close()
    with pytest.raises(BusyError, match="ending"):
        batcher.submit(jobs(talking, ["who"]), [collected()])
    assert batcher.join(60)
    assert answer.pieces[-1].finish


def test_a_model_that_breaks_fails_its_batch_alone(talking, ask_all, monkeypatch):
    batcher = Batcher(talking, max_batch=4)
    asked = jobs(talking, WORDS[:2])
    go_on = engines._go_on

    def broken(*args, **options):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engines, "_go_on", broken)
    for answer in ask_all(batcher, asked):
        assert str(answer.pieces[-1].error) == "out of memory"
    monkeypatch.setattr(engines, "_go_on", go_on)
    assert all(answer.pieces[-1].finish for answer in ask_all(batcher, asked))


def test_what_does_not_fit_is_refused(talking):
    batcher = Batcher(talking)
    with pytest.raises(ValueError, match="at most 116 tokens"):
        batcher.submit([Job((1,) * 117, 12)], [print])
    with pytest.raises(ValueError, match="at least one token"):
        batcher.submit([Job((), 12)], [print])
    with pytest.raises(ValueError, match="tokens below 61, got 61"):
        batcher.submit([Job((61,), 12)], [print])
    with pytest.raises(ValueError, match="max_batch: expected at least 1"):
        Batcher(talking, max_batch=0)
    with pytest.raises(ValueError, match="with a tokenizer"):
        Batcher(talking._replace(tokenizer=None))


def test_a_quantised_cache_answers(talking, ask_all):
    cache = MakeCache(CacheConfig(key_bits=8, value_bits=8, group_size=8))
    batcher = Batcher(talking, make_cache=cache)
    job = jobs(talking, ["who"])[0]
    expected, *_ = alone(talking, job, make_cache=cache)
    assert ask_all(batcher, [job])[0].text == expected
