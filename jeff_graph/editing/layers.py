"""Layers of graph networks: ``layer(graph, x)`` maps a value of each node to another.

Where a layer's first step is linear, the kernel is applied before the messages are
summed: the result is the same, and the messages are as narrow as the layer's output.
Parameters are float32; ``dtype`` is that of the computation.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.sparse import BCSR
from jaxtyping import Array, Float

from jeff_graph.editing.features import product
from jeff_graph.editing.graphs import Graph
from jeff_graph.editing.messages import (
    attend,
    mean_neighbours,
    propagate,
    sum_neighbours,
)

__all__ = ["DenseLayer", "GATLayer", "GCNLayer", "GINLayer", "SAGELayer"]

_glorot = jax.nn.initializers.glorot_uniform()


def _kernel(fan_in: int, fan_out: int, rngs: nnx.Rngs) -> nnx.Param:
    return nnx.Param(_glorot(rngs.params(), (fan_in, fan_out), jnp.float32))


class DenseLayer(nnx.Module):
    """``x W + b``: a layer that reads no neighbour."""

    def __init__(
        self, fan_in: int, fan_out: int, *, dtype: Any = jnp.float32, rngs: nnx.Rngs
    ):
        """Create the parameters.

        Args:
          fan_in: width of the input.
          fan_out: width of the output.
          dtype: of the computation.
          rngs: random keys for the initial parameters.
        """
        self.dtype = dtype
        self.kernel = _kernel(fan_in, fan_out, rngs)
        self.bias = nnx.Param(jnp.zeros(fan_out, jnp.float32))

    def __call__(
        self, graph: Graph, x: Float[Array, "nodes fan_in"] | BCSR
    ) -> Float[Array, "nodes fan_out"]:
        """Values of each node, [nodes, fan_out]."""
        return self.project(x) + self.bias[...].astype(self.dtype)[None]

    def project(
        self, x: Float[Array, "nodes fan_in"] | BCSR
    ) -> Float[Array, "nodes fan_out"]:
        """Apply the kernel alone.

        Args:
          x: values of each node.

        Returns:
          ``x W``.
        """
        return product(x, self.kernel[...].astype(self.dtype))


class GCNLayer(DenseLayer):
    """``D^(-1/2) (A + I) D^(-1/2) x W + b`` (Kipf and Welling, 2017, eq. 2)."""

    def __call__(
        self, graph: Graph, x: Float[Array, "nodes fan_in"] | BCSR
    ) -> Float[Array, "nodes fan_out"]:
        """Values of each node, [nodes, fan_out]."""
        spread = propagate(graph, self.project(x))
        return spread + self.bias[...].astype(self.dtype)[None]


class SAGELayer(nnx.Module):
    """``x_i W + mean_{j -> i} x_j W' + b`` (Hamilton et al., 2017, mean aggregator)."""

    def __init__(
        self, fan_in: int, fan_out: int, *, dtype: Any = jnp.float32, rngs: nnx.Rngs
    ):
        """Create the parameters.

        Args:
          fan_in: width of the input.
          fan_out: width of the output.
          dtype: of the computation.
          rngs: random keys for the initial parameters.
        """
        self.dtype = dtype
        self.own = DenseLayer(fan_in, fan_out, dtype=dtype, rngs=rngs)
        self.neighbour = _kernel(fan_in, fan_out, rngs)

    def __call__(
        self, graph: Graph, x: Float[Array, "nodes fan_in"] | BCSR
    ) -> Float[Array, "nodes fan_out"]:
        """Values of each node, [nodes, fan_out]."""
        sent = product(x, self.neighbour[...].astype(self.dtype))
        return self.own(graph, x) + mean_neighbours(graph, sent)


class GATLayer(nnx.Module):
    """Several heads of attention over a node and its neighbours.

    Heads stand side by side, or are averaged, as in a last layer (Veličković et al.,
    2018, eq. 5 and 6).
    """

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        heads: int = 4,
        *,
        average: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Create the parameters.

        Args:
          fan_in: width of the input.
          fan_out: width of the output; a multiple of ``heads`` where they stand side by
            side.
          heads: number of heads.
          average: average the heads, each as wide as the output.
          dtype: of the computation; the softmax is in float32.
          rngs: random keys for the initial parameters.

        Raises:
          ValueError: if ``heads`` is below 1 or does not divide ``fan_out``.
        """
        if heads < 1 or (fan_out % heads and not average):
            raise ValueError(
                f"heads: expected a divisor of the {fan_out} hidden units, got {heads}"
            )
        width = fan_out if average else fan_out // heads
        self.dtype, self.heads, self.average = dtype, heads, average
        self.kernel = _kernel(fan_in, heads * width, rngs)
        self.receiver = _kernel(heads, width, rngs)
        self.sender = _kernel(heads, width, rngs)
        self.bias = nnx.Param(jnp.zeros(fan_out, jnp.float32))

    def __call__(
        self, graph: Graph, x: Float[Array, "nodes fan_in"] | BCSR
    ) -> Float[Array, "nodes fan_out"]:
        """Values of each node, [nodes, fan_out]."""
        if graph.weights is not None:
            raise ValueError(
                "graph.edges: expected None for attention, which weighs the edges "
                "itself, got weights; use gcn, or drop them: "
                "graph._replace(edges=None)"
            )
        x = product(x, self.kernel[...].astype(self.dtype))
        x = x.reshape(x.shape[0], self.heads, -1)
        # A score of a pair is a sum of two terms, so none is computed per edge here.
        scores = [
            (x * part[...].astype(self.dtype)[None]).sum(-1)
            for part in (self.receiver, self.sender)
        ]
        x = attend(graph, x, *scores)
        # Side by side in hidden layers, averaged in the last one, as in the paper.
        x = x.mean(1) if self.average else x.reshape(x.shape[0], -1)
        return x + self.bias[...].astype(self.dtype)[None]


class GINLayer(nnx.Module):
    """``MLP((1 + epsilon) x_i + sum_{j -> i} x_j)``, epsilon learned (Xu et al., 2019).

    The MLP has one hidden layer.
    """

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        hidden: int,
        *,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Create the parameters.

        Args:
          fan_in: width of the input.
          fan_out: width of the output.
          hidden: width of the MLP's hidden layer.
          dtype: of the computation.
          rngs: random keys for the initial parameters.
        """
        self.dtype = dtype
        self.epsilon = nnx.Param(jnp.zeros((), jnp.float32))
        self.first = DenseLayer(fan_in, hidden, dtype=dtype, rngs=rngs)
        self.second = DenseLayer(hidden, fan_out, dtype=dtype, rngs=rngs)

    def __call__(
        self, graph: Graph, x: Float[Array, "nodes fan_in"] | BCSR
    ) -> Float[Array, "nodes fan_out"]:
        """Values of each node, [nodes, fan_out]."""
        # The bias belongs behind the sum: before it, it would count once a neighbour.
        sent = self.first.project(x)
        # The first layer of the MLP is linear, so it is applied before the sum.
        own = (1 + self.epsilon[...]).astype(self.dtype) * sent
        total = own + sum_neighbours(graph, sent)
        bias = self.first.bias[...].astype(self.dtype)[None]
        hidden = jax.nn.relu(total + bias)
        return self.second(graph, hidden)
