"""Frozen lower layers, read once for all epochs of the upper ones.

Where LoRA is in the upper layers alone, the lower ones give the same hidden states in
every epoch. `read` computes them once for packed rows, `upper` is the decoder that
continues from them, and `restore` extends its factors to all layers. An epoch then
costs the upper layers only, and the backward pass ends where they begin.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jeff_llm.models import decoder, lora
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.tuning.finetune import Packed

__all__ = ["cut", "read", "restore", "upper"]


def read(
    model: LanguageModel, packed: Packed, layer: int, *, batch_size: int = 16
) -> Float[np.ndarray, "rows tokens width"]:
    """Hidden states below a layer.

    Args:
      model: the model.
      packed: rows, as `jeff_llm.tuning.finetune.pack` makes them.
      layer: layers below it are run, at least 1 of them.
      batch_size: rows at a time.

    Returns:
      The layer's inputs.

    Raises:
      ValueError: if the model has fewer layers.
    """
    _check(model.config, layer)
    # The last hidden state of a decoder is normalised, so one layer more is included.
    config = _cut(model.config, 0, layer + 1)
    params = _slice(model.params, 0, layer + 1)
    found = []
    for begin in range(0, len(packed.tokens), batch_size):
        # The last batch is filled up with first rows: one shape, one program.
        some = np.arange(begin, begin + batch_size) % len(packed.tokens)
        batch = jax.tree.map(lambda x: jnp.asarray(x[some]), packed)  # noqa: B023
        rows = min(batch_size, len(packed.tokens) - begin)
        # On the host: hidden states of a data set may exceed the device's memory.
        found.append(np.asarray(_read(config, params, batch, layer))[:rows])
    return np.concatenate(found)


def upper(model: LanguageModel, layer: int) -> LanguageModel:
    """The layers from a given one on, with unchanged head and embedding.

    Args:
      model: the model.
      layer: the first that is kept.

    Returns:
      A model of fewer layers; pass it ``embedded=`` of `decoder.apply`.

    Raises:
      ValueError: if the model has fewer layers.
    """
    _check(model.config, layer)
    count = model.config.num_layers
    return model._replace(
        config=_cut(model.config, layer, count),
        params=_slice(model.params, layer, count),
    )


def restore(factors: lora.Lora, config: DecoderConfig, layer: int) -> lora.Lora:
    """Factors of the upper layers as factors of all: zeros for those below.

    Args:
      factors: of the model that `upper` gave.
      config: of the whole model.
      layer: the first layer of `upper`.

    Returns:
      The factors, for the whole model.

    Raises:
      ValueError: if the model has fewer layers.
    """
    _check(config, layer)
    return _change(
        factors, lambda f: jnp.pad(f, ((layer, 0), *[(0, 0)] * (f.ndim - 1)))
    )


def cut(factors: lora.Lora, layer: int) -> lora.Lora:
    """Factors of all layers as factors of the upper ones; the inverse of `restore`.

    Args:
      factors: of the whole model.
      layer: the first layer of `upper`.

    Returns:
      The factors, for the model of `upper`.
    """
    return _change(factors, lambda f: f[layer:])


def _change(factors: lora.Lora, change: Callable[[Array], Array]) -> lora.Lora:
    changed = {
        path: jax.tree.map(change, pair) if path.startswith("layers/") else pair
        for path, pair in factors.factors.items()
    }
    return dataclasses.replace(factors, factors=changed)


@functools.partial(jax.jit, static_argnames=("config", "layer"))
def _read(config: DecoderConfig, params: PyTree, batch: Packed, layer: int) -> Array:
    out = decoder.apply(
        config,
        params,
        batch.tokens,
        mask=batch.segments > 0,
        positions=batch.positions,
        segments=batch.segments,
        select=jnp.zeros((len(batch.tokens), 1), jnp.int32),
        hidden_layers=(layer,),
    )
    return out.hidden[0]


def _cut(config: DecoderConfig, begin: int, end: int) -> DecoderConfig:
    sliding = config.sliding_layers
    return dataclasses.replace(
        config,
        num_layers=end - begin,
        sliding_layers=sliding and sliding[begin:end],
    )


def _slice(params: PyTree, begin: int, end: int) -> PyTree:
    layers = jax.tree.map(lambda leaf: leaf[begin:end], params["layers"])
    return {**params, "layers": layers}


def _check(config: DecoderConfig, layer: int) -> None:
    if not 1 <= layer < config.num_layers:
        raise ValueError(
            f"layer: expected 1 to {config.num_layers - 1} of {config.num_layers} "
            f"layers, got {layer}"
        )
