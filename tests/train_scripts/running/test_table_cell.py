"""Test that a text of a file stays in its cell."""

import pytest

from train_scripts.running.cells import table_cell


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("a | b\nc", "a / b c"),
        ("red \x1b[31m\u2028\x00 half \ud83d", "red [31m half"),
        ("x" * 100_000, "x" * 79 + "\u2026"),
        ("x" * 80, "x" * 80),
        (" \n ", ""),
    ],
)
def test_a_text_stays_in_its_cell(text, cell):
    assert table_cell(text) == cell


def test_the_length_of_a_cell():
    assert table_cell("x" * 9, most=4) == "xxx\u2026"
