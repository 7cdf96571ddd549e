"""Optional packages: imported where they are needed, named where they are missing."""

import importlib
from typing import Any

__all__ = ["require"]


def require(module: str, *, extra: str) -> Any:
    """Import a module of an optional extra.

    Args:
      module: dotted name.
      extra: the extra of the distribution that has it.

    Returns:
      The module.

    Raises:
      ImportError: if it is not installed; names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} cannot be imported ({error}); "
            f"run: pip install 'jeff-jax[{extra}]'"
        ) from error
