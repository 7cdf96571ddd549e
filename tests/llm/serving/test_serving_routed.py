"""Test a server that routes: who answers, what is said of it, and what is logged."""

import contextlib
import json
import math
import stat
import time

import numpy as np
import pytest

from jeff_llm import confidence
from jeff_llm.chat import OpenAICompatible
from jeff_llm.confidence import Router, router_file, selfref
from jeff_llm.serving import Batcher
from jeff_llm.serving.measures import from_tokens, with_confidence_tokens
from jeff_llm.serving.protocol import Limits
from jeff_llm.serving.routed import Routing, TrafficLog
from train_scripts.routing.logs import write_routers

openai = pytest.importorskip("openai")
app_module = pytest.importorskip("jeff_llm.serving.app")

KEY = "sk-of-the-large-model"
WORDS = ["who", "b", "areYou", "zebra"]
PERPLEXITY = from_tokens("perplexity")
EVERYTHING, NOTHING = Router(math.inf), Router(-math.inf)


@pytest.fixture(scope="module")
def large(talking, serving):
    """Address of a large model: another of letters, which is never sure."""
    other = talking._replace(name="large")
    app = app_module.App(other, Batcher(other), api_key=KEY)
    with serving(app) as base:
        yield f"{base}/v1"


@pytest.fixture
def routed(talking, serving, tmp_path):
    """``with routed(router, url) as client``: a small server before a large one."""

    @contextlib.contextmanager
    def run(router, url, measure=PERPLEXITY, **options):
        model = OpenAICompatible(
            url, "large", api_key=KEY, retries=0, **({"timeout": 20} | options)
        )
        log = TrafficLog(tmp_path / "traffic.jsonl", measure="perplexity")
        routing = Routing(router, measure, model, log=log)
        assert KEY not in repr(routing)
        batcher = Batcher(talking)
        app = app_module.App(talking, batcher, limits=Limits("small"), routing=routing)
        http = openai.DefaultHttpxClient(trust_env=False)
        with (
            serving(app) as base,
            openai.OpenAI(
                base_url=f"{base}/v1", api_key="none", max_retries=0, http_client=http
            ) as client,
        ):
            yield client

    return run


def ask(client, word="who", **fields):
    settings = {"model": "small", "temperature": 0, "max_tokens": 6} | fields
    messages = [{"role": "user", "content": word}]
    return client.chat.completions.create(messages=messages, **settings)


