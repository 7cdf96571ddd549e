"""Rows of the user's own: conversations, marked answers, traffic, traces, texts."""

from pathlib import Path
from typing import Any

from mutate import Format
from mutated_data import LOG, TRACES, check_log, check_traces, jsonl, text
from mutated_models import CONFIG, params, tokenizer

from jeff import files
from jeff_llm.anomaly import texts
from jeff_llm.chat.messages import conversation
from jeff_llm.confidence import from_jsonl, router_file
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.reasoning import traces
from jeff_llm.serving.protocol import Asked
from jeff_llm.serving.routed import Decision, TrafficLog
from jeff_llm.serving.rows import Piece
from jeff_llm.tuning import finetune
from train_scripts.selfref.own import read_questions

__all__ = ["FORMATS"]


def saved(*rows: dict[str, Any]) -> Any:
    """Writes a Hugging Face data set."""

    def make(path: Path) -> Path:
        import datasets

        datasets.Dataset.from_list(list(rows)).save_to_disk(str(path))
        return path

    return make


# Fine-tuning: conversations, and prompts with answers.
TURNS = [
    {"role": "system", "content": "A"},
    {"role": "user", "content": "AB"},
    {"role": "assistant", "content": "BA"},
]
EXAMPLES = (
    {"messages": TURNS},
    {"prompt": "AB", "answer": "B"},
    {"prompt": TURNS[:2], "answer": "A", "id": 3},
)


def language_model() -> LanguageModel:
    return LanguageModel(CONFIG, params(), tokenizer(), "tiny")


def read_examples(path: Path) -> Any:
    lines = list(files.json_lines(path))
    return finetune.encode_examples(
        language_model(),
        [row for _, row in lines],
        max_tokens=200,
        places=[place for place, _ in lines],
    )


def check_examples(path: Path, found: Any) -> None:
    for tokens, learned in found:
        assert 0 < len(tokens) == len(learned) <= 200
        assert all(0 <= token < CONFIG.vocab_size for token in tokens)
        # An example that teaches nothing is no example.
        assert set(learned) == {0.0, 1.0}


# Self-REF: questions with accepted answers, or with a mark.
MARKED = (
    {"prompt": "AB", "answer": ["A", "B"]},
    {"prompt": TURNS[:2], "answer": "A"},
    {"prompt": "B", "response": "A", "correct": True},
)


def read_marked(path: Path) -> Any:
    return read_questions(path, language_model())


# The server's log of what it routed, marked by hand.
def traffic(path: Path) -> Path:
    asked = Asked((), tuple(conversation("AB")), 3, False, False, False)
    log = TrafficLog(path, measure="perplexity")
    for number in range(4):
        log.write(asked, Piece("A"), Decision(number / 4, 0.5, None, False))
    marks = {"large_correct": True}
    rows = [
        row | marks | {"small_correct": number % 2 == 0}
        for number, (_, row) in enumerate(files.json_lines(path))
    ]
    return jsonl(*rows)(path)


def log_probs(path: Path) -> Path:
    rows = [
        {name: row[name] for name in ("small_correct", "large_correct")}
        | {"token_logprobs": [-0.5, -0.1 * number]}
        for number, row in enumerate(LOG)
    ]
    return jsonl(*rows)(path)


def routers(path: Path) -> Path:
    """A file of an earlier jeff, whose routers name no measure."""
    fields = {"threshold": "inf", "tie_rate": 0.5, "rate": None, "accuracy": 0.5}
    files.write_json(path, {"all": fields | {"max_error": None, "delta": None}})
    return path


# Traces: the samples of a question in one row.
NESTED = [
    {
        "question": f"q{i}",
        "runs": {
            name: {"answer": f"a{i % 2}", "tokens": 10 + i, "correct": i % 2 == 0}
            for name in ("full", "short")
        },
    }
    for i in range(3)
]


def read_nested(path: Path) -> Any:
    return traces.from_jsonl(path, samples="runs")


# Texts: a table, lines under another ending, a data set.
ROWS = [{"text": f"the {word}", "id": i} for i, word in enumerate("abc")]


def check_texts(path: Path, found: Any) -> None:
    del path
    for each in found:
        assert each.place.rpartition(":")[2].isdigit()


FORMATS = [
    Format("examples", "a.jsonl", jsonl(*EXAMPLES), read_examples, check_examples),
    Format("answers, marked", "a.jsonl", jsonl(*MARKED), read_marked),
    Format("traffic", "a.jsonl", traffic, from_jsonl, check_log),
    Format("log-probabilities", "a.jsonl", log_probs, from_jsonl, check_log),
    Format("log, saved", "log", saved(*LOG), from_jsonl, check_log, needs="datasets"),
    Format("routers, no measure", "router.json", routers, router_file.load),
    Format("traces, nested", "a.jsonl", jsonl(*NESTED), read_nested, check_traces),
    Format(
        "traces, saved",
        "traces",
        saved(*TRACES),
        traces.from_jsonl,
        check_traces,
        needs="datasets",
    ),
    Format(
        "texts, tabs",
        "a.tsv",
        text("id\ttext\n1\tthe first\n2\tthe second\n"),
        texts.read_texts,
        check_texts,
    ),
    Format("texts, ndjson", "a.ndjson", jsonl(*ROWS), texts.read_texts, check_texts),
    Format(
        "texts, saved",
        "texts",
        saved(*ROWS),
        texts.read_texts,
        check_texts,
        needs="datasets",
    ),
]
