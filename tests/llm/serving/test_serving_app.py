"""Test the server with OpenAI's own client over loopback."""

import asyncio
import json
import logging
import socket
import time

import pytest

from jeff_llm import generate
from jeff_llm.serving import Batcher
from jeff_llm.serving.engine import Batch
from jeff_llm.serving.protocol import Limits

openai = pytest.importorskip("openai")
app_module = pytest.importorskip("jeff_llm.serving.app")

KEY = "sk-0123456789"
QUESTION = [{"role": "user", "content": "who"}]
GREEDY = {"model": "letters", "temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def url(talking, serving):
    batcher = Batcher(talking, max_batch=4, piece=3)
    limits = Limits("letters", max_tokens=20)
    app = app_module.App(talking, batcher, limits=limits, api_key=KEY)
    with serving(app) as address:
        yield f"{address}/v1"


@pytest.fixture(scope="module")
def client(url):
    http = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(
        base_url=url, api_key=KEY, max_retries=0, http_client=http
    ) as made:
        yield made


@pytest.fixture(scope="module")
def plain():
    """A client of HTTP."""
    with openai.DefaultHttpxClient(trust_env=False) as made:
        yield made


@pytest.fixture(scope="module")
def expected(talking):
    text = talking.tokenizer.apply_chat_template(QUESTION)
    found = generate.generate(talking, [text], max_new_tokens=12)
    return found.texts[0]


def test_a_chat(client, expected, talking):
    said = client.chat.completions.create(messages=QUESTION, **GREEDY)
    assert said.choices[0].message.content == expected
    assert said.choices[0].finish_reason == "length"
    assert said.model == "letters" and said.object == "chat.completion"
    prompt = talking.tokenizer.apply_chat_template(QUESTION)
    assert (said.usage.prompt_tokens, said.usage.completion_tokens) == (len(prompt), 12)
    assert said.usage.total_tokens == len(prompt) + 12


def test_a_stream_says_the_same(client, expected):
    chunks = list(
        client.chat.completions.create(
            messages=QUESTION,
            stream=True,
            stream_options={"include_usage": True},
            **GREEDY,
        )
    )
    *parts, usage = chunks
    texts = [part.choices[0].delta.content for part in parts]
    assert "".join(text or "" for text in texts) == expected
    assert len([text for text in texts if text]) > 2, "it came in pieces"
    assert parts[0].choices[0].delta.role == "assistant"
    assert parts[-1].choices[0].finish_reason == "length"
    assert usage.choices == [] and usage.usage.completion_tokens == 12


def test_a_plain_completion(client, talking):
    prompts = ["abc", "xyz"]
    found = generate.generate(talking, prompts, max_new_tokens=5).texts
    asked = GREEDY | {"max_tokens": 5}
    said = client.completions.create(prompt=prompts, **asked)
    assert [choice.text for choice in said.choices] == found
    assert said.usage.prompt_tokens == 6 and said.usage.completion_tokens == 10
    ids = talking.encode("abc")
    assert client.completions.create(prompt=ids, **asked).choices[0].text == found[0]
    stream = client.completions.create(prompt="abc", stream=True, **asked)
    assert "".join(part.choices[0].text for part in stream) == found[0]


def test_a_stop_text_is_never_sent(client, expected):
    stop = expected[4:7]
    before = expected[: expected.index(stop)]
    asked = GREEDY | {"messages": QUESTION, "stop": [stop]}
    said = client.chat.completions.create(**asked).choices[0]
    assert (said.message.content, said.finish_reason) == (before, "stop")
    parts = list(client.chat.completions.create(stream=True, **asked))
    assert "".join(part.choices[0].delta.content or "" for part in parts) == before
    assert parts[-1].choices[0].finish_reason == "stop"


def test_log_probs_of_a_chat(client, expected):
    asked = GREEDY | {"messages": QUESTION, "logprobs": True, "top_logprobs": 2}
    scores = client.chat.completions.create(**asked).choices[0].logprobs.content
    assert "".join(score.token for score in scores) == expected
    for score in scores:
        assert score.top_logprobs[0].token == score.token
        assert score.top_logprobs[0].logprob == pytest.approx(score.logprob, abs=1e-4)
        assert bytes(score.bytes).decode() == score.token
    parts = client.chat.completions.create(stream=True, **asked)
    streamed = [
        score
        for part in parts
        if part.choices[0].logprobs
        for score in part.choices[0].logprobs.content
    ]
    assert [score.token for score in streamed] == [score.token for score in scores]


def test_log_probs_of_a_completion(client):
    scores = client.completions.create(prompt="abc", logprobs=2, **GREEDY)
    scores = scores.choices[0].logprobs
    assert scores.text_offset == list(range(12))
    best = zip(scores.tokens, scores.top_logprobs, strict=True)
    assert all(max(top, key=top.get) == token for token, top in best)


def test_a_seed_makes_an_answer_again(client):
    """Alone, as one of several choices, and beside other requests."""
    asked = GREEDY | {"messages": QUESTION, "temperature": 1.0}
    create = client.chat.completions.create
    texts = [choice.message.content for choice in create(seed=5, n=3, **asked).choices]
    assert len(set(texts)) == 3
    for place, text in enumerate(texts):
        alone = create(seed=5 + place, **asked).choices[0].message.content
        assert alone == text
    one, two = (create(**asked).choices[0].message.content for _ in range(2))
    assert one != two, "without a seed it is another one each time"


def test_cuts_of_the_distribution(client, expected):
    asked = GREEDY | {"messages": QUESTION, "temperature": 1.0}
    for cut in ({"top_k": 1}, {"min_p": 1.0}):
        said = client.chat.completions.create(extra_body=cut, **asked)
        assert said.choices[0].message.content == expected, cut
    said = client.chat.completions.create(top_p=1e-6, **asked)
    assert said.choices[0].message.content == expected


def test_the_models(client):
    (model,) = client.models.list().data
    assert model.id == "letters" and model.max_model_len == 128


def test_a_long_prompt_is_refused_with_the_counts(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(prompt="a" * 120, **GREEDY)
    assert caught.value.code == "context_length_exceeded"
    assert "128 tokens" in caught.value.message
    assert "120 and 12" in caught.value.message


def test_the_key_is_asked_for(url, plain):
    for headers in ({}, {"authorization": "Bearer sk-other"}, {"authorization": KEY}):
        came = plain.get(f"{url}/models", headers=headers)
        assert came.status_code == 401
        assert came.json()["error"]["code"] == "invalid_api_key"
        assert KEY not in came.text
    health = plain.get(url.replace("/v1", "/health"))
    assert health.json()["status"] == "ok"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"temprature": 1}, "temprature: expected no such field"),
        ({"": 1}, '"": expected no such field'),
        ({"temperature": "warm"}, "temperature: "),
        ({"temperature": True}, "temperature: "),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens: "),
        ({"top_p": 0}, "top_p: "),
        ({"seed": -1}, "seed: "),
        ({"stop": ["a", ""]}, "stop: "),
        ({"n": 1000}, "n: expected at most 256 answers, got 1000"),
        ({"messages": []}, "messages: "),
        ({"messages": "who"}, "messages: "),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role: "),
        ({"messages": [{"role": "user", "content": 1}]}, "messages.0.content"),
        (
            {"messages": [{"role": "user", "content": "a", "tool_calls": [1]}]},
            "messages.0.tool_calls: ",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "text": "a"}]}
                ]
            },
            "messages.0.content",
        ),
        ({"response_format": {"type": "json_object"}}, "response_format: "),
        ({"tools": [{"type": "function"}]}, "tools: "),
        ({"logit_bias": {"3": 5}}, "logit_bias: "),
        ({"presence_penalty": 0.5}, "presence_penalty: "),
        ({"store": 0}, "store: "),
        ({"top_logprobs": 2}, "top_logprobs: expected logprobs true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs: "),
        ({"stream_options": {"include_usage": True}}, "stream_options: "),
        ({"prompt": "who"}, "prompt: expected no such field"),
    ],
)
def test_every_field_is_applied_or_refused_by_name(client, fields, named):
    asked = GREEDY | {"messages": QUESTION} | fields
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body=asked, cast_to=object)
    assert caught.value.body["message"].startswith(named)
    assert caught.value.body["type"] == "invalid_request_error"


