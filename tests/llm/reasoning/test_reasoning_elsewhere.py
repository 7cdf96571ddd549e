"""Test that the functions serve another stack: numpy, another model, light imports."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jeff_llm.reasoning import advantages, grpo, metrics, rewards, voting

ROOT = Path(__file__).parents[3]
# Two prompts with four samples each, as a trainer in numpy logs them.
CORRECT = np.array([True, True, False, False, True, False, True, True])
LENGTH = np.array([12, 30, 20, 64, 40, 10, 22, 31])
GROUP = np.array([3, 3, 3, 3, 8, 8, 8, 8])
FINISHED = LENGTH < 64
REWARD = np.array([0.9, 0.7, 0.0, 0.0, 0.6, 0.1, 0.8, 0.75], np.float32)
ANSWER = np.array([[1, 1, 2, -1, 1], [4, 5, 5, 5, 5]])
WHERE = np.array([[True] * 5, [True] * 4 + [False]])
TOKENS = np.array([[5, 9, 7, 9, 6], [8, 3, 4, 5, 6]])
PARTS = np.array([[4, 3, 5], [6, 2, 0]])
FIRST = (CORRECT, LENGTH)
GROUPED = (CORRECT, LENGTH, GROUP)

CASES = {
    rewards: {
        "adaptive_length_penalty": (GROUPED, {"scale": 0.01}),
        "arora_zanette": (GROUPED, {"finished": FINISHED}),
        "cosine": (FIRST, {"max_length": 64, "finished": FINISHED}),
        "dast": (GROUPED, {"max_length": 64}),
        "kimi": (GROUPED, {}),
        "l1_exact": (FIRST, {"target": LENGTH // 2}),
        "l1_max": (FIRST, {"target": 20}),
        "laser": (FIRST, {"target": LENGTH // 2}),
        "laser_target": (GROUPED, {"lengths": (16, 32, 64)}),
        "o1_pruner": (
            FIRST,
            {
                "reference_length": np.full(8, 30.0),
                "reference_correct": np.full(8, 0.5),
            },
        ),
        "soft_overlong": ((LENGTH,), {"max_length": 40, "buffer": 20}),
        "thinkprune": (FIRST, {"stage": 1, "limits": (64, 32)}),
        "thinkprune_limit": ((1, (64, 32)), {}),
        "truncation": (FIRST, {"limit": 25, "finished": FINISHED}),
    },
    advantages: {
        "batch_normalised": ((REWARD, GROUP), {}),
        "gfpo_keep": (
            (LENGTH, GROUP),
            {"keep": 2, "by": "reward_per_token", "reward": REWARD},
        ),
        "group_normalised": ((REWARD, GROUP), {"where": FINISHED}),
        "leave_one_out": ((REWARD, GROUP), {}),
    },
    metrics: {
        "accuracy_at_budget": ((CORRECT, LENGTH, np.array([10.0, 40.0])), {}),
        "aes": ((np.array([0.8, 0.9]), np.array([30.0, 80.0]), 0.85, 60.0), {}),
        "area_under_budget": (FIRST, {"max_budget": 64}),
        "compression_rate": ((LENGTH, LENGTH + 5), {}),
        "outcome_efficiency": ((PARTS > 3, PARTS, np.array([12, 8])), {}),
        "process_efficiency": ((PARTS % 2, PARTS, np.array([12, 8])), {}),
        "tokens_per_correct": (FIRST, {}),
    },
    voting: {
        "adaptive_consistency": ((ANSWER,), {"length": TOKENS, "where": WHERE}),
        "certaindex": ((ANSWER,), {"where": WHERE}),
        "certaindex_stopping": ((ANSWER,), {"least": 2, "where": WHERE}),
        "confidence_weighted_vote": ((ANSWER, TOKENS / 10), {"where": WHERE}),
        "early_stopping": ((ANSWER,), {"window": 2, "length": TOKENS}),
        "esc_expected_samples": (
            (np.array([0.7, 0.3]),),
            {"window": 5, "limit": 40},
        ),
        "first_finish": ((ANSWER,), {"length": TOKENS, "where": WHERE}),
        "majority_probability": ((np.array([3, 5]), np.array([1, 5])), {}),
        "majority_vote": ((ANSWER,), {"length": TOKENS, "where": WHERE}),
        "short_m_of_k": ((ANSWER,), {"finish": 2, "order": TOKENS, "where": WHERE}),
    },
}
ALL = [(module, name) for module, cases in CASES.items() for name in cases]
# A record is no function; `fold` groups rows by names and works on numpy alone.
OTHERS = {"BatchAdvantages", "Folded", "Vote", "fold"}


@pytest.mark.parametrize("module", CASES)
def test_no_function_is_forgotten(module) -> None:
    assert set(module.__all__) - set(CASES[module]) <= OTHERS


def on_device(values):
    """Arrays of numpy as JAX's; all else as it is."""
    return jax.tree.map(
        lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, values
    )


