"""Scores of keys and values: squared norms, of activations or of weights.

References:
  Hariri et al., "Quantize What Counts: More for Keys, Less for Values", 2025.
"""

import warnings
from typing import Literal, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from jeff.checks import check_choice
from jeff_llm.models.config import DecoderConfig

__all__ = ["scores_from_activations", "scores_from_weights"]

Cached: TypeAlias = Float[Array, "layers batch kv_heads tokens head_width"]


def scores_from_activations(
    keys: Cached, values: Cached, where: Bool[Array, "batch tokens"] | None = None
) -> Float[Array, "layers 2"]:
    """Scores of a cache that has seen some text, for any model.

    The squared Frobenius norm of a layer's keys and of its values, divided by the
    number of tokens so that it does not grow with the text. The fields ``keys`` and
    ``values`` of a `jeff_llm.models.cache.PlainCache` will do, with ``arange(capacity)
    < lengths[:, None]`` as ``where``.

    Args:
      keys: keys as they are stored, after normalisation and rotary embedding.
      values: values.
      where: the tokens that are real; all by default.

    Returns:
      Column 0 keys, column 1 values; float32, NaN if no token is real.

    Raises:
      ValueError: if shapes differ, or have not five axes.

    >>> keys, values = jnp.full((1, 1, 2, 3, 4), 2.0), jnp.ones((1, 1, 2, 3, 4))
    >>> scores_from_activations(keys, values)
    Array([[32.,  8.]], dtype=float32)
    """
    if keys.ndim != 5 or keys.shape != values.shape:
        raise ValueError(
            "values: expected [layers, batch, kv_heads, tokens, head_width] as in "
            f"keys, got keys of {keys.shape} and values of {values.shape}"
        )
    if where is not None and where.shape != (keys.shape[1], keys.shape[3]):
        raise ValueError(
            f"where: expected [batch, tokens] = {(keys.shape[1], keys.shape[3])}, got "
            f"{where.shape}"
        )
    # The layers are no part of the mask: one mask serves all of them.
    counted = None if where is None else where[None]
    norms = [
        jnp.mean(jnp.square(x.astype(jnp.float32)).sum((2, 4)), (1, 2), where=counted)
        for x in (keys, values)
    ]
    return jnp.stack(norms, axis=1)


def scores_from_weights(
    config: DecoderConfig,
    params: PyTree,
    norm: Literal["frobenius", "spectral"] = "frobenius",
) -> Float[Array, "layers 2"]:
    """Scores of a model without any text: squared norms of its projections.

    ``||W||_F^2`` or ``||W||_2^2`` of each layer's key and value kernel. Where keys are
    normalised after their projection (Qwen3, Gemma 3) the norm of the kernel does not
    bear on theirs; a warning is issued.

    Args:
      config: the decoder's configuration.
      params: its parameters; the kernels may be of 16 bits, or of eight.
      norm: "frobenius", or "spectral" for the largest singular value.

    Returns:
      Column 0 keys, column 1 values; float32.

    Raises:
      ValueError: if ``norm`` is neither.

    References:
      Hariri et al., "Quantize What Counts", 2025.
    """
    check_choice("norm", norm, ("frobenius", "spectral"))
    if config.qk_norm:
        warnings.warn(
            "config: this model normalises its keys after their projection, so norms "
            "of weights mislead; use scores_from_activations",
            UserWarning,
            stacklevel=2,
        )
    attention = params["layers"]["attention"]
    kernels = [attention[name]["kernel"] for name in ("key", "value")]
    return jnp.stack(
        [_squared_norm(k.astype(jnp.float32), norm) for k in kernels], axis=1
    )


def _squared_norm(
    kernel: Float[Array, "layers fan_in fan_out"], norm: str
) -> Float[Array, " layers"]:
    if norm == "frobenius":
        return jnp.square(kernel).sum((1, 2))
    # The largest eigenvalue of W'W is found far faster than the singular values of W.
    gram = jnp.einsum("lio,lip->lop", kernel, kernel, precision="highest")
    return jnp.linalg.eigvalsh(gram)[:, -1]
