"""Test HPO's reader, cache, profiles and information content."""

import dataclasses
import gzip
import io
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jeff import assets
from jeff_llm.genes import annotations, hpo, profiles
from jeff_llm.genes.annotations import FREQUENCY_CLASSES, parse_frequency
from jeff_llm.genes.obo import parse_ontology
from jeff_llm.genes.ontology import canonical_id

# All > (Phenotype > (A > (A1, A2, AB > AB1), B > (AB > AB1))), (Inheritance > Dominant)
TERMS = {
    "HP:0000001": ("All", []),
    "HP:0000118": ("Phenotypic abnormality", ["HP:0000001"]),
    "HP:0000010": ("A", ["HP:0000118"]),
    "HP:0000011": ("A1", ["HP:0000010"]),
    "HP:0000012": ("A2", ["HP:0000010"]),
    "HP:0000020": ("B", ["HP:0000118"]),
    "HP:0000021": ("AB", ["HP:0000010", "HP:0000020"]),
    "HP:0000022": ("AB1", ["HP:0000021"]),
    "HP:0000005": ("Inheritance", ["HP:0000001"]),
    "HP:0000006": ("Dominant", ["HP:0000005"]),
}
OBSOLETE = """
[Term]
id: HP:0000014
name: obsolete chain
is_obsolete: true
replaced_by: HP:0000013

[Term]
id: HP:0000015
name: obsolete for good
is_obsolete: true
consider: HP:0000020
consider: HP:0000021

[Typedef]
id: part_of
"""
HEADER = (
    "database_id\tdisease_name\tqualifier\thpo_id\treference\tevidence\tonset\t"
    "frequency\tsex\tmodifier\taspect\tbiocuration"
)
LINES = [
    ("OMIM:1", "", "HP:0000011", "PMID:1", "3/4", "P"),
    ("OMIM:1", "", "HP:0000021", "PMID:1;PMID:2", "HP:0040282", "P"),
    ("OMIM:1", "", "HP:0000006", "PMID:1", "", "I"),
    ("OMIM:2", "NOT", "HP:0000012", "PMID:2", "", "P"),
    ("OMIM:2", "", "HP:0000022", "PMID:3", "50%", "P"),
    ("OMIM:3", "", "HP:0000020", "PMID:3", "", "P"),
    ("OMIM:3", "", "HP:0000013", "PMID:1", "0/5", "P"),
    ("ORPHA:4", "", "HP:0000011", "", "1/2", "P"),
    ("ORPHA:4", "", "HP:0000011", "PMID:9", "1/4", "P"),
    ("ORPHA:4", "", "HP:0000015", "PMID:9", "", "P"),
    ("ORPHA:4", "", "HP:9999999", "PMID:9", "often", "P"),
]
GENES = [
    ("11", "G1", "OMIM:1"),
    ("11", "G1", "OMIM:2"),
    ("12", "G2", "OMIM:3"),
    ("13", "G3", "ORPHA:4"),
    ("14", "G4", "OMIM:5"),
    ("15", "-", "OMIM:1"),
]


def obo(terms=TERMS, extra=OBSOLETE):
    text = "format-version: 1.2\ndata-version: hp/releases/2030-01-02\n"
    for term, (name, parents) in terms.items():
        text += f'\n[Term]\nid: {term}\nname: {name}\nsynonym: "also {name}" EXACT []\n'
        text += "".join(f"is_a: {parent} ! a name\n" for parent in parents)
        text += "alt_id: HP:0000013\n" if term == "HP:0000011" else ""
    return text + extra


def hpoa(lines=LINES, header=HEADER):
    rows = [
        f"{d}\tname of {d}\t{no}\t{term}\t{cited}\tPCS\t\t{share}\t\t\t{aspect}\tx"
        for d, no, term, cited, share, aspect in lines
    ]
    return "\n".join(["#description: made", "#version: 2030-01-03", header, *rows, ""])


def gene_file(genes=GENES):
    head = "ncbi_gene_id\tgene_symbol\thpo_id\thpo_name\tfrequency\tdisease_id"
    rows = [f"{n}\t{s}\tHP:0000011\tA1\t-\t{d}" for n, s, d in genes]
    return "\n".join([head, *rows, ""])


def write(folder: Path, **texts) -> Path:
    contents = {"obo": obo(), "hpoa": hpoa(), "genes": gene_file()} | texts
    for name, text in zip(hpo.FILES, contents.values(), strict=True):
        (folder / name).write_text(text, encoding="utf-8", newline="")
    return folder


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory, request):
    if "real" not in request.fixturenames:
        folder = str(tmp_path_factory.mktemp("cache"))
        monkeypatch.setenv("JEFF_CACHE", folder)


