"""Serving: a language model behind OpenAI's interface, with routing.

`Batcher` decodes the requests that wait together, a few tokens at a time, so that
answers stream; `jeff_llm.serving.app` is the application over it. `python -m
train_scripts.serve` starts the server.
"""

from jeff_llm.serving.batcher import Batcher, BusyError
from jeff_llm.serving.rows import Job, Piece, Row

__all__ = ["Batcher", "BusyError", "Job", "Piece", "Row"]
