"""GRE: training script, measurements and claims."""
