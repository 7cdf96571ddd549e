"""Test the report's reasons: what is refused, and that texts are only texts."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from train_scripts import report
from train_scripts.report import reasons
from train_scripts.running import results
from train_scripts.running.results import Result

HOSTILE = "</td><img src=x onerror=alert(1)><script>alert(1)</script>\"'&{{ 7*7 }}"


def line(term: str, adds: float, information: float | None = 2.5) -> dict[str, Any]:
    return {
        "term": term,
        "met": term,
        "common": "",
        "information": information,
        "contribution": adds,
    }


def document(text: str = "Text") -> dict[str, Any]:
    """Two genes of one case; every text is ``text``."""
    first = {
        "rank": 1,
        "name": text,
        "because": text,
        "score": -0.75,
        "notes": [text],
        "lines": [line(text, 1.25), line(text, -2.0, None)],
    }
    second = first | {"rank": 3, "score": 0.5, "lines": [line(text, 0.5)], "notes": []}
    case = {"name": text, "summary": text, "items": [first, second]}
    return {"title": text, "note": text, "unit": text, "cases": [case]}


def write(folder: Path, value: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / reasons.FILE_NAME
    path.write_text(json.dumps(value))
    return path


def test_a_valid_file_comes_back(tmp_path: Path) -> None:
    assert reasons.read(write(tmp_path, document())) == document()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("items", 0, "score"), -0.5, r"add up to the score -0.50 of Text, got -0.75"),
        (("items", 0, "lines", 0, "contribution"), 1.5, "-0.75 of Text, got -0.50"),
        (("items", 0, "lines"), [], "got 0.00"),
        (("items", 1, "rank"), 0, "items.1..rank"),
        (("items", 1, "name"), " ", "expected a text that is not empty"),
        (("items",), [], "items: expected"),
        (("more",), 1, "unknown field"),
        (("items", 1, "score"), "0.5", "score: expected a valid number"),
    ],
)
def test_a_wrong_file_is_refused(
    tmp_path: Path, place: tuple[Any, ...], value: Any, message: str
) -> None:
    changed = copy.deepcopy(document())
    inner: Any = changed["cases"][0]
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    with pytest.raises(ValueError, match=message):
        reasons.read(write(tmp_path, changed))


def test_rounding_is_no_fault(tmp_path: Path) -> None:
    rounded = document()
    rounded["cases"][0]["items"][0]["score"] = -0.741
    assert reasons.read(write(tmp_path, rounded)) == rounded


def page(runs: Path, value: Any) -> str:
    """The report over one run with these reasons."""
    run = runs / "genes" / "20250101-000000-file"
    results.write(Result("genes", "file", 0, "cpu", 1.0, {"a": "1"}, {}, ()), run)
    command = "python -m train_scripts run genes file"
    (run / "config.json").write_text(json.dumps({"command": command, "config": {}}))
    write(run, value)
    system = SimpleNamespace(
        name="genes",
        title="Genes",
        paper="A paper",
        summary="Ranks.",
        own="python -m train_scripts.genes --data FILE",
    )
    return report.build(runs, systems={"genes": system}).read_text()


def test_the_page_shows_each_line_and_escapes_it(tmp_path: Path) -> None:
    found = page(tmp_path, document(HOSTILE))
    assert "<img" not in found and "<script>alert" not in found
    assert "{{ 7*7 }}" in found and "onerror=alert(1)&gt;" in found
    for number in ("+1.25", "-2.00", "+0.50"):
        assert f'<td class="number">{number}</td>' in found
    # What a line adds comes second, so that a phone shows it without scrolling.
    assert found.index(">Adds<") < found.index(">Of the disease<")


def test_a_sum_that_is_wrong_is_a_problem_of_the_page(tmp_path: Path) -> None:
    wrong = document()
    wrong["cases"][0]["items"][1]["score"] = 9.0
    found = page(tmp_path, wrong)
    assert "expected contributions that add up to the score 9.00" in found
    assert 'class="reasons"' not in found
