"""Write the pages of the reference before each build, one for every public module.

They are made from each `__all__` and from nothing else: none has to be kept in the
repository, and none can be forgotten.
"""

import ast
from pathlib import Path
from typing import Any

from modules import FUNCTION, Module, Modules, summary
from sphinx.application import Sphinx

__all__ = ["setup", "write"]

FOLDER = "docs/api"
# A longer value says less than its name.
_LONGEST_VALUE = 90


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the pages before Sphinx looks for its sources.

    Args:
      app: the build.

    Returns:
      What the extension allows.
    """
    app.connect("config-inited", lambda app, _: write(Path(app.srcdir)))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write(root: Path) -> None:
    """Write the pages that have changed, and remove those of modules that are gone.

    Args:
      root: the folder that holds the packages.
    """
    modules, folder = Modules(root), root / FOLDER
    pages = {f"{name}.rst": _page(m, modules) for name, m in modules.by_name.items()}
    pages["index.rst"] = _index(modules)
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.rst"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        # Sphinx reads a page again where its file is newer.
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _index(modules: Modules) -> str:
    doors = [module for module in modules.by_name.values() if module.is_package]
    lines = [
        *_title("Reference"),
        "Every public module, from its docstrings. A package lists the names that you",
        "import from it; each leads to the module that defines it.",
        "",
        *(f"* :py:mod:`{module.name}`: {summary(module.tree)}" for module in doors),
        "",
        ".. toctree::",
        "   :hidden:",
        "",
        *(f"   {module.name}" for module in doors),
    ]
    return "\n".join(lines) + "\n"


def _page(module: Module, modules: Modules) -> str:
    lines = [*_title(module.name), f".. automodule:: {module.name}", ""]
    if not module.is_package:
        # Hundreds of modules would bury everything else in the sidebar.
        lines = [":orphan:", "", *lines, f"Part of :py:mod:`{module.package}`.", ""]
    passed_on = [name for name in module.public if name not in module.definitions]
    if passed_on:
        lines += [".. rubric:: Names" if module.is_package else ".. rubric:: Also here"]
        lines += ["", *(_passed_on(module, name, modules) for name in passed_on), ""]
    for name in [*module.public, *_types(module)]:
        if name in module.definitions:
            lines += _defined(module, name)
    parts = [m for m in modules.by_name.values() if m.package == module.name]
    if parts:
        lines += [".. rubric:: Modules", "", *map(_part, parts)]
    return "\n".join(lines) + "\n"


def _types(module: Module) -> list[str]:
    """Names of types that signatures have and ``__all__`` has not."""
    return [
        name
        for name, node in module.definitions.items()
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and name[0].isupper()
        and (len(name) == 1 or not name.isupper())
        and name not in module.public
    ]


def _part(module: Module) -> str:
    short = module.name.rpartition(".")[2]
    return f"* :py:mod:`{short} <{module.name}>`: {summary(module.tree)}"


def _passed_on(module: Module, name: str, modules: Modules) -> str:
    home = modules.home(f"{module.name}.{name}")
    if home is None:  # of another library
        return f"* ``{name}``: ``{module.imports[name]}``"
    found = modules.by_name.get(home)
    role = "obj" if found is None else "mod"
    said = summary(modules.node(home) if found is None else found.tree)
    return f"* :py:{role}:`{name} <{home}>`" + (f": {said}" if said else "")


def _defined(module: Module, name: str) -> list[str]:
    node, full = module.definitions[name], f"{module.name}.{name}"
    if isinstance(node, FUNCTION):
        return [f".. autofunction:: {full}", ""]
    if isinstance(node, ast.ClassDef):
        bases = [ast.unparse(base) for base in node.bases]
        error = any(base.endswith(("Error", "Exception")) for base in bases)
        kind = "autoexception" if error else "autoclass"
        return [f".. {kind}:: {full}", "   :members:", ""]
    lines = [f".. py:data:: {name}"]
    if len(value := _value(node)) <= _LONGEST_VALUE:
        lines += [f"   :value: {value}"]
    return [*lines, "", f"   {_said_above(module, node)}", ""]


def _value(node: ast.stmt) -> str:
    """What stands behind the equals sign."""
    return ast.unparse(node).partition(" = ")[2]


def _said_above(module: Module, node: ast.stmt) -> str:
    """The comment above a constant, which is all the documentation that it has."""
    said: list[str] = []
    for line in reversed(module.text.splitlines()[: node.lineno - 1]):
        if not line.startswith("# "):
            break
        said.insert(0, line[2:])
    return " ".join(said).replace("*", r"\*").replace("|", r"\|")


def _title(text: str) -> list[str]:
    return [text, "=" * len(text), ""]
