"""One decoder and one encoder, their weights, tokenizers and adapters.

`weights` loads a `LanguageModel`, `encoder` a sentence encoder. `decoder`, `bert` and
`cache` are the networks; `lora`, `adapters` and `quantized` change a decoder's
parameters. Modules are loaded at first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that editors know what `__getattr__` brings
    from jeff_llm.models import (
        adapters,
        cache,
        config,
        decoder,
        encoder,
        lora,
        quantized,
        tensors,
        tokenizer,
        weights,
    )

__all__ = [
    "adapters",
    "cache",
    "config",
    "decoder",
    "encoder",
    "lora",
    "quantized",
    "tensors",
    "tokenizer",
    "weights",
]


def __getattr__(name: str) -> Any:
    """Load a submodule at first use."""
    if name in __all__:
        return importlib.import_module(f"jeff_llm.models.{name}")
    raise AttributeError(f"module 'jeff_llm.models' has no attribute {name!r}")
