"""Test the parts "model" and "cities" of the reasoning script on tiny models."""

import dataclasses
import json
import re
from http.server import BaseHTTPRequestHandler

import jax
import numpy as np
import pytest

from configs.reasoning import Config
from jeff import assets
from train_scripts.reasoning import cities, model, model_local, model_setup, problems

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WORDS = ["wait but now", "however the answer is", "think step by step and be concise"]


@pytest.fixture(scope="module")
def write_model(tmp_path_factory):
    """``(special tokens) -> folder`` of a random model that knows reflection words."""
    tokenizers = pytest.importorskip("tokenizers")
    from jeff_llm.models import decoder, weights
    from jeff_llm.models.config import DecoderConfig
    from jeff_llm.models.language_model import LanguageModel
    from jeff_llm.models.tokenizer import from_directory

    def write(*more):
        folder = tmp_path_factory.mktemp("tiny-reasoner")
        special = ["<|end|>", "<|user|>", "<|assistant|>", *more]
        bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
        bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = tokenizers.decoders.ByteLevel()
        bpe.train_from_iterator(
            WORDS * 3,
            tokenizers.trainers.BpeTrainer(
                vocab_size=340,
                special_tokens=special,
                initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            ),
        )
        bpe.save(str(folder / "tokenizer.json"))
        settings = {"eos_token": "<|end|>", "chat_template": TEMPLATE}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        config = DecoderConfig(
            vocab_size=344,
            num_layers=2,
            width=32,
            mlp_width=64,
            num_heads=4,
            num_kv_heads=2,
            head_width=8,
            max_positions=1024,
            tied=False,
        )
        params = decoder.init(config, key=jax.random.key(0))
        # Wide enough that greedy chains differ, and some end.
        params["head"]["kernel"] *= 100
        params["embedding"] *= 30
        return weights.save(
            LanguageModel(config, params, from_directory(folder)), folder
        )

    return write


@pytest.fixture(scope="module")
def folder(write_model):
    return write_model()


@pytest.fixture
def config(folder, monkeypatch):
    """Written problems, so that the test needs no data."""
    monkeypatch.delenv("JEFF_DATA", raising=False)
    return Config(model=str(folder), questions=4, max_new_tokens=24, votes=20)


def test_written_problems_are_right():
    """Their numbers, read back from the text, give the answer."""
    found = problems.write(60, seed=3)
    assert found == problems.write(60, seed=3) and len(set(found)) > 50
    for text, answer in found:
        boxes, each = map(int, re.search(r"has (\d+) boxes with (\d+)", text).groups())
        given = re.search(r"gives (\d+)", text)
        more = re.search(r"finds (\d+) more", text)
        total = boxes * each
        total -= int(given[1]) if given else 0
        total += int(more[1]) if more else 0
        assert int(answer) == total * (2 if "twice" in text else 1)


def test_problems_of_gsm8k(monkeypatch, tmp_path):
    try:
        assets.shared_file(problems.FILE)
    except FileNotFoundError as error:
        pytest.skip(f"GSM8K is not here: {error}")
    found, source = problems.load(10_000)
    assert source == "GSM8K" and [each.answer for each in found[:2]] == ["18", "3"]
    assert len(found) > 800 and all(
        re.fullmatch(r"-?\d+", each.answer) for each in found
    )
    monkeypatch.setenv("JEFF_DATA", str(tmp_path))
    assert problems.load(3)[1] == "written problems"
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / problems.FILE).write_text('{"question": "2 + 2?"}\n')
    with pytest.raises(ValueError, match=r":1: expected question and answer"):
        problems.load(1)


def test_every_control_on_a_model(config, tmp_path):
    """The exact controls hold on any model, also a random one."""
    found = model.measure(config, tmp_path)
    assert (tmp_path / "model.png").is_file()
    names = {name.split("_")[1] for name in found.numbers}
    assert names >= {"plain", "NoWait", "NoThinking", "budget", "wait", "DEER", "TALE"}
    assert all(f"| {name} |" in found.table for name in names)
    assert np.isfinite(list(found.numbers.values())).all()
    assert found.numbers["model_plain_tokens"] <= 24
    # A quarter of the limit, the closing line, and the answer.
    assert found.numbers["model_budget_tokens"] <= 6 + 16 + 16
    assert found.numbers["model_vote of 4_tokens"] <= 4 * 24
    verdict = {claim.claim.split(" (")[0]: claim for claim in found.claims}
    assert len(verdict) == len(found.claims) == 9
    assert verdict["Budget forcing"].holds
    assert verdict["Budget forcing"].measured == "longest thought 6 tokens, budget 6"
    assert verdict["NoWait"].holds and verdict["NoWait"].measured.startswith("0 of")


def test_a_model_with_tokens_that_open_a_thought(write_model):
    from jeff_llm.models import weights

    loaded = weights.load(write_model("<think>", "</think>"))
    setup = model_setup.set_up(loaded, 8)
    tokenizer = loaded.tokenizer
    assert setup.thinks and setup.closing == ""
    assert setup.markers.open == (tokenizer.token_id("<think>"),)
    assert setup.markers.close == (tokenizer.token_id("</think>"),)
    steps = {tokenizer.decode([token]) for token in setup.markers.transitions}
    assert {"\n", ".", "?"} <= steps and not steps & {"a", ",", "but"}
    found = model_local.measure(setup, problems.write(2, seed=0), key=jax.random.key(0))
    assert found.capped.max() <= found.cap == 2
    assert found.reflections[1] == 0
    limits = {"plain": 8 + 1 + 8, "NoThinking": 1 + 8, "budget": 2 + 1 + 8}
    for name, most in limits.items():
        assert (found.branches[name].tokens <= most).all(), name
    rows = setup.rows(["2 + 2?", "1 + 1?"])
    assert tokenizer.decode(rows[0], skip_special_tokens=False).endswith(
        "<|assistant|>"
    )


