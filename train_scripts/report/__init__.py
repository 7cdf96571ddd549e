"""Report: the newest run of every system on one page."""

from train_scripts.report.page import build

__all__ = ["build"]
