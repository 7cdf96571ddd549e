"""Test choice by the likelihood of sentences against scores by hand."""

import jax
import numpy as np
import pytest

from jeff_llm import generate
from jeff_llm.clinic.choosing import Choices
from jeff_llm.clinic.items import Item
from jeff_llm.clinic.making import make_mazes
from jeff_llm.clinic.reading import choose_by_text

pytest.importorskip("tokenizers")

WORDS = ("ab", "cde", "fg", "hijk", "lm", "nop")


@pytest.fixture(scope="module")
def model(lettered):
    """The tiny model; its tokenizer knows letters and skips all else."""
    return lettered


def item(number, evidence):
    return Item(
        id=f"case {number}",
        background=f"B{'xyz'[number]}",
        evidence=evidence,
        question="why" if number else "",
        answer=f"A{'uvw'[number]}",
        options=(),
        level="",
        kinds=("symptom",) * len(evidence),
        organs=frozenset(),
        age_group="unknown",
        sex="unknown",
        simulated=True,
    )


@pytest.fixture(scope="module")
def mazes():
    cases = [item(0, WORDS[:3]), item(1, WORDS[3:5]), item(2, WORDS[5:])]
    made = make_mazes(cases, noise=(0, 2), key=jax.random.key(2))
    return [*made[0], *made[2]]


def by_hand(model, maze, rounds):
    picks, shares = [], []
    goal = f"Question: {maze.item.question}\n" if maze.item.question else ""
    for _ in maze.gold:
        told = [maze.listed[p] for p in picks] if rounds == "several" else []
        case = " ".join([maze.item.background, *told])
        context = f"{goal}Answer: {maze.item.answer}\nCase: {case}"
        free = [p for p in range(len(maze.listed)) if p not in picks]
        tails = [f" {maze.listed[p]}" for p in free]
        with_case, without = (
            np.array([each.mean for each in generate.score(model, [text], [tails])[0]])
            for text in (context, "A patient is seen.")
        )
        gain = with_case - without
        best = int(gain.argmax())
        picks.append(free[best])
        shares.append(float(np.exp(gain[best]) / np.exp(gain).sum()))
    return picks, shares


@pytest.mark.parametrize("rounds", ["one", "several"])
def test_choices_by_hand(model, mazes, rounds):
    found = choose_by_text(model, mazes, rounds=rounds)
    assert [len(each) for each in found.picks] == [3, 2, 1] * 2
    for maze, picks, shares in zip(mazes, found.picks, found.probability, strict=True):
        expected, probability = by_hand(model, maze, rounds)
        assert picks == expected
        np.testing.assert_allclose(shares, probability, rtol=1e-3)


def test_the_batch_changes_nothing(model, mazes):
    one, two = (choose_by_text(model, mazes, batch_size=n) for n in (1, 8))
    assert one.picks == two.picks
    for first, second in zip(one.probability, two.probability, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-3)


def test_no_maze_and_unknown_rounds(model, mazes):
    assert choose_by_text(model, []) == Choices([], [])
    with pytest.raises(ValueError, match="rounds: expected one of"):
        choose_by_text(model, mazes, rounds="two")
