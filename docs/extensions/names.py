"""Signatures as the source has them, and links from names to their definitions.

Sphinx would print a shape such as `Float[Array | np.ndarray, "people"]` as the classes
that jaxtyping makes of it, and an alias as all that it stands for. A single backtick
in a docstring is a link where it names something of ours and code where it does not; a
full name of ours that leads nowhere is a warning.
"""

import ast
from functools import lru_cache
from pathlib import Path
from typing import Any

from docutils import nodes
from modules import FUNCTION, PACKAGES, Modules
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

__all__ = ["setup"]


def setup(app: Sphinx) -> dict[str, Any]:
    """Take part in the reading of docstrings and in the making of links.

    Args:
      app: the build.

    Returns:
      What the extension allows.
    """
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
    app.connect("missing-reference", _link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


@lru_cache(maxsize=1)
def _modules(root: str) -> Modules:
    return Modules(Path(root))


def _signature(
    app: Sphinx, what: str, name: str, *_: Any
) -> tuple[str, str | None] | None:
    node = _modules(str(app.srcdir)).node(name)
    if isinstance(node, FUNCTION):
        returns = ast.unparse(node.returns) if node.returns else None
        return _arguments(node, bound=what == "method"), returns
    if isinstance(node, ast.ClassDef):
        return _construction(node), None
    return None


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef, *, bound: bool) -> str:
    static = any(ast.unparse(each) == "staticmethod" for each in node.decorator_list)
    some = node.args
    if bound and not static and some.args:
        some = ast.arguments(**{**dict(ast.iter_fields(some)), "args": some.args[1:]})
    return f"({ast.unparse(some)})"


def _construction(node: ast.ClassDef) -> str:
    """How an instance is made: the parameters of ``__init__``, or the fields."""
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            return _arguments(each, bound=True)
    made = [ast.unparse(each) for each in (*node.bases, *node.decorator_list)]
    if not any("NamedTuple" in each or "dataclass" in each for each in made):
        return ""
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
    return f"({', '.join(map(_field, fields))})"


def _field(node: ast.AnnAssign) -> str:
    text = f"{ast.unparse(node.target)}: {ast.unparse(node.annotation)}"
    if node.value is None:
        return text
    value = ast.unparse(node.value)
    if not value.startswith("dataclasses.field("):
        return f"{text} = {value}"
    return f"{text} = ..." if "default" in value else text


def _skip(
    app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out the fields of named tuples, which the class's docstring describes."""
    del app, what, name, options
    return True if type(member).__name__ == "_tuplegetter" else None


def _link(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element
) -> nodes.Element | None:
    if node.get("refdomain") != "py":
        return None
    target, place = node["reftarget"].lstrip("."), node.get("py:module") or ""
    home = _modules(str(app.srcdir)).home_from(target, place, node.get("py:class"))
    found = env.domains.python_domain.objects.get(home) if home else None
    if home and found:
        page = node.get("refdoc", env.docname)
        return make_refnode(
            app.builder, page, found.docname, found.node_id, text, home
        )
    # Peers' names and parameters stay code; a full name of ours has to lead somewhere.
    return None if target.partition(".")[0] in PACKAGES else text
