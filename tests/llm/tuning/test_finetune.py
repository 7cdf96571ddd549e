"""Test fine-tuning: packing, loss of packed rows, encoding of texts, training."""

import copy
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jeff import training
from jeff_llm.models import decoder, lora
from jeff_llm.tuning.finetune import Example, Packed, encode_examples, loss, pack

EXAMPLES = [
    Example([5, 9, 2, 60], [0.0, 0.0, 1.0, 1.0]),
    Example([7, 31, 8, 8, 1, 12], [0.0, 0.0, 0.0, 1.0, 0.5, 2.0]),
    Example([3, 4], [1.0, 1.0]),  # a first token is nobody's target
    Example([44, 0, 9, 17, 21], [0.0, 0.0, 0.0, 0.0, 1.0]),
]
apply = jax.jit(decoder.apply, static_argnames="config")
run = jax.jit(loss, static_argnames=("config", "remat"))


def test_pack_by_hand() -> None:
    """First fit, the longest first: 6 + 2, then 5, and 4 needs a row of its own."""
    packed = pack(EXAMPLES, 8)
    np.testing.assert_array_equal(
        packed.tokens,
        [[7, 31, 8, 8, 1, 12, 3, 4], [44, 0, 9, 17, 21, 0, 0, 0],
         [5, 9, 2, 60, 0, 0, 0, 0]],
    )  # fmt: skip
    np.testing.assert_array_equal(
        packed.positions,
        [[0, 1, 2, 3, 4, 5, 0, 1], [0, 1, 2, 3, 4, 0, 0, 0], [0, 1, 2, 3, 0, 0, 0, 0]],
    )
    np.testing.assert_array_equal(
        packed.segments,
        [[1, 1, 1, 1, 1, 1, 2, 2], [1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0]],
    )
    np.testing.assert_array_equal(
        packed.weights,
        [
            [0, 0, 0, 1, 0.5, 2, 0, 1],
            [0, 0, 0, 0, 1, 0, 0, 0],
            [0, 0, 1, 1, 0, 0, 0, 0],
        ],
    )


@given(st.lists(st.integers(1, 12), min_size=1, max_size=30), st.integers(0, 5))
def test_every_example_is_in_one_row(lengths, more) -> None:
    """Whole, once, with its own positions; rows are no more than half empty."""
    examples = [
        Example([100 * (number + 1) + i for i in range(length)], [1.0] * length)
        for number, length in enumerate(lengths)
    ]
    width = max(lengths) + more
    packed = pack(examples, width)
    found = []
    for row in range(len(packed.tokens)):
        for segment in range(1, packed.segments[row].max() + 1):
            here = packed.segments[row] == segment
            assert np.diff(np.flatnonzero(here)).tolist() == [1] * (here.sum() - 1)
            assert packed.positions[row][here].tolist() == list(range(here.sum()))
            found.append(packed.tokens[row][here].tolist())
    assert sorted(found) == sorted(example.tokens for example in examples)
    assert (packed.segments > 0).sum() == sum(lengths)
    assert not packed.tokens[packed.segments == 0].any()
    filled = (packed.segments > 0).sum(axis=1)
    assert len(filled) == 1 or filled.sum() > len(filled) * width / 2


def by_hand(model: Any, examples: list[Example], params: Any = None) -> Any:
    """Summed loss, hits and weight, one example after the other."""
    params = model.params if params is None else params
    total, hits, weight = 0.0, 0.0, 0.0
    for tokens, learned in examples:
        padded = (
            jnp.zeros((1, 8), jnp.int32).at[0, : len(tokens)].set(jnp.array(tokens))
        )
        logits = apply(model.config, params, padded).logits[0]
        for place in range(1, len(tokens)):
            row = jax.nn.log_softmax(logits[place - 1])
            total -= learned[place] * row[tokens[place]]
            hits += learned[place] * (row.argmax() == tokens[place])
            weight += learned[place]
    return total, hits, weight


def test_packed_or_one_by_one(tiny) -> None:
    """The weighted mean over all learned tokens, however they are packed."""
    total, hits, weight = by_hand(tiny, EXAMPLES)
    assert weight == 2 + 3.5 + 1 + 1
    for width in (8, 24):
        batch = pack(EXAMPLES, width)
        value, metrics = run(tiny.config, tiny.params, batch)
        assert value == pytest.approx(float(total / weight), abs=2e-6)
        assert metrics["tokens"] == weight
        assert metrics["accuracy"] == pytest.approx(float(hits / weight), abs=1e-6)
    plain, _ = loss(tiny.config, tiny.params, batch)
    assert plain == pytest.approx(float(value), abs=2e-6)


def test_gradient_of_packed_rows(tiny) -> None:
    """That of the examples one by one; computing again in the backward pass too."""
    expected = jax.jit(jax.grad(lambda p: by_hand(tiny, EXAMPLES, p)[0] / 7.5))(
        tiny.params
    )
    slope = jax.jit(
        jax.grad(lambda p, batch, remat: loss(tiny.config, p, batch, remat=remat)[0]),
        static_argnums=2,
    )
    for remat in (False, True):
        got = slope(tiny.params, pack(EXAMPLES, 8), remat)
        chex.assert_trees_all_close(got, expected, rtol=1e-3, atol=1e-6)


