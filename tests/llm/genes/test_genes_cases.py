"""Test the readers of patients, and that no answer reaches a ranker."""

import copy
import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jeff import assets
from jeff_llm.genes import case_files, cases, hpo, typed_terms
from jeff_llm.genes.annotations import AnnotationReport, Annotations
from jeff_llm.genes.obo import parse_ontology
from jeff_llm.genes.phenopackets import parse_packet
from jeff_llm.genes.ranking import Phenotypes

TERMS = """
[Term]
id: HP:0000118
name: Phenotypic abnormality

[Term]
id: HP:0000010
name: Seizure
synonym: "Fit" EXACT layperson []
alt_id: HP:0000013
is_a: HP:0000118

[Term]
id: HP:0000011
name: Focal seizure
is_a: HP:0000010

[Term]
id: HP:0000020
name: Ataxia
is_a: HP:0000118

[Term]
id: HP:0000030
name: Onset

[Term]
id: HP:0000015
name: obsolete
is_obsolete: true
consider: HP:0000020
"""


def no_annotations():
    none = np.zeros(0, dtype=np.int32)
    return Annotations(
        diseases=(),
        disease_names=(),
        line_disease=none,
        line_term=none,
        line_frequency=none.astype(np.float32),
        line_negated=none.astype(bool),
        line_aspect=none.astype("U1"),
        reference_starts=np.zeros(1, dtype=np.int32),
        line_references=none,
        references=(),
        genes=(),
        entrez=none.astype(np.int64),
        links=none.reshape(0, 2),
        release="none",
        report=AnnotationReport(),
    )


@pytest.fixture(scope="module")
def few():
    return hpo.Hpo(parse_ontology(TERMS), no_annotations())


def feature(term, **more):
    return {"type": {"id": term, "label": "a label"}, **more}


def causative(symbol, status="CAUSATIVE"):
    return {
        "interpretationStatus": status,
        "variantInterpretation": {
            "variationDescriptor": {"geneContext": {"symbol": symbol}}
        },
    }


def packet(*features, **more):
    return {
        "id": "PMID_123_patient",
        "subject": {
            "sex": "FEMALE",
            "timeAtLastEncounter": {"age": {"iso8601duration": "P3Y"}},
        },
        "phenotypicFeatures": list(features) or [feature("HP:0000011")],
        "interpretations": [
            {
                "diagnosis": {
                    "disease": {"id": "OMIM:7", "label": "a disease"},
                    "genomicInterpretations": [
                        causative("GENE"),
                        causative("OTHER", "REJECTED"),
                    ],
                }
            }
        ],
        "diseases": [{"term": {"id": "OMIM:8"}}],
        "metaData": {
            "phenopacketSchemaVersion": "2.0",
            "externalReferences": [{"id": "PMID:456", "description": "a title"}],
        },
        **more,
    }


@pytest.fixture
def read(tmp_path, few):
    """Write one JSON value and read it."""

    def one(value):
        path = tmp_path / "one.json"
        path.write_text(json.dumps(value))
        return cases.from_phenopackets(path, few)

    return one


def test_a_packet(read, tmp_path):
    (case,), report = read(
        packet(
            feature("HP:0000011"), feature("HP:0000020", excluded=True), feature("FITS")
        )
    )
    assert case == cases.Case(
        name="case-1",
        phenotypes=Phenotypes(("HP:0000011",), ("HP:0000020",)),
        gene="GENE",
        diseases=("OMIM:7",),
        references=frozenset({"PMID:123", "PMID:456"}),
        sex="female",
        age="P3Y",
        source=str(tmp_path / "one.json"),
    )
    assert report.counts["cases"] == report.counts["excluded"] == 1
    assert report.counts["unknown"] == 1
    assert report.notes == ("'FITS' is unknown",) and report.refused == ()


