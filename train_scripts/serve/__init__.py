"""Serve a language model over HTTP."""
