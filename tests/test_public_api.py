"""Test the public interface: names, docstrings, layers, import time, versions."""

import ast
import builtins
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import pytest

from jeff import bootstrap, line, metrics
from jeff.fairness import evaluation, front, gaps, simplex, yodo

ROOT = Path(__file__).parents[1]
PACKAGES = ("jeff", "jeff_graph", "jeff_llm")
# Packages that each package must not know.
FORBIDDEN = {
    "jeff": {"jeff_graph", "jeff_llm", "train_scripts", "configs"},
    "jeff_graph": {"jeff_llm", "train_scripts", "configs"},
    "jeff_llm": {"jeff_graph", "train_scripts", "configs"},
    "configs": {"train_scripts"},
}
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def module_names() -> list[str]:
    names = list(PACKAGES)
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        names += [m.name for m in pkgutil.walk_packages(path, f"{package}.")]
    return names


MODULES = module_names()


class Member(NamedTuple):
    """A public function, class or method, as it stands in the source."""

    module: str
    name: str
    node: FUNCTION | ast.ClassDef


def members(module: str) -> Iterator[Member]:
    source = inspect.getsource(importlib.import_module(module))
    for node in ast.parse(source).body:
        if isinstance(node, FUNCTION | ast.ClassDef) and node.name[0] != "_":
            yield Member(module, node.name, node)
        if isinstance(node, ast.ClassDef) and node.name[0] != "_":
            for inner in node.body:
                public = isinstance(inner, FUNCTION) and (
                    inner.name[0] != "_" or inner.name == "__init__"
                )
                if public:
                    yield Member(module, f"{node.name}.{inner.name}", inner)


MEMBERS = {f"{m.module}.{m.name}": m for name in MODULES for m in members(name)}


def sections(docstring: str | None) -> dict[str, list[str]]:
    """Sections of a Google docstring, each with the names of its entries."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for text in (docstring or "").splitlines():
        if header := re.fullmatch(r"([A-Z]\w+):", text):
            current = found.setdefault(header[1], [])
        elif entry := re.match(r"  (\*{0,2}\w+):", text):
            current.append(entry[1])
    return found


def parameters(node: FUNCTION) -> list[str]:
    some = node.args
    names = [p.arg for p in [*some.posonlyargs, *some.args, *some.kwonlyargs]]
    names += [f"*{some.vararg.arg}"] if some.vararg else []
    names += [f"**{some.kwarg.arg}"] if some.kwarg else []
    return [name for name in names if name not in {"self", "cls"}]


def decorated(node: FUNCTION, name: str) -> bool:
    return any(isinstance(d, ast.Name) and d.id == name for d in node.decorator_list)


# What is called for its value; the summary of a property says what it is.
FUNCTIONS = {
    name: member.node
    for name, member in MEMBERS.items()
    if isinstance(member.node, FUNCTION)
    and not name.endswith(".__init__")
    and not decorated(member.node, "property")
}


def test_the_checks_look_at_something():
    assert {"jeff.line", "jeff.fairness.gaps", "jeff_graph", "jeff_llm"} <= set(MODULES)
    assert {
        "jeff.line.interpolate",
        "jeff.fairness.model.predict",
        "jeff.checkpoint.Checkpoints.save",
        "jeff.runlog.RunLog.__init__",
        "jeff.fairness.evaluation.Evaluation",
    } <= set(MEMBERS)
    assert sections("A.\n\nArgs:\n  x: one\n    y: no\n  *z: two\n\nReturns:\n  a") == {
        "Args": ["x", "*z"],
        "Returns": [],
    }


def faults(check, names):
    """What a check says of each name that fails it: one test tells of all faults."""
    found = []
    for name in names:
        try:
            check(name)
        except (AssertionError, KeyError) as error:
            found.append(f"{name}: {error!r}")
    return found


def test_all_names_import():
    assert faults(check_names, MODULES) == []


def check_names(name):
    """`__all__` exists, is sorted as ruff sorts, and each of its names imports."""
    assert not re.search(r"\._", name), "modules are public"
    module = importlib.import_module(name)
    assert module.__doc__
    names = module.__all__
    assert len(set(names)) == len(names)
    # CONSTANTS, then Classes, then functions.
    assert names == sorted(names, key=lambda n: (not n.isupper(), n[0].islower(), n))
    for each in names:
        assert not each.startswith("_")
        assert getattr(module, each) is not None


def test_docstrings():
    assert faults(check_docstring, MEMBERS) == []


def check_docstring(name):
    """There is one, and decorators have kept it."""
    member = MEMBERS[name]
    assert ast.get_docstring(member.node), "no docstring"
    value: Any = importlib.import_module(member.module)
    for part in member.name.split("."):
        value = inspect.getattr_static(value, part)
    assert inspect.getdoc(value) == ast.get_docstring(member.node)


def test_documented_names_are_those_of_the_code():
    assert faults(check_documented_names, MEMBERS) == []


def check_documented_names(name):
    """Every parameter is under Args and nothing else is; errors are real ones."""
    module, _, node = MEMBERS[name]
    found = sections(ast.get_docstring(node))
    if isinstance(node, FUNCTION) and not decorated(node, "property"):
        assert sorted(found.get("Args", [])) == sorted(parameters(node)), "Args"
    if isinstance(node, ast.ClassDef) and "Attributes" in found:
        fields = [n.target.id for n in node.body if isinstance(n, ast.AnnAssign)]
        assert found["Attributes"] == fields, "Attributes"
    for error in found.get("Raises", []):
        namespace = vars(builtins) | vars(importlib.import_module(module))
        assert issubclass(namespace[error], BaseException), error
    assert "Raises" not in found or found["Raises"], "Raises"


def test_what_comes_back_is_documented():
    assert faults(check_returns, FUNCTIONS) == []


def check_returns(name):
    node = FUNCTIONS[name]
    assert node.returns is not None, "no return annotation"
    returned = ast.unparse(node.returns)
    yields = re.match(r"(Iterator|Generator)\[", returned) is not None
    found = sections(ast.get_docstring(node))
    assert ("Yields" in found) == yields, "Yields"
    assert ("Returns" in found) == (returned != "None" and not yields), "Returns"


def test_faults_are_seen():
    """The four tests above would tell: a name without docstring, one too many."""
    assert faults(check_docstring, ["no.such.name"]) == [
        "no.such.name: KeyError('no.such.name')"
    ]
    assert len(MEMBERS) > 700 and len(FUNCTIONS) > 500


def loaded(call: ast.Call) -> set[str]:
    """The package that ``import_module("...")`` or ``__import__("...")`` names."""
    name = ast.unparse(call.func).rpartition(".")[2]
    texts = [a.value for a in call.args[:1] if isinstance(a, ast.Constant)]
    return set(texts) if name in {"import_module", "__import__"} else set()


def imported(tree: ast.AST) -> set[str]:
    """Packages that a file imports, at any depth, by statement or by name."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add(node.module or "")
        elif isinstance(node, ast.Call):
            found |= loaded(node)
    return {name.partition(".")[0] for name in found}


