# %% [markdown]
# # Can a model find the evidence?
#
# A clinical case is cut into sentences and shuffled among sentences of other patients.
# Which of them belong to the case, and in which order were they gathered? Here you
# build that test, see how a rule of positions wins the published version of it, train a
# small head on dialogues, and write dialogues for fine-tuning.
#
# The measure is POS, the share of positions that hold the right sentence:
#
# `POS = mean over i of (picked[i] == evidence[i])`.
#
# The cases are simulated from the Human Phenotype Ontology: no clinician wrote them.
# The data are three small packages.
#
# Paper: "Dialogue is Better Than Monologue", 2025.

# %%
import importlib.util

if importlib.util.find_spec("jeff") is None:  # in a clone, install -e ".[scripts,llm]"
    # %pip install -q "jeff-jax[scripts,llm]"
    importlib.invalidate_caches()

# %%
import tempfile

import jax
import matplotlib.pyplot as plt
import numpy as np

from jeff import assets
from jeff_llm import clinic
from jeff_llm.clinic import heads, official, rules
from jeff_llm.genes import hpo
from jeff_llm.models import encoder

NUM_QUESTIONS = 300
NUM_STEPS = 200
BATCH_SIZE = 64
key = jax.random.key(0)
assets.bring(["hpo", "hpo_annotations", "hpo_genes", "minilm", "minilm_tokenizer"])
questions = clinic.simulate_questions(hpo.load(), NUM_QUESTIONS, key=key)
items = clinic.make_items(questions).items
minilm = encoder.load("minilm")
vectors = {}


def encode(texts):
    """Vectors of texts; each text is read once."""
    new = [text for text in dict.fromkeys(texts) if text not in vectors]
    vectors.update(zip(new, minilm.encode(new, batch_size=BATCH_SIZE), strict=True))
    return np.stack([vectors[text] for text in texts])


half = len(items) // 2
train, test = items[:half], items[half:]

# %% [markdown]
# ## A maze
#
# The background is the first sentence, the evidence is what follows, in its order.
# Distractors come from other patients: of the same kind of sentence, with the same
# pronouns, and of a known distance (same organ, same age group, neither). All sentences
# are shuffled, at every level of noise.

# %%
mazes = clinic.make_mazes(test, noise=(0, 3, 5), key=key)
maze = mazes[3][0]
print(maze.item.background, "Answer:", maze.item.answer)
for number, (sentence, source) in enumerate(
    zip(maze.listed, maze.sources, strict=True), 1
):
    print(f"{number}. {sentence}  [{source}]")
print("evidence in order:", [place + 1 for place in maze.gold])

# %% [markdown]
# ## Rules without a model
#
# The published construction puts distractors only before the last n places, so "the
# last n in order" beats every model that it reports. The same rule is at chance here.
# The best rule reads: it takes the sentences nearest to the case and puts them into the
# usual order of a case report.


# %%
def mean_position(tasks, picks):
    return clinic.evaluate(tasks, picks).position.mean()


published = official.make_official(test, noise=(3, 5), key=key)
for name, tasks in {"published construction": published[5], "jeff": mazes[5]}.items():
    picks = [rules.last(maze) for maze in tasks]
    print(f"last, {name}: POS {mean_position(tasks, picks):.3f}")
chance = clinic.expected_random(mazes[5]).position.mean()
print(f"random: POS {chance:.3f}")
best_rule = {}
for level in mazes:
    picked = rules.apply_rules(mazes[level], encode, key=key)
    by_rule = {name: mean_position(mazes[level], each) for name, each in picked.items()}
    best_rule[level] = max(by_rule.values())
for name, value in by_rule.items():  # of the last level, with five distractors
    print(f"rule, {name}: POS {value:.3f}")

# %% [markdown]
# ## Dialogue or monologue?
#
# The same small head over sentence embeddings learns to recognise the next turn of
# conversations made from the same items. A dialogue has a turn for each piece of
# evidence; a monologue has one turn with all of it; in "sentences" the patient speaks
# and no doctor answers.

# %%
forms = {
    "multiple choice": clinic.to_multiple_choice,
    "monologue": clinic.to_monologue,
    "dialogue": clinic.to_dialogue,
}
told = {
    name: [[m["content"] for m in form(item).messages] for item in train]
    for name, form in forms.items()
}
told["sentences"] = [
    [m["content"] for m in clinic.to_dialogue(item).messages if m["role"] == "user"]
    for item in train
]
texts = {text for talks in told.values() for talk in talks for text in talk}
for tasks in mazes.values():
    texts |= {t for maze in tasks for t in (maze.item.background, *maze.listed)}
encode(sorted(texts))
untrained = heads.init(384, key=key)
scores = {}
for name in ("untuned", *told):
    head = untrained
    if name != "untuned":
        pairs = heads.next_turns(told[name], vectors)
        head, losses = heads.train(untrained, pairs, num_steps=NUM_STEPS, key=key)
    scores[name] = [
        mean_position(tasks, heads.choose(head, tasks, vectors).picks)
        for tasks in mazes.values()
    ]
    print(f"head, {name}: POS {scores[name][-1]:.3f}")

# %%
figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
for name, values in scores.items():
    axes.plot(list(mazes), values, "o-", label=f"head, {name}")
axes.plot(list(mazes), list(best_rule.values()), "k--", label="best rule")
random = [clinic.expected_random(tasks).position.mean() for tasks in mazes.values()]
axes.plot(list(mazes), random, ":", color="grey", label="random")
axes.set(xlabel="distractors", ylabel="POS", xticks=list(mazes), ylim=(0, None))
figure.legend(loc="outside right upper", frameon=False)
plt.show()

# %% [markdown]
# A head that was told the cases sentence by sentence does best; the doctor who repeats
# each finding does not help it. On real exam questions the differences are smaller: see
# the page below.
#
# ## Dialogues for fine-tuning
#
# The converter keeps every sentence of the case word for word and adds no fact; `check`
# proves it. The file is in chat format: `train_scripts.finetune`, TRL and axolotl read
# it as it is.

# %%
talk = clinic.to_dialogue(train[0])
clinic.check(train[0], talk.messages)
print("every fact is kept, none is added")
for message in talk.messages:
    print(f"{message['role']:>9}: {message['content']}")
with tempfile.TemporaryDirectory() as folder:  # write to a folder of your own instead
    dialogues = [clinic.to_dialogue(item) for item in train]
    path = clinic.write_jsonl(f"{folder}/dialogue.jsonl", dialogues)
    print(f"{path.name}: {len(dialogues)} dialogues, {path.stat().st_size:,} bytes")

# %% [markdown]
# ## Where to go next
#
# - [docs/dialogue.md](../docs/dialogue.md): the task, the measures, and which of the
#   paper's claims hold.
# - `python -m train_scripts.dialogue --data questions.jsonl` does this for your own
#   questions; `--model` and `--chat` test a language model on them, with rules and
#   chance beside it.
# - `python -m train_scripts.dialogue full` tunes SmolLM2 on the four forms and measures
#   every reading of it.
