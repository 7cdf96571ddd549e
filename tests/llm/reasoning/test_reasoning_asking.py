"""Test voting through chat models: made, cached, and an endpoint over loopback."""

import json
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest
from scipy import stats

from jeff_llm import chat
from jeff_llm.reasoning import asking, prompts

NEVER = asking.all_samples_rule()


class Scripted:
    """Says what a list has for each seed, and remembers the requests."""

    name = "scripted"

    def __init__(self, *texts):
        self.texts, self.seen = texts, []

    async def answer(self, request):
        self.seen.append(request)
        text = self.texts[request.seed % len(self.texts)]
        return chat.Answer(text, "stop", 10, len(text.split()), cost=0.5)


def say(*numbers):
    return [f"So the answer is {n}." if n is not None else "Hm." for n in numbers]


def test_all_samples_vote():
    model = Scripted(*say(7, 8, None, 8, 7, 8, 9))
    found = asking.ask(model, "6 + 2?", rule=NEVER, max_samples=7, window=3)
    assert found.answer == "8"
    assert found.votes == {"7": 2, "8": 3, "9": 1}
    assert found.samples == 7 and not found.stopped
    assert [each.text for each in found.answers] == list(model.texts)
    assert found.tokens == 5 * 6 + 1 and found.cost == 3.5
    assert [each.seed for each in model.seen] == list(range(7))
    assert {each.temperature for each in model.seen} == {0.7}
    content = model.seen[0].messages[0].content
    assert content == prompts.step_by_step("6 + 2?")


def test_of_equal_votes_the_first_answer_counts():
    found = asking.ask(Scripted(*say(3, 5, 5, 3)), "?", rule=NEVER, max_samples=4)
    assert found.answer == "3"


def test_no_answer_at_all():
    found = asking.ask(Scripted("Hm."), "?", rule=NEVER, max_samples=3)
    assert found.answer is None and found.votes == {} and found.samples == 3


def test_early_stopping_in_windows():
    """The first window of equal answers ends it, and what was asked is paid."""
    model = Scripted(*say(1, 2, 1, 2, 2, 2, 1, 1, 1))
    rule = asking.early_stopping_rule(3)
    found = asking.ask(model, "?", rule=rule, window=3)
    assert found.samples == 6 and found.stopped and found.answer == "2"
    assert len(model.seen) == 6


def test_the_unanimous_window_wins_against_the_majority():
    """As in the paper: 8 samples of windows that disagree do not count against it."""
    model = Scripted(*say(1, 1, 1, 1, 2, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2))
    found = asking.ask(model, "?", rule=asking.early_stopping_rule(5))
    assert found.samples == 15 and found.votes == {"1": 8, "2": 7}
    assert found.answer == "2"


@pytest.mark.parametrize("kind", ["early", "adaptive"])
def test_rules_are_those_of_voting(kind):
    """The same samples and answers as the array functions, on many random votes."""
    voting = pytest.importorskip("jeff_llm.reasoning.voting")
    rng = np.random.default_rng(0)
    codes = rng.choice(4, p=[0.6, 0.2, 0.1, 0.1], size=(24, 20)) - 1
    codes[12:] = rng.choice(3, p=[0.1, 0.8, 0.1], size=(12, 20))
    if kind == "early":
        rule, window = asking.early_stopping_rule(4), 4
        want = voting.early_stopping(codes, window=4)
    else:
        rule, window = asking.adaptive_consistency_rule(0.95), 1
        want = voting.adaptive_consistency(codes, threshold=0.95)
    for row, answer, samples in zip(codes, want.answer, want.samples, strict=True):
        model = Scripted(*say(*[None if code < 0 else code for code in row]))
        found = asking.ask(model, "?", rule=rule, window=window, max_samples=20)
        assert found.samples == samples
        assert found.answer == (None if answer < 0 else str(answer))
    assert len(set(np.asarray(want.samples).tolist())) > 2


@pytest.mark.parametrize(
    ("codes", "stops"),
    [
        ([0, 0, 0], True),
        ([0, 0, 1], False),
        ([0, 1, 1, 1], False),  # windows do not overlap
        ([0, 1, 2, 3, 3, 3], True),
        ([-1, -1, -1], False),  # no answer agrees with nothing
        ([0, 0], False),
        ([], False),
    ],
)
def test_windows_by_hand(codes, stops):
    assert asking.early_stopping_rule(3)(np.array(codes, int)) is stops


