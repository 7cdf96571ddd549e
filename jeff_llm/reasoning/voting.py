"""Votes over the samples of a question, and rules that stop sampling early.

All take arrays [questions, samples] of answer codes: equal codes are equal answers, -1
is no answer. `fold` makes them from flat arrays. They need nothing else of jeff, take
numpy and JAX arrays, and treat all questions of a log in one call.

`voting_windows` has the plain and the weighted vote and ESC, `voting_adaptive` the
rules that look after every sample, `voting_parallel` those for samples that run
together.
"""

from jeff_llm.reasoning.votes import Folded, Vote, fold
from jeff_llm.reasoning.voting_adaptive import (
    adaptive_consistency,
    certaindex,
    certaindex_stopping,
    majority_probability,
)
from jeff_llm.reasoning.voting_parallel import first_finish, short_m_of_k
from jeff_llm.reasoning.voting_windows import (
    confidence_weighted_vote,
    early_stopping,
    esc_expected_samples,
    majority_vote,
)

__all__ = [
    "Folded",
    "Vote",
    "adaptive_consistency",
    "certaindex",
    "certaindex_stopping",
    "confidence_weighted_vote",
    "early_stopping",
    "esc_expected_samples",
    "first_finish",
    "fold",
    "majority_probability",
    "majority_vote",
    "short_m_of_k",
]
