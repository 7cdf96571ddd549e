"""Gene pairs by attention: a weighted mean over cells, with intervals and a null.

``Z(i, j)`` is the mean attention from gene i to gene j over the cells that express
both, over layers and heads; symmetrised, and kept for the chosen genes alone. Sums over
cells add, so parts of the cells merge exactly.

Different from the official code: attention comes from each layer's real input; cells
are weighted for the sampler's estimand; a pair that no cell expresses is
NaN, not 0; every pair has an interval (bootstrap over cells) and a p-value against
networks that were trained on permuted labels.

Reference: arXiv 2410.15616, section 3.2.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Shaped

from jeff import sharding
from jeff.checks import check_same_length
from jeff_graph.cells.arrays import as_codes, as_real, is_concrete, means_nan
from jeff_graph.cells.student import student_over_normal
from jeff_graph.cells.tokens import Tokens

__all__ = [
    "AttentionFn",
    "PairSums",
    "merge_sums",
    "pair_interval",
    "pair_scores",
    "pair_sums",
]

# attention_fn(params, tokens) -> [cells, tokens, tokens], rows summing to 1.
AttentionFn: TypeAlias = Callable[[PyTree, Tokens], Array]


class PairSums(NamedTuple):
    """Sums over cells from which every pair's score follows; they add.

    Attributes:
      score: weighted sum of a pair's scores. The first replicate has each cell once,
        the others are resampled.
      weight: sum of the weights of the cells that express both genes, likewise.
      square: sum of the squares of those weights, likewise.
      cells: number of cells that express both.
    """

    score: Float[Array, "replicates genes genes"]
    weight: Float[Array, "replicates genes genes"]
    square: Float[Array, "replicates genes genes"]
    cells: Int[Array, "genes genes"]


def pair_sums(
    pair_fn: AttentionFn,
    params: PyTree,
    tokens: Tokens,
    num_genes: int,
    *,
    weights: Shaped[Any, " cells"] | None = None,
    num_bootstrap: int = 0,
    key: PRNGKeyArray | None = None,
    batch_size: int = 64,
) -> PairSums:
    """Sum a score of pairs over cells.

    Resamples are drawn with Poisson(1) copies of each cell, so a cell's copies do not
    depend on the others and parts merge.

    Args:
      pair_fn: ``pair_fn(params, tokens)`` scores the tokens of each cell by pairs,
        [cells, tokens, tokens]; attention, or `jeff_graph.cells.hessian`. Pass the same
        object again and nothing is compiled again.
      params: its parameters; where they lie on a mesh of `jeff.sharding.make_mesh`, its
        devices share each batch.
      tokens: the cells; those without genes do not count.
      num_genes: number of genes, above every id.
      weights: of the cells, as `jeff_graph.cells.sampling.Sample` has them; even by
        default.
      num_bootstrap: number of resamples.
      key: random key of the resamples.
      batch_size: cells at a time; bounds the memory, not the result.

    Returns:
      `PairSums`, ``1 + num_bootstrap`` replicates.

    Raises:
      ValueError: if a number or a gene is out of range, lengths differ, a weight is
        negative or NaN, all are 0, or resamples are asked for without a key.
    """
    cells = tokens.genes.shape[0]
    if cells < 1 or num_genes < 1 or batch_size < 1 or num_bootstrap < 0:
        raise ValueError(
            "tokens, num_genes, batch_size, num_bootstrap: expected at least one cell, "
            f"gene and cell a batch, and no negative number, got {cells}, {num_genes}, "
            f"{batch_size}, {num_bootstrap}"
        )
    if num_bootstrap and key is None:
        raise ValueError("key: expected a random key with num_bootstrap, got None")
    tokens = Tokens(
        as_codes(tokens.genes, "tokens.genes", num_genes),
        as_real(tokens.values, "tokens.values"),
    )
    weights = jnp.ones(cells) if weights is None else as_real(weights, "weights")
    check_same_length(tokens=jnp.asarray(tokens.genes[:, 0]), weights=weights)
    _check_weights(weights)
    # Of one scale, so that sums neither vanish nor depend on the weights' unit.
    weights = weights * (cells / weights.sum())
    key = jax.random.key(0) if key is None else key
    mesh = sharding.mesh_of(params)
    parts = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
    size = -(-min(batch_size, cells) // parts) * parts
    sizes = (num_genes, num_bootstrap, size)
    return _pair_sums(pair_fn, sizes, mesh, params, tokens, weights, key)


def _check_weights(weights: Array) -> None:
    if not is_concrete(weights):
        return
    fine = jnp.isfinite(weights) & (weights >= 0)
    if not (fine.all() and (weights > 0).any()):
        raise ValueError(
            "weights: expected finite numbers of at least 0, some above, got "
            f"{float(weights.min())} to {float(weights.max())}"
        )


@functools.partial(jax.jit, static_argnames=("pair_fn", "sizes", "mesh"))
def _pair_sums(
    pair_fn: AttentionFn,
    sizes: tuple[int, int, int],
    mesh: Mesh | None,
    params: PyTree,
    tokens: Tokens,
    weights: Array,
    key: PRNGKeyArray,
) -> PairSums:
    num_genes, num_bootstrap, size = sizes
    cells = weights.shape[0]
    # Padding cells have weight 0, and so change no sum.
    padded = -cells % size
    tokens, weights = jax.tree.map(
        lambda leaf: jnp.pad(leaf, [(0, padded)] + [(0, 0)] * (leaf.ndim - 1)).reshape(
            -1, size, *leaf.shape[1:]
        ),
        (tokens, weights),
    )

    def add(sums: PairSums, batch: tuple) -> tuple[PairSums, None]:
        tokens, weights, number = batch
        if mesh is not None:
            tokens = jax.lax.with_sharding_constraint(
                tokens, sharding.batch_sharding(mesh)
            )
        # Poisson copies, not a multinomial: no cell's draw depends on the others, so
        # batches and parts can be drawn apart.
        copies = jax.random.poisson(
            jax.random.fold_in(key, number), 1.0, (num_bootstrap, size)
        )
        copies = jnp.concatenate(
            [jnp.ones((1, size), weights.dtype), copies.astype(weights.dtype)]
        )
        found = pair_fn(params, tokens)
        parts = _batch_sums(found, tokens, copies, weights, num_genes)
        return jax.tree.map(jnp.add, sums, parts), None

    shape = (1 + num_bootstrap, num_genes, num_genes)
    zero = jnp.zeros(shape, weights.dtype)
    start = PairSums(zero, zero, zero, jnp.zeros(shape[1:], int))
    numbers = jnp.arange(weights.shape[0])
    return jax.lax.scan(add, start, (tokens, weights, numbers))[0]


def _batch_sums(
    found: Array, tokens: Tokens, copies: Array, weights: Array, num_genes: int
) -> PairSums:
    mask = tokens.values > 0
    both = mask[:, :, None] & mask[:, None, :]
    cell = jnp.arange(mask.shape[0])
    # Set by max, since padding may point at a gene that the cell has.
    zero = jnp.zeros((len(cell), num_genes), weights.dtype)
    held = zero.at[cell[:, None], tokens.genes].max(mask.astype(zero.dtype))
    found = found.astype(zero.dtype)
    # A copy of a cell counts as another cell: squares are of its weight, not of copies.
    first, second = copies * weights[None], copies * weights[None] ** 2
    # Without resamples scatter straight into the map. With them, one dense map a cell
    # serves all replicates as a matrix product.
    if copies.shape[0] == 1:
        flat = jnp.where(both, found, 0) * first[0][:, None, None]
        place = (tokens.genes[:, :, None], tokens.genes[:, None, :])
        zero = jnp.zeros((1, num_genes, num_genes), flat.dtype)
        score = zero.at[0, *place].add(flat)
    else:
        place = (
            cell[:, None, None],
            tokens.genes[:, :, None],
            tokens.genes[:, None, :],
        )
        dense = jnp.zeros((len(cell), num_genes, num_genes), found.dtype)
        dense = dense.at[place].add(jnp.where(both, found, 0))
        score = jnp.tensordot(first, dense, 1)
    weight, square = (
        jnp.einsum("rc,ci,cj->rij", power, held, held) for power in (first, second)
    )
    counts = jnp.where((weights > 0)[:, None], held, 0).T @ held
    return PairSums(score, weight, square, counts.astype(int))


def merge_sums(*sums: PairSums) -> PairSums:
    """Sums over the cells of several parts; resamples join replicate by replicate.

    `pair_sums` brings each part's weights to a mean of 1, so parts count by their
    number of cells.

    Args:
      *sums: at least one.

    Returns:
      Their sum.

    Raises:
      ValueError: if there is none, or shapes differ.
    """
    shapes = {part.score.shape for part in sums}
    if len(shapes) != 1:
        raise ValueError(
            "sums: expected at least one, with one number of genes and replicates, got "
            f"{sorted(shapes)}"
        )
    return jax.tree.map(lambda *parts: functools.reduce(jnp.add, parts), *sums)


@means_nan
def pair_scores(
    sums: PairSums, *, prior_cells: float | int = 0.0
) -> Float[Array, "genes genes"]:
    """Z, symmetrised: ``(S(i, j) + S(j, i)) / (2 W(i, j))``.

    A mean over a cell or two is extreme by chance, and a ranking by it starts with
    pairs that were hardly seen. Prior cells draw every pair towards the mean m of all,
    against the effective number of its cells, ``n = (sum w)^2 / sum w^2``:
    ``(n Z + c m) / (n + c)``.

    Args:
      sums: result of `pair_sums`.
      prior_cells: c, at least 0; the paper has none.

    Returns:
      A symmetric map; NaN on the diagonal and for pairs that no cell expresses.
    """
    return _maps(sums, prior_cells)[0]


@means_nan
def pair_interval(
    sums: PairSums, *, confidence: float = 0.95, prior_cells: float | int = 0.0
) -> tuple[Float[Array, "genes genes"], Float[Array, "genes genes"]]:
    """Bootstrap interval of each pair's score over cells.

    The percentile interval, whose ends are moved away from the score by
    ``sqrt(n / (n - 1)) t / z``, for quantiles t of Student's distribution of n - 1
    degrees of freedom and z of the normal one, and n the effective number of the pair's
    cells. Without it, an interval at 95% from 2 cells holds the truth half of the time,
    and one from a single cell never.

    Args:
      sums: result of `pair_sums` with resamples.
      confidence: coverage of the interval, in (0, 1).
      prior_cells: as in `pair_scores`.

    Returns:
      ``(low, high)``; NaN for pairs of fewer than 2 effective cells, which have no
      spread. Resamples without a cell that expresses both are left out.

    Raises:
      ValueError: if there are no resamples or ``confidence`` is out of range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number in (0, 1), got {confidence}")
    if sums.score.shape[0] < 2:
        raise ValueError("sums: expected resamples, got none; pass num_bootstrap")
    maps = _maps(sums, prior_cells)
    ends = jnp.array([(1 - confidence) / 2, (1 + confidence) / 2], maps.dtype)
    low, high = jnp.nanquantile(maps[1:], ends, axis=0)
    weight, square = sums.weight[0], sums.square[0]
    number = weight**2 / jnp.where(square > 0, square, 1)
    # Two even weights make 2 but for rounding.
    enough = number > 1.999
    number = jnp.where(enough, number, 2.0)
    wider = jnp.sqrt(number / (number - 1)) * student_over_normal(
        number - 1, (1 - confidence) / 2
    )
    low, high = (
        jnp.where(enough, maps[0] + wider * (end - maps[0]), jnp.nan)
        for end in (low, high)
    )
    return low, high


def _maps(
    sums: PairSums, prior_cells: float | int
) -> Float[Array, "replicates genes genes"]:
    seen = (sums.weight > 0) & ~jnp.eye(sums.weight.shape[-1], dtype=bool)[None]
    # Attention has a direction, a pair has none.
    score = jnp.where(seen, sums.score + sums.score.mT, 0) / 2
    weight = jnp.where(seen, sums.weight, 0)
    total = weight.sum((-2, -1), keepdims=True)
    mean = score.sum((-2, -1), keepdims=True) / jnp.where(total > 0, total, 1)
    # Divisors are replaced where nothing was seen, so that no NaN enters a gradient or
    # a sum; the result is set to NaN at the end.
    own = score / jnp.where(seen, weight, 1)
    number = weight**2 / jnp.where(seen, sums.square, 1)
    ratio = (number * own + prior_cells * mean) / jnp.where(
        seen, number + prior_cells, 1
    )
    return jnp.where(seen, ratio, jnp.nan)
