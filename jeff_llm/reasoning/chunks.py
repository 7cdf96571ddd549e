"""Gradients of sampled completions, a chunk of rows of similar length at a time.

Completions differ in length, and a batch is as wide as its longest. Sorted by length
and cut into chunks, most rows are computed at a fraction of the width, and what must be
kept for the backward pass is that of one chunk. The result is the same gradient.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from jeff.steps import Metrics
from jeff_llm.reasoning.losses import Normalise
from jeff_llm.reasoning.policy import Prompts, Rollout

__all__ = ["Samples", "chunked_gradient"]

# A chunk is cut to the least of these shares of the width that holds it; each is
# compiled once.
_SHARES = (0.25, 0.5, 0.75, 1.0)


class Samples(NamedTuple):
    """Completions and what the loss needs of them, a row each.

    Attributes:
      prompts: their prompts, without context.
      rollout: the completions.
      advantage: of each.
      mask: tokens that count.
      reference: log-probabilities under the reference, or None.
    """

    prompts: Prompts
    rollout: Rollout
    advantage: Float[Array, " samples"]
    mask: Bool[Array, "samples tokens"]
    reference: Float[Array, "samples tokens"] | None


def chunked_gradient(
    loss_fn: Callable[[PyTree, Samples], tuple[Array, Metrics]],
    params: PyTree,
    samples: Samples,
    *,
    num_chunks: int,
    normalise: Normalise,
) -> tuple[tuple[Array, Metrics], PyTree]:
    """Loss and gradient of all samples, summed over chunks.

    Args:
      loss_fn: ``(params, samples) -> (loss, metrics)``, as
        `jeff_llm.reasoning.losses.policy_loss`; the metrics are means over tokens.
      params: what is trained.
      samples: the samples; their number is a multiple of ``num_chunks``.
      num_chunks: chunks, at least 1; static.
      normalise: how ``loss_fn`` divides, as in `policy_loss`.

    Returns:
      ``((loss, metrics), gradient)``, up to rounding those of one call.

    Raises:
      ValueError: if the samples cannot be divided evenly.
    """
    rows, width = samples.mask.shape
    if num_chunks < 1 or rows % num_chunks:
        raise ValueError(
            f"num_chunks: expected a divisor of the {rows} samples, got {num_chunks}"
        )
    order = jnp.argsort(-samples.rollout.length)
    chunks = jax.tree.map(
        lambda leaf: leaf[order].reshape(num_chunks, -1, *leaf.shape[1:]), samples
    )
    widths = sorted({max(1, round(share * width)) for share in _SHARES})
    total = jnp.maximum(samples.mask.sum(), 1)

    def gradient(cut: int) -> Callable[[Samples], tuple[tuple[Array, Metrics], PyTree]]:
        # The loss that divides by the largest length sees a smaller one.
        factor = cut / width if normalise == "constant" else 1.0

        def scaled(params: PyTree, chunk: Samples) -> tuple[Array, Metrics]:
            loss, metrics = loss_fn(params, chunk)
            return factor * loss, metrics

        return lambda chunk: jax.value_and_grad(scaled, has_aux=True)(
            params, _cut(chunk, cut)
        )

    def add(carry: PyTree, chunk: Samples) -> tuple[PyTree, None]:
        longest = chunk.rollout.length.max()
        branch = jnp.sum(jnp.asarray(widths[:-1]) < longest)
        (loss, metrics), grads = jax.lax.switch(
            branch, [gradient(cut) for cut in widths], chunk
        )
        tokens = chunk.mask.sum() / total
        share = tokens if normalise == "token" else 1 / num_chunks
        found = (
            (share * loss, {name: tokens * x for name, x in metrics.items()}),
            jax.tree.map(lambda grad: share * grad, grads),
        )
        return jax.tree.map(jnp.add, carry, found), None

    first = jax.tree.map(lambda leaf: leaf[0], chunks)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(gradient(width), first),
    )
    return jax.lax.scan(add, zeros, chunks)[0]


def _cut(samples: Samples, width: int) -> Samples:
    """The first tokens of each completion."""
    rollout = samples.rollout._replace(
        tokens=samples.rollout.tokens[:, :width],
        log_probs=samples.rollout.log_probs[:, :width],
    )
    reference = samples.reference
    return samples._replace(
        rollout=rollout,
        mask=samples.mask[:, :width],
        reference=None if reference is None else reference[:, :width],
    )
