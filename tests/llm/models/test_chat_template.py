"""Test chat templates: exact parity with transformers, and the sandbox."""

import re
from typing import Any

import pytest

from jeff_llm.models.chat_template import render_chat_template

jinja2 = pytest.importorskip("jinja2")

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# In the manner of Llama 2: roles alternate, the system's text goes into the first turn.
INST = """{%- if messages[0]['role'] == 'system' -%}
    {%- set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' -%}
    {%- set rest = messages[1:] -%}
{%- else -%}
    {%- set system, rest = '', messages -%}
{%- endif -%}
{%- for message in rest -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('roles must alternate') }}
    {%- endif -%}
    {%- if message['role'] == 'user' -%}
        {%- set content = system + message['content'] if loop.first
            else message['content'] -%}
        {{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
    {%- else -%}
        {{ ' ' + message['content'] | trim + ' ' + eos_token }}
    {%- endif -%}
{%- endfor -%}"""
# In the manner of Qwen and Llama 3: tools, namespaces, loop controls, generation marks.
TOOLS = """{{ bos_token }}
{%- set ns = namespace(seen=0) %}
{% if tools is not none %}
# Tools
    {% for tool in tools %}
{{ tool | tojson }}
{{ tool | tojson(indent=2, sort_keys=True) }}
    {% endfor %}
{% endif %}
{% for message in messages %}
    {% if message.role == "comment" %}{% continue %}{% endif %}
    {% set ns.seen = ns.seen + 1 %}
    {% if message.content is defined %}
<{{ message.role }} {{ ns.seen }}>
        {% generation %}{{ message.content }}
        {% endgeneration %}
    {% endif %}
    {% for call in message.tool_calls or [] %}{{ dict(name=call.name) }}{% endfor %}
{% endfor %}
{{ thinking | default('off') }} {{ documents }} {{ strftime_now('%Y')|int > 2000 }}"""
CHATS = [
    [{"role": "user", "content": "Hi"}],
    [
        {"role": "system", "content": "Be <brief> & 'kind'."},
        {"role": "user", "content": "é\n"},
    ],
    [
        {"role": "user", "content": " 1 + 1? "},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "{{ 7 * 7 }}"},
    ],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]},
        {"role": "user", "content": "b"},
    ],
]
TOOL = {"type": "function", "function": {"name": "f", "description": "<é> & 'x'"}}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize("template", [CHATML, INST, TOOLS])
@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("extra", [{}, {"tools": [TOOL], "thinking": "on"}])
def test_peer(
    template: str, chat: list[dict[str, Any]], prompt: bool, extra: dict[str, Any]
) -> None:
    """What a tokenizer of transformers renders."""
    transformers = pytest.importorskip("transformers")
    backend = pytest.importorskip("tokenizers").Tokenizer
    model = pytest.importorskip("tokenizers.models").BPE()
    peer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend(model), chat_template=template, **SPECIAL
    )
    variables = SPECIAL | {"add_generation_prompt": prompt} | extra
    if template is CHATML and chat is CHATS[3]:
        with pytest.raises(jinja2.UndefinedError):
            peer.apply_chat_template(chat, tokenize=False)
        with pytest.raises(ValueError, match=r"^chat template, line 2: Undefined"):
            render_chat_template(template, chat, variables)
        return
    want = peer.apply_chat_template(
        chat, tokenize=False, add_generation_prompt=prompt, **extra
    )
    assert render_chat_template(template, chat, variables) == want


ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ raise_exception.__globals__['__builtins__'] }}",
    "{{ strftime_now.__code__.co_consts }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(role='x') }}",
    "{{ '{0.__class__.__mro__}'.format(1) }}",
    "{% set n = namespace() %}{% set n._Namespace__attrs = 1 %}",
    "{% for i in range(10 ** 9) %}{% endfor %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_no_way_out(template: str) -> None:
    """Internals, changes, files and endless ranges are refused."""
    with pytest.raises(ValueError, match=r"^chat template, line 1: "):
        render_chat_template(template, CHATS[0], {})


def test_nothing_is_changed() -> None:
    """The template sees copies."""
    chat = [{"role": "user", "content": ["a"]}]
    template = "{% set x = messages[0].content %}{{ x + ['b'] }}"
    assert render_chat_template(template, chat, {}) == "['a', 'b']"
    assert chat == [{"role": "user", "content": ["a"]}]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a\n{{ b }", "line 2: TemplateSyntaxError"),
        ("a\n\n{% if %}{% endif %}", "line 3: TemplateSyntaxError"),
        ("a\n{{ 1 + 'b' }}", "line 2: TypeError"),
        ("a\n\n{{ b.c }}", "line 3: UndefinedError: 'b' is undefined"),
        ("a\n{{ raise_exception('roles!') }}", "line 2: .*: roles!; correct the mess"),
        ("{% generation %}", "line 1: TemplateSyntaxError"),
    ],
)
def test_errors_name_the_line(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^chat template, {message}"):
        render_chat_template(template, CHATS[0], {})


def test_bad_messages() -> None:
    """Only plain data goes in; texts of another class come out as texts."""
    template = "{{ messages[0].content.upper() }}"
    with pytest.raises(TypeError, match="messages"):
        render_chat_template(template, ["Hi"], {})  # pyright: ignore
    with pytest.raises(TypeError, match=r"messages\[0\]\.content\[1\]: .* got object"):
        render_chat_template(template, [{"content": ["a", object()]}], {})
    with pytest.raises(TypeError, match=r"variables\.tools: .* got set"):
        render_chat_template(template, [], {"tools": set()})

    class Loud(str):
        def upper(self) -> str:
            raise AssertionError

    assert render_chat_template(template, [{"content": Loud("a")}], {}) == "A"


def test_time() -> None:
    rendered = render_chat_template("{{ strftime_now('%Y-%m-%d') }}", [], {})
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", rendered)
