"""Efficient reasoning: training script, measurements and claims."""
