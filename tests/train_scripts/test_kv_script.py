"""Test the KV-AdaQuant script on a tiny model: run, resume and claims."""

import dataclasses
import json
import string

import numpy as np
import pytest

from configs.kv import PRESETS, Config
from jeff_llm import generate
from train_scripts.kv import claims, summary
from train_scripts.kv import run as kv
from train_scripts.kv.summary import Layers, Measured, Report
from train_scripts.questions import cities
from train_scripts.running import results


@pytest.fixture(scope="module")
def config(tiny_chat_model, tmp_path_factory):
    """A run of a few seconds: the tiny chat model with a longer context."""
    from jeff_llm.models import weights

    folder = tmp_path_factory.mktemp("long")
    model = weights.load(tiny_chat_model)
    long = dataclasses.replace(model.config, max_positions=1024)
    weights.save(model._replace(config=long), folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny_chat_model / name).read_bytes())
    letters = np.random.default_rng(0).choice([*string.ascii_lowercase, " "], 8000)
    text = folder / "text.txt"
    text.write_text("".join(letters))
    return Config(
        model=str(folder),
        data=str(text),
        key_axes=("channel",),
        group_size=8,
        tokens=512,
        questions=0,
        new_tokens=4,
        seeds=(0, 1),
    )


def test_a_run(config, tmp_path):
    """It writes result, tables and plots."""
    result = kv.run(config, tmp_path / "whole", progress=False)
    assert results.read(tmp_path / "whole" / "result.json") == result
    assert sorted(path.name for path in (tmp_path / "whole").glob("*.png")) == [
        "01_perplexity_by_widths.png",
        "02_error_against_bits.png",
        "03_norms_by_layer.png",
    ]
    tables = json.loads((tmp_path / "whole" / "tables.json").read_text())
    widths = [cell["widths"] for cell in tables["cells"]]
    pairs = ["k16v16", "k4v4", "k4v2", "k2v4", "k2v2"]
    assert widths == [*pairs, "norms3", "errors3"]
    assert tables["effective_bits"] == {"4": 8.0, "2": 6.0}


def test_questions(config, tmp_path, monkeypatch):
    """Each seed has its own, none is an example; accuracy is a share of them."""
    known = [cities.City(f"city {n}", f"land {n % 3}", 99 - n) for n in range(12)]
    monkeypatch.setattr(cities, "load", lambda: known)
    asked = dataclasses.replace(
        config, questions=4, shots=3, largest=11, run_budgets=(), new_tokens=1
    )
    prompts, answers = kv._questions(asked)
    last = [prompt.split("City: ")[-1] for prompt in prompts]
    assert len(set(last)) == 8 and not any("city 11" in prompt for prompt in prompts)
    for prompt, [answer] in zip(prompts, answers, strict=True):
        *examples, own = prompt.split("City: ")[1:]
        assert len(examples) == 3 and own not in [each[: len(own)] for each in examples]
        number = int(own.split("\n")[0].removeprefix("city "))
        assert answer == f" land {number % 3}\n"
    given = iter([np.array([True] * 4 + [False] * 4)] * 99)

    def score(model, prompts, answers, **options):
        assert len(prompts) == 8
        return [[generate.Score(0, 0, np.zeros(1), bool(r))] for r in next(given)]

    monkeypatch.setattr(generate, "score", score)
    result = kv.run(asked, tmp_path, progress=False)
    assert result.metrics["accuracy_channel_k4v2"] == 0.5
    assert result.metrics["accuracy_channel_k4v2_std"] == pytest.approx(0.5**0.5)


def test_text_that_is_too_short(config, tmp_path):
    short = dataclasses.replace(config, texts=100)
    with pytest.raises(ValueError, match=r"data: .*at least 102912 tokens, got \d+"):
        kv.run(short, tmp_path, progress=False)


def report(**changes):
    """A report of two layers, made by hand."""
    measured = {
        name: Measured(np.array(values), np.array([]), np.array([share]))
        for name, values, share in [
            ("k4v4", [10.0, 20.0], 0.30),
            ("k4v2", [10.1, 20.2], 0.24),
            ("k2v4", [11.1, 21.2], 0.24),
            ("k2v2", [13.0, 25.0], 0.18),
            ("norms3", [10.0, 20.0], 0.24),
            ("errors3", [10.0, 20.0], 0.24),
        ]
    }
    measured |= changes
    # Columns: keys, values; each width divides the error by 16.
    first = np.array([[8.0, 1.0], [20.0, 2.0]])
    errors = {("channel", b): first / 16 ** (b / 2 - 1) for b in (2, 4, 8)}
    table = np.array([[4, 2], [4, 2]])
    layers = Layers(
        activations=np.array([[3.0, 1.0], [3.0, 1.0]]),
        frobenius=np.array([[3.0, 1.0], [1.0, 3.0]]),
        spectral=np.array([[3.0, 1.0], [3.0, 1.0]]),
        errors=errors,
        allocations={("channel", kind, 3): table for kind in ("norms", "errors")},
        published={"frobenius": (5, 10), "spectral": (10, 10)},
    )
    config = Config(key_axes=("channel",), budgets=(3,), seeds=(0, 1))
    cells = {("channel", name): cell for name, cell in measured.items()}
    shares = {8: np.array([1.0, 1.0]), 4: np.array([1.0, 0.5])}
    return Report(config, layers, cells, shares)


