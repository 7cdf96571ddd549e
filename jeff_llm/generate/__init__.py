"""Text generation, streaming, scoring and sampling with a decoder."""

from jeff_llm.generate.generation import Generation, generate
from jeff_llm.generate.sampling import GREEDY, Sampling
from jeff_llm.generate.scoring import Score, option_logits, score
from jeff_llm.generate.session import Session, stream

__all__ = [
    "GREEDY",
    "Generation",
    "Sampling",
    "Score",
    "Session",
    "generate",
    "option_logits",
    "score",
    "stream",
]
