"""Self-REF: a model is taught two tokens that say whether its answer is to be trusted.

The model answers the training questions itself. A right answer becomes the example
``question, answer, <CN>``, a wrong one ``question, answer, <UN>`` in which the answer's
tokens have no weight in the loss: that it is unsure is learned, the wrong answer is not.
LoRA on attention and head, and the two rows of the embedding, are all that changes.
Then the confidence of an answer is ``P(<CN>) / (P(<CN>) + P(<UN>))`` right behind it.

The two tokens start from the mean of all tokens, so that both are equally likely.

References:
  Chuang et al., "Learning to Route LLMs with Confidence Tokens", ICML 2025, section 3.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jeff import training
from jeff_llm import batching, finetune, trunk
from jeff_llm.confidence import reading
from jeff_llm.models import lora
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.language_model import LanguageModel

__all__ = [
    "ConfidenceTokens",
    "Recipe",
    "add_tokens",
    "confidence",
    "make_examples",
    "train",
]


# Packed rows, and what frozen layers made of them.
_Batch: TypeAlias = tuple[finetune.Packed, Any]

# Optimiser steps between two looks at them.
_CHUNK = 8


class ConfidenceTokens(NamedTuple):
    """Ids of the two tokens.

    Attributes:
      confident: ``<CN>``.
      unconfident: ``<UN>``.
    """

    confident: int
    unconfident: int


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How `train` trains.

    Attributes:
      rank: inner size of LoRA's factors; the paper has 2 to 8.
      epochs: passes over the examples.
      learning_rate: peak of AdamW's, reached after a tenth of the steps, then along a
        cosine to a tenth of it.
      batch_size: packed rows a step.
      row_tokens: tokens of a packed row.
      where: kernels that get factors in each layer: those of attention, as in the
        paper, or all.
      head: put factors on the output layer too, as the paper does. Where output and
        embedding are one table, they change what the model reads as well.
      first_layer: layers below it stay as they are, and are read once instead of in
        every epoch; 0 trains all, as the paper does. Needs ``head`` to be false where
        output and embedding are one.
      weight_decay: of the factors.
    """

    rank: int = 8
    epochs: int = 2
    learning_rate: float = 1e-3
    batch_size: int = 8
    row_tokens: int = 64
    where: Literal["attention", "linear"] = "attention"
    head: bool = True
    first_layer: int = 0
    weight_decay: float = 0.0

    def __post_init__(self):
        """Check ranges."""
        for name in ("rank", "epochs", "batch_size", "row_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name}: expected at least 1, got {getattr(self, name)}"
                )
        if not self.learning_rate > 0:
            raise ValueError(
                f"learning_rate: expected a positive number, got {self.learning_rate}"
            )


def add_tokens(
    model: LanguageModel, names: tuple[str, str] = ("<CN>", "<UN>")
) -> tuple[LanguageModel, ConfidenceTokens]:
    """A model with two tokens more.

    Args:
      model: the model, with a tokenizer.
      names: of the confident and the unconfident token.

    Returns:
      The model, whose two new rows of embedding and output layer are the mean of the
      others, and the tokens' ids.

    Raises:
      ValueError: if the model has no tokenizer, or one that has these tokens already.
    """
    if model.tokenizer is None:
        raise ValueError("model: expected one with a tokenizer, got none")
    tokenizer = model.tokenizer.with_tokens(list(names))
    ids = ConfidenceTokens(*(tokenizer.token_id(name) for name in names))
    # A padded embedding may have room for them already.
    size = max(model.config.vocab_size, tokenizer.vocab_size)
    grow = size - model.config.vocab_size
    places = jnp.asarray(ids)
    params = dict(model.params)
    table = params["embedding"]
    known = table[: model.tokenizer.vocab_size]
    middle = known.mean(axis=0, dtype=jnp.float32).astype(table.dtype)
    table = jnp.pad(table, ((0, grow), (0, 0)))
    params["embedding"] = table.at[places].set(middle)
    if not model.config.tied:
        kernel = params["head"]["kernel"]
        middle = kernel[:, : len(known)].mean(axis=1, dtype=jnp.float32)
        kernel = jnp.pad(kernel, ((0, 0), (0, grow)))
        kernel = kernel.at[:, places].set(middle[:, None].astype(kernel.dtype))
        params["head"] = {**params["head"], "kernel": kernel}
    config = dataclasses.replace(model.config, vocab_size=size)
    return model._replace(config=config, params=params, tokenizer=tokenizer), ids


