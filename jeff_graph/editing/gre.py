"""GRE: gradients rewired so that an edit does not raise the training loss.

An edit's gradient often conflicts with that of the training loss. With ``g_tg`` the
gradient of the loss on the targets and ``g_k`` the *anchor gradients* of the training
loss on K subsets of the training examples, GRE (K = 1) and GRE+ (K > 1) take::

  argmin_g |g - g_tg|^2 / 2 + gamma |g|^2 / 2  subject to  <g, g_k> >= 0 for all k,

which is ``(g_tg + sum_k v_k g_k) / (1 + gamma)`` with ``v`` the solution of a quadratic
programme of K unknowns, ``argmin_{v >= 0} v' (G G') v / 2 + (G g_tg)' v``. A step
against g then raises no subset's loss, to first order. Only inner products of parameter
size are needed, and they are summed in float32 or wider, whatever the parameters are.

Any model will do, and any pytree of parameters. `rewire` goes before an optimiser,
`rewire_update` after it, `rewired_adam` replaces it. Inside `optax.masked` or
`optax.multi_transform` they see a part of the parameters, and take that part of the
anchors: the constraint then holds for what that part does to the loss.

Deliberately different from the official code: its projection has the opposite sign and
is never called in the published version. This module implements what the paper derives.

References:
  Jiang et al., "Gradient Rewiring for Editable Graph Neural Network Training",
  NeurIPS 2024.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from jeff.promotion import promoting
from jeff_graph.editing.products import (
    check_fit,
    combine,
    gram_matrix,
    inner_products,
    leading_axis,
)
from jeff_graph.editing.qp import nonnegative_qp

__all__ = [
    "RewireState",
    "RewiredAdamState",
    "anchor_gradients",
    "gram_matrix",
    "inner_products",
    "rewire",
    "rewire_gradient",
    "rewire_update",
    "rewired_adam",
]


class RewireState(NamedTuple):
    """State of `rewire` and `rewire_update`.

    Attributes:
      gram: inner products of the anchors, [K, K].
      multipliers: ``v`` of the last step, [K]; above 0 where an anchor was in conflict.
    """

    gram: Float[Array, "K K"]
    multipliers: Float[Array, " K"]


class RewiredAdamState(NamedTuple):
    """State of `rewired_adam`.

    Attributes:
      adam: moments of `optax.scale_by_adam`.
      multipliers: ``v`` of the last step, [K].
    """

    adam: optax.ScaleByAdamState
    multipliers: Float[Array, " K"]


def anchor_gradients(
    loss_fn: Callable[[PyTree, PyTree], Float[Array, ""]],
    params: PyTree,
    subsets: PyTree,
    *,
    vectorized: bool = False,
) -> PyTree:
    """Gradient of the training loss on each of K subsets.

    Args:
      loss_fn: ``(params, subset) -> loss``, a scalar.
      params: parameters before the edit.
      subsets: the subsets, leading axis K on every leaf: masks, index arrays or the
        examples themselves.
      vectorized: all subsets at once, with K times the memory; else one by one.

    Returns:
      A pytree like ``params``, with a leading axis K on every leaf, also for K = 1.

    Raises:
      ValueError: if the leaves of ``subsets`` have no common leading axis.

    >>> loss = lambda w, rows: jnp.mean(rows @ w)
    >>> anchor_gradients(loss, jnp.zeros(2), jnp.eye(2)[:, None])
    Array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    leading_axis("subsets", subsets)
    gradient = functools.partial(jax.grad(loss_fn), params)
    # One by one by default: activations of K subsets at once are what memory limits.
    if vectorized:
        return jax.vmap(gradient)(subsets)
    return jax.lax.map(gradient, subsets)


