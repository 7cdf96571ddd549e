"""Chat templates: a conversation as the text that a model was trained on.

A template comes with the model, so it is untrusted code: it runs in jinja2's sandbox,
within limits of time and size (`jeff_llm.models.chat_limits`), and sees only copies of
plain data. The settings are those of transformers, so that the text is identical.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from jeff_llm.models.chat_environment import make_environment
from jeff_llm.models.chat_limits import limited

__all__ = ["render_chat_template", "render_unfinished"]

# Put behind the last message, to find where its text ends; the space shows whether the
# template strips it.
_MARK = "\ue000 "


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
      ValueError: if the template is wrong, refuses the conversation, tries to leave
        the sandbox, or passes a limit (a million steps, or 4 MiB of text more than it
        is given); names the line of the template.

    >>> chat = [{"role": "user", "content": "Hi"}]
    >>> render_chat_template("{{ messages[0].content + end }}", chat, {"end": "!"})
    'Hi!'
    """
    seen = {"tools": None, "documents": None, **_plain(variables, "variables")}
    seen["messages"] = [_message(m, number) for number, m in enumerate(messages)]
    try:
        with limited(seen, len(messages)) as budget:
            parts, length = [], 0
            # Compiled inside, too: jinja2 computes constants then.
            for part in _compile(template).generate(seen):
                length += len(part)
                budget.room(length)
                parts.append(part)
            return "".join(parts)
    except Exception as error:  # a template can raise anything
        raise ValueError(
            f"chat template, line {_line(error)}: {type(error).__name__}: {error}; "
            "correct the messages, or pass another template"
        ) from error


def render_unfinished(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    variables: Mapping[str, Any],
) -> str:
    """Render a conversation up to the end of its last message's text.

    Args:
      template: as in `render_chat_template`.
      messages: likewise; the last one has text.
      variables: likewise.

    Returns:
      The text; without the space at its end where the template strips messages.

    Raises:
      TypeError: as in `render_chat_template`.
      ValueError: likewise, or if the last message has no text, or the template does
        not write it whole.

    >>> chat = [{"role": "assistant", "content": "Well,"}]
    >>> render_unfinished("<{{ messages[0].content }}>", chat, {})
    '<Well,'
    """
    last = dict(messages[-1]) if messages else {}
    content = last.get("content")
    if isinstance(content, str):
        text, last["content"] = content, content + _MARK
    else:
        text, last["content"] = _marked_parts(content)
    if _MARK.strip() in text:
        raise ValueError(
            f"messages: expected text without {_MARK.strip()!r}, a private character"
        )
    shown = render_chat_template(template, [*messages[:-1], last], variables)
    before, mark, after = shown.rpartition(_MARK.strip())
    if not mark or text.strip() not in shown:
        raise ValueError(
            "continue_final_message: expected a template that writes the last "
            "message as it is, got one that changes or drops it"
        )
    return before if after.startswith(" ") else before.rstrip()


def _marked_parts(content: Any) -> tuple[str, list[Any]]:
    """The last text of a message in parts, and the parts with the mark behind it."""
    parts = list(content) if isinstance(content, list | tuple) else []
    for place in reversed(range(len(parts))):
        part = parts[place]
        if isinstance(part, Mapping) and isinstance(part.get("text"), str):
            parts[place] = {**part, "text": part["text"] + _MARK}
            return part["text"], parts
    raise ValueError(
        "continue_final_message: expected text in the last message, got none"
    )


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
    return make_environment()
