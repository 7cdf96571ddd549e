"""Docstrings and signatures as Sphinx wants them, and links to definitions.

A single backtick in a docstring is a link where it names something of ours and code
where it does not. A full name of ours that leads nowhere is a warning.
"""

import textwrap
from functools import lru_cache
from pathlib import Path
from typing import Any

from docutils import nodes
from modules import PACKAGES, Modules
from signatures import signature
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
    # Ahead of napoleon, which would take the text before a colon for a type.
    app.connect("autodoc-process-docstring", _returns, priority=400)
    app.connect("missing-reference", _link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


@lru_cache(maxsize=1)
def _modules(root: str) -> Modules:
    return Modules(Path(root))


def _signature(
    app: Sphinx, what: str, name: str, *_: Any
) -> tuple[str, str | None] | None:
    if what not in ("function", "method", "class"):
        return None
    return signature(_modules(str(app.srcdir)), name, bound=what == "method")


def _returns(app: Sphinx, what: str, name: str, value: Any, *rest: Any) -> None:
    """Make fields of the sections on what comes back."""
    del app, what, name, value
    lines: list[str] = rest[1]
    for begin, line in enumerate(lines):
        if line not in ("Returns:", "Yields:"):
            continue
        end = begin + 1
        while end < len(lines) and (not lines[end] or lines[end].startswith(" ")):
            end += 1
        text = textwrap.dedent("\n".join(lines[begin + 1 : end])).strip()
        field = f":{line[:-1].lower()}: {textwrap.indent(text, '    ').lstrip()}"
        lines[begin:end] = [*field.split("\n"), ""]


def _skip(
    app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out the fields of named tuples, which the class's docstring describes."""
    del app, what, name, skip, options
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
        return make_refnode(app.builder, page, found.docname, found.node_id, text, home)
    # Peers' names and parameters stay code; a full name of ours has to lead somewhere.
    return None if target.partition(".")[0] in PACKAGES else text
