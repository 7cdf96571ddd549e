"""A simulated graph of any size, to measure the cost of large graphs."""

import numpy as np

from jeff_graph.editing.graphs import make_graph
from jeff_graph.editing.loaders import Labelled

__all__ = ["simulate_graph"]


def simulate_graph(
    nodes: int = 169_343,
    edges: int = 1_166_243,
    *,
    width: int = 128,
    classes: int = 40,
    homophily: float = 0.65,
    signal: float = 0.2,
    seed: int = 0,
) -> Labelled:
    """A graph with communities and hubs; the defaults have the size of ogbn-arxiv.

    An edge's first end is drawn with a weight that falls with the node's number like
    ``(number + nodes / 100)^(-1/2)``; so is the second, with chance ``homophily`` from
    the nodes of the same class. Features are ``signal`` times a random vector of the
    class, plus standard normal noise.

    Args:
      nodes: number of nodes, at least ``classes``.
      edges: number of undirected edges that are drawn; doubles and self-loops fall
        away.
      width: number of features.
      classes: number of classes, of equal size.
      homophily: chance that an edge is drawn within a class, in [0, 1].
      signal: weight of the class in the features.
      seed: of everything random.

    Returns:
      The graph and the labels.

    Raises:
      ValueError: if a number is out of range.
    """
    if not 1 <= classes <= nodes or edges < 0 or width < 1 or not 0 <= homophily <= 1:
        raise ValueError(
            "nodes, edges, width, classes, homophily: expected nodes >= classes >= 1, "
            "edges >= 0, width >= 1 and a chance, got "
            f"{nodes}, {edges}, {width}, {classes}, {homophily}"
        )
    rng = np.random.default_rng(seed)
    weight = (np.arange(nodes) + nodes / 100) ** -0.5
    labels = rng.permutation(np.arange(nodes) % classes)
    first = _draw(rng, weight, edges)
    second = _draw(rng, weight, edges)
    within = np.flatnonzero(rng.random(edges) < homophily)
    for label in range(classes):
        ours = within[labels[first[within]] == label]
        members = np.flatnonzero(labels == label)
        second[ours] = members[_draw(rng, weight[members], len(ours))]
    centres = rng.normal(size=(classes, width))
    features = signal * centres[labels] + rng.normal(size=(nodes, width))
    graph = make_graph(features, np.stack([first, second], axis=1))
    return Labelled(graph, labels.astype(np.int32))


def _draw(rng: np.random.Generator, weight: np.ndarray, count: int) -> np.ndarray:
    # By bisection in the cumulative weights, for any number of draws at once.
    total = np.cumsum(weight)
    return np.searchsorted(total, rng.random(count) * total[-1], side="right")
