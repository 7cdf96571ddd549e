"""Check what takes a mesh on eight devices against one; failures are assertions.

Run with ``XLA_FLAGS=--xla_force_host_platform_device_count=8`` and the name of a check.
"""

import jax
import numpy as np
import pytest

from jeff import sharding
from jeff_graph import cells
from jeff_graph.cells import celluformer, interactions, training
from jeff_llm import genes
from jeff_llm.genes import scoring, simulate
from jeff_llm.genes.tables import make_tables
from jeff_llm.models import encoder


def meshes() -> list[jax.sharding.Mesh]:
    """All devices along one axis, and along all three."""
    return [sharding.make_mesh(8), sharding.make_mesh(2, 2, 2)]


def sentences() -> None:
    """Each device embeds its part of every batch."""
    texts = [
        "",
        "one",
        "two words",
        "a longer text " * 30,
        *(f"text {i}" for i in range(40)),
    ]
    alone = encoder.load("minilm").encode(texts)
    seen = []
    embed = encoder._embed

    def spy(params, config, tokens, mask, **options):
        seen.append((len(tokens), len(tokens.addressable_data(0))))
        return embed(params, config, tokens, mask, **options)

    for mesh, parts in zip(meshes(), (8, 4), strict=True):
        encoder._embed = spy
        try:
            split = encoder.load("minilm", mesh=mesh)
            np.testing.assert_allclose(split.encode(texts), alone, atol=2e-6)
        finally:
            encoder._embed = embed
        assert seen
        assert all(rows == parts * own for rows, own in seen)
        seen.clear()


def maps_of_cells() -> None:
    """A training and a map of pairs over a mesh are those of one device."""
    rng = np.random.default_rng(0)
    tokens = cells.make_tokens(rng.poisson(1.0, (50, 12)).astype(np.float32))
    labels = rng.integers(0, 2, 50)
    shape = celluformer.Config(12, 2, 8, 2, 1, 16, 0.0)
    apply_fn = celluformer.make_apply(shape)
    params = celluformer.init(shape, key=jax.random.key(0))

    def trained(mesh):
        return training.fit(
            apply_fn,
            params,
            tokens,
            labels,
            key=jax.random.key(1),
            num_epochs=2,
            batch_size=16,
            mesh=mesh,
        )

    attention = celluformer.make_attention(shape)
    alone = trained(None)
    sums = interactions.pair_sums(attention, alone.params, tokens, 12)
    for mesh in meshes():
        split = trained(mesh)
        assert abs(split.loss - alone.loss) < 1e-5
        placed = sharding.replicate(alone.params, mesh)
        found = interactions.pair_sums(attention, placed, tokens, 12, batch_size=20)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            found,
            sums,
        )
    with pytest.raises(ValueError, match=r"multiple of 8.* got 15 rows"):
        training.fit(
            apply_fn,
            params,
            tokens,
            labels,
            key=jax.random.key(1),
            batch_size=15,
            mesh=sharding.make_mesh(8),
        )


def patients() -> None:
    """Batches of patients go to the devices in turn; the caller's own stays."""
    hpo = genes.load()
    tables = make_tables(hpo)
    cases = simulate.simulate_cases(hpo, 70, key=jax.random.key(0))
    observed = [case.phenotypes for case in cases]
    measures = ("resnik_both_ways",)
    alone = scoring.score(tables, observed, measures)
    split = scoring.score(tables, observed, measures, mesh=sharding.make_mesh(8))
    for name in measures:
        np.testing.assert_allclose(split[name], alone[name], rtol=1e-5)


def main(name: str) -> None:
    """One check."""
    assert jax.device_count() == 8
    {"sentences": sentences, "cells": maps_of_cells, "patients": patients}[name]()
