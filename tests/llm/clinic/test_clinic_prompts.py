"""Test what a model is asked."""

import pytest

from jeff_llm.clinic.items import Item
from jeff_llm.clinic.maze import Maze, Source
from jeff_llm.clinic.prompts import next_turn, one_round, several_rounds

ITEM = Item(
    "one",
    "A boy comes.",
    ("He coughs.", "He has a fever."),
    "What is the cause?",
    "Croup",
    ("Croup", "Asthma"),
    "",
    ("symptom", "symptom"),
    frozenset(),
    "child",
    "male",
    False,
)
KINDS = ("symptom",) * 3
SOURCES: tuple[Source, ...] = ("evidence", "random", "evidence")
LISTED = ("He has a fever.", "1. He fell.", "He coughs.")
MAZE = Maze(ITEM, LISTED, (2, 0), KINDS, SOURCES, 1)

CASE = """A case begins: A boy comes.
Question: What is the cause?
Answer: Croup

Sentences, shuffled; some may be about other patients:
1. He has a fever.
2. 1. He fell.
3. He coughs.

"""


def test_one_round():
    [message] = one_round(MAZE)
    assert message["role"] == "user" and message["content"].startswith(CASE)
    assert "the numbers of the 2 sentences" in message["content"].removeprefix(CASE)


def test_one_sentence_has_no_order():
    [message] = one_round(MAZE._replace(gold=(2,)))
    assert "the number of the sentence" in message["content"]
    assert "order" not in message["content"]


def test_several_rounds_show_every_pick():
    [message] = several_rounds(MAZE)
    assert message["content"].startswith(CASE)
    assert "one sentence a turn" in message["content"]
    assert next_turn(MAZE, [2, 1]) == {
        "role": "user",
        "content": "Chosen so far:\n- He coughs.\n- 1. He fell.\n"
        "Write the number of the next sentence, and nothing else.",
    }


@pytest.mark.parametrize("ask", [one_round, several_rounds])
def test_a_case_without_a_question(ask):
    maze = MAZE._replace(item=ITEM._replace(question=""))
    [message] = ask(maze)
    assert "comes.\nAnswer: Croup\n\nSentences" in message["content"]


@pytest.mark.parametrize("ask", [one_round, several_rounds])
def test_nothing_tells_the_answer_from_the_rest(ask):
    """Gold, kinds, sources and options are not shown: the text is that of any gold."""
    other = MAZE._replace(
        gold=(0, 1), kinds=("diagnosis",) * 3, sources=("random",) * 3
    )
    assert ask(MAZE) == ask(other)
    assert "Asthma" not in ask(MAZE)[0]["content"]
