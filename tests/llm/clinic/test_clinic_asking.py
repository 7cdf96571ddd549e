"""Test choices in free text: what a reply means, turns, failures, tokens and cost."""

import itertools
from typing import get_args

import hypothesis
import hypothesis.strategies as st
import pytest

from jeff_llm import chat
from jeff_llm.clinic.asking import choose, choose_all, estimate
from jeff_llm.clinic.items import Item
from jeff_llm.clinic.maze import Maze
from jeff_llm.clinic.replies import Reason, parse

LISTED = (
    "His blood pressure is 120/80 mm Hg.",
    "He is 3 years old.",
    "He coughs.",
    "他咳嗽两周。",
    "Studies show: Na+ 138; K+ 4.2",
)
ITEM = Item(
    "one",
    "A boy comes to the clinic.",
    (LISTED[2], LISTED[0], LISTED[4]),
    "What is the cause?",
    "Croup",
    (),
    "",
    ("symptom", "examination", "examination"),
    frozenset(),
    "child",
    "male",
    False,
)
MAZE = Maze(
    ITEM,
    LISTED,
    (2, 0, 4),
    ("examination", "background", "symptom", "symptom", "examination"),
    ("evidence", "random", "evidence", "age", "evidence"),
    2,
)


@pytest.mark.parametrize(
    "reply",
    [
        "3, 1, 5",
        "3,1,5.",
        "3 1 5",
        " **3, 1, 5** ",
        "(3; 1; 5)",
        "3 -> 1 -> 5",
        "3, 1, and 5",
        "3, then 1, then 5",
        "\uff13\uff0c\uff11\uff0c\uff15",
        "3、1、5",
        "[3, 1, 5]",
        "```json\n[\n  3,\n  1,\n  5\n]\n```",
        '{"answer": ["3", "1", "5"]}',
        "My choice: [3, 1, 5].",
        "3\n1\n5",
        "- 3\n- 1\n\n- 5",
        "3.\n1.\n5.",
        "1) 3\n2) 1\n3) 5",
        "1. 3\n2. 1\n3. 5",
        "Answer: 3, 1, 5",
        "**Final answer:** 3, 1, 5",
        "The answer: 3, 1, 5",
        "Sentences: 3, 1, 5",
        "Sentence 3\nSentence 1\nSentence 5",
        "3, 1, 5\n\nSentence 3 says that he coughs; he is 3 years old.",
        "First I thought:\n1, 2, 3\nbut the order is\n3, 1, 5",
        "<think>1, 2, 4\n[1, 2, 4]</think>\n3, 1, 5",
        "1, 2, 4</think>3, 1, 5",
        "3, 1, 5 <think>or 1, 2, 4",
        "3. He coughs.\n1. His blood pressure is 120/80 mm Hg.\n"
        "5. Studies show: Na+ 138; K+ 4.2",
        '1) 3: He coughs.\n2) 1: "His blood pressure is 120/80 mm Hg."\n3) 5 - studies'
        " show: Na+ 138; K+ 4.2.",
        "**3.** He coughs.\n**1.** His blood pressure is 120/80 mm Hg.\n"
        "**5.** Studies show: Na+ 138; K+ 4.2",
        # What repeats the sentences comes second to numbers alone.
        "3, 1, 5\n\n1. His blood pressure is 120/80 mm Hg.\n3. He coughs.",
    ],
)
def test_what_is_read(reply):
    assert parse(reply, MAZE) == [2, 0, 4]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "no number"),
        ("I cannot say.", "no number"),
        ("three, one, five", "no number"),
        # Numbers inside sentences are no picks.
        ("His blood pressure is 120/80 mm Hg.", "no number"),
        ("He is 3 years old, and 1 of 5 such boys coughs.", "no number"),
        ("120/80", "no number"),
        ("37.5", "no number"),
        ("-3", "no number"),
        ("10:30", "no number"),
        ("The cough [3] comes first.", "no number"),
        ("2. He coughs.\n1. He is 3 years old.", "no number"),
        ("2) 3\n3) 1\n4) 5", "no number"),
        ("<think>3, 1, 5", "no number"),
        ("9" * 5000, "no number"),
        ("3, 1", "too few"),
        ("3, 1, 5\n2", "too few"),
        ("3, 1, 5, 2", "too many"),
        ("3\n1\n5\n2", "too many"),
        ("3, 1, 3", "repeated"),
        ("3, 1, 3, 1, 3", "repeated"),
        ("3, 1, 6", "not listed"),
        ("0, 1, 2", "not listed"),
        ("3, 1, 120", "not listed"),
    ],
)
def test_what_fails(reply, reason):
    assert parse(reply, MAZE) == reason


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("3", [2]),
        ("3.", [2]),
        ("3)", [2]),
        ("Sentence 3.", [2]),
        ("Number: 3", [2]),
        ("3. He coughs.", [2]),
        ("3: he coughs", [2]),
        ("4. 他咳嗽两周。", [3]),
        ("1", "repeated"),
        ("3, 5", "too many"),
        ("3. He is 3 years old.", "no number"),
        ("He is 3 years old.", "no number"),
    ],
)
def test_a_turn(reply, found):
    assert parse(reply, MAZE, count=1, taken=[0]) == found


