"""Graph networks: GCN, GraphSAGE, GAT, GIN, SGC, APPNP, and an MLP beside them.

All have one signature: ``net(graph, key=None)`` gives logits [nodes, classes] in
float32, or [graphs, classes] with a readout, and a key turns dropout on. The graph is a
`jraph.GraphsTuple` or a `Graph`; weights of its edges count in all but GAT, which
refuses them, and the MLP, which reads no edges. Padding and the order of nodes and
edges change nothing at the real nodes. The only state of a network is its parameters.

The methods never need these: they take ``apply_fn(params, graph)`` and a pytree, into
which `split_net` divides a network.

References:
  Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks",
  ICLR 2017.
  Hamilton et al., "Inductive Representation Learning on Large Graphs", NeurIPS 2017.
  Veličković et al., "Graph Attention Networks", ICLR 2018.
  Xu et al., "How Powerful are Graph Neural Networks?", ICLR 2019.
  Wu et al., "Simplifying Graph Convolutional Networks", ICML 2019.
  Gasteiger et al., "Predict then Propagate", ICLR 2019.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jeff.checks import check_choice
from jeff_graph.editing.graphs import Graph
from jeff_graph.editing.layers import GATLayer, GCNLayer, GINLayer, SAGELayer
from jeff_graph.editing.messages import propagate
from jeff_graph.editing.network import NORMS, ApplyFn, Network, split_net

__all__ = [
    "APPNP",
    "GAT",
    "GCN",
    "GIN",
    "MLP",
    "NETWORKS",
    "NORMS",
    "SGC",
    "ApplyFn",
    "GraphSAGE",
    "Network",
    "make_net",
    "split_net",
]


class MLP(Network):
    """An MLP on the features of each node; ignores edges."""


class GCN(Network):
    """Layers of symmetrically normalised propagation, with self-loops."""

    layer = GCNLayer


class GraphSAGE(Network):
    """Layers with one kernel for a node and one for the mean of its neighbours."""

    layer = SAGELayer


class GIN(Network):
    """Layers that sum over the neighbours and apply an MLP."""

    layer = GINLayer

    def _make(
        self, fan_in: int, fan_out: int, last: bool, **options: Any
    ) -> nnx.Module:
        return GINLayer(fan_in, fan_out, self.hidden, **options)


class GAT(Network):
    """Layers of attention; ``heads`` side by side, averaged in the last layer."""

    layer = GATLayer

    def _make(
        self, fan_in: int, fan_out: int, last: bool, **options: Any
    ) -> nnx.Module:
        return GATLayer(fan_in, fan_out, average=last, **options)

    def activation(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The nonlinearity between layers, the paper's ELU.

        Args:
          x: hidden units.

        Returns:
          An array like ``x``.
        """
        return jax.nn.elu(x)


class APPNP(Network):
    """An MLP whose logits are spread over the graph by personalised PageRank.

    ``z <- (1 - teleport) S z + teleport h``, repeated from ``z = h``, where h are the
    MLP's logits and S is `jeff_graph.editing.messages.propagate`.
    """

    def __init__(
        self, *args: Any, teleport: float = 0.1, steps: int = 10, **options: Any
    ):
        """Create the layers of the MLP.

        Args:
          *args: sizes, as in `Network`.
          teleport: weight of a node's own logits, in (0, 1].
          steps: number of repetitions, at least 0.
          **options: as in `Network`.

        Raises:
          ValueError: if ``teleport`` or ``steps`` is out of range, or as `Network`.
        """
        if not 0 < teleport <= 1 or steps < 0:
            raise ValueError(
                "teleport, steps: expected a weight in (0, 1] and at least 0, got "
                f"{teleport} and {steps}"
            )
        super().__init__(*args, **options)
        self.teleport, self.steps = teleport, steps

    def node_logits(
        self, graph: Graph, *, key: Array | None
    ) -> Float[Array, "nodes classes"]:
        """The MLP's logits, spread over the graph.

        Args:
          graph: the graph.
          key: random key of dropout; None for none.

        Returns:
          Logits of each node.
        """
        # Spread in float32, whatever the layers compute in.
        own = super().node_logits(graph, key=key).astype(jnp.float32)

        def step(_: Any, x: Array) -> Array:
            return (1 - self.teleport) * propagate(graph, x) + self.teleport * own

        # A loop with a static bound, so that it can be differentiated.
        return jax.lax.fori_loop(0, self.steps, step, own)


class SGC(Network):
    """A linear classifier of propagated features, ``S^layers x W + b``.

    There are no hidden units: ``hidden``, ``dropout_rate`` and ``norm`` have no effect.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        hidden: int = 32,
        layers: int = 2,
        dropout_rate: float = 0.0,
        **options: Any,
    ):
        """Create the one kernel.

        Args:
          num_features: width of the features.
          num_classes: number of classes.
          hidden: without effect.
          layers: steps of propagation, at least 1.
          dropout_rate: without effect.
          **options: as in `Network`.

        Raises:
          ValueError: if a size is below 1.
        """
        if layers < 1:
            raise ValueError(f"layers: expected at least 1, got {layers}")
        super().__init__(num_features, num_classes, hidden, 1, 0.0, **options)
        self.steps = layers

    def node_logits(
        self, graph: Graph, *, key: Array | None
    ) -> Float[Array, "nodes classes"]:
        """Logits of the propagated features.

        Args:
          graph: the graph.
          key: without effect.

        Returns:
          Logits of each node.
        """
        layer: Any = self.layers[0]
        # The kernel first: propagation is linear, and classes are usually fewer than
        # features.
        x = layer.project(graph.features)
        for _ in range(self.steps):
            x = propagate(graph, x)
        return x + layer.bias[...][None]


NETWORKS: dict[str, type[Network]] = {
    "appnp": APPNP,
    "gat": GAT,
    "gcn": GCN,
    "gin": GIN,
    "mlp": MLP,
    "sage": GraphSAGE,
    "sgc": SGC,
}


def make_net(
    name: str,
    num_features: int,
    num_classes: int,
    *,
    key: PRNGKeyArray,
    **options: Any,
) -> Network:
    """A network by name.

    Args:
      name: a key of `NETWORKS`.
      num_features: width of the features.
      num_classes: number of classes.
      key: random key of the initial parameters.
      **options: ``hidden``, ``layers``, ``dropout_rate``, ``norm``, ``readout`` and
        ``dtype`` of `Network`; ``heads`` of "gat"; ``teleport`` and ``steps`` of
        "appnp".

    Returns:
      The network, untrained.

    Raises:
      ValueError: if the name is unknown or an option is out of range.
    """
    check_choice("name", name, tuple(NETWORKS))
    return NETWORKS[name](num_features, num_classes, **options, rngs=nnx.Rngs(key))