@pytest.fixture
def ten(tmp_path):
    return hpo.load(write(tmp_path))


@pytest.fixture
def real():
    if assets.status("hpo") is None:
        pytest.skip("the asset hpo is not on this machine")
    return hpo.load()


def rows(result, ids):
    """Terms of each row by id."""
    bounds = zip(result.starts, result.starts[1:], strict=False)
    return [[ids[t] for t in result.terms[a:b]] for a, b in bounds]


def same(one: hpo.Hpo, two: hpo.Hpo):
    for left, right in (
        (one.ontology, two.ontology),
        (one.annotations, two.annotations),
    ):
        for field in dataclasses.fields(left):
            a, b = getattr(left, field.name), getattr(right, field.name)
            np.testing.assert_array_equal(a, b) if isinstance(a, np.ndarray) else None
            assert isinstance(a, np.ndarray) or a == b, field.name
            assert type(a) is type(b), field.name
            assert not isinstance(a, np.ndarray) or a.dtype == b.dtype, field.name
    return True


def test_ten_terms(ten):
    ontology = ten.ontology
    at = ontology.positions
    assert ontology.ids == tuple(sorted(TERMS))
    assert ontology.release == "2030-01-02" and ten.annotations.release == "2030-01-03"
    assert ten.releases == {"ontology": "2030-01-02", "annotations": "2030-01-03"}
    above = {ontology.ids[t] for t in ontology.ancestors_of(at["HP:0000022"])}
    assert above == {f"HP:{n:07}" for n in (1, 118, 10, 20, 21, 22)}
    assert ontology.depths[at["HP:0000022"]] == 4
    order = ontology.order.tolist()
    for child, parents in enumerate(np.diff(ontology.parent_starts)):
        start = ontology.parent_starts[child]
        for parent in ontology.parents[start : start + parents]:
            assert order.index(parent) < order.index(child)
    below = {i for i, yes in zip(ontology.ids, ontology.phenotypes, strict=True) if yes}
    assert below == set(TERMS) - {"HP:0000001", "HP:0000005", "HP:0000006"}


def test_ids_that_moved(ten):
    ontology = ten.ontology
    assert ontology.moved == {"HP:0000013": "HP:0000011", "HP:0000014": "HP:0000011"}
    assert ontology.obsolete == {"HP:0000015": ("HP:0000020", "HP:0000021")}
    assert ontology.index("HP:0000014") == ontology.positions["HP:0000011"]
    with pytest.raises(KeyError, match=r"obsolete.*HP:0000020, HP:0000021"):
        ontology.index("HP:0000015")
    with pytest.raises(KeyError, match="HP:7777777"):
        ontology.index("HP:7777777")


def test_resolve(ten):
    found, report = ten.ontology.resolve(
        ["hp_0000014", "a1", "Also  B", "HP:0000015", "HP:0000006", "nothing", "HP:1"]
    )
    assert [ten.ontology.ids[t] for t in found] == ["HP:0000011", "HP:0000020"]
    assert report.mapped == (("HP:0000014", "HP:0000011"),)
    assert report.repeated == ("HP:0000011",)
    assert report.obsolete == ("HP:0000015",)
    assert report.other == ("HP:0000006",)
    assert report.unknown == ("nothing", "HP:1")


@pytest.mark.parametrize("text", ["HP:0001250", " hp:0001250", "HP_0001250"])
def test_canonical_id(text):
    assert canonical_id(text) == "HP:0001250"
    assert canonical_id(f"{text}1") is None


def test_frequencies():
    assert parse_frequency("3/7") == 3 / 7
    assert parse_frequency("42.5%") == 0.425
    assert parse_frequency("HP:0040281") == (0.80 + 0.99) / 2
    assert parse_frequency("HP:0040285") == parse_frequency("0/9") == 0
    assert math.isnan(parse_frequency("")) and math.isnan(parse_frequency("0/0"))
    assert sorted(FREQUENCY_CLASSES.values(), reverse=True)[0] == 1
    for wrong in ("4/3", "101%", "-1/2", "1/", "often", "\u0663/\u0667"):
        with pytest.raises(ValueError, match="expected n/m"):
            parse_frequency(wrong)


