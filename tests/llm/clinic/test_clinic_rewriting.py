"""Test rewritten dialogues: what passes, what is sent back, what is counted."""

import json

import pytest

from jeff_llm import chat
from jeff_llm.clinic.dialogue import missing_facts, to_dialogue
from jeff_llm.clinic.items import Item, Reject
from jeff_llm.clinic.rewriting import faults, rewrite, rewrite_all

ITEM = Item(
    "one",
    "A 40-year-old man comes to the clinic.",
    ("He has coughed for 2 weeks.", "His temperature is 38.5 C."),
    "What is the cause?",
    "Pneumonia",
    ("Asthma", "Pneumonia 9"),
    "basic",
    ("symptom", "examination"),
    frozenset(),
    "adult",
    "male",
    False,
)
GOOD = (
    "Hello, doctor. A 40-year-old man comes to the clinic.",
    "Welcome! And what brings him?",
    "Well: He has coughed for 2 weeks. It is a nuisance.",
    "Two weeks is long. What about fever?",
    "His temperature is 38.5 C. What is the cause?",
    "All of this fits one thing: Pneumonia.",
)


class Scripted:
    """Says one text after another, and remembers the requests."""

    name = "scripted"

    def __init__(self, *texts):
        self.texts, self.seen = list(texts), []

    async def answer(self, request):
        self.seen.append(request)
        text = self.texts.pop(0)
        if text is None:
            raise chat.ChatError(self.name, 3, "it is down")
        return chat.Answer(text, "stop", 10, 10)


def turns(*texts):
    speakers = ("patient", "doctor")
    listed = [
        {"speaker": speakers[place % 2], "text": text}
        for place, text in enumerate(texts)
    ]
    return json.dumps({"turns": listed})


def messages(*texts):
    roles = ("user", "assistant")
    return [
        {"role": roles[place % 2], "content": text} for place, text in enumerate(texts)
    ]


def changed(place, old, new):
    texts = list(GOOD)
    assert old in texts[place]
    texts[place] = texts[place].replace(old, new)
    return texts


def test_a_good_rewriting_passes():
    model = Scripted(turns(*GOOD))
    found = chat.run(rewrite(model, ITEM))
    assert found == (messages(*GOOD), 1, "")
    assert missing_facts(ITEM, found.messages) == []
    [request] = model.seen
    prompt = request.messages[0].content
    for sentence in (ITEM.background, *ITEM.evidence, ITEM.question):
        assert f"\n- {sentence}\n" in prompt
    assert "patient: His temperature is 38.5 C." in prompt
    assert "Asthma" not in prompt, "wrong options are no facts"
    assert json.loads(request.schema)["required"] == ["turns"]


def test_the_dialogue_by_rules_passes():
    assert faults(ITEM, to_dialogue(ITEM).messages) == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "the turns must alternate"),
        (GOOD[:-1], "the turns must alternate"),
        (GOOD[:-1], "the last turn must state the answer word for word: Pneumonia"),
        (changed(5, "Pneumonia", "Asthma"), "the last turn must state the answer"),
        (
            changed(2, "has coughed", "coughs"),
            "the patient must say word for word: He has coughed for 2 weeks.",
        ),
        (changed(0, "A 40", "My 40"), "word for word: A 40-year-old man"),
        (changed(4, "What is the cause?", ""), "word for word: What is the cause?"),
        (changed(3, "Two", "Three"), "these numbers are not the patient's: 3"),
        (changed(3, "long", "long; 39"), "these numbers are not the patient's: 39"),
        (changed(3, "long", "long, 9"), "these numbers are not the patient's: 9"),
        (
            (GOOD[0], GOOD[1], GOOD[4], GOOD[3], GOOD[2], GOOD[5]),
            "in the order of the list",
        ),
    ],
)
def test_what_is_sent_back(texts, message):
    found = faults(ITEM, messages(*texts))
    assert [each for each in found if message in each]


def test_the_doctor_does_not_speak_for_the_patient():
    """A fact in a turn of the doctor alone is not what the patient said."""
    texts = list(GOOD)
    texts[2], texts[3] = "Well.", GOOD[2]
    assert faults(ITEM, messages(*texts)) == [
        "the patient must say word for word: He has coughed for 2 weeks."
    ]


def test_numbers_are_compared_as_numbers():
    item = ITEM._replace(evidence=("Platelets are 2,500.", "For two days."))
    texts = list(GOOD)
    texts[2] = "Platelets are 2,500. For two days."
    texts[4] = "What is the cause?"
    texts[3] = "So 2500, for 2 days."
    assert faults(item, messages(*texts)) == []


def test_a_retry_is_told_what_is_missing():
    bad = turns(*changed(2, "has coughed", "coughs"))
    model = Scripted(bad, turns(*GOOD))
    found = chat.run(rewrite(model, ITEM))
    assert found == (messages(*GOOD), 2, "")
    _, said, wanted = model.seen[1].messages
    assert said.content == bad
    assert "He has coughed for 2 weeks." in wanted.content
    assert "38.5" not in wanted.content, "only what is wrong is told"


def test_what_stays_wrong_is_rejected():
    bad = turns(*changed(2, "has coughed", "coughs"))
    model = Scripted(bad, bad, bad)
    found = chat.run(rewrite(model, ITEM, attempts=3))
    assert found.messages is None
    assert found.attempts == 3 == len(model.seen)
    assert "He has coughed for 2 weeks." in found.reason
    with pytest.raises(ValueError, match="attempts: expected at least 1, got 0"):
        chat.run(rewrite(model, ITEM, attempts=0))


def test_an_answer_without_json():
    model = Scripted("Sorry.", "No.", "Hm.", turns(*GOOD))
    found = chat.run(rewrite(model, ITEM, attempts=2))
    assert found == (messages(*GOOD), 2, ""), "repaired by ask_json in each attempt"
    assert len(model.seen) == 4
    found = chat.run(rewrite(Scripted("Sorry.", "No."), ITEM, attempts=1))
    assert found.messages is None
    assert "expected JSON, found none" in found.reason


def test_many_are_counted():
    items = [ITEM._replace(id=name) for name in ("a", "b", "c", "d")]
    bad = turns(*GOOD[:4])
    model = Scripted(turns(*GOOD), bad, bad, None, bad, turns(*GOOD))
    seen = []
    found = chat.run(
        rewrite_all(model, items, concurrency=1, progress=lambda *n: seen.append(n))
    )
    assert [each.id for each in found.dialogues] == ["a", "d"]
    assert [each.messages for each in found.dialogues] == [messages(*GOOD)] * 2
    assert [each.id for each in found.rejects] == ["b", "c"]
    failure = str(chat.ChatError("scripted", 3, "it is down"))
    assert found.rejects[1] == Reject("c", f"the request failed: {failure}")
    assert found.attempts == 1 + 2 + 1 + 2
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