def make_examples(
    questions: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    correct: Bool[Array, " questions"] | Bool[np.ndarray, " questions"],
    tokens: ConfidenceTokens,
    *,
    key: PRNGKeyArray,
    unconfident_share: float | int = 1.0,
    mask_wrong: bool = True,
    answer_weight: float | int = 1.0,
    token_weight: float | int = 1.0,
) -> list[finetune.Example]:
    """Training examples from a model's own answers.

    Args:
      questions: token ids of each question.
      answers: token ids of the model's answer to each, without an end token.
      correct: whether it is right.
      tokens: the two tokens.
      key: random key, for the wrong answers that are kept.
      unconfident_share: share of the wrong answers that are kept, the paper's alpha.
      mask_wrong: leave a wrong answer's tokens out of the loss. Without it the model
        is taught its mistakes; here to show that.
      answer_weight: weight in the loss of each token of a right answer.
      token_weight: weight of the last token.

    Returns:
      Examples in the order of the questions: a question's tokens have weight 0, a right
      answer's ``answer_weight``, a wrong one's 0, and the token behind it ``token_weight``.

    Raises:
      ValueError: if numbers differ, the share is outside [0, 1], or only one of the
        tokens would ever be seen.
    """
    right = np.asarray(correct)
    if not len(questions) == len(answers) == len(right):
        raise ValueError(
            "questions, answers, correct: expected as many of each, got "
            f"{len(questions)}, {len(answers)}, {len(right)}"
        )
    if not 0 <= unconfident_share <= 1:
        raise ValueError(
            f"unconfident_share: expected a number in [0, 1], got {unconfident_share}"
        )
    draw = np.asarray(jax.random.uniform(key, (len(right),)))
    # So many exactly, rather than each by itself.
    rank = np.argsort(np.argsort(np.where(right, 2.0, draw)))
    kept = right | (rank < round(unconfident_share * int((~right).sum())))
    if not right.any() or not (kept & ~right).any():
        raise ValueError(
            "correct: expected right and wrong answers, so that both tokens are "
            f"learned, got {int(right.sum())} right and {int((kept & ~right).sum())} "
            "wrong ones; ask other questions, or keep more of the wrong ones"
        )
    examples = []
    for place in np.flatnonzero(kept):
        question, answer = list(questions[place]), list(answers[place])
        last = tokens.confident if right[place] else tokens.unconfident
        learned = answer_weight if right[place] or not mask_wrong else 0.0
        weights = [0.0] * len(question) + [learned] * len(answer)
        examples.append(
            finetune.Example([*question, *answer, last], [*weights, token_weight])
        )
    return examples


