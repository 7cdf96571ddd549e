"""Gene pairs from single cells: a Transformer, and the few cells that suffice.

A source of cells (`open_cells`, `make_expression`, `simulate_cells`) is seen through a
`Recipe`, sketched in one pass and scored in another (`sketch_cells`, `score_cells`),
and sampled (`diversity_weights`, `sample`). A network's attention over the sample, or
its second derivatives, become a map of pairs (`pair_sums`, `pair_scores`) with
intervals, a null, and a test of the product term.

`celluformer` (flax) and `training` are imported by name. `baselines`, `nid` and
`rivals` are the methods to compare with, `enrichment` and `evaluation` compare them.
"""

from jeff_graph.cells import baselines, enrichment, evaluation, nid, rivals
from jeff_graph.cells.columns import label_codes, missing, plain_column
from jeff_graph.cells.confirm import PairTest, product_test
from jeff_graph.cells.expression import (
    Expression,
    Source,
    collect,
    make_expression,
)
from jeff_graph.cells.h5ad import CellFile, load_pbmc, open_cells
from jeff_graph.cells.hessian import make_hessian
from jeff_graph.cells.interactions import (
    PairSums,
    merge_sums,
    pair_interval,
    pair_scores,
    pair_sums,
)
from jeff_graph.cells.moments import choose_genes, gene_moments, merge_moments
from jeff_graph.cells.null import Null, false_discovery_rate, permutation_null
from jeff_graph.cells.preprocess import (
    Recipe,
    apply_recipe,
    make_recipe,
    prepare,
)
from jeff_graph.cells.rows import Rows, make_rows
from jeff_graph.cells.sampling import Sample, inclusion_probabilities, sample
from jeff_graph.cells.simulate import Design, SimulatedCells, simulate_cells
from jeff_graph.cells.stream import (
    merge_processes,
    score_cells,
    sketch_cells,
    sketch_on_mesh,
)
from jeff_graph.cells.tokens import Tokens, make_tokens
from jeff_graph.cells.wds import (
    HashParameters,
    Sketch,
    empty_sketch,
    hash_parameters,
    hashes,
    merge,
    min_max_similarity,
    scores,
    update,
)
from jeff_graph.cells.weights import Weights, diversity_weights, effective_size

__all__ = [
    "CellFile",
    "Design",
    "Expression",
    "HashParameters",
    "Null",
    "PairSums",
    "PairTest",
    "Recipe",
    "Rows",
    "Sample",
    "SimulatedCells",
    "Sketch",
    "Source",
    "Tokens",
    "Weights",
    "apply_recipe",
    "baselines",
    "choose_genes",
    "collect",
    "diversity_weights",
    "effective_size",
    "empty_sketch",
    "enrichment",
    "evaluation",
    "false_discovery_rate",
    "gene_moments",
    "hash_parameters",
    "hashes",
    "inclusion_probabilities",
    "label_codes",
    "load_pbmc",
    "make_expression",
    "make_hessian",
    "make_recipe",
    "make_rows",
    "make_tokens",
    "merge",
    "merge_moments",
    "merge_processes",
    "merge_sums",
    "min_max_similarity",
    "missing",
    "nid",
    "open_cells",
    "pair_interval",
    "pair_scores",
    "pair_sums",
    "permutation_null",
    "plain_column",
    "prepare",
    "product_test",
    "rivals",
    "sample",
    "score_cells",
    "scores",
    "simulate_cells",
    "sketch_cells",
    "sketch_on_mesh",
    "update",
]
