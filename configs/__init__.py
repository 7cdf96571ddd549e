"""One module a system: a frozen dataclass with commented fields, and presets."""
