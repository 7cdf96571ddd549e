"""Dialogue tuning: the script."""
