"""Methods on language models, and the runtime that they stand on.

`models` has the decoder, the encoder, weights, tokenizers and LoRA; `generate` runs a
decoder, `chat` talks to models, local or remote, `finetune` prepares training. Modules
are loaded at first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that editors know what `__getattr__` brings
    from jeff_llm import chat, finetune, generate, models, sampling, structured

__all__ = ["chat", "finetune", "generate", "models", "sampling", "structured"]


def __getattr__(name: str) -> Any:
    """Load a submodule at first use."""
    if name in __all__:
        return importlib.import_module(f"jeff_llm.{name}")
    raise AttributeError(f"module 'jeff_llm' has no attribute {name!r}")
