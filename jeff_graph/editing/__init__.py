"""GRE: editing graph networks by rewiring the gradient.

`rewire` and `anchor_gradients` work on any model. An `Editor` corrects a trained graph
network node by node, within a budget, and can undo its edits. The protocols
`independent`, `sequential` and `batch` compare `methods.gre`, its rivals and jeff's own
`distilled_replay`.

A graph is a `jraph.GraphsTuple`, yours or that of `make_graph` and the `loaders`;
`graphs` has the form inside, `sampling` parts of a graph that does not fit whole.
`nets` (flax) and `training` are imported by name. Needs the extra ``graph``.
"""

from jeff_graph.editing import methods, newton, replay, rivals
from jeff_graph.editing.editor import Editor, Outcome
from jeff_graph.editing.evaluation import batch, independent, sequential
from jeff_graph.editing.features import row_normalise
from jeff_graph.editing.graphs import (
    Graph,
    as_graph,
    make_graph,
    pad,
    real_graphs,
    real_nodes,
    to_jraph,
)
from jeff_graph.editing.gre import (
    anchor_gradients,
    rewire,
    rewire_update,
    rewired_adam,
)
from jeff_graph.editing.hops import degrees, hop_distance, k_hop, subgraph
from jeff_graph.editing.log import EditLog
from jeff_graph.editing.nearby import nearby_tasks
from jeff_graph.editing.report import EditReport
from jeff_graph.editing.sampling import (
    Neighbourhood,
    neighbourhoods,
    sample_neighbours,
)
from jeff_graph.editing.splits import Split, split
from jeff_graph.editing.task import EditTask, Method, make_task

__all__ = [
    "EditLog",
    "EditReport",
    "EditTask",
    "Editor",
    "Graph",
    "Method",
    "Neighbourhood",
    "Outcome",
    "Split",
    "anchor_gradients",
    "as_graph",
    "batch",
    "degrees",
    "hop_distance",
    "independent",
    "k_hop",
    "make_graph",
    "make_task",
    "methods",
    "nearby_tasks",
    "neighbourhoods",
    "newton",
    "pad",
    "real_graphs",
    "real_nodes",
    "replay",
    "rewire",
    "rewire_update",
    "rewired_adam",
    "rivals",
    "row_normalise",
    "sample_neighbours",
    "sequential",
    "split",
    "subgraph",
    "to_jraph",
]
