"""The jinja2 environment of chat templates: sandboxed, and limited in what it does.

Settings and additions are those of transformers, so that the text is identical. Around
them every operator, filter, test, call, loop and output reports to the budget of
`jeff_llm.models.chat_limits`. Some have no hook in jinja2, such as ``~``, slices and
comparisons; they are wrapped in filters when the template is compiled.
"""

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from jeff_llm.models.chat_bounds import before_filter, before_method
from jeff_llm.models.chat_limits import current, measure

__all__ = ["make_environment"]

# They touch what a list holds only through what follows, so its length counts alone.
_SHALLOW = {
    *("length", "count", "first", "last", "default", "d", "list", "map", "select"),
    *("reject", "selectattr", "rejectattr", "batch", "slice", "random", "items"),
    *("reverse", "attr"),
}
# Their time grows with the square of a text's length, or of a list's.
_SQUARE = {"striptags", "urlize", "wordwrap", "pprint", "sum"}
# A call of a macro takes many times as long as a turn of a loop.
_CALL = 16
_COMPARING = {
    *("eq", "==", "equalto", "ne", "!=", "lt", "<", "lessthan", "le", "<="),
    *("gt", ">", "greaterthan", "ge", ">=", "in"),
}


def make_environment() -> Any:
    """Make the environment.

    Returns:
      A `jinja2.sandbox.ImmutableSandboxedEnvironment`; compile and render inside
      `jeff_llm.models.chat_limits.limited`.
    """
    from jinja2 import TemplateRuntimeError, pass_context
    from jinja2.ext import loopcontrols

    def raise_exception(message: str) -> None:
        raise TemplateRuntimeError(message)

    # Immutable: a template must not change the messages it is given.
    environment = _environment_class()(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_generation(), loopcontrols],
        finalize=_written,
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "namespace": _namespace(),
        "raise_exception": raise_exception,
        "strftime_now": lambda text: datetime.now().strftime(text),
    }
    # Random text of any length, which no conversation needs.
    del environment.globals["lipsum"]
    for name, function in environment.filters.items():
        environment.filters[name] = _limited_filter(name, function)
    for name in _COMPARING:
        environment.tests[name] = _limited_test(environment.tests[name])
    # With the context as argument they are not run when the template is compiled.
    for name, function in _HOOKS.items():
        environment.filters[name] = pass_context(function)
    return environment


def _environment_class() -> Any:
    from jinja2.runtime import LoopContext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Limited(ImmutableSandboxedEnvironment):
        """Reports each operator and call to the budget."""

        intercepted_binops = frozenset(("+", "-", "*", "/", "//", "**", "%"))

        def _generate(self, source: Any, *arguments: Any, **options: Any) -> str:
            return super()._generate(_hooked(source, self), *arguments, **options)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            current().operator(operator, left, right)
            return super().call_binop(context, operator, left, right)

        def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
            wrapped = super().wrap_str_format(value)
            if wrapped is None:
                return None

            @functools.wraps(wrapped)
            def checked(*args: Any, **kwargs: Any) -> str:
                current().braces(value.__self__, measure((args, kwargs)))
                return wrapped(*args, **kwargs)

            return checked

        def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
            current().spend(_CALL)
            if isinstance(__obj, LoopContext) and args:
                args = (_each(None, args[0]), *args[1:])
            before_method(__obj, args, kwargs)
            return _made(super().call(__context, __obj, *args, **kwargs))

    return Limited


def _generation() -> Any:
    from jinja2 import nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        """``{% generation %}`` marks what the model wrote; the text is as without."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    return Generation


def _namespace() -> Any:
    from jinja2.exceptions import SecurityError
    from jinja2.utils import Namespace

    class SafeNamespace(Namespace):
        """A namespace that cannot hold Python's internals."""

        def __setitem__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                raise SecurityError(f"the name {name!r} is not allowed in a namespace")
            super().__setitem__(name, value)

        def __repr__(self) -> str:
            # Namespaces may hold each other, so their content has no end.
            return "<Namespace>"

    return SafeNamespace