def rewire_gradient(
    gradient: PyTree, anchors: PyTree, gamma: Float[Array, ""] | float = 1.0
) -> tuple[PyTree, Float[Array, " K"]]:
    """The rewired gradient, ``(g_tg + sum_k v_k g_k) / (1 + gamma)``.

    For K = 1, ``v = max(0, -<g_1, g_tg> / |g_1|^2)``. Where nothing is in conflict, v
    is 0 and the gradient is only scaled. An anchor of zeros constrains nothing.

    Args:
      gradient: ``g_tg``, the gradient of the loss on the targets.
      anchors: ``g_k``, the same pytree with a leading axis K on every leaf. Norms
        should lie between 1e-18 and 1e18, so that float32 holds their squares.
      gamma: weight of the squared norm, at least 0.

    Returns:
      ``(g, v)``: a pytree like ``gradient`` with ``<g, g_k> >= 0`` up to rounding, and
      the multipliers.

    Raises:
      ValueError: if the pytrees do not fit together, or ``gamma`` is negative.

    References:
      Jiang et al., "Gradient Rewiring", 2024: the dual problem of GRE+.

    >>> rewire_gradient(jnp.array([-1.0, 2.0]), jnp.array([[1.0, 0.0]]), gamma=0.0)
    (Array([0., 2.], dtype=float32), Array([1.], dtype=float32))
    """
    _check_gamma(gamma)
    products = inner_products(anchors, gradient)
    multipliers = nonnegative_qp(gram_matrix(anchors), products)
    return combine(gradient, anchors, multipliers, gamma), multipliers


def rewire(
    anchors: PyTree, gamma: Float[Array, ""] | float = 1.0
) -> optax.GradientTransformation:
    """Rewire each gradient before it reaches the optimiser: GRE, and GRE+ for K > 1.

    ``optax.chain(rewire(anchors), optax.sgd(0.1))``. With a plain gradient step the
    constraint holds for the update itself. Adam undoes much of it: it divides each
    coordinate by a separate scale and adds momentum, after which ``<update, g_k>`` may
    have either sign (see `rewire_update`). Adam is also invariant to the factor
    ``1 / (1 + gamma)``, so under Adam gamma changes only rounding and the weight of
    Adam's epsilon.

    Args:
      anchors: the parameters' pytree with a leading axis K on every leaf, from
        `anchor_gradients`.
      gamma: as in `rewire_gradient`.

    Returns:
      A transformation of gradients, with a `RewireState`.

    Raises:
      ValueError: if the leaves have no common leading axis, ``gamma`` is negative, or
        the gradients do not fit the anchors.
    """
    _check_gamma(gamma)

    def update(
        updates: PyTree, state: Any, params: PyTree | None = None
    ) -> tuple[PyTree, RewireState]:
        del params
        seen = _seen(anchors, updates)
        # Anchors are fixed, so their products are taken once, in `init`.
        multipliers = nonnegative_qp(state.gram, inner_products(seen, updates))
        rewired = combine(updates, seen, multipliers, gamma)
        return rewired, state._replace(multipliers=multipliers)

    return optax.GradientTransformation(_starts(anchors), update)


def rewire_update(anchors: PyTree) -> optax.GradientTransformation:
    """Project the final update onto those that raise no subset's loss.

    The nearest w to the update u with ``<w, g_k> <= 0`` for all k: updates are added to
    parameters, so the training loss of subset k changes by ``<w, g_k>`` to first order.
    ``w = u - sum_k v_k g_k``, with v as in `rewire_gradient` for ``-u``. Last in a
    chain: ``optax.chain(optax.adam(0.01), rewire_update(anchors))``.

    Args:
      anchors: as in `rewire`.

    Returns:
      A transformation of updates, with a `RewireState`.

    Raises:
      ValueError: if the leaves have no common leading axis, or the updates do not fit.
    """

    def update(
        updates: PyTree, state: Any, params: PyTree | None = None
    ) -> tuple[PyTree, RewireState]:
        del params
        seen = _seen(anchors, updates)
        # An update is added where a gradient is subtracted, hence both minus signs.
        multipliers = nonnegative_qp(state.gram, -inner_products(seen, updates))
        projected = combine(updates, seen, -multipliers)
        return projected, state._replace(multipliers=multipliers)

    return optax.GradientTransformation(_starts(anchors), update)


