"""Test the reading of rankings, and the ranker with scripted and served models."""

import json
import re
from http.server import BaseHTTPRequestHandler
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from jeff_llm import chat
from jeff_llm.genes import conquer, listwise
from jeff_llm.genes.profile_texts import ProfileTexts
from jeff_llm.genes.ranking import Phenotypes
from jeff_llm.genes.ranking_answers import ParsedRanking, parse_ranking

GENES = ["TP53", "BRCA1", "WAS", "C9orf72"]
WHO = Phenotypes(("HP:0001250",))


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("[3, 1, 2, 4]", [2, 0, 1, 3]),
        ('{"ranking": [3, "1", 2, 4]}', [2, 0, 1, 3]),
        ('```json\n{"ranking": ["BRCA1", "tp53"]}\n```', [1, 0]),
        ("Sure! Here it is [2, 1]. Hope this helps [1].", [1, 0]),
        ('[{"rank": 1, "id": 3}, {"rank": 2, "gene": "TP53"}]', [2, 0]),
        ('[{"number": 1, "gene": "BRCA1"}, {"number": 2, "gene": "TP53"}]', [1, 0]),
        ("1. BRCA1 (fits TP53 less)\n2. TP53 - weak\n3. C9ORF72", [1, 0, 3]),
        ("1) **WAS**: immune\n2) **brca1**", [2, 1]),
        ("1. 4\n2. 2", [3, 1]),
        ("- Gene 4\n- Gene 1\n- #2", [3, 0, 1]),
        ("3 > 1 > 2", [2, 0, 1]),
        ("3, 1, 2", [2, 0, 1]),
        ("Ranking: 3, 1", [2, 0]),
        ("BRCA1 was thought of first.\nFinal answer: TP53, BRCA1", [0, 1]),
        ("The cause is WAS, then TP53.", [2, 0]),
        ("<think>[4, 3, 2, 1]</think>[1, 2]", [0, 1]),
        ("2", [1]),
        ("1. TP53", [0]),
    ],
)
def test_answers(text, order):
    found = parse_ranking(text, GENES)
    assert found == ParsedRanking(tuple(order), 0, 0, 4 - len(order))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ((), 0, 0, 4)),
        ("I cannot help with a medical diagnosis, as it was not", ((), 0, 0, 4)),
        ("[7, 2, 0, -1, 2, true]", ((1,), 4, 1, 3)),
        ('["MYC", "WAS", "WAS"]', ((2,), 1, 1, 3)),
        ("1. MYC\n2. TP53\n3. TP53", ((0,), 1, 1, 3)),
        ("1. MYC\n2. KRAS", ((), 2, 0, 4)),
        ('{"ranking": [2, 1', ((1,), 0, 0, 3)),
        ("<think>[1, 2, 3", ((), 0, 0, 4)),
        ("[[[[", ((), 0, 0, 4)),
    ],
)
def test_answers_with_faults(text, wanted):
    assert parse_ranking(text, GENES) == wanted


@given(st.text(alphabet='123[]{}",. \n>TPBRCA5:-<think>/', max_size=60))
def test_any_answer_is_read(text):
    found = parse_ranking(text, GENES)
    assert len(set(found.order)) == len(found.order) == 4 - found.missing
    assert all(0 <= place < 4 for place in found.order)


@given(st.permutations(range(4)), st.sampled_from(["json", "symbols", "lines", "ids"]))
def test_any_order_is_read(order, style):
    numbers, symbols = [i + 1 for i in order], [GENES[i] for i in order]
    text = {
        "json": json.dumps({"ranking": numbers}),
        "symbols": json.dumps(symbols),
        "lines": "\n".join(f"{n}. {s}" for n, s in enumerate(symbols, start=1)),
        "ids": ", ".join(map(str, numbers)),
    }[style]
    assert parse_ranking(text, GENES) == ParsedRanking(tuple(order), 0, 0, 0)


class Scripted:
    """Answers in turn; keeps the requests."""

    name = "scripted"

    def __init__(self, *texts, finish_reason="stop"):
        self.texts, self.seen, self.finish_reason = texts, [], finish_reason

    async def answer(self, request):
        self.seen.append(request)
        text = self.texts[(len(self.seen) - 1) % len(self.texts)]
        return chat.Answer(text, self.finish_reason, 100, 10)


def numbered(phenotypes, genes):
    return f"{phenotypes.observed}: {', '.join(genes)}"


