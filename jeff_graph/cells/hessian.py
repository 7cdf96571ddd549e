"""Gene pairs by second derivatives of a network: integrated Hessians.

A check on attention from the same network: integrated Hessians measure how much of the
logit of a cell's class comes from a pair together. For n tokens they cost n gradients
per cell and point, which a diverse sample of the cells makes affordable.

Reference: Janizek, Sturmfels and Lee, "Explaining Explanations: Axiomatic Feature
Interactions for Deep Networks", Journal of Machine Learning Research, 2021.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jeff_graph.cells.tokens import Tokens

__all__ = ["make_hessian"]


@functools.lru_cache(maxsize=16)
def make_hessian(
    apply_fn: Callable[..., Any], num_points: int = 3
) -> Callable[[PyTree, Tokens], Array]:
    """A score of pairs for `jeff_graph.cells.interactions.pair_sums`.

    ``|x_i x_j int_0^1 -t ln(t) d^2 f / dx_i dx_j (t x) dt|``, where f is the logit of
    the class that the network gives the cell, against the mean of the others. The
    double integral of the paper, over its two factors of t, is this single one; it is
    taken by Gauss and Legendre's rule.

    Args:
      apply_fn: ``apply_fn(params, tokens) -> logits [cells, classes]``, twice
        differentiable in the tokens' values.
      num_points: points of the rule, at least 1.

    Returns:
      ``pair_fn(params, tokens) -> [cells, tokens, tokens]``, symmetric, at least 0;
      0 at padding and on the diagonal. One object for the same arguments.

    Raises:
      ValueError: if ``num_points`` is below 1.
    """
    if num_points < 1:
        raise ValueError(f"num_points: expected at least 1, got {num_points}")
    nodes, weights = np.polynomial.legendre.leggauss(num_points)
    points = (nodes + 1) / 2  # from [-1, 1] to [0, 1]; weights halve likewise
    factors = jnp.asarray(-points * np.log(points) * weights / 2, jnp.float32)

    def margin(values: Array, params: PyTree, genes: Array, label: Array) -> Array:
        logits = apply_fn(params, Tokens(genes[None], values[None]))[0]
        rest = (logits.sum() - logits[label]) / max(len(logits) - 1, 1)
        return logits[label] - rest

    def cell(params: PyTree, genes: Array, values: Array) -> Array:
        label = apply_fn(params, Tokens(genes[None], values[None]))[0].argmax()

        def add(total: Array, point: tuple[Array, Array]) -> tuple[Array, None]:
            scale, factor = point
            second = jax.hessian(margin)(scale * values, params, genes, label)
            return total + factor * second, None

        tokens = len(values)
        # A scan over points, so that one Hessian is in memory at a time.
        total, _ = jax.lax.scan(
            add,
            jnp.zeros((tokens, tokens), values.dtype),
            (jnp.asarray(points, values.dtype), factors.astype(values.dtype)),
        )
        # Zero at padding by its value, and on the diagonal by choice: a pair has two
        # genes.
        pair = (
            values[:, None]
            * values[None, :]
            * (1 - jnp.eye(tokens, dtype=values.dtype))
        )
        return jnp.abs(pair * (total + total.T) / 2)

    def pair_fn(params: PyTree, tokens: Tokens) -> Array:
        return jax.vmap(cell, (None, 0, 0))(params, *map(jnp.asarray, tokens))

    return pair_fn
