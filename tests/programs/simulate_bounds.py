"""Simulate the bounds of the library at small counts, and print how often they hold.

usage: simulate_bounds.py   (about two minutes; seed 0)
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jeff.bootstrap import bootstrap_interval
from jeff.fairness import bounds
from jeff_graph import cells


def gaps(rng: np.random.Generator, truth: float, draws: int = 2000) -> None:
    """One level of `choose_alpha`: how often a limit of .25 at 95% is accepted."""
    bound = functools.cache(functools.partial(bounds.gap_bound, delta=0.05))
    shares = []
    for members in (1, 2, 3, 10, 100):
        trials = (400, members)
        events = rng.binomial(trials, (0.6, 0.6 - truth), (draws, 2)).tolist()
        shares.append(np.mean([bound(tuple(e), trials) <= 0.25 for e in events]))
    print(f"gap {truth}, 1, 2, 3, 10, 100 members: {percent(shares)} accepted")


def weighted_gaps(rng: np.random.Generator, draws: int = 500) -> None:
    """The same with weights that follow the decision; true weighted gap .25."""
    failed, widths = [], []
    for members in (3, 10, 100, 400):
        group = np.arange(400 + members) < members
        found = []
        for _ in range(draws):
            # Favoured people weigh 2 and others 1: a rate p becomes 2p / (1 + p).
            rate = np.where(group, 0.2, 0.4118)
            decided = rng.random(len(group)) < rate
            weight = np.where(decided, 2.0, 1.0)
            order = rng.permutation(len(group))
            given = decided[order], group[order], weight[order]
            found.append(bounds.weighted_gap_bound(*given, largest=2.0, delta=0.05))
        failed.append(np.mean(np.array(found) < 2 * 0.4118 / 1.4118 - 0.4 / 1.2))
        widths.append(np.mean(found))
    print(f"weighted gap, 3, 10, 100, 400 members: {percent(failed)} below the truth")
    print(f"  mean bound {np.round(widths, 2).tolist()}, true gap .25")


def bootstrap(rng: np.random.Generator, draws: int = 1500) -> None:
    """Percentile intervals of a mean of normal numbers."""
    shares = []
    for rows in (2, 5, 10, 30):

        def covers(x: jax.Array, key: jax.Array) -> jax.Array:
            _, low, high = bootstrap_interval(jnp.mean, (x,), key=key)
            return (low <= 0) & (high >= 0)

        x = jnp.asarray(rng.normal(size=(draws, rows)), jnp.float32)
        keys = jax.random.split(jax.random.key(rows), draws)
        held = jax.jit(
            lambda x, keys, one=covers: jax.lax.map(lambda a: one(*a), (x, keys))
        )
        shares.append(held(x, keys).mean())
    print(f"bootstrap of a mean, 2, 5, 10, 30 rows: {percent(shares)} covered")


def pairs(name: str, draw: Callable[[int], np.ndarray], truth: float) -> None:
    """`pair_interval`: 190 pairs, each with cells of its own, eight times."""
    shares = []
    places = np.triu_indices(20, 1)
    for number in (2, 10, 100):
        covered = []
        for seed in range(8):
            rng = np.random.default_rng(seed)
            values = draw(number)
            copies = rng.poisson(1.0, (200, number, 190))
            copies = np.concatenate([np.ones((1, number, 190)), copies])
            score, weight = np.zeros((2, 201, 20, 20), np.float32)
            for part, total in ((score, copies * values), (weight, copies)):
                part[:, *places] = part[:, places[1], places[0]] = total.sum(1)
            sums = (score, weight, weight, np.full((20, 20), number))
            ends = cells.pair_interval(cells.PairSums(*map(jnp.asarray, sums)))
            low, high = (np.asarray(end)[places] for end in ends)
            covered.append((low <= truth) & (high >= truth))
        shares.append(np.mean(covered))
    print(f"pair_interval, {name}, 2, 10, 100 cells: {percent(shares)} covered")


def products(rng: np.random.Generator, number: int, positives: int) -> None:
    """`product_test` without any interaction: 8,000 pairs of skewed counts."""
    found = []
    for _ in range(40):
        x = np.log1p(rng.poisson(rng.gamma(0.5, 2, size=(1, 30)), size=(number, 30)))
        label = rng.permutation(number) < positives
        chosen = rng.permutation(np.stack(np.triu_indices(30, 1), 1))[:200]
        test = cells.product_test(x, label, chosen)
        z = np.abs(np.asarray(test.statistic))
        found.append(
            np.stack([test.p_value, 2 * np.asarray(jax.scipy.stats.norm.sf(z))])
        )
    p, normal = np.concatenate(found, axis=1)
    levels = (0.05, 0.01, 0.001)
    print(
        f"product_test, {positives} of {number}: P(p < .05, .01, .001) "
        f"{percent([np.mean(p < a) for a in levels])}; by the normal distribution "
        f"{percent([np.mean(normal < a) for a in levels])}"
    )


def percent(shares: list) -> str:
    return ", ".join(f"{100 * float(share):.2f}%" for share in shares)


def main() -> None:
    rng = np.random.default_rng(0)
    gaps(rng, 0.30)
    gaps(rng, 0.25)
    weighted_gaps(rng)
    bootstrap(rng)
    pairs("normal", lambda n: rng.normal(3, 0.5, (n, 190)), 3.0)
    pairs("exponential", lambda n: rng.exponential(1.0, (n, 190)), 1.0)
    for number, positives in ((100, 10), (1000, 10), (300, 30), (1000, 500)):
        products(rng, number, positives)


if __name__ == "__main__":
    main()
