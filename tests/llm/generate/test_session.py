"""Test chunks of a prompt, and a cache that is kept from turn to turn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm import kv
from jeff_llm.generate import Sampling, Session, generate, prefill, stream
from jeff_llm.generate import session as module
from jeff_llm.models.cache import init_cache

NEW = 6
PROMPTS = [[5, 9, 2, 60, 7, 1, 8, 30, 12, 11, 40, 41, 3, 3, 9, 20, 17], [3], [44, 0, 9]]
PACKED = kv.MakeCache(kv.CacheConfig(group_size=4, window=128, sinks=0))
# Grouping of sums alone; logits lie within 20.
ROUNDING = 2e-5


@pytest.mark.parametrize("chunk", [1, 5, 16, 400])
def test_chunks_change_nothing(tiny, chunk) -> None:
    """Rows that end in different chunks: tokens, log-probabilities, hidden states."""
    whole, parts = (
        generate(
            tiny,
            PROMPTS,
            max_new_tokens=NEW,
            hidden_layers=(1, -1),
            prefill_chunk=each,
        )
        for each in (400, chunk)
    )
    np.testing.assert_array_equal(parts.tokens, whole.tokens)
    np.testing.assert_allclose(parts.log_probs, whole.log_probs, atol=ROUNDING)
    np.testing.assert_allclose(parts.hidden, whole.hidden, atol=ROUNDING)


def test_chunks_of_a_packed_cache(tiny) -> None:
    """In chunks by request alone; what the window holds is exact either way."""
    whole, parts = (
        generate(
            tiny, PROMPTS, max_new_tokens=NEW, make_cache=PACKED, prefill_chunk=chunk
        )
        for chunk in (None, 5)
    )
    np.testing.assert_array_equal(parts.tokens, whole.tokens)
    assert prefill.chosen_chunk(None, PACKED) is None
    assert prefill.chosen_chunk(None, init_cache) == prefill.CHUNK
    with pytest.raises(
        ValueError, match=r"prefill_chunk: expected at least 1 .* got 0"
    ):
        generate(tiny, PROMPTS, max_new_tokens=NEW, prefill_chunk=0)


def test_memory_of_a_long_prompt(tiny) -> None:
    """Beside the cache, four times the prompt takes no more memory in chunks."""
    config = dataclasses.replace(tiny.config, max_positions=100_000)

    def bytes_of(width: int) -> int:
        cache = jax.eval_shape(lambda: init_cache(config, 1, width))

        def read(tokens, cache):
            mask = jnp.ones(tokens.shape, bool)
            return prefill.read(config, tiny.params, tokens, mask, cache, chunk=256)

        tokens = jax.ShapeDtypeStruct((1, width), jnp.int32)
        lowered = jax.jit(read, donate_argnums=1).lower(tokens, cache)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert bytes_of(8192) < 1.2 * bytes_of(2048)


@pytest.mark.parametrize("make_cache", [init_cache, PACKED])
def test_a_turn_reads_what_it_adds(lettered, make_cache) -> None:
    """Each answer is that of the whole conversation read afresh."""
    session = Session(lettered, capacity=96, make_cache=make_cache)
    ids, added = lettered.encode("abcde"), 4
    for turn in ("fgh", "klm"):
        before = session.tokens_read
        said = "".join(session.stream(ids, max_new_tokens=NEW, stop_ids=[]))
        afresh = generate(
            lettered, [ids], max_new_tokens=NEW, stop_ids=[], make_cache=make_cache
        )
        assert said == afresh.texts[0]
        # The last token drawn has not been read yet, but by the turn that follows.
        assert len(session.tokens) == len(ids) + NEW - 1
        assert session.tokens_read - before == 1 + added
        added = len(lettered.encode(turn))
        ids = [*ids, *afresh.tokens[0].tolist(), *lettered.encode(turn)]


@pytest.mark.parametrize(("make_cache", "read"), [(init_cache, 4), (PACKED, 7)])
def test_another_beginning(lettered, make_cache, read) -> None:
    """A plain cache keeps what is common; a packed one begins again."""
    session = Session(lettered, capacity=64, make_cache=make_cache)
    settings = {"max_new_tokens": NEW, "sampling": Sampling(temperature=1.5)}
    settings |= {"key": jax.random.key(3), "stop_ids": []}
    list(session.stream("abcdefg", **settings))
    before = session.tokens_read
    said = "".join(session.stream("abcxyzw", **settings))
    assert session.tokens_read - before == read
    afresh = Session(lettered, capacity=64, make_cache=make_cache)
    assert said == "".join(afresh.stream("abcxyzw", **settings))


def test_more_than_there_is_room_for(lettered) -> None:
    """Read again into a larger cache, with the same answer."""
    session = Session(lettered)
    list(session.stream("abc", max_new_tokens=2, stop_ids=[]))
    small = session._cache.capacity
    longer = "abc" + "de" * 20
    said = "".join(session.stream(longer, max_new_tokens=NEW, stop_ids=[]))
    assert session.tokens_read == 3 + 43 and session._cache.capacity > small
    again = "".join(stream(lettered, longer, max_new_tokens=NEW, stop_ids=[]))
    assert said == again


def test_a_stream_that_is_left(lettered) -> None:
    """The session goes on from what was read."""
    session = Session(lettered, capacity=64)
    pieces = session.stream("abcdefg", max_new_tokens=NEW, stop_ids=[])
    first = next(pieces)
    pieces.close()
    assert 7 <= len(session.tokens) < 7 + NEW
    read = session.tokens_read
    said = "".join(session.stream("abcdefg", max_new_tokens=NEW, stop_ids=[]))
    assert said.startswith(first) and session.tokens_read == read + 1


def test_a_failure_loses_the_cache_alone(lettered, monkeypatch) -> None:
    """What was given to a program that failed is not used again."""
    session = Session(lettered, capacity=64)
    list(session.stream("abcdefg", max_new_tokens=2, stop_ids=[]))
    start = module._start
    monkeypatch.setattr(module, "_start", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(session.stream("abcdefghi", max_new_tokens=NEW, stop_ids=[]))
    assert session.tokens == []
    monkeypatch.setattr(module, "_start", start)
    wanted = "".join(stream(lettered, "abcdefghi", max_new_tokens=NEW, stop_ids=[]))
    said = "".join(session.stream("abcdefghi", max_new_tokens=NEW, stop_ids=[]))
    assert said == wanted
