"""Test the chat script, on a tiny model and on the real one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs.chat import Config
from jeff import assets
from jeff_llm.models.cache import init_cache
from train_scripts.chat import run as chat
from train_scripts.running.caches import cache_of

ROOT = Path(__file__).parents[2]


def run(*words, timeout=240, **environment):
    return subprocess.run(
        [sys.executable, "-m", "train_scripts.chat", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=timeout,
        env={**os.environ, **environment},
    )


@pytest.mark.slow
def test_the_capital_of_france():
    """The real model answers, with every way to the network closed."""
    try:
        assets.find("smollm2")
    except FileNotFoundError as error:
        pytest.skip(f"SmolLM2 is not here: {error}")
    closed = {"HF_HUB_OFFLINE": "1", "https_proxy": "http://127.0.0.1:9"}
    done = run("--prompt", "What is the capital of France?", **closed)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "The capital of France is Paris.\n"


def test_conversation(tiny_chat_model, capsys):
    config = Config(model=str(tiny_chat_model), max_tokens=4, system="Be brief.")
    model = chat.load(config)
    lines = iter(["hello", "", "/new", "hello", "/quit", "never read"])
    chat.talk(model, config, lambda prompt: next(lines))
    title, first, second = capsys.readouterr().out.splitlines()[:3]
    assert "/quit" in title
    assert first == second, "/new forgets, and greedy answers are equal"
    assert next(lines) == "never read"


def test_a_turn_reads_what_it_adds(tiny_chat_model):
    """And says what the whole conversation, read afresh, would have said."""
    config = Config(model=str(tiny_chat_model), max_tokens=4)
    session = chat.begin(chat.load(config), config, 128)
    messages = [{"role": "user", "content": "two"}]
    first = "".join(chat.answer(session, messages, config))
    read = session.tokens_read
    messages += [
        {"role": "assistant", "content": first},
        {"role": "user", "content": "three"},
    ]
    second = "".join(chat.answer(session, messages, config))
    afresh = chat.begin(chat.load(config), config)
    assert second == "".join(chat.answer(afresh, messages, config))
    assert session.tokens_read - read < afresh.tokens_read


def test_the_packed_cache_is_named_by_its_widths(tiny_chat_model):
    model = chat.load(Config(model=str(tiny_chat_model)))
    assert cache_of("", model.config) is init_cache
    made = cache_of("4, 2", model.config)
    assert (made.config.key_bits, made.config.value_bits) == (4, 2)
    for wrong in ("4", "4,two", "4,2,1"):
        with pytest.raises(ValueError, match="kv: expected bits of keys and values"):
            cache_of(wrong, model.config)
    with pytest.raises(ValueError, match="5"):
        cache_of("5,2", model.config)


def test_packed_weights_and_a_packed_cache(tiny_chat_model, capsys):
    config = Config(model=str(tiny_chat_model), max_tokens=4, packed=True, kv="8,8")
    model = chat.load(config)
    lines = iter(["hello", "again", "/quit"])
    chat.talk(model, config, lambda prompt: next(lines))
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_context_overflow_is_told_and_survived(tiny_chat_model, capsys):
    config = Config(model=str(tiny_chat_model), max_tokens=4)
    lines = iter(["long " * 200, "/new", "hi"])

    def read(prompt):
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    chat.talk(chat.load(config), config, read)
    shown = capsys.readouterr()
    assert "the model's context of 128" in shown.err
    assert len(shown.out.splitlines()) == 3


def test_sampling_hangs_on_the_seed(tiny_chat_model):
    def said(seed):
        config = Config(
            model=str(tiny_chat_model), max_tokens=12, temperature=9.0, seed=seed
        )
        messages = [{"role": "user", "content": "two"}]
        session = chat.begin(chat.load(config), config)
        return "".join(chat.answer(session, messages, config))

    assert said(1) == said(1)
    assert said(1) != said(2)


def test_errors_are_one_line(tmp_path, tiny_chat_model):
    done = run("--prompt", "hi", "--model", str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    with pytest.raises(ValueError, match="max_tokens: expected at least 1, got 0"):
        Config(max_tokens=0)
    with pytest.raises(ValueError, match="dtype: expected float32"):
        Config(dtype="int8")
