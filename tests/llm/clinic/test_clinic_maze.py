"""Test mazes: what distractors are, where sentences stand, what is refused."""

import json
import os
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import jax
import numpy as np
import pytest

from jeff_llm.clinic.items import Item, Question, make_items
from jeff_llm.clinic.kinds import age_group
from jeff_llm.clinic.making import make_mazes
from jeff_llm.clinic.maze import (
    NOISE,
    check_noise,
    choose_distractors,
    perfect,
)


def item(name, evidence, **others):
    fields = {
        "id": name,
        "background": f"A {name} comes to the physician.",
        "evidence": tuple(evidence),
        "question": "What is it?",
        "answer": f"answer of {name}",
        "options": (),
        "level": "",
        "kinds": ("symptom",) * len(evidence),
        "organs": frozenset(),
        "age_group": "unknown",
        "sex": "unknown",
        "simulated": True,
    }
    return Item(**(fields | others))


def case(number):
    """One of many: two kinds, an organ of three, an age group of two."""
    size = 2 + number % 4
    return item(
        str(number),
        [f"Sentence {number}, {each}." for each in range(size)],
        kinds=(("symptom", "examination") * 3)[:size],
        organs=frozenset({("heart", "lungs", "skin")[number % 3]}),
        age_group=("adult", "child")[number // 3 % 2],
    )


@pytest.fixture(scope="module")
def cases():
    return [case(number) for number in range(60)]


@pytest.fixture(scope="module")
def mazes(cases):
    return make_mazes(cases, key=jax.random.key(0))


def test_gold_names_the_evidence_in_its_order(cases, mazes):
    assert list(mazes) == list(NOISE)
    for noise, level in mazes.items():
        for case, maze in zip(cases, level, strict=True):
            assert maze.item is case and maze.noise == noise
            assert tuple(maze.listed[place] for place in maze.gold) == case.evidence
            assert tuple(maze.kinds[place] for place in maze.gold) == case.kinds
            assert perfect(maze) == maze.gold
            lengths = {len(maze.listed), len(maze.kinds), len(maze.sources)}
            assert lengths == {len(case.evidence) + noise}
            assert len(set(maze.listed)) == len(maze.listed)
            gold = {p for p, s in enumerate(maze.sources) if s == "evidence"}
            assert gold == set(maze.gold)


def test_distractors_of_a_level_are_nested(mazes):
    for low, high in pairwise(NOISE):
        for few, many in zip(mazes[low], mazes[high], strict=True):
            assert set(few.listed) < set(many.listed)


def test_distractors_are_matched_and_their_source_is_true(cases, mazes):
    owner = {s: case for case in cases for s in case.evidence}
    kinds, sources = Counter(), Counter()
    for maze in mazes[5]:
        for sentence, kind, source in zip(
            maze.listed, maze.kinds, maze.sources, strict=True
        ):
            other = owner[sentence]
            assert kind == other.kinds[other.evidence.index(sentence)]
            if other is maze.item:
                continue
            if other.organs & maze.item.organs:
                true = "organ"
            else:
                same = other.age_group == maze.item.age_group
                true = "age" if same else "random"
            assert source == true
            sources[source] += 1
            kinds[kind] += 1
        added = [
            k for k, s in zip(maze.kinds, maze.sources, strict=True) if s != "evidence"
        ]
        wanted = Counter(maze.item.kinds)
        # Kinds in turn: five distractors differ from their share by less than a round.
        for kind, often in wanted.items():
            share = 5 * often / wanted.total()
            assert abs(added.count(kind) - share) < often
    # In turn as well: 5 = 3 + 2, so each source has 1 or 2 of 5.
    assert all(60 <= sources[s] <= 120 for s in ("organ", "age", "random"))
    assert sources.total() == kinds.total() == 300


def test_order_is_uniform_at_every_level():
    """Each of two sentences stands first in half of the mazes; also without noise."""
    many = [item(str(n), [f"First {n}.", f"Second {n}."]) for n in range(400)]
    for noise, level in make_mazes(many, noise=(0, 1), key=jax.random.key(1)).items():
        counts = np.bincount([m.gold[0] for m in level], minlength=2 + noise)
        share = 1 / (2 + noise)
        band = 4 * np.sqrt(400 * share * (1 - share))
        assert (abs(counts - 400 * share) < band).all()


def test_a_level_does_not_depend_on_the_others(cases, mazes):
    again = make_mazes(cases, noise=(3,), key=jax.random.key(0))
    assert again[3] == mazes[3]
    assert make_mazes(cases, noise=(3,), key=jax.random.key(1))[3] != mazes[3]


def test_sentences_that_would_be_told_apart_are_left_out():
    patient = item(
        "patient", ["He is 30 years old.", "He has a cough."], sex="male", answer="Flu"
    )
    others = [
        item("same answer", ["A."], answer="flu"),
        item("same background", ["B."], background=patient.background),
        item("another age", ["His 45-year-old wife is well.", "He is six years old."]),
        item("own sentence", ["She has a cough."], sex="female"),
        item("right", ["She is tired.", "A 30 year old scar."], sex="female"),
    ]
    (chosen, *_) = choose_distractors(
        [patient, *others], count=2, key=jax.random.key(0)
    )
    assert {each.sentence for each in chosen} == {"He is tired.", "A 30 year old scar."}
    with pytest.raises(
        ValueError, match=r"for 3 distractors, found 2 for item 'patien"
    ):
        choose_distractors([patient, *others], count=3, key=jax.random.key(0))


def test_the_kind_is_kept_before_the_source():
    patient = item("patient", ["Pale."], kinds=("examination",), organs=frozenset("a"))
    near = item("near", ["Near."], organs=frozenset("a"))
    far = item("far", ["Far."], kinds=("examination",))
    chosen = choose_distractors([patient, near, far], count=2, key=jax.random.key(3))[0]
    assert [each.sentence for each in chosen] == ["Far.", "Near."]
    assert [each.source for each in chosen] == ["random", "organ"]


@pytest.mark.parametrize("noise", [(), (-1,), (1, 1)])
def test_refused_levels(cases, noise):
    with pytest.raises(ValueError, match="noise: expected different numbers"):
        make_mazes(cases, noise=noise, key=jax.random.key(0))
    with pytest.raises(ValueError, match="noise"):
        check_noise(noise)


def test_no_items_and_few_items():
    with pytest.raises(ValueError, match="at least one item"):
        make_mazes([], key=jax.random.key(0))
    with pytest.raises(
        ValueError, match="found 0 for item 'a' among 1 items; add items with other"
    ):
        make_mazes([item("a", ["B."])], noise=(3,), key=jax.random.key(0))
    (alone,) = make_mazes([item("a", ["B."])], noise=(0,), key=jax.random.key(0))[0]
    assert alone.listed == ("B.",) and alone.gold == (0,)


@pytest.fixture(scope="module")
def medqa():
    pytest.importorskip("sentencex")
    path = Path(os.environ.get("JEFF_DATA", "")) / "medqa/medqa_us_test.jsonl"
    if not path.is_file():
        pytest.skip("$JEFF_DATA/medqa is not here")
    rows = map(json.loads, path.read_text().splitlines())
    questions = [
        Question(str(number), row["question"], row["answer"])
        for number, row in enumerate(rows)
    ]
    return make_mazes(make_items(questions).items, key=jax.random.key(0))[3]


def test_kind_and_length_do_not_tell_on_medqa(medqa):
    """Kinds are as frequent among distractors as among the evidence beside them."""
    expected, found, variance = Counter(), Counter(), Counter()
    shorter, pairs = 0.0, 0
    for maze in medqa:
        split = {True: [], False: []}
        for sentence, kind, source in zip(
            maze.listed, maze.kinds, maze.sources, strict=True
        ):
            split[source == "evidence"].append(len(sentence))
            if source != "evidence":
                found[kind] += 1
        for kind, often in Counter(maze.item.kinds).items():
            share = often / len(maze.item.kinds)
            expected[kind] += 3 * share
            variance[kind] += 3 * share * (1 - share)
        for own in split[True]:
            shorter += sum((own < o) + (own == o) / 2 for o in split[False])
            pairs += len(split[False])
    for kind, number in expected.items():
        assert abs(found[kind] - number) < 4 * variance[kind] ** 0.5, kind
    # AUROC of the length of a sentence for evidence.
    assert abs(shorter / pairs - 0.5) < 0.03


def test_ages_of_distractors_on_medqa(medqa):
    named = re.compile(r"\b\d+-(?:year|month|week|day)-old", re.IGNORECASE)
    with_age = 0
    for maze in medqa:
        own = " ".join((maze.item.background, *maze.item.evidence)).lower()
        with_age += age_group(own) != "unknown"
        for sentence, source in zip(maze.listed, maze.sources, strict=True):
            if source != "evidence":
                for each in named.findall(sentence):
                    assert each.lower() in own
    assert with_age > len(medqa) / 2
