"""Test notebooks: as their sources say, on any machine, and run without a warning."""

import json
import os
import re
import runpy
from pathlib import Path

import pytest

from jeff import assets
from train_scripts.systems import SYSTEMS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
PROGRAM = runpy.run_path(str(ROOT / "tests" / "programs" / "notebooks.py"))
# What makes a notebook short. Compilation is most of what is left.
SHORT = {
    "anomaly": {"NUM_TEXTS": 120, "BATCH_SIZE": 8},
    "dialogue": {"NUM_QUESTIONS": 40, "NUM_STEPS": 50, "BATCH_SIZE": 8},
    "genes": {"NUM_CASES": 12, "NUM_CANDIDATES": 12, "NUM_SHUFFLES": 2},
    "gre": {"NUM_EDITS": 5},
    "kv": {
        "NUM_ROWS": 1,
        "NUM_TOKENS": 512,
        "WIDTHS": ((16, 16), (4, 2), (2, 4)),
        "PROMPT_TOKENS": 140,
        "NEW_TOKENS": 4,
        "EQUAL_BITS": (8,),
    },
    "overview": {
        "NUM_CELLS": 2000,
        "NUM_QUESTIONS": 32,
        "NUM_EPOCHS": 1,
        "NUM_GRAPH_EPOCHS": 60,
        "FIRST_LAYER": 28,
    },
    "reasoning": {
        "WIDTH": 64,
        "NUM_LAYERS": 2,
        "NUM_EXAMPLES": 2000,
        "NUM_STEPS": 100,
        "BATCH_SIZE": 2,
        "NUM_RL_STEPS": 2,
        "NUM_PROMPTS": 4,
        "NUM_QUESTIONS": 8,
        "NUM_SAMPLES": 10,
        "MAX_TOKENS": 48,
    },
    "routing": {"NUM_QUESTIONS": 32},
    "selfref": {"NUM_QUESTIONS": 32, "NUM_EPOCHS": 1, "FIRST_LAYER": 28},
    "wds": {"NUM_CELLS": 1000, "NUM_GENES": 100, "NUM_EPOCHS": 1},
    "yodo": {"NUM_EPOCHS": 1, "NUM_LEVELS": 21},
}
EVERY = pytest.mark.parametrize("name", SHORT)
# An address, an index of packages, or an absolute path.
PLACES = re.compile(r"://|file:|index-url|find-links|(?<![\w.~)>])/\w+/")


def test_one_a_system_and_one_of_all():
    assert list(SHORT) == sorted([*SYSTEMS, "overview"])
    for kind in ("py", "ipynb"):
        assert sorted(path.stem for path in FOLDER.glob(f"*.{kind}")) == list(SHORT)


@EVERY
def test_written_from_its_source(name):
    """Format 4.5, without outputs; ``make notebooks`` renews them."""
    found = (FOLDER / f"{name}.ipynb").read_text()
    assert found == PROGRAM["as_text"](PROGRAM["from_source"](FOLDER / f"{name}.py"))
    notebook = json.loads(found)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert all("".join(cell["source"]).strip() for cell in notebook["cells"])
    assert all(not cell.get("outputs") for cell in notebook["cells"])


@EVERY
def test_no_machine_is_named(name):
    """No absolute path, no address, no package index: it runs anywhere."""
    assert PLACES.findall((FOLDER / f"{name}.ipynb").read_text()) == []
    assert PLACES.search("see /some/where or https://example.com")


@EVERY
def test_installs_what_it_needs(name):
    """Where jeff is missing, pip brings it; the extras are those of the project."""
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]
    install = next(cell for cell in cells if cell["cell_type"] == "code")
    source = "".join(install["source"])
    pip, clone = re.findall(r'"[\w.-]+\[([\w,]+)\]"', source)[::-1]
    assert pip == clone and f'\n    %pip install -q "jeff-jax[{pip}]"\n' in source
    assert ("llm" in pip) == ("jeff_llm" in (FOLDER / f"{name}.py").read_text())


@EVERY
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)]+)\)", (FOLDER / f"{name}.py").read_text()):
        assert (FOLDER / target).is_file(), target


