"""Simulated cells with planted interactions, so that the truth is known.

Every cell type has marker genes that switch on and off from cell to cell, and among
them a few pairs: where both genes of a pair are on, the cell is more likely a case.
Other markers raise or lower the risk by themselves, and the remaining markers have no
effect. So a pair cannot be found by co-occurrence of its genes (all markers of a type
occur together), nor by the effect of each gene on the label alone.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int
from scipy.sparse import csr_array, vstack

from jeff_graph.cells.expression import check_cells, check_size

__all__ = ["Design", "SimulatedCells", "Truth", "simulate_cells"]

# Cells are drawn in blocks of this size, whatever chunks are asked for.
_BLOCK = 2048


@dataclasses.dataclass(frozen=True)
class Design:
    """Design of the simulated cells.

    Attributes:
      num_genes: genes in all; those that are no marker are background.
      shares: share of each cell type; they sum to 1.
      markers: marker genes of each type.
      pairs: planted pairs of each type, of distinct markers.
      additive: markers of each type that act by themselves, up and down in turn.
      on: mean count of a marker that is on, and ``off`` of it where it is off.
      off: see ``on``.
      background: median count of a gene that is not a marker of the cell's type.
      chance: of a marker to be on.
      interaction: log-odds of a case that a pair adds.
      main: log-odds that an additive marker adds or takes.
      depth: standard deviation of the logarithm of a cell's depth.
      dispersion: of the negative binomial counts: variance ``m + m^2 / dispersion``.
    """

    num_genes: int = 500
    shares: tuple[float, ...] = (0.4, 0.3, 0.18, 0.1, 0.01, 0.01)
    markers: int = 30
    pairs: int = 5
    additive: int = 4
    on: float = 4.0
    off: float = 0.05
    background: float = 0.05
    chance: float = 0.5
    interaction: float = 4.0
    main: float = 1.0
    depth: float = 0.35
    dispersion: float = 4.0

    def __post_init__(self):
        """Check that the parts fit together."""
        # An iterator would be empty at its second reading.
        object.__setattr__(self, "shares", tuple(self.shares))
        if min(self.shares, default=0) <= 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(
                f"shares: expected positive shares that sum to 1, got {self.shares}"
            )
        if 2 * self.pairs + self.additive > self.markers or self.pairs < 1:
            raise ValueError(
                "markers: expected at least 2 * pairs + additive, and a pair, got "
                f"{self.markers} for {self.pairs} pairs and {self.additive}"
            )
        if self.markers * len(self.shares) > self.num_genes:
            raise ValueError(
                f"num_genes: expected at least {self.markers * len(self.shares)}, the "
                f"markers of all types, got {self.num_genes}"
            )


class Truth(NamedTuple):
    """The planted truth.

    Attributes:
      pairs: genes of each planted pair.
      pair_type: cell type of each pair.
      marker_type: cell type whose marker a gene is; -1 for background.
      additive: genes that act by themselves.
      means: mean count of each gene where it is on.
    """

    pairs: Int[np.ndarray, "pairs 2"]
    pair_type: Int[np.ndarray, " pairs"]
    marker_type: Int[np.ndarray, " genes"]
    additive: Int[np.ndarray, " genes"]
    means: Float[np.ndarray, " genes"]


class SimulatedCells:
    """A source of simulated cells; blocks are drawn again each time and never stored.

    It is a `jeff_graph.cells.expression.Source`; columns "type" and "label".

    Attributes:
      num_cells: number of cells.
      genes: names.
      design: the design.
      truth: the planted truth.
    """

    num_cells: int
    genes: np.ndarray
    design: Design
    truth: Truth

    def __init__(self, num_cells: int, design: Design, seed: int):
        """Draw the genes; the cells are drawn when they are asked for.

        Args:
          num_cells: number of cells.
          design: what is made.
          seed: of everything random.
        """
        self.num_cells, self.design, self.seed = num_cells, design, seed
        self.truth = _plant(design, np.random.default_rng(seed))
        digits = len(str(design.num_genes - 1))
        names = [f"gene{i:0{digits}d}" for i in range(design.num_genes)]
        self.genes = np.array(names)

    @functools.cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        blocks = [self._states(number)[1:3] for number in range(self._num_blocks)]
        types, cases = (np.concatenate(part) for part in zip(*blocks, strict=True))
        return {
            "type": np.array([f"type{i}" for i in range(len(self.design.shares))])[
                types
            ],
            "label": np.where(cases, "case", "control"),
        }

    @property
    def _num_blocks(self) -> int:
        return -(-self.num_cells // _BLOCK)

    def column(self, name: str) -> np.ndarray:
        """One value per cell: its "type" or its "label" ("case" or "control").

        Args:
          name: of the column.

        Returns:
          Strings, one per cell.

        Raises:
          ValueError: if there is no such column.
        """
        if name not in ("type", "label"):
            raise ValueError(f"column: expected 'type' or 'label', got {name!r}")
        return self._columns[name]

    def chunks(self, size: int = 4096) -> Iterator[csr_array]:
        """Counts of consecutive cells.

        Args:
          size: cells per chunk; the last may have fewer. Changes no count.

        Yields:
          Float32 counts, [cells, genes].

        Raises:
          ValueError: if ``size`` is below 1.
        """
        check_size(size)
        waiting: list[csr_array] = []
        held = 0
        for number in range(self._num_blocks):
            waiting.append(self._block(number))
            held += len(waiting[-1].indptr) - 1
            if held >= size or number == self._num_blocks - 1:
                rows = csr_array(vstack(waiting, format="csr"))
                whole = held // size * size
                if number == self._num_blocks - 1:
                    whole = held
                for start in range(0, whole, size):
                    yield rows[start : start + size]
                waiting, held = [rows[whole:]], held - whole

    def take(self, cells: Int[Array | np.ndarray, " rows"]) -> csr_array:
        """Counts of some cells, in the requested order.

        Args:
          cells: indices.

        Returns:
          Float32 counts, [rows, genes].

        Raises:
          IndexError: if there is no such cell.
        """
        cells = check_cells(cells, self.num_cells)
        parts = [csr_array((0, len(self.genes)), dtype=np.float32)]
        # A block is drawn once, however many of its cells are asked for.
        order = np.argsort(cells // _BLOCK, kind="stable")
        for number in np.unique(cells // _BLOCK):
            rows = cells[order][cells[order] // _BLOCK == number]
            parts.append(self._block(int(number))[rows - number * _BLOCK])
        return csr_array(vstack(parts, format="csr"))[np.argsort(order)]

    def _states(self, number: int) -> tuple:
        """Which markers of a block are on; types and cases; and its generator."""
        design, truth = self.design, self.truth
        # Seeded by block: any block can be drawn alone, in any order.
        rng = np.random.default_rng([self.seed, number])
        cells = min(_BLOCK, self.num_cells - number * _BLOCK)
        types = rng.choice(len(design.shares), cells, p=design.shares)
        own = truth.marker_type == types[:, None]
        on = own & (rng.random(own.shape) < design.chance)
        sign = np.where(np.arange(len(truth.additive)) % 2, 1.0, -1.0)
        odds = design.main * (on[:, truth.additive] @ sign)
        first, second = truth.pairs.T
        odds += design.interaction * (on[:, first] & on[:, second]).sum(1)
        # Minus the mean of the pairs' terms, to balance cases and controls roughly.
        odds -= design.interaction * design.pairs * design.chance**2
        cases = rng.random(cells) < 1 / (1 + np.exp(-odds))
        return on, types, cases, own, rng

    def _block(self, number: int) -> csr_array:
        design, truth = self.design, self.truth
        on, types, _, own, rng = self._states(number)
        quiet = design.background / design.on * truth.means
        mean = np.where(on, truth.means, np.where(own, design.off * truth.means, quiet))
        mean *= np.exp(rng.normal(0.0, design.depth, (len(types), 1)))
        # Gamma noise on a Poisson mean makes the counts negative binomial.
        mean *= rng.standard_gamma(design.dispersion, mean.shape) / design.dispersion
        return csr_array(rng.poisson(mean).astype(np.float32))


def simulate_cells(
    num_cells: int = 20_000, *, design: Design | None = None, seed: int = 0
) -> SimulatedCells:
    """Simulated cells with planted pairs; the same seed gives the same cells.

    Counts are negative binomial: Poisson of a mean times a cell's log-normal depth
    times Gamma noise. A planted pair adds its log-odds where both of its genes are on.

    Args:
      num_cells: number of cells.
      design: what is made; the defaults have 90% zeros and two cell types of 1%.
      seed: of everything random.

    Returns:
      `SimulatedCells`.

    Raises:
      ValueError: if ``num_cells`` is below 1.

    >>> cells = simulate_cells(100, seed=1)
    >>> cells.truth.pairs.shape, cells.take(np.array([3, 1])).shape
    ((30, 2), (2, 500))
    """
    if num_cells < 1:
        raise ValueError(f"num_cells: expected at least 1, got {num_cells}")
    return SimulatedCells(num_cells, Design() if design is None else design, seed)


def _plant(design: Design, rng: np.random.Generator) -> Truth:
    kinds = len(design.shares)
    order = rng.permutation(design.num_genes)[: kinds * design.markers]
    markers = order.reshape(kinds, design.markers)
    marker_type = np.full(design.num_genes, -1)
    marker_type[markers] = np.arange(kinds)[:, None]
    paired = 2 * design.pairs
    means = np.exp(rng.normal(0.0, 1.0, design.num_genes)) * design.on
    means[order] = design.on * np.exp(rng.normal(0.0, 0.3, len(order)))
    return Truth(
        markers[:, :paired].reshape(-1, 2),
        np.repeat(np.arange(kinds), design.pairs),
        marker_type,
        markers[:, paired : paired + design.additive].ravel(),
        means,
    )
