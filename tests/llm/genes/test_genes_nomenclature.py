"""Test the names of genes and diseases, and the table of citations."""

import gzip

import numpy as np
import pytest

from jeff import assets
from jeff_llm.genes import nomenclature

COLUMNS = (
    "hgnc_id\tsymbol\tstatus\talias_symbol\tprev_symbol\tentrez_id\tensembl_gene_id\n"
)
HGNC = COLUMNS + (
    'HGNC:1\tONE\tApproved\t"UNO|SHARED"\t"FIRST|TWO"\t11\tENSG00000000001\n'
    'HGNC:2\tTWO\tApproved\tSHARED\t"DEUX"\t12\tENSG00000000002\n'
    'HGNC:3\tC3orf3\tApproved\t"DEUX|11"\t\t\t\n'
    "HGNC:4\tGONE\tEntry Withdrawn\tOLD\t\t14\t\n"
)
MONDO = (
    "# curie_map:\n#   OMIM: https://omim.org/entry/\n"
    "subject_id\tsubject_label\tpredicate_id\tobject_id\n"
    "MONDO:1\tx\tskos:broadMatch\tOMIM:9\n"
    "MONDO:1\tx\tskos:exactMatch\tOMIM:1\n"
    "MONDO:1\tx\tskos:exactMatch\tOrphanet:2\n"
    "MONDO:1\tx\tskos:exactMatch\tDOID:3\n"
    "MONDO:2\tx\tskos:broadMatch\tOMIM:9\n"
    "MONDO:3\tx\tskos:exactMatch\tOMIMPS:4\n"
    "MONDO:4\tx\tskos:relatedMatch\tOMIM:9\n"
)
COUNTS = "entrez_id,symbol,n_publications\n11,FIRST,5\n12,TEC,7\n13,TEC,3\n"


@pytest.fixture
def write(tmp_path):
    def one(text, name="table.txt"):
        path = tmp_path / name
        data = text.encode()
        path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
        return path

    return one


def test_symbols(write):
    names = nomenclature.read_hgnc(write(HGNC))
    assert names.symbols == ("ONE", "TWO", "C3orf3")
    assert names.entrez == {"ONE": 11, "TWO": 12}
    assert names.ensembl["TWO"] == "ENSG00000000002" and names.hgnc["ONE"] == "HGNC:1"
    given = ["ONE", "first", "TWO", "uno", "c3ORF3", "hgnc:2", "11", "NCBIGene:12"]
    found, report = names.resolve([*given, "ENSG00000000001.7", "DEUX"])
    # TWO is a current symbol, though once of ONE; DEUX a former symbol of TWO, though
    # an alias of another; 11 an NCBI id.
    assert found[:5] == ["ONE", "ONE", "TWO", "ONE", "C3orf3"]
    assert found[5:] == ["TWO", "ONE", "TWO", "ONE", "TWO"]
    assert ("first", "ONE") in report.renamed and ("ONE", "ONE") not in report.renamed
    assert report.ambiguous == () and report.unknown == ()


def test_names_that_cannot_be_resolved(write):
    names = nomenclature.read_hgnc(write(HGNC.replace("\n", "\r\n")))
    found, report = names.resolve(["shared", "GONE", "OLD", "14", "", "ONE"])
    assert found == [None] * 5 + ["ONE"]
    assert report.ambiguous == (("shared", ("ONE", "TWO")),)
    assert report.unknown == ("GONE", "OLD", "14", "")


def test_mondo(write):
    assert nomenclature.read_mondo(write(MONDO)) == {
        "MONDO:1": ("OMIM:1", "ORPHA:2"),
        "MONDO:2": ("OMIM:9",),
    }


@pytest.mark.parametrize("name", ["counts.csv", "counts.csv.gz"])
def test_citations(write, name):
    table = nomenclature.read_citations(write(COUNTS, name))
    assert table.by_entrez == {11: 5, 12: 7, 13: 3}
    assert table.by_symbol == {"FIRST": 5, "TEC": 7}
    np.testing.assert_equal(table.counts(["TEC", "ONE"]), [7, np.nan])
    names = nomenclature.read_hgnc(write(HGNC))
    # By its id, ONE has the publications counted under its former symbol.
    np.testing.assert_equal(table.counts(["TEC", "ONE", "x"], names), [7, 5, np.nan])


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        ("read_hgnc", "", "expected a header with symbol, .* found none"),
        ("read_hgnc", "a\tb\n", "expected a column 'symbol', got a, b"),
        ("read_hgnc", HGNC + "HGNC:9\tNINE", r"table\.txt:6: expected 7 fields"),
        ("read_hgnc", HGNC + HGNC.splitlines()[1], "a symbol of its own, got 'ONE'"),
        ("read_hgnc", HGNC.replace("\t11\t", "\tx\t"), "entrez_id: .* got 'x'"),
        ("read_mondo", MONDO + "MONDO:5", r"table\.txt:11:"),
        ("read_mondo", "subject_id\tobject_id\n", "predicate_id"),
        ("read_citations", COUNTS + "14,X,-3\n", r"table\.txt:5: n_publications"),
        ("read_citations", COUNTS + "x,X,3\n", "entrez_id"),
        ("read_citations", COUNTS + f"1,{'x' * 200_000},3\n", "field larger"),
    ],
)
def test_malformed_tables(write, reader, text, message):
    with pytest.raises(ValueError, match=message):
        getattr(nomenclature, reader)(write(text))


def test_files_that_cannot_be_read(tmp_path, write):
    with pytest.raises(FileNotFoundError, match=r"none\.txt: expected a table"):
        nomenclature.read_mondo(tmp_path / "none.txt")
    broken = write(COUNTS, "counts.csv.gz")
    broken.write_bytes(broken.read_bytes()[:-9])
    with pytest.raises(ValueError, match="expected a table, but it cannot be read"):
        nomenclature.read_citations(broken)


def test_an_open_quote_ends_with_its_line(write):
    text = COUNTS + '14,"OPEN,3\n15,NEXT,4\n'
    with pytest.raises(ValueError, match=r":5: expected a row of a table"):
        nomenclature.read_citations(write(text))


def test_the_pinned_tables():
    for name in ("hgnc", "mondo"):
        if assets.status(name) is None:
            pytest.skip(f"the asset {name} is not on this machine")
    names = nomenclature.read_hgnc(assets.find("hgnc"))
    found, report = names.resolve(["MLL2", "HGNC:34", "ENSG00000121410", "SCN1A"])
    assert found == ["KMT2D", "ABCA4", "A1BG", "SCN1A"] and report.unknown == ()
    assert len(names.symbols) > 40_000
    mondo = nomenclature.read_mondo(assets.find("mondo"))
    assert mondo["MONDO:0000023"] == ("ORPHA:464724",) and len(mondo) > 10_000
    try:
        path = assets.shared_file("gene_citations/gene2pubmed_counts.csv.gz")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    table = nomenclature.read_citations(path)
    assert table.by_symbol["TP53"] == 11_045
    # CPAP is a newer symbol than the table; its NCBI id joins it all the same.
    assert np.isnan(table.counts(["CPAP"])[0])
    assert table.counts(["CPAP"], names)[0] > 0
