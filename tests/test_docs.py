"""Test that the code in README and docs runs unchanged."""

import gc
import json
import re
import shlex
import socket
import threading
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jeff import assets, checkpoint, fairness, sharding
from jeff.fairness import nets
from jeff_graph import editing
from jeff_llm.models.quantized import Int8Table

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / "README.md", ROOT / "ARCHITECTURE.md"),
    *sorted((ROOT / "docs").rglob("*.md")),
]


@pytest.fixture(autouse=True)
def forget_the_page():
    """Each page has a model of its own; together they would not fit a small machine."""
    yield
    jax.clear_caches()
    gc.collect()


def blocks(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.S)


def test_pages_are_short():
    """A reader has minutes: 900 words for the README, 1,500 for each other page."""
    words = {page.name: len(page.read_text().split()) for page in PAGES}
    assert words.pop("README.md") <= 900
    assert max(words.values()) < 1500


def test_no_page_needs_a_script_from_elsewhere():
    """Formulas are code: Sphinx renders its math by MathJax, which it does not hold."""
    sources = [*PAGES, *ROOT.glob("jeff*/**/*.py")]
    assert len(sources) > 300
    texts = [path for path in sources if re.search(r"math(::|:`)", path.read_text())]
    assert not texts


def test_only_pages_that_are_run_have_code():
    """Every page with code in Python is run by a test below."""
    with_code = {page.name for page in PAGES if "```python" in page.read_text()}
    assert with_code == {
        "README.md",
        "anomaly.md",
        "confidence.md",
        "dialogue.md",
        "genes.md",
        "getting_started.md",
        "gre.md",
        "kv.md",
        "language_models.md",
        "long_contexts.md",
        "more_formulas.md",
        "own_models.md",
        "reasoning.md",
        "scaling.md",
        "serving.md",
        "training.md",
        "wds.md",
        "yodo.md",
    }


MORE = blocks("docs/more_formulas.md")


@pytest.fixture
def readers_names(key):
    """What a reader has at hand: a model of their own and some people."""
    x = jax.random.normal(key, (4096, 4))
    group = jax.random.bernoulli(key, 0.5, (4096,)).astype(jnp.int32)
    label = (x[:, 0] + 0.5 * group > 0).astype(jnp.int32)
    return {
        "apply_fn": lambda params, x: x @ params["w"],
        "params_a": {"w": jnp.array([0.1, 0.0, 0.0, 0.0])},
        "params_b": {"w": jnp.array([0.0, 0.1, 0.0, 0.0])},
        "key": key,
        **{
            name + end: value
            for end in ("", "_val", "_new")
            for name, value in {"x": x, "y": label, "group": group}.items()
        },
    }


