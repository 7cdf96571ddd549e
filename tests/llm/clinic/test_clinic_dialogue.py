"""Test the forms of an item: every fact is kept, none is added, and both are seen."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jeff_llm.clinic import dialogue
from jeff_llm.clinic.items import Item
from jeff_llm.clinic.kinds import KINDS

FORMS = (dialogue.to_dialogue, dialogue.to_monologue, dialogue.to_multiple_choice)


def make(
    evidence=("He coughs.", "Chest x-ray shows an opacity."),
    kinds=("symptom", "examination"),
    question="What is the cause?",
    answer="Pneumonia",
    options=("Asthma", "Pneumonia"),
    background="A 40-year-old man comes to the clinic.",
):
    return Item(
        "one",
        background,
        tuple(evidence),
        question,
        answer,
        tuple(options),
        "basic",
        tuple(kinds),
        frozenset(),
        "adult",
        "male",
        False,
    )


def texts(made):
    return [message["content"] for message in made.messages]


def test_dialogue_by_hand():
    made = dialogue.to_dialogue(make())
    assert made.id == "one"
    assert texts(made) == [
        "A 40-year-old man comes to the clinic.",
        "Thank you. What has been noticed?",
        "He coughs.",
        "I note: He coughs. This is a symptom or an observation. "
        "What do examination and tests show?",
        "Chest x-ray shows an opacity.",
        "I keep in mind: Chest x-ray shows an opacity. This is a finding. "
        "That is all the evidence. What is your question?",
        "What is the cause?",
        "My answer: Pneumonia",
    ]
    roles = [message["role"] for message in made.messages]
    assert roles == ["user", "assistant"] * 4


def test_controls_by_hand():
    assert texts(dialogue.to_multiple_choice(make())) == [
        "A 40-year-old man comes to the clinic. He coughs. Chest x-ray shows an "
        "opacity.\nWhat is the cause?\nA. Asthma\nB. Pneumonia",
        "B. Pneumonia",
    ]
    assert texts(dialogue.to_monologue(make())) == [
        "A 40-year-old man comes to the clinic. He coughs. Chest x-ray shows an "
        "opacity. What is the cause?",
        "He coughs. Chest x-ray shows an opacity. My answer: Pneumonia",
    ]


@pytest.mark.parametrize("form", FORMS)
def test_without_a_question_the_user_still_asks(form):
    made = form(make(question=""))
    dialogue.check(make(question=""), made.messages)
    last = texts(made)[-2].splitlines()
    assert any(line.endswith("?") for line in last)


def test_the_same_question_is_not_asked_twice_in_a_row():
    evidence = [f"He coughs for the {n}th time." for n in range(40)]
    for kind in KINDS:
        made = dialogue.to_dialogue(make(evidence, [kind] * 40))
        asked = [text.rpartition(". ")[2] for text in texts(made)[1:-3:2]]
        assert len(asked) == 40
        assert all(a != b for a, b in itertools.pairwise(asked))
        dialogue.check(make(evidence, [kind] * 40), made.messages)


SENTENCES = st.text(min_size=1).filter(str.strip)


@st.composite
def items(draw):
    evidence = draw(st.lists(SENTENCES, min_size=1, max_size=6))
    kinds = [draw(st.sampled_from(KINDS)) for _ in evidence]
    answer = draw(SENTENCES)
    options = [*draw(st.lists(SENTENCES, max_size=4)), answer]
    question = draw(SENTENCES | st.just(""))
    return make(evidence, kinds, question, answer, options, draw(SENTENCES))


@given(items())
def test_every_fact_is_kept_and_none_is_added(item):
    """Of any text, also where one sentence holds another or a fixed phrase."""
    for form in FORMS:
        made = form(item)
        assert dialogue.missing_facts(item, made.messages) == []
        assert dialogue.added_text(item, made.messages) == []
        dialogue.check(item, made.messages)
        assert [m["role"] for m in made.messages[-2:]] == ["user", "assistant"]
        assert item.answer in made.messages[-1]["content"]
        assert json.loads(json.dumps(made.messages)) == made.messages


@given(items(), st.data())
def test_what_is_taken_out_or_put_in_is_told(item, data):
    made = dialogue.to_dialogue(item)
    place = data.draw(st.integers(0, len(made.messages) - 1))
    messages = [dict(message) for message in made.messages]
    messages[place]["content"] += " He drinks 1234567 beers."
    told = " ".join(dialogue.added_text(item, messages))
    assert "1234567" in told
    with pytest.raises(ValueError, match="1234567"):
        dialogue.check(item, messages)


def test_a_missing_sentence_is_named():
    item = make()
    made = dialogue.to_dialogue(item)
    messages = [m for m in made.messages if "He coughs." not in m["content"]]
    assert dialogue.missing_facts(item, messages) == ["He coughs."]
    changed = [
        {**m, "content": m["content"].replace("opacity", "shadow")}
        for m in made.messages
    ]
    assert dialogue.missing_facts(item, changed) == ["Chest x-ray shows an opacity."]
    assert dialogue.added_text(item, changed) == ["Chest x-ray shows an shadow."] * 2
    with pytest.raises(ValueError, match=r"one: .*1 sentences missing: \['Chest x-ray"):
        dialogue.check(item, changed)


def test_a_fact_inside_a_word_does_not_stand():
    item = make(answer="iron", options=())
    messages = [{"role": "user", "content": "The environment."}]
    assert "iron" in dialogue.missing_facts(item, messages)


def test_multiple_choice_without_options():
    with pytest.raises(ValueError, match=r"one: expected 1 to 26 options .* got 0"):
        dialogue.to_multiple_choice(make(options=()))
    with pytest.raises(ValueError, match="got 27"):
        dialogue.to_multiple_choice(make(options=[f"option {n}" for n in range(27)]))
    with pytest.raises(ValueError, match="the answer among the options"):
        dialogue.to_multiple_choice(make(options=("Asthma",)))


def test_written_lines(tmp_path):
    """One line for each, also with a line separator inside a text."""
    items = [make(), make(answer="a\u2028b", options=())]
    made = [dialogue.to_dialogue(item) for item in items]
    path = dialogue.write_jsonl(tmp_path / "folder" / "d.jsonl", made)
    lines = path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": "one", "messages": each.messages} for each in made
    ]
    assert [each.name for each in path.parent.iterdir()] == ["d.jsonl"]