def _hooked(tree: Any, environment: Any) -> Any:
    """A template whose loops, texts and hidden operators go through `_HOOKS`."""
    from jinja2 import nodes
    from jinja2.visitor import NodeTransformer

    def hook(node: Any, name: str) -> Any:
        wrapped = nodes.Filter(node, name, [], [], None, None)
        return wrapped.set_lineno(node.lineno).set_environment(environment)

    class Hooks(NodeTransformer):
        def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
            self.generic_visit(node)
            if isinstance(node, nodes.For):
                node.iter = hook(node.iter, "_each")
            elif isinstance(node, nodes.Compare):
                node.expr = hook(node.expr, "_touch")
                for operand in node.ops:
                    operand.expr = hook(operand.expr, "_touch")
            elif isinstance(node, nodes.Concat):
                return hook(nodes.List(node.nodes, lineno=node.lineno), "_concat")
            elif isinstance(node, nodes.TemplateData):
                return hook(node, "_same")
            elif getattr(node, "ctx", "load") == "load":
                if isinstance(node, nodes.List | nodes.Dict | nodes.Tuple):
                    return hook(node, "_touch")
                if isinstance(getattr(node, "arg", None), nodes.Slice):
                    return hook(node, "_slice")
            return node

    return Hooks().visit(tree)


def _each(context: Any, values: Iterable[Any]) -> Iterator[Any]:
    """The values of a loop, each of which is a step."""
    budget = current()
    for value in values:
        # Without a call, which would take longer than the loop itself.
        budget.steps -= 1 + (len(value) if isinstance(value, list) else 0)
        if budget.steps < 0:
            budget.spend(0)
        yield value


def _concat(context: Any, values: list[Any]) -> str:
    budget = current()
    budget.room(sum(budget.touch(value).characters for value in values))
    return "".join(map(str, values))


def _touch(context: Any, value: Any) -> Any:
    current().touch(value)
    return value


def _slice(context: Any, value: Any) -> Any:
    _touch_shallow(value)
    return value


_HOOKS: dict[str, Callable[..., Any]] = {
    "_each": _each,
    "_concat": _concat,
    "_touch": _touch,
    "_slice": _slice,
    "_same": lambda context, value: value,
}


def _touch_shallow(value: Any) -> None:
    if isinstance(value, str | bytes):
        current().touch(value)
    elif hasattr(value, "__len__"):
        current().spend(1 + len(value))


def _made(value: Any) -> Any:
    """The result of a filter or call, counted."""
    if isinstance(value, Iterator):
        return _each(None, value)
    if isinstance(value, str | bytes | list | dict | int):
        current().touch(value)
    return value


def _written(value: Any) -> Any:
    """A value that is written, counted before it becomes text."""
    budget = current()
    if isinstance(value, str):
        budget.write(len(value))
    else:
        size = budget.touch(value)
        # Quotes, commas and brackets.
        budget.write(size.characters + 8 * size.elements)
    return value


def _limited_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    # The value comes behind the context or environment, where a filter asks for one.
    place = int(hasattr(function, "jinja_pass_arg"))

    @functools.wraps(function)
    def limited(*args: Any, **kwargs: Any) -> Any:
        value, *rest = args[place:]
        budget = current()
        if name in _SHALLOW:
            budget.spend(1)
            _touch_shallow(value)
        else:
            size = budget.touch(value)
            if name in _SQUARE:
                budget.spend((size.characters**2 + size.elements**2) >> 16)
        before_filter(name, value, [*rest, *kwargs.values()])
        return _made(function(*args, **kwargs))

    return limited


def _limited_test(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def limited(*args: Any, **kwargs: Any) -> Any:
        for value in args:
            current().touch(value)
        return function(*args, **kwargs)

    return limited


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without the HTML escapes of jinja2's own filter."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
