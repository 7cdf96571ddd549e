"""KV-AdaQuant: training script, measurements and claims."""
