"""AD-LLM."""