def test_intervals_decide_a_difference():
    """Below zero, not below, and too few to tell."""
    assert model._negative(model._interval(np.array([-3.0, -2.0, -5.0]))) is True
    assert model._negative(model._interval(np.array([3.0, 2.0, 5.0]))) is False
    assert model._negative(model._interval(np.zeros(4))) is False
    assert model._negative(model._interval(np.array([-9.0, 8.0, -7.0, 9.0]))) is None


def test_votes_by_hand():
    said = ["7", None, "8", "8", "7"]
    rule = model_local.asking.adaptive_consistency_rule(model_local.THRESHOLD)
    assert model_local._used(said, rule) == 5
    assert model_local._used(["7", None, "7", "8", "8"], rule) == 3
    assert model_local._most_frequent(said) == "7"
    assert model_local._most_frequent([None, None]) is None
    assert model_local._spread([*range(10)]) == [2, 4, 7, 9]
    assert model_local._spread([3, 5]) == [3, 5]


class Handler(BaseHTTPRequestHandler):
    """An endpoint that is brief where it is asked to be."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = body["messages"][-1]["content"]
        self.server.seen.append((text, self.headers["authorization"]))
        said, tokens = "The answer is 4.", 60
        if "[[number]]" in text:
            said, tokens = "[[30]]", 5
        elif "less than 30 tokens" in text or "draft" in text:
            tokens = 20
        elif "concise" in text:
            tokens = 40
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": said},
            "finish_reason": "stop",
        }
        usage = {"prompt_tokens": 50, "completion_tokens": tokens}
        data = json.dumps(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": "tiny",
                "choices": [choice],
                "usage": usage | {"total_tokens": 50 + tokens},
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


def test_an_endpoint_is_asked_once(config, server, tmp_path, monkeypatch):
    """Branches from its token counts; a second run reads the stored answers."""
    pytest.importorskip("openai", reason="the endpoint needs the openai client")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    url = f"http://127.0.0.1:{server.server_port}/v1"
    asked = {"chat": url, "chat_model": "tiny", "prices": (1.0, 2.0)}
    config = dataclasses.replace(config, **asked, max_new_tokens=64)
    found = model.measure(config, tmp_path)
    numbers = found.numbers
    tokens = {
        "plain": 60,
        "concise": 40,
        "chain of draft": 20,
        "TALE": 25,  # with the estimate
        "vote of 4": 240,
        "adaptive vote": 120,
    }
    assert {n: numbers[f"model_{n}_tokens"] for n in tokens} == tokens
    assert [claim.holds for claim in found.claims] == [True] * 3
    assert numbers["model_requests"] == 4 * (5 + 4 + 2)
    # The adaptive vote asks for samples that the plain vote has paid for.
    assert numbers["model_cached"] == 4 * 2 and len(server.seen) == 4 * 9
    assert {key for _, key in server.seen} == {"Bearer sk-very-secret"}
    again = model.measure(config, tmp_path)
    assert len(server.seen) == 4 * 9
    assert again.numbers["model_cached"] == again.numbers["model_requests"]
    assert again.numbers["model_plain_tokens"] == 60
    # What the first start paid is part of what the run cost.
    assert again.numbers["model_cost"] == numbers["model_cost"] > 0
    for path in tmp_path.rglob("*"):
        assert b"sk-very-secret" not in path.read_bytes()


@pytest.fixture
def cities_are_here():
    for name in ("cities", "countries"):
        try:
            assets.find(name)
        except FileNotFoundError as error:
            pytest.skip(f"{name} are not here: {error}")


@pytest.mark.usefixtures("cities_are_here")
def test_samples_resume_where_they_were(config, tmp_path, monkeypatch):
    config = dataclasses.replace(config, cities=5, votes=50)
    whole = cities.draw(config, tmp_path / "whole")
    rows = [json.loads(line) for line in whole.read_text().splitlines()]
    assert len(rows) == 250
    assert len({row["question"] for row in rows}) == 5
    for begin in range(0, 250, 50):
        some = rows[begin : begin + 50]
        assert sorted(row["order"] for row in some) == list(range(50))
        by_order = sorted(some, key=lambda row: row["order"])
        lengths = [row["tokens"] for row in by_order]
        assert (
            lengths == sorted(lengths)
            and lengths[0] >= 1
            and lengths[-1] <= cities._TOKENS
        )
    assert all((row["answer"] or "") == row["text"] for row in rows)

    sample, calls = cities._sample, []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return sample(*arguments)

    monkeypatch.setattr(cities, "_sample", killed)
    with pytest.raises(KeyboardInterrupt):
        cities.draw(config, tmp_path / "broken")
    assert not (tmp_path / "broken" / "traces.jsonl").exists()
    again = cities.draw(config, tmp_path / "broken")
    assert len(calls) == 4, "one batch was there already, two were left"
    assert again.read_bytes() == whole.read_bytes()
    other = dataclasses.replace(config, votes=40)
    with pytest.raises(ValueError, match="expected samples of"):
        cities.draw(other, tmp_path / "broken")


@pytest.mark.usefixtures("cities_are_here")
def test_samples_are_analysed_like_your_own(config, tmp_path):
    pytest.importorskip("train_scripts.reasoning.traces")
    config = dataclasses.replace(config, cities=8, votes=20, answer="mine")
    found = cities.analyse(config, tmp_path)
    assert found.table and found.numbers
