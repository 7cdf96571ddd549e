"""Test sentences, kinds and items: odd vignettes, pronouns, ages, refusals."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jeff_llm.clinic.items import Question, make_item, make_items
from jeff_llm.clinic.kinds import (
    KINDS,
    age_group,
    ages,
    kind,
    match_pronouns,
    organs,
    sex,
)

pytest.importorskip("sentencex")

from jeff_llm.clinic.sentences import plain_text, split_sentences

CASE = (
    "A 45-year-old woman comes to the physician. She has had a cough for 3 days. "
    "Her temperature is 38.5 C (101.3 F). Chest x-ray shows an opacity. "
    "Which of the following is the most likely diagnosis?"
)


def test_a_vignette_becomes_an_item():
    item = make_item(Question("one", CASE, " Pneumonia ", "", ("Pneumonia", "Flu")))
    assert item.background == "A 45-year-old woman comes to the physician."
    assert item.evidence == (
        "She has had a cough for 3 days.",
        "Her temperature is 38.5 C (101.3 F).",
        "Chest x-ray shows an opacity.",
    )
    assert item.question.startswith("Which of") and item.answer == "Pneumonia"
    assert item.kinds == ("symptom", "examination", "examination")
    assert (item.age_group, item.sex) == ("adult", "female")
    assert "lungs" in item.organs and not item.simulated


def test_without_a_question_all_is_evidence():
    item = make_item(Question("one", CASE.rsplit(". ", 1)[0] + ".", "Pneumonia"))
    assert item.question == "" and len(item.evidence) == 3


def test_a_question_given_twice_is_no_evidence():
    last = CASE.rsplit(". ", 1)[1]
    twice = make_item(Question("one", CASE, "Pneumonia", last))
    assert twice == make_item(Question("one", CASE, "Pneumonia"))
    # A vignette that only resembles its question keeps all.
    other = make_item(Question("one", CASE, "Pneumonia", "What now?"))
    assert other.evidence[-1] == last and other.question == "What now?"


@pytest.mark.parametrize(
    ("question", "match"),
    [
        (Question("q", "A man has a cough.", "Flu"), "at least one sentence .* got 1"),
        (Question("q", "He is ill. What is it?", "Flu"), "got 1 sentences"),
        (Question("q", "", "Flu"), "got 0 sentences"),
        (Question("q", "  \n ", "Flu", "Why?"), "got 0 sentences"),
        (Question("q", CASE, " "), "expected an answer, got none"),
        (Question("q", CASE, "Flu", "", ("A", "B")), "among the options once"),
        (Question("q", CASE, "Flu", "", ("Flu", "Flu")), "among the options once"),
        (Question("q", "He is ill. He is ill. He is ill.", "Flu"), "one repeated"),
    ],
)
def test_refused_questions_become_rejects(question, match):
    with pytest.raises(ValueError, match=f"q: .*{match}"):
        make_item(question)
    found = make_items([question, Question("right", CASE, "Flu")])
    assert [item.id for item in found.items] == ["right"]
    (reject,) = found.rejects
    assert reject.id == "q" and re.search(match, reject.reason)
    assert not reject.reason.startswith("q:")


def test_forty_sentences():
    text = " ".join(f"Finding number {n} is here." for n in range(42))
    item = make_item(Question("long", text + " What is it?", "x"))
    assert len(item.evidence) == len(item.kinds) == 41
    assert item.evidence[-1] == "Finding number 41 is here."


def test_a_repeated_sentence_is_evidence_once():
    item = make_item(Question("q", "A man is ill. He rests. He eats. He rests.", "Flu"))
    assert item.evidence == ("He rests.", "He eats.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>A man.</p><p>He <b>is</b> ill.</p>", ["A man.", "He is ill."]),
        ("A man.<br/>He is ill.", ["A man.", "He is ill."]),
        ("<ul><li>He is ill.</li><li>He rests.</li></ul>", ["He is ill.", "He rests."]),
        (
            "pH is &lt; 7.35 &amp; falls. He is ill.",
            ["pH is < 7.35 & falls.", "He is ill."],
        ),
        (
            "pH is < 7.35 and > 7.1. He is ill.",
            ["pH is < 7.35 and > 7.1.", "He is ill."],
        ),
        ("<script>var a = 1.5;</script>He is ill.", ["He is ill."]),
        ("<style>p {}</style><!-- a.\nb -->He is ill.", ["He is ill."]),
    ],
)
def test_markup(text, expected):
    assert split_sentences(text) == expected


def test_a_table_stays_with_the_line_that_announces_it():
    text = (
        "A man is ill. Laboratory studies show:\nHemoglobin 12 g/dL\nSerum\nNa+ 138\n"
        "Protein: negative.\nHe is afebrile.\nWhich of these is next?"
    )
    assert split_sentences(text) == [
        "A man is ill.",
        "Laboratory studies show: Hemoglobin 12 g/dL; Serum; Na+ 138; "
        "Protein: negative.",
        "He is afebrile.",
        "Which of these is next?",
    ]


def test_a_number_stays_with_its_sentence():
    text = "A man comes. 1. He coughs. 2) He fell. (3) He is ill. His age is 4. Why?"
    assert split_sentences(text) == [
        "A man comes.",
        "1. He coughs.",
        "2) He fell.",
        "(3) He is ill.",
        "His age is 4.",
        "Why?",
    ]


@pytest.mark.parametrize(
    "first",
    ["He appears ill.", "Na+ is 14 mEq/L.", "The rate is 17/min.", "It is 6 mm."],
)
def test_units_end_sentences(first):
    assert split_sentences(f"{first} Biopsy is next.") == [first, "Biopsy is next."]


@pytest.mark.parametrize(
    ("text", "language", "number"),
    [
        ("Un hombre tiene tos. Fuma mucho. ¿Cuál es el diagnóstico?", "es", 3),
        ("患者は咳がある。熱もある。診断は何か\uff1f", "ja", 3),
        ("मरीज को खांसी है। उसे बुखार है। निदान क्या है?", "hi", 3),
        ("رجل يعاني من السعال. لديه حمى. ما هو التشخيص؟", "ar", 3),
        ("Больной кашляет. Температура повышена. Каков диагноз?", "ru", 3),
    ],
)
def test_other_scripts(text, language, number):
    sentences = split_sentences(text, language=language)
    assert len(sentences) == number
    item = make_item(Question("q", text, "x"), language=language)
    assert (item.background, *item.evidence, item.question) == tuple(sentences)
    assert item.age_group == "unknown" and item.sex == "unknown"


@given(st.text(max_size=200))
def test_any_text_is_split_without_losing_letters(text):
    sentences = split_sentences(text)
    assert all(each == each.strip() and each for each in sentences)

    def letters(some):
        return re.sub(r"[^\w]", "", some)

    assert letters("".join(sentences)) == letters(plain_text(text))


@pytest.mark.parametrize(
    ("her", "his"),
    [
        ("She says her head hurts.", "He says his head hurts."),
        ("The pain keeps her awake.", "The pain keeps him awake."),
        ("It hurts her in the night.", "It hurts him in the night."),
        ("Her in-laws are well.", "His in-laws are well."),
        ("Her 2 children are well.", "His 2 children are well."),
        ("HER PAIN IS SEVERE.", "HIS PAIN IS SEVERE."),
        ("The woman hurt herself.", "The man hurt himself."),
        ("The pill is hers.", "The pill is his."),
        ("Mrs. Lee saw this girl.", "Mr. Lee saw this boy."),
        ("MR imaging of the mitral valve.", "MR imaging of the mitral valve."),
    ],
)
def test_pronouns_both_ways(her, his):
    assert match_pronouns(her, "male") == his
    assert match_pronouns(his, "female") == her
    assert match_pronouns(his, "male") == his
    assert match_pronouns(her, "female") == match_pronouns(her, "unknown") == her


def test_object_pronoun_before_a_dose():
    assert match_pronouns("We gave her 5 mg.", "male") == "We gave him 5 mg."


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("A 23-month-old", "infant"),
        ("A 24-month-old", "child"),
        ("A 3 day old", "infant"),
        ("A 17-year-old", "child"),
        ("An 18-year-old", "adult"),
        ("A 64 years old man", "adult"),
        ("A 65-year-old", "elder"),
        ("A 70 yo man", "elder"),
        ("A 70 y/o man", "elder"),
        ("A newborn", "infant"),
        ("A boy", "child"),
        ("A woman", "adult"),
        ("The patient", "unknown"),
    ],
)
def test_age_groups(text, group):
    assert age_group(text) == group


def test_ages_are_the_same_however_written():
    assert (
        ages("A 45-year-old") == ages("45 years old") == ages("45 y/o") == {"45 year"}
    )
    assert ages("He is tired.") == frozenset()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A woman and her husband", "female"),
        ("A man and his wife; she is well", "male"),
        ("MR imaging shows", "unknown"),
        ("Mr. Lee", "male"),
        ("Mrs. Lee", "female"),
        ("Ms. Lee has MS.", "female"),
        ("MS is suspected", "unknown"),
        ("The patient", "unknown"),
        ("A mother brings her 3-year-old son to the clinic. He has a fever.", "male"),
        ("A father brings in his 6-week-old baby girl. She vomits.", "female"),
        ("A woman brings her son's toys. She coughs.", "female"),
        ("A woman has a 3-year-old son. She coughs.", "female"),
    ],
)
def test_sex(text, found):
    assert sex(text) == found


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("CT confirms the diagnosis of cancer.", "diagnosis"),
        ("Physical examination shows a rash.", "examination"),
        ("His mother has diabetes.", "background"),
        ("He takes ibuprofen.", "treatment"),
        ("He is dizzy.", "symptom"),
    ],
)
def test_kinds(text, name):
    assert kind(text) == name
    assert name in KINDS


def test_organs():
    assert organs("He has a cough and a rash.") == {"lungs", "skin"}
    assert organs("He is tall.") == frozenset()


def test_a_title_changes_and_a_disease_does_not():
    told = match_pronouns("Ms. Lee has MS and saw Mrs. Fox.", "male")
    assert told == "Mr. Lee has MS and saw Mr. Fox."
