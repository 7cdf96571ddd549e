"""YODO: the training script, what it measures, and what it claims."""