@hypothesis.given(
    st.text("0123456789,. \n[]():-*<>/think\"'abc\uff0c\uff13", max_size=60)
)
def test_any_reply_gives_places_or_a_reason(reply):
    found = parse(reply, MAZE)
    if isinstance(found, str):
        assert found in get_args(Reason)
    else:
        assert len(set(found)) == 3
        assert set(found) <= set(range(5))


@hypothesis.given(st.permutations(range(5)))
def test_every_choice_can_be_said(order):
    said = [str(place + 1) for place in order[:3]]
    for joint in (", ", " ", "\n"):
        assert parse(joint.join(said), MAZE) == order[:3]


@pytest.mark.parametrize(
    ("unit", "reason"),
    [
        ("1 ", "repeated"),
        ("1. ", "no number"),
        ("[1, ", "no number"),
        ("<think>", "no number"),
        ("1) 1\n", "too few"),
        ("1, ", "no number"),
        (":" * 9, "no number"),
    ],
)
def test_long_replies_are_read(unit, reason):
    """Nested brackets and open thoughts would take a careless reader hours."""
    assert parse(unit * 20_000, MAZE) == reason


def test_a_count_that_is_none():
    with pytest.raises(ValueError, match="count: expected at least 1, got 0"):
        parse("1", MAZE, count=0)


class Scripted:
    """Says one text after another; None is an endpoint that is down."""

    name = "scripted"

    def __init__(self, *texts, reason="stop"):
        self.texts, self.reason, self.seen = itertools.cycle(texts), reason, []

    async def answer(self, request):
        self.seen.append(request)
        text = next(self.texts)
        if text is None:
            raise chat.ChatError(self.name, 3, "it is down")
        return chat.Answer(text, self.reason, 100, 10, cost=0.5)


def test_one_round():
    model = Scripted("3, 1, 5")
    found = chat.run(choose(model, MAZE, max_tokens=7))
    assert found.picks == [2, 0, 4] and found.failure is None
    [request] = model.seen
    assert request.max_tokens == 7 and request.temperature == 0
    [message] = request.messages
    for number, sentence in enumerate(LISTED, 1):
        assert f"\n{number}. {sentence}" in message.content
    assert "3 sentences" in message.content and "Answer: Croup" in message.content


def test_several_rounds_show_all_that_was_chosen():
    model = Scripted(
        "<think>hm</think>3", "1. His blood pressure is 120/80 mm Hg.", "5"
    )
    found = chat.run(choose(model, MAZE, rounds="several"))
    assert found.picks == [2, 0, 4] and len(found.answers) == 3
    last = model.seen[2].messages
    assert [each.role for each in last] == ["user", "assistant"] * 2 + ["user"]
    assert [each.content for each in last[1::2]] == ["3", "1"]
    assert f"- {LISTED[2]}\n- {LISTED[0]}\n" in last[4].content
    assert f"- {LISTED[2]}\n" in last[2].content and LISTED[0] not in last[2].content


