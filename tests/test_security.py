"""Test the promises of SECURITY.md that are about the whole source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("jeff", "jeff_graph", "jeff_llm", "train_scripts", "configs")
SOURCES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
# The door: the only modules that open, expand or parse a file themselves.
DOOR = {
    "jeff/arrays.py",
    "jeff/csv_rows.py",
    "jeff/files.py",
    "jeff/opening.py",
    "jeff/strict_json.py",
    "jeff/wheels.py",
}
# Beside it: rows of a text already read, logs with a torn end, our own templates,
# formats that are mapped into memory, and text that comes from no file.
BESIDE = {
    "jeff/digests.py": {"json.loads"},
    "jeff/runlog.py": {"read_bytes", "json.loads"},
    "jeff_llm/anomaly/texts.py": {"csv.reader"},
    "jeff_llm/chat/answers.py": {"read_bytes"},
    "jeff_llm/chat/endpoint.py": {"json.loads"},
    "jeff_llm/chat/messages.py": {"json.loads"},
    "jeff_llm/genes/agents.py": {"json.loads"},
    "train_scripts/reasoning/cities.py": {"json.loads"},
    "train_scripts/report/page.py": {"read_text"},
    "train_scripts/running/workdir.py": {"json.loads"},
}
READS = {
    *("json.load", "json.loads", "csv.reader", "csv.DictReader", "np.load"),
    *("gzip.open", "gzip.decompress", "zlib.decompress", "zipfile.ZipFile"),
    *("pd.read_csv", "np.loadtxt", "np.genfromtxt", "np.fromfile"),
}
METHODS = {"read_text", "read_bytes"}


def calls(path: Path) -> Iterator[tuple[str, str, ast.Call]]:
    """Each call: its whole name, the last part of it, and its node."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            yield name, name.rpartition(".")[2], node


def modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name.partition(".")[0] for name in found} | found


def reads(path: Path) -> set[str]:
    """What a module uses of the ways to read a file by itself."""
    return {
        name if name in READS else last
        for name, last, _ in calls(path)
        if name in READS or (last in METHODS and not name.startswith("files."))
    }


def test_files_are_read_through_one_door() -> None:
    found = {
        str(path.relative_to(ROOT)): used
        for path in SOURCES
        if (used := reads(path)) and str(path.relative_to(ROOT)) not in DOOR
    }
    beyond = {name: used - BESIDE.get(name, set()) for name, used in found.items()}
    assert not {name: used for name, used in beyond.items() if used}
    # An exception that is no longer used is taken out.
    assert {name: used & found.get(name, set()) for name, used in BESIDE.items()} == (
        BESIDE
    )


def test_the_search_for_reads_finds_them(tmp_path) -> None:
    path = tmp_path / "reads.py"
    path.write_text("x = json.loads(p.read_text())\ny = files.read_text(p)\nnp.load(f)")
    assert reads(path) == {"json.loads", "read_text", "np.load"}


def test_no_code_from_files_and_no_open_port() -> None:
    banned = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml"}
    banned |= {"socket", "socketserver", "http.server", "uvicorn", "aiohttp"}
    # The server listens because it is told to, on loopback unless it is told otherwise.
    server = {"train_scripts/serve/run.py": {"socket"}}
    for path in SOURCES:
        allowed = server.get(path.relative_to(ROOT).as_posix(), set())
        assert modules(path) & banned == allowed, path
        for name, _, node in calls(path):
            assert name not in {"eval", "exec", "compile", "os.system"}, (path, name)
            given = {each.arg: ast.unparse(each.value) for each in node.keywords}
            assert given.get("allow_pickle", "False") == "False", (path, name)
            assert given.get("shell", "False") == "False", (path, name)
            assert "trust_remote_code" not in given, (path, name)


def test_each_test_that_security_names_exists() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 20
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"^ *(async )?def {name}\(", (ROOT / file).read_text(), re.M)
    ]
    assert not missing
