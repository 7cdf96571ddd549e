# %% [markdown]
# # Gene pairs from the few cells that suffice
#
# A Transformer learns a label of single cells from the genes that they express. Its
# attention, averaged over cells, scores pairs of genes. Averaging over all cells is
# expensive. Weighted diversified sampling finds in two passes over the data which few
# of the cells to take, so that rare cell types are not lost: a cell is drawn with a
# chance proportional to
#
# `(1 / density)^power`, where `density` is its mean similarity to all cells.
#
# The cells here are simulated, so the truth is known: thirty planted pairs in six cell
# types, two of which have 1% of the cells each. You find the rare cells, train a
# network, and rank the pairs. No data are needed.
#
# Paper: "Weighted Diversified Sampling for Efficient Data-Driven Single-Cell Gene-Gene
# Interaction Discovery", 2024.

# %%
import importlib.util

if importlib.util.find_spec("jeff") is None:  # in a clone, install -e ".[scripts]"
    # %pip install -q "jeff-jax[scripts]"
    importlib.invalidate_caches()

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jeff_graph import cells
from jeff_graph.cells import celluformer, evaluation, training

NUM_CELLS = 8000
NUM_GENES = 200
NUM_EPOCHS = 6
key = jax.random.key(0)

# %% [markdown]
# ## Cells
#
# `open_cells` streams a file written by anndata (h5ad or zarr, dense or sparse, counts
# or logarithms). Here `simulate_cells` replaces it; both are sources. A recipe scales
# all cells to one depth, takes the logarithm, and keeps the genes with the largest
# variance for their mean. The markers of rare types are among them.

# %%
source = cells.simulate_cells(NUM_CELLS, seed=0)
recipe = cells.make_recipe(source, num_genes=NUM_GENES)
view = cells.collect(cells.prepare(source, recipe), "type", "label")
types = view.column("type")
labels, classes = cells.label_codes(view.column("label"))
print(f"{view.num_cells:,} cells, {len(view.genes)} of {len(source.genes)} genes kept")
for name, count in zip(*np.unique(types, return_counts=True), strict=True):
    print(f"{name}: {count:5d} cells")

# %% [markdown]
# ## Two passes
#
# The first pass sends each cell to one gene under each of 200 hashes and counts. The
# more similar two cells are, the more often they meet. The second pass reads the counts
# at each cell's own hashes. The result is the mean similarity of that cell to all of
# the data: its density.

# %%
hashing = cells.hash_parameters(key, len(view.genes), num_hashes=200)
sketch = cells.sketch_cells(view.chunks(), hashing)
density = cells.score_cells(view.chunks(), hashing, sketch)

