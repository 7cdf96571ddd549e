"""Methods on language models, and their runtime.

`models` has the decoder, the encoder, weights, tokenizers and LoRA. `generate` runs a
decoder, `chat` talks to local and remote models, `tuning` trains them, `kv` packs their
cache, `confidence` estimates which answers to trust, and `reasoning` shortens chains of
thought. Modules are loaded at first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that editors know what `__getattr__` brings
    from jeff_llm import chat, confidence, generate, kv, models, reasoning, tuning

__all__ = ["chat", "confidence", "generate", "kv", "models", "reasoning", "tuning"]


def __getattr__(name: str) -> Any:
    """Load a submodule at first use."""
    if name in __all__:
        return importlib.import_module(f"jeff_llm.{name}")
    raise AttributeError(f"module 'jeff_llm' has no attribute {name!r}")
