# %% [markdown]
# # Think less, answer as well
#
# Reasoning models write long chains of thought, and much of a chain is redundant. Here
# you train a small reasoning model, shorten its thoughts with reinforcement learning
# and a length reward,
#
# `reward = correct * (1 - scale * sigmoid((length - mean) / deviation))`, over the
# right samples of a question,
#
# stop votes early with a guarantee, and compare all of it on one plane: accuracy
# against tokens. No data are needed.
#
# Survey: Sui et al., "Stop Overthinking: A Survey on Efficient Reasoning for Large
# Language Models", 2025.

# %%
import importlib.util

if importlib.util.find_spec("jeff") is None:  # in a clone, install -e ".[scripts,llm]"
    # %pip install -q "jeff-jax[scripts,llm]"
    importlib.invalidate_caches()

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from jeff import training
from jeff_llm import generate, reasoning, tuning
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.reasoning import (
    advantages,
    arithmetic,
    decoding,
    grpo,
    metrics,
    policy,
    rewards,
    voting,
)

SIGNS = "*"  # "+-*" takes twice the layers and the steps
WIDTH = 128
NUM_LAYERS = 2
NUM_EXAMPLES = 20_000
NUM_STEPS = 400
BATCH_SIZE = 8
NUM_RL_STEPS = 24
NUM_PROMPTS = 16
NUM_QUESTIONS = 60
NUM_SAMPLES = 40
MAX_TOKENS = 128
key = jax.random.key(0)
config = arithmetic.model_config(width=WIDTH, num_layers=NUM_LAYERS)

# %% [markdown]
# ## A model that thinks too long
#
# Questions are chains of multiplications modulo 10. Worked solutions check their own
# steps again and again (`W`), as large models do.

# %%
questions = arithmetic.draw(NUM_EXAMPLES, seed=0, signs=SIGNS)
examples = arithmetic.worked(questions, seed=0)
print(arithmetic.decode(examples[0].tokens))
packed = jax.tree.map(jnp.asarray, tuning.pack(examples, 256))
schedule = optax.warmup_cosine_decay_schedule(0, 2e-3, 40, max(NUM_STEPS, 41))
optimizer = optax.adamw(schedule, b2=0.98)
fitted = training.fit(
    training.make_step(lambda p, batch, _: tuning.loss(config, p, batch), optimizer),
    training.init_state(arithmetic.init(config, key=key), optimizer, key=key),
    training.Shuffled(packed, BATCH_SIZE, key),
    num_steps=NUM_STEPS,
    chunk_steps=min(NUM_STEPS, 100),
    progress=False,
)
base = LanguageModel(config, fitted.state.params, None)
test = arithmetic.draw(NUM_QUESTIONS, seed=1, signs=SIGNS)


def solve(model, samples=4, **options):
    """Samples of the test questions at temperature 1, [questions, samples]."""
    drawn = generate.generate(
        model,
        [row for row in test.prompts for _ in range(samples)],
        max_new_tokens=MAX_TOKENS,
        sampling=generate.Sampling(1.0),
        keys=key,
        stop_ids=[arithmetic.END],
        **options,
    )
    answer = np.repeat(test.answer, samples)
    found = arithmetic.read(drawn.tokens, drawn.lengths, drawn.finished, answer)
    return [np.asarray(each).reshape(-1, samples) for each in found[:3]]


answers, correct, length = solve(base, samples=NUM_SAMPLES)
print(f"one sample: {correct.mean():.1%} right with {length.mean():.0f} tokens")
plane = {"one sample": (length.mean(), correct.mean())}

# %% [markdown]
# ## A length reward
#
# Each reward of the literature is one function of (correct, length, group) arrays, so
# it also serves trainers other than jeff's. Below, of three right answers the longest
# gets least. `grpo.make_step` joins rollouts, reward and update into one jitted step.

# %%
print(rewards.arora_zanette([1, 1, 0, 1], [20, 40, 30, 60], [0, 0, 0, 0], scale=0.5))