def test_a_failing_cell_is_named(tmp_path):
    """A warning fails a cell, and the error says which of which notebook."""
    source = tmp_path / "bad.py"
    source.write_text(
        "# %%\nSIZE = 9\n\n# %%\nimport warnings\n\nwarnings.warn(f'size {SIZE}')\n"
    )
    notebook = PROGRAM["with_settings"](PROGRAM["from_source"](source), {"SIZE": 1})
    with pytest.raises(RuntimeError, match=r"bad, cell 01: [\s\S]*UserWarning: size 1"):
        PROGRAM["run"](notebook, "bad", tmp_path)
    with pytest.raises(AssertionError, match="OTHER: expected one line"):
        PROGRAM["with_settings"](notebook, {"OTHER": 1})


def run(name, tmp_path):
    """What a short notebook prints, in a kernel of its own; warnings are errors."""
    source = (FOLDER / f"{name}.py").read_text()
    if brought := re.search(r"assets\.bring\(\s*\[(.*?)\]", source, flags=re.S):
        for asset in re.findall(r'"(\w+)"', brought[1]):
            if assets.status(asset) is None:
                pytest.skip(f"{asset} is not on this machine")
    notebook = PROGRAM["from_source"](FOLDER / f"{name}.py")
    short = PROGRAM["with_settings"](notebook, SHORT[name])
    # Short ones compile more than they compute: as the suite does (`conftest`), without
    # LLVM's optimiser, where the version of XLA knows these flags.
    flags = os.environ.get("XLA_FLAGS", "")
    if "--xla_cpu_use_fusion_emitters=false" in flags:
        flags += " --xla_backend_optimization_level=0"
    return PROGRAM["printed"](PROGRAM["run"](short, name, tmp_path, XLA_FLAGS=flags))


@pytest.mark.slow
def test_yodo_runs(tmp_path):
    out = run("yodo", tmp_path)
    assert "45,222 people" in out
    assert len(re.findall(r"accuracy \d\d\.\d%", out)) >= 3


@pytest.mark.slow
def test_kv_runs(tmp_path):
    """Bits given the right way round cost less than the wrong way."""
    pytest.importorskip("gguf")
    out = run("kv", tmp_path)
    assert "keys are larger in 100% of the layers" in out
    found = dict(re.findall(r"(K\dV\d): perplexity (\d+\.\d+)", out))
    assert float(found["K4V2"]) < float(found["K2V4"])
    assert "8 bits: 100% of the tokens" in out
    assert "after 500 tokens; 1 program" in out


@pytest.mark.slow
def test_routing_runs(tmp_path):
    """A real model answers, its confidence is measured, and thresholds are chosen."""
    pytest.importorskip("gguf")
    out = run("routing", tmp_path)
    assert re.search(r"right: \d+\.\d%", out)
    found = re.findall(r"alignment (0\.\d+), normalised area", out)
    assert len(found) == 3
    assert min(map(float, found)) > 0.5
    kept = r": threshold (?:inf|0\.\d+), \d+\.\d% of the answers are kept"
    assert len(re.findall(kept, out)) == 3
    assert "share passed on is off by" in out


@pytest.mark.slow
def test_selfref_runs(tmp_path):
    """A token is taught, and judges answers that it has not learned from."""
    pytest.importorskip("gguf")
    out = run("selfref", tmp_path)
    assert out.count("<CN>") + out.count("<UN>") == 2
    found = dict(re.findall(r"(\w+): alignment (0\.\d+), normalised area", out))
    assert set(found) == {"token", "perplexity"}
    assert float(found["perplexity"]) > 0.5


@pytest.mark.slow
def test_wds_runs(tmp_path):
    """Sketches add up, and diversity draws more of the rare cells than chance does."""
    out = run("wds", tmp_path)
    assert "that of the whole: True" in out
    drawn = re.findall(r"type[45]: +(\d+) cells drawn by diversity, +(\d+) evenly", out)
    assert sum(int(one) for one, _ in drawn) > sum(int(other) for _, other in drawn)
    assert len(re.findall(r"AUROC of the planted pairs 0\.\d+", out)) == 3
    assert len(re.findall(r"\ngene\d+ gene\d+ ", out)) == 20


