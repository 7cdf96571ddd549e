# %% [markdown]
# # Self-REF: teach a model to say when it does not know
#
# A language model's probabilities are a weak sign of whether its answer is right.
# Self-REF teaches it two tokens: after its own right answers it learns to write `<CN>`
# (confident), after its own wrong ones `<UN>`, and the tokens of a wrong answer are
# left out of the loss, so that no mistake is learned. Its confidence in an answer is
# then
#
# `P(<CN>) / (P(<CN>) + P(<UN>))` right after the answer.
#
# Here SmolLM2 (135M) says in which country a city lies, learns the tokens on half of
# the questions, and judges its answers to the other half.
#
# Paper: Chuang et al., "Learning to Route LLMs with Confidence Tokens", ICML 2025.

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
from jeff_llm.confidence import reading, samples, selfref, uncertainty
from jeff_llm.models import weights

NUM_QUESTIONS = 600
NUM_EPOCHS = 6
FIRST_LAYER = 20
key = jax.random.key(0)
found = assets.bring(["smollm2", "cities", "countries"])
model, tokens = selfref.add_tokens(weights.load("smollm2"))

# %% [markdown]
# ## The model's own answers
#
# `add_tokens` has grown the embedding by two rows, both the mean of all others, so that
# the tokens start equally likely. The model answers as before.

# %%
lands = json.loads(found["countries"].read_bytes())
rows = json.loads(found["cities"].read_bytes()).values()
known = {}  # of cities with one name, the largest
for row in sorted(rows, key=lambda row: -row["population"]):
    known.setdefault(row["name"], lands[row["countrycode"]]["name"])
pool = list(known.items())[:3000]
order = np.random.default_rng(0).permutation(len(pool))[:NUM_QUESTIONS]
asked = [pool[place] for place in order]
prompts = [f"City: {name}\nCountry:" for name, _ in asked]
stops = [model.encode("\n")[0], model.encode("\n\n")[0], *tokens]

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
print(f"right: {correct.mean():.1%}")

# %% [markdown]
# ## Teach it
#
# Only LoRA factors on the attention of the upper layers and the two new rows are
# trained; the layers below are read once for all epochs.

# %%
half = NUM_QUESTIONS // 2
ids = [model.encode(prompt) for prompt in prompts]
examples = selfref.make_examples(
    ids[:half], answers[:half], correct[:half], tokens, key=key, token_weight=4.0
)
for name, token in zip(("<CN>", "<UN>"), tokens, strict=True):
    example = next(each for each in examples if each.tokens[-1] == token)
    print(repr(model.tokenizer.decode(example.tokens[:-1])), name, example.learned)
recipe = selfref.Recipe(num_epochs=NUM_EPOCHS, first_layer=FIRST_LAYER, head=False)
tuned, factors = selfref.fit(model, examples, key=key, recipe=recipe, rows=tokens)

# %% [markdown]
# ## Judge the other half
#
# The tuned model judges the base model's answers to questions that it has not learned
# from. Beside the token, a measure that needs no training, and the token as it was
# before, when it could not tell one answer from another.

# %%
seen = reading.read(model, prompts[half:], answers[half:], next_tokens=list(tokens))
shown = {
    "token": jnp.asarray(
        selfref.confidence(tuned, prompts[half:], answers[half:], tokens)
    ),
    "untaught token": uncertainty.p_true(*jnp.asarray(seen.next_logits).T),
    "perplexity": uncertainty.perplexity_confidence(
        jnp.asarray(seen.log_probs), where=jnp.asarray(seen.where)
    ),
}
small, large = jnp.asarray(correct[half:]), jnp.ones(len(asked) - half, bool)
rates = jnp.linspace(0, 1, 21)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for name, sure in shown.items():
    curve = confidence.curve(sure, small, large, rates)
    print(f"{name}: alignment {curve.alignment:.3f}, normalised area {curve.area:.3f}")
    left.plot(100 * rates, 100 * curve.accuracy, label=f"{name} ({curve.area:.2f})")
left.set(xlabel="passed on to an expert (%)", ylabel="accuracy (%)")
left.legend(fontsize=8, frameon=False)
token = np.asarray(shown["token"])
bins = np.linspace(token.min(), token.max(), 21)
for ok, name in ((True, "right"), (False, "wrong")):
    right.hist(token[correct[half:] == ok], bins, alpha=0.6, label=name)
right.set(xlabel="confidence by the token", ylabel="answers")
right.legend(frameon=False)
plt.show()

# %% [markdown]
# The untaught token routes at random, the taught one does not. But a few hundred
# answers teach it little: it need not beat the measure that costs nothing. With three
# thousand, three seeds and every baseline (`python -m train_scripts.selfref full`) the
# token that judges the base's answers routes better than every measure without
# training.
#
# ## Where to go next
#
# - [docs/confidence.md](../docs/confidence.md): your own questions, what was measured,
#   and when plain fine-tuning is the better choice.
# - `python -m train_scripts.selfref --data questions.jsonl` teaches your own model.
# - `routing.ipynb` makes thresholds from a confidence, one with a guarantee.
