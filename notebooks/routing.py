# %% [markdown]
# # Routing: which answers of a small model to keep
#
# A small language model answers; a large one costs more and knows more. Which queries
# can the small one keep? Pass on those about which it is least sure: with confidence
# `c` and a threshold `t`, the query goes to the large model where `c <= t`.
#
# Here SmolLM2 (135M) says in which country a city lies. You measure its confidence in
# three ways, see what each share of passed-on queries gains, choose a threshold for an
# accuracy, for a budget and with a guarantee, and see what happens when the traffic
# changes.
#
# Paper: Chuang et al., "Confident or Seek Stronger: Exploring Uncertainty-Based
# On-device LLM Routing From Benchmarking to Generalization", 2025.

# %%
import importlib.util

if importlib.util.find_spec("jeff") is None:  # in a clone, install -e ".[scripts,llm]"
    # %pip install -q "jeff-jax[scripts,llm]"
    importlib.invalidate_caches()

# %%
import json

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jeff import assets
from jeff_llm import confidence, generate
from jeff_llm.confidence import reading, samples, uncertainty
from jeff_llm.models import weights

NUM_QUESTIONS = 600
found = assets.bring(["smollm2", "cities", "countries"])
model = weights.load("smollm2")

# %% [markdown]
# ## Questions, and the model's own answers
#
# Large cities are easy and small ones are hard, so the questions have a natural scale
# of difficulty. They are sorted by it: the first half asks about larger cities.

# %%
lands = json.loads(found["countries"].read_bytes())
rows = json.loads(found["cities"].read_bytes()).values()
known = {}  # of cities with one name, the largest
for row in sorted(rows, key=lambda row: -row["population"]):
    known.setdefault(row["name"], lands[row["countrycode"]]["name"])
pool = list(known.items())[:3000]
order = np.random.default_rng(0).permutation(len(pool))[:NUM_QUESTIONS]
asked = [pool[place] for place in sorted(order)]
prompts = [f"City: {name}\nCountry:" for name, _ in asked]
stops = [model.encode("\n")[0], model.encode("\n\n")[0]]

answers = []
for begin in range(0, len(prompts), 100):
    out = generate.generate(
        model, prompts[begin : begin + 100], max_new_tokens=8, stop_ids=stops
    )
    ends = np.maximum(out.lengths - out.finished, 1)
    answers += [row[:end].tolist() for row, end in zip(out.tokens, ends, strict=True)]

texts = [model.tokenizer.decode(answer).strip() for answer in answers]
said = [samples.normalise(text) for text in texts]
wanted = [samples.normalise(country) for _, country in asked]
correct = np.array(said) == np.array(wanted)
for (name, country), text, ok in list(zip(asked, texts, correct, strict=True))[:5]:
    print(f"{name}: {text}" + ("" if ok else f" (no: {country})"))
half = len(asked) // 2
print(
    f"right: {correct.mean():.1%}; of the larger cities {correct[:half].mean():.1%}, "
    f"of the smaller ones {correct[half:].mean():.1%}"
)

# %% [markdown]
# ## How sure is it?
#
# One pass over questions and answers gives the probabilities of the answers' tokens,
# and the distributions they were drawn from. Alignment is the AUROC of a confidence for
# predicting right answers: it says whether right and wrong can be told apart, which
# calibration does not. The area is 0 for random routing and 1 for an oracle.

# %%
seen = reading.read(model, prompts, answers)
log_probs, there = jnp.asarray(seen.log_probs), jnp.asarray(seen.where)
measures = {
    "mean probability": uncertainty.average_token_probability(log_probs, where=there),
    "perplexity": uncertainty.perplexity_confidence(log_probs, where=there),
    "margin": jnp.asarray(seen.margin[:, 0]),
}
small, large = jnp.asarray(correct), jnp.ones(len(correct), bool)
rates = jnp.linspace(0, 1, 21)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for name, sure in measures.items():
    curve = confidence.curve(sure, small, large, rates)
    print(f"{name}: alignment {curve.alignment:.3f}, normalised area {curve.area:.3f}")
    left.plot(100 * rates, 100 * curve.accuracy, label=f"{name} ({curve.area:.2f})")
best = np.minimum(correct.mean() + rates, 1)
left.plot(100 * rates, 100 * best, "--", color="grey", label="oracle (1)")
left.plot([0, 100], [100 * correct.mean(), 100], ":", color="grey", label="random (0)")
left.set(xlabel="passed on (%)", ylabel="accuracy (%)")
left.legend(fontsize=8, frameon=False)
sure = measures["perplexity"]
bins = np.linspace(0, 1, 21)
for ok, name in ((True, "right"), (False, "wrong")):
    right.hist(np.asarray(sure)[correct == ok], bins, alpha=0.6, label=name)
right.set(xlabel="confidence by perplexity", ylabel="answers")
right.legend(frameon=False)
plt.show()

# %% [markdown]
# On the left, the large model is taken to be always right. Every measure gains on
# random routing and none reaches an oracle. On the right, why: the model is unsure of
# many right answers, too.
#
# ## A threshold for a purpose
#
# For a target accuracy, for a budget (here the large model costs 1 a query), or with a
# guarantee: answers that are kept are wrong at most 40% of the time, with probability
# 90% over the draw of these questions. Where nothing can be proved, the threshold is
# infinite and every question is passed on.

# %%
routers = {
    "accuracy of 80%": confidence.for_accuracy(sure, small, large, 0.8),
    "cost of 0.5": confidence.for_budget(sure, small, large, 0.5),
    "at most 40% wrong": confidence.with_guarantee(
        sure, small, max_error=0.4, delta=0.1
    ),
}
for name, router in routers.items():
    kept = ~np.asarray(router(sure))
    share = f"{kept.mean():.1%} of the answers are kept"
    errors = f", {1 - correct[kept].mean():.1%} of them wrong" if kept.any() else ""
    print(f"{name}: threshold {router.threshold:.3f}, {share}{errors}")

# %% [markdown]
# ## When the traffic changes
#
# Thresholds were made on the larger cities. What do they do on the smaller ones?

# %%
calibration = confidence.calibrate(
    sure[:half], small[:half], large[:half], key=jax.random.key(0), share=1.0
)
carried = confidence.transfer(
    calibration, sure[half:], small[half:], large[half:], rates
)
figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
axes.plot([0, 100], [0, 100], ":", color="grey", label="asked for, larger cities")
axes.plot(100 * rates, 100 * carried.actual_rates, ".-", label="smaller cities")
axes.set(xlabel="share to pass on, asked for (%)", ylabel="passed on (%)")
axes.legend(frameon=False)
plt.show()
print(
    f"share passed on is off by {carried.rate_error:.1%} on average, "
    f"accuracy by {carried.accuracy_error:.1%}"
)

# %% [markdown]
# The model is less sure of smaller cities, so the same threshold passes on more of them
# than was asked for, and costs more. Calibrate on your own traffic, and again when it
# changes.
#
# ## Where to go next
#
# - [docs/confidence.md](../docs/confidence.md): your own logs, costs, and how the
#   guarantee works.
# - `python -m train_scripts.routing --data logs.jsonl` does this for your logs and
#   writes the thresholds to a file; [docs/serving.md](../docs/serving.md) serves with
#   it.
# - `selfref.ipynb` teaches the model a token that reports its confidence.
