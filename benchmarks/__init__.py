"""One module a performance claim, each against a named peer in the same run."""
