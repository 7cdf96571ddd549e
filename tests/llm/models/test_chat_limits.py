"""Test the limits of chat templates: each attack ends in an error, small and soon."""

import resource
from pathlib import Path

import pytest

from jeff_llm.models.chat_limits import (
    Budget,
    Size,
    TooMuchError,
    current,
    limited,
    measure,
)
from jeff_llm.models.chat_template import render_chat_template

pytest.importorskip("jinja2")

CHAT = [{"role": "user", "content": "Hi " * 50}]
LOOP = "{% for a in range(99999) %}"
GROW = (
    "{% set ns = namespace(x=X) %}" + LOOP + "{% set ns.x = Y %}{% endfor %}{{ ns.x }}"
)
STEPS, TEXT = "too many steps|values at once", "texts of at most"


def grow(first: str, then: str) -> str:
    return GROW.replace("X", first).replace("Y", then)


ATTACKS = {
    "loops": (LOOP * 2 + "{% endfor %}" * 2, STEPS),
    "loops that take nothing": (
        LOOP + "{% for b in range(99999) if false %}{% endfor %}{% endfor %}", STEPS),
    "loops that call themselves": (
        "{% for x in [range(99999)] * 99 recursive %}{{ loop([x] * 99) }}{% endfor %}",
        "TooMuchError|RecursionError"),
    "lists in a loop": (LOOP + "{{ range(99999)|list|length }}{% endfor %}", STEPS),
    "sums in a loop": (LOOP + "{{ range(99999)|sum }}{% endfor %}", STEPS),
    "macros without end": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
                           "RecursionError"),
    "macros that double": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) ~ m(n - 1) }}{% endif %}{% endmacro %}"
        "{{ m(60) }}", STEPS),
    "times": ("{{ 'a' * 10**10 }}", TEXT),
    "times from the left": ("{{ 10**10 * 'a' }}", TEXT),
    "times of times": ("{{ ('a' * 99999 * 99999)|length }}", TEXT),
    "list times": ("{{ ([0] * 10**9)|length }}", STEPS),
    "bytes times": ("{{ 'a'.encode() * 10**10 }}", TEXT),
    "power": ("{{ 9 ** 9999 }}", "integers of at most"),
    "squares": (grow("9", "ns.x * ns.x"), "integers of at most"),
    "percent": ("{{ '%99999999999d' % 1 }}", TEXT),
    "percent star": ("{{ '%*d' % (10**10, 1) }}", TEXT),
    "percent digits": ("{{ '%.999999999f' % 1 }}", TEXT),
    "percent many": ("{{ ('%(a)s' * 99999) % {'a': 'b' * 99999} }}", TEXT),
    "percent of bytes": ("{{ '%99999999999d'.encode() % 1 }}", TEXT),
    "filter format": ("{{ '%99999999999d'|format(1) }}", TEXT),
    "format": ("{{ '{:99999999999}'.format(1) }}", TEXT),
    "format nested": ("{{ '{:{w}}'.format(1, w=10**10) }}", TEXT),
    "format many": ("{{ ('{0}' * 99999).format('b' * 99999) }}", TEXT),
    "format map": ("{{ '{a:99999999999}'.format_map({'a': 1}) }}", TEXT),
    "format by attr": ("{{ ('{:99999999999}'|attr('format'))(1) }}", TEXT),
    "center": ("{{ 'a'|center(10**9) }}", "center: expected smaller"),
    "center by map": ("{{ ['a']|map('center', 10**9)|list }}", "center: expected"),
    "indent": ("{{ ('a\n' * 9999)|indent(10**5) }}", TEXT),
    "indent by text": ("{{ ('a\n' * 9999)|indent('x' * 99999) }}", TEXT),
    "wordwrap": ("{{ ('a' * 9999)|wordwrap(1, wrapstring='x' * 99999) }}", TEXT),
    "batch": ("{{ [1]|batch(10**9, 0)|list }}", "batch: expected smaller"),
    "batch of batches": ("{{ range(9999)|batch(10**6, 0)|list }}", STEPS),
    "slice": ("{{ [1]|slice(10**9)|list }}", "slice: expected smaller"),
    "round": ("{{ 1.5|round(10**9, 'ceil') }}", "round: expected smaller"),
    "tojson": ("{{ [[1]]|tojson(indent=10**9) }}", "tojson: expected smaller"),
    "tojson by text": ("{{ [[1] * 999]|tojson(indent='x' * 9999) }}", TEXT),
    "ljust": ("{{ 'a'.ljust(10**10) }}", TEXT),
    "zfill": ("{{ 'a'.zfill(10**10) }}", TEXT),
    "expandtabs": ("{{ ('\t' * 999).expandtabs(10**9) }}", TEXT),
    "to_bytes": ("{{ (5).to_bytes(10**10, 'big') }}", TEXT),
    "replace": ("{{ ('a' * 99999).replace('a', 'b' * 99999) }}", TEXT),
    "replace, a filter": ("{{ ('a' * 99999)|replace('a', 'b' * 99999) }}", TEXT),
    "join": ("{{ ('b' * 99999).join([''] * 99999) }}", TEXT),
    "join, a filter": ("{{ ([''] * 99999)|join('b' * 99999) }}", TEXT),
    "translate": ("{{ ('a' * 99999).translate({97: 'b' * 99999}) }}", TEXT),
    "tilde": (grow("'a'", "ns.x ~ ns.x"), f"{STEPS}|{TEXT}"),
    "plus": (grow("'a'", "ns.x + ns.x"), f"{STEPS}|{TEXT}"),
    "lists that grow": (grow("[0]", "ns.x + ns.x"), "values at once|steps"),
    "lists that hold themselves": (grow("[0]", "[ns.x, ns.x]"), "values at once|steps"),
    "mappings in mappings": (grow("0", "dict(a=ns.x, b=ns.x)"), "values at once|steps"),
    "tags without end": ("{{ ('<!-- -->' * 99999)|striptags }}", STEPS),
    "searches": (
        "{% set x = 'a' * 4000000 %}" + LOOP + "{{ 'b' in x }}{% endfor %}", STEPS),
    "cuts": (
        "{% set x = 'a' * 4000000 %}" + LOOP + "{{ x[1:]|length }}{% endfor %}", STEPS),
    "output": (LOOP + "{{ 'a' * 9999 }}{% endfor %}", STEPS),
    "output of a macro": ("{% macro m() %}" + LOOP + "x" * 9999
                          + "{% endfor %}{% endmacro %}{{ m()|length }}", STEPS),
    "output of a block": ("{% set x %}" + LOOP + "{{ 'a' * 9999 }}{% endfor %}"
                          "{% endset %}", STEPS),
    "lorem ipsum": ("{{ lipsum(n=10**9) }}", "'lipsum' is undefined"),
    "parentheses": ("{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}", "RecursionError"),
}  # fmt: skip