def test_the_answer_never_leaks(tmp_path, few):
    """All but the features differs; what a ranker sees does not."""
    features = [feature("HP:0000011"), feature("HP:0000020", excluded=True)]
    one = packet(*features)
    two = packet(*features, id="BRCA1_PMID_9", diseases=[], interpretations=[])
    two["subject"] = {"id": "BRCA1", "sex": "MALE"}
    two["metaData"] = {"externalReferences": [{"id": "PMID:9", "description": "BRCA1"}]}
    two["files"] = [{"uri": "BRCA1.vcf"}]
    seen = []
    for folder, value in (("GENE", one), ("BRCA1", two)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}.json").write_text(json.dumps(value))
        (case,), _ = cases.from_phenopackets(tmp_path / folder, few)
        seen.append(case)
    assert seen[0].phenotypes == seen[1].phenotypes
    assert seen[0].name == seen[1].name
    assert seen[0].gene == "GENE" and seen[1].gene is None
    assert "BRCA1" not in repr(seen[1].phenotypes) + seen[1].name


def test_features_that_need_something(read):
    (case,), report = read(
        packet(
            feature("hp:0000013"),
            feature("HP_0000010"),
            feature("HP:0000030"),
            feature("HP:0000015"),
            feature("HP:7777777"),
            {"type": {"label": "ataxia"}, "excluded": False},
            {"type": {}},
            feature("HP:0000010", excluded=True),
            feature("HP:0000118", excluded=True),
            feature("HP:0000011", excluded=True),
        )
    )
    # What is observed counts, also against its own exclusion; a kind of it may be
    # excluded all the same.
    assert case.phenotypes == Phenotypes(("HP:0000010", "HP:0000020"), ("HP:0000011",))
    found = {kind: count for kind, count in report.counts.items() if count}
    assert found == {
        "cases": 1,
        "excluded": 1,
        "mapped": 1,
        "repeated": 1,
        "other": 1,
        "obsolete": 1,
        "unknown": 2,
        "contradicted": 2,
    }
    lines = report.lines()
    assert lines[0] == "cases that can be used: 1"
    assert "  HP:0000013 is now HP:0000010" in lines
    assert "  HP:0000015 is obsolete; the ontology suggests HP:0000020" in lines
    assert len(report.lines(limit=1)) == len(lines) - len(report.notes) + 2


def test_version_1(read):
    (case,), report = read(
        {
            "phenotypicFeatures": [
                feature("HP:0000010", negated=False),
                feature("HP:0000020", negated=True),
            ],
            "genes": [{"id": "HGNC:1", "symbol": "OLD"}],
            "diseases": [{"term": {"id": "Orphanet:53"}}],
            "metaData": {"phenopacketSchemaVersion": "1.0.0-RC3"},
        }
    )
    assert case.phenotypes == Phenotypes(("HP:0000010",), ("HP:0000020",))
    assert (case.gene, case.diseases) == ("OLD", ("ORPHA:53",))
    assert report.counts["version_1"] == 1
    (_,), report = read({"phenotypicFeatures": [feature("Seizure")], "variants": []})
    assert report.counts["version_1"] == 1


def test_names_of_the_schema(read):
    value = packet()
    value["phenotypic_features"] = value.pop("phenotypicFeatures")
    value["meta_data"] = value.pop("metaData")
    value["meta_data"]["external_references"] = value["meta_data"].pop(
        "externalReferences"
    )
    (case,), _ = read(value)
    assert case.phenotypes.observed == ("HP:0000011",)
    assert "PMID:456" in case.references


def test_several_causative_genes(read):
    value = packet()
    value["interpretations"][0]["diagnosis"]["genomicInterpretations"] += [
        causative("GENE"),
        {"interpretationStatus": "CAUSATIVE", "gene": {"symbol": "SECOND"}},
    ]
    (case,), report = read(value)
    assert case.gene is None and report.counts["several_genes"] == 1
    assert parse_packet(value).genes == ("GENE", "SECOND")


def test_references_of_the_features_count(read):
    evidence = [{"reference": {"id": "PMID:77"}}]
    (case,), _ = read(packet(feature("HP:0000010", evidence=evidence)))
    assert case.references == {"PMID:77", "PMID:123", "PMID:456"}


