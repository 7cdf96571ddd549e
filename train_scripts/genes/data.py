"""The release of HPO and the cases of a run."""

import dataclasses
from functools import cached_property
from pathlib import Path

import jax
import numpy as np

from configs.genes import Config
from jeff import assets
from jeff_llm.genes import cases, hpo, nomenclature, simulate, tables
from jeff_llm.genes.cases import Case

__all__ = [
    "Source",
    "World",
    "current",
    "make_world",
    "phenobrain",
    "phenopackets",
    "read",
    "spread",
]

PHENOPACKETS = "phenopackets/cases.jsonl"
PHENOBRAIN = "phenobrain_public/cases.jsonl"
CITATIONS = "gene_citations/gene2pubmed_counts.csv.gz"
# Simulated cases that stand in where there are no shared data.
SIMULATED = 200


@dataclasses.dataclass(frozen=True)
class World:
    """A release of HPO, prepared for scoring.

    Attributes:
      hpo: ontology and annotations.
      tables: profiles of its diseases.
    """

    hpo: hpo.Hpo
    tables: tables.Tables

    @cached_property
    def gene_place(self) -> dict[str, int]:
        """Column of each gene."""
        return {name: i for i, name in enumerate(self.hpo.annotations.genes)}

    @cached_property
    def disease_place(self) -> dict[str, int]:
        """Column of each disease."""
        return {name: i for i, name in enumerate(self.hpo.annotations.diseases)}

    @cached_property
    def popularity(self) -> np.ndarray:
        """Articles per gene; without shared data, the number of annotated terms."""
        genes = self.hpo.annotations.genes
        try:
            path = assets.shared_file(CITATIONS)
        except FileNotFoundError:
            counts = np.zeros(len(genes))
            np.add.at(
                counts,
                self.hpo.annotations.links[:, 0],
                np.diff(self.tables.profiles.starts)[self.hpo.annotations.links[:, 1]],
            )
            return counts
        found = nomenclature.read_citations(path).counts(genes, self.nomenclature)
        # A gene without an entry is as little known as the least known one.
        return np.where(np.isnan(found), np.nanmin(found), found)

    @cached_property
    def current_names(self) -> dict[str, str]:
        """HPO's name of each gene by its current symbol; releases keep old names."""
        names = self.hpo.annotations.genes
        symbols, _ = self.nomenclature.resolve(names)
        return {
            symbol: name for symbol, name in zip(symbols, names, strict=True) if symbol
        }

    @cached_property
    def nomenclature(self) -> nomenclature.Nomenclature:
        """Names of human genes."""
        return nomenclature.read_hgnc(assets.find("hgnc"))


@dataclasses.dataclass(frozen=True)
class Source:
    """Cases of one origin.

    Attributes:
      name: what to call them in a table.
      cases: the cases.
      notes: what the loader had to say, a line each.
      simulated: whether they were drawn from the annotations.
    """

    name: str
    cases: list[Case]
    notes: list[str]
    simulated: bool = False


def make_world(config: Config) -> World:
    """Load the release of HPO that the run asks for.

    Args:
      config: settings of the run.

    Returns:
      The release and its tables.
    """
    release = hpo.load(config.hpo or None)
    return World(release, tables.make_tables(release))


def phenopackets(config: Config, world: World) -> Source:
    """Shared phenopackets, or simulated cases where they are absent.

    Args:
      config: settings of the run.
      world: release of HPO.

    Returns:
      The cases.
    """
    try:
        path = assets.shared_file(PHENOPACKETS)
    except FileNotFoundError:
        return _simulated(config, world)
    found, report = cases.from_phenopackets(path, world.hpo)
    return Source(
        "phenopackets",
        spread(current(found, world), config.cases),
        report.lines(limit=0),
    )


def phenobrain(config: Config, world: World) -> Source | None:
    """Public cases of PhenoBrain; None where they are absent.

    Args:
      config: settings of the run.
      world: release of HPO.

    Returns:
      The cases.
    """
    try:
        path = assets.shared_file(PHENOBRAIN)
    except FileNotFoundError:
        return None
    found, report = cases.from_phenobrain(path, world.hpo)
    return Source("PhenoBrain", spread(found, config.cases), report.lines(limit=0))


def read(path: Path, world: World) -> Source:
    """Read phenopackets of the user's own.

    Args:
      path: file or folder.
      world: release of HPO.

    Returns:
      The cases.
    """
    found, report = cases.from_phenopackets(path, world.hpo)
    return Source(str(path), current(found, world), report.lines())


def _simulated(config: Config, world: World) -> Source:
    count = min(config.cases or SIMULATED, SIMULATED)
    found = simulate.simulate_cases(
        world.hpo, count, key=jax.random.key(config.seeds[0])
    )
    note = (
        f"{len(found)} simulated cases, drawn from HPO's own annotations with noise: "
        "JEFF_DATA holds no phenopackets"
    )
    return Source("simulated cases", found, [note], simulated=True)


def current(found: list[Case], world: World) -> list[Case]:
    """Name causal genes as this release of HPO does.

    Args:
      found: cases, whose genes may have newer or older symbols.
      world: release of HPO.

    Returns:
      The cases; a gene that HPO does not know keeps its name.
    """
    other = [c.gene for c in found if c.gene and c.gene not in world.gene_place]
    if not other:
        return found
    symbols, _ = world.nomenclature.resolve(other)
    new = {
        name: world.current_names[symbol]
        for name, symbol in zip(other, symbols, strict=True)
        if symbol in world.current_names
    }
    return [c._replace(gene=new[c.gene]) if c.gene in new else c for c in found]


def spread(cases_: list[Case], count: int) -> list[Case]:
    """Choose cases from all over the list, so that a few are not all of one gene.

    Args:
      cases_: the cases, ordered by gene as files often are.
      count: how many to choose; 0 for all.

    Returns:
      The chosen cases, in their order.
    """
    if not count or count >= len(cases_):
        return cases_
    places = np.linspace(0, len(cases_) - 1, count).astype(int)
    return [cases_[place] for place in places]
