"""Test the Self-REF script on a tiny model and made-up cities: run and claims."""

import dataclasses
import json

import numpy as np
import pytest

from configs.selfref import PRESETS, Config
from train_scripts.questions import cities, city_questions
from train_scripts.routing import run as routing
from train_scripts.running import results
from train_scripts.selfref import run as selfref
from train_scripts.selfref import summary
from train_scripts.selfref.measure import Found

CONFIG = Config(
    largest=60,
    train=24,
    test=20,
    shots=2,
    samples=1,
    rank=2,
    first_layer=1,
    num_epochs=1,
    seeds=(0, 1),
)


@pytest.fixture
def made(monkeypatch, tiny_chat_model, tmp_path_factory):
    """Cities of two letters; the tiny model's greedy answer to some is right."""
    letters = "abcdefghij"
    known = [
        cities.City(a + b, f"land {a}", 999 - n, "XY"[n % 2])
        for n, (a, b) in enumerate((a, b) for a in letters for b in letters)
    ]
    monkeypatch.setattr(cities, "load", lambda: known)
    asked = city_questions.ask

    def marked(*args, **options):
        found = asked(*args, **options)
        return found._replace(correct=np.arange(len(found.texts)) % 3 == 0)

    # A random model is never right; the marks are made up, all else is real.
    monkeypatch.setattr(city_questions, "ask", marked)
    from jeff_llm.models import weights

    folder = tmp_path_factory.mktemp("long")
    model = weights.load(tiny_chat_model)
    long = dataclasses.replace(model.config, max_positions=1024)
    weights.save(model._replace(config=long), folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny_chat_model / name).read_bytes())
    return str(folder)


def test_a_run(made, tmp_path) -> None:
    """It writes result, table and plots."""
    config = dataclasses.replace(CONFIG, model=made)
    result = selfref.run(config, tmp_path, progress=False)
    assert results.read(tmp_path / "result.json") == result
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "01_routing.png",
        "02_areas.png",
        "03_calibration.png",
        "04_rejection.png",
    ]
    table = (tmp_path / "table.md").read_text()
    for name in ("| base | token |", "| selfref | token |", "| base | random |", " ± "):
        assert name in table
    assert len(result.claims) == 7
    assert result.metrics["base_accuracy"] == pytest.approx(7 / 20)


def test_routing_on_the_same_questions(made, tmp_path) -> None:
    """The cities part of the routing script, a data set a continent."""
    from configs.routing import Config as RoutingConfig

    config = RoutingConfig(parts=("cities",), model=made, train=12, test=12, samples=1)
    result = routing.run(config, tmp_path, progress=False)
    table = (tmp_path / "table.md").read_text()
    assert "| measure | X | Y | mean | AUROC |" in table
    assert "Thresholds by perplexity" in table
    assert len(result.claims) == 3


def claims_of(areas):
    """Claims of a report in which confidences have these areas, three seeds."""
    from train_scripts.selfref import claims

    names = {
        "base|token": areas[0],
        "base|first token": areas[1],
        "base|fine-tuned probability": areas[2],
        "plain|first token": areas[3],
        "plain|average probability": -1.0,
        "plain|sequence probability": -1.0,
        "selfref|token": areas[4],
    }
    rows = []
    for seed in range(3):
        row = {
            f"{n}|area": a + 0.01 * seed * (n == "base|token") for n, a in names.items()
        }
        row |= {
            f"base|{n}|{f}": v
            for n, v in (("token", 0.2), ("first token", 0.5))
            for f in ("match", "ece")
        }
        row |= {"rejection|token": 0.7, "rejection|option logits": 0.8}
        rows.append(row)
    report = summary.Report(Config(), rows, [])
    return [claim.holds for claim in claims.claims(report)]


def test_claims_follow_the_numbers() -> None:
    assert claims_of([0.8, 0.6, 0.7, 0.7, 0.75]) == [
        True,
        True,
        True,
        True,
        True,
        True,
        False,
    ]
    assert claims_of([0.5, 0.6, 0.7, 0.7, 0.65])[:4] == [False, False, False, False]
    # Above by .01 ± .025, where more than the spread of .01 is asked for.
    assert claims_of([0.6, 0.6, 0.7, 0.7, 0.65])[0] is None


def test_measurements_are_kept_and_read_back(tmp_path) -> None:
    rng = np.random.default_rng(0)
    found = Found(
        {"base": rng.random(5) < 0.5},
        {("base", "p(true)"): rng.random(5)},
        rng.random(5) < 0.5,
        {"token": rng.random(5)},
        {"train_accuracy": 0.4},
    )
    summary.write_seed(tmp_path / "a.npz", found)
    again = summary.read_seed(tmp_path / "a.npz")
    assert json.dumps(again.numbers) == json.dumps(found.numbers)
    np.testing.assert_array_equal(
        again.confidence["base", "p(true)"], found.confidence["base", "p(true)"]
    )
    assert again.correct["base"].dtype == bool
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_questions_are_stratified_and_apart() -> None:
    try:
        found = city_questions.draw(2000, 300, 100, 4, seed=0)
    except FileNotFoundError as error:
        pytest.skip(f"cities are not here: {error}")
    parts = [found.train, found.test, found.shots]
    assert [len(part) for part in parts] == [300, 100, 4]
    names = [city.name for part in parts for city in part]
    assert len(set(names)) == 404
    ranked = {city.name: n for n, city in enumerate(cities.load()[:2000])}
    for part in (found.train, found.test):
        strata = np.bincount([ranked[city.name] // 100 for city in part], minlength=20)
        assert strata.min() >= len(part) // 20 - 2
    assert city_questions.draw(2000, 300, 100, 4, seed=1).test != found.test
    with pytest.raises(ValueError, match="expected at least 500 cities"):
        city_questions.draw(100, 300, 196, 4, seed=0)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("train", 4, "train: expected at least 8, got 4"),
        ("learning_rate", 0.0, "learning_rate: expected a positive number"),
        ("unconfident_share", 0.0, "unconfident_share: expected a share above 0"),
        ("seeds", (), "seeds: expected distinct numbers"),
    ],
)
def test_fields(field, value, message) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PRESETS["demo"], **{field: value})


def test_equal_areas_keep_their_order():
    """In every process, whatever the seed of Python's hashes."""
    names = [f"base|measure {number}" for number in range(12)]
    fields = ("area", "alignment", "match", "ece", "brier")
    row = {f"{name}|{field}": 0.5 for name in names for field in fields}
    table = summary.table(summary.Report(CONFIG, [row, row], []))
    shown = [line.split(" | ")[1] for line in table.splitlines()[2:]]
    assert shown == [name.split("|")[1] for name in names]