def reward(rollout, answer, group, step):
    read = arithmetic.read(rollout.tokens, rollout.length, rollout.finished, answer)
    value = rewards.arora_zanette(read.correct, rollout.length, group, scale=0.1)
    return value, {"correct": read.correct.mean()}


optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-4, b2=0.95))
acting = policy.decoder_policy(
    config, max_new_tokens=MAX_TOKENS, stop_ids=[arithmetic.END]
)
step = grpo.make_step(
    acting,
    reward,
    optimizer,
    group_size=8,
    advantage_fn=lambda value, _, group: advantages.leave_one_out(value, group),
)
pool = arithmetic.draw(1000, seed=2, signs=SIGNS)
prompts = policy.Prompts(*map(jnp.asarray, (pool.tokens, pool.mask, pool.answer)))
shortened = training.fit(
    step,
    training.init_state(base.params, optimizer, key=key),
    training.Shuffled(prompts, NUM_PROMPTS, key),
    num_steps=NUM_RL_STEPS,
    chunk_steps=max(1, NUM_RL_STEPS // 8),
    progress=False,
)
for row in shortened.history:
    print({name: round(row[name], 2) for name in ("step", "correct", "length")})
short = base._replace(params=shortened.state.params)
_, right, tokens = solve(short)
plane["reinforcement learning"] = (tokens.mean(), right.mean())
score = metrics.aes(right.mean(), tokens.mean(), correct.mean(), length.mean())
print(f"accuracy-efficiency score against one sample: {score:.2f}")

# %% [markdown]
# ## Controls while decoding
#
# A logit processor suppresses the token that starts another check. Budget forcing
# closes the thought at a cap.

# %%
size = config.vocab_size
controls = {
    "no wait": decoding.no_wait([arithmetic.WAIT], size),
    "cap of 32": decoding.budget_forcing(
        arithmetic.CLOSE, arithmetic.WAIT, waits=0, max_tokens=32, vocab_size=size
    ),
}
for name, control in controls.items():
    _, right, tokens = solve(base, processors=[control])
    plane[name] = (tokens.mean(), right.mean())
    print(f"{name}: {right.mean():.1%} right with {tokens.mean():.0f} tokens")

# %% [markdown]
# ## Votes that stop early, with a guarantee
#
# A rule looks at the samples of a question one after another. Without any label,
# `agreement_guarantee` bounds how often its answer differs from the vote of all
# samples.

# %%
full = voting.majority_vote(answers, length=length)
rules = {
    f"vote of {NUM_SAMPLES}": full,
    "ESC, window 5": voting.early_stopping(answers, window=5, length=length),
    "adaptive, 0.95": voting.adaptive_consistency(answers, length=length),
    "adaptive, 0.8": voting.adaptive_consistency(answers, threshold=0.8, length=length),
}
for name, vote in rules.items():
    right = np.asarray(vote.answer) == test.answer
    plane[name] = (float(vote.tokens.mean()), right.mean())
    print(f"{name}: {right.mean():.1%} right, {float(vote.samples.mean()):.1f} samples")
early = {name: vote for name, vote in rules.items() if vote is not full}
agreement = reasoning.agreement_guarantee(full.answer, early, delta=0.1)
for name, bound in zip(agreement.names, agreement.bound, strict=True):
    print(f"{name}: differs from the full vote in at most {bound:.1%} of the questions")
print(reasoning.choose_rule(agreement, max_disagreement=0.1))

# %% [markdown]
# ## On one plane
#
# Up is more accurate, left is cheaper.

# %%
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for name, (tokens, right) in plane.items():
    axes.plot(tokens, 100 * right, "o", label=name)
axes.set(xscale="log", xlabel="tokens per question", ylabel="accuracy (%)")
axes.grid(alpha=0.3)
figure.legend(loc="outside right upper", frameon=False)
plt.show()

# %% [markdown]
# ## Where to go next
#
# - [docs/reasoning.md](../docs/reasoning.md): your own traces, all rewards, and every
#   branch on one plane.
# - `python -m train_scripts.reasoning --data traces.jsonl` says, for your own traces,
#   which rule saves how much, with the guarantee.
# - `python -m train_scripts.reasoning full` compares every branch with five seeds.
