"""Training scripts: command line, run folders, progress, plots and the report."""
