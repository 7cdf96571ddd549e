"""Methods on language models. Planned, empty so far."""

__all__: list[str] = []
