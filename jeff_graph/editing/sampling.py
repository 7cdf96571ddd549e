"""Neighbour sampling: small graphs cut out of a large one.

From the seeds outwards, each node of a hop takes up to ``fanout`` of the edges that end
at it, drawn without replacement. Samples are drawn on the host and padded to sizes that
seeds and fanouts determine, so that all of them share one compiled program.

A cut graph has dense features, and it carries degrees: the edges taken at a node that
was expanded, and at a node of the last hop, whose own edges are left out, those that
its fanout would have taken. With all neighbours taken, a network of as many layers as
hops computes at the seeds what it computes on the whole graph, symmetric normalisation
included.

Of a `jraph.GraphsTuple`, the cut graph is one too, with its padding in a graph of its
own, for networks of jraph, and stored loops stay. It carries no degrees, and
`jraph.GraphConvolution` counts the edges that start at a node as well: a whole
neighbourhood therefore has every edge that starts or ends at one of its nodes. In a
sample, nodes of the last hop have no edges of their own; two hops more than layers,
with all neighbours, make both degrees right in an undirected graph. With jeff's
networks, sample ``as_graph(graph)``.

Reference: Hamilton et al., "Inductive Representation Learning on Large Graphs",
NeurIPS 2017, algorithm 2; there nodes are drawn with replacement.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from jeff_graph.editing.features import take_rows
from jeff_graph.editing.graphs import (
    AnyGraph,
    Graph,
    as_graph,
    num_nodes,
    pad,
    to_jraph,
)
from jeff_graph.editing.hops import degrees

__all__ = [
    "Incoming",
    "Neighbourhood",
    "by_size",
    "neighbourhoods",
    "sample_neighbours",
]

_SIZES = ("num_nodes", "num_edges")


class Neighbourhood(NamedTuple):
    """A graph cut out of a larger one; its seeds come first, in their order.

    Attributes:
      graph: the padded graph, of the kind that was given.
      ids: number of each node in the larger graph, int32 [nodes]; at padding the number
        of its nodes, where JAX drops what is scattered.
    """

    graph: Any
    ids: Any


class Incoming:
    """The edges of a graph on the host, by receiver; made once for many samples."""

    def __init__(self, graph: AnyGraph):
        """Sort the edges.

        Args:
          graph: the whole graph.
        """
        self.tuples = not isinstance(graph, Graph)
        self.graph = graph = as_graph(graph)
        # Networks of jraph read stored loops, as their attention expects.
        edges = np.asarray(graph.edge_mask) | self.tuples
        kept = np.flatnonzero(edges)
        receivers = np.asarray(graph.receivers)[kept]
        if (np.diff(receivers) < 0).any():
            # `make_graph` sorts already; other graphs may not.
            order = np.argsort(receivers, kind="stable")
            kept, receivers = kept[order], receivers[order]
        self.senders, self.receivers = np.asarray(graph.senders)[kept], receivers
        weights = graph.weights
        self.weights = None if weights is None else np.asarray(weights)[kept]
        self.starts = np.searchsorted(receivers, np.arange(graph.num_nodes + 1))
        self.degrees = np.asarray(degrees(graph))

    def take(
        self, nodes: np.ndarray, fanout: int | None, random: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Edges that end at some nodes.

        Args:
          nodes: their numbers.
          fanout: the most edges to take at each; None for all.
          random: a numpy generator, where there is a fanout.

        Returns:
          The edges' places in ``senders``, and those in ``nodes`` of their receivers.
        """
        counts = self.starts[nodes + 1] - self.starts[nodes]
        owner = np.repeat(np.arange(len(nodes)), counts)
        rank = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        places = self.starts[nodes][owner] + rank
        if fanout is None or counts.max(initial=0) <= fanout:
            return places, owner
        # A random order within each owner; its first `fanout` are the draw.
        order = np.lexsort((random.random(len(owner)), owner))
        # Owners ascend, so the rank of a place is the same after the sort.
        chosen = order[rank < fanout]
        return places[chosen], owner[chosen]

    def weigh(self, places: np.ndarray) -> np.ndarray:
        """Weights of some edges.

        Args:
          places: their places in ``senders``.

        Returns:
          The weights, 1 each where the graph has none.
        """
        return np.ones(len(places)) if self.weights is None else self.weights[places]

    def rim(self, nodes: np.ndarray, fanout: int | None) -> np.ndarray:
        """Degrees of nodes whose own edges are not cut out.

        Args:
          nodes: their numbers.
          fanout: the most edges that would have been taken at each; None for all.

        Returns:
          The weight of the edges that would have been taken; in the mean, where there
          are weights.
        """
        degree = self.degrees[nodes]
        if fanout is None:
            return degree
        counts = self.starts[nodes + 1] - self.starts[nodes]
        return degree * (np.minimum(counts, fanout) / np.maximum(counts, 1))


