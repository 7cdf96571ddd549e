"""Test the decoding loop against whole forward passes, also with other caches."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jeff_llm.generate import decoding, sampling
from jeff_llm.models import decoder
from jeff_llm.models.cache import PlainCache, init_cache

PROMPTS = [[5, 9, 2, 60, 7], [3], [44, 0, 9]]
NEW, LAYERS = 8, (1, -1)

start = jax.jit(
    decoding.start, static_argnames=("config", "buffer", "hidden_layers", "make_cache")
)
advance = jax.jit(decoding.advance, static_argnames=("config", "hidden_layers"))


@partial(jax.jit, static_argnames="config")
def whole(config: Any, params: Any, row: Any, length: Any) -> Any:
    """Logits and hidden states after the last token of one row, without a cache."""
    mask = jnp.arange(row.shape[0]) < length
    out = decoder.apply(
        config, params, row[None], mask=mask[None], hidden_layers=LAYERS
    )
    return out.logits[0, length - 1], out.hidden[:, 0, length - 1]


def likeliest(logits: Any, step: int) -> Any:
    return jnp.argmax(logits)


def one_by_one(model: Any, prompt: list[int], choose: Any = likeliest) -> Any:
    """Tokens, log-probabilities, hidden states and logits, each from a whole pass."""
    row, found = list(prompt), []
    for step in range(NEW):
        padded = jnp.zeros(16, jnp.int32).at[: len(row)].set(jnp.array(row))
        logits, hidden = whole(model.config, model.params, padded, len(row))
        token = int(choose(logits, step))
        found.append((token, jax.nn.log_softmax(logits)[token], hidden))
        row.append(token)
    tokens, log_probs, hidden = zip(*found, strict=True)
    return list(tokens), np.array(log_probs), np.stack(hidden, axis=1)


def plan(
    rows: int = 3,
    *,
    keys: Any = None,
    settings: Any = None,
    stop_ids: tuple[int, ...] = (-1,),
    processors: tuple[Any, ...] = (),
) -> decoding.Plan:
    return decoding.Plan(
        keys=jax.random.split(jax.random.key(0), rows) if keys is None else keys,
        sampling=settings,
        stop_ids=jnp.array(stop_ids),
        processors=tuple(map(Partial, processors)),
    )


@pytest.fixture(scope="module")
def prompts() -> dict[str, jax.Array]:
    """Padded on both sides, each row otherwise."""
    tokens, mask = np.full((3, 6), 13, np.int32), np.zeros((3, 6), bool)
    for row, (begin, ids) in enumerate(zip((1, 2, 0), PROMPTS, strict=True)):
        tokens[row, begin : begin + len(ids)] = ids
        mask[row, begin : begin + len(ids)] = True
    return {"tokens": jnp.asarray(tokens), "mask": jnp.asarray(mask)}


@pytest.fixture(scope="module")
def run(tiny, prompts):
    """``(plan, until=NEW, make_cache=init_cache) -> state``"""

    def run(plan: Any, until: int = NEW, make_cache: Any = init_cache) -> Any:
        state = start(
            tiny.config,
            tiny.params,
            **prompts,
            plan=plan,
            buffer=NEW,
            hidden_layers=LAYERS,
            make_cache=make_cache,
        )
        return advance(
            tiny.config, tiny.params, state, plan, until, hidden_layers=LAYERS
        )

    return run


@pytest.fixture(scope="module")
def expected(tiny) -> list[Any]:
    return [one_by_one(tiny, prompt) for prompt in PROMPTS]


def test_greedy(run, expected) -> None:
    """Tokens, log-probabilities and hidden states of whole passes, one at a time."""
    state = run(plan())
    assert state.step == NEW and not state.finished.any()
    np.testing.assert_array_equal(state.lengths, [NEW] * 3)
    np.testing.assert_array_equal(state.prompt_lengths, [5, 1, 3])
    # The last token has not been read.
    np.testing.assert_array_equal(state.cache.lengths, [5 + 7, 1 + 7, 3 + 7])
    for row, (tokens, log_probs, hidden) in enumerate(expected):
        assert state.tokens[row].tolist() == tokens
        np.testing.assert_allclose(state.log_probs[row], log_probs, atol=6e-6)
        np.testing.assert_allclose(state.hidden[:, row], hidden, atol=6e-6)


def test_in_pieces(tiny, run) -> None:
    """Looking at the tokens in between changes nothing."""
    once, state = run(plan()), run(plan(), 2)
    assert state.step == 2 and not state.tokens[:, 2:].any()
    for until in (3, 5, NEW):
        state = advance(
            tiny.config, tiny.params, state, plan(), until, hidden_layers=LAYERS
        )
        assert state.step == until
    np.testing.assert_array_equal(state.tokens, once.tokens)
    np.testing.assert_allclose(state.log_probs, once.log_probs, atol=1e-6)


def test_ends(run, expected) -> None:
    """A row ends with its end token; nothing is drawn or stored behind it."""
    stops = (expected[0][0][2], expected[2][0][4])
    state = run(plan(stop_ids=stops))
    for row, (tokens, log_probs, _) in enumerate(expected):
        hits = [place for place, token in enumerate(tokens) if token in stops]
        length = hits[0] + 1 if hits else NEW
        assert bool(state.finished[row]) == bool(hits)
        assert int(state.lengths[row]) == length
        assert state.tokens[row].tolist() == tokens[:length] + [0] * (NEW - length)
        np.testing.assert_allclose(
            state.log_probs[row, :length], log_probs[:length], atol=6e-6
        )
        assert not state.log_probs[row, length:].any()
        read = length if hits and length < NEW else NEW
        assert int(state.cache.lengths[row]) == len(PROMPTS[row]) + read - 1


def test_stops_when_all_have_ended(run) -> None:
    """The loop does not go on for nothing."""

    def third(logits: Any, progress: sampling.Progress) -> Any:
        return logits.at[:, 7].set(jnp.where(progress.step == 2, 99.0, -99.0))

    state = run(plan(stop_ids=(7,), processors=(third,)))
    assert state.step == 3 and state.finished.all()
    assert state.tokens[:, 2].tolist() == [7, 7, 7]


def test_processors_see_the_progress(run) -> None:
    """Step, tokens and prompts' lengths; log-probabilities are the model's."""

    def count(logits: Any, progress: sampling.Progress) -> Any:
        wanted = 3 * progress.step + progress.lengths
        return jnp.where(jnp.arange(61) == wanted[:, None], 0.0, -jnp.inf)

    state = run(plan(processors=(count,)))
    steps = 3 * np.arange(NEW)
    np.testing.assert_array_equal(state.tokens, [steps + n for n in (5, 1, 3)])
    assert (state.log_probs < -0.5).any() and jnp.isfinite(state.log_probs).all()

    def no_repeats(logits: Any, progress: sampling.Progress) -> Any:
        drawn = jnp.arange(NEW) < progress.step
        hit = (progress.tokens[..., None] == jnp.arange(61)) & drawn[:, None]
        return jnp.where(hit.any(axis=1), -jnp.inf, logits)

    few = sampling.allow_tokens(range(NEW), 61)
    state = run(plan(processors=(no_repeats, few)))
    for row in range(3):
        assert sorted(state.tokens[row].tolist()) == list(range(NEW))


def test_draws_by_hand(tiny, run) -> None:
    """Token t of a row is a categorical draw with ``fold_in(key, t)``."""
    keys = jax.random.split(jax.random.key(5), 3)
    settings = sampling.Sampling(temperature=1.5).rows(3, 3)
    state = run(plan(keys=keys, settings=settings))
    for row, prompt in enumerate(PROMPTS):

        def draw(logits: Any, step: int, row: int = row) -> Any:
            key = jax.random.fold_in(keys[row], step)
            return jax.random.categorical(key, logits / 1.5)

        tokens, log_probs, _ = one_by_one(tiny, prompt, draw)
        assert state.tokens[row].tolist() == tokens
        np.testing.assert_allclose(state.log_probs[row], log_probs, atol=6e-6)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MixedCache:
    """A cache of another kind: each layer has its own precision, and counts writes."""

    inner: PlainCache
    writes: jax.Array
    halved: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    @property
    def lengths(self) -> jax.Array:
        return self.inner.lengths

    @property
    def capacity(self) -> int:
        return self.inner.capacity

    def begin(self, positions, mask):
        return dataclasses.replace(self, inner=self.inner.begin(positions, mask))

    def attend(self, layer, query, key, value, *, positions, mask, window):
        kinds = jnp.asarray(self.halved)
        key, value = jax.lax.switch(
            kinds[layer],
            [
                lambda pair: pair,
                lambda pair: jax.tree.map(
                    lambda x: x.astype(jnp.bfloat16).astype(x.dtype), pair
                ),
            ],
            (key, value),
        )
        out, inner = self.inner.attend(
            layer, query, key, value, positions=positions, mask=mask, window=window
        )
        writes = self.writes.at[layer].add(mask.sum())
        return out, dataclasses.replace(self, inner=inner, writes=writes)

    def advance(self, count):
        return dataclasses.replace(self, inner=self.inner.advance(count))

    def repeat_rows(self, rows):
        return dataclasses.replace(self, inner=self.inner.repeat_rows(rows))


def mixed(halved: tuple[int, ...], config: Any, *sizes: Any) -> MixedCache:
    inner = init_cache(config, *sizes)
    return MixedCache(inner, jnp.zeros(config.num_layers, int), halved)


def test_a_cache_of_another_kind(run) -> None:
    """A drop-in with a precision for each layer; the protocol is all that counts."""
    plain = run(plan())
    same = run(plan(), make_cache=partial(mixed, (0, 0, 0)))
    np.testing.assert_array_equal(same.tokens, plain.tokens)
    np.testing.assert_allclose(same.log_probs, plain.log_probs, atol=1e-6)
    # 9 tokens of prompts and 7 of each row were read, once in each layer.
    np.testing.assert_array_equal(same.cache.writes, [9 + 3 * 7] * 3)
    # The first tokens alone: later ones may be others.
    rough = run(plan(), 2, make_cache=partial(mixed, (0, 1, 0)))
    error = jnp.abs(rough.log_probs[:, 0] - plain.log_probs[:, 0]).max()
    assert 1e-5 < error < 0.1
    stored = np.asarray(rough.cache.inner.keys)
    exact = (stored == stored.astype(jnp.bfloat16)).all(axis=(1, 2, 3, 4))
    assert exact.tolist() == [False, True, False]


def test_plain_cache_in_half_precision(run) -> None:
    """`make_cache` decides about the dtype too."""

    def half(config: Any, rows: int, slots: int, dtype: Any) -> PlainCache:
        return init_cache(config, rows, slots, jnp.bfloat16)

    state = run(plan(), 2, make_cache=half)
    assert state.cache.values.dtype == jnp.bfloat16
    plain = run(plan(), 2)
    np.testing.assert_allclose(state.log_probs[:, 0], plain.log_probs[:, 0], atol=1e-6)
