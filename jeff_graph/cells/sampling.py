"""Drawing cells by their diversity, with weights for a named estimand.

A cell's weight is ``K^-power`` for its density K of `jeff_graph.cells.wds.scores`; the
paper's is power 1. Draws are by Gumbel top-k on the logarithm: without replacement, in
one pass. The paper draws by the weights and then weights by them again, which targets
neither the mean over the cells nor a uniform mean over kinds of cells. Here the
estimand is named, and the sample has the weights for it.

Reference: arXiv 2410.15616, section 4. Inclusion probabilities: Cohen and Kaplan,
"Summarizing Data Using Bottom-k Sketches", PODC 2007; Rosen, "Asymptotic Theory for
Order Sampling", Journal of Statistical Planning and Inference, 1997.
"""

import functools
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jeff.checks import check_choice, check_same_length

__all__ = [
    "Estimand",
    "Sample",
    "Weights",
    "diversity_weights",
    "effective_size",
    "inclusion_probabilities",
    "sample",
]

Estimand: TypeAlias = Literal["population", "diverse", "published"]
_ESTIMANDS = ("population", "diverse", "published")


class Weights(NamedTuple):
    """Weights by which cells are drawn.

    Attributes:
      log_weight: natural logarithm; -inf for a cell that is never drawn.
      power: the exponent of 1 / K that was used: as asked, or less where the floor on
        the effective size asked for it.
      effective: effective size of a sample as a share of its cells, as of
        `effective_size`.
    """

    log_weight: Float[Array, " cells"]
    power: Float[Array, ""]
    effective: Float[Array, ""]


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


def effective_size(
    log_weight: Float[Array, " cells"],
) -> Float[Array, ""]:
    """Effective share of a weighted sample, for means over all cells.

    Drawn with probability p, weighted by 1 / p, k cells are worth ``k (E 1/p)^2 /
    E (1/p)^2 = k / (mean(w) mean(1 / w))`` uniform ones, by Kish's formula, for
    w proportional to p.

    Args:
      log_weight: natural logarithm of the weights; cells at -inf are left out.

    Returns:
      The share, in (0, 1]; NaN where no cell has a weight.

    >>> float(effective_size(jnp.log(jnp.array([1.0, 1.0, 1.0]))))
    1.0
    """
    # In logarithms: weights of a high power span more than float32's range.
    real = log_weight > -jnp.inf
    number = jnp.log(real.sum())
    up = jax.nn.logsumexp(log_weight, where=real) - number
    down = jax.nn.logsumexp(-log_weight, where=real) - number
    return jnp.exp(-(up + down))


@functools.partial(jax.jit, static_argnames="kind")
def diversity_weights(
    density: Float[Array | np.ndarray, " cells"],
    *,
    where: Bool[Array, " cells"] | None = None,
    power: float | Float[Array, ""] = 1.0,
    least_effective: float | Float[Array, ""] = 0.0,
    kind: Literal["inverse", "softmax"] = "inverse",
) -> Weights:
    """Weights ``K^-power``, with the power lowered until enough of a sample counts.

    The effective size falls steadily with the power, so the largest power that keeps
    the floor is found by bisection.

    Args:
      density: K of each cell, positive; NaN for a cell that is not to be drawn.
      where: cells that may be drawn; all with a density by default. Give the cells
        that have genes: cells without any are few and equal, so they look diverse.
      power: exponent; 1 as published, 0 draws uniformly.
      least_effective: floor on `effective_size`, in [0, 1].
      kind: "inverse", or "softmax": the weights ``exp(power / (n K))`` that the paper's
        text names, for comparison; they collapse on the rarest cell; static.

    Returns:
      `Weights`.

    Raises:
      ValueError: if ``kind`` is unknown or the lengths differ.

    >>> weights = diversity_weights(jnp.array([0.5, 0.5, 0.25]))
    >>> jnp.exp(weights.log_weight).round(2).tolist()
    [2.0, 2.0, 4.0]
    """
    check_choice("kind", kind, ("inverse", "softmax"))
    density = jnp.asarray(density)
    check_same_length(density=density, where=where)
    real = density > 0
    if where is not None:
        real &= where
    # Replaced before the logarithm, whose NaN would pass through a later where.
    safe = jnp.where(real, density, 1.0)
    score = -jnp.log(safe) if kind == "inverse" else 1 / (safe * real.sum())

    def at(power: Array) -> Array:
        return jnp.where(real, power * score, -jnp.inf)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (ends[0] + ends[1]) / 2
        enough = effective_size(at(middle)) >= least_effective
        low = jnp.where(enough, middle, ends[0])
        return low, jnp.where(enough, ends[1], middle)

    asked = jnp.asarray(power, jnp.float32)
    low, _ = jax.lax.fori_loop(0, 24, halve, (jnp.zeros(()), asked))
    # As asked where that suffices: bisection only approaches its upper end.
    used = jnp.where(effective_size(at(asked)) >= least_effective, asked, low)
    return Weights(at(used), used, effective_size(at(used)))


def inclusion_probabilities(
    log_weight: Float[Array, " cells"], num_cells: int
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
      ValueError: if ``num_cells`` is not within 1 and the number of cells.

    References:
      Rosen, "Asymptotic Theory for Order Sampling", 1997.
    """
    _check_number(num_cells, len(log_weight))
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
    log_weight: Float[Array, " cells"],
    num_cells: int,
    *,
    key: PRNGKeyArray,
    estimand: Estimand = "population",
    strata: Int[Array, " cells"] | None = None,
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
      ValueError: if more cells are asked than can be drawn, the estimand is unknown, a
        length differs, or both strata and replacement are given.

    References:
      Cohen and Kaplan, "Summarizing Data Using Bottom-k Sketches", PODC 2007.

    >>> drawn = sample(jnp.zeros(10), 4, key=jax.random.key(0))
    >>> drawn.weights.tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    check_choice("estimand", estimand, _ESTIMANDS)
    check_same_length(log_weight=log_weight, strata=strata)
    if strata is not None and replace:
        raise ValueError("strata, replace: expected at most one of them, got both")
    if not isinstance(log_weight, Tracer):
        _check_number(num_cells, int((log_weight > -jnp.inf).sum()), replace)
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
    if strata.min() < 0:
        raise ValueError("strata: expected kinds from 0, got a negative one")
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


def _check_number(num_cells: int, available: int, replace: bool = False) -> None:
    if num_cells < 1 or (num_cells > available and not replace) or not available:
        raise ValueError(
            f"num_cells: expected 1 to {available}, the cells that can be drawn, got "
            f"{num_cells}"
        )
