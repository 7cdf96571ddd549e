"""Code shared by all runs: folder, log, result, claims and plots."""