def test_what_changes_nothing_is_taken(client, expected):
    said = client.chat.completions.create(
        messages=[{"role": "user", "content": [{"type": "text", "text": "who"}]}],
        frequency_penalty=0,
        presence_penalty=0.0,
        logit_bias={},
        n=1,
        response_format={"type": "text"},
        tools=[],
        user="someone",
        metadata={"of": "a test"},
        stop=None,
        **GREEDY,
    )
    assert said.choices[0].message.content == expected


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b'{"a":1,"a":2}', b'{"n":1e999}', b"[" * 10**5),
        b'{"\\ud800":1}',
    ],
)
def test_bad_json_is_no_fault_of_the_server(url, plain, body):
    for path in ("chat/completions", "completions"):
        came = plain.post(
            f"{url}/{path}",
            content=body,
            headers={"authorization": f"Bearer {KEY}"},
        )
        assert came.status_code == 400
        assert came.json()["error"]["message"].startswith("body: ")


def test_other_paths_and_models(client, url):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(messages=QUESTION, model="gpt")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match="expected GET /v1/models"):
        client.embeddings.create(input="a", model="letters")


@pytest.mark.parametrize("room", [256, 16])
def test_two_hundred_clients_at_once(talking, serving, room):
    """Each gets its answer; beyond the limit, and only then, a 503."""
    batcher = Batcher(talking, max_batch=8, max_waiting=room)
    limits = Limits("letters", max_rows=room)
    create = {"model": "letters", "max_tokens": 3, "temperature": 1.0}

    async def ask_all(base):
        # A busy machine accepts late; the default is five seconds.
        http = openai.DefaultAsyncHttpxClient(trust_env=False, timeout=300)
        async with openai.AsyncOpenAI(
            base_url=f"{base}/v1",
            api_key="none",
            max_retries=0,
            timeout=300,
            http_client=http,
        ) as client:
            asked = [
                client.completions.create(prompt="abc", seed=seed, **create)
                for seed in range(200)
            ]
            return await asyncio.gather(*asked, return_exceptions=True)

    with serving(app_module.App(talking, batcher, limits=limits)) as base:
        came = asyncio.run(ask_all(base))
    answered = [each for each in came if not isinstance(each, Exception)]
    refused = [each for each in came if isinstance(each, openai.APIStatusError)]
    others = [e for e in came if isinstance(e, Exception) and e not in refused]
    assert not others
    assert len(answered) == 200 if room >= 200 else len(answered) >= room
    assert all(len(each.choices[0].text) <= 3 for each in answered)
    for each in refused:
        assert each.status_code == 503 and each.response.headers["retry-after"] == "1"


