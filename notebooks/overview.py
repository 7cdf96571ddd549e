# %% [markdown]
# # jeff in ten cells
#
# jeff has ten published methods for fair, trustworthy and efficient deep learning.
# Below each of them is one cell of a few lines on tiny data, with a number or a plot.
# Run all of them in a few minutes on a CPU, then open the notebook of the system that
# you need.

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
import optax

from jeff import assets, fairness, metrics
from jeff.fairness import nets as line_nets
from jeff_graph import cells, editing
from jeff_graph.editing import loaders, nets, newton, training
from jeff_llm import anomaly, clinic, confidence, generate, genes, kv, reasoning
from jeff_llm.clinic import rules
from jeff_llm.confidence import reading, samples, selfref, uncertainty
from jeff_llm.kv import evaluation
from jeff_llm.models import encoder, weights
from jeff_llm.reasoning import voting

NUM_CELLS = 4000
NUM_QUESTIONS = 200
NUM_EPOCHS = 4
NUM_GRAPH_EPOCHS = 200
FIRST_LAYER = 24
key = jax.random.key(0)
found = assets.bring(
    [
        "smollm2",
        "cities",
        "countries",
        "minilm",
        "minilm_tokenizer",
        "hpo",
        "hpo_annotations",
        "hpo_genes",
    ]
)

# %% [markdown]
# ## 1. YODO: every trade-off between accuracy and fairness from one training
#
# People whose group raises their outcome; a line of small networks from the accurate to
# the fair end. Every dot is a model that you can choose after training.

# %%
x = jax.random.normal(key, (4096, 4))
group = jax.random.bernoulli(key, 0.5, (4096,)).astype(int)
label = (x[:, 0] + group > 0.5).astype(int)
people = fairness.Examples(jnp.column_stack([x, group]), label, group)
network, ends = line_nets.mlp_line(5, key=key)
line = fairness.train(network, ends, people, key=key, optimizer=optax.adam(3e-3))
levels = fairness.evaluate(network, line, people, jnp.linspace(0, 1, 21))
figure, axes = plt.subplots(figsize=(4, 2.6), layout="constrained")
axes.plot(100 * levels.demographic_parity, 100 * levels.accuracy, ".-")
axes.set(xlabel="gap between the groups (%)", ylabel="accuracy (%)")
plt.show()

# %% [markdown]
# ## 2. GRE: correct a mistake of a graph network
#
# A graph network reads digits with their neighbours. One misread node is corrected with
# the least change to all others.

# %%
graph, labels = loaders.load_digits_graph()
parts = editing.split(labels, 50, 1000, key=key)
apply_fn, params = nets.split_net(nets.make_net("gcn", 64, 10, key=key))
fitted = training.fit(
    apply_fn, params, graph, labels, parts, key=key, num_epochs=NUM_GRAPH_EPOCHS
)
says = apply_fn(fitted.params, graph).argmax(1)
node = int(np.flatnonzero(parts.valid & (says != labels))[0])
editor = editing.Editor.start(
    newton.minimal_edit(apply_fn),
    fitted.params,
    editing.make_task(graph, labels, parts.train),
    parts.test,
    key=key,
)
editor, outcome = editor.edit(node)
print(
    f"node {node} was read as {says[node]}, now as {editor.logits()[node].argmax()}, "
    f"and is a {labels[node]}; test accuracy lost: {outcome.drawdown:.1f} points"
)

# %% [markdown]
# ## 3. Gene pairs: the few cells that suffice
#
# Two of six simulated cell types have 1% of the cells each. A weighted sample of 2% of
# the cells does not lose them.

