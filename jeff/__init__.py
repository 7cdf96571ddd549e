"""jeff: fair, trustworthy and efficient deep learning as pure jitted functions.

The parts that all systems share: lines in weight space, metrics and their intervals,
the training loop, checkpoints, sharding, files and assets. The methods are in
`jeff.fairness`, `jeff_graph` and `jeff_llm`. Modules are loaded when they are first
used, so that a part that needs no JAX does not import it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that editors know what `__getattr__` brings
    from jeff import (
        assets,
        binomial,
        bootstrap,
        checkpoint,
        fairness,
        line,
        metrics,
        sharding,
        training,
    )

__all__ = [
    "assets",
    "binomial",
    "bootstrap",
    "checkpoint",
    "fairness",
    "line",
    "metrics",
    "sharding",
    "training",
]


def __getattr__(name: str) -> Any:
    """Load a submodule at first use."""
    if name in __all__:
        return importlib.import_module(f"jeff.{name}")
    raise AttributeError(f"module 'jeff' has no attribute {name!r}")
