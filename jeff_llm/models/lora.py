"""LoRA: small trainable factors beside frozen kernels, for any pytree of parameters.

``W + (alpha / rank) A B`` with A [in, rank] random and B [rank, out] zero. Leaves are
chosen by patterns of their path; kernels stacked over layers get stacked factors. Rows
of an embedding can be trained by themselves, for new special tokens.

`apply` puts the factors beside the kernels: ``x @ kernel`` then costs two more thin
products, and the gradient never forms a matrix of the kernel's size. It suits models
that multiply with ``x @ kernel``, as jeff's decoder does. `merge` gives plain arrays,
for every model. Only the `Lora` is trained and checkpointed; the base may be bfloat16,
or `jeff_llm.models.quantized`.

References:
  Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

__all__ = [
    "ATTENTION",
    "LINEAR",
    "Lora",
    "LowRank",
    "TrainedRows",
    "apply",
    "choose",
    "init",
    "merge",
    "paths",
]

ATTENTION = (r"attention/(query|key|value|output)/kernel$",)
LINEAR = (r"(query|key|value|output|gate|up|down)/kernel$",)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Lora:
    """The trained parameters.

    Attributes:
      factors: path of a kernel to ``{"a": [..., in, rank], "b": [..., rank, out]}``.
      rows: the trained rows of the embedding, [len(ids), width]; None without any.
      ids: their tokens.
      scale: ``alpha / rank``.
      whole: path of a leaf to the array that takes its place, before factors and rows
        are added.
    """

    factors: dict[str, dict[str, Any]]
    rows: Any
    ids: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    scale: float = dataclasses.field(metadata={"static": True})
    whole: dict[str, Any] = dataclasses.field(default_factory=dict)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LowRank:
    """A kernel with factors beside it: ``kernel + scale a b``, never formed.

    Attributes:
      kernel: frozen [in, out], or any object with ``x @ kernel``; with leading axes
        where layers are stacked.
      a: [in, rank].
      b: [rank, out].
      scale: factor on their product.
    """

    kernel: Any
    a: Float[Array, "... fan_in rank"]
    b: Float[Array, "... rank fan_out"]
    scale: float = dataclasses.field(metadata={"static": True})

    @property
    def dtype(self) -> Any:
        """Of the kernel."""
        return self.kernel.dtype

    def __rmatmul__(self, x: Array) -> Array:
        a, b = self.a.astype(x.dtype), self.b.astype(x.dtype)
        # From left to right: a @ b would be a matrix of the kernel's size.
        return x @ self.kernel + ((x @ a) @ b) * self.scale

    def __getitem__(self, index: Array) -> Array:
        return self.kernel[index] + (self.a[index] @ self.b * self.scale).astype(
            self.dtype
        )

    def unembed(self, x: Float[Array, "... width"]) -> Float[Array, "... vocabulary"]:
        """Logits of a tied head.

        Args:
          x: normalised hidden states.

        Returns:
          ``x @ (kernel + scale a b).T``.
        """
        a, b = self.a.astype(x.dtype), self.b.astype(x.dtype)
        return x @ self.kernel.T + ((x @ b.T) @ a.T) * self.scale


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainedRows:
    """An embedding with some rows replaced.

    Attributes:
      table: frozen [vocabulary, width], a plain array or `LowRank`.
      rows: the replacements.
      ids: their tokens.
    """

    table: Any
    rows: Float[Array, "tokens width"]
    ids: Int[Array, " tokens"]

    @property
    def dtype(self) -> Any:
        """Of the table."""
        return self.table.dtype

    def __getitem__(self, index: Array) -> Array:
        # Compared with the few trained ids instead of scattering them into the table,
        # whose gradient would be as large as the table.
        hit = index[..., None] == self.ids
        row = jnp.argmax(hit, axis=-1)
        mine = self.rows[row].astype(self.dtype)
        return jnp.where(hit.any(axis=-1)[..., None], mine, self.table[index])

    def unembed(self, x: Float[Array, "... width"]) -> Float[Array, "... vocabulary"]:
        """Logits of a tied head.

        Args:
          x: normalised hidden states.

        Returns:
          ``x @ table.T`` with the rows in place.
        """
        table = self.table
        whole = table.unembed(x) if isinstance(table, LowRank) else x @ table.T
        return whole.at[..., self.ids].set(x @ self.rows.astype(x.dtype).T)


def init(
    params: PyTree,
    *,
    key: PRNGKeyArray,
    rank: int,
    where: Sequence[str] = ATTENTION,
    alpha: float | int | None = None,
    rows: Sequence[int] = (),
    embedding: str = "embedding",
) -> Lora:
    """Fresh factors: A uniform in +-1/sqrt(in), B zero, so nothing changes yet.

    Args:
      params: the base.
      key: random key.
      rank: inner size of the factors.
      where: regular expressions, searched in the paths of leaves joined with "/".
      alpha: numerator of the scale; ``2 * rank`` by default.
      rows: tokens whose rows of the embedding are trained whole, from their present
        values.
      embedding: path of the embedding.

    Returns:
      The factors, in float32.

    Raises:
      ValueError: if a pattern finds no leaf, a leaf is not a matrix, the rank is not
        positive, or a token is not in the embedding.
    """
    if rank < 1:
        raise ValueError(f"rank: expected at least 1, got {rank}")
    leaves = paths(params)
    chosen = choose(params, where)
    keys = jax.random.split(key, max(len(chosen), 1))
    factors = {}
    for each, path in zip(keys, chosen, strict=False):
        *stack, fan_in, fan_out = leaves[path].shape
        bound = fan_in**-0.5
        factors[path] = {
            "a": jax.random.uniform(
                each, (*stack, fan_in, rank), minval=-bound, maxval=bound
            ),
            "b": jnp.zeros((*stack, rank, fan_out)),
        }
    trained = None
    if len(rows):
        if embedding not in leaves:
            raise ValueError(f"embedding: expected a leaf, found none at {embedding!r}")
        table = leaves[embedding]
        if len(set(rows)) < len(rows) or not all(0 <= t < len(table) for t in rows):
            raise ValueError(
                f"rows: expected different tokens below {len(table)}, got {list(rows)}"
            )
        trained = table[jnp.asarray(rows)].astype(jnp.float32)
    scale = (2 * rank if alpha is None else alpha) / rank
    return Lora(factors, trained, tuple(int(token) for token in rows), float(scale))


def apply(params: PyTree, lora: Lora, *, embedding: str = "embedding") -> PyTree:
    """The base with the factors beside its kernels, for models that use ``x @ kernel``.

    Args:
      params: the base; no gradient flows to it.
      lora: the factors.
      embedding: path of the embedding.

    Returns:
      A pytree like ``params`` with `LowRank` and `TrainedRows` for some leaves.

    Raises:
      ValueError: if the factors are of another model.
    """
    # No gradient to the base: it would have the base's size.
    frozen = jax.lax.stop_gradient(params)

    def adapt(name: str, leaf: Any) -> Any:
        leaf = _replaced(name, leaf, lora)
        if name in lora.factors:
            pair = lora.factors[name]
            leaf = LowRank(leaf, pair["a"], pair["b"], lora.scale)
        if name == embedding and lora.rows is not None:
            leaf = TrainedRows(leaf, lora.rows, jnp.asarray(lora.ids, jnp.int32))
        return leaf

    return _map(frozen, lora, embedding, adapt)


def merge(params: PyTree, lora: Lora, *, embedding: str = "embedding") -> PyTree:
    """The base with the factors merged in: plain arrays, for every model.

    Args:
      params: the base, of plain arrays.
      lora: the factors.
      embedding: path of the embedding.

    Returns:
      A pytree like ``params``, in its dtypes.

    Raises:
      ValueError: if the factors are of another model.
    """

    def add(name: str, leaf: Any) -> Any:
        leaf = _replaced(name, leaf, lora)
        if name in lora.factors:
            pair = lora.factors[name]
            change = pair["a"] @ pair["b"] * lora.scale
            # Rounded once: a bfloat16 sum would lose most of a small change.
            leaf = (leaf.astype(jnp.float32) + change).astype(leaf.dtype)
        if name == embedding and lora.rows is not None:
            leaf = leaf.at[jnp.asarray(lora.ids)].set(lora.rows.astype(leaf.dtype))
        return leaf

    return _map(params, lora, embedding, add)


def paths(params: PyTree) -> dict[str, Any]:
    """Leaves by their path, as the patterns of `init` see them.

    Args:
      params: any pytree.

    Returns:
      Path, keys joined by "/", to leaf; an object that replaces a kernel is one leaf.
    """
    found = jax.tree_util.tree_leaves_with_path(params, is_leaf=_multiplies)
    return {_name(path): leaf for path, leaf in found}


def choose(params: PyTree, where: Sequence[str]) -> list[str]:
    """Paths of the matrices that match patterns.

    Args:
      params: any pytree.
      where: regular expressions, searched in the paths of leaves joined with "/".

    Returns:
      Paths, each once.

    Raises:
      ValueError: if a pattern finds no leaf, or one that is not a matrix.
    """
    leaves, chosen = paths(params), []
    for pattern in where:
        found = [path for path in leaves if re.search(pattern, path)]
        if not found:
            raise ValueError(
                f"where: expected patterns of leaves such as "
                f"{', '.join(list(leaves)[:6])}, found none for {pattern!r}"
            )
        flat = [path for path in found if len(leaves[path].shape) < 2]
        if flat:
            raise ValueError(
                f"where: expected matrices, but {pattern!r} finds {flat[0]} of shape "
                f"{leaves[flat[0]].shape}"
            )
        chosen += [path for path in found if path not in chosen]
    return chosen


def _multiplies(node: Any) -> bool:
    """Whether a node replaces a kernel or an embedding, such as a quantised one."""
    return hasattr(node, "__rmatmul__") or hasattr(node, "unembed")


def _name(path: jax.tree_util.KeyPath) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _replaced(name: str, leaf: Any, lora: Lora) -> Any:
    if name not in lora.whole:
        return leaf
    return jnp.asarray(lora.whole[name], leaf.dtype)


def _map(params: PyTree, lora: Lora, embedding: str, change: Any) -> PyTree:
    _check(paths(params), lora, embedding)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: change(_name(path), leaf), params, is_leaf=_multiplies
    )


def _check(leaves: dict[str, Any], lora: Lora, embedding: str) -> None:
    """Refuse factors of other parameters, which might broadcast or go unused."""
    wanted = [
        (path, (*pair["a"].shape[:-1], pair["b"].shape[-1]))
        for path, pair in lora.factors.items()
    ]
    wanted += [(path, array.shape) for path, array in lora.whole.items()]
    if lora.rows is not None:
        size = max(len(leaves.get(embedding, ())), 1 + max(lora.ids))
        wanted.append((embedding, (size, lora.rows.shape[-1])))
    for path, shape in wanted:
        found = leaves[path].shape if path in leaves else "no such leaf"
        if found != shape:
            raise ValueError(
                "lora: expected factors of leaves of these parameters, got those of "
                f"{path}, {shape}, where they have {found}"
            )