def test_prompts_are_not_learned(tiny) -> None:
    """With prompts alone there is nothing to learn: no loss, no gradient, no NaN."""
    prompts = [Example(tokens, [0.0] * len(tokens)) for tokens, _ in EXAMPLES]
    (value, metrics), slope = jax.jit(
        jax.value_and_grad(
            lambda p: loss(tiny.config, p, pack(prompts, 8)), has_aux=True
        )
    )(tiny.params)
    assert value == metrics["accuracy"] == metrics["tokens"] == 0
    assert not any(leaf.any() for leaf in jax.tree.leaves(slope))


def test_neighbours_do_not_matter(tiny) -> None:
    """Neither as context nor as a target: a row's other examples change nothing."""
    batch = pack(EXAMPLES, 24)
    first = batch._replace(weights=batch.weights * (batch.segments == 1))
    other = first._replace(tokens=np.where(batch.segments > 1, 50, batch.tokens))
    values = [float(run(tiny.config, tiny.params, b)[0]) for b in (first, other)]
    assert values[0] == pytest.approx(values[1], abs=1e-6)


def test_training_with_lora(tiny) -> None:
    """A step of `jeff.training` around the loss learns the examples by heart."""
    factors = lora.init(
        tiny.params, key=jax.random.key(0), rank=4, where=lora.LINEAR, rows=(60,)
    )

    def adapted(factors: Any, batch: Packed, key: Any, base: Any) -> Any:
        del key
        return loss(tiny.config, lora.apply(base, factors), batch)

    optimizer = optax.adam(0.02)
    step = jax.jit(training.make_step(adapted, optimizer))
    state = training.init_state(factors, optimizer, key=jax.random.key(1))
    batch = pack(EXAMPLES, 8)
    history = []
    for _ in range(60):
        state, metrics = step(state, batch, tiny.params)
        history.append(float(metrics["loss"]))
    assert history[0] > 3 and history[-1] < 0.02
    assert metrics["accuracy"] == 1
    assert step._cache_size() == 1
    merged = lora.merge(tiny.params, state.params)
    value, _ = run(tiny.config, merged, batch)
    assert value < 0.02


@pytest.mark.parametrize(
    ("examples", "width", "message"),
    [
        ([], 8, "examples: expected at least one, got none"),
        (EXAMPLES, 5, "width: expected at least 6, the longest example, got 5"),
        ([EXAMPLES[0], Example([1, 2], [1.0])], 8, "example 1: .* got 2 and 1"),
        ([Example([], [])], 8, "example 0: expected tokens, .* got 0 and 0"),
    ],
)
def test_what_cannot_be_packed(examples, width, message) -> None:
    """Named by its number, with the sizes."""
    with pytest.raises(ValueError, match=message):
        pack(examples, width)


def test_examples_of_texts(smollm2) -> None:
    """The template's turns; the answer and its end are learned, and nothing else."""
    tokenizer = smollm2.tokenizer
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2 + 2?"},
    ]
    rows = [{"prompt": "Hi", "answer": "Hello."}, {"prompt": chat, "answer": "4"}]
    first, second = encode_examples(smollm2, rows, max_tokens=64)
    for example, answer in ((first, "Hello."), (second, "4")):
        learned = [t for t, w in zip(*example, strict=True) if w]
        assert tokenizer.decode(learned, False) == f"{answer}<|im_end|>"
        assert learned[-1] == smollm2.stop_ids[0]
        assert example.learned == sorted(example.learned)
    text = tokenizer.decode(second.tokens, skip_special_tokens=False)
    messages = [*chat, {"role": "assistant", "content": "4"}]
    whole = tokenizer.apply_chat_template(messages, add_generation_prompt=False)
    assert text == whole.rstrip()


REWRITING = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}assistant: <think>{% endif %}"
)


def test_templates_that_rewrite_the_answer(smollm2) -> None:
    """Where the prompt is no beginning of the whole, answer and end are learned."""
    tokenizer = copy.copy(smollm2.tokenizer)
    tokenizer.chat_template = REWRITING
    rows = [{"prompt": "Hi", "answer": "Hello."}]
    model = smollm2._replace(tokenizer=tokenizer)
    [example] = encode_examples(model, rows, max_tokens=64)
    learned = [t for t, w in zip(*example, strict=True) if w]
    assert tokenizer.decode(learned, False) == "Hello.<|im_end|>"
    assert tokenizer.decode(example.tokens).startswith("user: Hi assistant: <think>")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a"}, "row 1: expected a 'answer' that is not empty, got None"),
        ({"prompt": "", "answer": "b"}, "row 1: expected a 'prompt' .* got ''"),
        ({"prompt": "a", "answer": ["b"]}, r"row 1: .*answer as text, got \['b'\]"),
        ({"prompt": "a" * 500, "answer": "b"}, "row 1: .* at most 40 tokens, got"),
    ],
)
def test_rows_that_are_no_examples(smollm2, row, message) -> None:
    """Named by their number and field."""
    rows = [{"prompt": "a", "answer": "b"}, row]
    with pytest.raises(ValueError, match=message):
        encode_examples(smollm2, rows, max_tokens=40)


def test_examples_without_a_tokenizer(tiny) -> None:
    """Texts need one."""
    with pytest.raises(ValueError, match="model: expected one with a tokenizer"):
        encode_examples(tiny, [], max_tokens=8)