def test_family_and_cohort(read):
    (case,), _ = read({"id": "f", "proband": packet(), "pedigree": {}})
    assert case.gene == "GENE"
    found, report = read({"members": [packet(), {"subject": {}}, packet()]})
    assert [case.name for case in found] == ["case-1", "case-3"]
    assert len(report.refused) == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([packet()], "phenopacket: expected an object, got list"),
        ("text", "phenopacket: expected an object, got str"),
        ({}, "expected observed terms, got none and 0 excluded"),
        (
            packet(feature("HP:0000010", excluded=True)),
            "expected observed terms, got none and 1 excluded",
        ),
        (packet(feature("HP:7777777")), "expected a phenotype .* 'HP:7777777'"),
        (packet(3), r"phenotypicFeatures\[0\]: expected an object, got int '3'"),
        (packet({"type": "x"}), r"phenotypicFeatures\[0\]\.type: expected an object"),
        (packet(feature(7)), r"\[0\]\.type\.id: expected a text, got int"),
        (packet(feature("HP:0000010", excluded="no")), "expected true or false"),
        (packet(feature("HP:0000010", evidence=3)), "evidence: expected a list"),
        (packet(id=3), "id: expected a text"),
        (packet(subject=[]), "subject: expected an object"),
        (packet(metaData="x"), "metaData: expected an object"),
        (packet(phenotypicFeatures={}), "phenotypicFeatures: expected a list"),
        (packet(interpretations=[{"diagnosis": 1}]), r"\[0\]\.diagnosis: expected"),
        (
            packet(interpretations=[{"diagnosis": {"genomicInterpretations": [1]}}]),
            r"genomicInterpretations\[0\]: expected an object",
        ),
        ({"phenopacket": packet(), "causal_gene": 3}, "causal_gene: expected a text"),
        ({"proband": []}, "proband: expected an object"),
        ({"members": {}}, "members: expected a list"),
    ],
)
def test_malformed_packets(read, value, message):
    with pytest.raises(ValueError, match=message):
        read(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "expected JSON"),
        (b"{", "expected JSON"),
        (b"\xff", "expected JSON"),
        (b'{"a": NaN}', "finite number, came NaN"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b"[" * 200_000, "moderate depth"),
    ],
)
def test_no_json(tmp_path, few, text, message):
    (tmp_path / "one.json").write_bytes(text)
    with pytest.raises(ValueError, match=message):
        cases.from_phenopackets(tmp_path / "one.json", few)


# What any field may hold instead of what the schema says.
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner)
    ),
    max_leaves=4,
)


def places(value, path=()):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


PLACES = list(places(packet(feature("HP:0000010", evidence=[{"reference": {}}]))))


@given(st.sampled_from(PLACES), junk)
@settings(max_examples=150, deadline=None)
def test_any_value_at_any_place(place, value):
    """A packet is read or refused with a ValueError, whatever a field holds."""
    changed = packet(feature("HP:0000010", evidence=[{"reference": {}}]))
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    kept = copy.deepcopy(changed)
    found = refused = None
    try:
        found = parse_packet(changed)
    except ValueError as error:
        refused = str(error)
    if found is None:
        assert refused is not None and "expected" in refused
    else:
        assert all(isinstance(term, str) for term in found.observed)
    assert changed == kept


def test_a_folder_goes_on(tmp_path, few):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.json").write_text(json.dumps(packet()))
    (tmp_path / "a" / "2.json").write_text("[]")
    (tmp_path / "a" / "notes.txt").write_text("no packet")
    (tmp_path / "3.json.gz").write_bytes(gzip.compress(json.dumps(packet()).encode()))
    (tmp_path / "4.json.gz").write_bytes(b"no gzip")
    found, report = cases.from_phenopackets(tmp_path, few)
    assert [case.source[-9:] for case in found] == ["3.json.gz", "/a/1.json"]
    assert len({case.phenotypes for case in found}) == 1
    assert [place[-9:] for place, _ in report.refused] == ["4.json.gz", "/a/2.json"]
    assert any(line.endswith("cannot be used: 2") for line in report.lines())


