"""Training scripts: files, progress, plots and the report. `python -m train_scripts`."""
