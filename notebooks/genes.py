# %% [markdown]
# # Which gene explains this patient?
#
# A clinician describes a patient with terms of the Human Phenotype Ontology (HPO). Here
# you rank more than five thousand genes by these terms in milliseconds, read the
# reasons, see how a ranker's answer depends on the order of its input, and free it of
# that.
#
# The default ranker sums over the observed terms `t` how well a disease explains each
# of them:
#
# `max(0, c + max over ancestors a of (IC(a) + w ln f(a)) - IC(t))`,
#
# with `IC` the information of a term and `f` its frequency in the disease.
#
# For research; it is not a medical device.
#
# Paper: "Survey and improvement strategies for gene prioritization with large language
# models", 2025.

# %%
import importlib.util

if importlib.util.find_spec("jeff") is None:  # in a clone, install -e ".[scripts,llm]"
    # %pip install -q "jeff-jax[scripts,llm]"
    importlib.invalidate_caches()

# %%
import time

import jax
import matplotlib.pyplot as plt
import numpy as np

from jeff import assets
from jeff_llm import genes
from jeff_llm.genes import bias, biased, candidates, conquer, simulate

NUM_CASES = 60
NUM_CANDIDATES = 30
NUM_SHUFFLES = 3
key = jax.random.key(0)
assets.bring(["hpo", "hpo_annotations", "hpo_genes"])
hpo = genes.load()
print(hpo.releases, len(hpo.annotations.genes), "genes")

# %% [markdown]
# ## One patient
#
# Terms are ids or names; a minus says that a finding was looked for and is absent.

# %%
terms = ["Arachnodactyly", "Ectopia lentis", "Aortic root aneurysm", "Tall stature"]
patient = genes.from_terms([*terms, "-Intellectual disability"], hpo)[0][0].phenotypes
rank = genes.OntologyRanker(hpo)
rank(patient, hpo.annotations.genes)  # compiles once

began = time.perf_counter()
found = genes.OntologyRanker(hpo, tables=rank.tables)(patient, hpo.annotations.genes)
print(f"{1000 * (time.perf_counter() - began):.0f} ms")
best = [hpo.annotations.genes[place] for place in found.order[:5]]
print(best)

# %% [markdown]
# FBN1 is the gene of Marfan syndrome.
#
# ## Why these genes
#
# Each observed term says which annotation of the disease it met, over which common
# ancestor, and what it adds. The lines of a gene make up its score.

# %%
why = genes.explain(hpo, rank.tables, patient, best)
for line in why[0].lines() + why[1].lines():
    print(line)
parts = why[0]
total = parts.constant + parts.size + parts.overlap
total += sum(term.contribution for term in parts.terms)
assert np.isclose(total, parts.score, atol=1e-3)

# %% [markdown]
# ## Many patients
#
# Real phenopackets are read with `genes.from_phenopackets`. These cases are simulated
# from HPO's annotations, with terms dropped, made imprecise and added; so they are
# easier than real ones.

# %%
cases = simulate.simulate_cases(hpo, NUM_CASES, key=key)
scored = genes.score_cases(
    hpo,
    rank.tables,
    [case.phenotypes for case in cases],
    ["resnik_one_way", "simgic", "naive_bayes", "combined"],
)
place = {gene: column for column, gene in enumerate(hpo.annotations.genes)}
causal = np.array([place[case.gene] for case in cases])
for name, each in scored.items():
    ranks = genes.rank_of(np.where(np.isfinite(each.genes), each.genes, -1e9), causal)
    top1 = genes.evaluate(ranks, causal, key=key).top1
    print(f"{name}: {top1.estimate:.0%} right ({top1.low:.0%} to {top1.high:.0%})")

# %% [markdown]
# ## A ranker with a bias
#
# Language models favour what stands first in a list and what is well known. The
# simulator does so by a known amount. Divide and conquer ranks small random groups and
# joins several shuffles; it works with any callable, so with your own model too. The
# slope over the position is 0 for a ranker that does not care where a gene stands;
# stability is 1 where every shuffle gives the same order.

# %%
lists = candidates.make_candidates(hpo, cases, NUM_CANDIDATES, key=key)
counts = np.diff(genes.profiles.gene_terms(hpo).starts).tolist()
simulated = biased.Biased(
    rank,
    popularity=dict(zip(hpo.annotations.genes, counts, strict=True)),
    position_bias=1.0,
    popularity_bias=1.0,
    noise=1.5,
    key=key,
)
rankers = {"full list": simulated}
for permutations in (1, 5):
    rankers[f"divide and conquer x{permutations}"] = genes.as_ranker(
        genes.divide_and_conquer, simulated, permutations=permutations, key=key
    )
rankers["Swiss pairing"] = genes.as_ranker(conquer.swiss, simulated, key=key)
points = {}
for name, ranker in rankers.items():
    answers = genes.rank_many(ranker, [(each.phenotypes, each.genes) for each in lists])
    pairs = zip(answers, lists, strict=True)
    right = np.mean([answer.order[0] == each.causal for answer, each in pairs])
    calls = np.mean([answer.calls for answer in answers])
    measured = bias.measure(
        ranker, lists, num_shifts=NUM_SHUFFLES, num_permutations=NUM_SHUFFLES, key=key
    )
    slope, stability = measured.position.estimate, measured.stability.estimate
    points[name] = calls, right, stability
    print(
        f"{name}: {right:.0%} right, {calls:.0f} calls, slope over position "
        f"{slope:+.2f}, stability {stability:.2f}"
    )

# %%
figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for name, (calls, right, stability) in points.items():
    for axes, value in zip(panels, (100 * right, stability), strict=True):
        axes.plot(calls, value, "o", label=name)
for axes, word in zip(panels, ("causal gene first (%)", "stability"), strict=True):
    axes.set(xscale="log", xlabel="calls per patient", ylabel=word)
    axes.grid(alpha=0.3)
figure.legend(
    *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4
)
plt.show()

# %% [markdown]
# More calls buy accuracy, and an order that no longer depends on the order of the
# input.
#
# ## Where to go next
#
# - [docs/genes.md](../docs/genes.md): all rankers, how good they are on real patients,
#   and how far to trust an answer.
# - `python -m train_scripts.genes --data packets/` ranks genes for your own
#   phenopackets and writes every reason. `--chat` asks a language model at an endpoint
#   about the shortlist, by divide and conquer.
# - `python -m train_scripts.genes full` measures all of it on public cases.