def test_imported_sees_every_kind_of_import():
    source = "def f():\n  import a.b\nfrom c.d import e\nimportlib.import_module('g.h')"
    assert imported(ast.parse(source)) == {"a", "c", "g"}


def sources(package: str) -> Path:
    """Where a package was imported from, an installed wheel included."""
    return Path(importlib.import_module(package).__file__).parent


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_point_one_way(package):
    files = sorted(sources(package).rglob("*.py"))
    assert files
    for path in files:
        wrong = imported(ast.parse(path.read_text())) & FORBIDDEN[package]
        assert not wrong, f"{path} imports {wrong}"


def test_primitives_stand_alone():
    """No printing; flax in networks alone; two files that read the environment."""
    for package in PACKAGES:
        for path in sources(package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            used = {
                ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)
            }
            assert "print" not in names, path
            assert imported(tree).isdisjoint({"pickle", "matplotlib"}), path
            if "flax" in imported(tree):
                assert "nnx.Module" in used, path
            if {"os.environ", "os.getenv"} & used:
                assert path.name in ("assets.py", "opening.py"), path


def run_python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_jeff_is_light():
    """Under two seconds of the processor's time, and without what few users need.

    The best of three counts: other processes share the machine, and its caches.
    """
    program = """
import sys, time
began = time.process_time()
import jeff
print(time.process_time() - began)
heavy = {"flax", "matplotlib", "optax", "orbax", "rich", "sklearn"} & set(sys.modules)
assert not heavy, heavy
assert jeff.line.interpolate
"""
    assert min(float(run_python(program)) for _ in range(3)) < 2


def test_import_fairness_is_without_flax():
    run_python("""
import sys
import jeff.fairness
heavy = {"flax", "matplotlib", "orbax", "rich", "sklearn"} & set(sys.modules)
assert not heavy, heavy
""")


def test_submodules_load_at_first_use():
    run_python("""
import jeff
for name in jeff.__all__:
    assert getattr(jeff, name).__name__ == f"jeff.{name}"
try:
    jeff.nothing
except AttributeError as error:
    assert "jeff" in str(error) and "nothing" in str(error)
else:
    raise AssertionError
""")


PROB = jnp.array([0.9, 0.2, 0.6, 0.4, 0.5, 0.1, 0.8, 0.3])
LABEL = jnp.array([1, 0, 0, 1, 1, 0, 1, 0])
GROUP = jnp.array([1, 1, 0, 0, 1, 0, 0, 1])
ERRORS = jnp.array([0.15, 0.2, 0.2, 0.18])
GAPS = jnp.array([0.1, 0.05, 0.2, 0.12])
START = {"w": jnp.array([[3.0, 4.0]]), "b": jnp.array([0.5])}
END = {"w": jnp.array([[1.0, 0.5]]), "b": jnp.array([-1.0])}
LINE = yodo.Line(START, END)
POINTS = simplex.stack([START, END, START])
EXAMPLES = yodo.Examples(jnp.stack([PROB, PROB**2], axis=1), LABEL, GROUP)
KEY = jax.random.key(0)