def test_nothing_left(tmp_path, few):
    with pytest.raises(ValueError, match="it is empty"):
        cases.from_phenopackets(tmp_path, few)
    (tmp_path / "1.json").write_text("[]")
    with pytest.raises(ValueError, match=r"1\.json: phenopacket: expected an object"):
        cases.from_phenopackets(tmp_path, few)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        cases.from_phenopackets(tmp_path / "nowhere", few)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson", "rows.jsonl.gz"])
def test_lines(tmp_path, few, name):
    rows = [
        json.dumps(packet()),
        "",
        "{broken",
        json.dumps(
            {
                "path": "g/PMID_5_x.json",
                "causal_gene": "TOLD",
                "disease": "OMIM:9",
                "phenopacket": packet(),
            }
        ),
    ]
    data = "\r\n".join(rows).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    found, report = cases.from_phenopackets(path, few)
    assert [case.gene for case in found] == ["GENE", "TOLD"]
    assert [case.name for case in found] == ["case-1", "case-3"]
    assert found[1].diseases == ("OMIM:9",) and "PMID:5" in found[1].references
    assert found[1].source == "g/PMID_5_x.json"
    ((place, _),) = report.refused
    assert place.endswith(f"{name}:3")


def test_a_damaged_gzip_keeps_what_came_before(tmp_path, few):
    rows = "\n".join(json.dumps(packet(id=f"{n}")) for n in range(2_000)).encode()
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(rows)[:-100])
    found, report = cases.from_phenopackets(tmp_path / "rows.jsonl.gz", few)
    assert 0 < len(found) <= 2_000
    assert "whole, readable file" in report.refused[-1][1]


def test_large_inputs(tmp_path, few, monkeypatch):
    many = packet(*[feature("HP:0000011")] * 100, files=["x" * 2**20] * 10)
    (tmp_path / "one.json").write_text(json.dumps(many))
    (case,), report = cases.from_phenopackets(tmp_path / "one.json", few)
    assert case.phenotypes.observed == ("HP:0000011",)
    assert report.counts["repeated"] == 99
    monkeypatch.setattr(case_files, "MAX_BYTES", 2**20)
    rows = [json.dumps(many), json.dumps(packet())]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    found, report = cases.from_phenopackets(tmp_path / "rows.jsonl", few)
    assert len(found) == 1
    ((place, reason),) = report.refused
    assert place.endswith(":1") and "at most 1,048,576 bytes" in reason


def test_terms_of_a_user(few):
    (case,), report = cases.from_terms("HP:0000011, !ataxia , -hp:0000118,", few)
    assert case.phenotypes == Phenotypes(("HP:0000011",), ("HP:0000020",))
    assert case.gene is None and case.diseases == ()
    assert report.counts["contradicted"] == 1
    (case,), _ = cases.from_terms(["Fit", "-HP:0000020"], few)
    assert case.phenotypes == Phenotypes(("HP:0000010",), ("HP:0000020",))
    for wrong, message in [
        ("", "terms: expected observed terms, got none and 0 excluded"),
        ([], "got none and 0 excluded"),
        ("-HP:0000010", "got none and 1 excluded"),
        ("nothing", "HPO unknown knows, got none: 'nothing' is unknown"),
    ]:
        with pytest.raises(ValueError, match=message):
            cases.from_terms(wrong, few)


@pytest.mark.parametrize(
    "text",
    [
        "HP:0000011;-HP:0000020",
        "HP:0000011 -HP:0000020",
        "HP:0000011\n!HP:0000020\n",
        "'HP:0000011', '-HP:0000020'",
        '"HP:0000011","-HP:0000020"',
        "hp:0000011,\N{MINUS SIGN}hp_0000020",
        "HP:0000011,\N{EN DASH} HP:0000020",
        "\N{LEFT SINGLE QUOTATION MARK}Fit\N{RIGHT SINGLE QUOTATION MARK}, -ATAXIA",
    ],
)
def test_terms_as_people_type_them(few, text):
    (case,), report = cases.from_terms(text, few)
    observed = "HP:0000010" if "Fit" in text else "HP:0000011"
    assert case.phenotypes == Phenotypes((observed,), ("HP:0000020",))
    assert report.lines() == ["cases that can be used: 1", "terms that are excluded: 1"]


