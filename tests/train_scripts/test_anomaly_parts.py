"""Test the parts of the anomaly script on made texts, without a model."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest

from configs.anomaly import PARTS, PRESETS, Config
from jeff_llm import chat
from jeff_llm.anomaly.categories import Categories
from jeff_llm.anomaly.conformal_simulation import Simulation
from train_scripts.anomaly import (
    augmenting,
    claims,
    collect,
    data_sets,
    measure,
    parts,
    summary,
    wordings,
)
from train_scripts.anomaly.data_sets import DataSet
from train_scripts.anomaly.measure import Scores
from train_scripts.anomaly.quality import Alarm, Ends, Gain
from train_scripts.anomaly.wordings import ZeroShot

CONFIG = dataclasses.replace(
    PRESETS["smoke"],
    parts=PARTS,
    normal_texts=0,
    anomalous_texts=0,
    small_part=12,
    synthetic=2,
    queries=0,
    seeds=(0, 1),
)
KINDS = (Categories({"meal": "a meal"}, {"fault": "a fault"}),)


def sentences(words, count, seed):
    rng = np.random.default_rng(seed)
    return tuple(
        dict.fromkeys(" ".join(rng.choice(words, 9).tolist()) for _ in range(count))
    )


def made():
    meals = ["soup", "bread", "salt", "plate", "we", "eat", "warm", "the", "with"]
    faults = ["error", "stack", "null", "0x80", "trace", "we", "the", "abort", "with"]
    normal = sentences(meals, 200, 0)
    return DataSet(
        "pydoc", normal, ("meal",) * len(normal), sentences(faults, 60, 1), KINDS
    )


def encode(texts):
    """Counts of letters, of unit length."""
    counts = np.array(
        [
            [text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"]
            for text in texts
        ],
        np.float32,
    ).reshape(len(texts), 26)
    return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


class Writer:
    """A chat model that always has something to say."""

    name = "writer"

    def __init__(self, _):
        """Take the place of a local model."""

    async def answer(self, request):
        words = (
            "meal; soup; warm soup" if request.max_tokens < 65 else "we eat warm soup"
        )
        return chat.Answer(words, "stop", 1, 1)


@pytest.fixture
def stubs(monkeypatch):
    monkeypatch.setitem(data_sets.LOADERS, "pydoc", made)
    model = types.SimpleNamespace(encode=encode)
    for module in (measure, augmenting):
        monkeypatch.setattr(module, "minilm", lambda: model)
    monkeypatch.setattr(augmenting, "smollm2", lambda: None)
    monkeypatch.setattr(augmenting.chat, "Local", Writer)
    measure._known.cache_clear()
    yield
    measure._known.cache_clear()


def test_false_alarms_and_augmentation(stubs, tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, parts=("false_alarms", "augment", "select"))
    found = parts.run(config, tmp_path, progress=False)
    text = "\n".join(part.table for part in found)
    numbers = {name: x for part in found for name, x in part.numbers.items()}
    default = "pydoc_knn_minilm_characters_0.1"
    assert numbers[f"{default}_power"] > 0.9
    assert 0 <= numbers[f"{default}_false_alarms"] < 0.3
    assert "| SmolLM2 | kNN, MiniLM | " in text
    assert "left out: 0 exact, 1 repeated" in text
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "02_false_alarms.png",
        "03_augmentation.png",
    }

    def never(*_, **__):
        raise AssertionError("a stored score is measured again")

    monkeypatch.setattr(measure, "detect", never)
    again = parts.run(config, tmp_path, progress=False)
    assert [part.table for part in again] == [part.table for part in found]


def test_table(stubs, tmp_path, monkeypatch):
    """Zero-shot scores stand beside the detectors, and are fused with them."""

    def zero_shot(config, study, seed, cache):
        chosen = np.arange(0, len(study.label), 3)
        none = np.zeros(0, np.float32)
        rng = np.random.default_rng(0)
        noise = rng.normal(size=len(study.label)).astype(np.float32)
        scores = {
            name: Scores(noise[:30], none, (noise + shift * study.label)[chosen])
            for name, shift in (("SmolLM2 ratio", 1), ("MiniLM similarity", 2))
        }
        return ZeroShot(chosen, scores, {"SmolLM2 prompted": 0.5}, {}, chosen[:0])

    monkeypatch.setattr(wordings, "zero_shot", zero_shot)
    config = dataclasses.replace(CONFIG, parts=("table",))
    part = parts.run(config, tmp_path, progress=False)[1]
    assert "| SmolLM2 ratio | " in part.table
    assert "* pydoc, SmolLM2 prompted: 50.0%" in part.table
    assert part.numbers["pydoc_knn_minilm_characters_auroc"] > 0.9
    beaten = next(c for c in part.claims if c.claim.startswith("A zero-shot"))
    assert beaten.holds is False
    for name in collect.FUSIONS:
        assert f"| {name} | " in part.table


@pytest.mark.parametrize(
    ("ends", "expected"),
    [((0.1, 0.01, 0.2), True), ((-0.1, -0.2, -0.01), False), ((0, 0, 0), None)],
)
def test_beats(ends, expected):
    """Two perfect methods do not differ; that one beats the other is undecided."""
    assert claims.beats(Ends(*ends)) is expected


@pytest.mark.parametrize(
    ("lows", "expected"),
    [((0.1, 0.1, 0.1, -0.1), True), ((0.1, 0.1, -0.1, -0.1), None)],
)
def test_most_detectors_are_more_than_half(lows, expected):
    rows = [
        Gain("it", str(i), 0.5, 0.6, Ends(0.1, low, 0.2), 0.6, 0.7)
        for i, low in enumerate(lows)
    ]
    assert claims.augmentation({"data": rows})[0].holds is expected


def test_most_detectors_that_lose_refute_it():
    rows = [Gain("it", "a", 0.5, 0.4, Ends(-0.1, -0.2, -0.05), 0.6, 0.7)]
    assert claims.augmentation({"data": rows})[0].holds is False


@pytest.mark.parametrize(
    ("broken", "expected"), [(50, True), (100, None), (200, False)]
)
def test_made_data_sets_decide_by_their_interval(broken, expected):
    rates = jnp.where(jnp.arange(1000) < broken, 0.06, 0.04)
    found = Simulation(rates, rates, rates, rates, jnp.mean(rates > 0.05))
    assert claims.made(Config(), 0.05, found)[0].holds is expected


def test_false_alarms_above_their_level_refute_the_claim():
    nothing = Ends(np.nan, np.nan, np.nan)
    refused = Alarm(
        "m", 0.01, 20, nothing, np.nan, nothing, np.nan, np.nan, "230 needed"
    )
    power = Ends(0.5, 0.4, 0.6)
    row = Alarm("m", 0.05, 200, Ends(0.08, 0.06, 0.1), 0.08, power, np.nan, np.nan, "")
    fine = row._replace(false_alarms=Ends(0.06, 0.04, 0.08))
    assert claims.alarms({"data": [refused]}) == ()
    assert claims.alarms({"data": [refused, row]})[0].holds is False
    assert claims.alarms({"data": [refused, fine]})[0].holds is True
    table = summary.alarm_table("data", [refused, fine])
    assert "refused: 230 needed" in table
    assert "| 6.0% | 4.0 to 8.0 | 50.0% |" in table