# %%
source = cells.simulate_cells(NUM_CELLS, seed=0)
view = cells.collect(
    cells.prepare(source, cells.make_recipe(source, num_genes=200)), "type"
)
hashing = cells.hash_parameters(key, len(view.genes), num_hashes=200)
sketch = cells.sketch_cells(view.chunks(), hashing)
density = cells.score_cells(view.chunks(), hashing, sketch)
diverse = cells.diversity_weights(density, power=2.0, least_effective=0.3)
few = cells.sample(diverse.log_weight, NUM_CELLS // 50, key=key)
rare = np.isin(view.column("type"), ["type4", "type5"])
print(
    f"rare cells: {rare.mean():.1%} of all, "
    f"{rare[np.asarray(few.cells)].mean():.1%} of the sample"
)

# %% [markdown]
# ## 4. KV-AdaQuant: more bits for keys than for values
#
# Keys of a language model are larger than its values, so a budget of three bits goes to
# them. The packed cache is then a fraction of the 16-bit one.

# %%
model = weights.load("smollm2")
text = jnp.asarray([model.encode("The cache of a decoder takes memory. " * 40)[:256]])
keys, values = evaluation.activations(model, text)
bits = kv.allocate_bits(kv.scores_from_activations(keys, values), 3)
size = {
    widths: kv.nbytes(
        jax.eval_shape(
            lambda widths=widths: kv.MakeCache(kv.CacheConfig(*widths))(
                model.config, 1, 32_768, jnp.bfloat16
            )
        )
    )
    for widths in ((16, 16), (4, 2))
}
print(f"mean bits of keys {bits[:, 0].mean():.1f}, of values {bits[:, 1].mean():.1f}")
print(f"memory at 32,768 tokens: {size[4, 2] / size[16, 16]:.1%} of 16 bits")

# %% [markdown]
# ## 5. Uncertainty routing: which answers of a small model to keep
#
# SmolLM2 says in which country a city lies. The least sure answers go to a large model,
# here one that is always right.

# %%
lands = json.loads(found["countries"].read_bytes())
rows = json.loads(found["cities"].read_bytes()).values()
rows = sorted(rows, key=lambda row: -row["population"])[: 10 * NUM_QUESTIONS : 10]
prompts = [f"City: {row['name']}\nCountry:" for row in rows]
stops = [model.encode("\n")[0], model.encode("\n\n")[0]]
out = generate.generate(model, prompts, max_new_tokens=8, stop_ids=stops)
answers = [
    row[: max(n - 1, 1)].tolist()
    for row, n in zip(out.tokens, out.lengths, strict=True)
]
correct = jnp.array(
    [
        samples.normalise(model.tokenizer.decode(answer))
        == samples.normalise(lands[row["countrycode"]]["name"])
        for answer, row in zip(answers, rows, strict=True)
    ]
)
seen = reading.read(model, prompts, answers)
sure = uncertainty.perplexity_confidence(
    jnp.asarray(seen.log_probs), where=jnp.asarray(seen.where)
)
curve = confidence.curve(sure, correct, jnp.ones_like(correct), jnp.array([0, 0.3]))
print(f"accuracy {curve.accuracy[0]:.0%}; with 30% passed on {curve.accuracy[1]:.0%}")

# %% [markdown]
# ## 6. Self-REF: a token that reports whether to trust an answer
#
# The model learns two tokens on half of its own answers, and judges the other half. An
# AUROC of 0.5 is chance.

# %%
taught, tokens = selfref.add_tokens(model)
train, test = slice(0, NUM_QUESTIONS, 2), slice(1, NUM_QUESTIONS, 2)
examples = selfref.make_examples(
    [model.encode(prompt) for prompt in prompts[train]],
    answers[train],
    correct[train],
    tokens,
    key=key,
    token_weight=4.0,
)
recipe = selfref.Recipe(num_epochs=NUM_EPOCHS, first_layer=FIRST_LAYER, head=False)
tuned, _ = selfref.fit(taught, examples, key=key, recipe=recipe, rows=tokens)
token = selfref.confidence(tuned, prompts[test], answers[test], tokens)
print(f"AUROC of the token: {metrics.auroc(jnp.asarray(token), correct[test]):.2f}")
print(f"of the probabilities: {metrics.auroc(sure[test], correct[test]):.2f}")

# %% [markdown]
# ## 7. Efficient reasoning: votes that stop early
#
# 500 questions with 40 samples each. A rule stops as soon as the vote is clear; without
# any label the guarantee bounds how often it differs from the full vote.

# %%
rng = np.random.default_rng(0)
votes = np.where(rng.random((500, 40)) < 0.8, 7, rng.integers(0, 9, (500, 40)))
full, early = voting.majority_vote(votes), voting.adaptive_consistency(votes)
agreement = reasoning.agreement_guarantee(full.answer, {"adaptive": early}, delta=0.1)
print(
    f"{early.samples.mean():.1f} samples in place of 40; differs from the full vote in "
    f"at most {agreement.bound[0]:.1%} of questions, with probability 90%"
)

# %% [markdown]
# ## 8. Gene prioritisation: which gene explains a patient, and why
#
# Four findings against the profiles of all genes of the Human Phenotype Ontology. For
# research; not a medical device.

# %%
hpo = genes.load()
terms = ["Arachnodactyly", "Ectopia lentis", "Aortic root aneurysm", "Tall stature"]
patient = genes.from_terms(terms, hpo)[0][0].phenotypes
rank = genes.OntologyRanker(hpo)
order = rank(patient, hpo.annotations.genes).order
best = [hpo.annotations.genes[place] for place in order[:5]]
print(f"of {len(order):,} genes:", ", ".join(best))
print("\n".join(genes.explain(hpo, rank.tables, patient, best)[0].lines()))

# %% [markdown]
# ## 9. AD-LLM: which text does not belong
#
# Sixty normal messages and no labels. The p-value is the share of normal texts that
# look as strange; the nearest normal text is the reason.

# %%
hours = range(1, 13)
normal = [
    f"See you at {hour} for {what}?"
    for hour in hours
    for what in ("lunch", "tea", "coffee", "class", "the match")
]
new = [normal.pop(31), "URGENT! Claim your prize on 0900 123"]
encoders = {"minilm": encoder.load("minilm").encode}
detector = anomaly.fit(normal, encoders, key=key)
scored = anomaly.score(detector, new, encoders)
for words, p_value, near in zip(new, scored.p_value, scored.nearest, strict=True):
    print(f"p = {p_value:.2f}  {words}  (nearest: {detector.texts[near[0]]})")

# %% [markdown]
# ## 10. Dialogue tuning: find the evidence of a case
#
# Sentences of a case are shuffled among those of other patients. A rule that reads them
# against chance; and the case as a dialogue for fine-tuning, checked fact by fact.

# %%
questions = clinic.simulate_questions(hpo, 200, key=key)
items = clinic.make_items(questions).items
mazes = clinic.make_mazes(items, noise=(0, 3), key=key)[3]
picks = [rules.usual_order(maze, rules.bm25(maze)) for maze in mazes]
position = clinic.evaluate(mazes, picks).position.mean()
chance = clinic.expected_random(mazes).position.mean()
print(f"right sentence at its position: {position:.1%}, by chance {chance:.1%}")
talk = clinic.to_dialogue(items[0])
clinic.check(items[0], talk.messages)
for message in talk.messages[:4]:
    print(f"{message['role']:>9}: {message['content']}")

# %% [markdown]
# ## Where to go next
#
# Each system has a notebook of its own beside this one: `yodo`, `gre`, `wds`, `kv`,
# `routing`, `selfref`, `reasoning`, `genes`, `anomaly`, `dialogue`.
# [README.md](../README.md) has one line of code for each, and
# [docs/results.md](../docs/results.md) every tested claim of the papers.
