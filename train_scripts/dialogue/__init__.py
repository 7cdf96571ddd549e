"""Dialogue tuning, and the choice of evidence among distractors."""