def rows(tmp_path):
    lines = (tmp_path / "traffic.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_each_answer_says_who_gave_it(routed, large, tmp_path):
    with routed(EVERYTHING, large) as client:
        said = ask(client)
        raw = client.chat.completions.with_raw_response.create(
            model="small",
            messages=[{"role": "user", "content": "who"}],
            temperature=0,
            max_tokens=6,
        )
    assert said.model == "large"
    assert said.jeff["answered_by"] == "large" and said.jeff["threshold"] == "inf"
    assert not said.jeff["fallback"]
    assert raw.headers["x-jeff-answered-by"] == "large"
    sure = said.jeff["confidence"]
    assert float(raw.headers["x-jeff-confidence"]) == pytest.approx(sure, rel=1e-5)
    with routed(NOTHING, large) as client:
        kept = ask(client)
    assert (kept.model, kept.jeff["answered_by"]) == ("small", "small")
    assert kept.choices[0].message.content == said.choices[0].message.content
    assert kept.usage == said.usage
    first, _, last = rows(tmp_path)
    assert first["large_answer"] == said.choices[0].message.content
    assert last["large_answer"] is None
    assert last["small_answer"] == kept.choices[0].message.content
    assert last["messages"] == [{"role": "user", "content": "who"}]


def test_the_confidence_is_that_of_the_log_probs(routed, large, talking, serving):
    app = app_module.App(talking, Batcher(talking), limits=Limits("small"))
    http = openai.DefaultHttpxClient(trust_env=False)
    with serving(app) as base:
        plain = openai.OpenAI(base_url=f"{base}/v1", api_key="x", http_client=http)
        scores = ask(plain, logprobs=True).choices[0].logprobs.content
        plain.close()
    log_probs = [score.logprob for score in scores]
    for measure, expected in {
        "perplexity": np.exp(np.mean(log_probs)),
        "average": np.mean(np.exp(log_probs)),
    }.items():
        with routed(NOTHING, large, from_tokens(measure)) as client:
            said = ask(client)
        assert said.jeff["confidence"] == pytest.approx(expected, rel=1e-5)


def test_a_stream_is_decided_first(routed, large):
    with routed(EVERYTHING, large) as client:
        whole = ask(client)
        *parts, usage = ask(client, stream=True, stream_options={"include_usage": True})
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == whole.choices[0].message.content
    assert all(part.model == "large" for part in parts)
    assert parts[0].jeff["answered_by"] == "large"
    assert parts[-1].choices[0].finish_reason == "length"
    assert usage.usage == whole.usage


def test_a_large_model_that_is_down_costs_no_answer(routed, large):
    with routed(NOTHING, large) as client:
        expected = ask(client).choices[0].message.content
    with routed(EVERYTHING, "http://127.0.0.1:9/v1") as client:
        said = ask(client)
    assert said.choices[0].message.content == expected
    assert (said.model, said.jeff["answered_by"]) == ("small", "small")
    assert said.jeff["fallback"]


def test_a_slow_one_is_not_waited_for(routed, serve, caplog):
    from http.server import BaseHTTPRequestHandler

    class Slow(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            time.sleep(1)

        def log_message(self, *args):
            pass

    server = serve(Slow)
    with routed(EVERYTHING, f"http://127.0.0.1:{server.server_port}", timeout=0.2) as c:
        said = ask(c)
    assert said.jeff["fallback"] and said.model == "small"
    assert "no answer within 0.2 s" in caplog.text and KEY not in caplog.text


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"n": 2}, "n: "),
        ({"logprobs": True}, "logprobs: "),
        ({"extra_body": {"top_k": 3}}, "top_k: "),
        ({"extra_body": {"min_p": 0.1}}, "min_p: "),
    ],
)
def test_what_one_model_alone_could_do_is_refused(routed, large, fields, named):
    with (
        routed(NOTHING, large) as client,
        pytest.raises(openai.BadRequestError) as caught,
    ):
        ask(client, **fields)
    assert caught.value.body["message"].startswith(named)


def test_a_new_threshold_from_the_log_of_the_traffic(routed, large, tmp_path):
    """The log, marked, is one of `train_scripts.routing`; its file is read here."""
    with routed(NOTHING, large) as client:
        for word in WORDS:
            ask(client, word)
    path = tmp_path / "traffic.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    logged = rows(tmp_path)
    for place, row in enumerate(logged):
        row |= {"small_correct": place % 2 == 0, "large_correct": True}
    path.write_text("".join(json.dumps(row) + "\n" for row in logged))
    logs = confidence.from_jsonl(path)
    assert logs.confidence.tolist() == pytest.approx(
        [row["confidence"] for row in logged], rel=1e-6
    )
    assert logs.measure == "perplexity"
    half = confidence.for_rate(logs.confidence, 0.5)
    write_routers(tmp_path / "router.json", {"half": half})
    again = router_file.load(tmp_path / "router.json")["half"]
    assert again.threshold == half.threshold
    with routed(again, large) as client:
        sent = [ask(client, word).model for word in WORDS]
    below = [row["confidence"] < np.float32(half.threshold) for row in logged]
    assert sent == ["large" if each else "small" for each in below]
    assert sorted(sent) == ["large"] * 2 + ["small"] * 2


def test_confidence_tokens_route_too(talking, routed, large):
    tuned, tokens = selfref.add_tokens(talking)
    measure = with_confidence_tokens(tuned, tokens)
    with routed(NOTHING, large, measure) as client:
        said = ask(client)
    # Both tokens have one row of the embedding until they are trained.
    assert said.jeff["confidence"] == pytest.approx(0.5, abs=1e-5)
    assert measure((1, 2), ()) == 0.0


def test_a_full_disk_costs_no_answer(routed, large, monkeypatch, caplog):
    def full(path, line):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jeff_llm.serving.routed.append_line", full)
    with routed(NOTHING, large) as client:
        assert ask(client).choices[0].message.content
    assert "No space left on device" in caplog.text
