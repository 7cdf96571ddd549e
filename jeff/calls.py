"""Call a network of any library, with a random key where it takes one."""

import inspect
from collections.abc import Callable
from typing import Any

from jaxtyping import PRNGKeyArray, PyTree

__all__ = ["call"]


def call(
    apply_fn: Callable[..., Any],
    params: PyTree,
    inputs: PyTree,
    key: PRNGKeyArray | None,
) -> Any:
    """Call a network, with a random key if one is given and the network accepts it.

    Args:
      apply_fn: ``apply_fn(params, inputs)``. If it has a parameter named ``key``, it
        gets the key; if it has one named ``rngs``, as Linen's ``module.apply`` has,
        ``rngs={"dropout": key}``.
      params: parameters of the network.
      inputs: inputs of the network.
      key: random key, or None to run without noise.

    Returns:
      What the network returns.
    """
    if key is None:
        return apply_fn(params, inputs)
    # Look for the parameter by name, so that a network without dropout need not have
    # an unused one; ``**kwargs`` may go to the model itself.
    parameters = inspect.signature(apply_fn).parameters
    if "key" in parameters:
        return apply_fn(params, inputs, key=key)
    if "rngs" in parameters:
        return apply_fn(params, inputs, rngs={"dropout": key})
    return apply_fn(params, inputs)