def test_a_failed_turn_ends_the_maze():
    model = Scripted("3", "I do not know.")
    found = chat.run(choose(model, MAZE, rounds="several"))
    assert found.picks is None and found.failure == "no number"
    assert len(model.seen) == 2, "neither asked again nor asked on"
    again = chat.run(choose(Scripted("3"), MAZE, rounds="several"))
    assert again.failure == "repeated" and len(again.answers) == 2


@pytest.mark.parametrize(
    ("reply", "picks"),
    [("3, 1, 5", None), ("3, 1, 5\nSentence 3 is", [2, 0, 4]), ("3, 1\n5", None)],
)
def test_a_reply_that_was_cut(reply, picks):
    """Its last line is not whole: the 5 may be the beginning of 53."""
    found = chat.run(choose(Scripted(reply, reason="length"), MAZE))
    assert found.picks == picks
    assert found.failure == (None if picks else "cut off")


def test_many_mazes():
    model = Scripted("3, 1, 5", "3, 1", "none", "3, 1")
    done = []
    found = chat.run(
        choose_all(
            model, [MAZE] * 4, concurrency=1, progress=lambda *each: done.append(each)
        )
    )
    assert found.picks == [[2, 0, 4], None, None, None]
    assert found.failures == {"too few": 2, "no number": 1}
    assert found.tokens == 440 and found.cost == 2.0
    assert done[-1] == (4, 4)
    nothing = chat.run(choose_all(model, []))
    assert nothing.picks == [] and not nothing.failures and nothing.tokens == 0


def test_an_error_keeps_what_was_answered(tmp_path):
    model = Scripted("3, 1, 5", None)
    others = MAZE._replace(item=ITEM._replace(background="Another boy."))
    cached = chat.Cached(model, tmp_path / "answers.db")
    wanted = "scripted: expected an answer in each of 2 maz"
    with pytest.raises(OSError, match=wanted) as caught:
        chat.run(choose_all(cached, [MAZE, others], concurrency=1))
    assert caught.value.__cause__.results[0].picks == [2, 0, 4]
    again = chat.Cached(Scripted("3, 1"), tmp_path / "answers.db")
    found = chat.run(choose_all(again, [MAZE, others], concurrency=1))
    assert found.picks == [[2, 0, 4], None] and found.cost == 0.5


def test_a_fault_of_the_program_is_no_error_of_the_endpoint():
    class Wrong(Scripted):
        async def answer(self, request):
            raise TypeError("a fault")

    with pytest.raises(ExceptionGroup):
        chat.run(choose_all(Wrong("3"), [MAZE]))


@pytest.mark.parametrize("rounds", ["one", "several"])
def test_the_estimate_is_from_above(rounds):
    class Counting(Scripted):
        """As many tokens as a tokenizer with a token for every three characters."""

        async def answer(self, request):
            answer = await super().answer(request)
            read = sum(len(each.content) // 3 + 5 for each in request.messages)
            return chat.Answer(answer.text, "stop", read, 20)

    texts = ["3, 1, 5"] if rounds == "one" else ["3", "1", "5"]
    model = Counting(*texts)
    found = chat.run(choose_all(model, [MAZE] * 2, rounds=rounds, concurrency=1))
    price = chat.Price(1.0, 10.0)
    most = estimate([MAZE] * 2, rounds, price, max_tokens=20)
    assert most.calls == len(model.seen) == (2 if rounds == "one" else 6)
    assert found.tokens < most.tokens < 2.5 * found.tokens
    written = most.calls * 20
    assert most.cost == pytest.approx(
        (most.tokens - written) / 1e6 + written * 10 / 1e6
    )
    assert estimate([MAZE], rounds).cost == 0


def test_what_is_refused():
    model = Scripted("3")
    for call in (
        lambda: chat.run(choose(model, MAZE, rounds="two")),
        lambda: chat.run(choose_all(model, [MAZE], rounds="two")),
        lambda: estimate([MAZE], "two"),
    ):
        with pytest.raises(ValueError, match="rounds: expected one of"):
            call()
    with pytest.raises(ValueError, match="max_tokens: expected at least 1"):
        chat.run(choose_all(model, [MAZE], max_tokens=0))
    with pytest.raises(ValueError, match="concurrency: expected at least 1"):
        chat.run(choose_all(model, [MAZE], concurrency=0))
    assert not model.seen
