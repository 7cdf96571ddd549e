"""The small reasoning task: questions, worked solutions, and how answers are read."""

import re

import numpy as np
import pytest

from jeff_llm.reasoning import arithmetic

OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}


def calculate(prompt: str) -> int:
    """The answer, calculated apart from the module."""
    value = int(prompt[1])
    for sign, digit in re.findall(r"[a-h]([-+*])(\d)", prompt):
        value = OPERATIONS[sign](value, int(digit)) % 10
    return value


def test_answers_are_right() -> None:
    questions = arithmetic.draw(200, seed=0, operations=(1, 8))
    texts = [arithmetic.decode(row) for row in questions.prompts]
    assert all(re.fullmatch(r"\^\d([a-h][-+*]\d)+\?<", text) for text in texts)
    assert questions.answer.tolist() == [calculate(text) for text in texts]
    assert {len(re.findall("[a-h]", text)) for text in texts} == set(range(1, 9))


def test_another_seed_is_another_draw() -> None:
    one, same, other = (arithmetic.draw(20, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.tokens, same.tokens)
    assert not np.array_equal(one.tokens, other.tokens)


def test_a_solution_without_slips_is_the_minimal_one() -> None:
    questions = arithmetic.draw(50, seed=3)
    plain = arithmetic.worked(
        questions,
        seed=0,
        error_rate=0,
        check_rate=0,
        budget_share=0,
        interrupted_share=0,
    )
    for row, answer, example in zip(
        questions.prompts, questions.answer, plain, strict=True
    ):
        text = arithmetic.decode(example.tokens)
        prompt = arithmetic.decode(row)
        assert text.startswith(prompt) and text.endswith(f"={answer}>{answer}$")
        operations = len(re.findall("[a-h]", prompt))
        assert len(text) == len(prompt) + 6 * operations + 3
        # The prompt is not learned, all that follows is.
        assert example.learned == [0.0] * len(row) + [1.0] * (len(text) - len(row))


def test_rates_of_slips_and_checks() -> None:
    questions = arithmetic.draw(1500, seed=4)
    examples = arithmetic.worked(questions, seed=1, budget_share=0, interrupted_share=0)
    text = "".join(arithmetic.decode(each.tokens).split("<")[1] for each in examples)
    first = re.findall(r"[a-h](\d)([-+*])(\d)=(\d)", text)
    checks = re.findall(r"W(\d)([-+*])(\d)=(\d)", text)
    for found, rate in ((first, 0.08), (checks, 0.03)):
        wrong = [OPERATIONS[s](int(x), int(y)) % 10 != int(z) for x, s, y, z in found]
        assert abs(np.mean(wrong) - rate) < 4 * (rate / len(wrong)) ** 0.5
    # At most three checks, each with probability 0.7.
    expected = 0.7 + 0.7**2 + 0.7**3
    assert len(checks) / len(first) == pytest.approx(expected, abs=0.06)


def test_a_budget_states_the_length() -> None:
    questions = arithmetic.draw(100, seed=5)
    for example in arithmetic.worked(questions, seed=2, budget_share=1):
        text = arithmetic.decode(example.tokens)
        if text[1].isdigit():  # an interrupted one
            continue
        thought = text.split("<")[1].split(">")[0]
        assert text[1] == arithmetic.budget_letter(len(thought))
    assert [arithmetic.budget_letter(n) for n in (0, 8, 9, 16, 10**6)] == list("AABBT")
    stated = arithmetic.with_budget(questions, 20)
    assert stated.tokens.shape == questions.tokens.shape
    assert arithmetic.decode(stated.prompts[0])[1] == "C"


def test_an_interrupted_thought_is_not_learned() -> None:
    questions = arithmetic.draw(60, seed=6)
    cuts = arithmetic.worked(questions, seed=3, interrupted_share=1)
    for answer, example in zip(questions.answer, cuts, strict=True):
        text = arithmetic.decode(example.tokens)
        assert text.endswith(f">{answer}$")
        assert sum(example.learned) == 2
    assert any("<>" in arithmetic.decode(each.tokens) for each in cuts)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("a3+4=7>7$", 7),
        (">7$", 7),
        ("a3+4=7>$", -1),
        ("a3+4=7$", -1),  # a digit of the thought is no answer
        ("a3+4=7>77$", -1),
        ("$", -1),
        ("7$", -1),
    ],
)
def test_reading(text: str, answer: int) -> None:
    tokens = np.zeros((1, 16), np.int32)
    tokens[0, : len(text)] = arithmetic.encode(text)
    length = np.array([len(text)])
    for right in (7, 3):
        found = arithmetic.read(tokens, length, np.array([True]), np.array([right]))
        assert found.answer.tolist() == [answer]
        assert found.correct.tolist() == [answer == right]
    # Cut before its end: no answer, whatever stands there.
    cut = arithmetic.read(tokens, length, np.array([False]), np.array([7]))
    assert cut.answer.tolist() == [-1] and not cut.correct[0]


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="operations: expected"):
        arithmetic.draw(3, seed=0, operations=(4, 9))
    with pytest.raises(ValueError, match=r"text: expected characters.*\['x'\]"):
        arithmetic.encode("3x")
