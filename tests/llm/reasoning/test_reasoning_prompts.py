"""Test the prompts, the search for a budget, and how answers are read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jeff_llm.reasoning import prompts
from jeff_llm.reasoning.prompts import parse_answer, parse_budget, search_budget

QUESTION = "Tom has 3 apples and buys 4. How many has he?"
BUILDERS = {
    "step_by_step": prompts.step_by_step,
    "concise": prompts.concise,
    "chain_of_draft": prompts.chain_of_draft,
    "tale_estimate": prompts.tale_estimate,
    "tale_budget": lambda question: prompts.tale_budget(question, 40),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_prompts_hold_the_question(name):
    text = BUILDERS[name](QUESTION)
    assert text.count(QUESTION) == 1
    others = [build(QUESTION) for other, build in BUILDERS.items() if other != name]
    assert text not in others
    # What is asked for in the answer can be read from it.
    assert ("The answer is X." in text) == (name != "tale_estimate")


def test_numbers_are_stated():
    assert "less than 40 tokens" in prompts.tale_budget(QUESTION, 40)
    assert "at most 3 words" in prompts.chain_of_draft(QUESTION, words=3)
    for build in (
        lambda: prompts.tale_budget(QUESTION, 0),
        lambda: prompts.chain_of_draft(QUESTION, words=0),
    ):
        with pytest.raises(ValueError, match="expected at least 1, got 0"):
            build()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 42.", "42"),
        ("3 + 4 = 7\n#### 7", "7"),
        (r"so \boxed{\frac{1}{2}} holds, 9", r"\frac{1}{2}"),
        (r"\boxed{ 12\text{ eggs} }", "12"),
        (r"\boxed{$1,200}", "1200"),
        ("The answer is 6 dollars, 2 less.", "6"),
        ("The answer is 3 + 4 = 7.", "7"),
        (r"\boxed{12} and then \boxed{1,300}", "1300"),
        (r"\boxed{X^{2} + 1}", "x^{2}+1"),
        ("The answer is 5. Wait: the answer is 6 dollars.", "6"),
        ("It costs $1,234.50 in all", "1234.5"),
        ("Answer: -3", "-3"),
        ("The answer is -$3.", "-3"),
        ("The answer is \N{MINUS SIGN}3, or \N{MINUS SIGN}\\$3.", "-3"),
        (r"\boxed{-\$1,200}", "-1200"),
        (r"\boxed{\$18}", "18"),
        ("The answer is .5 litres.", "0.5"),
        ("Answer: -.25", "-0.25"),
        ("See no.5 again", "5"),
        ("The answer is 1/3 of it.", "1/3"),
        (r"The answer is $-\frac{2}{3}$.", "-2/3"),
        ("The answer is Paris!", "paris"),
        ("The answer is **C++**.", "c++"),
        ("Answer: `-x`", "-x"),
        ("The answer is $y$.", "y"),
        ("We take 10 and give 4, so 6 remain.", "6"),
        ("no idea", None),
        ("", None),
        (r"\boxed{7", "7"),
        ("The answer is", None),
        ("The answer is \n12", "12"),
    ],
)
def test_answers_by_hand(text, answer):
    assert parse_answer(text) == answer


@given(st.integers(-(10**9), 10**9))
def test_a_number_is_read_however_it_is_written(number):
    for form in (f"{number}", f"{number:,}", f"{number}.00"):
        assert parse_answer(f"Thus the answer is {form}.") == str(number)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("[[120]]", 120),
        ("Between 50 and 90, so [[ 70 ]].", 70),
        ("about 1,200 tokens", 1200),
        ("12.5", 12),
        ("none", None),
        ("[[0]]", None),
        ("-5", None),
        ("[[9999999]]", None),
    ],
)
def test_budgets_by_hand(text, budget):
    assert parse_budget(text) == budget


def test_the_search_ends_where_the_answer_breaks():
    found = search_budget(lambda budget: (budget >= 30, budget), start=128)
    assert found == (32, 32, (128, 64, 32, 16))


def test_the_search_ends_where_the_cost_rises():
    """Too small a budget is ignored, and the answer grows again."""
    costs = {128: 100, 64: 70, 32: 45, 16: 90}
    found = search_budget(lambda budget: (True, costs[budget]), start=128)
    assert found == (32, 45, (128, 64, 32, 16))


def test_the_search_without_a_right_answer():
    assert search_budget(lambda _: (False, 80), start=64) == (None, 80, (64,))


def test_the_search_ends_at_the_least_budget():
    found = search_budget(lambda budget: (True, budget), start=20, least=5)
    assert found == (5, 5, (20, 10, 5))
    with pytest.raises(ValueError, match="start: expected at least 9"):
        search_budget(lambda _: (True, 1), start=8, least=9)


def test_hard_questions_get_the_long_prompt():
    found = prompts.route(np.array([0.2, 0.5, 0.9, np.nan]), 0.5)
    assert found.tolist() == [True, False, False, True]
