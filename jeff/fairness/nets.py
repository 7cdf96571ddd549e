"""Networks for the fairness experiments: the paper's MLP and a small CNN.

The methods never need these: they take ``apply_fn(params, inputs)`` and a pytree. Here
flax.nnx modules are split into such a pair.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jeff.fairness.model import ApplyFn, Line
from jeff.networks import dropout, functional

__all__ = ["CNN", "MLP", "cnn_line", "mlp_line"]

# PyTorch's default for linear and convolution layers: U(-1/sqrt(fan_in), +same).
_torch_kernel = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_xavier_normal = jax.nn.initializers.glorot_normal()


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
                for fan_in, fan_out in itertools.pairwise(widths)
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
        # A sigmoid in the last hidden layer, as in the paper's network.
        return head(jax.nn.sigmoid(last(x)))[:, 0]


class _Convolution(nnx.Module):
    """A 3x3 convolution with zero padding, as one matrix product over patches.

    On a CPU the gradient of XLA's convolution is many times slower than this, and
    convolutions vmapped over their kernels slower still.
    """

    def __init__(
        self, fan_in: int, fan_out: int, *, kernel_init: nnx.Initializer, rngs: nnx.Rngs
    ):
        self.patches = nnx.Linear(
            9 * fan_in, fan_out, kernel_init=kernel_init, rngs=rngs
        )

    def __call__(self, x: Float[Array, "batch height width channels"]) -> Array:
        _, height, width, _ = x.shape
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        # Nine shifted copies side by side are the patches; their order is that of the
        # kernel.
        shifted = [
            padded[:, row : row + height, column : column + width]
            for row in range(3)
            for column in range(3)
        ]
        return self.patches(jnp.concatenate(shifted, axis=-1))


class CNN(nnx.Module):
    """Two 3x3 convolutions, mean pooling to 4 x 4, one hidden layer, one logit.

    The side of the image is a multiple of 8.
    """

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
        self.first = _Convolution(
            num_channels, width, kernel_init=kernel_init, rngs=rngs
        )
        self.second = _Convolution(width, 2 * width, kernel_init=kernel_init, rngs=rngs)
        self.hidden = nnx.Linear(
            16 * 2 * width, 4 * width, kernel_init=kernel_init, rngs=rngs
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
        x = jax.nn.relu(self.second(x))
        # Any multiple of 8 is pooled to 4 x 4, so the head has one size.
        window = (x.shape[1] // 4, x.shape[2] // 4)
        x = nnx.avg_pool(x, window, strides=window).reshape(x.shape[0], -1)
        x = jax.nn.relu(self.hidden(x))
        if key is not None:
            x = dropout(x, self.dropout_rate, key=key)
        return self.head(x)[:, 0]


def mlp_line(
    num_features: int, *, key: PRNGKeyArray, **options: Any
) -> tuple[ApplyFn, Line]:
    """The paper's network and an untrained line of it.

    Args:
      num_features: width of the input.
      key: random key; the two ends are drawn independently.
      **options: ``hidden`` and ``dropout_rate`` of `MLP`.

    Returns:
      ``(apply_fn, line)``: the start has PyTorch's default initialisation, the end
      Xavier-normal kernels and zero biases.
    """
    return _line(MLP, num_features, key, options)


def cnn_line(
    num_channels: int, *, key: PRNGKeyArray, **options: Any
) -> tuple[ApplyFn, Line]:
    """The small CNN and an untrained line of it.

    Args:
      num_channels: channels of the image.
      key: random key; the two ends are drawn independently.
      **options: ``width`` and ``dropout_rate`` of `CNN`.

    Returns:
      ``(apply_fn, line)``, as `mlp_line`.
    """
    return _line(CNN, num_channels, key, options)


def _line(
    network: type[MLP] | type[CNN],
    size: int,
    key: PRNGKeyArray,
    options: dict[str, Any],
) -> tuple[ApplyFn, Line]:
    keys = jax.random.split(key)
    apply_fn, start = functional(network(size, **options, rngs=nnx.Rngs(keys[0])))
    _, end = functional(network(size, **options, xavier=True, rngs=nnx.Rngs(keys[1])))
    return apply_fn, Line(start, end)


def _bias_init(fan_in: int, xavier: bool) -> nnx.Initializer:
    if xavier:
        return jax.nn.initializers.zeros
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32, out_sharding=None: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )
