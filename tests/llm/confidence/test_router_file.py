"""Test the reader of router.json."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from jeff_llm import confidence
from jeff_llm.confidence import Router, router_file
from train_scripts.routing.logs import write_routers

GOOD = {
    "threshold": 0.5,
    "tie_rate": 0.0,
    "rate": 0.25,
    "accuracy": None,
    "max_error": None,
    "delta": None,
}


def test_what_was_written_is_read(tmp_path):
    sure = jnp.linspace(0, 1, 200)
    right = np.arange(200) > 60
    written = {
        "half": confidence.for_rate(sure, 0.5),
        "guaranteed": confidence.with_guarantee(sure, right, max_error=0.1),
        "all": Router(math.inf, rate=1.0),
        "none": Router(-math.inf, measure="average"),
    }
    write_routers(tmp_path / "router.json", written)
    found = router_file.load(tmp_path / "router.json")
    # NaN is not equal to itself; its text is.
    assert {n: repr(r) for n, r in found.items()} == {
        n: repr(r) for n, r in written.items()
    }
    assert found["guaranteed"].max_error == 0.1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"threshold": "0.5"}, "threshold: expected a number"),
        ({"threshold": None}, "threshold: expected a number"),
        ({"threshold": True}, "threshold: expected a number"),
        ({"tie_rate": 1.5}, "tie_rate: expected a number from 0 to 1, got 1.5"),
        ({"rate": -1}, "rate: expected"),
        ({"delta": 0.1}, "max_error and delta together"),
        ({"margin": 0.1}, "expected the fields"),
        ({"measure": 1}, "measure: expected a name, got 1"),
    ],
)
def test_what_is_no_router_is_refused_by_name(tmp_path, fields, said):
    path = tmp_path / "router.json"
    path.write_text(json.dumps({"mine": GOOD | fields}))
    with pytest.raises(ValueError, match=said) as caught:
        router_file.load(path)
    assert f"{path}: mine" in str(caught.value)


def test_a_file_of_an_earlier_jeff_names_no_measure(tmp_path):
    path = tmp_path / "router.json"
    path.write_text(json.dumps({"mine": GOOD}))
    assert router_file.load(path)["mine"].measure == ""


@pytest.mark.parametrize("text", ["[]", "{}", "1", '{"a": 1}', '{"a": {}}'])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "router.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"router\.json"):
        router_file.load(path)