def test_ranking_and_report():
    model = Scripted("[3, 1, 3, 9]", "I cannot say.")
    ranker = listwise.ListwiseRanker(model, numbered, seed=3)
    first, second = ranker.many([(WHO, GENES), (WHO, GENES[:2])])
    assert first.order.tolist() == [2, 0, 1, 3]
    assert first.scores.tolist() == [3, 0, 4, 0]
    assert second.order.tolist() == [0, 1]
    assert (first.calls, first.tokens) == (1, 110)
    assert ranker.report == listwise.Report(2, 1, 1, 1, 4, 0)
    request = model.seen[0]
    assert request.messages[0].content == numbered(WHO, GENES)
    assert (request.max_tokens, request.seed) == (64 + 32, 3)
    schema = json.loads(request.schema)
    assert schema["properties"]["ranking"]["items"]["maximum"] == 4
    assert ranker(WHO, GENES).order[0] == 2
    assert ranker.report.requests == 3


def test_cut_answers_are_counted():
    model = Scripted("[3, 1", finish_reason="length")
    ranker = listwise.ListwiseRanker(model, numbered, schema=False, max_tokens=5)
    assert ranker(WHO, GENES).order.tolist() == [2, 0, 1, 3]
    assert ranker.report == listwise.Report(1, 0, 0, 0, 3, 1)
    assert model.seen[0].schema is None and model.seen[0].max_tokens == 5


def test_estimate_asks_nothing():
    model = Scripted("[1]")
    ranker = listwise.ListwiseRanker(
        model,
        lambda _, genes: "x" * 10 * len(genes),
        max_tokens=50,
        price=chat.Price(input=2.0, output=8.0),
    )
    found = ranker.estimate([(WHO, GENES), (WHO, GENES[:3])])
    assert found[:2] == (2, 14 + 10 + 100)
    assert found.cost == pytest.approx((24 * 2 + 100 * 8) / 1e6)
    counted = listwise.ListwiseRanker(
        model, numbered, max_tokens=50, count_tokens=lambda _: 7
    )
    assert counted.estimate([(WHO, GENES)]) == (1, 57, 0.0)
    assert not model.seen
    for genes, message in (([], "at least one"), (["A", "A"], "each gene once")):
        with pytest.raises(ValueError, match=message):
            ranker.estimate([(WHO, genes)])
        with pytest.raises(ValueError, match=message):
            ranker(WHO, genes)


def test_default_prompt(ten, ids):
    patient = Phenotypes((ids(3),))
    texts = ProfileTexts(ten, num_diseases=0)
    text = listwise.default_prompt(texts)(patient, ["G2", "G1"])
    assert "term 3" in text and "\n1. G2\n2. G1\n" in text and "all 2 genes" in text
    hidden = listwise.default_prompt(texts, describe=True)(patient, ["G2", "G1"])
    assert "G2" not in hidden and f"\n1. {texts.gene('G2')}\n2. " in hidden


def test_a_failed_request_is_raised():
    class Broken(Scripted):
        async def answer(self, request):
            raise chat.ChatError(self.name, 2, "status 500")

    with pytest.raises(ExceptionGroup):
        listwise.ListwiseRanker(Broken("x"), numbered)(WHO, GENES)


class Handler(BaseHTTPRequestHandler):
    """Ranks by the number in a gene's name, in JSON inside a fence."""

    server: Any

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append(body)
        found = re.findall(r"^(\d+)\. G(\d+)$", body["messages"][0]["content"], re.M)
        order = [int(i) for i, _ in sorted(found, key=lambda each: int(each[1]))]
        text = f"```json\n{json.dumps({'ranking': order})}\n```"
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
        }
        tokens = {"prompt_tokens": 50, "completion_tokens": 5, "total_tokens": 55}
        answer = {"model": "tiny", "choices": [choice], "usage": tokens}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def test_an_endpoint_over_loopback(serve, ten, ids, tmp_path, key):
    pytest.importorskip("openai", reason="the endpoint needs the openai client")
    server = serve(Handler)
    endpoint = chat.OpenAICompatible(
        f"http://127.0.0.1:{server.server_port}/v1", "tiny", send_schema=True
    )
    model = chat.Cached(endpoint, tmp_path / "answers.db")
    prompt = listwise.default_prompt(ProfileTexts(ten))
    ranker = listwise.ListwiseRanker(model, prompt)
    genes = [f"G{n}" for n in np.random.default_rng(0).permutation(12)]
    patient = Phenotypes((ids(3),))
    found = ranker(patient, genes)
    assert [genes[i] for i in found.order] == sorted(genes, key=lambda g: int(g[1:]))
    assert (found.calls, found.tokens) == (1, 55)
    assert server.seen[0]["response_format"]["type"] == "json_schema"
    # A strategy asks the same ranker for its groups, and needs no change for it.
    options = {"group_size": 5, "keep": 2, "permutations": 1, "key": key}
    divided = conquer.divide_and_conquer(ranker, patient, genes, **options)
    assert genes[divided.order[0]] == "G0"
    assert divided.calls > 1 and divided.tokens == 55 * divided.calls
    # What was answered once is in the cache.
    asked = len(server.seen)
    conquer.divide_and_conquer(ranker, patient, genes, **options)
    assert len(server.seen) == asked
    assert ranker.report.missing == ranker.report.unreadable == 0
