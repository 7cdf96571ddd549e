"""Test the summary of small runs of YODO: nothing that was trained is lost."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from configs.yodo import PRESETS, Config
from jeff.fairness import evaluation
from train_scripts.yodo import claims, run, summary


@pytest.fixture
def table(tmp_path):
    """40 people; no outcome of 1 in group 1, and so no gap of equal opportunity."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 2, 40)
    x = rng.normal(size=(40, 3)) + group[:, None]
    outcome = (x[:, 0] + x[:, 1] > 0) & (group == 0)
    weight = rng.integers(1, 9, 40)
    path = tmp_path / "people.csv"
    rows = np.column_stack([x, group, outcome, weight])
    np.savetxt(path, rows, "%.6g", ",", header="a,b,c,s,y,w", comments="")
    return path


def test_a_run_on_forty_people_ends_with_a_note(table, tmp_path):
    """Without a gap there is no trend and no bound, and the rest is there."""
    config = dataclasses.replace(
        PRESETS["smoke"],
        dataset="csv",
        data=str(table),
        outcome="y",
        sensitive="s",
        weight="w",
        gap="equal_opportunity",
        batch_size=8,
        num_levels=3,
        hidden=(4, 4, 4),
        seeds=(3,),
    )
    folder = tmp_path / "run"
    found = run.run(config, folder, progress=False)
    assert 0 <= found.metrics["accuracy_start"] <= 1
    assert "kendall_tau" not in found.metrics
    assert np.isfinite(list(found.metrics.values())).all()
    note = (folder / "table.md").read_text()
    assert note.startswith("Left out, since these data do not determine them: ")
    assert "kendall_tau" in note
    assert "no level was certain enough in 1 of 1 seeds" in found.claims[-1].measured
    labels = [
        each["label"]
        for each in json.loads((folder / "explorer.json").read_text())["readouts"]
    ]
    assert labels[:2] == ["Accuracy", "Demographic parity gap"]
    assert "Equal opportunity gap" not in labels


def seed(tau, gap):
    """A seed's measurements with one value at every level."""
    values = {name: jnp.full(2, 0.25) for name in evaluation.Evaluation._fields}
    values |= {
        "group_rates": jnp.full((2, 2), 0.5),
        "equal_opportunity": jnp.array(gap),
    }
    found = evaluation.Evaluation(**values)
    return summary.Seed(found, found, None, None, tau, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0)


def test_a_number_that_one_seed_lacks_is_left_out_of_the_mean():
    seeds = [seed(-0.5, [0.1, 0.2]), seed(float("nan"), [jnp.nan, jnp.nan])]
    found = summary.numbers(seeds)
    assert not {"kendall_tau", "kendall_tau_std", "equal_opportunity_end"} & set(found)
    assert found["accuracy_start"] == 0.25
    assert "kendall_tau" in summary.unknown_note(seeds)
    assert summary.unknown_note(seeds[:1]) == ""
    decided = {claim.claim[:7]: claim for claim in claims.claims(Config(), seeds)}
    assert decided["The gap"].holds is None
    assert "tau -;" in decided["The gap"].measured


def test_two_lines_that_reach_nothing_are_not_equally_good():
    """An error of 75% lies outside the box; no level of either dominates anything."""
    seeds = [seed(-0.5, [0.1, 0.2])] * 3
    first = claims.claims(Config(), seeds)[0]
    assert first.measured == "0.000 ± 0.000 against 0.000 ± 0.000"
    assert first.holds is None


def test_weights_belong_to_your_own_table():
    with pytest.raises(ValueError, match=r"weight: expected your own table .*'fnlwgt'"):
        Config(weight="fnlwgt")
