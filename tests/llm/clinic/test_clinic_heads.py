"""Test heads over sentence embeddings."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm.clinic import heads
from jeff_llm.clinic.items import Item
from jeff_llm.clinic.making import make_mazes

WIDTH = 6


def unit(seed, count):
    vectors = np.random.default_rng(seed).normal(size=(count, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def item(number):
    return Item(
        id=f"case {number}",
        background=f"P{number}",
        evidence=tuple(f"S{number}{letter}" for letter in "abc"),
        question="",
        answer=f"A{number}",
        options=(),
        level="",
        kinds=("symptom",) * 3,
        organs=frozenset(),
        age_group="unknown",
        sex="unknown",
        simulated=True,
    )


@pytest.fixture(scope="module")
def cases():
    return [item(number) for number in range(6)]


@pytest.fixture(scope="module")
def conversations(cases):
    return [[each.background, *each.evidence] for each in cases]


@pytest.fixture(scope="module")
def vectors(conversations):
    texts = [text for each in conversations for text in each]
    return dict(zip(texts, unit(0, len(texts)), strict=True))


@pytest.fixture(scope="module")
def pairs(conversations, vectors):
    return heads.next_turns(conversations, vectors)


@pytest.fixture(scope="module")
def lively():
    """A head whose every part shows in the scores."""
    head = heads.init(WIDTH, rank=3, key=jax.random.key(0))
    up = jax.random.normal(jax.random.key(1), head.up.shape)
    return head._replace(mix=jnp.array([1.0, 0.5, -0.5]), up=up)


def test_an_untrained_head_is_the_cosine_to_the_mean(vectors):
    head = heads.init(WIDTH, key=jax.random.key(0))
    a, b, c = (vectors[name] for name in ("P0", "S0a", "S0b"))
    context = np.concatenate([(a + b) / 2, b, a])
    found = heads.score(head, context, np.stack([a, b, c]))
    expected = 10 * np.stack([a, b, c]) @ ((a + b) / 2)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_scores_by_hand(lively):
    context, candidates = unit(3, 3).ravel(), unit(4, 2)
    mean, last, first = context.reshape(3, WIDTH)
    query = mean + 0.5 * last - 0.5 * first + context @ lively.down @ lively.up
    found = heads.score(lively, context, candidates)
    np.testing.assert_allclose(found, 10 * candidates @ query, rtol=1e-4)
    batch = heads.score(lively, np.stack([context, 2 * context]), candidates)
    np.testing.assert_allclose(batch, np.stack([found, 2 * found]), rtol=1e-4)


def test_pairs(pairs, vectors):
    assert pairs.contexts.shape == (18, 3 * WIDTH)
    assert pairs.items.tolist() == [n for n in range(6) for _ in range(3)]
    assert pairs.texts.tolist() == [*range(18)]
    second = [vectors["P0"], vectors["S0a"]]
    expected = np.concatenate([np.mean(second, 0), second[1], second[0]])
    np.testing.assert_allclose(pairs.contexts[1], expected, rtol=1e-6)
    np.testing.assert_array_equal(pairs.targets[1], vectors["S0b"])


def test_equal_turns_have_one_number(vectors):
    found = heads.next_turns([["P0", "S0a"], ["P1"], ["P1", "S0a", "S1a"]], vectors)
    assert found.texts.tolist() == [0, 0, 1] and found.items.tolist() == [0, 2, 2]


@pytest.fixture(scope="module")
def trained(pairs):
    head = heads.init(WIDTH, rank=4, key=jax.random.key(0))
    return heads.train(
        head, pairs, num_steps=60, learning_rate=2e-2, key=jax.random.key(1)
    )


def test_training_lowers_the_loss(trained, pairs):
    head, losses = trained
    assert losses.shape == (60,) and losses[-1] < 0.7 * losses[0]
    chex.assert_tree_all_finite(head)
    # The whole data fit into a batch: the first loss is that of the untrained head.
    untrained = heads.init(WIDTH, rank=4, key=jax.random.key(0))
    logits = heads.score(untrained, pairs.contexts, pairs.targets)
    expected = -np.diag(jax.nn.log_softmax(logits)).mean()
    np.testing.assert_allclose(losses[0], expected, rtol=1e-4)


def test_jit_changes_nothing(pairs):
    """Inside a scan nothing else can differ, so few steps are enough."""
    head = heads.init(WIDTH, rank=4, key=jax.random.key(0))
    train = jax.jit(heads.train, static_argnames=("num_steps", "batch_size"))
    options = {"num_steps": 3, "batch_size": 6, "key": jax.random.key(1)}
    chex.assert_trees_all_close(
        train(head, pairs, **options), heads.train(head, pairs, **options), rtol=1e-4
    )


def test_an_equal_turn_is_no_wrong_answer(vectors):
    """Two conversations with one turn each, the same: nothing is left to learn."""
    pairs = heads.next_turns([["P0", "S0a"], ["P1", "S0a"]], vectors)
    head = heads.init(WIDTH, key=jax.random.key(0))
    _, losses = heads.train(head, pairs, num_steps=1, key=jax.random.key(1))
    np.testing.assert_allclose(losses, 0, atol=1e-6)


@pytest.mark.parametrize("rounds", ["one", "several"])
def test_choices_are_those_of_the_scores(lively, cases, vectors, rounds):
    mazes = make_mazes(cases, noise=(2,), key=jax.random.key(3))[2]
    found = heads.choose(lively, mazes, vectors, rounds=rounds)
    for maze, picks, shares in zip(mazes, found.picks, found.probability, strict=True):
        candidates = np.stack([vectors[each] for each in maze.listed])
        taken: list[int] = []
        for pick, share in zip(picks, shares, strict=True):
            told = taken if rounds == "several" else []
            said = [maze.item.background, *(maze.listed[place] for place in told)]
            rows = np.stack([vectors[each] for each in said])
            context = np.concatenate([rows.mean(0), rows[-1], rows[0]])
            logits = np.array(heads.score(lively, context, candidates))
            logits[taken] = -np.inf
            assert pick == logits.argmax()
            np.testing.assert_allclose(share, jax.nn.softmax(logits)[pick], rtol=1e-3)
            taken.append(pick)
        assert len(taken) == len(maze.gold)


def test_what_is_refused(lively, vectors):
    for width, rank in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="width, rank: expected at least 1"):
            heads.init(width, rank=rank, key=jax.random.key(0))
    with pytest.raises(ValueError, match="conversations: expected one of at least two"):
        heads.next_turns([["P0"], []], vectors)
    with pytest.raises(ValueError, match=r"rounds: expected one of .*, got 'two'"):
        heads.choose(lively, [], vectors, rounds="two")
