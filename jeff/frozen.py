"""Parameters that no optimiser touches: running statistics, counters, random keys.

Libraries differ in where they keep such state. Linen has a collection ``batch_stats``
beside ``params``, NNX has variables called ``mean`` and ``var``, a pytree of your own
has any name. So what is frozen is named by the path of a leaf, which every pytree has.
Leaves that are no floating-point numbers are always left alone: they have no gradient.
"""

import inspect
from collections.abc import Callable, Collection
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from jeff import named_leaves

__all__ = ["Frozen", "freeze", "is_frozen", "join", "split"]

Frozen: TypeAlias = str | Collection[str] | Callable[[str], bool]

# Averages over batches: a collection of Linen, and a kind of variable of NNX.
_LINEN, _NNX = "batch_stats", "BatchStat"


class _Freezing(optax.GradientTransformationExtraArgs):
    """An optimiser made by `freeze`, which knows what to do with every leaf."""


def is_frozen(params: PyTree, frozen: Frozen | None) -> PyTree:
    """Which leaves are left as they are.

    Args:
      params: parameters.
      frozen: what is not trained, by path. A path is written as
        ``params/layers/0/kernel``. Either names: each freezes the leaves whose path
        contains it in whole parts, so ``"batch_stats"`` freezes
        ``start/batch_stats/norm/mean`` and ``"norm/mean"`` does too. Or a function from
        a path to True or False. None and ``()`` freeze nothing, but with None running
        statistics (``batch_stats`` of Linen, `BatchStat` of NNX) are refused.

    Returns:
      A pytree of bools. Leaves that are not floating point are always frozen.

    Raises:
      TypeError: if a leaf is not an array.
      ValueError: if a name is in no path, or running statistics would be trained.

    >>> is_frozen({"w": jnp.ones(2), "norm": {"mean": jnp.ones(2)}}, "norm/mean")
    {'norm': {'mean': True}, 'w': False}
    """
    paths, leaves, treedef = named_leaves.flatten(params)
    for path, leaf in zip(paths, leaves, strict=True):
        if not (hasattr(leaf, "dtype") or isinstance(leaf, int | float | complex)):
            raise TypeError(
                f"params: {path}: expected an array, got {type(leaf).__name__}; keep "
                "functions and texts out of the parameters, as eqx.partition and "
                "nnx.split do (docs/own_models.md)"
            )
    if frozen is None:
        _check_no_statistics(params)
    chosen = _chooser(paths, frozen)
    kept = [
        chosen(path) or not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
        for path, leaf in zip(paths, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, kept)


def split(params: PyTree, frozen: Frozen | None) -> tuple[PyTree, PyTree]:
    """Split parameters into those to train and the others.

    ``jax.grad`` with respect to the first part works for every pytree of arrays.

    Args:
      params: parameters.
      frozen: as in `is_frozen`.

    Returns:
      ``(trained, rest)``, each like ``params`` with None in place of the leaves of the
      other.

    Raises:
      TypeError: as in `is_frozen`.
      ValueError: as in `is_frozen`.

    >>> split({"w": 1.0, "count": 3}, None)
    ({'count': None, 'w': 1.0}, {'count': 3, 'w': None})
    """
    mask = is_frozen(params, frozen)
    trained = jax.tree.map(lambda kept, leaf: None if kept else leaf, mask, params)
    rest = jax.tree.map(lambda kept, leaf: leaf if kept else None, mask, params)
    return trained, rest


def join(trained: PyTree, rest: PyTree) -> PyTree:
    """Put together what `split` took apart.

    Args:
      trained: the first part.
      rest: the second part.

    Returns:
      The parameters.

    >>> join(*split({"w": 1.0, "count": 3}, None))
    {'count': 3, 'w': 1.0}
    """
    return jax.tree.map(
        lambda a, b: b if a is None else a, trained, rest, is_leaf=lambda x: x is None
    )


def freeze(
    optimizer: optax.GradientTransformation, frozen: Frozen | None
) -> optax.GradientTransformationExtraArgs:
    """An optimiser that leaves some parameters as they are.

    Frozen leaves get a gradient of zero, so that they count in no norm, and an update
    of zero, so that no weight decay reaches them. The state is that of ``optimizer``
    for all floating-point leaves, whatever is frozen: `jeff.training.init_state` makes
    the same one with either.

    Args:
      optimizer: any optax transformation.
      frozen: as in `is_frozen`.

    Returns:
      The transformation, for `jeff.training.make_step`, every function that takes an
      ``optimizer``, or your own loop.

    Raises:
      TypeError: at the first use, as in `is_frozen`.
      ValueError: at the first use, as in `is_frozen`.

    >>> optimizer = freeze(optax.sgd(1.0), "norm")
    >>> params = {"w": jnp.ones(()), "norm": jnp.ones(())}
    >>> optimizer.update(params, optimizer.init(params), params)[0]["w"]
    Array(-1., dtype=float32)
    """
    if isinstance(optimizer, _Freezing) and frozen is None:
        return optimizer
    inner = optax.with_extra_args_support(optimizer)
    # Some transformations take extra arguments by name only.
    taken = inspect.signature(inner.update).parameters
    takes_any = any(x.kind is x.VAR_KEYWORD for x in taken.values())

    def init(params: PyTree) -> Any:
        is_frozen(params, frozen)
        return inner.init(split(params, ())[0])

    def update(
        updates: PyTree, state: Any, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, Any]:
        whole = updates if params is None else params
        mask = is_frozen(whole, frozen)
        floats, others = split(whole, ())

        def seen(tree: PyTree) -> PyTree:
            # Leaves without a gradient are None: to optax they do not exist.
            return jax.tree.map(
                lambda x, kept, leaf: (
                    None if x is None else (jnp.zeros_like(leaf) if kept else leaf)
                ),
                floats,
                mask,
                tree,
                is_leaf=lambda x: x is None,
            )

        extra = {name: x for name, x in extra.items() if takes_any or name in taken}
        if "grad" in extra:
            extra["grad"] = seen(extra["grad"])
        if "grad_fn" in extra:
            grad_fn = extra["grad_fn"]
            extra["grad_fn"] = lambda *args: seen(grad_fn(*args))
        inside = None if params is None else floats
        moved, state = inner.update(seen(updates), state, inside, **extra)
        return join(seen(moved), jax.tree.map(_still, others)), state

    return _Freezing(init, update)


def _still(leaf: Any) -> Any:
    # A typed key cannot be added to; optax leaves what has no update.
    return None if named_leaves.is_key(leaf) else jnp.zeros_like(leaf)


def _chooser(paths: list[str], frozen: Frozen | None) -> Callable[[str], bool]:
    if callable(frozen):
        return frozen
    names = (frozen,) if isinstance(frozen, str) else tuple(frozen or ())

    def has(path: str, name: str) -> bool:
        return f"/{name.strip('/')}/" in f"/{path}/"

    for name in names:
        if not any(has(path, name) for path in paths):
            raise ValueError(
                f"frozen: expected part of a path, got {name!r}; the paths are "
                f"{paths[:8]}"
            )
    return lambda path: any(has(path, name) for name in names)


def _check_no_statistics(params: PyTree) -> None:
    found = jax.tree_util.tree_leaves_with_path(
        params, is_leaf=lambda node: type(node).__name__ == _NNX
    )
    for place, node in found:
        path = jax.tree_util.keystr(place, simple=True, separator="/")
        # By its name: jeff imports flax only where it defines a network.
        if _LINEN in path.split("/") or type(node).__name__ == _NNX:
            raise ValueError(
                f"params: {path}: expected parameters to train, got running "
                "statistics; name them, as in frozen='batch_stats', or give the "
                "optimiser jeff.frozen.freeze(optimizer, 'batch_stats'); with () in "
                "place of the name they are trained all the same"
            )
