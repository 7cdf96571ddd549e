"""Test the anomaly script on texts of the user's own, from file to report."""

import dataclasses
import io
import json
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest

from configs.anomaly import PRESETS, Config
from jeff_llm.anomaly import text_detector
from train_scripts.anomaly import own
from train_scripts.anomaly import run as anomaly
from train_scripts.cli import main
from train_scripts.running import results

STRANGE = ["PRIZE!!! CALL 0800", "", "\u65e5\u672c\u8a9e \U0001f600", "x" * 100_000]


def lines(count, seed=0):
    rng = np.random.default_rng(seed)
    words = [f"word{number}" for number in range(50)]
    sizes = rng.integers(3, 9, count)
    return [f"{i} " + " ".join(rng.choice(words, n)) for i, n in enumerate(sizes)]


@pytest.fixture(autouse=True)
def no_encoder(monkeypatch):
    """These runs look at characters alone; MiniLM is not even opened."""

    def refuse():
        raise AssertionError("MiniLM was opened")

    monkeypatch.setattr(own, "_minilm", refuse)


@pytest.fixture
def config(tmp_path):
    normal = tmp_path / "normal.txt"
    normal.write_text("\n".join([*lines(150), "", lines(150)[0]]), encoding="utf-8")
    new = tmp_path / "new.csv"
    rows = [*lines(20, seed=9), *STRANGE, STRANGE[0], "a|b\nc \x1b[31m"]
    table = "".join('"{}"\n'.format(row.replace('"', '""')) for row in rows)
    new.write_text("text\n" + table, encoding="utf-8")
    return Config(
        data=str(normal), score=str(new), views=("characters",), level=0.1, batch_size=8
    )


def rows_of(folder):
    content = (folder / "scores.jsonl").read_text("utf-8")
    return [json.loads(line) for line in content.split("\n")[:-1]]


def test_own_texts(tmp_path, config, capsys):
    """One row a line, in order; what is strange is flagged; the report says it."""
    out = tmp_path / "run"
    result = anomaly.run(config, out)
    assert results.read(out / "result.json") == result
    rows = rows_of(out)
    texts = [*lines(20, seed=9), *STRANGE, STRANGE[0], "a|b\nc \x1b[31m"]
    assert [row["text"] for row in rows] == texts
    # A text of two lines stands at its last one.
    ends = [int(row["place"].rpartition(":")[2]) for row in rows]
    assert ends == [*range(2, 27), 28]
    assert all(row["flagged"] for row in rows[20:] if row["text"])
    assert sum(row["flagged"] for row in rows[:20]) < 8
    assert [row["note"] for row in rows].count("empty text") == 1
    assert rows[20] | {"place": ""} == rows[24] | {"place": ""}
    for row in rows:
        assert set(row["by_view"]) == {"characters"} and len(row["nearest_normal"]) == 3
        assert 0 < row["p_value"] <= 1
    assert result.metrics["training_texts"] == 105
    assert result.metrics["calibration_texts"] == 45
    assert result.metrics["scored"] == 26
    assert result.metrics["flagged"] == sum(row["flagged"] for row in rows)
    shown = capsys.readouterr().out
    assert "150; 1 empty ones and 1 repeats were left out" in shown
    assert "Empty texts: 1; they are scored like any other" in shown
    assert "\x1b" not in shown and "| a/b c [31m |" in shown
    assert not (out / "scores.part.jsonl").exists()


def test_a_flag_is_a_score_above_the_threshold(tmp_path, config):
    """As `conformal.flag` says, though it is read from the p-value."""
    from jeff_llm.anomaly import conformal, store

    out = tmp_path / "run"
    anomaly.run(config, out, progress=False)
    found = store.load(out / "detector", {})
    limit = conformal.threshold(found.calibration, config.level, delta=config.delta)
    rows = rows_of(out)
    score = np.array([row["score"] for row in rows], np.float32)
    flagged = np.array([row["flagged"] for row in rows])
    np.testing.assert_array_equal(flagged, conformal.flag(score, limit))