def train(
    model: LanguageModel,
    examples: Sequence[finetune.Example],
    *,
    key: PRNGKeyArray,
    recipe: Recipe | None = None,
    rows: Sequence[int] = (),
    start: lora.Lora | None = None,
    workdir: str | Path | None = None,
    progress: bool = False,
) -> tuple[LanguageModel, lora.Lora]:
    """Train LoRA's factors, and rows of the embedding.

    Args:
      model: the base, which stays as it is.
      examples: what is learned, from `make_examples`; any others do for plain
        fine-tuning.
      key: random key.
      recipe: how; the paper's by default.
      rows: tokens whose rows are trained whole: the two of `add_tokens`.
      start: factors to go on from; fresh ones by default.
      workdir: where log and checkpoints go; an interrupted training in it goes on.
      progress: show a progress bar.

    Returns:
      ``(model, factors)``: the model with the factors beside its kernels, and the
      factors alone, which `jeff_llm.models.adapters.save` writes.

    Raises:
      ValueError: if there is no example, or one is longer than a row.
    """
    recipe = recipe or Recipe()
    longest = max((len(e.tokens) for e in examples), default=0)
    packed = finetune.pack(examples, max(recipe.row_tokens, longest))
    order_key, factor_key, noise_key = jax.random.split(key, 3)
    batch = min(recipe.batch_size, len(packed.tokens))
    base, embedded = model, None
    if recipe.first_layer:
        if recipe.head and model.config.tied:
            raise ValueError(
                "first_layer: expected 0 beside head=True, since output and embedding "
                f"of this model are one, got {recipe.first_layer}"
            )
        embedded = trunk.read(model, packed, recipe.first_layer)
        base = trunk.upper(model, recipe.first_layer)
    batches = _batches((packed, embedded), batch, order_key)
    # Whole chunks alone, so that trainings of other lengths compile nothing.
    chunks = -(-recipe.epochs * (len(packed.tokens) // batch) // _CHUNK)
    output = "^embedding$" if model.config.tied else "^head/kernel$"
    inner = lora.ATTENTION if recipe.where == "attention" else lora.LINEAR
    fresh = lora.init(
        base.params,
        key=factor_key,
        rank=recipe.rank,
        where=(*inner, output) if recipe.head else inner,
        rows=rows,
    )
    start = fresh if start is None else trunk.cut(start, recipe.first_layer)
    targets = finetune.most_targets(packed)
    step, optimizer = _make_step(base.config, recipe.weight_decay, targets)
    fit = training.fit(
        step,
        training.init_state(start, optimizer, key=noise_key),
        batches,
        num_steps=chunks * _CHUNK,
        constants=(
            base.params,
            jnp.asarray(recipe.learning_rate, jnp.float32),
            jnp.asarray(chunks * _CHUNK, jnp.float32),
        ),
        chunk_steps=_CHUNK,
        workdir=workdir,
        checkpoint_every=10,
        progress=progress,
        description="LoRA",
    )
    factors = fit.state.params
    if recipe.first_layer:
        factors = trunk.restore(factors, model.config, recipe.first_layer)
    adapted = lora.apply(model.params, factors)
    return model._replace(params=adapted), factors


def confidence(
    model: LanguageModel,
    prompts: Sequence[batching.Prompt],
    answers: Sequence[Sequence[int]],
    tokens: ConfidenceTokens,
    *,
    batch_size: int = 64,
) -> Float[np.ndarray, " answers"]:
    """``P(<CN>) / (P(<CN>) + P(<UN>))`` right behind each answer.

    Args:
      model: the trained model.
      prompts: questions, texts or token ids.
      answers: token ids of the answers, without the two tokens.
      tokens: the two tokens.
      batch_size: questions at a time.

    Returns:
      Confidence in [0, 1].

    Raises:
      ValueError: as `jeff_llm.confidence.reading.read` does.
    """
    found = reading.read(
        model, prompts, answers, next_tokens=list(tokens), batch_size=batch_size
    )
    difference = found.next_logits[:, 0] - found.next_logits[:, 1]
    return np.asarray(jax.nn.sigmoid(difference))


@functools.lru_cache(maxsize=8)
def _make_step(
    config: DecoderConfig, weight_decay: float, num_targets: int
) -> tuple[training.Step, optax.GradientTransformation]:
    """A step whose learning rate and length are arguments: one program for all."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.scale_by_adam(),
        optax.add_decayed_weights(weight_decay),
    )

    def loss_fn(factors: lora.Lora, batch: _Batch, base: Any) -> Any:
        packed, embedded = batch
        params = lora.apply(base, factors)
        return finetune.loss(
            config, params, packed, embedded=embedded, num_targets=num_targets
        )

    def step(
        state: training.TrainState,
        batch: _Batch,
        base: Any,
        peak: Array,
        total: Array,
    ) -> tuple[training.TrainState, dict[str, Array]]:
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, metrics), grads = grad_fn(state.params, batch, base)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        rate = -peak * _schedule(state.step / total)
        params = jax.tree.map(lambda p, u: p + rate * u, state.params, updates)
        state = training.TrainState(params, opt_state, state.key, state.step + 1)
        return state, {"loss": loss, **metrics}

    return step, optimizer


def _schedule(done: Array) -> Array:
    """Share of the peak: up over the first tenth, then a cosine down to a tenth."""
    fall = jnp.clip((done - 0.1) / 0.9, 0, 1)
    return jnp.where(done < 0.1, done / 0.1, 0.55 + 0.45 * jnp.cos(jnp.pi * fall))


def _batches(data: _Batch, size: int, key: PRNGKeyArray) -> Callable[[int], _Batch]:
    """Batch of each step; every epoch has an order of its own."""
    order = training.Shuffled(data[0].tokens, size, key)
    known: dict[int, np.ndarray] = {}

    def batch(step: int) -> _Batch:
        epoch, place = divmod(step, order.steps_per_epoch)
        if epoch not in known:
            known.clear()
            known[epoch] = np.asarray(order.order(epoch))
        return jax.tree.map(lambda x: x[known[epoch][place]], data)

    return batch
