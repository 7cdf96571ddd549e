"""Test that what ARCHITECTURE.md names exists, and where it says."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
# "`name` (`file.py`)", "`name` of `file.py`", "`name` in `file.py`".
PLACED = re.compile(r"`(?:\w+\.)*(\w+)`\s+(?:of\s+|in\s+|\()`([\w/]+\.py)`")


def defined(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    kinds = ast.FunctionDef | ast.ClassDef
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_files_and_folders_exist():
    named = re.findall(r"`([\w-]+(?:/[\w.-]+)+)`", TEXT)
    assert len(set(named)) > 50
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_functions_are_where_they_are_said_to_be():
    placed = PLACED.findall(TEXT)
    assert len(placed) > 20
    assert [pair for pair in placed if pair[0] not in defined(ROOT / pair[1])] == []