def test_killed_and_resumed(tmp_path, config, monkeypatch):
    """No text is scored twice, and the file is the same, even after a torn line."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    anomaly.run(config, whole, progress=False)
    scored, score = [], text_detector.score

    def stops(detector, texts, *rest, **options):
        if len(scored) == 16:
            raise KeyboardInterrupt
        scored.extend(texts)
        return score(detector, texts, *rest, **options)

    monkeypatch.setattr(text_detector, "score", stops)
    with pytest.raises(KeyboardInterrupt):
        anomaly.run(config, out, progress=False)
    part = out / "scores.part.jsonl"
    with part.open("ab") as file:
        file.write('{"place": "x", "text": "\u65e5'.encode()[:-1])
    scored += [""]  # no longer 16
    monkeypatch.setattr(own.anomaly, "fit", None)
    anomaly.run(config, out, progress=False)
    del scored[16]
    assert scored == [row["text"] for row in rows_of(whole)]
    assert (out / "scores.jsonl").read_bytes() == (whole / "scores.jsonl").read_bytes()


def test_files_that_changed_are_refused(tmp_path, config, monkeypatch):
    """A resumed run mixes neither texts to score nor normal texts."""
    out, score = tmp_path / "run", own._rows
    calls = []

    def once(*rest):
        calls.append(rest)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return score(*rest)

    monkeypatch.setattr(own, "_rows", once)
    with pytest.raises(KeyboardInterrupt):
        anomaly.run(config, out, progress=False)
    new = tmp_path / "other.txt"
    new.write_text("another text\n")
    with pytest.raises(ValueError, match=r"got others; the file to score has changed"):
        anomaly.run(dataclasses.replace(config, score=str(new)), out, progress=False)
    normal = tmp_path / "normal.txt"
    normal.write_text("\n".join(lines(150, seed=5)))
    with pytest.raises(
        ValueError, match=r"normal\.txt: expected the texts that .* got"
    ):
        anomaly.run(config, out, progress=False)


def test_a_detector_that_is_there(tmp_path, config):
    """It scores as the run that fitted it."""
    anomaly.run(config, tmp_path / "first", progress=False)
    again = dataclasses.replace(
        config, data="", detector=str(tmp_path / "first" / "detector")
    )
    anomaly.run(again, tmp_path / "second", progress=False)
    assert rows_of(tmp_path / "second") == rows_of(tmp_path / "first")
    fitted = dataclasses.replace(config, score="")
    result = anomaly.run(fitted, tmp_path / "third", progress=False)
    assert "scored" not in result.metrics
    assert not (tmp_path / "third" / "scores.jsonl").exists()


def test_too_few_texts_are_refused_before_anything_is_embedded(
    tmp_path, config, monkeypatch
):
    """With a number that is enough."""
    monkeypatch.setattr(own.anomaly, "fit", None)
    monkeypatch.setattr(own, "_scorers", None)
    few = dataclasses.replace(config, level=0.01)
    with pytest.raises(ValueError, match=r"at least 764 different normal .* got 150"):
        anomaly.run(few, tmp_path / "run", progress=False)
    monkeypatch.undo()
    (tmp_path / "normal.txt").write_text("\n".join(lines(767)))
    few = dataclasses.replace(few, score="")
    anomaly.run(few, tmp_path / "run", progress=False)


@pytest.mark.parametrize("form", ["jsonl", "stdin"])
def test_other_inputs(tmp_path, config, monkeypatch, form):
    """JSON lines with half a surrogate pair, and lines from the standard input."""
    texts = ["hello there", "half \ud83d a pair", "\u2028", "", "hello there"]
    if form == "stdin":
        texts[1] = "caf\u00e9"
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(texts) + "\n"))
        path = "-"
    else:
        path = tmp_path / "new.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    out = tmp_path / "run"
    anomaly.run(dataclasses.replace(config, score=str(path)), out)
    assert [row["text"] for row in rows_of(out)] == texts
    places = [row["place"].rpartition(":") for row in rows_of(out)]
    assert [place[2] for place in places] == ["1", "2", "3", "4", "5"]


def test_faults_show_before_the_fit(tmp_path, config, monkeypatch):
    monkeypatch.setattr(own.anomaly, "fit", None)
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    for path, message in ((empty, "expected at least one text"), ("no.csv", "no.csv")):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            anomaly.run(dataclasses.replace(config, score=str(path)), tmp_path / "r")

    class Torn(io.StringIO):
        def __next__(self):
            return b"caf\xe9".decode()

    monkeypatch.setattr("sys.stdin", Torn())
    with pytest.raises(ValueError, match="standard input: expected UTF-8, but"):
        anomaly.run(dataclasses.replace(config, score="-"), tmp_path / "r")


def test_long_texts_do_not_fill_the_disk(tmp_path, config):
    """The nearest normal texts are cut in the rows."""
    normal = tmp_path / "normal.txt"
    normal.write_text("\n".join(line + " tail" * 5000 for line in lines(60)))
    few = dataclasses.replace(config, level=0.2)
    anomaly.run(few, tmp_path / "run", progress=False)
    assert all(
        len(near["text"]) == 1000
        for row in rows_of(tmp_path / "run")
        for near in row["nearest_normal"]
    )


def test_a_detector_with_scorers_of_another(tmp_path, config):
    """One line says that it is used from Python."""
    import jax

    from jeff_llm.anomaly import store

    def size(texts):
        return np.array([len(text) for text in texts], np.float32)

    found = text_detector.fit(
        lines(150), {}, scorers={"size": size}, key=jax.random.key(0)
    )
    store.save(found, tmp_path / "det", {})
    other = dataclasses.replace(config, data="", detector=str(tmp_path / "det"))
    with pytest.raises(ValueError, match=r"detector: expected scorers .*'size'"):
        anomaly.run(other, tmp_path / "run", progress=False)


class Endpoint(BaseHTTPRequestHandler):
    """Answers .75, but refuses after ``server.limit`` calls."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append(1)
        failing = len(self.server.seen) > self.server.limit
        said = '{"reason": "so", "anomaly_score": 0.75}'
        choice = {"index": 0, "message": {"role": "assistant", "content": said}}
        reply = {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice | {"finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
        }
        wrong = {"error": {"message": "no\nmore"}}
        content = json.dumps(wrong if failing else reply).encode()
        self.send_response(400 if failing else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def test_an_endpoint_that_fails_midway(tmp_path, config, serve, capsys):
    """Cost first, one line, and the same command pays for nothing twice."""
    pytest.importorskip("openai", reason="the endpoint needs the openai client")
    pytest.importorskip("jsonschema", reason="answers are checked by a schema")
    server = serve(Endpoint)
    server.limit = 10
    asked = dataclasses.replace(
        config,
        chat=f"http://127.0.0.1:{server.server_port}/v1",
        chat_model="m",
        prices=(1.0, 2.0),
    )
    out = tmp_path / "run"
    with pytest.raises(OSError, match="the same command goes on from here") as caught:
        anomaly.run(asked, out, progress=False)
    assert "\n" not in str(caught.value) and not (out / "scores.jsonl").exists()
    assert "m: 25 calls, at most about " in capsys.readouterr().out
    server.limit = 1000
    server.seen.clear()
    anomaly.run(asked, out, progress=False)
    # Twenty-six texts, two of which are equal; ten were answered before.
    assert len(server.seen) == 15
    rows = rows_of(out)
    assert {row["chat_score"] for row in rows} == {0.75}
    assert not any(row["chat_failed"] for row in rows)


def test_the_command_line(tmp_path, config, capsys):
    """`--data` chooses the preset "file"; an error is one line."""
    words = ["run", "anomaly", "--runs", str(tmp_path / "runs"), "--data", config.data]
    words += ["--views", "characters", "--level"]
    assert main([*words, "0.1", "--score", config.score]) == 0
    (folder,) = (tmp_path / "runs" / "anomaly").glob("*-file")
    assert len(rows_of(folder)) == 26
    capsys.readouterr()
    assert main([*words, "0.001"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


def test_presets_and_fields():
    assert {"demo", "smoke", "full", "file"} <= set(PRESETS)
    for fields, message in (
        ({"level": 1.0}, "level: expected a share"),
        ({"method": "forest"}, "method: expected one of"),
        ({"views": ()}, "views: expected some of"),
        ({"data": "a", "detector": "b"}, "data: expected either"),
        ({"detector": "b"}, "score: expected texts for the detector"),
        ({"score": "b"}, "data: expected normal texts or a detector"),
        ({"chat": "http://x"}, "chat: expected `chat` and `chat_model` together"),
        ({"prices": (-1.0, 0.0)}, "prices: expected finite numbers"),
        ({"prices": (float("nan"), 0.0)}, "prices: expected finite numbers"),
        ({"seeds": (1, 1)}, "seeds: expected different numbers"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"split": (0.5, 0.5)}, "split: expected two positive shares"),
    ):
        with pytest.raises(ValueError, match=message):
            Config(**fields)
