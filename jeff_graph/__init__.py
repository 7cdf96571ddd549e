"""Methods on graphs and cells: GRE and gene-gene interactions. Planned, empty so far."""

__all__: list[str] = []
