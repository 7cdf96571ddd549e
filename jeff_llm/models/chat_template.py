"""Chat templates: a conversation as the text that a model was trained on.

A template comes with the model, so it is untrusted code: it runs in jinja2's sandbox
  and
sees only copies of plain data. The settings are those of transformers, so that the text
is identical.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

__all__ = ["render_chat_template"]


def render_chat_template(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    variables: Mapping[str, Any],
) -> str:
    """Render a conversation.

    Args:
      template: source of the template, in jinja2.
      messages: the conversation; each message has ``role`` and ``content``, and other
        keys that the template reads. Keys whose value is None are left out.
      variables: other variables of the template, such as ``bos_token`` and
        ``add_generation_prompt``. ``tools`` and ``documents`` are None where they are
        not given.

    Returns:
      The text.

    Raises:
      TypeError: if a message is not a mapping, or has values that are not JSON.
      ValueError: if the template is wrong, refuses the conversation, or tries to leave
        the sandbox; names the line of the template.

    >>> chat = [{"role": "user", "content": "Hi"}]
    >>> render_chat_template("{{ messages[0].content + end }}", chat, {"end": "!"})
    'Hi!'
    """
    seen = {"tools": None, "documents": None, **_plain(variables, "variables")}
    seen["messages"] = [_message(m, number) for number, m in enumerate(messages)]
    try:
        return _compile(template).render(seen)
    except Exception as error:  # a template can raise anything
        raise ValueError(
            f"chat template, line {_line(error)}: {type(error).__name__}: {error}; "
            "correct the messages, or pass another template"
        ) from error


def _message(message: Any, number: int) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise TypeError(
            f"messages[{number}]: expected a mapping with role and content, got "
            f"{type(message).__name__}"
        )
    given = {key: value for key, value in message.items() if value is not None}
    return _plain(given, f"messages[{number}]")


def _plain(value: Any, where: str) -> Any:
    """A copy made of JSON's types alone: other objects have methods to misuse."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    # A subclass of str may override methods that the template calls.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{n}]") for n, item in enumerate(value)]
    raise TypeError(
        f"{where}: expected text, a number, a list or a mapping, got "
        f"{type(value).__name__}"
    )


def _line(error: BaseException) -> int:
    """The line of the template where an error arose."""
    line = getattr(error, "lineno", 0)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


@functools.lru_cache(maxsize=32)
def _compile(template: str) -> Any:
    return _environment().from_string(template)


@functools.cache
def _environment() -> Any:
    from jinja2 import TemplateRuntimeError, nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """``{% generation %}`` marks what the model wrote; the text is as without."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    class SafeNamespace(Namespace):
        """A namespace that cannot hold Python's internals."""

        def __setitem__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                raise SecurityError(f"the name {name!r} is not allowed in a namespace")
            super().__setitem__(name, value)

    def raise_exception(message: str) -> None:
        raise TemplateRuntimeError(message)

    # Immutable: a template must not change the messages it is given.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "namespace": SafeNamespace,
        "raise_exception": raise_exception,
        "strftime_now": lambda text: datetime.now().strftime(text),
    }
    return environment


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
