"""Drawing cells by their diversity, with weights for a named estimand.

Weights are those of `jeff_graph.cells.weights`. Draws are by Gumbel top-k on the
logarithm: without replacement, in one pass. The paper draws by the weights and then
weights by them again, which targets neither the mean over the cells nor a uniform mean
over kinds of cells. Here the estimand is named, and the sample has the weights for it.

Reference: arXiv 2410.15616, section 4. Inclusion probabilities: Cohen and Kaplan,
"Summarizing Data Using Bottom-k Sketches", PODC 2007; Rosen, "Asymptotic Theory for
Order Sampling", Journal of Statistical Planning and Inference, 1997.
"""

from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from jeff.checks import check_choice, check_same_length
from jeff_graph.cells.arrays import as_codes, as_real, is_concrete

__all__ = [
    "Estimand",
    "Sample",
    "inclusion_probabilities",
    "sample",
]

Estimand: TypeAlias = Literal["population", "diverse", "published"]
_ESTIMANDS = ("population", "diverse", "published")


class Sample(NamedTuple):
    """Drawn cells, and weights to average over them.

    Attributes:
      cells: indices, in the order drawn; distinct unless drawn with replacement.
      inclusion: probability of each to be drawn, given the draw's threshold; the
        expected number of draws with replacement.
      weights: for means over the sample, by the estimand; they sum to 1.
      effective: Kish's effective size of the weights, from 1 to the number of draws.
    """

    cells: Int[Array, " draws"]
    inclusion: Float[Array, " draws"]
    weights: Float[Array, " draws"]
    effective: Float[Array, ""]


def inclusion_probabilities(
    log_weight: Shaped[Any, " cells"], num_cells: int
) -> Float[Array, " cells"]:
    """Probability of each cell to be among Gumbel's top k.

    Cell i comes at an exponential time of rate w_i, and the first k are drawn:
    ``pi_i = 1 - exp(-w_i t)`` where t solves ``sum_i pi_i = k``. Exact as the number of
    cells and draws grows; within a percent at a hundred draws.

    Args:
      log_weight: natural logarithm of the weights, -inf for never.
      num_cells: k, at most the number of cells that can be drawn.

    Returns:
      The probabilities; they sum to k.

    Raises:
      ValueError: if ``num_cells`` is not within 1 and the number of cells that can be
        drawn, or a weight is NaN.

    References:
      Rosen, "Asymptotic Theory for Order Sampling", 1997.
    """
    log_weight = _checked(log_weight, num_cells)
    possible = log_weight > -jnp.inf
    shifted = log_weight - jnp.max(log_weight)

    def expected(log_time: Array) -> Array:
        # expm1 keeps the digits of small probabilities, which 1 - exp would cancel.
        return -jnp.expm1(-jnp.exp(shifted + log_time))

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (ends[0] + ends[1]) / 2
        few = expected(middle).sum() < num_cells
        return jnp.where(few, middle, ends[0]), jnp.where(few, ends[1], middle)

    # Bisection in log time: from a time at which nothing came to one where all came.
    least = jnp.min(jnp.where(possible, shifted, 0.0))
    ends = (jnp.full((), -40.0), 10.0 - least)
    return expected(jax.lax.fori_loop(0, 60, halve, ends)[0])


