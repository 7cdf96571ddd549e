"""Test the result schema: round trip, and rejection of anything else."""

import copy
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train_scripts.running import results
from train_scripts.running.results import Claim, Result

RESULT = Result(
    system="yodo",
    preset="demo",
    seed=3,
    device="cpu x2",
    seconds=1.5,
    versions={"jax": "0.10.2"},
    metrics={"accuracy": 0.85, "people": 45222.0},
    claims=(Claim("It is fair", "gap 0.01", "gap 0.02 ± 0.01", holds=False),),
)


def document() -> dict[str, Any]:
    """The JSON form of ``RESULT``."""
    return json.loads(json.dumps(dataclasses.asdict(RESULT)))


def changed(field: str, value: Any) -> dict[str, Any]:
    """The document with one field replaced; dots lead into objects and lists."""
    found: Any = (whole := copy.deepcopy(document()))
    *outer, last = field.split(".")
    for name in outer:
        found = found[int(name) if name.isdigit() else name]
    found[last] = value
    return whole


def test_round_trip(tmp_path: Path) -> None:
    """A written result reads back equal, with the keys of the design in order."""
    path = results.write(RESULT, tmp_path / "new" / "run")
    assert path == tmp_path / "new" / "run" / "result.json"
    assert results.read(path) == RESULT
    keys = "system preset seed device seconds versions metrics claims"
    assert list(json.loads(path.read_text())) == keys.split()
    assert [file.name for file in path.parent.iterdir()] == ["result.json"]


def test_integers_become_floats(tmp_path: Path) -> None:
    """JSON does not tell 1 from 1.0; a metric is a float either way."""
    path = tmp_path / "result.json"
    path.write_text(json.dumps(changed("metrics", {"people": 45222})))
    value = results.read(path).metrics["people"]
    assert value == 45222 and isinstance(value, float)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("system", "", "a text that is not empty"),
        ("system", None, "a valid string"),
        ("preset", 4, "a valid string"),
        ("seed", True, "a valid integer"),
        ("seed", 1.0, "a valid integer"),
        ("device", ["cpu"], "a valid string"),
        ("seconds", "1.5", "a valid number"),
        ("seconds", -1, "greater than or equal to 0"),
        ("versions", [], "an object"),
        ("versions.jax", 10, "a valid string"),
        ("metrics", None, "an object"),
        ("metrics", {"": 1.0}, "a text that is not empty"),
        ("metrics.accuracy", True, "a valid number"),
        ("metrics.accuracy", [0.85], "a valid number"),
        ("claims", {}, "a valid array"),
        ("claims.0.holds", 1, "a valid boolean"),
        ("claims.0.holds", "yes", "a valid boolean"),
        ("claims.0.paper", " ", "a text that is not empty"),
    ],
)
def test_read_refuses(field: str, value: Any, expected: str, tmp_path: Path) -> None:
    """Each wrong value is refused by an error with file, field, expected and came."""
    path = tmp_path / "result.json"
    path.write_text(json.dumps(changed(field, value)))
    with pytest.raises(ValueError, match=expected) as caught:
        results.read(path)
    message = str(caught.value)
    place = re.sub(r"\.(\d+)", r"[\1]", field)
    assert message.startswith(f"{path}: {place}: expected ")
    assert ", came " in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400])
@pytest.mark.parametrize("field", ["seconds", "metrics.accuracy"])
def test_numbers_that_are_not_finite(field, value, tmp_path: Path) -> None:
    """Python writes NaN and Infinity to JSON all the same; reading refuses them."""
    path = tmp_path / "result.json"
    path.write_text(json.dumps(changed(field, value)))
    with pytest.raises(ValueError, match=r"finite number, came -?(NaN|Inf|10{9})"):
        results.read(path)


def test_a_claim_may_be_undecided(tmp_path: Path) -> None:
    """True, false and null are three outcomes; each reads back as it was written."""
    for holds in (True, False, None):
        claims = (dataclasses.replace(RESULT.claims[0], holds=holds),)
        path = results.write(dataclasses.replace(RESULT, claims=claims), tmp_path)
        assert results.read(path).claims[0].holds is holds


