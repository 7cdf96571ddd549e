"""Fine-tuning: packed examples, losses, and training of upper layers alone."""

from jeff_llm.tuning.finetune import (
    Example,
    Packed,
    encode_examples,
    loss,
    most_targets,
    pack,
    token_loss,
)

__all__ = [
    "Example",
    "Packed",
    "encode_examples",
    "loss",
    "most_targets",
    "pack",
    "token_loss",
]
