"""A simulated graph of any size, to measure the cost of large graphs."""

import numpy as np

from jeff_graph.editing.graphs import make_graph
from jeff_graph.editing.loaders import Labelled

__all__ = ["simulate_graph"]

# Chance of an edge to be drawn within a class, and the weight of a class's centre in
# its features: a network then learns the classes, but not from the features alone.
_HOMOPHILY, _SIGNAL = 0.65, 0.2


def simulate_graph(
    nodes: int = 169_343,
    edges: int = 1_166_243,
    *,
    width: int = 128,
    classes: int = 40,
    seed: int = 0,
) -> Labelled:
    """A graph with communities and hubs; the defaults have the size of ogbn-arxiv.

    An edge's first end is drawn with a weight that falls with the node's number like
    ``(number + nodes / 100)^(-1/2)``; so is the second, with chance 0.65 from the nodes
    of the same class. Features are 0.2 times a random vector of the class, plus
    standard normal noise.

    Args:
      nodes: number of nodes, at least ``classes``.
      edges: number of undirected edges that are drawn; doubles and self-loops fall
        away.
      width: number of features.
      classes: number of classes, of equal size.
      seed: of everything random.

    Returns:
      The graph and the labels.

    Raises:
      ValueError: if a number is out of range.
    """
    if not 1 <= classes <= nodes or edges < 0 or width < 1:
        raise ValueError(
            "nodes, edges, width, classes: expected nodes >= classes >= 1, edges >= 0 "
            f"and width >= 1, got {nodes}, {edges}, {width}, {classes}"
        )
    rng = np.random.default_rng(seed)
    weight = (np.arange(nodes) + nodes / 100) ** -0.5
    labels = rng.permutation(np.arange(nodes) % classes)
    first = _draw(rng, weight, edges)
    second = _draw(rng, weight, edges)
    within = np.flatnonzero(rng.random(edges) < _HOMOPHILY)
    for label in range(classes):
        ours = within[labels[first[within]] == label]
        members = np.flatnonzero(labels == label)
        second[ours] = members[_draw(rng, weight[members], len(ours))]
    centres = rng.normal(size=(classes, width))
    features = _SIGNAL * centres[labels] + rng.normal(size=(nodes, width))
    graph = make_graph(features, np.stack([first, second], axis=1))
    return Labelled(graph, labels.astype(np.int32))


def _draw(rng: np.random.Generator, weight: np.ndarray, count: int) -> np.ndarray:
    # By bisection in the cumulative weights, for any number of draws at once.
    total = np.cumsum(weight)
    return np.searchsorted(total, rng.random(count) * total[-1], side="right")