@pytest.mark.parametrize("where", ["", "claims.0."])
def test_read_refuses_other_keys(where: str, tmp_path: Path) -> None:
    """A key too many and a key too few are both named."""
    whole = document()
    inner = whole["claims"][0] if where else whole
    inner["extra"] = 1
    del inner["holds" if where else "seed"]
    path = tmp_path / "result.json"
    path.write_text(json.dumps(whole))
    with pytest.raises(ValueError, match=r"(holds|seed): expected this field") as error:
        results.read(path)
    assert "extra: unknown field" in str(error.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "valid JSON"),
        (b'{"system": "yo', "cut short"),
        (b"\xff\xfe", "valid JSON"),
        (b"[" * 100_000, "valid JSON"),
        (b'{"seed": 1, "seed": 2}', "'seed' stands twice"),
        (b"[1]", "an object"),
    ],
)
def test_read_refuses_broken_files(content: bytes, says: str, tmp_path: Path) -> None:
    """A truncated or foreign file gives an error that names it."""
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        results.read(path)
    assert str(path) in str(caught.value)


def test_read_missing(tmp_path: Path) -> None:
    """A missing file stays the error that Python has for it."""
    with pytest.raises(FileNotFoundError):
        results.read(tmp_path / "result.json")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"metrics": {"accuracy": float("nan")}},
            "metrics.accuracy: expected a finite",
        ),
        ({"metrics": {"accuracy": np.ones(2)}}, "metrics.accuracy: expected a valid"),
        ({"seed": np.int64(1)}, "seed: expected a valid integer"),
        ({"claims": (Claim("a", "b", "c", np.bool_(True)),)}, r"claims\[0\].holds"),  # pyright: ignore
    ],
)
def test_write_refuses_and_leaves_nothing(
    change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    """An invalid result is not written, and an earlier one stays."""
    kept = results.write(RESULT, tmp_path)
    with pytest.raises(ValueError, match=says):
        results.write(dataclasses.replace(RESULT, **change), tmp_path)
    assert results.read(kept) == RESULT
    assert len(list(tmp_path.iterdir())) == 1


def test_numbers_of_numpy_are_written_as_python_s(tmp_path: Path) -> None:
    """A float32 is a number like any other."""
    metrics = {"accuracy": np.float32(0.5)}
    path = results.write(dataclasses.replace(RESULT, metrics=metrics), tmp_path)
    assert results.read(path).metrics == {"accuracy": 0.5}


def test_failed_write_leaves_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the rename fails, the temporary file goes."""

    def refuse(self: Path, target: Path) -> Path:
        raise OSError("disk gone")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="disk gone"):
        results.write(RESULT, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_cannot_be_computed_is_left_out(tmp_path: Path, capsys) -> None:
    """It is named, and the rest of the run is written."""
    numbers = {"accuracy": 0.5, "tau": float("nan")}
    part = results.Part(numbers, RESULT.claims, "| a |\n")
    result = results.finish("yodo", "demo", 0, 0.0, part, tmp_path)
    assert result.metrics == {"accuracy": 0.5}
    assert "left out, since not finite: tau" in capsys.readouterr().err
    assert results.read(tmp_path / "result.json") == result
    assert (tmp_path / "table.md").read_text() == "| a |\n"


def test_device_and_versions() -> None:
    """Both describe this machine in the types that the schema wants."""
    assert re.search(r" x\d+", results.device_name())
    found = results.versions()
    assert next(iter(found)) == "python"
    assert {"jeff-jax", "jax", "jaxlib", "flax", "optax", "numpy"} <= set(found)
    assert all(isinstance(version, str) for version in found.values())


def test_version_of_an_absent_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package without metadata is said to be absent; nothing is raised."""
    monkeypatch.setattr(results, "_PACKAGES", ("no-such-package-as-this",))
    assert results.versions()["no-such-package-as-this"] == "not installed"


def test_parts_are_joined() -> None:
    first = results.Part({"a": 1.0, "b": 2.0}, RESULT.claims, "one")
    second = results.Part({"b": 3.0}, (), "two")
    joined = results.join([first, second])
    assert joined == results.Part({"a": 1.0, "b": 3.0}, RESULT.claims, "one\ntwo")
    assert results.join([]) == results.Part({}, (), "")