def claim(found, start):
    [one] = [each for each in found if each.claim.startswith(start)]
    return one


def test_claims_by_hand():
    found = claims.claims(report())
    better = claim(found, "K4V2 is better")
    assert better.holds is True  # by 1 in both seeds, however far they lie apart
    assert better.measured == "15.15 ± 7.14 against 16.15 ± 7.14"
    kept = claim(found, "K4V2 keeps")
    assert kept.holds is True
    assert kept.measured.startswith("99.0 ± 0.0% with 20% less memory")
    norms = claim(found, "Keys have larger norms")
    assert norms.holds is False
    assert norms.measured.startswith("activations 100%, spectral 100%, frobenius 50%")
    assert claim(found, "The same of the weights of nine").holds is False
    ratio = claim(found, "At 2 bits")
    assert ratio.measured == "9.0 times (8.0 to 10.0)"
    assert ratio.holds is None  # 9 ± 12.7, the interval over two layers
    for by in ("norms", "measured"):
        allocated = claim(found, f"Widths allocated to layers by their {by}")
        assert allocated.holds is True
        assert "error ratio 1.00 at 3 bits" in allocated.measured
    greedy = claim(found, "64 greedy tokens")
    assert greedy.holds is True
    assert greedy.measured == "100% of the tokens; 75% with 4 bits"


def test_claims_can_fail():
    """One seed in which K4V2 is worse leaves it open; worse in both is no."""
    worse = Measured(np.array([12.5, 20.1]), np.array([]), np.array([0.24]))
    found = claims.claims(report(k4v2=worse))
    assert claim(found, "K4V2 is better").holds is None
    assert claim(found, "K4V2 keeps").holds is None
    worse = Measured(np.array([12.1, 22.2]), np.array([]), np.array([0.24]))
    assert claim(claims.claims(report(k4v2=worse)), "K4V2 is better").holds is False
    worse = Measured(np.array([12.5, 25.0]), np.array([]), np.array([0.24]))
    made = report(k4v2=worse)
    assert claim(claims.claims(made), "K4V2 keeps").holds is False
    made = made._replace(agreement={8: np.array([0.9, 0.9]), 4: np.array([1.0])})
    assert claim(claims.claims(made), "64 greedy").holds is False
    made.layers.allocations["channel", "norms", 3] = np.array([[2, 4], [2, 4]])
    found = claims.claims(made)
    assert claim(found, "Widths allocated to layers by their norms").holds is False


def test_gain_by_hand():
    """Keys of layer 1 at 4 bits: 8 + 20 / 16 + 1 + 2 over the best pair's 4.75."""
    made = report()
    made.layers.allocations["channel", "norms", 3] = np.array([[2, 2], [4, 2]])
    assert summary.gain(made, "channel", "norms", 3) == pytest.approx(12.25 / 4.75)


def test_rows_of_the_log():
    row = {"step": 1, "loss": 2.0, "perplexity_0": 7.0, "perplexity_1": 8.0}
    row |= {"accuracy_0": 0.5, "share_0": 0.25}
    found = summary.read_row(row)
    assert [each.tolist() for each in found] == [[7.0, 8.0], [0.5], [0.25]]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("bits", (4, 8), "bits: expected 2 and 4"),
        ("bits", (2, 4, 3), "bits: expected 2 and 4"),
        ("tokens", 500, "tokens: expected a multiple of 128"),
        ("tokens", 256, "at least 512"),
        ("seeds", (1, 1), "seeds: expected distinct numbers"),
        ("largest", 60, "largest: expected at least the shots and the questions"),
        ("run_budgets", (5,), "run_budgets: expected some of budgets"),
        ("texts", 0, "texts: expected at least 1, got 0"),
    ],
)
def test_fields(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PRESETS["demo"], **{field: value})


def write_cities(folder, **changes):
    row = {"name": "A", "countrycode": "XX", "population": 5} | changes
    rows = {"1": row, "2": {"name": "B", "countrycode": "YY", "population": 9}}
    rows["3"] = {"name": "A", "countrycode": "YY", "population": 4}
    (folder / "cities.json").write_text(json.dumps(rows))
    names = {"XX": {"name": "Xland"}, "YY": {"name": "Yland"}}
    (folder / "countries.json").write_text(json.dumps(names))
    return folder / "cities.json", folder / "countries.json"


def test_cities_are_sorted_and_named_once(tmp_path):
    found = cities.load(*write_cities(tmp_path))
    assert found == [cities.City("B", "Yland", 9), cities.City("A", "Xland", 5)]
    assert cities.shots(found[:1]) == "City: B\nCountry: Yland\n\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"population": "5"}, r"cities\.json: 1: population: expected int, got '5'"),
        (
            {"countrycode": "ZZ"},
            r"cities\.json: 1: expected a countrycode of .*, got 'ZZ'",
        ),
        ({"name": None}, r"cities\.json: 1: name: expected str, got None"),
    ],
)
def test_cities_that_are_wrong(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        cities.load(*write_cities(tmp_path, **changes))


def test_cities_cut_short(tmp_path):
    paths = write_cities(tmp_path)
    paths[0].write_text('{"1": ')
    with pytest.raises(ValueError, match=r"cities\.json: expected valid JSON"):
        cities.load(*paths)
