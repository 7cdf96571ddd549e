"""Signatures as the source has them.

Sphinx would print a shape such as ``Float[Array | np.ndarray, "people"]`` as the
classes that jaxtyping makes of it, and an alias as all that it stands for.
"""

import ast
import copy

from modules import FUNCTION, Module, Modules

__all__ = ["signature"]


def signature(
    modules: Modules, name: str, *, bound: bool
) -> tuple[str, str | None] | None:
    """The signature of a function, a method or a class.

    Args:
      modules: the packages.
      name: its full name.
      bound: leave out the first parameter, which Python fills in.

    Returns:
      ``(parameters, what comes back)``; None for what has no definition of ours.
    """
    module = modules.module_of(name)
    node = copy.deepcopy(modules.node(name))
    if module is None or node is None:
        return None
    types = _FullNames(modules, module)
    if isinstance(node, FUNCTION):
        returns = types.written(node.returns) if node.returns else None
        return _parameters(node, types, bound=bound), returns
    if isinstance(node, ast.ClassDef):
        return _construction(node, types), None
    return None


def _parameters(
    node: ast.FunctionDef | ast.AsyncFunctionDef, types: "_FullNames", *, bound: bool
) -> str:
    some = node.args
    static = any(ast.unparse(each) == "staticmethod" for each in node.decorator_list)
    if bound and not static:
        some.args = some.args[1:]
    for each in ast.walk(some):
        if isinstance(each, ast.arg) and each.annotation:
            each.annotation = types.visit(each.annotation)
    return f"({ast.unparse(some)})"


def _construction(node: ast.ClassDef, types: "_FullNames") -> str:
    """How an instance is made: the parameters of ``__init__``, or the fields."""
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            return _parameters(each, types, bound=True)
    made = [ast.unparse(each) for each in (*node.bases, *node.decorator_list)]
    if not any("NamedTuple" in each or "dataclass" in each for each in made):
        return ""
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
    return f"({', '.join(_field(each, types) for each in fields)})"


def _field(node: ast.AnnAssign, types: "_FullNames") -> str:
    text = f"{ast.unparse(node.target)}: {types.written(node.annotation)}"
    value = ast.unparse(node.value) if node.value else ""
    if value.startswith("dataclasses.field("):
        value = "..." if "default" in value else ""
    return f"{text} = {value}" if value else text


class _FullNames(ast.NodeTransformer):
    """Full names of our types: several rooms have one of the same short name."""

    def __init__(self, modules: Modules, module: Module):
        self.modules, self.module = modules, module

    def written(self, node: ast.expr) -> str:
        return ast.unparse(self.visit(node))

    def visit_Name(self, node: ast.Name | ast.Attribute) -> ast.expr:
        home = self.modules.home_from(ast.unparse(node), self.module.name, None)
        if home is None or "._" in home:
            return node
        return ast.parse(home, mode="eval").body

    visit_Attribute = visit_Name  # noqa: N815

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if not isinstance(node.value, str):
            return node
        return self.visit(
            ast.parse(node.value, mode="eval").body
        )  # a forward reference

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        kind = self.module.imports.get(ast.unparse(node.value), "")
        if kind.endswith("Literal"):
            return node
        if kind.startswith("jaxtyping.") and isinstance(node.slice, ast.Tuple):
            node.slice.elts[0] = self.visit(node.slice.elts[0])  # the other is a shape
            return node
        node.value, node.slice = self.visit(node.value), self.visit(node.slice)
        return node