def sample_neighbours(
    graph: AnyGraph | Incoming,
    seeds: Any,
    fanouts: Sequence[int | None],
    *,
    key: PRNGKeyArray,
    sizes: tuple[int, int] | None = None,
) -> Neighbourhood:
    """Cut out the seeds and a sample of what their predictions depend on.

    Args:
      graph: the whole graph, read on the host; `Incoming` where many samples are
        taken of it.
      seeds: node numbers, integers [seeds], each once.
      fanouts: for each hop from the seeds, the most edges to take at a node; None for
        all of them.
      key: random key.
      sizes: slots of nodes and of edges; by default the most that the seeds and fanouts
        can need, never more than the whole graph has.

    Returns:
      A `Neighbourhood`. Where an edge is taken, its sender is too.

    Raises:
      TypeError: if the seeds are not integers.
      ValueError: if a seed does not exist, is padding or comes twice, a fanout is below
        1, or ``sizes`` is too small.
    """
    whole = graph if isinstance(graph, Incoming) else Incoming(graph)
    graph = whole.graph
    seeds = _checked_seeds(graph, seeds)
    for fanout in fanouts:
        if fanout is not None and fanout < 1:
            raise ValueError(f"fanouts: expected at least 1, or None, got {fanout}")
    cut = _cut(whole, seeds, fanouts, _generator(key))
    spare = int(whole.tuples)  # jraph pads with a graph of at least one node
    if sizes is None:
        nodes, edges = _most(graph, len(seeds), fanouts)
        sizes = nodes + spare, edges
    for name, size, slots in zip(("nodes", "edges"), sizes, _SIZES, strict=True):
        needed = getattr(cut.graph, slots) + (spare if name == "nodes" else 0)
        if size < needed:
            raise ValueError(
                f"sizes: expected at least {needed} slots of {name}, got {size}"
            )
    padded = _pad(cut, sizes, graph.num_nodes, whole.tuples)
    return jax.tree.map(jnp.asarray, padded)


def neighbourhoods(graph: AnyGraph, nodes: Any, hops: int) -> Neighbourhood:
    """The whole neighbourhood of each of some nodes by itself, stacked.

    For work on one node at a time under ``jax.vmap`` or ``jax.lax.map``: node i is
    slot 0 of graph i.

    Args:
      graph: the whole graph; its arrays are read on the host.
      nodes: node numbers, integers [targets], each once.
      hops: how far to go, the number of layers of the network; at least 0.

    Returns:
      A `Neighbourhood` with a leading axis ``targets`` on every leaf, padded to the
      largest of them.

    Raises:
      TypeError: if the nodes are not integers.
      ValueError: if a node does not exist, is padding or comes twice, or ``hops`` is
        negative.
    """
    stacked = _stack(_cut_each(graph, nodes, hops), graph)
    return jax.tree.map(jnp.asarray, stacked)


def by_size(graph: AnyGraph, nodes: Any, hops: int) -> list[tuple[Any, Neighbourhood]]:
    """As `neighbourhoods`, in groups of similar size: less padding, one program each.

    Within a group, sizes differ by less than a factor of four.

    Args:
      graph: as for `neighbourhoods`.
      nodes: likewise.
      hops: likewise.

    Returns:
      For each group, smallest first, the places in ``nodes`` of its members, int32
      [members], and their neighbourhoods.

    Raises:
      TypeError: as `neighbourhoods`.
      ValueError: likewise.
    """
    cuts = _cut_each(graph, nodes, hops)
    sizes = np.array([cut.graph.num_nodes for cut in cuts])
    # Powers of four; whatever is below the square costs next to nothing.
    group = np.floor(np.log2(np.maximum(sizes, 16)) / 2 + 1e-9)
    return [
        (places.astype(np.int32), _stack([cuts[i] for i in places], graph))
        for places in (np.flatnonzero(group == each) for each in np.unique(group))
    ]


def _cut_each(graph: AnyGraph, nodes: Any, hops: int) -> list[Neighbourhood]:
    if hops < 0:
        raise ValueError(f"hops: expected at least 0, got {hops}")
    whole = Incoming(graph)
    nodes = _checked_seeds(whole.graph, nodes)
    cuts = [
        _cut(whole, nodes[i : i + 1], [None] * hops, None) for i in range(len(nodes))
    ]
    return [_with_rim(whole, cut.ids) for cut in cuts] if whole.tuples else cuts


def _stack(cuts: list[Neighbourhood], whole: AnyGraph) -> Neighbourhood:
    tuples = not isinstance(whole, Graph)
    nodes, edges = (max(getattr(cut.graph, size) for cut in cuts) for size in _SIZES)
    sizes = nodes + int(tuples), edges
    padded = [_pad(cut, sizes, num_nodes(whole), tuples) for cut in cuts]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *padded)


