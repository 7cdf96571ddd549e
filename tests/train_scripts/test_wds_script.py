"""Test the gene-pair script: your own files, simulated cells, and resuming."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from configs.wds import PRESETS, Config
from jeff_graph.cells import simulate
from jeff_graph.cells.columns import label_codes
from train_scripts.cli import main
from train_scripts.running import results
from train_scripts.wds import claims, data, measure, summary
from train_scripts.wds import run as wds

TINY = dataclasses.replace(
    PRESETS["smoke"],
    dataset="simulated",
    label="label",
    type="type",
    cells=400,
    genes=30,
    samplers=("uniform", "wds", "k-centre"),
    permutations=3,
    seeds=(0, 1),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return wds.run(TINY, folder, progress=False), folder


@pytest.mark.slow
def test_a_run_writes_table_and_plots(whole):
    result, folder = whole
    assert results.read(folder / "result.json") == result
    assert sorted(path.name for path in folder.glob("*.png")) == [
        "01_pairs.png",
        "02_network.png",
        "03_auroc.png",
        "04_agreement.png",
        "05_overlap.png",
        "06_power.png",
    ]
    with (folder / "pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30 * 29 / 2
    assert {"gene_a", "gene_b", "score", "low", "high", "q_value", "known"} <= set(
        rows[0]
    )
    scored = [float(row["score"]) for row in rows if row["score"]]
    assert scored == sorted(scored, reverse=True)
    tested = [row for row in rows if row["product_p"]]
    assert len(tested) == TINY.tested
    names = set(simulate.simulate_cells(1).genes.tolist())
    assert {row["gene_a"] for row in rows} <= names
    assert len(result.claims) == 5
    assert result.metrics["all_auroc"] <= 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["dense int", "sparse log"])
def test_a_file(tmp_path, capsys, form):
    anndata = pytest.importorskip("anndata", reason="h5ad files need anndata")
    pd = pytest.importorskip("pandas")
    cells = simulate.simulate_cells(300, seed=1)
    counts = next(cells.chunks(300))
    x = counts.toarray().astype(int) if form == "dense int" else counts.log1p()
    label = np.where(np.arange(300) % 50 == 0, None, cells.column("label"))
    frame = pd.DataFrame({"disease": pd.Categorical(label)}, index=map(str, range(300)))
    var = pd.DataFrame(index=cells.genes)
    anndata.AnnData(x, obs=frame, var=var).write_h5ad(tmp_path / "my.h5ad")
    known = [",".join(cells.genes[pair]) for pair in cells.truth.pairs[:10]]
    (tmp_path / "pairs.csv").write_text("\n".join(known))
    words = f"--data {tmp_path / 'my.h5ad'} --label disease --runs {tmp_path / 'runs'}"
    kept = known[0].replace(",", " ")
    words += f" --pairs {tmp_path / 'pairs.csv'} --keep {kept}"
    status = main(["run", "wds", "smoke", *words.split()])
    assert status == 0, capsys.readouterr().err
    (folder,) = (tmp_path / "runs" / "wds").iterdir()
    result = results.read(folder / "result.json")
    assert result.metrics["all_seen"] > 0.1
    assert json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "tissue"}, "obs: expected one of|'type' or 'label', got 'tissue'"),
        ({"data": "nothing.h5ad"}, "nothing.h5ad"),
    ],
)
def test_mistakes_in_the_data(tmp_path, options, message):
    config = dataclasses.replace(TINY, **options)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        wds.run(config, tmp_path, progress=False)
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samplers": ("uniform",)}, "wds among them"),
        ({"samplers": ("wds", "best")}, "samplers: expected"),
        ({"share": 0.3}, "share, shares: expected"),
        ({"permutations": 2}, "0 or at least 3"),
        ({"genes": 1}, "genes: expected at least 2"),
        ({"holdout": 0.0}, "holdout: expected a share above 0"),
        ({"dropout_rate": 1.0}, "dropout_rate: expected a share below 1"),
        ({"power": -1.0}, "prior_cells, power"),
        ({"seeds": (1, 1)}, "seeds: expected distinct"),
    ],
)
def test_mistakes_in_a_configuration(options, message):
    with pytest.raises(ValueError, match=message):
        Config(**options)


def test_pairs_of_no_known_gene(tmp_path):
    (tmp_path / "pairs.csv").write_text("TP53,MYC\nKRAS,EGFR\n")
    config = dataclasses.replace(
        TINY, dataset="simulated", pairs=str(tmp_path / "pairs.csv")
    )
    names = np.array(["gene0", "gene1"])
    with pytest.raises(ValueError, match=r"pairs.csv: .*got none in 2 rows; .*symbols"):
        data.known_pairs(config, names, np.arange(2), None)


def test_a_missing_type_is_no_type_and_a_type_of_one_cell_not_judged():
    types, names = label_codes(["T"] * 90 + ["B"] * 8 + ["", "one"], least=1)
    shares, rare = measure.type_shares(types, len(names))
    assert names == ("B", "T", "one")
    np.testing.assert_allclose(shares * 99, [8, 90, 1])
    assert rare.tolist() == [True, False, False]
    assert not measure.type_shares(np.zeros(9, int), 1)[1].any()


def test_a_seed_without_a_number_keeps_the_others_in_pairs():
    made = report()
    del made.rows[0]["all_auroc"], made.rows[2]["wds_0.1_auroc"]
    few, whole = summary.paired(made, "wds_0.1_auroc", "all_auroc")
    assert few.tolist() == [0.891] and whole.tolist() == [0.9]
    assert [claim.holds for claim in claims.claims(made)][:2] == [True, None]


def test_sequences_of_a_configuration_are_read_once():
    assert Config(seeds=iter([3, 4]), keep=iter(["A"])).seeds == (3, 4)


def report(**values):
    """Three seeds with the numbers that the claims read."""
    rows = []
    for seed in range(3):
        row = {"all_auroc": 0.9, "all_nes": 3.0, "pearson_nes": 2.0, "power": 2.0}
        for way, auroc in (("wds", 0.89), ("uniform", 0.8)):
            row |= {
                f"{way}_0.1_auroc": auroc + 0.001 * seed,
                f"{way}_0.1_agreement": auroc,
            }
        row |= {"wds_0.1_rare_multiple": 2.5, "wds_0.1_effective": 0.4}
        rows.append(row | {name: each[seed] for name, each in values.items()})
    config = dataclasses.replace(
        PRESETS["demo"], samplers=("uniform", "wds"), seeds=(0, 1, 2)
    )
    return summary.Report(config, rows, None)


@pytest.mark.parametrize(
    ("values", "holds"),
    [
        ({}, [True, True, True, True, True]),
        ({"wds_0.1_agreement": [0.7] * 3}, [False, True, True, True, True]),
        ({"all_auroc": [0.95] * 3}, [True, False, True, True, True]),
        ({"pearson_nes": [3.1] * 3}, [True, True, False, True, True]),
        ({"uniform_0.1_auroc": [0.88, 0.881, 0.882]}, [True, True, True, True, True]),
        ({"uniform_0.1_auroc": [0.9, 0.901, 0.902]}, [True, True, True, False, True]),
        ({"uniform_0.1_auroc": [0.7, 0.95, 0.8]}, [True, True, True, None, True]),
        ({"wds_0.1_rare_multiple": [1.5] * 3}, [True, True, True, True, False]),
        ({"wds_0.1_effective": [0.05] * 3}, [True, True, True, True, False]),
    ],
)
def test_claims_are_computed(values, holds):
    assert [claim.holds for claim in claims.claims(report(**values))] == holds
