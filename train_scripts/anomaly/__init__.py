"""Anomalies in texts: the script."""
