"""Test the dialogue script without data: parts, arms, tables, plots, resuming."""

import dataclasses
import json
import zlib

import numpy as np
import pytest

from configs.dialogue import PRESETS, Config
from jeff_llm.clinic.items import Item
from jeff_llm.models import weights
from train_scripts.dialogue import arms, data, measure, parts, summary
from train_scripts.dialogue import run as script
from train_scripts.running import results

pytest.importorskip("bm25s", reason="a rule needs it")

ORGANS = ("heart", "lungs", "skin")
KINDS = ("symptom", "examination", "treatment")
OPTIONS = tuple(f"a{number}" for number in range(24))


def item(number):
    size = 2 + number % 2
    return Item(
        id=f"case {number:02d}",
        background=f"P{number} comes.",
        evidence=tuple(f"{kind[:4]} {number}." for kind in KINDS[:size]),
        question="Why?",
        answer=OPTIONS[number],
        options=(OPTIONS[number], "no"),
        level="",
        kinds=KINDS[:size],
        organs=frozenset({ORGANS[number % 3]}),
        age_group="adult" if number % 2 else "child",
        sex="unknown",
        simulated=True,
    )


@pytest.fixture
def items(monkeypatch):
    found = [item(number) for number in range(24)]
    monkeypatch.setattr(data, "items", lambda name, simulated: found)
    return found


@pytest.fixture
def config():
    return dataclasses.replace(
        PRESETS["smoke"], parts=("rules", "heads"), head_steps=3, test_items=6
    )


