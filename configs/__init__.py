"""One module a system: a frozen dataclass with a comment for each field, and presets."""
