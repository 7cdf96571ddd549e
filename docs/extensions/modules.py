"""The packages as their source has them: public names, and where each is defined.

Read with `ast` and never imported: a name that a door passes on is followed to the
module that defines it, which a value such as a dictionary could not tell.
"""

import ast
import dataclasses
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

__all__ = ["FUNCTION", "PACKAGES", "Module", "Modules", "summary"]

PACKAGES = ("jeff", "jeff_graph", "jeff_llm")
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


@dataclasses.dataclass(frozen=True)
class Module:
    """One source file.

    Attributes:
      name: dotted name.
      text: the source.
      is_package: whether it is an ``__init__.py``.
    """

    name: str
    text: str
    is_package: bool

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed source."""
        return ast.parse(self.text)

    @property
    def package(self) -> str:
        """The package that holds the module; empty for a package at the top."""
        return self.name.rpartition(".")[0]

    @cached_property
    def public(self) -> list[str]:
        """Names in ``__all__``."""
        listed = self.definitions["__all__"]
        if not isinstance(listed, ast.Assign | ast.AnnAssign) or not listed.value:
            raise ValueError(f"{self.name}: expected a plain list as __all__")
        return ast.literal_eval(listed.value)

    @cached_property
    def definitions(self) -> dict[str, ast.stmt]:
        """The statement that defines each name of the module."""
        found: dict[str, ast.stmt] = {}
        for node in self.tree.body:
            if isinstance(node, FUNCTION | ast.ClassDef):
                found[node.name] = node
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[node.target.id] = node
            elif isinstance(node, ast.Assign):
                names = [n for t in node.targets for n in getattr(t, "elts", [t])]
                found |= {n.id: node for n in names if isinstance(n, ast.Name)}
        return found

    @cached_property
    def imports(self) -> dict[str, str]:
        """What each imported name stands for; also of imports for editors alone."""
        found: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom):
                for each in node.names:
                    found[each.asname or each.name] = f"{node.module}.{each.name}"
            elif isinstance(node, ast.Import):
                found |= {each.asname or each.name: each.name for each in node.names}
        return found


class Modules:
    """All modules of the packages, by name."""

    def __init__(self, root: Path):
        """Read the packages.

        Args:
          root: the folder that holds them.
        """
        self.by_name = {module.name: module for module in _read(root)}

    def home(self, name: str) -> str | None:
        """The name under which something of ours is documented.

        Args:
          name: dotted name, from any module that has or imports it.

        Returns:
          That of the module which defines it, or of the class for a field of one; None
          where it is not ours.
        """
        module, rest = self._split(name)
        if module is None or not rest:
            return module.name if module else None
        first, _, others = rest.partition(".")
        if first in module.definitions:
            return name if self.node(name) else f"{module.name}.{first}"
        if target := module.imports.get(first):
            return self.home(f"{target}.{others}" if others else target)
        return None

    def home_from(self, name: str, place: str, owner: str | None) -> str | None:
        """What a name in a docstring or a signature means.

        Args:
          name: the name as written, short or full.
          place: the module that it stands in.
          owner: the class that it stands in, if any.

        Returns:
          As `home`, tried from the class outwards.
        """
        scopes = [f"{place}.{owner}."] if owner else []
        scopes += [f"{place}.", f"{place.rpartition('.')[0]}.", ""]
        for scope in scopes:
            found = self.home(f"{scope}{name}".lstrip("."))
            # The class itself stands for a member that it does not have: the name means
            # something outside it.
            itself = owner and found == f"{place}.{owner}" and name != owner
            if found and not itself:
                return found
        return None

    def node(self, name: str) -> ast.stmt | None:
        """The definition of a function, class, method or constant.

        Args:
          name: the name under which it is documented.

        Returns:
          The statement; None where there is none.
        """
        module, rest = self._split(name)
        if module is None or not rest:
            return None
        first, _, member = rest.partition(".")
        node = module.definitions.get(first)
        if not member:
            return node
        body = node.body if isinstance(node, ast.ClassDef) else []
        return next((n for n in body if getattr(n, "name", None) == member), None)

    def module_of(self, name: str) -> Module | None:
        """The module that a full name begins with.

        Args:
          name: dotted name.

        Returns:
          The module; None where it is not ours.
        """
        return self._split(name)[0]

    def _split(self, name: str) -> tuple[Module | None, str]:
        parts = name.split(".")
        for count in range(len(parts), 0, -1):
            if module := self.by_name.get(".".join(parts[:count])):
                return module, ".".join(parts[count:])
        return None, name


def summary(node: ast.AST | None) -> str:
    """The first line of a docstring.

    Args:
      node: a module, class or function, or what has no docstring.

    Returns:
      The line; empty where there is none.
    """
    if not isinstance(node, ast.Module | ast.ClassDef | FUNCTION):
        return ""
    return (ast.get_docstring(node) or "").partition("\n")[0]


def _read(root: Path) -> Iterator[Module]:
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            yield Module(name, path.read_text(encoding="utf-8"), is_package)