def test_annotations(ten):
    notes = ten.annotations
    assert notes.diseases == ("OMIM:1", "OMIM:2", "OMIM:3", "OMIM:5", "ORPHA:4")
    assert notes.disease_names[3] == "" and notes.disease_names[0] == "name of OMIM:1"
    assert notes.genes == ("G1", "G2", "G3", "G4")
    assert notes.entrez.tolist() == [11, 12, 13, 14]
    assert notes.links.tolist() == [[0, 0], [0, 1], [1, 2], [2, 4], [3, 3]]
    assert notes.references == ("PMID:1", "PMID:2", "PMID:3", "PMID:9")
    assert notes.reference_starts.tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 8, 9]
    np.testing.assert_allclose(
        notes.line_frequency,
        [0.75, 0.545, np.nan, np.nan, 0.5, np.nan, 0, 0.5, 0.25],
    )
    assert notes.line_negated.tolist() == [False] * 3 + [True] + [False] * 5
    assert "".join(notes.line_aspect) == "PPIPPPPPP"
    report = notes.report
    assert report._asdict() == {
        "mapped": 1,
        "obsolete": 1,
        "unknown": 1,
        "frequencies": 0,
        "unnamed": 1,
    }


def test_profiles(ten):
    ids = ten.ontology.ids
    diseases = profiles.disease_terms(ten)
    assert rows(diseases, ids) == [
        ["HP:0000011", "HP:0000021"],
        ["HP:0000022"],
        ["HP:0000020"],
        [],
        ["HP:0000011"],
    ]
    # Two lines give the last disease its term: the mean of 1/2 and 1/4.
    np.testing.assert_allclose(
        diseases.frequencies, [0.75, 0.545, 0.5, np.nan, 0.375], rtol=1e-6
    )
    genes = profiles.gene_terms(ten)
    assert rows(genes, ids) == [
        ["HP:0000011", "HP:0000021", "HP:0000022"],
        ["HP:0000020"],
        ["HP:0000011"],
        [],
    ]


def test_a_shared_term_has_the_largest_frequency(tmp_path):
    lines = [
        ("OMIM:1", "", "HP:0000011", "", "1/4", "P"),
        ("OMIM:2", "", "HP:0000011", "", "3/4", "P"),
        ("OMIM:2", "NOT", "HP:0000011", "", "", "P"),
        ("OMIM:3", "", "HP:0000011", "", "", "P"),
    ]
    genes = [("1", "G", "OMIM:1"), ("1", "G", "OMIM:2"), ("1", "G", "OMIM:3")]
    one = hpo.load(write(tmp_path, hpoa=hpoa(lines), genes=gene_file(genes)))
    assert profiles.gene_terms(one).frequencies.tolist() == [0.75]


def test_without_the_own_paper(ten):
    ids = ten.ontology.ids
    left = profiles.disease_terms(ten, without={"PMID:1"})
    # AB stays, since PMID:2 says it too; a line without a reference stays as well.
    assert rows(left, ids)[0] == ["HP:0000021"]
    assert rows(left, ids)[4] == ["HP:0000011"]
    both = profiles.disease_terms(ten, without=["PMID:1", "PMID:2"])
    assert rows(both, ids)[0] == []
    assert rows(profiles.gene_terms(ten, without={"PMID:3"}), ids)[1] == []
    with pytest.raises(TypeError, match="references"):
        annotations.lines_without(ten.annotations, "PMID:1")


def test_information_content_by_hand(ten):
    terms = profiles.disease_terms(ten)
    counts = profiles.annotation_counts(ten.ontology, terms.starts, terms.terms)
    by_id = dict(zip(ten.ontology.ids, counts.tolist(), strict=True))
    assert by_id == {
        "HP:0000001": 4,
        "HP:0000118": 4,
        "HP:0000010": 3,
        "HP:0000011": 2,
        "HP:0000012": 0,
        "HP:0000020": 3,
        "HP:0000021": 2,
        "HP:0000022": 1,
        "HP:0000005": 0,
        "HP:0000006": 0,
    }
    content = profiles.information_content(counts, 4)
    at = ten.ontology.positions
    assert content[at["HP:0000001"]] == 0
    assert content[at["HP:0000010"]] == pytest.approx(math.log(4 / 3))
    assert content[at["HP:0000022"]] == content[at["HP:0000012"]] == math.log(4)
    zero = profiles.information_content(counts, 4, unannotated=0)
    assert zero[at["HP:0000012"]] == 0 and zero[at["HP:0000022"]] == math.log(4)


@pytest.mark.parametrize("name", ["obo", "hpoa", "genes"])
@given(st.data())
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_damage_is_read_or_refused(tmp_path, name, data):
    text = {"obo": obo(), "hpoa": hpoa(), "genes": gene_file()}[name]
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    put = data.draw(st.text("\t\n:#[]HP019\x00\u2028%/;", max_size=6))
    write(tmp_path, **{name: text[:start] + put + text[end:]})
    found = refused = None
    try:
        found = hpo.load(tmp_path, cache=False)
    except ValueError as error:
        refused = str(error)
    if found is None:
        # Of the three files, the error names one.
        assert refused is not None and any(name in refused for name in hpo.FILES)
    else:
        counts = np.diff(profiles.gene_terms(found).starts)
        assert len(counts) == len(found.annotations.genes)


