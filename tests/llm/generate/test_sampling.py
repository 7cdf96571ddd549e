"""Test sampling: cuts by hand and as in transformers, shares, keys, processors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jeff_llm.generate import sampling
from jeff_llm.generate.sampling import GREEDY, Progress, RowSampling, Sampling

# Probabilities 1/2, 1/4, 1/8, 1/16, 1/16 in a shuffled order.
LOGITS = jnp.log(jnp.array([[0.125, 0.5, 0.0625, 0.25, 0.0625]]))
filter_logits = jax.jit(sampling.filter_logits)
sample = jax.jit(sampling.sample)


def kept(logits: jax.Array, **cuts: Any) -> list[int]:
    found = filter_logits(logits, **{k: jnp.array([v]) for k, v in cuts.items()})
    return np.flatnonzero(np.isfinite(found[0])).tolist()


@pytest.mark.parametrize(
    ("cuts", "expected"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"top_k": 1}, [1]),
        ({"top_k": 3}, [0, 1, 3]),
        ({"top_k": 4}, [0, 1, 2, 3, 4]),  # a tie with the fourth stays
        ({"top_k": 99}, [0, 1, 2, 3, 4]),
        ({"top_p": 0.4}, [1]),
        ({"top_p": 0.6}, [1, 3]),
        ({"top_p": 0.8}, [0, 1, 3]),
        ({"top_p": 1.0}, [0, 1, 2, 3, 4]),
        ({"min_p": 0.0}, [0, 1, 2, 3, 4]),
        ({"min_p": 0.2}, [0, 1, 3]),
        ({"min_p": 1.0}, [1]),
        # Of the three left 4/7, 2/7, 1/7: the first two hold 6/7.
        ({"top_k": 3, "top_p": 0.8}, [1, 3]),
        ({"top_p": 0.8, "min_p": 0.4}, [1, 3]),
    ],
)
def test_cuts_by_hand(cuts, expected) -> None:
    """What is left is as it was, the rest is minus infinity."""
    assert kept(LOGITS, **cuts) == expected
    found = filter_logits(LOGITS, **{k: jnp.array([v]) for k, v in cuts.items()})
    np.testing.assert_array_equal(found[0, expected], LOGITS[0, expected])


@given(
    seed=st.integers(0, 10**6),
    scale=st.floats(0.1, 20),
    temperature=st.floats(0.1, 3),
    top_k=st.integers(1, 70),
    top_p=st.floats(0.01, 0.99),
    min_p=st.floats(0.001, 0.99),
)
@settings(deadline=None, max_examples=60)
def test_cuts_of_transformers(seed, scale, temperature, top_k, top_p, min_p) -> None:
    """Each alone, and all of them in their order."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(seed).normal(0, scale, (3, 64)).astype(np.float32)
    ours = jnp.asarray(logits) / temperature
    theirs = transformers.TemperatureLogitsWarper(temperature)(
        None, torch.tensor(logits)
    )
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6)
    warpers = {
        "top_k": (transformers.TopKLogitsWarper, top_k),
        "top_p": (transformers.TopPLogitsWarper, top_p),
        "min_p": (transformers.MinPLogitsWarper, min_p),
    }
    for names in (["top_k"], ["top_p"], ["min_p"], list(warpers)):
        expected, settings_ = theirs, {}
        for name in names:
            warper, value = warpers[name]
            expected = warper(value)(None, expected)
            settings_[name] = jnp.full(3, value)
        got = np.isfinite(filter_logits(ours, **settings_))
        differs = got != np.isfinite(expected.numpy())
        assert not differs.any() or _on_the_edge(ours, differs, settings_)


def _on_the_edge(logits: jax.Array, differs: np.ndarray, settings_: Any) -> bool:
    """Whether only a token differs whose share is the cut itself, to rounding."""
    near = np.zeros(logits.shape, bool)
    if "top_p" in settings_:
        below = sampling.filter_logits(
            logits, **{**settings_, "top_p": settings_["top_p"] - 1e-6}
        )
        above = sampling.filter_logits(
            logits, **{**settings_, "top_p": settings_["top_p"] + 1e-6}
        )
        near |= np.isfinite(below) != np.isfinite(above)
    if "min_p" in settings_:
        share = np.exp(logits - logits.max(axis=-1, keepdims=True))
        near |= np.abs(share / settings_["min_p"][:, None] - 1) < 1e-5
    return bool((~differs | near).all())


def test_cuts_that_cut_nothing() -> None:
    """In a batch where another row is cut, the limits of the others are exact."""
    logits = 3 * jax.random.normal(jax.random.key(0), (2, 50_000))
    found = filter_logits(
        logits,
        top_k=jnp.array([50_000, 5]),
        top_p=jnp.array([1.0, 1.0]),
        min_p=jnp.array([0.0, 0.0]),
    )
    np.testing.assert_array_equal(found[0], logits[0])
    assert np.isfinite(found[1]).sum() == 5


