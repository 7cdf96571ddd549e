"""Test the fine-tuning script: learning, resuming after a kill, and its files."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from configs.finetune import Config
from jeff import assets, checkpoint, hub_rows
from jeff_llm import generate
from jeff_llm.models import adapters, weights
from jeff_llm.tuning.finetune import encode_examples
from train_scripts.finetune import run as finetune
from train_scripts.running.workdir import hold

ROOT = Path(__file__).parents[2]
COLOURS = ["red", "blue", "two", "what"]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.jsonl"
    rows = [{"prompt": f"say {c}", "answer": f"{c} and {c}"} for c in COLOURS * 6]
    path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    return path


@pytest.fixture
def config(data, tiny_chat_model, tmp_path):
    return Config(
        data=str(data),
        workdir=str(tmp_path / "run"),
        model=str(tiny_chat_model),
        num_epochs=150,
        batch_size=2,
        max_tokens=64,
        learning_rate=5e-3,
        holdout=0.2,
    )


@pytest.mark.slow
def test_it_learns_and_writes_what_others_read(config):
    summary = finetune.run(config, progress=False)
    before, after = summary.validation_loss
    assert after < 0.2 < 4 < before
    assert summary.validation_accuracy[1] > 0.9
    workdir = Path(config.workdir)
    assert json.loads((workdir / "summary.json").read_text())["steps"] == summary.steps
    base = weights.load(config.model)
    merged = weights.load(workdir / "merged")
    beside = adapters.merged(base, workdir / "adapters")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        merged.params,
        beside.params,
    )
    prompt = merged.tokenizer.apply_chat_template(
        [{"role": "user", "content": "say blue"}], add_generation_prompt=True
    )
    ids = merged.tokenizer.encode(prompt, add_special_tokens=False)
    said = generate.generate(merged, [ids], max_new_tokens=16)
    assert said.texts == ["blue and blue"]
    assert said.finished.all()


def test_an_interrupted_run_goes_on_and_ends_alike(config, tmp_path, monkeypatch):
    """What `fit` keeps is enough for the same adapters; kills are its own tests'."""
    config = dataclasses.replace(config, num_epochs=4)
    whole = finetune.run(config, progress=False)
    again = dataclasses.replace(config, workdir=str(tmp_path / "interrupted"))
    save, seen = checkpoint.Checkpoints.save, []

    def interrupted(self, *args, **options):
        seen.append(save(self, *args, **options))
        if len(seen) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finetune.run(again, progress=False)
    assert not (Path(again.workdir) / "adapters").exists()
    resumed = finetune.run(again, progress=False)
    assert resumed == whole
    first, second = (
        adapters.load(Path(c.workdir) / "adapters", weights.load(c.model).config)
        for c in (config, again)
    )
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_what_is_refused(config, data, tmp_path):
    def refused(match, text=None, **changes):
        if text is not None:
            data.write_text(text)
        with pytest.raises((ValueError, FileNotFoundError), match=match):
            finetune.run(dataclasses.replace(config, **changes), progress=False)
        assert not Path(config.workdir).exists(), "nothing is left behind"

    refused("found none", data=str(tmp_path / "nowhere.jsonl"))
    refused(r"data\.jsonl:2: expected JSON", '{"prompt": "a", "answer": "b"}\n{"pro')
    refused(r"data\.jsonl:1: expected an object", "[1]\n")
    refused("at least one line", "\n\n")
    refused(r"jsonl:1: expected a 'answer' that is not empty", '{"prompt": "a"}\n')
    refused(
        r"data\.jsonl:1: expected at most 64 tokens",
        json.dumps({"prompt": "two " * 100, "answer": "b"}),
    )


def test_a_folder_of_another_run_is_refused(config):
    workdir = Path(config.workdir)
    workdir.mkdir()
    (workdir / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="found another run"):
        finetune.run(config, progress=False)


@pytest.mark.parametrize(
    ("field", "value"),
    [("rank", 0), ("holdout", 1.0), ("learning_rate", 0.0)],
)
def test_ranges(config, field, value):
    with pytest.raises(ValueError, match=f"{field}: expected"):
        dataclasses.replace(config, **{field: value})


def test_dialogues_train_as_they_are_written(config, tmp_path):
    """What `write_jsonl` writes is data; only the doctor's tokens are learned."""
    pytest.importorskip("sentencex")
    from jeff_llm.clinic import dialogue, items, questions

    try:
        path = assets.shared_file("medqa/medqa_us_test.jsonl")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    found = items.make_items(questions.read_questions(path).questions).items
    # The shortest: this tokenizer spells almost every letter.
    found.sort(key=lambda item: sum(map(len, item.evidence)))
    written = [dialogue.to_dialogue(item) for item in found[:8]]
    data = dialogue.write_jsonl(tmp_path / "dialogues.jsonl", written)
    config = dataclasses.replace(
        config, data=str(data), num_epochs=1, max_tokens=1024, merged=False
    )
    summary = finetune.run(config, progress=False)
    assert summary.steps >= 1
    assert 0 < summary.train_loss < 20
    assert summary.validation_loss is not None
    assert list((Path(config.workdir) / "adapters").iterdir())


def test_other_data_and_a_second_command_are_refused(config, data, capsys, monkeypatch):
    config = dataclasses.replace(config, num_epochs=1)
    finetune.run(config, progress=False)
    summary = (Path(config.workdir) / "summary.json").read_bytes()
    rows = data.read_text()
    data.write_text(rows.replace("red and red", "red or red"))
    with pytest.raises(ValueError, match=r"data\.jsonl: .* this file changed.*restore"):
        finetune.run(config, progress=False)
    data.write_text(rows)
    words = [f"--data={config.data}", f"--workdir={config.workdir}", "--num-epochs=1"]
    monkeypatch.setattr("sys.argv", ["finetune", *words])
    with hold(Path(config.workdir), config, ""):
        assert finetune.main() == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {config.workdir}: expected a folder that is free")
    assert (Path(config.workdir) / "summary.json").read_bytes() == summary


def test_rows_of_a_saved_folder(tiny_chat_model, tmp_path):
    """As from the lines, though each row has all fields there, some of them null."""
    datasets = pytest.importorskip("datasets")
    said = {"role": "user", "content": "say two"}
    rows = [
        {"prompt": "say red", "answer": "red"},
        {"messages": [said, {"role": "assistant", "content": "two"}]},
    ]
    # Only the first row's fields are taken without this.
    rows[0] |= {"messages": None}
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    read = [row for _, row in hub_rows.json_rows(tmp_path / "saved")]
    assert read[1] == {"prompt": None, "answer": None} | rows[1]
    model = weights.load(tiny_chat_model)
    found = encode_examples(model, read, max_tokens=64)
    assert found == encode_examples(model, rows, max_tokens=64)
