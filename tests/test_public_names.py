"""Test that every public name has a user outside the tests."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("jeff", "jeff_graph", "jeff_llm")
READERS = (*PACKAGES, "train_scripts", "configs", "benchmarks", "notebooks", "docs")
FENCE = re.compile(r"```python\n(.*?)```", re.DOTALL)
# Names that the code calls in a way that this test cannot see, each with its reason.
UNSEEN = {
    ("jeff_graph.editing.loaders", "from_pyg"): "takes an object of PyTorch Geometric",
}

Name = tuple[str, str]


def modules() -> dict[str, Path]:
    """The dotted names of jeff's modules, with their files."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def top_level(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """The names that a module defines itself."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((t.id, node) for t in targets if isinstance(t, ast.Name))
        elif type(node).__name__ == "TypeAlias":
            yield node.name.id, node  # pyright: ignore[reportAttributeAccessIssue]


def imports(tree: ast.AST) -> dict[str, Name]:
    """Where each imported word comes from: a module, and a word in it or nothing."""
    found: dict[str, Name] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                top = each.name if each.asname else each.name.split(".")[0]
                found[each.asname or top] = (top, "")
        elif isinstance(node, ast.ImportFrom):
            for each in node.names:
                found[each.asname or each.name] = (node.module or "", each.name)
    return {word: name for word, name in found.items() if name[0] in MODULES}


DOORS = {name: imports(tree) for name, tree in TREES.items()}


def origin(name: Name) -> Name:
    """The definition of a name, through the doors that pass it on."""
    module, word = name
    behind = DOORS[module].get(word, name)
    if behind != name:
        return origin(behind)
    whole = f"{module}.{word}"
    return (whole, "") if whole in MODULES else name


def resolve(node: ast.AST, words: dict[str, Name]) -> Name | None:
    """The definition that a word, or a chain of attributes, stands for."""
    if isinstance(node, ast.Name):
        return origin(words[node.id]) if node.id in words else None
    if not isinstance(node, ast.Attribute):
        return None
    base = resolve(node.value, words)
    return origin((base[0], node.attr)) if base and not base[1] else None


def used(tree: ast.AST) -> set[Name]:
    words = imports(tree)
    found = {resolve(node, words) for node in ast.walk(tree)}
    return {name for name in found if name is not None}


def used_inside(tree: ast.Module) -> set[str]:
    """The names that a module defines and uses beside their definition."""
    return {
        inner.id
        for node in tree.body
        for inner in ast.walk(node)
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load)
        if inner.id != getattr(node, "name", "")
    }


def sources() -> Iterator[ast.Module]:
    for folder in READERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name != "__init__.py":
                yield ast.parse(path.read_text())
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        yield ast.parse("\n".join(FENCE.findall(path.read_text())))


def public() -> set[Name]:
    """All that an ``__all__`` of jeff lists, under the name of its definition."""
    return {
        origin((module, each))
        for module, tree in TREES.items()
        for word, node in top_level(tree)
        if word == "__all__" and isinstance(node, ast.Assign)
        for each in ast.literal_eval(node.value)
    }


def test_every_public_name_is_used_outside_the_tests():
    seen = {name for tree in sources() for name in used(tree)}
    for module, tree in TREES.items():
        inside = used_inside(tree)
        seen |= {(module, word) for word, _ in top_level(tree) if word in inside}
    # A module is used where one of its names is.
    seen |= {(module, "") for module, _ in seen}
    unused = public() - seen - UNSEEN.keys()
    assert not unused, sorted(unused)