def test_shares_of_the_draws() -> None:
    """20,000 draws lie as softmax(logits / T) says: chi-square within its 99.9 %."""
    count = 20_000
    settings_ = Sampling(temperature=2.0, top_k=4, min_p=0.3).rows(count, count)
    keys = jax.random.split(jax.random.key(1), count)
    logits = jnp.tile(jnp.array([0.0, 1.0, 2.0, 3.0, -9.0]), (count, 1))
    drawn = np.bincount(sample(logits, settings_, keys=keys), minlength=5)
    # exp(-1.5) = 0.22 of the likeliest is below min_p, exp(-1) = 0.37 is not.
    share = np.exp([0.5, 1.0, 1.5])
    expected = count * share / share.sum()
    assert drawn[0] == drawn[4] == 0
    assert ((drawn[1:4] - expected) ** 2 / expected).sum() < 13.8


def test_a_temperature_of_zero_takes_the_likeliest() -> None:
    """Row by row, beside rows that draw."""
    logits = jax.random.normal(jax.random.key(0), (3, 9))
    settings_ = Sampling(temperature=np.array([0.0, 5.0, 0.0])).rows(3, 3)
    greedy = jnp.argmax(logits, axis=-1)
    draws = np.array(
        [
            sample(logits, settings_, keys=jax.random.split(jax.random.key(seed), 3))
            for seed in range(12)
        ]
    )
    assert (draws[:, [0, 2]] == np.asarray(greedy)[[0, 2]]).all()
    assert len(set(draws[:, 1])) > 2
    keys = jax.random.split(jax.random.key(0), 3)
    np.testing.assert_array_equal(sample(logits, None, keys=keys), greedy)


def test_a_row_hangs_on_its_own_key() -> None:
    """Not on its place, nor on the other rows."""
    logits = jax.random.normal(jax.random.key(0), (4, 50))
    keys = jax.random.split(jax.random.key(2), 4)
    settings_ = Sampling(top_p=0.9).rows(4, 4)
    drawn = sample(logits, settings_, keys=keys)
    order = jnp.array([2, 0, 3, 1])
    np.testing.assert_array_equal(
        sample(logits[order], settings_, keys=keys[order]), drawn[order]
    )


def test_rows() -> None:
    """One value for all, or one a row; rows that fill the batch copy the last."""
    settings_ = Sampling(temperature=0.5, top_k=np.array([3, 1])).rows(2, 4)
    assert isinstance(settings_, RowSampling)
    np.testing.assert_array_equal(settings_.temperature, [0.5] * 4)
    np.testing.assert_array_equal(settings_.top_k, [3, 1, 1, 1])
    assert settings_.top_k.dtype == jnp.int32
    assert settings_.top_p is None and settings_.min_p is None
    assert GREEDY.rows(2, 4) is None
    assert Sampling(temperature=np.zeros(2)).rows(2, 2) is None
    with pytest.raises(ValueError, match="top_p: expected one value, or 3, got 2"):
        Sampling(top_p=np.array([0.5, 0.9])).rows(3, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature: .* from 0 to inf, got -0.1"),
        ({"temperature": float("nan")}, "temperature: .* got nan"),
        ({"top_k": 0}, "top_k: .* from 1 to inf, got 0"),
        ({"top_p": 0.0}, "top_p: .* to 1, got 0.0"),
        ({"top_p": 1.1}, "top_p: .* got 1.1"),
        ({"min_p": np.array([0.5, -1])}, "min_p: .* from 0 to 1"),
        ({"top_k": np.ones((2, 2), int)}, "top_k: expected one number, or one a row"),
    ],
)
def test_settings_that_are_refused(options, message) -> None:
    """Each by its name, its range and what came."""
    with pytest.raises(ValueError, match=message):
        Sampling(**options)


def test_processors_by_hand() -> None:
    """Allowed, forbidden, and forbidden until a step."""
    logits = jnp.arange(10.0).reshape(2, 5)
    progress = Progress(jnp.array(2), jnp.zeros((2, 4), jnp.int32), jnp.array([1, 1]))

    def finite(processor: Any) -> list[int]:
        found = jax.jit(lambda f, x: f(x, progress))(processor, logits)
        keep = np.isfinite(found)
        assert (keep[0] == keep[1]).all()
        np.testing.assert_array_equal(found[keep], logits[keep])
        return np.flatnonzero(keep[0]).tolist()

    assert finite(sampling.allow_tokens([1, 3], 5)) == [1, 3]
    assert finite(sampling.forbid_tokens([1, 3], 5)) == [0, 2, 4]
    assert finite(sampling.minimum_tokens(3, [4], 5)) == [0, 1, 2, 3]
    assert finite(sampling.minimum_tokens(2, [4], 5)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "make",
    [
        sampling.allow_tokens,
        sampling.forbid_tokens,
        lambda ids, size: sampling.minimum_tokens(3, ids, size),
    ],
)
def test_processors_of_tokens_that_are_none(make) -> None:
    """No token at all, or one outside the vocabulary."""
    with pytest.raises(ValueError, match="at least one token below 5, got none"):
        make([], 5)
    with pytest.raises(ValueError, match=r"below 5, got \[5, -1\]"):
        make([1, 5, -1], 5)
