"""Text generation, streaming, scoring and sampling with a decoder."""

from jeff_llm.generate.generation import Generation, generate, stream
from jeff_llm.generate.sampling import GREEDY, Sampling
from jeff_llm.generate.scoring import Score, option_logits, score

__all__ = [
    "GREEDY",
    "Generation",
    "Sampling",
    "Score",
    "generate",
    "option_logits",
    "score",
    "stream",
]