@pytest.mark.parametrize(("module", "name"), ALL)
def test_numpy_gives_what_jax_gives(module, name) -> None:
    function, (arguments, options) = getattr(module, name), CASES[module][name]
    found = function(*arguments, **options)
    expected = function(*on_device(arguments), **on_device(options))
    chex.assert_trees_all_equal(found, expected)
    chex.assert_tree_all_finite(expected)


def test_the_loss_takes_numpy() -> None:
    rng = np.random.default_rng(0)
    old, new, reference = (
        rng.normal(-1, 0.3, (8, 5)).astype(np.float32) for _ in range(3)
    )
    given = (new, old, REWARD, np.arange(5) < (LENGTH % 6)[:, None])
    options = {"kl_weight": 0.1, "normalise": "token"}
    found = grpo.policy_loss(*given, reference=reference, **options)
    expected = grpo.policy_loss(
        *on_device(given), reference=on_device(reference), **options
    )
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


# A model of somebody else's: the next token depends on the last one alone.
VOCABULARY, STEPS, PROMPTS, GROUP_SIZE = 5, 8, 4, 16
END, RIGHT, START = 0, 1, 4


class Bigram(nnx.Module):
    """Logits of the next token from the last one."""

    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(VOCABULARY, 16, rngs=rngs)
        self.head = nnx.Linear(16, VOCABULARY, rngs=rngs)

    def __call__(self, tokens):
        return jax.nn.log_softmax(self.head(self.embed(tokens)))


class Drawn(NamedTuple):
    tokens: jax.Array
    log_probs: jax.Array
    mask: jax.Array


def draw(model, key) -> Drawn:
    """Samples up to and including the end token."""

    def step(carry, key):
        last, open_ = carry
        logits = model(last)
        token = jax.random.categorical(key, logits)
        chosen = jnp.take_along_axis(logits, token[:, None], 1)[:, 0]
        return (token, open_ & (token != END)), (token, chosen, open_)

    samples = PROMPTS * GROUP_SIZE
    start = jnp.full(samples, START), jnp.ones(samples, bool)
    _, columns = jax.lax.scan(step, start, jax.random.split(key, STEPS))
    return Drawn(*(each.T for each in columns))


def test_another_model_learns_short_right_answers(key) -> None:
    """Flax NNX and optax in one jitted step; right is what says RIGHT at any place."""
    graph, params = nnx.split(Bigram(nnx.Rngs(0)))
    optimizer = optax.adam(0.05)
    group = jnp.repeat(jnp.arange(PROMPTS), GROUP_SIZE)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, state, key):
        drawn = draw(nnx.merge(graph, params), key)
        length = drawn.mask.sum(1)
        finished = ((drawn.tokens == END) & drawn.mask).any(1)
        correct = ((drawn.tokens == RIGHT) & drawn.mask).any(1) & finished
        reward = rewards.arora_zanette(
            correct, length, group, scale=0.5, finished=finished
        )
        advantage = advantages.group_normalised(reward, group)

        def loss(params):
            last = jnp.roll(drawn.tokens, 1, axis=1).at[:, 0].set(START)
            chosen = jnp.take_along_axis(
                nnx.merge(graph, params)(last), drawn.tokens[..., None], 2
            )[..., 0]
            return grpo.policy_loss(chosen, drawn.log_probs, advantage, drawn.mask)

        (_, measured), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state, params)
        found = {"correct": correct.mean(), "length": length.mean(), **measured}
        return optax.apply_updates(params, updates), state, found

    state, history = optimizer.init(params), []
    for number in range(80):
        params, state, found = step(params, state, jax.random.fold_in(key, number))
        history.append(found)
    # The scores of the samples' own tokens are those of the sampling loop.
    assert float(history[0]["ratio"]) == pytest.approx(1, abs=1e-5)
    assert float(history[0]["correct"]) < 0.7
    assert np.mean([each["correct"] for each in history[-5:]]) > 0.95
    # The shortest right answer has two tokens.
    assert 2 <= np.mean([each["length"] for each in history[-5:]]) < 2.5
    chex.assert_tree_all_finite(history)


@pytest.mark.parametrize(
    "names",
    [
        ["rewards", "voting", "metrics", "losses"],
        ["advantages", "stopping", "selection", "curation", "guarantee", "traces"],
    ],
)
def test_functions_of_arrays_import_no_network(names) -> None:
    program = f"""
import importlib, sys
for name in {names}:
    importlib.import_module("jeff_llm.reasoning." + name)
heavy = {{"flax", "orbax", "optax", "tokenizers", "matplotlib", "jeff_llm.models",
          "jeff_llm.generate"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
