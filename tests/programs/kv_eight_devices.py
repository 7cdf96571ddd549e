"""Check the quantised cache on eight devices; failures are assertions.

usage: kv_eight_devices.py MODEL MESH   with
``XLA_FLAGS=--xla_force_host_platform_device_count=8``; MODEL is what
`jeff_llm.models.weights.load` reads, MESH the sizes ``data,fsdp,tensor``.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jeff import sharding
from jeff_llm.generate import batching, decoding
from jeff_llm.kv import CacheConfig, DecoderCache, MakeCache
from jeff_llm.models import weights
from jeff_llm.models.language_model import LanguageModel

# Blocks leave the window at 138 and 266 tokens: in the prompts and behind them.
CONFIG = CacheConfig(group_size=8, window=8, sinks=2)
MAKE = MakeCache(CONFIG, ((4, 2), (8, 8), (4, 2)))
LENGTHS = (280, 130, 5, 138, 137, 265, 1, 150)
PROMPTS = [[(7 * row + t) % 64 for t in range(n)] for row, n in enumerate(LENGTHS)]
NEW = 12

start = jax.jit(decoding.start, static_argnames=("config", "buffer", "make_cache"))
advance = jax.jit(decoding.advance, static_argnames="config")


def states(model: LanguageModel) -> list[decoding.State]:
    """Behind the prompts, and behind the last token."""
    plan = decoding.Plan(
        jax.random.split(jax.random.key(0), 8), None, jnp.array([-1]), ()
    )
    arrays = batching.place(model, *batching.pad(PROMPTS, 8, 288))
    first = start(model.config, model.params, *arrays, plan, buffer=16, make_cache=MAKE)
    return [first, advance(model.config, model.params, first, plan, NEW)]


def check_parts(cache: DecoderCache, mesh: Mesh) -> None:
    """Rows lie with their part of the batch, heads along ``tensor``."""
    for leaf in jax.tree.leaves((cache.blocks, cache.recent)):
        layers, rows, heads, *rest = leaf.shape
        rows //= mesh.shape["data"] * mesh.shape["fsdp"]
        heads //= mesh.shape["tensor"]
        part = leaf.addressable_data(0).shape
        assert part == (layers, rows, heads, *rest), (part, leaf.shape)


def main(path: str, sizes: str) -> None:
    """Load the model on one device and on the mesh, and compare."""
    assert jax.device_count() == 8
    mesh = sharding.make_mesh(*map(int, sizes.split(",")))
    alone, spread = weights.load(path), weights.load(path, mesh=mesh)
    for one, other in zip(states(alone), states(spread), strict=True):
        check_parts(other.cache, mesh)
        np.testing.assert_array_equal(other.tokens, one.tokens)
        np.testing.assert_array_equal(other.cache.lengths, one.cache.lengths)
        # A value that lies between two codes may fall on either side, and then what
        # its row reads from it later moves by more than rounding.
        moved = np.zeros(len(PROMPTS), bool)
        for mine, theirs in zip(
            *map(jax.tree.leaves, (one.cache.blocks, other.cache.blocks)), strict=True
        ):
            differ = np.asarray(mine) != np.asarray(theirs)
            assert differ.mean() < 0.02
            if mine.dtype == jnp.uint32:
                moved |= differ.any(axis=(0, *range(2, differ.ndim)))
        assert moved.mean() < 0.5
        for mine, theirs in zip(one.cache.recent, other.cache.recent, strict=True):
            off = np.abs(np.asarray(theirs) - np.asarray(mine))
            assert off[:, ~moved].max() < 6e-6, off.max()
            assert off.max() < 1e-3, off.max()