def linear(params, inputs):
    return inputs @ params["w"][0] + params["b"][0]


def mean_bootstrap(function):
    return lambda prob: function(jnp.mean, (prob,), key=KEY, num_samples=8)


# Functions that the documentation calls pure, with arguments that may be traced.
PURE: dict[str, tuple[Callable, tuple]] = {
    "bootstrap.bootstrap_interval": (
        mean_bootstrap(bootstrap.bootstrap_interval),
        (PROB,),
    ),
    "bootstrap.bootstrap_samples": (
        mean_bootstrap(bootstrap.bootstrap_samples),
        (PROB,),
    ),
    "front.hypervolume": (
        lambda errors, gaps: front.hypervolume(errors, gaps, (0.25, 0.25)),
        (ERRORS, GAPS),
    ),
    "front.monotone_levels": (front.monotone_levels, (GAPS,)),
    "front.pareto_front": (front.pareto_front, (ERRORS, GAPS)),
    "gaps.abcc": (gaps.abcc, (PROB, GROUP)),
    "gaps.demographic_parity_gap": (gaps.demographic_parity_gap, (PROB, GROUP)),
    "gaps.equal_opportunity_gap": (gaps.equal_opportunity_gap, (PROB, GROUP, LABEL)),
    "gaps.equalized_odds_gap": (gaps.equalized_odds_gap, (PROB, GROUP, LABEL)),
    "gaps.group_rates": (gaps.group_rates, (PROB, GROUP, LABEL)),
    "gaps.harden": (gaps.harden, (PROB,)),
    "gaps.p_rule": (gaps.p_rule, (PROB, GROUP)),
    "line.cosine_squared": (line.cosine_squared, (START, END)),
    "line.grid": (line.grid, (START, END, GAPS)),
    "line.interpolate": (line.interpolate, (START, END, jnp.array(0.3))),
    "line.simplex": (line.simplex, (POINTS, jnp.array([0.5, 0.2, 0.3]))),
    "metrics.accuracy": (metrics.accuracy, (PROB, LABEL)),
    "metrics.area_under_risk_coverage": (
        metrics.area_under_risk_coverage,
        (PROB, LABEL),
    ),
    "metrics.auroc": (metrics.auroc, (PROB, LABEL)),
    "metrics.average_precision": (metrics.average_precision, (PROB, LABEL)),
    "metrics.brier_score": (metrics.brier_score, (PROB, LABEL)),
    "metrics.expected_calibration_error": (
        metrics.expected_calibration_error,
        (PROB, LABEL),
    ),
    "metrics.kendall_tau": (metrics.kendall_tau, (PROB, LABEL)),
    "metrics.risk_coverage_curve": (metrics.risk_coverage_curve, (PROB, LABEL)),
    "yodo.loss": (
        lambda line, batch, alpha: yodo.loss(linear, line, batch, alpha),
        (LINE, EXAMPLES, jnp.array(0.3)),
    ),
    "yodo.sample_alpha": (lambda key: yodo.sample_alpha(key=key), (KEY,)),
    "simplex.loss": (
        lambda points, batch, weights: simplex.loss(
            linear,
            points,
            batch,
            weights,
            strengths=(1.0, 2.0),
            gaps=("demographic_parity", "equal_opportunity"),
        ),
        (POINTS, EXAMPLES, jnp.array([0.5, 0.2, 0.3])),
    ),
    "simplex.sample_weights": (lambda key: simplex.sample_weights(3, key=key), (KEY,)),
    "evaluation.measure": (
        evaluation.measure,
        (jnp.stack([PROB, PROB**2]), LABEL, GROUP, jnp.array([0.0, 1.0])),
    ),
}


@pytest.mark.parametrize("name", PURE)
def test_pure_functions_jit(name):
    """The same value under jit: shapes and dtypes exactly, numbers to rounding."""
    function, arguments = PURE[name]
    plain = function(*arguments)
    jitted = jax.jit(function)(*arguments)
    chex.assert_trees_all_equal_shapes_and_dtypes(jitted, plain)
    chex.assert_trees_all_close(jitted, plain, rtol=1e-6, atol=1e-7)
    for leaf in jax.tree.leaves(jitted):
        assert jnp.isfinite(leaf).all()


@pytest.mark.parametrize("module", [bootstrap, front, gaps, line, metrics])
def test_no_pure_function_is_forgotten(module):
    checked = {
        name.partition(".")[2]
        for name in PURE
        if name.startswith(f"{module.__name__.rpartition('.')[2]}.")
    }
    # `padded` works on the host, where no shape is compiled.
    assert set(module.__all__) - checked <= {"check_same_structure", "padded"}


def test_one_version():
    """Package, changelog and citation name the same version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = importlib.metadata.version("jeff-jax")
    changelog = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert changelog is not None
    assert citation is not None
    assert version == project["version"] == changelog[1] == citation[1]
