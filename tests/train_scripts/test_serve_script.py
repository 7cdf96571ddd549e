"""Test the command that serves: what it refuses to start with, and a real server."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from configs.serve import Config
from jeff_llm.confidence import Router
from jeff_llm.kv.make_cache import MakeCache
from train_scripts.routing.logs import write_routers
from train_scripts.serve import run as serve

ROOT = Path(__file__).parents[2]
KEY = "sk-of-this-server"
ROUTED = {"router": "router.json", "large": "http://127.0.0.1:9", "large_model": "l"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_batch": 0}, "max_batch: expected at least 1"),
        ({"port": 70000}, "port: expected 0 to 65535"),
        ({"api_key": "a", "api_key_file": "b"}, "got both"),
        ({"router": "a.json"}, "large: expected router, large and large_model"),
        ({"large": "http://a"}, "large: expected router, large and large_model"),
        ({"log": "a.jsonl"}, "log: expected a router"),
        ({"measure": "margin"}, "measure: expected one of"),
        (ROUTED | {"measure": "selfref"}, "adapters that were taught"),
        (ROUTED | {"large_timeout": 0}, "large_timeout: expected"),
    ],
)
def test_settings_that_do_not_go_together(fields, said):
    with pytest.raises(ValueError, match=said):
        Config(**fields)


def test_a_server_is_built_from_its_settings(tiny_chat_model, tmp_path, capsys):
    write_routers(
        tmp_path / "router.json",
        {"match": Router(0.25, rate=0.5, measure="perplexity")},
    )
    key = tmp_path / "key"
    key.write_text(KEY + "\n")
    config = Config(
        **(ROUTED | {"router": str(tmp_path / "router.json")}),
        model=str(tiny_chat_model),
        policy="match",
        kv="8,4",
        api_key_file=str(key),
        log=str(tmp_path / "traffic.jsonl"),
        host="0.0.0.0",
    )
    served = serve.build(config)
    assert isinstance(served.batcher._engine.make_cache, MakeCache)
    assert served.app._routing.router.threshold == 0.25
    assert (tmp_path / "traffic.jsonl").stat().st_mode & 0o777 == 0o600
    # Reachable, and behind a key.
    assert capsys.readouterr().err == ""
    assert KEY not in repr(served) + repr(config)


def test_an_open_door_is_told(tiny_chat_model, capsys):
    for host, warned in [("0.0.0.0", True), ("::", True), ("localhost", False)]:
        serve.build(Config(model=str(tiny_chat_model), host=host))
        assert ("can be reached" in capsys.readouterr().err) == warned


def test_what_is_missing_is_named(tiny_chat_model, tmp_path):
    write_routers(tmp_path / "router.json", {"match": Router(0.25)})
    routed = ROUTED | {"router": str(tmp_path / "router.json")}
    with pytest.raises(ValueError, match=r"policy: expected one of \['match'\]"):
        serve.read_router(Config(**routed))
    (tmp_path / "key").write_text("\n")
    with pytest.raises(ValueError, match="expected a key, got an empty file"):
        serve.build(
            Config(model=str(tiny_chat_model), api_key_file=str(tmp_path / "key"))
        )
    with pytest.raises(ValueError, match="key_bits: expected one of"):
        serve.build(Config(model=str(tiny_chat_model), kv="5,4"))


def test_a_threshold_is_for_one_measure_alone(tmp_path, capsys):
    found = {"known": Router(0.25, measure="average"), "unknown": Router(0.25)}
    write_routers(tmp_path / "router.json", found)
    routed = ROUTED | {"router": str(tmp_path / "router.json")}
    known = Config(**routed, policy="known", measure="average")
    assert serve.read_router(known) == found["known"]
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match="measure: expected 'average', which the thr"):
        serve.read_router(Config(**routed, policy="known"))
    serve.read_router(Config(**routed, policy="unknown"))
    assert "taken to be perplexity" in capsys.readouterr().err


def test_no_key_in_a_repr():
    assert KEY not in repr(Config(api_key=KEY))


def test_a_port_that_is_taken_is_told_before_the_model_is_loaded(monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = ["serve", "--port", str(port), "--model", "no-such-model"]
        monkeypatch.setattr(sys, "argv", words)
        assert serve.main() == 1
    assert f"free, got 127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.slow
def test_the_real_model_is_served_and_ends_politely(smollm2_file, tmp_path):
    """Answers come through OpenAI's client; SIGTERM lets them finish."""
    openai = pytest.importorskip("openai")
    pytest.importorskip("uvicorn")
    (tmp_path / "key").write_text(KEY)
    words = ["--port", "0", "--no-warm-up", "--api-key-file", str(tmp_path / "key")]
    server = subprocess.Popen(
        [sys.executable, "-m", "train_scripts.serve", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    try:
        url = re.fullmatch(r"listening at (\S+)\n", server.stdout.readline())[1]
        http = openai.DefaultHttpxClient(trust_env=False)
        with openai.OpenAI(
            base_url=url, api_key=KEY, max_retries=0, http_client=http
        ) as client:
            create = client.chat.completions.create
            asked = {"model": "smollm2", "temperature": 0}
            capital = [{"role": "user", "content": "What is the capital of France?"}]
            said = create(messages=capital, max_tokens=20, **asked)
            assert said.choices[0].message.content == "The capital of France is Paris."
            assert said.choices[0].finish_reason == "stop"
            story = [{"role": "user", "content": "Write a long story."}]
            parts = create(messages=story, max_tokens=96, stream=True, **asked)
            assert next(parts).choices[0].delta.role == "assistant"
            server.send_signal(signal.SIGTERM)
            refused = None
            while refused is None:
                part = next(parts)  # it goes on all the while
                try:
                    create(messages=capital, max_tokens=1, **asked)
                except openai.APIStatusError as error:
                    refused = error
            assert refused.status_code == 503
            assert "ending" in refused.message
            *_, part = parts
            assert part.choices[0].finish_reason == "length"
        out, err = server.communicate(timeout=60)
    finally:
        server.kill()
        server.wait()
    assert server.returncode == 0, err
    assert out == "" and KEY not in err


@pytest.fixture
def smollm2_file():
    from jeff import assets

    pytest.importorskip("gguf")
    try:
        return assets.find("smollm2")
    except FileNotFoundError as error:
        pytest.skip(f"SmolLM2 is not here: {error}")
