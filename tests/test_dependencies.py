"""Test that imported packages are declared, and declared packages are used."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Extras that what is in a folder may ask for, beside the base.
FOLDERS = {
    "jeff": {"scripts", "data"},
    "jeff_graph": {"graph", "scripts", "bio", "peers"},
    "jeff_llm": {"llm", "anomaly", "data", "serve"},
    "train_scripts": {"scripts", "bio", "llm", "anomaly", "serve"},
    "configs": {"scripts"},
    "tests": {"scripts", "bio", "llm", "data", "peers", "serve", "dev"},
    "benchmarks": {"scripts", "bio", "llm", "peers"},
    "docs": {"docs", "dev", "scripts"},
}
OURS = {*FOLDERS, "conftest"}
# Distributions by the name that is imported, where it is another.
DISTRIBUTIONS = {
    "adaptive_consistency": "adaptiveconsistency",
    "PIL": "pillow",
    "haiku": "dm-haiku",
    "huggingface_hub": "huggingface-hub",
    "ml_dtypes": "ml-dtypes",
    "orbax": "orbax-checkpoint",
    "pyhpo": "hpo3",
    "sentence_transformers": "sentence-transformers",
    "sklearn": "scikit-learn",
}
# Imported and not declared, each for a reason.
BROUGHT = {
    "llama_cpp": "built from its source in ten minutes; its benchmark runs without",
    "pandas": "anndata's tables are its own",
    "pheval": "pins old versions, so it needs an environment of its own",
    "polars": "what pheval's functions take",
    "torch": "installed by itself, as its builds differ by machine",
}
# Declared and not imported, each for a reason.
NOT_IMPORTED = {
    "basedpyright": "a command",
    "beartype": "named in the options of pytest",
    "furo": "named in docs/conf.py",
    "myst-parser": "named in docs/conf.py",
    "ipykernel": "the process in which notebooks run",
    "optimum-quanto": "transformers imports it for its quantised cache",
    "pre-commit": "a command",
    "pytest-cov": "a plugin",
    "pytest-xdist": "a plugin",
    "ruff": "a command",
}
# Functions that import the module that they are given by name.
BY_NAME = {"__import__", "import_module", "importorskip", "require"}


def names(tree: ast.AST) -> Iterator[str]:
    """Dotted names of the modules that a file imports, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            first = node.args[0] if node.args else None
            by_name = called in BY_NAME and isinstance(first, ast.Constant)
            yield from [str(first.value)] if by_name else []


def distributions(folder: str) -> dict[str, Path]:
    """Third-party distributions that a folder imports, each with one file that does."""
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for name in names(ast.parse(path.read_text())):
            package = name.partition(".")[0]
            local = path.with_name(f"{package}.py").exists()
            if package not in OURS | sys.stdlib_module_names and not local:
                found[DISTRIBUTIONS.get(package, package)] = path
    return found


def declared(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~; ]", text)[0].lower() for text in requirements}


BASE = declared(PROJECT["dependencies"])
EXTRAS = {
    name: declared(texts) for name, texts in PROJECT["optional-dependencies"].items()
}
IMPORTED = {folder: distributions(folder) for folder in FOLDERS}


def test_the_scan_sees_every_kind_of_import():
    source = """
import a.b
def f():
    from c.d import e
    pytest.importorskip("g.h", reason="x")
    require("i", extra="j")
"""
    assert set(names(ast.parse(source))) == {"a.b", "c.d", "g.h", "i"}
    assert {"jax", "etils"} <= set(IMPORTED["jeff"])
    assert {"jsonschema", "safetensors"} <= set(IMPORTED["jeff_llm"])
    assert declared(["etils[epath]>=1", "a-b>=2; python_version < '3'"]) == {
        "etils",
        "a-b",
    }


@pytest.mark.parametrize("folder", FOLDERS)
def test_imported_is_declared(folder):
    """In the base or in an extra of this folder."""
    allowed = BASE.union(*(EXTRAS[extra] for extra in FOLDERS[folder]))
    for name, path in IMPORTED[folder].items():
        assert name in allowed | set(BROUGHT), f"{path} imports {name}: declare it"


def test_required_is_in_its_extra():
    """`require` names an extra in its error; that extra must bring the module."""
    for folder in ("jeff", "jeff_graph", "jeff_llm", "train_scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            for module, extra in re.findall(
                r'\brequire\("(\w+)[\w.]*", extra="(\w+)"\)', path.read_text()
            ):
                name = DISTRIBUTIONS.get(module, module)
                assert name in EXTRAS[extra], f"{path}: {extra} lacks {name}"


def test_declared_is_imported():
    used = set().union(*IMPORTED.values())
    wanted = BASE.union(*EXTRAS.values()) - set(NOT_IMPORTED)
    assert not wanted - used, "declared and not imported: take them out"


def test_exceptions_are_needed():
    """An exception that no longer is one goes."""
    used = set().union(*IMPORTED.values())
    assert set(BROUGHT) <= used
    assert not set(NOT_IMPORTED) & used
    assert set(NOT_IMPORTED) <= BASE.union(*EXTRAS.values())
