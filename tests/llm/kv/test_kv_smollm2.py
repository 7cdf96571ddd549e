"""Test the outputs of a real model with a quantised cache against full precision."""

from pydoc_data.topics import topics

import numpy as np
import pytest

from jeff_llm.generate import generate
from jeff_llm.kv import CacheConfig, MakeCache
from jeff_llm.models.cache import init_cache

pytestmark = pytest.mark.slow

# Blocks leave the default window at 260 and 388 tokens.
LENGTHS = (236, 366)
NEW = 28


def test_greedy_tokens(smollm2) -> None:
    """With 8 bits all are the same; with 4 bits most. English prompts, one batch."""
    names = ("execmodel", "naming")
    prompts = [
        smollm2.encode(topics[name])[:length]
        for name, length in zip(names, LENGTHS, strict=True)
    ]
    assert tuple(map(len, prompts)) == LENGTHS
    exact, eight, four = (
        generate(
            smollm2, prompts, max_new_tokens=NEW, stop_ids=[], make_cache=make
        ).tokens
        for make in (
            init_cache,
            MakeCache(CacheConfig(8, 8)),
            MakeCache(CacheConfig(4, 4)),
        )
    )
    assert exact.shape == (2, NEW)
    np.testing.assert_array_equal(eight, exact)
    agreed = (four == exact).mean()
    print(f"4 bits: {agreed:.0%} of the tokens are those of full precision")
    assert agreed >= 0.5