halves = [
    cells.sketch_cells([view.values[part]], hashing)
    for part in (slice(0, NUM_CELLS // 2), slice(NUM_CELLS // 2, None))
]
same = (cells.merge(*halves).counts == sketch.counts).all()
print("sketches of two halves add up to that of the whole:", bool(same))

# %% [markdown]
# A higher power finds more of the rare types and leaves a smaller effective sample for
# means over all cells. The floor `least_effective` lowers the power where too little
# would remain.

# %%
powers = np.linspace(0, 4, 9)
drawn = [cells.diversity_weights(density, power=power) for power in powers]
figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
for name in np.unique(types):
    here = types == name
    chance = [jax.nn.softmax(each.log_weight)[here].sum() for each in drawn]
    axes.plot(
        powers, np.array(chance) / here.mean(), label=f"{name}: {here.mean():.0%}"
    )
axes.plot(powers, [each.effective for each in drawn], "k--", label="effective size")
axes.set(yscale="log", xlabel="power", ylabel="times its share of the cells")
figure.legend(loc="outside right upper", frameon=False)
plt.show()

# %%
weights = cells.diversity_weights(density, power=2.0, least_effective=0.3)
number = NUM_CELLS // 50
few = cells.sample(weights.log_weight, number, key=key)
even = cells.rivals.uniform(NUM_CELLS, number, key=key)
for name in np.unique(types):
    counts = [
        int((types[np.asarray(picked)] == name).sum()) for picked in (few.cells, even)
    ]
    print(f"{name}: {counts[0]:3d} cells drawn by diversity, {counts[1]:3d} evenly")
print(f"effective size {few.effective:.0f} of {number}")

# %% [markdown]
# ## A network, and its pairs
#
# CelluFormer learns which cells are cases. Any other network will do: the map needs a
# function of `(params, tokens)` that returns the attention of each token to each.

# %%
config = celluformer.Config(
    len(view.genes), len(classes), width=64, heads=4, layers=2, hidden=128
)
apply_fn = celluformer.make_apply(config)
attention_fn = celluformer.make_attention(config)
tokens = cells.make_tokens(view.values)
part = NUM_CELLS * 9 // 10
trained = training.fit(
    apply_fn,
    celluformer.init(config, key=key),
    jax.tree.map(lambda leaf: leaf[:part], tokens),
    labels[:part],
    key=key,
    num_epochs=NUM_EPOCHS,
    batch_size=64,
)
rest = jax.tree.map(lambda leaf: leaf[part:], tokens)
found = training.accuracy(apply_fn, trained.params, rest, labels[part:])
print(f"accuracy on cells that it has not seen: {found:.1%}")


# %%
def scores(picked, weights=None):
    """Attention from some cells, as a map of pairs."""
    chosen = jax.tree.map(lambda leaf: leaf[np.asarray(picked)], tokens)
    sums = cells.pair_sums(
        attention_fn, trained.params, chosen, len(view.genes), weights=weights
    )
    return cells.pair_scores(sums, prior_cells=3.0)


place = np.full(len(source.genes), -1)
place[recipe.genes] = np.arange(len(recipe.genes))
planted = place[source.truth.pairs]
known = evaluation.planted_mask(len(view.genes), planted[(planted >= 0).all(1)])
maps = {
    "all cells": scores(np.arange(NUM_CELLS)),
    "2% by diversity": scores(few.cells, few.weights),
    "2% evenly": scores(even),
}
for name, each in maps.items():
    seen = 1 - np.isnan(evaluation.pair_values(each)).mean()
    auroc = evaluation.planted_auroc(each, known)
    print(
        f"{name}: AUROC of the planted pairs {auroc:.3f}, {seen:.0%} of the pairs seen"
    )

# %% [markdown]
# A fiftieth of the cells finds the planted pairs about as well as all of them do. One
# network and one draw prove little, and from so few cells the network learns little
# about the rare types: `python -m train_scripts.wds simulated` repeats this with more
# cells, five seeds, other shares and other ways to choose cells.
#
# ## Ranked, and tested
#
# Intervals come from resampling the cells. Attention finds genes that bear on the
# label, alone or together. Whether a pair matters beyond its two genes is tested on
# cells that the network has not seen.

# %%
chosen = jax.tree.map(lambda leaf: leaf[np.asarray(few.cells)], tokens)
sums = cells.pair_sums(
    attention_fn,
    trained.params,
    chosen,
    len(view.genes),
    weights=few.weights,
    num_bootstrap=100,
    key=key,
)
low, high = cells.pair_interval(sums, prior_cells=3.0)
ranked = evaluation.rank_pairs(cells.pair_scores(sums, prior_cells=3.0))
top = np.stack([ranked.first, ranked.second], 1)[:20]
unseen = jnp.asarray(view.values[part:].toarray())
test = cells.product_test(unseen, jnp.asarray(labels[part:] == 0), jnp.asarray(top))
true = {tuple(sorted(pair)) for pair in planted.tolist()}
for (a, b), score, p in zip(
    top.tolist(), ranked.score.tolist(), test.p_value, strict=False
):
    mark = "planted" if (a, b) in true else ""
    print(
        f"{view.genes[a]} {view.genes[b]}  {score:.3f} "
        f"({low[a, b]:.3f} to {high[a, b]:.3f})  p {p:.2g}  {mark}"
    )

# %% [markdown]
# ## Where to go next
#
# - [docs/wds.md](../docs/wds.md): what the sample estimates, the tests, and what was
#   measured.
# - `python -m train_scripts.wds --data my.h5ad --label disease` does all of this for
#   your own file, with p-values against networks that learned permuted labels.
# - For millions of cells, memory holds only the sketch and one number per cell.
#   `sketch_on_mesh` spreads a chunk over devices, and `merge_processes` joins hosts.