class Encoder:
    """Directions by a hash of the text; counts what it reads."""

    def __init__(self):
        self.read = []

    def encode(self, texts):
        self.read += texts
        rows = [
            np.random.default_rng(zlib.crc32(text.encode())).normal(size=8)
            for text in texts
        ]
        found = np.stack(rows).astype(np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture
def encoder(monkeypatch):
    found, known = Encoder(), {}
    monkeypatch.setattr(measure, "_encoder", lambda: found)
    monkeypatch.setattr(measure, "_known", lambda: known)
    return found


def tables(found):
    return "\n".join(part.table for part in found)


def test_a_study(items, config):
    study = data.make_study(config, "simulated", 0)
    assert len(study.train) == 14 and len(study.test) == 6
    assert not {each.id for each in study.train} & {each.id for each in study.test}
    assert [maze.item for maze in study.mazes[0]] == study.test
    two = study.subset([4, 1])
    assert two == {n: [level[4], level[1]] for n, level in study.mazes.items()}
    again = data.make_study(dataclasses.replace(config, noise=(3,)), "simulated", 0)
    assert again.mazes[3] == study.mazes[3], "levels do not depend on each other"
    assert data.make_study(config, "simulated", 1).test != study.test
    all_of_them = dataclasses.replace(config, test_items=0, evidence=(3, 3))
    test = data.make_study(all_of_them, "simulated", 0).test
    assert test and {len(each.evidence) for each in test} == {3}


@pytest.mark.parametrize("changes", [{"evidence": (9, 10)}, {"split": 0.01}])
def test_a_split_without_items(items, config, changes):
    config = dataclasses.replace(config, **changes)
    with pytest.raises(
        ValueError, match="split, evidence: expected items of simulated"
    ):
        data.make_study(config, "simulated", 0)


def test_rules_and_heads(items, config, encoder, tmp_path):
    config = dataclasses.replace(config, seeds=(0, 1))
    found = parts.run(config, tmp_path, progress=False)
    text = tables(found)
    assert "2 seeds, each with its own split (60% to train)" in text
    assert 'The data set "simulated" is made from HPO, by no clinician.' in text
    assert len(encoder.read) == len(set(encoder.read)), "each text is read once"
    numbers = found[-1].numbers
    for form in ("untuned", *measure.HEADS):
        for rounds in ("one", "several"):
            for noise in (0, 3):
                key = f"simulated_heads_{form}_{rounds}_{noise}"
                assert 0 <= numbers[f"{key}_pos"] <= 1
                # At noise 0 every sentence is evidence.
                assert numbers[f"{key}_f1"] == 1 or noise
            assert 0 <= numbers[f"simulated_heads_{form}_{rounds}_ece"] <= 1
    assert "simulated_rules_bm25_one_3_pos" in numbers
    assert "simulated_rules_bm25_one_ece" not in numbers
    assert not [key for key in numbers if "_number_" in key or "_text_" in key]
    for row in (
        "| head over MiniLM: multiple choice | several |",
        "| published construction: last | one |",
        "| random, expected | | ",
    ):
        assert row in text
    plots = sorted(path.name for path in tmp_path.glob("*.png"))
    assert plots == [
        "01_simulated_heads_one.png",
        "02_simulated_heads_several.png",
        "03_simulated_distractors.png",
        "04_simulated_calibration.png",
    ]
    assert not (tmp_path / "arms").exists(), "no language model is tuned"
    assert {each.claim.partition(":")[0] for each in found[-1].claims} == {
        "simulated",
        "simulated, head over MiniLM",
    }
    again = parts.run(config, tmp_path / "again", progress=False)
    assert again[-1].numbers == numbers and again[-1].table == found[-1].table


def test_without_noise(items, config, encoder, tmp_path):
    config = dataclasses.replace(config, noise=(0,), rounds=("several",))
    text = tables(parts.run(config, tmp_path, progress=False))
    assert "distractors picked" not in text and "share picked" not in text
    assert len(list(tmp_path.glob("*.png"))) == 2
    assert "| head over MiniLM: dialogue | several |" in text
    assert "| head over MiniLM: dialogue | one |" not in text


@pytest.fixture
def model(tiny_chat_model, monkeypatch):
    """The tiny model with room for mazes: its positions are rotations."""
    found = weights.load(str(tiny_chat_model))
    room = dataclasses.replace(found.config, max_positions=2048)
    found = found._replace(config=room)
    monkeypatch.setattr(arms, "base", lambda name: found)
    return found


@pytest.fixture
def tuned(config):
    return dataclasses.replace(
        config,
        parts=("rules", "arms"),
        model="some/tiny",
        arms=("untuned", "dialogue"),
        noise=(1,),
        rounds=("one",),
        max_tokens=1024,
        model_items=1,
        text_items=2,
    )


def test_forms_of_the_same_items(items, tuned, model):
    made = arms.examples(tuned, items[:3])
    assert list(made) == list(arms.FORMS)
    assert {len(each) for each in made.values()} == {3}
    bare = items[0]._replace(options=())
    assert len(arms.examples(tuned, [bare, items[1]])["dialogue"]) == 1
    lengths = [len(each.tokens) for each in made["dialogue"]]
    tight = dataclasses.replace(tuned, max_tokens=min(lengths))
    fitting = arms.examples(tight, items[:3])
    assert {len(each) for each in fitting.values()} == {lengths.count(min(lengths))}
    with pytest.raises(ValueError, match="max_tokens: expected room for at least one"):
        arms.examples(dataclasses.replace(tuned, max_tokens=16), items[:3])


def test_arms_from_first_choice_to_a_resumed_run(
    items, tuned, model, encoder, tmp_path, monkeypatch
):
    """It is killed while the second arm chooses; the first is not asked again."""
    asked, choose = [], measure.model_choices

    def choices(config, chosen, study):
        asked.append(chosen)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return choose(config, chosen, study)

    monkeypatch.setattr(measure, "model_choices", choices)
    with pytest.raises(KeyboardInterrupt):
        parts.run(tuned, tmp_path, progress=False)
    folder = tmp_path / "arms"
    assert (folder / "simulated_0_untuned" / "choices.json").is_file()
    assert not (folder / "simulated_0_dialogue" / "choices.json").exists()
    found = parts.run(tuned, tmp_path, progress=False)
    assert len(asked) == 3 and asked[0] is model and asked[2] is not model
    done = folder / "simulated_0_dialogue" / "choices.json"
    records = json.loads(done.read_text())["choices"]
    assert [(r["part"], r["method"], r["rounds"], r["noise"]) for r in records] == [
        ("number", "dialogue", "one", 1),
        ("text", "dialogue", "one", 1),
    ]
    assert [len(r["picks"]) for r in records] == [1, 2]
    told = json.loads((folder / "simulated_0_dialogue" / "tuned.json").read_text())
    assert told["items"] == 14 and 0 < told["learned"] < told["tokens"]
    text = tables(found)
    assert "| some/tiny, by number: dialogue | one | 1 |" in text
    assert "| some/tiny, by likelihood: untuned | one | 2 |" in text
    # Beside each reading the best of the rules, and chance, in the same mazes.
    assert "| rule: usual order | one | 1 |" in text
    assert "| rule: usual order | one | 2 |" in text
    assert "| random, expected | | 1 |" in text and "| random, expected | | 2 |" in text
    assert "what the arms were tuned on" in text
    assert f"| dialogue | 0 | 14 | {told['tokens']:,} |" in text
    again = parts.run(tuned, tmp_path, progress=False)
    assert len(asked) == 3 and tables(again) == text
    assert again[-1].numbers == found[-1].numbers
    # Choices in other mazes are none in these.
    done.write_text(json.dumps({"mazes": "others", "choices": []}))
    assert tables(parts.run(tuned, tmp_path, progress=False)) == text
    assert len(asked) == 4


def test_no_item_is_short_enough(items, tuned, model):
    short = dataclasses.replace(tuned, model_words=1)
    study = data.make_study(short, "simulated", 0)
    with pytest.raises(
        ValueError, match="model_words: expected a test item of at most"
    ):
        measure.model_choices(short, model, study)


def test_a_run(items, config, encoder, tmp_path, capsys):
    config = dataclasses.replace(config, parts=("rules",), noise=(0,))
    result = script.run(config, tmp_path, preset="smoke")
    assert results.read(tmp_path / "result.json") == result
    assert "## simulated" in capsys.readouterr().out
    with pytest.raises(ValueError, match="data: expected a file or folder"):
        script.run(PRESETS["file"], tmp_path / "none", preset="file")


def test_arms_without_a_model(config, tmp_path):
    config = dataclasses.replace(config, parts=("arms",), model="")
    with pytest.raises(ValueError, match="model: expected a model for the part arms"):
        parts.run(config, tmp_path, progress=False)


@pytest.mark.parametrize("noise", [(), (-1,), (3, 3)])
def test_noise_that_is_refused(config, noise):
    with pytest.raises(ValueError, match="noise: expected different numbers from 0"):
        dataclasses.replace(config, noise=noise)


def test_medqa_is_missing(items, config, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(parts.assets, "data_dir", lambda: None)
    config = dataclasses.replace(config, parts=("rules",), noise=(0,))
    both = dataclasses.replace(config, data_sets=("medqa", "simulated"))
    text = tables(parts.run(both, tmp_path, progress=False))
    assert "Left out, since JEFF_DATA lacks them: medqa." in text
    alone = dataclasses.replace(config, data_sets=("medqa",))
    with pytest.raises(FileNotFoundError, match="--data-sets simulated"):
        parts.run(alone, tmp_path, progress=False)


def test_labels():
    found = summary.labels(Config(model="a|b"))
    assert found["number"] == "a/b, by number" and set(found) > {"rules", "heads"}
