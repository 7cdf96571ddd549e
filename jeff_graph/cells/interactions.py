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
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from jeff.checks import check_same_length
from jeff_graph.cells.tokens import Tokens

__all__ = [
    "AttentionFn",
    "Null",
    "PairSums",
    "false_discovery_rate",
    "merge_sums",
    "pair_interval",
    "pair_scores",
    "pair_sums",
    "permutation_null",
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


class Null(NamedTuple):
    """Comparison of each pair with networks that learned from permuted labels.

    Attributes:
      lift: ``(score - mean) / sd`` over the permutations; NaN for unseen pairs.
      p_value: of the lift, one-sided, in (0, 1]; 1 for unseen pairs.
      q_value: smallest false discovery rate at which the pair is reported.
    """

    lift: Float[Array, "genes genes"]
    p_value: Float[Array, "genes genes"]
    q_value: Float[Array, "genes genes"]


def pair_sums(
    pair_fn: AttentionFn,
    params: PyTree,
    tokens: Tokens,
    num_genes: int,
    *,
    weights: Float[Array, " cells"] | None = None,
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
      params: its parameters.
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
      ValueError: if a number is out of range, lengths differ, or resamples are asked
        for without a key.
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
    check_same_length(tokens=jnp.asarray(tokens.genes[:, 0]), weights=weights)
    weights = jnp.ones(cells) if weights is None else jnp.asarray(weights)
    # Of one scale, so that sums neither vanish nor depend on the weights' unit.
    weights = weights * (cells / weights.sum())
    key = jax.random.key(0) if key is None else key
    sizes = (num_genes, num_bootstrap, min(batch_size, cells))
    return _pair_sums(pair_fn, sizes, params, tokens, weights, key)


@functools.partial(jax.jit, static_argnames=("pair_fn", "sizes"))
def _pair_sums(
    pair_fn: AttentionFn,
    sizes: tuple[int, int, int],
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
        # Poisson copies, not a multinomial: no cell's draw depends on the others, so
        # batches and parts can be drawn apart.
        copies = jax.random.poisson(
            jax.random.fold_in(key, number), 1.0, (num_bootstrap, size)
        )
        copies = jnp.concatenate([jnp.ones((1, size)), copies])
        found = pair_fn(params, tokens)
        parts = _batch_sums(found, tokens, copies, weights, num_genes)
        return jax.tree.map(jnp.add, sums, parts), None

    shape = (1 + num_bootstrap, num_genes, num_genes)
    zero = jnp.zeros(shape)
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
    held = jnp.zeros((len(cell), num_genes)).at[cell[:, None], tokens.genes].max(mask)
    # A copy of a cell counts as another cell: squares are of its weight, not of copies.
    first, second = copies * weights, copies * weights**2
    # Without resamples scatter straight into the map. With them, one dense map a cell
    # serves all replicates as a matrix product.
    if copies.shape[0] == 1:
        flat = jnp.where(both, found, 0) * first[0][:, None, None]
        place = (tokens.genes[:, :, None], tokens.genes[:, None, :])
        score = jnp.zeros((1, num_genes, num_genes)).at[0, *place].add(flat)
    else:
        place = (
            cell[:, None, None],
            tokens.genes[:, :, None],
            tokens.genes[:, None, :],
        )
        dense = jnp.zeros((len(cell), num_genes, num_genes))
        dense = dense.at[place].add(jnp.where(both, found, 0))
        score = jnp.tensordot(first, dense, 1)
    weight, square = (
        jnp.einsum("rc,ci,cj->rij", power, held, held) for power in (first, second)
    )
    counts = (held * (weights > 0)[:, None]).T @ held
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


def pair_scores(
    sums: PairSums, *, prior_cells: float = 0.0
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


def pair_interval(
    sums: PairSums, *, confidence: float = 0.95, prior_cells: float = 0.0
) -> tuple[Float[Array, "genes genes"], Float[Array, "genes genes"]]:
    """Percentile bootstrap interval of each pair's score over cells.

    Args:
      sums: result of `pair_sums` with resamples.
      confidence: coverage of the interval, in (0, 1).
      prior_cells: as in `pair_scores`.

    Returns:
      ``(low, high)``; resamples without a cell that expresses both are left out.

    Raises:
      ValueError: if there are no resamples or ``confidence`` is out of range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number in (0, 1), got {confidence}")
    if sums.score.shape[0] < 2:
        raise ValueError("sums: expected resamples, got none; pass num_bootstrap")
    ends = jnp.array([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = jnp.nanquantile(_maps(sums, prior_cells)[1:], ends, axis=0)
    return low, high


def _maps(sums: PairSums, prior_cells: float) -> Float[Array, "replicates genes genes"]:
    seen = (sums.weight > 0) & ~jnp.eye(sums.weight.shape[-1], dtype=bool)
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


def permutation_null(
    scores: Float[Array, "genes genes"],
    permuted: Float[Array, "permutations genes genes"],
) -> Null:
    """Compare a map with maps of networks that were trained on permuted labels.

    A pair's lift is ``(Z - mean) / sd`` over the permutations, with half of the
    variance from the pair and half from the median pair, because a few permutations
    estimate a pair's variance poorly. Each permutation's map gets a lift against the
    others, and the p-value is the share of those, pooled over pairs, that reach the
    lift.

    Args:
      scores: the map of the network that learned from the real labels.
      permuted: maps of networks with the same training on permuted labels, over the
        same cells; at least 3.

    Returns:
      `Null`; the p-value is at least 1 / (1 + permutations * pairs).

    Raises:
      ValueError: if shapes do not fit, or there are fewer than 3 permutations.
    """
    if permuted.shape[1:] != scores.shape or permuted.shape[0] < 3:
        raise ValueError(
            f"permuted: expected shape [3 or more, *{scores.shape}], got "
            f"{permuted.shape}"
        )
    number = permuted.shape[0]
    lift = _lift(scores, permuted)
    others = [
        _lift(permuted[i], jnp.delete(permuted, i, axis=0)) for i in range(number)
    ]
    pair = jnp.triu_indices(scores.shape[0], 1)
    pooled = jnp.stack(others)[:, *pair].ravel()
    # Sorted once, and counted by bisection: all pairs against all permutations would
    # not fit into memory.
    pooled = jnp.sort(jnp.where(jnp.isnan(pooled), jnp.inf, pooled))
    total = jnp.isfinite(pooled).sum()
    reach = total - jnp.searchsorted(pooled, lift, side="left")
    # The real map counts as one of the permutations, so no p-value is 0.
    p_value = jnp.where(jnp.isnan(lift), 1.0, (1 + reach) / (1 + total))
    flat = false_discovery_rate(p_value[pair], where=~jnp.isnan(lift[pair]))
    q_value = jnp.ones_like(lift).at[pair].set(flat)
    return Null(lift, p_value, jnp.minimum(q_value, q_value.T))


def _lift(scores: Array, permuted: Array) -> Array:
    variance = permuted.var(axis=0, ddof=1)
    typical = jnp.nanmedian(variance)
    return (scores - permuted.mean(axis=0)) / jnp.sqrt((variance + typical) / 2)


def false_discovery_rate(
    p_value: Float[Array, " tests"], *, where: Bool[Array, " tests"] | None = None
) -> Float[Array, " tests"]:
    """Benjamini and Hochberg's q-values: ``min over p' >= p of p' n / rank(p')``.

    Args:
      p_value: in [0, 1].
      where: tests to count; all by default. The others get 1.

    Returns:
      Smallest false discovery rate at which each test is reported.

    Raises:
      ValueError: if the lengths differ.

    References:
      Benjamini and Hochberg, "Controlling the False Discovery Rate", Journal of the
      Royal Statistical Society B, 1995.

    >>> false_discovery_rate(jnp.array([0.125, 0.5, 0.25])).tolist()
    [0.375, 0.5, 0.375]
    """
    check_same_length(p_value=p_value, where=where)
    counted = jnp.ones(len(p_value), bool) if where is None else where
    order = jnp.argsort(jnp.where(counted, p_value, 2.0))
    rank = jnp.arange(1, len(p_value) + 1)
    scaled = jnp.where(counted[order], p_value[order] * counted.sum() / rank, 1.0)
    # A q-value must not fall as p rises: the least of all larger p.
    least = jax.lax.cummin(scaled, reverse=True)
    return jnp.ones_like(p_value).at[order].set(jnp.minimum(least, 1.0))
