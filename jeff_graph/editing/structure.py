"""The two kinds of graph, and what both have: sizes, ends of edges, weights."""

import dataclasses
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.experimental.sparse import BCSR

from jeff.extras import require
from jeff_graph.editing.checks import check_node_numbers

# One door to jraph, so that one error tells how to get it.
if TYPE_CHECKING:
    import jraph
else:
    jraph = require("jraph", extra="graph")

__all__ = [
    "AnyGraph",
    "Graph",
    "GraphsTuple",
    "edge_weights",
    "ends",
    "jraph",
    "num_edges",
    "num_nodes",
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Graph:
    """Nodes and directed edges in slots, some of them padding.

    Invariants: both ends of a real edge are real nodes, and no real edge is a
    self-loop; ends of padding edges are valid slots. `as_graph` ensures this.

    Attributes:
      features: [nodes, width], floating point, dense or `BCSR`.
      senders: slot where each edge starts, int32 [edges].
      receivers: slot where it ends, int32 [edges].
      node_mask: the real nodes, bool [nodes].
      edge_mask: the real edges, bool [edges].
      weights: of the edges, float32 [edges]; None where each counts 1.
      degree: weight of the edges that end at each node in the graph from which this one
        was cut, float32 [nodes]; None to sum them here.
      starts: place of the first edge that ends at each node, and the number of edges,
        int32 [nodes + 1]; given by `jeff_graph.editing.messages.compressed`, else None.
      n_node: number of nodes of each graph of a batch, int32 [graphs]; None for one.
    """

    # Leaves may be shapes as well, as `jax.eval_shape` gives them.
    features: Any
    senders: Any
    receivers: Any
    node_mask: Any
    edge_mask: Any
    weights: Any = None
    degree: Any = None
    starts: Any = None
    n_node: Any = None

    @property
    def num_nodes(self) -> int:
        """Slots of nodes, padding included."""
        return self.node_mask.shape[-1]

    @property
    def num_edges(self) -> int:
        """Slots of directed edges, padding included."""
        return self.edge_mask.shape[-1]


GraphsTuple: TypeAlias = jraph.GraphsTuple
AnyGraph: TypeAlias = Graph | GraphsTuple


def num_edges(graph: AnyGraph) -> int:
    """Slots of directed edges.

    Args:
      graph: the graph.

    Returns:
      Their number, padding included.
    """
    return graph.num_edges if isinstance(graph, Graph) else ends(graph)[0].shape[0]


def ends(graph: GraphsTuple) -> tuple[Any, Any]:
    """Senders and receivers.

    Args:
      graph: the graph.

    Returns:
      Both, integers [edges].

    Raises:
      TypeError: if they are not integers.
      ValueError: if the graph has none, as jraph allows, or a known one is no node.
    """
    if graph.senders is None or graph.receivers is None:
        raise ValueError(
            "graph.senders, graph.receivers: expected node numbers, got None; for a "
            "graph without edges, np.zeros(0, np.int32)"
        )
    # Messages are gathered without checks of bounds.
    for name in ("senders", "receivers"):
        numbers = getattr(graph, name)
        if not jnp.issubdtype(numbers.dtype, jnp.integer):
            raise TypeError(f"graph.{name}: expected integers, got {numbers.dtype}")
        check_node_numbers(f"graph.{name}", numbers, num_nodes(graph))
    return graph.senders, graph.receivers


def num_nodes(graph: AnyGraph) -> int:
    """Slots of nodes.

    Args:
      graph: the graph.

    Returns:
      Their number, padding included.

    Raises:
      ValueError: if a graph of jraph has no nodes' features.
    """
    if isinstance(graph, Graph):
        return graph.num_nodes
    if isinstance(graph.nodes, BCSR):
        return graph.nodes.shape[0]
    leaves = jax.tree.leaves(graph.nodes)
    if not leaves:
        raise ValueError("graph.nodes: expected the nodes' features, got None")
    return leaves[0].shape[0]


def edge_weights(graph: GraphsTuple) -> Any:
    """The features of edges, where they are weights.

    Args:
      graph: the graph.

    Returns:
      float32 [edges], or None.

    Raises:
      ValueError: if edges have features that are no weights.
    """
    if graph.edges is None:
        return None
    edges = num_edges(graph)
    shape = getattr(graph.edges, "shape", None)
    if shape not in ((edges,), (edges, 1)):
        raise ValueError(
            f"graph.edges: expected None or one weight for each of {edges} edges, got "
            f"{jax.tree.map(jnp.shape, graph.edges)}; jeff's networks read no edge "
            "features: drop them, graph._replace(edges=None), or use a network of jraph"
        )
    return jnp.asarray(graph.edges, jnp.float32).reshape(-1)
