"""Methods on graphs: `jeff_graph.editing` is GRE, editing of graph networks."""

__all__: list[str] = []
