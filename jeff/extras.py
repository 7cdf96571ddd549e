"""Import optional packages; an error names the command that installs them."""

import importlib
from typing import Any

__all__ = ["require"]


def require(module: str, *, extra: str) -> Any:
    """Import a module of an optional extra.

    Args:
      module: dotted name of the module.
      extra: extra of jeff's distribution that installs it.

    Returns:
      The module.

    Raises:
      ImportError: if the module cannot be imported; gives the install command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} cannot be imported ({error}); "
            f"run: pip install 'jeff-jax[{extra}]'"
        ) from error
