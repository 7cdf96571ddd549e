"""Training script of gene prioritisation."""