@pytest.mark.parametrize(
    ("counts", "total", "options", "message"),
    [
        ([1], 0, {}, "total"),
        ([5], 4, {}, "counts"),
        ([-1], 4, {}, "counts"),
        ([1], 4, {"unannotated": 2}, "unannotated"),
    ],
)
def test_information_content_refuses(counts, total, options, message):
    with pytest.raises(ValueError, match=message):
        profiles.information_content(np.array(counts), total, **options)


@given(st.lists(st.sets(st.integers(0, 9), max_size=4), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_propagation_is_the_union_of_ancestors(sets):
    ontology = parse_ontology(obo())
    starts = np.cumsum([0, *map(len, sets)])
    terms = np.array([t for some in sets for t in sorted(some)], dtype=np.int32)
    bounds, closed = profiles.propagate(ontology, starts, terms)
    for row, some in enumerate(sets):
        expected = {a for t in some for a in ontology.ancestors_of(t).tolist()}
        assert closed[bounds[row] : bounds[row + 1]].tolist() == sorted(expected)
    counts = profiles.annotation_counts(ontology, starts, terms)
    content = profiles.information_content(counts, len(sets))
    for child in range(10):
        # What is more special is at least as informative.
        assert (content[ontology.ancestors_of(child)] <= content[child] + 1e-12).all()


def test_cache(tmp_path, monkeypatch):
    folder = write(tmp_path)
    first = hpo.load(folder)
    stored = list((assets.cache_dir() / "genes").iterdir())
    assert len(stored) == 1 and stored[0].suffix == ".npz"
    with monkeypatch.context() as patch:
        patch.setattr(hpo, "parse_ontology", None)
        assert same(hpo.load(folder), first)
    whole = stored[0].read_bytes()
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    middle = whole[:500] + b"\x7f" * 20 + whole[520:]
    for broken in (b"", b"nonsense", whole[:-30], middle, array.getvalue()):
        stored[0].write_bytes(broken)
        assert same(hpo.load(folder), first)
        assert stored[0].read_bytes()[:2] == b"PK"
    assert same(hpo.load(folder, cache=False), first)
    # Another content is another cache.
    write(folder, genes=gene_file(GENES[:1]))
    assert hpo.load(folder).annotations.genes == ("G1",)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("a file where the cache would be a folder")
    monkeypatch.setenv("JEFF_CACHE", str(blocked))
    (tmp_path / "hpo").mkdir()
    assert len(hpo.load(write(tmp_path / "hpo")).ontology.ids) == 10


def test_forms_of_the_files(tmp_path):
    plain = hpo.load(write(tmp_path), cache=False)
    texts = {name: (tmp_path / name).read_text() for name in hpo.FILES}
    for name, text in texts.items():
        windows = "\ufeff" + text.replace("\n", "\r\n")
        (tmp_path / name).write_text(windows, encoding="utf-8", newline="")
    assert same(hpo.load(tmp_path, cache=False), plain)
    for name, text in texts.items():
        (tmp_path / name).unlink()
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    assert same(hpo.load(tmp_path, cache=False), plain)
    damaged = tmp_path / "hp.obo.gz"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(
        ValueError, match=r"hp\.obo\.gz: expected a file of HPO, but it cannot"
    ):
        hpo.load(tmp_path)


def test_older_releases(tmp_path):
    new = hpo.load(write(tmp_path), cache=False)
    header = (
        "#DatabaseID\tDiseaseName\tQualifier\tHPO_ID\tReference\tEvidence\tOnset\t"
        "Frequency\tSex\tModifier\tAspect\tBiocuration"
    )
    genes = (
        "#Format: entrez-gene-id<tab>entrez-gene-symbol<tab>HPO-Term-ID<tab>"
        "HPO-Term-Name<tab>Frequency-Raw<tab>Frequency-HPO<tab>Additional Info from "
        "G-D source<tab>G-D source<tab>disease-ID for link\n"
    )
    genes += "".join(f"{n}\t{s}\tHP:0000011\tA1\t\t\t-\tx\t{d}\n" for n, s, d in GENES)
    lines = hpoa(header=header).replace("#version:", "#date:")
    assert same(hpo.load(write(tmp_path, hpoa=lines, genes=genes), cache=False), new)


def circle():
    return TERMS | {"HP:0000010": ("A", ["HP:0000118", "HP:0000022"])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"obo": obo(circle())},
            r"circle: HP:0000010 is_a HP:0000022 is_a HP:0000021 is_a HP:0000010",
        ),
        ({"obo": obo(TERMS | {"HP:0000012": ("A2", ["HP:0000099"])})}, "HP:0000099"),
        ({"obo": obo() + "\n[Term]\nid: HP:0000010\nname: A\n"}, "stands twice"),
        ({"obo": obo() + "\n[Term]\nid: HP:0000099\n"}, "id and name"),
        ({"obo": obo() + "\n[Term]\nname: A\n"}, "id and name"),
        ({"obo": obo() + "cut\n"}, r"hp\.obo:\d+: expected 'key: value', got 'cut'"),
        ({"obo": ""}, "HP:0000118"),
        ({"hpoa": hpoa() + "OMIM:9\tcut"}, r"phenotype\.hpoa:15: .*got 2; .*cut short"),
        ({"hpoa": hpoa(header="a\tb")}, r"phenotype\.hpoa:3: expected a header"),
        (
            {"hpoa": hpoa(header=HEADER.replace("aspect", "kind"))},
            "a column of the aspect",
        ),
        ({"hpoa": ""}, "expected a header"),
        ({"hpoa": hpoa(LINES[-1:])}, "expected annotations of known terms"),
        ({"genes": "#Format: entrez-gene-id<tab>entrez-gene-symbol\n"}, "the disease"),
        ({"genes": gene_file([("x", "G", "OMIM:1")])}, "G: .* a number, got 'x'"),
        ({"genes": gene_file([])}, "expected genes with diseases"),
        ({"genes": gene_file() + "12\tG"}, r"genes_to_phenotype\.txt:8:"),
    ],
)
def test_malformed_files(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        hpo.load(write(tmp_path, **change))


def test_no_text(tmp_path):
    write(tmp_path)
    (tmp_path / "phenotype.hpoa").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"phenotype\.hpoa: expected text in UTF-8"):
        hpo.load(tmp_path)


