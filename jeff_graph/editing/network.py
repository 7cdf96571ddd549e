"""Base of the graph networks: a stack of layers, split into function and parameters."""

import itertools
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from jeff.checks import check_choice
from jeff.networks import dropout, functional
from jeff_graph.editing.graphs import AnyGraph, Graph, as_graph, graph_of_nodes
from jeff_graph.editing.layers import DenseLayer

__all__ = ["NORMS", "ApplyFn", "Network", "split_net"]

ApplyFn: TypeAlias = Callable[..., Float[Array, "rows classes"]]

# None depends on the other nodes of a batch, so none needs state.
NORMS = ("none", "layer")
_READOUTS = ("none", "mean", "sum")


class Network(nnx.Module):
    """Layers with norm, activation and dropout between them; by itself an MLP."""

    layer: ClassVar[type[Any]] = DenseLayer

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        hidden: int = 32,
        layers: int = 2,
        dropout_rate: float = 0.1,
        *,
        norm: str = "none",
        readout: str = "none",
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        """Create the layers.

        Args:
          num_features: width of the features.
          num_classes: number of classes.
          hidden: width of the hidden layers.
          layers: number of layers, at least 1.
          dropout_rate: probability of dropping a hidden unit in training.
          norm: "none", or "layer" for layer normalisation of the hidden units.
          readout: "none" for logits of each node; "mean" or "sum" of them over the
            nodes of each graph, for graph classification.
          dtype: of the computation; parameters and logits are float32.
          rngs: random keys for the initial parameters.
          **options: of the kind of layer.

        Raises:
          ValueError: if a size is below 1, or norm or readout is unknown.
        """
        for name, size in (
            ("num_features", num_features),
            ("num_classes", num_classes),
            ("hidden", hidden),
            ("layers", layers),
        ):
            if size < 1:
                raise ValueError(f"{name}: expected at least 1, got {size}")
        check_choice("norm", norm, NORMS)
        check_choice("readout", readout, _READOUTS)
        widths = (num_features, *[hidden] * (layers - 1), num_classes)
        self.hidden, self.dropout_rate, self.readout = hidden, dropout_rate, readout
        self.layers = nnx.List(
            [
                self._make(
                    *pair, index == layers - 1, dtype=dtype, rngs=rngs, **options
                )
                for index, pair in enumerate(itertools.pairwise(widths))
            ]
        )
        count = layers - 1 if norm == "layer" else 0
        self.norms = nnx.List(
            [
                # The fast variance, E[x^2] - E[x]^2, loses digits.
                nnx.LayerNorm(hidden, use_fast_variance=False, dtype=dtype, rngs=rngs)
                for _ in range(count)
            ]
        )

    def _make(
        self, fan_in: int, fan_out: int, last: bool, **options: Any
    ) -> nnx.Module:
        """A module called as ``layer(graph, x)``; the last one gives the logits."""
        return self.layer(fan_in, fan_out, **options)

    def activation(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The nonlinearity between layers.

        Args:
          x: hidden units.

        Returns:
          An array like ``x``.
        """
        return jax.nn.relu(x)

    def __call__(
        self, graph: AnyGraph, *, key: Array | None = None
    ) -> Float[Array, "rows classes"]:
        """Logits of each node, or of each graph; with dropout where a key is given."""
        graph = as_graph(graph)
        # Losses and drawdowns compare logits, whatever the layers compute in.
        logits = self.node_logits(graph, key=key).astype(jnp.float32)
        return (
            logits if self.readout == "none" else _pooled(graph, logits, self.readout)
        )

    def node_logits(
        self, graph: Graph, *, key: Array | None
    ) -> Float[Array, "nodes classes"]:
        """Logits before the readout.

        Args:
          graph: the graph.
          key: random key of dropout; None for none.

        Returns:
          Logits of each node.
        """
        x = graph.features
        *hidden, last = self.layers
        for index, layer in enumerate(hidden):
            x = layer(graph, x)
            if len(self.norms):
                x = self.norms[index](x)
            x = self.activation(x)
            if key is not None:
                x = dropout(x, self.dropout_rate, key=jax.random.fold_in(key, index))
        return last(graph, x)


def _pooled(graph: Graph, x: Array, readout: str) -> Float[Array, "graphs classes"]:
    """Sum or mean over the real nodes of each graph; 0 for a graph without any."""
    ids, count = graph_of_nodes(graph)
    real = graph.node_mask.astype(x.dtype)
    total = jax.ops.segment_sum(x * real[:, None], ids, count)
    if readout == "sum":
        return total
    return total / jnp.maximum(jax.ops.segment_sum(real, ids, count), 1)[:, None]


def split_net(net: nnx.Module) -> tuple[ApplyFn, PyTree]:
    """Divide a network into a pure function and its parameters.

    Args:
      net: a network whose only state is its parameters.

    Returns:
      ``(apply_fn, params)``: ``apply_fn(params, graph, key=None)`` gives the logits
      of the nodes or graphs, and ``params`` is a nested dictionary of arrays.

    Raises:
      ValueError: if the network holds other state.
    """
    call, params = functional(net)

    def apply_fn(
        params: PyTree, graph: AnyGraph, key: PRNGKeyArray | None = None
    ) -> Float[Array, "rows classes"]:
        return call(params, graph, key=key)

    return apply_fn, params
