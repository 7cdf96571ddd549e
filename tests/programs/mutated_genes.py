"""Formats of gene prioritisation: HPO, patients, tables of names and of answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from mutate import Format
from mutated_data import finite, jsonl, text

from jeff import files
from jeff_llm.genes import cases, hpo, nomenclature, stored, top_probability
from train_scripts.genes import own
from train_scripts.genes.data import World

__all__ = ["FORMATS"]

# HPO and its tables.
OBO = "format-version: 1.2\ndata-version: hp/releases/2030-01-02\n" + "".join(
    f"\n[Term]\nid: HP:{118 if i == 0 else 1000 + i:07d}\nname: term {i}\n"
    + (f"is_a: HP:{118 if i < 3 else 1000 + i // 2:07d} ! x\n" if i else "")
    for i in range(12)
)
HPOA = (
    "#version: 2030-01-02\ndatabase_id\tdisease_name\tqualifier\thpo_id\treference\t"
    "evidence\tonset\tfrequency\tsex\tmodifier\taspect\tbiocuration\n"
) + "".join(
    f"OMIM:{i % 3}\tname {i % 3}\t\tHP:{1001 + i:07d}\tPMID:{i}\tPCS\t\t1/2\t\t\tP\tx\n"
    for i in range(9)
)
GENES = (
    "ncbi_gene_id\tgene_symbol\thpo_id\thpo_name\tfrequency\tdisease_id\n"
    + "".join(f"{i}\tG{i}\tHP:0001001\tx\t-\tOMIM:{i % 3}\n" for i in range(3))
)


def hpo_folder(path: Path) -> Path:
    path.mkdir()
    for name, content in zip(hpo.FILES, (OBO, HPOA, GENES), strict=True):
        (path / name).write_text(content)
    return path


def read_hpo(path: Path) -> Any:
    return hpo.load(path, cache=False)


def check_hpo(path: Path, found: Any) -> None:
    often = found.annotations.line_frequency
    # NaN where the file states no frequency.
    finite(often[~np.isnan(often)])
    assert (found.annotations.line_term < len(found.ontology.ids)).all()


PACKET = {
    "id": "p1",
    "subject": {"id": "s", "sex": "MALE"},
    "phenotypicFeatures": [
        {"type": {"id": "HP:0001001", "label": "x"}},
        {"type": {"id": "HP:0001002"}, "excluded": True},
    ],
    "interpretations": [
        {
            "diagnosis": {
                "disease": {"id": "OMIM:1"},
                "genomicInterpretations": [
                    {
                        "variantInterpretation": {
                            "variationDescriptor": {"geneContext": {"symbol": "G1"}}
                        }
                    }
                ],
            }
        }
    ],
}
# Version 1 of the schema: the gene and the diagnosis stand beside the features.
PACKET_1 = {
    "id": "p2",
    "subject": {"id": "s", "sex": "FEMALE", "ageAtCollection": {"age": "P3Y"}},
    "phenotypicFeatures": [
        {"type": {"id": "HP:0001003"}},
        {"type": {"id": "HP:0001004"}, "negated": True},
    ],
    "genes": [{"id": "ENTREZ:1", "symbol": "G1"}],
    "diseases": [{"term": {"id": "OMIM:1", "label": "name 1"}}],
    "metaData": {"phenopacketSchemaVersion": "1.0.0"},
}
_HPO: list[Any] = []


def own_hpo(folder: Path) -> Any:
    if not _HPO:
        _HPO.append(hpo.load(hpo_folder(folder / "hpo"), cache=False))
    return _HPO[0]


def packet(path: Path) -> Path:
    own_hpo(path.parent)
    path.write_text(json.dumps(PACKET))
    return path


def packets(path: Path) -> Path:
    """A folder with a phenopacket of each version, one of them below another folder."""
    own_hpo(path.parent)
    (path / "below").mkdir(parents=True)
    (path / "a.json").write_text(json.dumps(PACKET))
    (path / "below" / "b.json").write_text(json.dumps(PACKET_1))
    return path


def packet_lines(path: Path) -> Path:
    own_hpo(path.parent)
    return jsonl(PACKET, {"phenopacket": PACKET_1, "path": "b.json"})(path)


def read_packets(path: Path) -> Any:
    return cases.from_phenopackets(path, own_hpo(path))


def check_packets(path: Path, found: Any) -> None:
    usable, report = found
    if path.is_dir():
        # No file is passed over: each is a case, or refused with its place.
        assert len(usable) + len(report.refused) >= 2
    for case in usable:
        assert len(case.phenotypes.observed) and case.sex in {"male", "female", None}


def candidates(path: Path) -> Path:
    own_hpo(path.parent)
    (path.parent / "hgnc.tsv").write_text(HGNC)
    path.write_text("# of a panel\nONE\nG1\n'G2'\nHGNC:2\nG0  # twice\nG0\n")
    return path


def read_candidates(path: Path) -> Any:
    world = World(own_hpo(path), None)  # type: ignore[arg-type]  # its tables score
    # In the place of the installed table, which has other genes.
    vars(world)["nomenclature"] = nomenclature.read_hgnc(path.with_name("hgnc.tsv"))
    return own.read_candidates(str(path), world)


def check_candidates(path: Path, found: Any) -> None:
    columns, _ = found
    assert len(set(columns.tolist())) == len(columns) >= 2
    assert set(columns.tolist()) <= {0, 1, 2}


def phenobrain(path: Path) -> Path:
    own_hpo(path.parent)
    rows = [{"row": i, "hpo": ["HP:0001001"], "diseases": ["OMIM:1"]} for i in range(3)]
    return jsonl(*rows)(path)


HGNC = (
    "hgnc_id\tsymbol\tstatus\talias_symbol\tprev_symbol\tentrez_id\tensembl_gene_id\n"
    "HGNC:1\tONE\tApproved\tUNO|SHARED\tFIRST\t11\tENSG00000000001\n"
    "HGNC:2\tTWO\tApproved\tSHARED\t\t12\tENSG00000000002\n"
)
MONDO = (
    "subject_id\tsubject_label\tpredicate_id\tobject_id\n"
    "MONDO:0000002\tan odd name\tskos:exactMatch\tOMIM:1\n"
    "MONDO:0000003\tUsher\tskos:exactMatch\tORPHA:886\n"
)
RANKINGS = "case,language,rank,mondo,correct_omim,is_correct\n" + "".join(
    f"P{i // 2},en,{1 + i % 2},MONDO:000000{i},OMIM:1,{i % 2}\n" for i in range(8)
)


def check_numbers(path: Path, found: dict[str, float]) -> None:
    finite(np.array(list(found.values())))


def top_model(path: Path) -> Path:
    found = top_probability.pretrained()
    values = {
        name: value.tolist()
        for name, value in found._asdict().items()
        if name != "bias"
    }
    values |= {"features": list(top_probability.FEATURES), "bias": found.bias}
    return files.write_json(path, values)


FORMATS = [
    Format("HPO", "hpo", hpo_folder, read_hpo, check_hpo),
    Format(
        "phenopacket",
        "a.json",
        packet,
        read_packets,
        check_packets,
    ),
    Format("phenopackets, folder", "packets", packets, read_packets, check_packets),
    Format("phenopackets, lines", "a.jsonl", packet_lines, read_packets, check_packets),
    Format("candidates", "a.txt", candidates, read_candidates, check_candidates),
    Format(
        "cases", "a.jsonl", phenobrain, lambda p: cases.from_phenobrain(p, own_hpo(p))
    ),
    Format("HGNC", "a.txt", text(HGNC), nomenclature.read_hgnc),
    Format("MONDO", "a.tsv", text(MONDO), nomenclature.read_mondo),
    Format("MONDO names", "a.tsv", text(MONDO), stored.read_mondo_names),
    Format("rankings", "a.csv.gz", text(RANKINGS), stored.read_rankings),
    Format(
        "information",
        "a.csv",
        text("case,mean_ic\nP0,1.5\nP1,2\n"),
        stored.read_information,
        check_numbers,
    ),
    Format(
        "citations",
        "a.csv",
        text("entrez_id,symbol,n_publications\n11,ONE,5\n12,TWO,7\n"),
        nomenclature.read_citations,
    ),
    Format("model of solvability", "a.json", top_model, top_probability.read_model),
]
