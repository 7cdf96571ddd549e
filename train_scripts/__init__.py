"""The application: files, progress, plots, the report, the command line."""
