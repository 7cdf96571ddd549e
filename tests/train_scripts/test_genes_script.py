"""Test the gene-prioritisation script on patients of the user's own."""

import csv
import dataclasses
import json
import re
from http.server import BaseHTTPRequestHandler
from importlib import resources

import numpy as np
import pytest

from configs.genes import PRESETS, Config
from jeff import assets
from jeff_llm.genes import top_probability
from train_scripts.cli import main
from train_scripts.genes import answers, data, own
from train_scripts.genes import run as genes
from train_scripts.report import reasons
from train_scripts.running import results

# Four organs with six terms each; the third term of an organ is a kind of the second.
ORGANS = ("eye", "heart", "limb", "skin")
SIGNS = ("spot", "gap", "gap, deep", "swelling", "lack", "stain")
COLUMNS = (
    "database_id disease_name qualifier hpo_id reference evidence onset frequency sex "
    "modifier aspect biocuration"
)
GENES = [f"GEN{letter}" for letter in "ABCDEFGHIJKL"]


def term(organ, sign):
    return f"HP:{1000 + 10 * organ + sign:07d}"


def release(folder, *, annotations="2030-01-02"):
    """Write a release of 29 terms, 12 diseases and 12 genes in HPO's three files."""
    obo = "format-version: 1.2\ndata-version: hp/releases/2030-01-02\n"
    blocks = [("HP:0000001", "All", ""), ("HP:0000118", "Phenotype", "HP:0000001")]
    blocks.append(("HP:0000005", "Mode of inheritance", "HP:0000001"))
    for organ, name in enumerate(ORGANS):
        blocks.append((f"HP:{100 * organ + 5000:07d}", f"Any {name}", "HP:0000118"))
        for sign, text in enumerate(SIGNS):
            above = term(organ, 1) if sign == 2 else f"HP:{100 * organ + 5000:07d}"
            blocks.append((term(organ, sign), f"{name} {text}", above))
    for key, name, above in blocks:
        obo += f"\n[Term]\nid: {key}\nname: {name}\n"
        obo += "alt_id: HP:0009999\n" if key == term(0, 0) else ""
        obo += f"is_a: {above}\n" if above else ""
    obo += "\n[Term]\nid: HP:0008888\nname: obsolete sign\nis_obsolete: true\n"
    hpoa = f"#version: {annotations}\n" + COLUMNS.replace(" ", "\t")
    linked = "ncbi_gene_id\tgene_symbol\thpo_id\thpo_name\tfrequency\tdisease_id\n"
    for place, gene in enumerate(GENES):
        own_terms = [term(place % 4, sign) for sign in (place // 4, place // 4 + 2)]
        # Some are known better than others.
        own_terms += [term((place + 1) % 4, 5)] * (place % 3 < 2)
        for key in own_terms:
            hpoa += f"\nOMIM:{place}\tdisease <b>{place}</b>\t\t{key}\tPMID:{place}"
            hpoa += "\tPCS\t\t3/4\t\t\tP\tx"
        linked += f"{place + 1}\t{gene}\t{own_terms[0]}\tx\t-\tOMIM:{place}\n"
    folder.mkdir(exist_ok=True)
    (folder / "hp.obo").write_text(obo)
    (folder / "phenotype.hpoa").write_text(hpoa + "\n")
    (folder / "genes_to_phenotype.txt").write_text(linked)
    return folder


def packet(*observed, gene=None, excluded=()):
    """A phenopacket of version 2."""
    features = [{"type": {"id": key}} for key in observed]
    features += [{"type": {"id": key}, "excluded": True} for key in excluded]
    found = {"id": "p", "phenotypicFeatures": features}
    if gene:
        causal = {"interpretationStatus": "CAUSATIVE", "gene": {"symbol": gene}}
        inner = {"diagnosis": {"genomicInterpretations": [causal]}}
        found["interpretations"] = [inner]
    return found


@pytest.fixture
def world(tmp_path, monkeypatch):
    """The tiny release, and the names of its genes, in a cache of their own."""
    monkeypatch.setenv("JEFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JEFF_DATA", raising=False)
    head = "hgnc_id\tsymbol\tstatus\talias_symbol\tprev_symbol\tentrez_id\t"
    table = head + "ensembl_gene_id\n"
    for number, gene in enumerate([*GENES, "OTHER"], start=1):
        table += f"HGNC:{number}\t{gene}\tApproved\t\tOLD{number}\t{number}\t"
        table += f"ENSG{number:011d}\n"
    (tmp_path / "hgnc.txt").write_text(table)
    find = assets.find

    def local(name, *rest):
        return tmp_path / "hgnc.txt" if name == "hgnc" else find(name, *rest)

    monkeypatch.setattr(assets, "find", local)
    return str(release(tmp_path / "hpo"))


@pytest.fixture
def packets(tmp_path):
    folder = tmp_path / "packets"
    folder.mkdir()
    first = packet(term(0, 0), term(0, 2), gene="OLD1", excluded=[term(1, 5)])
    (folder / "a.json").write_text(json.dumps(first))
    (folder / "b.json").write_text(json.dumps(packet(term(2, 1), "HP:0000005")))
    (folder / "c.json").write_text(json.dumps(packet()))
    return folder


def rows(folder):
    with (folder / "rankings.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_folder_of_patients(tmp_path, world, packets):
    out = tmp_path / "run"
    config = Config(data=str(packets), hpo=world, pheval=str(tmp_path / "ph"))
    result = genes.run(config, out, progress=False)
    assert results.read(out / "result.json") == result
    # The third has no features; the first one's gene has a newer name.
    assert result.metrics["patients"] == 2 and result.metrics["genes"] == 12
    assert result.metrics["top1"] == 1.0
    table = rows(out)
    assert len(table) == 24
    assert (table[0]["gene"], table[0]["rank"]) == ("GENA", "1")
    assert {row["source"] for row in table} == {
        str(packets / "a.json"),
        str(packets / "b.json"),
    }
    found = json.loads((out / "explanations.json").read_text())
    (first, second) = found["patients"]
    assert first["observed"] == [term(0, 0), term(0, 2)]
    assert first["excluded"] == [term(1, 5)]
    assert first["top"] == first["genes"][0]["gene"] == "GENA"
    assert second["observed"] == [term(2, 1)]
    best = first["genes"][0]
    parts = [best["constant"], best["size"], best["overlap"]]
    parts += [part["contribution"] for part in best["terms"]]
    assert sum(parts) == pytest.approx(best["score"], abs=1e-3)
    assert best["contradictions"][0]["frequency"] == pytest.approx(0.75)
    shown = reasons.read(out / "reasons.json")
    assert [case["name"] for case in shown["cases"]] == [
        "case-1 (a.json)",
        "case-2 (b.json)",
    ]
    parquet = pytest.importorskip("pyarrow.parquet")
    names = sorted(path.name for path in (tmp_path / "ph").rglob("*.parquet"))
    assert names == ["a-gene_result.parquet", "b-gene_result.parquet"]
    written = parquet.read_table(next((tmp_path / "ph").rglob("a-*"))).to_pylist()
    assert list(written[0]) == [
        "rank",
        "score",
        "gene_symbol",
        "gene_identifier",
        "true_positive",
    ]
    assert written[0]["gene_symbol"] == "GENA" and written[0]["true_positive"]
    assert written[0]["gene_identifier"] == "ENSG00000000001"


def test_the_probability_is_that_of_the_first_of_all_genes(tmp_path, world, capsys):
    """Neither fewer candidates nor another measure put it on another gene."""
    names = tmp_path / "genes.txt"
    names.write_text("GENB\nGENC\nGENF\n")
    terms = f"{term(0, 0)},{term(0, 2)}"
    whole = tmp_path / "whole"
    genes.run(Config(terms=terms, hpo=world), whole)
    (sure,) = [row for row in rows(whole) if row["probability_top"]]
    assert sure["gene"] == "GENA" and sure["rank"] == "1"
    few = tmp_path / "few"
    genes.run(Config(terms=terms, hpo=world, candidates=str(names)), few)
    assert len(rows(few)) == 3
    assert all(not row["probability_top"] for row in rows(few))
    other = tmp_path / "other"
    genes.run(Config(terms=terms, hpo=world, measure="resnik_one_way"), other)
    (again,) = [row for row in rows(other) if row["probability_top"]]
    assert again["gene"] == "GENA"
    assert again["probability_top"] == sure["probability_top"]
    text = capsys.readouterr().out
    assert text.count("By combined, GENA is the first of all genes") == 3
    assert "no reasons for resnik_one_way: only combined and" in text
    assert not (other / "reasons.json").exists()


def test_equal_scores_share_a_rank(tmp_path, world, capsys):
    """One term that three diseases show: no measure of it alone tells them apart."""
    config = Config(terms="Any heart", hpo=world, measure="resnik_one_way", top=2)
    genes.run(config, tmp_path / "run")
    first = [row for row in rows(tmp_path / "run") if row["rank"] == "1"]
    assert {row["equal"] for row in first} == {str(len(first))} != {"1"}
    assert len({row["score"] for row in first}) == 1
    text = capsys.readouterr().out
    assert "| 1= |" in text
    assert f"{len(first) - 2} more genes share the rank of the last one" in text
    assert answers.best_ranks(np.array([3.0, 2, 2, 1])).tolist() == [1, 2, 2, 4]


@pytest.mark.parametrize(
    "text",
    [
        "GENA\r\nGENF\r\n",
        "\ufeffGENA\nGENF\n",
        'old1 # a former name\n"genf"\n\nGENA\n',
        "HGNC:1\nENSG00000000006.3\n",
        "NCBIGene:1\n6\nOTHER\nnothing\n",
    ],
)
def test_candidates(tmp_path, world, text):
    path = tmp_path / "genes.txt"
    path.write_text(text, encoding="utf-8", newline="")
    found, unknown = own.read_candidates(str(path), data.make_world(Config(hpo=world)))
    assert sorted(found.tolist()) == [0, 5]
    assert unknown == (["OTHER", "nothing"] if "OTHER" in text else [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "at least two genes .* got 0 of 0 lines"),
        (b"GENA\n", "got 1 of 1 lines"),
        (b"gene,score\nGENA,1\n", r"genes.txt:1: expected one gene per line"),
        (b"GENA\tGENB\n", r"genes.txt:1: expected one gene per line"),
        (b"GENA\n\xe9\n", "genes.txt: expected text in UTF-8"),
    ],
)
def test_candidates_that_cannot_be_read(tmp_path, world, text, message):
    path = tmp_path / "genes.txt"
    path.write_bytes(text)
    made = data.make_world(Config(hpo=world))
    with pytest.raises(ValueError, match=message):
        own.read_candidates(str(path), made)


def test_what_is_wrong_is_said_before_the_work(tmp_path, world, packets, monkeypatch):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr(own, "_answers", never)
    other = packets / "more"
    other.mkdir()
    (other / "a.json").write_bytes((packets / "a.json").read_bytes())
    (tmp_path / "file").write_text("")
    config = Config(data=str(packets), hpo=world)
    for change, error, message in [
        ({"measure": "best"}, ValueError, "measure: expected one of"),
        ({"pheval": str(tmp_path / "ph")}, ValueError, "a.json and .*more/a.json"),
        ({"pheval": str(tmp_path / "file")}, OSError, "pheval: expected a folder"),
        ({"chat": "here", "chat_model": "m"}, ValueError, "expected a URL"),
        ({"data": str(tmp_path / "none")}, FileNotFoundError, "expected a file or"),
        ({"candidates": "none.txt"}, FileNotFoundError, "candidates: expected a file"),
        ({"hpo": str(tmp_path)}, FileNotFoundError, "hp.obo: expected this file"),
    ]:
        changed = dataclasses.replace(config, **change)
        with pytest.raises(error, match=message):
            own.analyse(changed, tmp_path / "run", progress=False)


@pytest.mark.parametrize("option", ["--terms", "--data"])
def test_an_empty_option_does_not_run_the_parts(tmp_path, capsys, option):
    """As of an unset variable of a shell."""
    words = ["run", "genes", option, "", "--runs", str(tmp_path)]
    assert main(words) == 1
    assert "data, terms: expected one of them" in capsys.readouterr().err


def test_files_of_hpo_that_do_not_fit_are_named(tmp_path, world, capsys):
    folder = release(tmp_path / "mixed", annotations="2020-01-01")
    path = folder / "phenotype.hpoa"
    path.write_text("\n".join(path.read_text().split("\n")[:10]) + "\n")
    genes.run(Config(terms="eye spot", hpo=str(folder)), tmp_path / "run")
    text = capsys.readouterr().out
    assert "- the ontology and the annotations are of different releases" in text
    assert "9 of 12 diseases of genes have no annotations" in text
    genes.run(Config(terms="eye spot", hpo=world), tmp_path / "again")
    text = capsys.readouterr().out
    assert "different releases" not in text and "no annotations" not in text


@pytest.fixture
def endpoint(serve):
    """A model that turns every list round, and fails while ``broken`` is set."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = body["messages"][-1]["content"]
            count = len(re.findall(r"^\d+\. ", prompt, re.MULTILINE))
            if self.server.broken and len(asked) >= self.server.broken:
                self.send_response(401)
                self.end_headers()
                return
            asked.append(prompt)
            choice = {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": json.dumps({"ranking": list(range(count, 0, -1))}),
                },
                "finish_reason": "stop",
            }
            usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
            reply = {"id": "1", "object": "chat.completion", "created": 1}
            reply |= {"model": "m", "choices": [choice], "usage": usage}
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, *_):
            pass

    server = serve(Handler)
    server.asked, server.broken = asked, 0
    return server


def test_an_endpoint_ranks_again(tmp_path, world, packets, endpoint, capsys):
    """The new order reaches tables, evaluation and PhEval's files; nothing twice."""
    pytest.importorskip("openai")
    parquet = pytest.importorskip("pyarrow.parquet")
    url = f"http://127.0.0.1:{endpoint.server_port}/v1"
    words = f"run genes --data {packets} --hpo {world} --chat {url} --chat-model m "
    words += f"--shortlist 4 --group-size 4 --prices 1 2 --pheval {tmp_path / 'ph'} "
    words += f"--runs {tmp_path / 'runs'}"
    endpoint.broken = 1
    assert main(words.split()) == 1
    printed = capsys.readouterr()
    # Two patients, and one group each; what it costs stands before any error.
    assert re.search(r"m: 2 calls for 2 patients, .* cost 0\.00 at the", printed.out)
    assert f"error: {url}: m: no answer" in printed.err
    assert "the same command goes on from here" in printed.err
    assert len(endpoint.asked) == 1
    endpoint.broken = 0
    assert main(words.split()) == 0
    text = capsys.readouterr().out
    assert "resuming genes file" in text and "Ranked again by m" in text
    assert len(endpoint.asked) == 2 == len(set(endpoint.asked))
    (run,) = (tmp_path / "runs" / "genes").iterdir()
    table = [row for row in rows(run) if row["patient"] == "case-1"]
    assert [row["rank"] for row in table[:4]] == ["1", "2", "3", "4"]
    assert min(int(row["rank"]) for row in table[4:]) == 5
    place = [row["gene"] for row in table].index("GENA") + 1
    assert place > 1
    found = results.read(run / "result.json").metrics
    assert found["top1"] == 0.0 and found["mrr"] == pytest.approx(1 / place)
    written = parquet.read_table(next((tmp_path / "ph").rglob("a-*"))).to_pylist()
    (right,) = [row for row in written if row["true_positive"]]
    assert right["gene_symbol"] == "GENA" and right["rank"] == place
    shown = reasons.read(run / "reasons.json")["cases"][0]["items"]
    assert [item["rank"] for item in shown[:4]] == [1, 2, 3, 4]
    assert "By combined, rank 1 of all 12 genes." in shown[place - 1]["notes"]


@pytest.mark.slow
def test_the_parts_without_shared_data(tmp_path, world):
    """Simulated cases stand in, and the parts that need data say that they do."""
    config = dataclasses.replace(PRESETS["smoke"], hpo=world)
    result = genes.run(config, tmp_path / "run", progress=False)
    assert results.read(tmp_path / "run" / "result.json") == result
    assert 0 < result.metrics["genome_combined_top1"] <= 1
    assert not any(name.startswith(("phenobrain", "gpt4o")) for name in result.metrics)
    assert (tmp_path / "run" / "03_accuracy_by_size.png").is_file()


def test_the_pretrained_model_is_in_the_package():
    path = resources.files("jeff_llm.genes") / "top_model.json"
    stored = json.loads(path.read_text())
    assert tuple(stored["features"]) == top_probability.FEATURES
    model = top_probability.pretrained()
    assert model.weights.shape == (len(top_probability.FEATURES),)
    # A wide margin and agreement speak for the first gene.
    weights = dict(zip(top_probability.FEATURES, model.weights, strict=True))
    assert weights["log margin to the second gene"] > 0
    assert weights["share of measures that agree"] > 0