def rewired_adam(
    learning_rate: Float[Array, ""] | float | optax.Schedule,
    anchors: PyTree,
    *,
    b1: Float[Array, ""] | float = 0.9,
    b2: Float[Array, ""] | float = 0.999,
    eps: Float[Array, ""] | float = 1e-8,
) -> optax.GradientTransformation:
    """Adam whose update raises no subset's loss, projected in Adam's own metric.

    With ``P = diag(sqrt(nu) + eps)`` Adam's step d minimises a quadratic model whose
    curvature is P; the step nearest to d in that metric with ``<w, g_k> >= 0`` is
    ``d + sum_k v_k P^-1 g_k``, where v solves the programme with ``<g_k, P^-1 g_l>``
    in place of ``<g_k, g_l>``. The correction goes where Adam finds steps cheap.

    Args:
      learning_rate: step size, or a schedule of it: a function of the number of steps
        taken.
      anchors: as in `rewire`.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.

    Returns:
      An optimiser, with a `RewiredAdamState`.

    Raises:
      ValueError: if the leaves have no common leading axis, or the gradients do not
        fit.
    """
    adam = promoting(optax.scale_by_adam(b1, b2, eps))
    leading_axis("anchors", anchors)
    schedule = learning_rate if callable(learning_rate) else lambda _: learning_rate

    def init(params: PyTree) -> RewiredAdamState:
        moments: Any = adam.init(params)
        return RewiredAdamState(moments, _start(anchors, params).multipliers)

    def update(
        updates: PyTree, state: Any, params: PyTree | None = None
    ) -> tuple[PyTree, RewiredAdamState]:
        del params
        seen = _seen(anchors, updates)
        moments: Any
        step, moments = adam.update(updates, state.adam)
        # The bias correction that Adam applies to nu before it divides.
        correction = 1 - b2**moments.count
        cheap = jax.tree.map(
            lambda g, nu: g / (jnp.sqrt(nu / correction.astype(nu.dtype)) + eps)[None],
            seen,
            moments.nu,
        )
        # The metric changes with nu, so unlike in `rewire` no product can be kept.
        gram = gram_matrix(seen, cheap)
        multipliers = nonnegative_qp(gram, inner_products(seen, step))
        step = combine(step, cheap, multipliers)
        # Schedules count from 0: the count before this step.
        rate: Any = schedule(state.adam.count)
        scaled = jax.tree.map(lambda x: jnp.asarray(-rate, x.dtype) * x, step)
        return scaled, RewiredAdamState(moments, multipliers)

    return optax.GradientTransformation(init, update)


def _starts(anchors: PyTree) -> Any:
    leading_axis("anchors", anchors)
    return functools.partial(_start, anchors)


def _start(anchors: PyTree, params: PyTree) -> RewireState:
    seen = _seen(anchors, params)
    check_fit(seen, params)
    gram = gram_matrix(seen)
    # As wide as the sums, or the state of a scan would change its dtype.
    return RewireState(gram, jnp.zeros(len(gram), gram.dtype))


def _seen(anchors: PyTree, tree: PyTree) -> PyTree:
    """The anchors of the leaves that ``tree`` holds, where optax has masked some."""

    def masked(node: Any) -> bool:
        return node is None or isinstance(node, optax.MaskedNode)

    found = jax.tree.leaves(tree, is_leaf=masked)
    if not any(map(masked, found)):
        return anchors
    if all(map(masked, found)):
        raise ValueError(
            "anchors: expected leaves to rewire, got a tree of masked ones"
        )

    def part(node: Any, rows: PyTree) -> PyTree:
        return node if masked(node) else rows

    return jax.tree.map(part, tree, anchors, is_leaf=masked)


def _check_gamma(gamma: Float[Array, ""] | float) -> None:
    # An array may be traced; `not gamma >= 0` also catches NaN.
    if not isinstance(gamma, jax.Array) and not gamma >= 0:
        raise ValueError(f"gamma: expected a weight of at least 0, got {gamma}")
