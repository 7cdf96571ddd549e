"""YODO: training script, measurements and claims."""
