"""Dialogue tuning, and a benchmark of clinical evidence."""
