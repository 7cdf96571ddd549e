"""Networks for the fairness experiments: the paper's MLP and a small CNN.

The methods never need these: they take ``apply_fn(params, inputs)`` and a pytree. Here
flax.nnx modules are split into such a pair.

Dropout draws one random byte a unit instead of the usual 32 bits, which makes the
random numbers a small part of a training step on a CPU. The rate is therefore rounded
to a multiple of 1/256, and the kept units are scaled by the rounded rate.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PyTree, UInt8

__all__ = ["CNN", "MLP", "dropout", "functional", "make_cnn", "make_mlp"]

ApplyFn = Callable[..., Float[Array, " batch"]]

# PyTorch's default for linear and convolution layers: U(-1/sqrt(fan_in), +same).
_torch_kernel = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_xavier_normal = jax.nn.initializers.glorot_normal()


def dropout(x: Float[Array, "..."], rate: float, *, key: Array) -> Float[Array, "..."]:
    """Zero each unit with probability ``rate`` and rescale the rest.

    ``x m / (1 - rate)`` with ``m ~ Bernoulli(1 - rate)``; the rate is rounded to a
    multiple of 1/256, so that a byte decides a unit.

    Args:
      x: activations, any shape.
      rate: probability of dropping a unit, in [0, 1).
      key: random key.

    Returns:
      An array like ``x`` with the same expectation.

    Raises:
      ValueError: if ``rate`` lies outside [0, 1) after rounding.

    References:
      Srivastava et al., "Dropout", JMLR 2014.
    """
    threshold = round(rate * 256)
    if not 0 <= threshold < 256:
        raise ValueError(f"rate: expected a probability in [0, 1), got {rate}")
    if threshold == 0:
        return x
    byte: UInt8[Array, "..."] = jax.random.bits(key, x.shape, jnp.uint8)
    scale = 256 / (256 - threshold)
    return jnp.where(byte >= threshold, x * jnp.asarray(scale, x.dtype), 0)


class MLP(nnx.Module):
    """The paper's network: n-256-256-256-1, dropout after the first two layers.

    ReLU after layers 1 and 2, a sigmoid after layer 3, one logit out. Dropout acts
    only where a key is given, so evaluation cannot leave it on by mistake.
    """

    def __init__(
        self,
        num_features: int,
        hidden: tuple[int, ...] = (256, 256, 256),
        dropout_rate: float = 0.5,
        *,
        xavier: bool = False,
        rngs: nnx.Rngs,
    ):
        """Create the layers.

        Args:
          num_features: width of the input.
          hidden: widths of the hidden layers.
          dropout_rate: probability of dropping a unit in training.
          xavier: draw Xavier-normal kernels and zero biases (the paper's fair end)
            instead of PyTorch's default (its accurate end).
          rngs: random keys for the initial parameters.
        """
        widths = (num_features, *hidden, 1)
        self.dropout_rate = dropout_rate
        self.layers = nnx.List(
            [
                nnx.Linear(
                    fan_in,
                    fan_out,
                    kernel_init=_xavier_normal if xavier else _torch_kernel,
                    bias_init=_bias_init(fan_in, xavier),
                    rngs=rngs,
                )
                for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True)
            ]
        )

    def __call__(
        self, x: Float[Array, "batch features"], *, key: Array | None = None
    ) -> Float[Array, " batch"]:
        """Logits of the favourable outcome, shape [batch]."""
        *hidden, last, head = self.layers
        for index, layer in enumerate(hidden):
            x = jax.nn.relu(layer(x))
            if key is not None:
                x = dropout(x, self.dropout_rate, key=jax.random.fold_in(key, index))
        return head(jax.nn.sigmoid(last(x)))[:, 0]


class CNN(nnx.Module):
    """Two 3x3 convolutions, mean pooling, one hidden layer, one logit."""

    def __init__(
        self,
        num_channels: int,
        width: int = 16,
        dropout_rate: float = 0.25,
        *,
        xavier: bool = False,
        rngs: nnx.Rngs,
    ):
        """Create the layers.

        Args:
          num_channels: channels of the image.
          width: channels of the first convolution; the second has twice as many.
          dropout_rate: probability of dropping a hidden unit in training.
          xavier: as in `MLP`.
          rngs: random keys for the initial parameters.
        """
        kernel_init = _xavier_normal if xavier else _torch_kernel
        self.dropout_rate = dropout_rate
        self.first = nnx.Conv(
            num_channels, width, (3, 3), kernel_init=kernel_init, rngs=rngs
        )
        self.second = nnx.Conv(
            width, 2 * width, (3, 3), kernel_init=kernel_init, rngs=rngs
        )
        self.hidden = nnx.Linear(
            2 * width, 4 * width, kernel_init=kernel_init, rngs=rngs
        )
        self.head = nnx.Linear(4 * width, 1, kernel_init=kernel_init, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        *,
        key: Array | None = None,
    ) -> Float[Array, " batch"]:
        """Logits of the favourable outcome, shape [batch]."""
        x = jax.nn.relu(self.first(x))
        x = nnx.avg_pool(x, (2, 2), strides=(2, 2))
        x = jax.nn.relu(self.second(x)).mean(axis=(1, 2))
        x = jax.nn.relu(self.hidden(x))
        if key is not None:
            x = dropout(x, self.dropout_rate, key=key)
        return self.head(x)[:, 0]


def functional(module: nnx.Module) -> tuple[ApplyFn, PyTree]:
    """Split a flax.nnx module into a pure function and its parameters.

    Args:
      module: a module whose only state is its parameters.

    Returns:
      ``(apply_fn, params)``: ``apply_fn(params, inputs, **kwargs)`` calls the module,
      and ``params`` is a nested dictionary of arrays.

    Raises:
      ValueError: if the module holds state that is not a parameter (batch statistics,
        random streams), which a line in weight space cannot interpolate.
    """
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)
    if jax.tree.leaves(rest):
        raise ValueError(
            "module: expected parameters alone, got other state at "
            f"{[path for path, _ in nnx.to_flat_state(rest)]}; use layers without it"
        )

    def apply_fn(params: PyTree, inputs: Array, **kwargs: Any) -> Array:
        return nnx.merge(graphdef, nnx.State(params))(inputs, **kwargs)

    return apply_fn, nnx.to_pure_dict(params)


def _bias_init(fan_in: int, xavier: bool) -> nnx.Initializer:
    if xavier:
        return jax.nn.initializers.zeros
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32, out_sharding=None: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )
