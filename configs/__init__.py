"""Configurations: one module per system, with commented fields and presets."""
