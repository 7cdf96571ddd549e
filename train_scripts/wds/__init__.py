"""Gene-gene interactions: training script, measurements and claims."""