def sample(
    log_weight: Shaped[Any, " cells"],
    num_cells: int,
    *,
    key: PRNGKeyArray,
    estimand: Estimand = "population",
    strata: Shaped[Any, " cells"] | None = None,
    replace: bool = False,
) -> Sample:
    """Draw cells by weight.

    Without replacement: the k largest of ``ln w_i + Gumbel_i``, which is the order of
    exponential times of rates w_i. Given the time t of the first cell that was not
    drawn, a cell was included with probability ``1 - exp(-w_i t)``; means weighted by
    its inverse are unbiased, up to their normalisation.

    Args:
      log_weight: natural logarithm of the weights, -inf for never.
      num_cells: number of draws.
      key: random key.
      estimand: what the weights of the sample average over: "population" all cells
        equally (inverse inclusion), "diverse" all cells by their weight (w over
        inclusion, nearly even), "published" the paper's: w once more.
      strata: kind of each cell, from 0; the draws from a kind are then fixed to the
        sum of its weights, rounded, instead of random.
      replace: draw with replacement.

    Returns:
      `Sample`.

    Raises:
      ValueError: if more cells are asked than can be drawn, a weight is NaN, the
        estimand is unknown, a length differs, a stratum is negative, or both strata
        and replacement are given.

    References:
      Cohen and Kaplan, "Summarizing Data Using Bottom-k Sketches", PODC 2007.

    >>> drawn = sample(jnp.zeros(10), 4, key=jax.random.key(0))
    >>> drawn.weights.tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    check_choice("estimand", estimand, _ESTIMANDS)
    log_weight = _checked(log_weight, num_cells, replace)
    strata = None if strata is None else as_codes(strata, "strata")
    check_same_length(log_weight=log_weight, strata=strata)
    if strata is not None and replace:
        raise ValueError("strata, replace: expected at most one of them, got both")
    if replace:
        cells = jax.random.categorical(key, log_weight, shape=(num_cells,))
        inclusion = num_cells * jax.nn.softmax(log_weight)[cells]
    elif strata is None:
        cells, inclusion = _first_to_come(log_weight, num_cells, key)
    else:
        cells, inclusion = _by_stratum(log_weight, num_cells, key, strata)
    log_w = log_weight[cells]
    # The population mean weighs by 1 / inclusion alone; the others multiply a weight
    # in.
    log_target = {
        "population": jnp.zeros_like(log_w),
        "diverse": log_w,
        "published": log_w + jnp.log(inclusion),
    }[estimand]
    weights = jax.nn.softmax(log_target - jnp.log(inclusion))
    return Sample(cells, inclusion, weights, 1 / (weights**2).sum())


def _first_to_come(
    log_weight: Array, num_cells: int, key: PRNGKeyArray
) -> tuple[Array, Array]:
    """The first cells of a race, and their inclusion given the time of the next."""
    score = log_weight + jax.random.gumbel(key, log_weight.shape)
    # One draw more than asked gives the threshold; -inf stands in where all are drawn,
    # and makes their inclusion 1.
    score, cells = jax.lax.top_k(jnp.append(score, -jnp.inf), num_cells + 1)
    cells = cells[:-1]
    return cells, -jnp.expm1(-jnp.exp(log_weight[cells] - score[-1]))


def _by_stratum(
    log_weight: Array, num_cells: int, key: PRNGKeyArray, strata: Array
) -> tuple[Array, Array]:
    quotas = _quotas(np.asarray(log_weight), num_cells, np.asarray(strata))
    drawn = [
        _first_to_come(
            jnp.where(strata == kind, log_weight, -jnp.inf),
            int(quota),
            jax.random.fold_in(key, kind),
        )
        for kind, quota in enumerate(quotas)
        if quota
    ]
    cells, inclusion = zip(*drawn, strict=True)
    return jnp.concatenate(cells), jnp.concatenate(inclusion)


def _quotas(log_weight: np.ndarray, num_cells: int, strata: np.ndarray) -> np.ndarray:
    """Draws of each stratum: its share of the weights, as far as it has cells.

    Rounded by largest remainders; what a small stratum cannot give goes to the others.
    """
    weight = np.exp(log_weight - log_weight.max(), dtype=np.float64)
    size = np.bincount(strata, weights=weight > 0).astype(int)
    share = np.bincount(strata, weights=weight)
    quota = np.zeros(len(size), int)
    target = num_cells * share / share.sum()
    while (left := num_cells - quota.sum()) > 0:
        room = quota < size
        wanted = left * np.where(room, share, 0.0) / share[room].sum()
        given = np.minimum(np.floor(wanted).astype(int), size - quota)
        # All shares below one draw: the stratum farthest below its target gets it.
        if not given.any():
            given[np.argmax(np.where(room, target - quota, -np.inf))] = 1
        quota += given
    return quota


def _checked(log_weight: Any, num_cells: int, replace: bool = False) -> Array:
    """Weights as an array, from which so many cells can be drawn."""
    log_weight = as_real(log_weight, "log_weight")
    check_same_length(log_weight=log_weight)
    available = len(log_weight)
    if is_concrete(log_weight):
        # Of NaN the race makes the first to come.
        if jnp.isnan(log_weight).any() or (log_weight == jnp.inf).any():
            raise ValueError(
                "log_weight: expected logarithms of weights, -inf for cells that are "
                "never drawn, got NaN or infinity"
            )
        available = int((log_weight > -jnp.inf).sum())
    _check_number(num_cells, available, replace)
    return log_weight


def _check_number(num_cells: int, available: int, replace: bool = False) -> None:
    if num_cells < 1 or (num_cells > available and not replace) or not available:
        raise ValueError(
            f"num_cells: expected 1 to {available}, the cells that can be drawn, got "
            f"{num_cells}"
        )
