"""Test agents: reading of labels, roles, consensus, counts."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from jeff_llm import chat
from jeff_llm.genes import agents
from jeff_llm.genes.profile_texts import ProfileTexts
from jeff_llm.genes.ranking import Phenotypes
from jeff_llm.genes.solvability import LABELS, UNREADABLE


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("yes", "yes"),
        (" Maybe.", "maybe"),
        ("**No**, too common.", "no"),
        ("NO\nToo few terms.", "no"),
        ("Yes they do.", "yes"),
        ('{"answer": "Yes"}', "yes"),
        ('```json\n{"verdict": "maybe", "reason": "no pattern"}\n```', "maybe"),
        ("The answer is: no.", "no"),
        ("Several genes fit. Verdict: **maybe**", "maybe"),
        ("The pattern is specific.\nYes", "yes"),
        ("<think>yes? no?</think>maybe", "maybe"),
        ("", None),
        ("There is no single gene.", None),
        ("No single gene stands out, I think", None),
        ("Answer: yes. On reflection, answer: no.", None),
        ("I cannot help with that.", None),
        ("yesterday", None),
        ("<think>yes", None),
        ("{broken} {", None),
        ('{"a": ' + "[" * 100_000 + "}", None),
    ],
)
def test_labels(text, label):
    assert agents._parse_label(text) == label


@given(st.text(alphabet='yesmabno ANSWER:.{}"\n', max_size=40))
def test_any_text_is_read(text):
    assert agents._parse_label(text) in (*LABELS, None)


class ByRole:
    """Answers by the role in the system message, and by the patient."""

    name = "by role"

    def __init__(self):
        self.seen = []

    async def answer(self, request):
        self.seen.append(request)
        system, user = (message.content for message in request.messages)
        text = system if "term 3" in user else "hard to say"
        return chat.Answer(text, "stop", 20, 1)


def test_judging(ten, ids):
    model, texts = ByRole(), ProfileTexts(ten)
    patients = [Phenotypes((ids(3),)), Phenotypes((ids(9),))]
    roles = {"a": "Yes.", "b": "no", "c": "yes", "d": "who knows"}
    found = agents.judge(model, patients, texts, roles=roles)
    first, second = found.verdicts
    assert first.labels == {"a": "yes", "b": "no", "c": "yes", "d": None}
    assert first.consensus == "yes"
    assert second.consensus == UNREADABLE
    assert (found.unreadable, found.calls, found.tokens) == (5, 8, 8 * 21)
    assert texts.patient(patients[0]) in model.seen[0].messages[1].content
    with pytest.raises(ValueError, match="roles: expected at least one"):
        agents.judge(model, patients, texts, roles={})


def test_the_roles_differ(ten, ids):
    model = ByRole()
    agents.judge(model, [Phenotypes((ids(1),))], ProfileTexts(ten))
    systems = [request.messages[0].content for request in model.seen]
    assert systems == list(agents.ROLES.values())
    assert len(set(systems)) >= 3
