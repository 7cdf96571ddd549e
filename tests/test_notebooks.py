"""Test notebooks: valid, without outputs or local paths, and executable."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jeff import assets

ROOT = Path(__file__).parents[1]
# What makes a notebook short.
SHORT = {
    "yodo": ("NUM_EPOCHS", 1),
    "kv": ("NUM_TOKENS", 512),
    "gre": ("NUM_EDITS", 5),
    "wds": ("NUM_CELLS", 1000),
    "confidence": ("NUM_QUESTIONS", 60),
    "reasoning": ("NUM_STEPS", 5),
    "genes": ("NUM_CASES", 12),
    "anomaly": ("NUM_TEXTS", 120),
    "dialogue": ("NUM_QUESTIONS", 60),
}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EVERY = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
# An address, an index of packages, or an absolute path.
PLACES = re.compile(r"://|file:|index-url|find-links|(?<![\w.~)>])/\w+/")


def code_cells(path):
    cells = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def as_program(path):
    """All code cells in order, without lines for IPython, and short."""
    parts = []
    for cell in code_cells(path):
        lines = "".join(cell["source"]).splitlines()
        lines = [text for text in lines if not text.startswith(("%", "!"))]
        parts += [f"# cell {cell['id']}", *lines]
    program = "\n".join(parts)
    setting, value = SHORT[path.stem]
    short, count = re.subn(
        rf"^{setting} = \d+$", f"{setting} = {value}", program, flags=re.M
    )
    assert count == 1
    return short


def test_there_is_one():
    assert [path.stem for path in NOTEBOOKS] == [
        "anomaly",
        "confidence",
        "dialogue",
        "genes",
        "gre",
        "kv",
        "reasoning",
        "wds",
        "yodo",
    ]


@EVERY
def test_form(path):
    """Format 4.5: cells with distinct names, no outputs, no counts."""
    notebook = json.loads(path.read_text())
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(set(names)) == len(names)
    for cell in notebook["cells"]:
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell["id"])
        assert cell["metadata"] == {}
        assert all(isinstance(text, str) for text in cell["source"])
        assert "".join(cell["source"]).strip()
        keys = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            keys |= {"execution_count", "outputs"}
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
        else:
            assert cell["cell_type"] == "markdown"
        assert set(cell) == keys


@EVERY
def test_no_machine_is_named(path):
    """No absolute path, no address, no package index: it runs anywhere."""
    assert PLACES.findall(path.read_text()) == []
    assert PLACES.search("see /some/where or https://example.com")


def printed(path, tmp_path):
    """What every cell prints, in a fresh process; warnings are errors."""
    program = tmp_path / "notebook.py"
    program.write_text(as_program(path))
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["notebook.py"]
    return done.stdout


@pytest.mark.slow
def test_yodo_runs(adult_path, tmp_path):
    out = printed(ROOT / "notebooks" / "yodo.ipynb", tmp_path)
    assert "45,222 people" in out
    assert len(re.findall(r"accuracy \d\d\.\d%", out)) >= 3


@pytest.mark.slow
def test_kv_runs(tmp_path):
    """Bits given the right way round cost less than the wrong way."""
    pytest.importorskip("gguf")
    try:
        assets.find("smollm2")
    except FileNotFoundError as error:
        pytest.skip(f"SmolLM2 is not here: {error}")
    out = printed(ROOT / "notebooks" / "kv.ipynb", tmp_path)
    assert "keys are larger in 100% of the layers" in out
    found = dict(re.findall(r"(K\dV\d): perplexity (\d+\.\d+)", out))
    assert float(found["K4V2"]) < float(found["K2V4"])
    assert "8 bits: 100% of the tokens" in out
    assert "after 500 tokens; 1 program" in out


@pytest.mark.slow
def test_confidence_runs(tmp_path):
    """A real model answers, its confidence is measured, and a token is taught."""
    pytest.importorskip("gguf")
    try:
        for name in ("smollm2", "cities", "countries"):
            assets.find(name)
    except FileNotFoundError as error:
        pytest.skip(f"weights or cities are not here: {error}")
    out = printed(ROOT / "notebooks" / "confidence.ipynb", tmp_path)
    assert re.search(r"right: \d+\.\d%", out)
    found = re.findall(r"alignment (0\.\d+), normalised area", out)
    assert len(found) == 3
    assert min(map(float, found)) > 0.5
    assert re.search(r"threshold (inf|0\.\d+): \d+\.\d% of the answers are kept", out)


@pytest.mark.slow
def test_wds_runs(tmp_path):
    """Sketches add up, and diversity draws more of the rare cells than chance does."""
    out = printed(ROOT / "notebooks" / "wds.ipynb", tmp_path)
    assert "that of the whole: True" in out
    drawn = re.findall(r"type[45]: +(\d+) cells drawn by diversity, +(\d+) evenly", out)
    assert sum(int(one) for one, _ in drawn) > sum(int(other) for _, other in drawn)
    assert len(re.findall(r"AUROC of the planted pairs 0\.\d+", out)) == 3
    assert len(re.findall(r"\ngene\d+ gene\d+ ", out)) == 20


@pytest.mark.slow
def test_gre_runs(tmp_path):
    """An edit is taken in, one is refused, and rewired steps raise no part's loss."""
    pytest.importorskip("sklearn")
    out = printed(ROOT / "notebooks" / "gre.ipynb", tmp_path)
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
    out = printed(ROOT / "notebooks" / "reasoning.ipynb", tmp_path)
    assert "one sample: " in out
    assert re.search(r"adaptive, 0.8: .* right, \d+\.\d samples", out)
    assert "'ESC, window 5': " in out


@pytest.mark.slow
def test_genes_runs(tmp_path):
    """A patient is ranked with reasons, and divide and conquer is measured."""
    if assets.status("hpo") is None:
        pytest.skip("HPO is not on this machine")
    out = printed(ROOT / "notebooks" / "genes.ipynb", tmp_path)
    assert re.search(r"\n\['FBN1', ", out)
    assert "FBN1: rank 1 of " in out
    assert re.search(r"combined: \d+% right", out)
    assert re.search(r"divide and conquer x5: \d+% right, \d+ calls", out)


@pytest.mark.slow
def test_anomaly_runs(tmp_path):
    """Texts are scored, a threshold is set, and words join the detector."""
    if assets.status("minilm") is None:
        pytest.skip("MiniLM is not on this machine")
    out = printed(ROOT / "notebooks" / "anomaly.ipynb", tmp_path)
    assert re.search(r"false alarms: \d+\.\d% of 60 normal texts", out)
    assert re.search(r"flag above .*: 36 texts kept aside", out)
    areas = dict(re.findall(r"(.+): AUROC (\d\.\d+)", out))
    assert set(areas) == {"meaning", "style", "both", "words", "all three"}
    assert float(areas["all three"]) > 0.8


@pytest.mark.slow
def test_dialogue_runs(tmp_path):
    """Mazes are made, rules and heads choose, and a dialogue is written."""
    if assets.status("hpo") is None or assets.status("minilm") is None:
        pytest.skip("HPO or MiniLM is not on this machine")
    out = printed(ROOT / "notebooks" / "dialogue.ipynb", tmp_path)
    assert re.search(r"last, published construction: POS 0\.[4-9]", out)
    assert re.search(r"last, jeff: POS 0\.[0-2]", out)
    assert re.search(r"head, dialogue: POS 0\.\d+", out)
    assert "every fact is kept, none is added" in out
