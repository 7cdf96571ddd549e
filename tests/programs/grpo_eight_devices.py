"""Check that a GRPO step on eight devices gives the update of one device.

usage: grpo_eight_devices.py   with
``XLA_FLAGS=--xla_force_host_platform_device_count=8``.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jeff import sharding, training
from jeff_llm.models import decoder
from jeff_llm.reasoning import arithmetic, grpo, policy, rewards

CONFIG = arithmetic.model_config(width=32, num_layers=1)


def reward(rollout: policy.Rollout, answer, group, step):
    """A length reward of the group, so that samples of other devices matter."""
    even = rollout.tokens % 2 == answer[:, None] % 2
    correct = jnp.where(rollout.mask, even, False).mean(axis=1) > 0.3
    return rewards.arora_zanette(correct, rollout.length, group, scale=0.4), {}


def main() -> None:
    """A step on one device and on eight."""
    acting = policy.decoder_policy(CONFIG, max_new_tokens=12, stop_ids=[3, 7, 9])
    optimizer = optax.sgd(0.1)
    step = jax.jit(grpo.make_step(acting, reward, optimizer, group_size=4))
    drawn = arithmetic.draw(8, seed=0)
    batch = policy.Prompts(
        *(jnp.asarray(each) for each in (drawn.tokens, drawn.mask, drawn.answer))
    )
    params = decoder.init(CONFIG, key=jax.random.key(0))
    params = jax.tree.map(lambda leaf: 8 * leaf if leaf.ndim > 1 else leaf, params)
    state = training.init_state(params, optimizer, key=jax.random.key(1))
    mesh = sharding.make_mesh(8, 1, 1)
    spread = sharding.shard_batch(batch, mesh), sharding.replicate(state, mesh)
    assert len(spread[0].tokens.devices()) == 8
    one, mine = step(state, batch)
    other, theirs = step(spread[1], spread[0])
    # Draws are discrete: equal lengths and rewards mean equal tokens.
    assert float(mine["length"]) == float(theirs["length"])
    np.testing.assert_allclose(mine["reward"], theirs["reward"], atol=1e-6)
    assert float(mine["reward"]) > 0
    chex.assert_trees_all_close(
        jax.device_get(other.params), jax.device_get(one.params), atol=2e-5
    )
    moved = jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), one.params, params)
    assert max(jax.tree.leaves(moved)) > 1e-3
