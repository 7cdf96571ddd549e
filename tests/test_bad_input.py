"""Test that each error names the expected value, the actual value and the place.

The mistakes and what must be said of each are the table ``ROWS`` of the program, which
makes them all in one process, as a user would: without the shape checks of the tests.
"""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "tests" / "programs" / "bad_input.py"
ROWS = runpy.run_path(str(PROGRAM))["ROWS"]


@pytest.fixture(scope="module")
def told(tmp_path_factory, devices):
    """What the user is told of each mistake: name to type and message."""
    done = subprocess.run(
        [sys.executable, "-W", "error", PROGRAM, tmp_path_factory.mktemp("bad")],
        check=False,
        capture_output=True,
        text=True,
        env=devices(4),
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(text) for text in done.stdout.splitlines()]
    return {line["what"]: (line["type"], line["message"]) for line in lines}


def test_the_table_is_long_and_its_names_are_distinct():
    assert len(ROWS) >= 25
    assert len({row.what for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row.what for row in ROWS])
def test_mistake(row, told):
    kind, message = told[row.what]
    assert kind == row.error, message
    for part in (row.argument, row.expected, row.came):
        assert re.search(part, message), f"{part!r} is not in: {message}"
