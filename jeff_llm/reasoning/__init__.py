"""Efficient reasoning: rewards, stopping rules, votes and budgets, on one plane."""
