"""A small HPO from a few names, for the tests of gene prioritisation."""

import numpy as np
import pytest

from jeff import assets
from jeff_llm.genes import hpo
from jeff_llm.genes.hpoa import parse_annotations
from jeff_llm.genes.obo import parse_ontology

COLUMNS = (
    "database_id disease_name qualifier hpo_id reference evidence onset frequency sex "
    "modifier aspect biocuration"
)
GENE_COLUMNS = "ncbi_gene_id gene_symbol hpo_id hpo_name frequency disease_id"


def term_id(number):
    """The root of phenotypes is number 0."""
    return f"HP:{118 if number == 0 else 1000 + number:07d}"


@pytest.fixture(scope="session")
def make_hpo():
    """A release of HPO from parents by term, lines, and diseases by gene.

    A line is (disease, term, frequency, reference); the frequency is a text of HPO, or
    "NOT". Terms are numbers.
    """

    def make(parents, lines, genes):
        obo = "format-version: 1.2\ndata-version: hp/releases/2030-01-02\n"
        for term, above in enumerate(parents):
            obo += f"\n[Term]\nid: {term_id(term)}\nname: term {term}\n"
            obo += "".join(f"is_a: {term_id(one)}\n" for one in above)
        hpoa = "#version: 2030-01-02\n" + COLUMNS.replace(" ", "\t") + "\n"
        for disease, term, often, cited in lines:
            no, share = ("NOT", "") if often == "NOT" else ("", often)
            hpoa += (
                f"{disease}\tname of {disease}\t{no}\t{term_id(term)}\t{cited}\tPCS\t\t"
                f"{share}\t\t\tP\tx\n"
            )
        linked = GENE_COLUMNS.replace(" ", "\t") + "\n"
        for number, (gene, diseases) in enumerate(genes.items()):
            for disease in diseases:
                linked += f"{number + 1}\t{gene}\t{term_id(1)}\tx\t-\t{disease}\n"
        ontology = parse_ontology(obo, source="obo")
        return hpo.Hpo(
            ontology,
            parse_annotations(hpoa, linked, ontology, sources=("hpoa", "genes")),
        )

    return make


@pytest.fixture(scope="session")
def ids():
    return term_id


@pytest.fixture(scope="session")
def ten(make_hpo):
    """Ten terms, four diseases, three genes.

    0 > (1 > (3, 4 > 7), 2 > (4, 5 > (8, 9), 6)); 4 has two parents.
    """
    parents = [[], [0], [0], [1], [1, 2], [2], [2], [4], [5], [5]]
    lines = [
        ("OMIM:1", 3, "1/1", "PMID:1"),
        ("OMIM:1", 7, "1/2", "PMID:1;PMID:2"),
        ("OMIM:2", 4, "1/4", "PMID:3"),
        ("OMIM:2", 8, "", "PMID:3"),
        ("OMIM:2", 6, "NOT", "PMID:3"),
        ("OMIM:3", 5, "4/5", "PMID:4"),
        ("OMIM:4", 3, "1/2", "PMID:5"),
        ("OMIM:4", 8, "1/1", "PMID:5"),
        ("OMIM:4", 9, "1/5", "PMID:6"),
    ]
    genes = {"G1": ["OMIM:1"], "G2": ["OMIM:2", "OMIM:3"], "G3": ["OMIM:4", "OMIM:9"]}
    return make_hpo(parents, lines, genes)


@pytest.fixture(scope="session")
def random_hpo(make_hpo):
    """A random release of 40 terms, 30 diseases and 20 genes."""

    def make(seed):
        rng = np.random.default_rng(seed)
        parents = [[]]
        for term in range(1, 40):
            count = min(term, 1 + int(rng.random() < 0.3))
            parents.append(rng.choice(term, count, replace=False).tolist())
        lines = []
        for disease in range(30):
            for term in rng.choice(np.arange(1, 40), rng.integers(1, 9), replace=False):
                often = rng.choice(["", "1/2", "3/4", "1/10", "9/9", "HP:0040281"])
                lines.append((f"OMIM:{disease + 1}", int(term), often, "PMID:1"))
        # A disease that lacks a term and shows none has an empty profile.
        lines.append(("OMIM:99", 1, "NOT", "PMID:1"))
        genes = {
            f"G{gene}": [f"OMIM:{one}" for one in rng.integers(1, 31, 2)]
            for gene in range(20)
        }
        return make_hpo(parents, lines, genes | {"GX": ["OMIM:99"]})

    return make


@pytest.fixture(scope="session")
def real_hpo():
    if any(assets.status(name) is None for name in ("hpo", "hpo_annotations")):
        pytest.skip("the asset hpo is not on this machine")
    return hpo.load()
