"""Methods on graphs and cells. Planned, empty so far."""

__all__: list[str] = []