@pytest.mark.slow
def test_gre_runs(tmp_path):
    """An edit is taken in, one is refused, and rewired steps raise no part's loss."""
    pytest.importorskip("sklearn")
    out = run("gre", tmp_path)
    assert out.count("Outcome(success=True") == 3  # two, and one of jraph
    assert re.search(r"\n\d+ of 1,796 other predictions changed", out)
    assert "the parameters are those of before: True" in out
    assert "expected at most the budget of 5.0 points" in out
    assert len(re.findall(r"at the end \d+%; drawdown", out)) == 4
    found = dict(re.findall(r"\n(.*SGD): .* a part rises for (\d+)", out))
    assert int(found["SGD"]) > int(found["rewire, then SGD"]) == 0


@pytest.mark.slow
def test_reasoning_runs(tmp_path):
    """A model is trained and shortened, and votes stop early, whatever they find."""
    out = run("reasoning", tmp_path)
    assert "one sample: " in out
    assert "accuracy-efficiency score" in out
    assert re.search(r"adaptive, 0.8: .* right, \d+\.\d samples", out)
    assert re.search(r"ESC, window 5: differs from the full vote in at most \d", out)


@pytest.mark.slow
def test_genes_runs(tmp_path):
    """A patient is ranked with reasons, and divide and conquer is measured."""
    out = run("genes", tmp_path)
    assert re.search(r"\n\['FBN1', ", out)
    assert "FBN1: rank 1 of " in out
    assert re.search(r"combined: \d+% right", out)
    assert re.search(r"divide and conquer x5: \d+% right, \d+ calls", out)


@pytest.mark.slow
def test_anomaly_runs(tmp_path):
    """Texts are scored, a threshold is set, and words join the detector."""
    out = run("anomaly", tmp_path)
    assert re.search(r"false alarms: \d+\.\d% of 60 normal texts", out)
    assert re.search(r"flag above .*: 36 texts kept aside", out)
    areas = dict(re.findall(r"(.+): AUROC (\d\.\d+)", out))
    assert set(areas) == {"meaning", "style", "both", "words", "all three"}
    assert float(areas["all three"]) > 0.8


@pytest.mark.slow
def test_dialogue_runs(tmp_path):
    """Mazes are made, rules and heads choose, and a dialogue is written."""
    out = run("dialogue", tmp_path)
    assert re.search(r"last, published construction: POS 0\.[4-9]", out)
    assert re.search(r"last, jeff: POS 0\.[0-2]", out)
    assert re.search(r"head, dialogue: POS 0\.\d+", out)
    assert "every fact is kept, none is added" in out


@pytest.mark.slow
def test_overview_runs(tmp_path):
    """Each system says its number."""
    pytest.importorskip("gguf")
    pytest.importorskip("sklearn")
    out = run("overview", tmp_path)
    was, now, true = re.search(
        r"was read as (\d), now as (\d), and is a (\d)", out
    ).groups()
    assert was != now == true
    of_all, of_sample = re.search(r"rare cells: (.*)% of all, (.*)% of", out).groups()
    assert float(of_sample) > 2 * float(of_all)
    keys, values = re.search(r"bits of keys (.*), of values (.*)\n", out).groups()
    assert float(keys) > float(values) + 1
    assert "memory at 32,768 tokens: 2" in out
    before, after = re.search(
        r"accuracy (\d+)%; with 30% passed on (\d+)%", out
    ).groups()
    assert int(after) > int(before) + 15
    assert re.search(r"AUROC of the token: 0\.\d", out)
    assert re.search(r"\d\.\d samples in place of 40", out)
    assert re.search(r"of \d,\d{3} genes: FBN1, ", out)
    p_values = re.findall(r"p = (0\.\d+)", out)
    assert float(p_values[1]) < float(p_values[0])
    found, chance = re.search(r"position: (.*)%, by chance (.*)%", out).groups()
    assert float(found) > float(chance)