def test_adaptive_consistency_is_the_tail_of_a_beta():
    for first, second in ((0, 0), (1, 0), (4, 0), (5, 2), (9, 3), (12, 12)):
        codes = np.array([4] * first + [1] * second + [2] * min(second, 1) + [-1], int)
        tail = stats.beta.sf(0.5, first + 1, second + 1)
        for threshold in (0.6, 0.9, 0.95, 0.99):
            rule = asking.adaptive_consistency_rule(threshold)
            assert rule(codes) == (tail >= threshold), (first, second)


def test_adaptive_consistency_stops_a_clear_vote():
    model = Scripted(*say(4))
    found = asking.ask(model, "?", rule=asking.adaptive_consistency_rule(), window=1)
    assert found.samples == 4 and found.answer == "4"


def test_a_rule_at_the_last_sample_does_not_count_as_a_stop():
    found = asking.ask(
        Scripted(*say(4)), "?", rule=lambda codes: len(codes) == 3, max_samples=3
    )
    assert found.samples == 3 and not found.stopped


def test_many_questions_at_a_time():
    model = Scripted(*say(4))

    async def both():
        return await chat.map_async(
            lambda text: asking.ask_until(model, text, rule=NEVER, max_samples=2),
            ["a", "b"],
        )

    assert [each.answer for each in chat.run(both())] == ["4", "4"]


def test_paid_samples_are_free_under_another_rule(tmp_path):
    model = Scripted(*say(4, 4, 5, 4, 4))
    cached = chat.Cached(model, tmp_path / "answers.db")
    first = asking.ask(cached, "?", rule=NEVER, max_samples=5)
    assert first.cost == 2.5
    again = asking.ask(cached, "?", rule=asking.early_stopping_rule(2), window=2)
    assert again.samples == 2 and again.cost == 0 and again.answers[0].cached
    assert len(model.seen) == 5


def test_a_failed_request_is_raised():
    class Broken(Scripted):
        async def answer(self, request):
            raise chat.ChatError(self.name, 2, "status 500")

    with pytest.raises(chat.AskError):
        asking.ask(Broken("x"), "?", rule=NEVER)


def test_the_samples_before_a_failure_are_handed_over():
    class Breaking(Scripted):
        async def answer(self, request):
            if request.seed == 4:
                raise chat.ChatError(self.name, 2, "status 500")
            return await super().answer(request)

    with pytest.raises(chat.AskError, match="1 of 3 samples failed") as caught:
        asking.ask(Breaking("x"), "?", rule=NEVER, max_samples=9, window=3)
    texts = [getattr(each, "text", None) for each in caught.value.results]
    assert texts == ["x"] * 4 + [None, "x"]


def test_errors_name_the_argument():
    for name, value in (("max_samples", 0), ("window", 0), ("temperature", 0)):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            asking.ask(Scripted("x"), "?", rule=NEVER, **{name: value})
    with pytest.raises(ValueError, match="window: expected at least 2, got 1"):
        asking.early_stopping_rule(1)
    with pytest.raises(ValueError, match="threshold: expected"):
        asking.adaptive_consistency_rule(0.5)


class Handler(BaseHTTPRequestHandler):
    """An endpoint whose answer depends on the seed alone: odd seeds say 3."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append((body, self.headers["authorization"]))
        text = f"The answer is {3 if body['seed'] % 4 else 5}."
        data = json.dumps(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": "tiny",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": text},
                        "finish_reason": "stop",
                    }
                ],
                "usage": {
                    "prompt_tokens": 100,
                    "completion_tokens": 6,
                    "total_tokens": 106,
                },
            }
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(serve):
    return serve(Handler)


def test_an_endpoint_over_loopback(server):
    pytest.importorskip("openai", reason="the endpoint needs the openai client")
    model = chat.OpenAICompatible(
        f"http://127.0.0.1:{server.server_port}/v1",
        "tiny",
        api_key="sk-secret",
        price=chat.Price(input=1.0, output=10.0),
    )
    found = asking.ask(
        model, "1 + 2?", rule=asking.early_stopping_rule(3), window=3, max_tokens=50
    )
    # Seeds 0 to 2 say 5, 3, 3; seeds 3 to 5 say 3, 5, 3; seeds 6 to 8 say 3, 3, 5;
    # seeds 9 to 11 say 3 each.
    assert found.samples == 12 and found.stopped
    assert found.votes == {"5": 3, "3": 9}
    assert found.tokens == 72
    assert found.cost == pytest.approx(12 * (100 + 60) / 1e6)
    assert sorted(body["seed"] for body, _ in server.seen) == list(range(12))
    assert {key for _, key in server.seen} == {"Bearer sk-secret"}
