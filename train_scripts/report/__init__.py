"""The report: every system's newest run on one page."""

from train_scripts.report.page import build

__all__ = ["build"]