def test_a_client_that_leaves_stops_its_rows_alone(
    talking, serving, plain, monkeypatch
):
    batcher = Batcher(talking, max_batch=4, piece=1)
    app = app_module.App(talking, batcher, limits=Limits("letters"))
    asked = {"model": "letters", "prompt": "abc", "max_tokens": 100, "temperature": 0}
    advance, steps = Batch.advance, []

    def waiting(batch):
        """The first batch goes on after five tokens once its client has left."""
        steps.append(batch)
        deadline = time.monotonic() + 60
        while steps.count(steps[0]) >= 5 and not steps[0].done:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        advance(batch)

    with serving(app) as base:
        path = f"{base}/v1/completions"
        whole = plain.post(path, json=asked).json()
        monkeypatch.setattr(Batch, "advance", waiting)
        with plain.stream("POST", path, json=asked | {"stream": True}) as leaving:
            next(leaving.iter_lines())
        again = plain.post(path, json=asked).json()
    assert again["choices"] == whole["choices"]
    assert steps.count(steps[0]) <= 5 and len(steps) == steps.count(steps[0]) + 99
    assert app.idle and batcher.join(60)


def test_a_client_that_leaves_within_its_request_is_no_fault(talking, serving, caplog):
    app = app_module.App(talking, Batcher(talking))
    with serving(app) as base:
        host, port = base.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as leaving:
            leaving.sendall(
                b"POST /v1/completions HTTP/1.1\r\n"
                b"host: a\r\ncontent-length: 9\r\n\r\n{"
            )
            deadline = time.monotonic() + 30
            while app.idle:
                assert time.monotonic() < deadline
                time.sleep(0.001)
    assert app.idle and not caplog.records


def test_a_fault_of_the_model_is_a_500_and_the_server_goes_on(
    client, expected, monkeypatch, caplog
):
    from jeff_llm.serving import engine

    begin, go_on = engine._begin, engine._go_on

    def broken(*args, **options):
        raise RuntimeError(f"out of memory at {KEY[:3]}")

    create = client.chat.completions.create
    with caplog.at_level(logging.CRITICAL):
        monkeypatch.setattr(engine, "_begin", broken)
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError) as caught:
                create(messages=QUESTION, stream=stream, **GREEDY)
            assert caught.value.status_code == 500
            assert caught.value.code == "internal_error"
            assert "out of memory" not in caught.value.message
        monkeypatch.setattr(engine, "_begin", begin)
        monkeypatch.setattr(engine, "_go_on", broken)
        with pytest.raises(openai.APIError, match="the model failed"):
            list(create(messages=QUESTION, stream=True, **GREEDY))
    monkeypatch.setattr(engine, "_go_on", go_on)
    said = create(messages=QUESTION, **GREEDY)
    assert said.choices[0].message.content == expected


def test_no_key_in_a_repr(talking):
    app = app_module.App(talking, Batcher(talking), api_key=KEY)
    assert KEY not in repr(app) + json.dumps({k: repr(v) for k, v in vars(app).items()})
