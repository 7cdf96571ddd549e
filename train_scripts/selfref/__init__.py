"""Self-REF: training script, measurements and claims."""
