"""Uncertainty routing: training script, measurements and claims."""