@pytest.fixture
def little_memory():
    """Half a gigabyte beyond what the process has; it would be MemoryError past it."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + (512 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_ends_in_an_error(name, little_memory) -> None:
    """Of this module's, with the line; never a MemoryError."""
    template, message = ATTACKS[name]
    with pytest.raises(ValueError, match=rf"chat template, line \d: .*({message})"):
        render_chat_template(template, CHAT, {})


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ range(99999)|sum }}", "4999850001"),
        ("{% for i in range(3) %}{{ loop.length }}{{ loop.last }} {% endfor %}",
         "3False 3False 3True "),
        ("{% for x in [1, [2, [3]]] recursive %}"
         "{{ loop(x) if x is iterable else x }}{% endfor %}", "123"),
        ("{{ '%5.1f|%-4s|%%' % (2.25, 'a') }}", "  2.2|a   |%"),
        ("{{ '{:>4}|{a}'.format(7, a='b') }}", "   7|b"),
        ("{{ 'a' ~ 1 ~ none ~ [2, 'b'] ~ missing }}", "a1None[2, 'b']"),
        ("{{ 'ab'|center(6) }}|{{ 'a\nb'|indent(2) }}", "  ab  |a\n  b"),
        ("{{ [1, 2, 3]|batch(2, 0)|list }}", "[[1, 2], [3, 0]]"),
        ("{{ 'abc'[::-1] }} {{ [1, 2, 3][1:] }}", "cba [2, 3]"),
        ("{{ 1 < 2 < 3 }} {{ 'a' in ['a'] }} {{ 2**10 }} {{ 7 // 2 }}",
         "True True 1024 3"),
        ("{% filter upper %}a{% endfilter %}{% set x %}b{% endset %}{{ x }}", "Ab"),
        ("{% macro m(a, b=[1]) %}{{ a }}{{ b }}{{ caller() }}{% endmacro %}"
         "{% call m(2) %}c{% endcall %}", "2[1]c"),
    ],
)  # fmt: skip
def test_what_is_ordinary_is_as_without_limits(template, text) -> None:
    """Every part that is wrapped gives what jinja2 gives."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    plain = ImmutableSandboxedEnvironment().from_string(template)
    assert plain.render() == text
    assert render_chat_template(template, CHAT, {}) == text


def test_long_conversations_fit() -> None:
    """Text is limited beyond what is given; each message may look at all of them."""
    template = (
        "{% for m in messages %}{% if loop.index == messages|length %}last {% endif %}"
        "{{ m.role + ': ' + m.content|trim }}\n"
        "{{ messages[1:]|selectattr('role', 'equalto', 'tool')|list|length }}"
        "{% endfor %}"
    )
    chat = [{"role": "user", "content": "word " * 200}] * 80
    text = render_chat_template(template, chat, {})
    assert text.count("last ") == 1 and text.count("word") == 80 * 200
    long = [{"role": "user", "content": "x" * (8 << 20)}]
    written = render_chat_template("{{ messages[0].content | trim }}", long, {})
    assert len(written) == 8 << 20


def test_sizes_by_hand() -> None:
    """Everything is counted as often as it is there."""
    assert measure("abc") == Size(1, 3, 0, 0)
    pair = ["ab", 5]
    assert measure([pair, pair]) == Size(7, 4, 2, 5)
    assert measure(range(9)).elements == 10
    with pytest.raises(TooMuchError, match="at most 5 values"):
        measure([0] * 9, 5)


def test_budget_by_hand() -> None:
    """Steps are used up, and each rendering has its own."""
    budget = Budget({"a": "x" * 100}, 1)
    assert budget.text == (4 << 20) + 101
    budget.spend(budget.steps)
    with pytest.raises(TooMuchError, match="too many steps"):
        budget.spend(1)
    with limited({}, 0) as outer, limited({}, 0) as inner:
        assert current() is inner is not outer