def test_example_of_the_readme_and_yodo_page(readers_names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block, _ = blocks("README.md")
    exec(compile(block, "README.md", "exec"), readers_names)
    assert readers_names["prob"].shape == (101, 4096)
    assert 0 <= readers_names["best"].alpha <= 1
    assert readers_names["best"].gap_upper <= 0.08
    trained = readers_names["line"]
    use, restore = blocks("docs/yodo.md")
    exec(compile(use, "docs/yodo.md", "exec"), readers_names)
    assert readers_names["found"].accuracy.shape == (101,)
    assert readers_names["best"].gap_upper <= 0.08
    at_best = fairness.predict(
        readers_names["apply_fn"], trained, readers_names["x"], readers_names["best"][0]
    )
    np.testing.assert_allclose(readers_names["prob"], at_best, rtol=1e-5)
    _, line = nets.mlp_line(4, key=jax.random.key(1))  # what a run leaves
    checkpoint.save("runs/yodo/my-run/seed0/line", line, metadata={"num_features": 4})
    exec(compile(restore, "docs/yodo.md", "exec"), readers_names)
    jax.tree.map(np.testing.assert_array_equal, readers_names["line"], line)


def test_training_page(readers_names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = blocks("docs/training.md")
    readers_names |= {
        "params": readers_names["params_a"],
        "data": {"x": readers_names["x"], "y": readers_names["y"].astype(float)},
        "optimizer": optax.adam(1e-2),
        "loss_fn": lambda params, batch, key: (
            jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2),
            {},
        ),
    }
    exec(compile(first, "docs/training.md", "exec"), readers_names)
    assert readers_names["result"].step == 560
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", lambda **_: mesh)
    exec(compile(second, "docs/training.md", "exec"), readers_names)


@pytest.mark.usefixtures("smollm2_is_here")
@pytest.mark.slow
def test_more_formulas_of_a_language_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_blocks("more_formulas.md", ["import jax", *MORE[-1:]])
    assert " Paris" not in names["out"].texts[0]
    assert names["stopped"].lengths.shape == (1,)


def test_more_formulas(readers_names, tmp_path, monkeypatch):
    from jeff_llm.chat import Answer

    class Numbers:
        name = "numbers"

        async def answer(self, request):
            return Answer("2, 1", "stop", 10, 2)

    monkeypatch.chdir(tmp_path)
    readers_names["chat_model"] = Numbers()
    for block in MORE[:-1]:
        exec(compile(block, "docs/more_formulas.md", "exec"), readers_names)
    names = readers_names
    assert names["prob"].shape == (3, 4096) and names["on_front"].tolist() == [1, 1, 0]
    np.testing.assert_allclose(names["chance"], 0.25, atol=0.01)
    assert names["sums"].cells.max() <= 40
    # Each bound holds what it bounds.
    query, keys, lost = (names[name] for name in ("query", "keys", "lost"))
    assert abs(query[0] @ lost[0]) <= names["one"] * 1.001
    changed = jax.nn.softmax(query @ (keys - lost).T / 8)
    assert jnp.linalg.norm(changed - names["exact"]) <= names["attention"]
    assert sorted(names["limo"]) == [0, 1]
    assert set(names["chosen"].picks) == {0, 1} == set(names["best"])
    # One choice, and two attempts at a dialogue with a repair each.
    assert (tmp_path / "answers.jsonl").read_text().count("\n") == 5
    assert names["s1k"].shape == (2,) and names["budget"].budget == 25


@pytest.fixture
def graph_readers_names(key):
    """A graph, a network of the reader's own, and the nodes it was trained on."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 5)).astype(np.float32)
    features[17] = [0.0, 0.0, 2.0, 0.0, 0.0]
    train = jnp.arange(60) < 30

    def apply_fn(params, graph):
        return graph.nodes @ params

    hidden = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)
    return {
        "kernels": [hidden, -hidden.T[:, :3] / 3],
        "graph": editing.make_graph(features, np.zeros((0, 2), int)),
        "features": features,
        "labels": features[:, :3].argmax(1),
        "edges": rng.integers(0, 60, (100, 2)),
        "apply_fn": apply_fn,
        "params": jnp.eye(5, 3).at[2].set(jnp.array([0.02, 0.0, -0.02])),
        "train": train,
        "test": ~train,
        "key": key,
    }


def test_jraph_example_of_the_readme(graph_readers_names):
    names = graph_readers_names
    exec(compile(blocks("README.md")[1], "README.md", "exec"), names)
    assert names["outcome"].success and names["outcome"].steps > 0
    assert names["editor"].logits()[17].argmax() == 2


def test_editing_of_the_graph_page(graph_readers_names):
    names = graph_readers_names
    of_jraph, edit, undo = blocks("docs/gre.md")[:3]
    exec(compile(of_jraph, "docs/gre.md", "exec"), names)
    assert names["fitted"].valid > 0.5 and names["outcome"].success
    exec(compile(edit, "docs/gre.md", "exec"), names)
    assert names["outcome"].success and names["outcome"].steps > 0
    assert names["editor"].logits()[17].argmax() == 2
    exec(compile(undo, "docs/gre.md", "exec"), names)
    assert names["editor"].params is names["params"]


def test_graph_page(graph_readers_names):
    """As one reader would, block by block; the network is the reader's own."""
    names = graph_readers_names

    def loss_fn(params, rows):
        found = jnp.asarray(names["features"])[rows] @ params
        return optax.softmax_cross_entropy_with_integer_labels(
            found, jnp.asarray(names["labels"])[rows]
        ).mean()

    names |= {
        "loss_fn": loss_fn,
        "subsets": jnp.arange(30).reshape(3, 10),
        "edit_loss": lambda params: loss_fn(params, jnp.array([42])),
    }
    for block in blocks("docs/gre.md"):
        exec(compile(block, "docs/gre.md", "exec"), names)
    assert names["outcome"].success
    assert names["report"].success.shape == (3,)
    assert names["trained"].test > 0
    assert names["fast"].starts is not None


def test_rewiring_of_the_graph_page(key):
    """The reader's MLP; an edit that wants another class for a training example."""
    first, last, inputs = jax.random.split(key, 3)
    params = {
        "first": jax.random.normal(first, (4, 16)) / 2,
        "last": jax.random.normal(last, (16, 3)) / 4,
    }
    x = jax.random.normal(inputs, (60, 4))

    def logits(params, x):
        return jax.nn.relu(x @ params["first"]) @ params["last"]

    labels = logits(params, x).argmax(1)

    def error(params, rows, labels):
        found = logits(params, x[rows])
        return optax.softmax_cross_entropy_with_integer_labels(found, labels).mean()

    names = {
        "params": params,
        "subsets": jnp.arange(60).reshape(3, 20),
        "loss_fn": lambda params, rows: error(params, rows, labels[rows]),
        "edit_loss": lambda params: error(params, jnp.array([7]), labels[7:8] - 1),
    }
    exec(compile(blocks("docs/gre.md")[3], "docs/gre.md", "exec"), names)
    changes = [
        sum(jnp.vdot(u, g[k]) for u, g in zip(*map(jax.tree.leaves, pair), strict=True))
        for pair in [(names["updates"], names["anchors"])]
        for k in range(3)
    ]
    assert max(changes) < 1e-6
    assert names["state"][0].multipliers.max() > 0


@pytest.fixture
def smollm2_is_here():
    pytest.importorskip("gguf")
    try:
        assets.find("smollm2")
    except FileNotFoundError as error:
        pytest.skip(f"SmolLM2 is not here: {error}")


def run_blocks(name, texts):
    """Run blocks one after the other, as one reader would."""
    names = {}
    for text in texts:
        exec(compile(text, name, "exec"), names)
    return names


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2_is_here")
def test_the_packed_cache_of_its_page():
    page = packed_cache_names()
    page["tokens"] = jnp.arange(256).reshape(1, 256)
    layer, *rest = blocks("docs/kv.md")
    exec(compile(layer, "docs/kv.md", "exec"), page)
    assert page["out"].shape == (2, 1, 32, 128)
    for block in rest:
        exec(compile(block, "docs/kv.md", "exec"), page)
    assert page["out"].texts == [" Paris."]
    assert page["bits"].shape == (30, 2)


def packed_cache_names():
    """Keys, values and queries of a prompt, and of the token behind it."""
    names = {}
    for end, count in (("", 300), ("new_", 1)):
        for name, heads in (("query", 32), ("key", 8), ("value", 8)):
            shape = (2, count, heads, 128)
            names[end + name] = jnp.ones(shape, jnp.bfloat16)
    return names


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2_is_here")
def test_language_models_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", lambda **_: mesh)
    names = run_blocks("language_models.md", blocks("docs/language_models.md"))
    paris, rome = names["scores"][0]
    assert paris.total > rome.total
    assert names["loss"] > 0
    assert names["answer"].text == "The capital of France is Paris."
    assert (tmp_path / "adapters" / "adapter_model.safetensors").is_file()
    assert names["logits"].shape == (1, 2)


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2_is_here")
def test_long_contexts_page():
    names = run_blocks("long_contexts.md", blocks("docs/long_contexts.md"))
    assert names["out"].texts[0].startswith(" Paris")
    assert names["again"] and isinstance(names["small"].params["embedding"], Int8Table)
    # Of the second prompt only what the first and its answer did not hold.
    assert names["session"].tokens_read < 5 + 5 + 8


OWN_MODELS = ("plain", "nnx", "linen", "equinox", "haiku")


@pytest.mark.parametrize("number", range(len(OWN_MODELS)), ids=OWN_MODELS)
def test_own_models_page(number, readers_names):
    """As the reader of one library would: its block, and what follows."""
    pytest.importorskip(OWN_MODELS[number] if number > 2 else "flax")
    page = blocks("docs/own_models.md")
    names = {n: readers_names[n] for n in ("x", "y", "group")}
    names["x"] = names["x"][:, :4]
    first = "import jax, jax.numpy as jnp\n" if number else ""
    for block in (first + page[number], page[-1]):
        exec(compile(block, "docs/own_models.md", "exec"), names)
    assert names["prob"].shape == (11, len(names["x"]))
    assert ((names["prob"] > 0) & (names["prob"] < 1)).all()


def test_every_relative_link_leads_somewhere():
    for page in PAGES:
        for target, _, part in re.findall(
            r"\]\((?!https?:)([^)#\s]*)(#([^)]+))?\)", page.read_text()
        ):
            place = page.parent / target if target else page
            assert place.exists(), f"{page.name}: {target}"
            assert not part or part in anchors(place), f"{page.name}: {target}#{part}"


def anchors(page):
    """Where links into a page may lead: its headings, as GitHub names them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.M)
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles
    }


def test_the_readme_lists_the_systems_as_they_are():
    from train_scripts.systems import SYSTEMS

    text = (ROOT / "README.md").read_text()
    for name, system in SYSTEMS.items():
        row = next(line for line in text.splitlines() if f"`run {name}`" in line)
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[0].endswith(f"`{system.module}`, `run {name}`")
        page = re.search(r"\(docs/(\w+\.md)\)", cells[4])[1]
        assert system.module in (ROOT / "docs" / page).read_text()
        assert all(cells)


@pytest.fixture
def cell_readers_names(key, tmp_path, monkeypatch):
    """A file of cells, and a network of the reader's own."""
    anndata = pytest.importorskip("anndata", reason="h5ad files need anndata")
    from jeff_graph.cells import celluformer, simulate

    made = simulate.simulate_cells(700, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = anndata.AnnData(made.take(np.arange(700)))
        file.var_names = made.genes
        file.obs["disease"] = made.column("label")
        file.write_h5ad(tmp_path / "my.h5ad")
    monkeypatch.chdir(tmp_path)
    sizes = celluformer.Config(200, 2, width=8, heads=2, layers=1, hidden=8)
    return {
        "key": key,
        "attention_fn": celluformer.make_attention(sizes),
        "params": celluformer.init(sizes, key=key),
    }


def test_cells_page(cell_readers_names):
    names = cell_readers_names
    few, *rest = blocks("docs/wds.md")
    exec(compile(few, "docs/wds.md", "exec"), names)
    assert names["few"].cells.shape == (7,)
    assert names["pairs"].shape == (200, 200)
    low, high = names["interval"]
    # Of seven cells of uneven weight, hardly a pair was seen in two effective ones.
    weight, square = names["sums"].weight[0], names["sums"].square[0]
    effective = weight**2 / jnp.where(square > 0, square, 1)
    seen = ~np.isnan(low)
    assert np.isnan(low).any() and (effective[seen] > 1.999).all()
    assert (low[seen] <= high[seen]).all()
    for block in rest:
        exec(compile(block, "docs/wds.md", "exec"), names)
    assert names["trained"].loss < 1
    assert names["null"].p_value.shape == names["pairs"].shape


@pytest.fixture
def logs_file(tmp_path, monkeypatch):
    """Logs of two models, as a reader would have them."""
    rng = np.random.default_rng(0)
    rows = []
    for sure in rng.random(400):
        small, large = rng.random(2) < (1 - (1 - sure) ** 2, 0.95)
        rows.append(
            {
                "confidence": sure,
                "small_correct": bool(small),
                "large_correct": bool(large),
                "cost": 0.01,
            }
        )
    (tmp_path / "logs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("logs_file")
def test_routing_of_the_confidence_page():
    names = {}
    exec(compile(blocks("docs/confidence.md")[0], "docs/confidence.md", "exec"), names)
    assert 0 < names["curve"].area < 1
    assert names["to_large"].tolist() == [True, False]


@pytest.mark.slow
@pytest.mark.usefixtures("logs_file", "smollm2_is_here")
def test_confidence_page(key):
    from jeff_llm.models import adapters

    names = {"key": key}
    for block in blocks("docs/confidence.md"):
        if "selfref.load" in block:  # what the script would have written
            adapters.save("runs/selfref/.../adapters", names["factors"])
        exec(compile(block, "docs/confidence.md", "exec"), names)
    assert names["carried"].rate_error < 0.2
    assert names["out"].texts[0].strip() == "France"
    assert names["judged"].shape == (4,)
    assert ((names["judged"] > 0) & (names["judged"] < 1)).all()


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2_is_here")
def test_serving_page(tmp_path, monkeypatch):
    """Against the app of its last block, with a log of two requests."""
    pytest.importorskip("openai")
    pytest.importorskip("starlette")
    uvicorn = pytest.importorskip("uvicorn")
    from jeff_llm.confidence import router_file

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"confidence": sure}) for sure in (0.25, 0.75)]
    (tmp_path / "traffic.jsonl").write_text("\n".join(lines) + "\n")
    ask, threshold, own = blocks("docs/serving.md")
    names = {}
    exec(compile(own, "docs/serving.md", "exec"), names)
    server = uvicorn.Server(
        uvicorn.Config(names["app"], log_config=None, lifespan="off")
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            port = str(listening.getsockname()[1])
            exec(compile(ask.replace("8000", port), "docs/serving.md", "exec"), names)
        finally:
            server.should_exit = True
            thread.join()
    names["client"].close()
    said = names["said"].choices[0]
    assert said.message.content == "The capital of France is Paris."
    assert names["part"].choices[0].finish_reason == said.finish_reason == "stop"
    exec(compile(threshold, "docs/serving.md", "exec"), names)
    found = router_file.load(tmp_path / "router.json")
    assert found["fifth"].threshold == 0.25


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2_is_here")
def test_reasoning_page():
    from jeff_llm.chat import Answer
    from jeff_llm.models import weights

    class Sure:
        name = "sure"

        async def answer(self, request):
            return Answer("17 + 25 = 42. #### 42", "stop", 10, 8)

    names = {"chat_model": Sure(), "model": weights.load("smollm2")}
    for block in blocks("docs/reasoning.md"):
        exec(compile(block, "docs/reasoning.md", "exec"), names)
    assert names["choice"].bound <= 0.05
    assert names["asked"].answer == "42"
    assert names["asked"].samples < 40
    assert names["advantage"].sum() == pytest.approx(0, abs=1e-6)
    assert "wait" not in names["out"].texts[0].lower()


@pytest.mark.slow
def test_genes_page(capsys):
    if assets.status("hpo") is None:
        pytest.skip("HPO is not on this machine")
    names = {}
    for block in blocks("docs/genes.md"):
        exec(compile(block, "docs/genes.md", "exec"), names)
    assert names["best"][0] == "FBN1"
    assert "Marfan syndrome" in capsys.readouterr().out


@pytest.mark.slow
def test_anomaly_page():
    if assets.status("minilm") is None:
        pytest.skip("MiniLM is not on this machine")
    names = {}
    for block in blocks("docs/anomaly.md"):
        exec(compile(block, "docs/anomaly.md", "exec"), names)
    assert names["flagged"].tolist() == [False, True]
    assert names["reason"].startswith("See you at")


@pytest.mark.slow
def test_dialogue_page(tmp_path, monkeypatch):
    if assets.status("hpo") is None:
        pytest.skip("HPO is not on this machine")
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("docs/dialogue.md"):
        exec(compile(block, "docs/dialogue.md", "exec"), names)
    assert names["score"].position.low > names["random"] > 0
    assert (tmp_path / "dialogue.jsonl").read_text().count("\n") == 200


@pytest.mark.slow
def test_getting_started(tmp_path, monkeypatch, capsys):
    """Its commands and its code, in the order of the page."""
    if assets.status("adult") is None:
        pytest.skip("Adult is not on this machine")
    pytest.importorskip("tyro")
    from train_scripts import cli

    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/getting_started.md").read_text()
    names, commands = {}, []
    for language, text in re.findall(r"```(\w+)\n(.*?)```", page, flags=re.S):
        if language == "python":
            exec(compile(text, "getting_started.md", "exec"), names)
            continue
        for words in map(shlex.split, text.splitlines()):
            if words[:2] == ["python", "-m"] and "train_scripts" in words[2]:
                system = words[2].split(".")[1:]
                commands.append([*(["run"] if system else []), *system, *words[3:]])
                assert cli.main(commands[-1]) == 0 or commands[-1] == ["doctor"]
    assert [each[0] for each in commands] == ["doctor", "run", "run"]
    assert names["result"]["preset"] == "smoke" and names["result"]["claims"]
    accurate, fair = names["levels"].accuracy
    wide, narrow = names["levels"].demographic_parity
    assert accurate > fair and wide > 2 * narrow
    assert list((tmp_path / "runs" / "routing").glob("*/router.json"))
    printed = capsys.readouterr().out
    assert "jeff-jax" in printed and "AUROC" in printed