def _cut(
    whole: Incoming,
    seeds: np.ndarray,
    fanouts: Sequence[int | None],
    random: Any,
) -> Neighbourhood:
    """One neighbourhood on the host, without padding."""
    # Slot of each node in the cut graph, -1 for nodes that are not in it yet.
    slot = np.full(whole.graph.num_nodes, -1)
    ids, senders, receivers, taken, edges = seeds, [], [], [], []
    slot[seeds] = np.arange(len(seeds))
    frontier = seeds
    for fanout in fanouts:
        places, owner = whole.take(frontier, fanout, random)
        edges.append(places)
        found = whole.senders[places]
        receivers.append(len(ids) - len(frontier) + owner)
        taken.append(np.bincount(owner, whole.weigh(places), len(frontier)))
        # Only nodes that were not met before are expanded in the next hop.
        frontier = np.unique(found[slot[found] < 0])
        slot[frontier] = len(ids) + np.arange(len(frontier))
        ids = np.concatenate([ids, frontier])
        senders.append(slot[found])
    last = fanouts[-1] if fanouts else None
    # Edges of the last hop are not cut out, but normalisation needs their weight.
    taken.append(whole.rim(frontier, last))
    kept = np.concatenate([*edges, []]).astype(np.int64)
    small = Graph(
        take_rows(whole.graph.features, ids),
        np.concatenate([*senders, []]).astype(np.int32),
        np.concatenate([*receivers, []]).astype(np.int32),
        np.ones(len(ids), bool),
        np.ones(len(kept), bool),
        None if whole.weights is None else whole.weigh(kept).astype(np.float32),
        np.concatenate(taken).astype(np.float32),
    )
    return Neighbourhood(small, ids.astype(np.int32))


def _with_rim(whole: Incoming, ids: np.ndarray) -> Neighbourhood:
    """Some nodes with all edges that start or end at one of them."""
    slot = np.full(whole.graph.num_nodes, -1)
    slot[ids] = np.arange(len(ids))
    ends = whole.senders, whole.receivers
    kept = np.flatnonzero((slot[ends[0]] >= 0) | (slot[ends[1]] >= 0))
    senders, receivers = (end[kept] for end in ends)
    both = np.concatenate([senders, receivers])
    beyond = np.unique(both[slot[both] < 0])
    slot[beyond] = len(ids) + np.arange(len(beyond))
    nodes = np.concatenate([ids, beyond])
    small = Graph(
        take_rows(whole.graph.features, nodes),
        slot[senders].astype(np.int32),
        slot[receivers].astype(np.int32),
        np.ones(len(nodes), bool),
        np.ones(len(kept), bool),
        None if whole.weights is None else whole.weigh(kept).astype(np.float32),
    )
    return Neighbourhood(small, nodes.astype(np.int32))


def _pad(
    cut: Neighbourhood, sizes: tuple[int, int], outside: int, tuples: bool
) -> Neighbourhood:
    padding = (0, sizes[0] - cut.graph.num_nodes)
    ids = np.pad(np.asarray(cut.ids), padding, constant_values=outside)
    graph = to_jraph(cut.graph) if tuples else cut.graph
    return Neighbourhood(pad(graph, *sizes), ids)


def _checked_seeds(graph: Graph, seeds: Any) -> np.ndarray:
    seeds = np.asarray(seeds)
    if seeds.dtype.kind not in "iu":
        raise TypeError(f"seeds: expected node numbers, got {seeds.dtype}")
    if seeds.ndim != 1 or not len(seeds):
        raise ValueError(f"seeds: expected at least one in a vector, got {seeds.shape}")
    mask = np.asarray(graph.node_mask)
    wrong = seeds[(seeds < 0) | (seeds >= len(mask))]
    if not len(wrong):
        wrong = seeds[~mask[seeds]]
    if len(wrong):
        raise ValueError(f"seeds: expected numbers of real nodes, got {wrong[0]}")
    if len(np.unique(seeds)) < len(seeds):
        raise ValueError("seeds: expected each node once, got one twice")
    return seeds.astype(np.int64)


def _most(graph: Graph, seeds: int, fanouts: Sequence[int | None]) -> tuple[int, int]:
    """Most nodes and edges that a sample can have."""
    nodes, edges, frontier = seeds, 0, seeds
    for fanout in fanouts:
        frontier = graph.num_edges if fanout is None else frontier * fanout
        nodes, edges = nodes + frontier, edges + frontier
    return min(nodes, graph.num_nodes), min(edges, graph.num_edges)


def _generator(key: PRNGKeyArray) -> np.random.Generator:
    # Sampling is on the host; numpy's generator is seeded from the key.
    return np.random.default_rng(np.asarray(jax.random.bits(key, (4,), jnp.uint32)))