def test_missing_files(tmp_path):
    write(tmp_path)
    (tmp_path / "phenotype.hpoa").unlink()
    with pytest.raises(FileNotFoundError, match=r"phenotype\.hpoa: expected this file"):
        hpo.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere: expected a folder"):
        hpo.load(tmp_path / "nowhere")


def test_frequencies_that_cannot_be_read_are_counted(tmp_path):
    lines = [("OMIM:1", "", "HP:0000011", "", "often", "P")]
    one = hpo.load(write(tmp_path, hpoa=hpoa(lines)))
    assert one.annotations.report.frequencies == 1
    assert np.isnan(one.annotations.line_frequency[0])


def test_the_pinned_release(real):
    ontology, notes = real.ontology, real.annotations
    assert ontology.release == notes.release == "2025-01-16"
    assert len(ontology.ids) == 19_034 and ontology.phenotypes.sum() == 18_387
    assert len(notes.genes) == 5_126 and len(notes.diseases) == 12_687
    assert not any(notes.report[:4])
    assert same(hpo.load(), real)
    (seizure,), _ = ontology.resolve(["Seizure"])
    assert ontology.ids[seizure] == "HP:0001250"


def test_information_content_of_a_peer(real):
    """hpo3 counts a term that nobody showed (0/n) as annotated, of any aspect."""
    pyhpo = pytest.importorskip("pyhpo", reason="hpo3 is not installed")
    folder = assets.find("hpo").parent
    pyhpo.Ontology(str(folder))
    notes = real.annotations
    frequency = np.where(notes.line_frequency == 0, np.nan, notes.line_frequency)
    loose = hpo.Hpo(
        real.ontology,
        dataclasses.replace(
            notes,
            line_frequency=frequency,
            line_aspect=np.full_like(notes.line_aspect, "P"),
        ),
    )
    terms = profiles.disease_terms(loose)
    omim = np.array([d.startswith("OMIM:") for d in notes.diseases])
    kept = np.repeat(omim, np.diff(terms.starts))
    starts = np.concatenate([[0], np.cumsum(kept)])[terms.starts]
    counts = profiles.annotation_counts(real.ontology, starts, terms.terms[kept])
    content = profiles.information_content(counts, int(omim.sum()), unannotated=0)
    peer = {t.id: t.information_content["omim"] for t in pyhpo.Ontology}
    expected = np.array([peer[term] for term in real.ontology.ids])
    shown = real.ontology.phenotypes
    np.testing.assert_allclose(content[shown], expected[shown], atol=1e-5)
