"""Inner products of parameter pytrees with stacked ones.

Sums run leaf by leaf, in float32 or wider; nothing is concatenated.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

__all__ = [
    "check_fit",
    "combine",
    "gram_matrix",
    "inner_products",
    "leading_axis",
]


def inner_products(anchors: PyTree, tree: PyTree) -> Float[Array, " K"]:
    """``<g_k, tree>`` for each anchor, over all leaves.

    Args:
      anchors: pytree with a leading axis K on every leaf.
      tree: pytree of the same structure, without that axis.

    Returns:
      K inner products, in float32 or wider.

    Raises:
      ValueError: if the pytrees do not fit together.
    """
    check_fit(anchors, tree)
    return _contract(anchors, tree, 0)


def gram_matrix(anchors: PyTree, others: PyTree | None = None) -> Float[Array, "K L"]:
    """``<g_k, h_l>`` for all pairs of anchors.

    Args:
      anchors: pytree with a leading axis K on every leaf.
      others: ``h``, a pytree likewise; the anchors themselves by default.

    Returns:
      The matrix, in float32 or wider.

    Raises:
      ValueError: if the leaves have no common leading axis.
    """
    leading_axis("anchors", anchors)
    return _contract(anchors, anchors if others is None else others, 1)


def _wide_dtype(*leaves: Array) -> Any:
    """The dtype in which products are summed: float32, or the widest of the leaves.

    Args:
      *leaves: arrays.

    Returns:
      A dtype.
    """
    return functools.reduce(
        jnp.promote_types, [leaf.dtype for leaf in leaves], jnp.float32
    )


def _contract(left: PyTree, right: PyTree, batched: int) -> Array:
    """Inner products over all but the leading axes, leaf by leaf.

    Axes are contracted in place: a sharded leaf is neither reshaped nor gathered.
    """
    total = jnp.zeros(())
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        wide = _wide_dtype(a, b)
        axes = tuple(range(1, a.ndim)), tuple(range(batched, b.ndim))
        # The sign of a product decides whether a step conflicts, so a GPU or TPU must
        # not round the factors: hence the precision, and sums in float32 at least.
        total += jax.lax.dot_general(
            a.astype(wide), b.astype(wide), (axes, ((), ())), precision="highest"
        )
    return total


def combine(
    tree: PyTree,
    anchors: PyTree,
    weights: Float[Array, " K"],
    gamma: Float[Array, ""] | float = 0.0,
) -> PyTree:
    """``(tree + sum_k weights_k g_k) / (1 + gamma)``.

    Args:
      tree: pytree.
      anchors: the same with a leading axis K on every leaf.
      weights: of the anchors, [K].
      gamma: divides the sum.

    Returns:
      A pytree with the dtypes of ``tree``.
    """

    def leaf(x: Array, g: Array) -> Array:
        wide = _wide_dtype(x, g)
        # In wide arithmetic and cast once: the correction may be far smaller than x.
        moved = jnp.tensordot(
            weights.astype(wide), g.astype(wide), 1, precision="highest"
        )
        return ((x.astype(wide) + moved) / (1 + jnp.asarray(gamma, wide))).astype(
            x.dtype
        )

    return jax.tree.map(leaf, tree, anchors)


def leading_axis(name: str, tree: PyTree) -> int:
    """The common length K of the first axes of all leaves.

    Args:
      name: the argument's name.
      tree: the pytree to check.

    Returns:
      K.

    Raises:
      ValueError: if a leaf has no axis, or lengths differ or are 0.
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    counts = {shape[0] if shape else 0 for shape in shapes}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(
            f"{name}: expected one leading axis K of at least 1 on every leaf, got "
            f"shapes {shapes}; a single one needs it too: leaf[None]"
        )
    return counts.pop()


def check_fit(anchors: PyTree, tree: PyTree) -> None:
    """Check that anchors are a pytree's, with one leading axis more.

    Args:
      anchors: the anchors to check.
      tree: parameters, gradients or updates.

    Raises:
      ValueError: if structures or shapes differ.
    """
    leading_axis("anchors", anchors)
    if jax.tree.structure(anchors) != jax.tree.structure(tree):
        raise ValueError(
            f"anchors: expected the structure {jax.tree.structure(tree)}, got "
            f"{jax.tree.structure(anchors)}"
        )
    for a, b in zip(jax.tree.leaves(anchors), jax.tree.leaves(tree), strict=True):
        if jnp.shape(a)[1:] != jnp.shape(b):
            raise ValueError(
                f"anchors: expected a leaf of shape [K, *{jnp.shape(b)}], got "
                f"{jnp.shape(a)}"
            )