def test_names_with_commas():
    labels = {"otitis media", "otitis media, chronic", "a, b, c", "chronic"}
    split = typed_terms.split_terms
    assert split("Otitis media, chronic, fever", labels) == [
        "Otitis media, chronic",
        "fever",
    ]
    assert split("a,b,c; -A,  B, C", labels) == ["a, b, c", "-A, B, C"]
    assert split("fever, otitis media", labels) == ["fever", "otitis media"]
    assert split(" , ;\n", labels) == []


def test_members_of_a_cohort_have_places_of_their_own(read):
    found, report = read({"members": [packet(), {"subject": {}}, packet()]})
    assert [case.source[-2:] for case in found] == ["#1", "#3"]
    assert report.refused[0][0].endswith("#2")


def test_long_reports_are_cut():
    refused = tuple((f"{n}.json", "why") for n in range(4))
    report = cases.Report({"cases": 1}, refused, ("a note",))
    assert report.lines(limit=3)[2:] == [
        "  0.json: why",
        "  1.json: why",
        "  2.json: why",
        "  and 1 more",
        "  a note",
    ]
    assert len(report.lines(limit=0)) == 2


def test_half_of_a_surrogate_pair_is_refused():
    with pytest.raises(ValueError, match="expected JSON"):
        case_files.parse_json(b'{"a": ["\\ud800"]}')
    assert case_files.parse_json(b'["\\ud83d\\ude00"]') == ["\N{GRINNING FACE}"]


def test_phenobrain(tmp_path, few):
    rows = [
        {"row": 4, "hpo": ["HP:0000011", "HP:0000011"], "diseases": ["OMIM:1"]},
        {"row": 5, "hpo": "HP:0000011", "diseases": []},
        {"row": 6, "hpo": ["HP:0000011"]},
        [],
    ]
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    (case,), report = cases.from_phenobrain(path, few)
    assert case.phenotypes.observed == ("HP:0000011",)
    assert (case.diseases, case.source, case.gene) == (("OMIM:1",), "4", None)
    assert [reason.partition(":")[0] for _, reason in report.refused] == [
        "hpo",
        "diseases",
        "hpo",
    ]


SHARED = {
    "phenopackets/cases.jsonl": 600,
    "gpt4o_gene_rankings/cases.jsonl.gz": 466,
    "phenobrain_public/cases.jsonl": 534,
}


@pytest.mark.parametrize("name", SHARED)
def test_shared_data(name):
    if assets.status("hpo") is None:
        pytest.skip("the asset hpo is not on this machine")
    try:
        path = assets.shared_file(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    reader = cases.from_phenobrain if "brain" in name else cases.from_phenopackets
    found, report = reader(path, hpo.load())
    assert len(found) == SHARED[name] and report.refused == ()
    assert all(case.diseases for case in found)
    if "brain" not in name:
        assert all(case.gene and case.references for case in found)
        opened = gzip.open if name.endswith("gz") else open
        with opened(path, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        # The gene that the interpretations name is the one that the file states.
        inner = [parse_packet(row["phenopacket"]) for row in rows]
        assert [one.genes for one in inner] == [(row["causal_gene"],) for row in rows]
        assert [one.diseases for one in inner] == [(row["disease"],) for row in rows]


def test_a_file_that_cannot_be_used_is_named_once(few, tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"id": 1, "id": 2}')
    with pytest.raises(ValueError, match=r"key 'id' stands twice") as caught:
        cases.from_phenopackets(path, few)
    assert str(caught.value).count(str(path)) == 1
