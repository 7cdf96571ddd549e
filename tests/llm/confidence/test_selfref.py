"""Test Self-REF: what is trained, what is masked, and that the token is learned."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import training
from jeff_llm.confidence import adapt, reading, selfref
from jeff_llm.models import adapters, decoder, lora
from jeff_llm.tuning import finetune, trunk

RECIPE = selfref.Recipe(rank=2, num_epochs=1, batch_size=2, row_tokens=16, head=False)


@pytest.fixture(scope="module")
def base(lettered):
    """The lettered model with room for its tokens and no more."""
    size = lettered.tokenizer.vocab_size
    params = {**lettered.params, "embedding": lettered.params["embedding"][:size]}
    config = dataclasses.replace(lettered.config, vocab_size=size)
    return lettered._replace(config=config, params=params)


@pytest.fixture(scope="module")
def grown(base):
    """The same with the two tokens."""
    return selfref.add_tokens(base)


def examples(ids, **options):
    questions = [[1, 2, 3], [4, 5], [6, 7, 8], [9, 10]]
    answers = [[11, 12], [13], [14], [15, 16]]
    correct = np.array([True, False, True, False])
    return selfref.make_examples(
        questions, answers, correct, ids, key=jax.random.key(0), **options
    )


def test_new_tokens_are_the_mean_of_the_others(grown, lettered) -> None:
    model, ids = grown
    size = lettered.tokenizer.vocab_size
    assert ids == (size, size + 1)
    assert model.tokenizer.encode("a<CN>")[-1] == ids.confident
    table = model.params["embedding"]
    assert table.shape[0] == model.config.vocab_size == size + 2
    middle = np.asarray(table[:size]).mean(0)
    np.testing.assert_allclose(table[size:], [middle, middle], rtol=1e-5, atol=1e-6)


def test_a_padded_embedding_has_room_already(lettered) -> None:
    """61 rows for 53 tokens: the two take rows 53 and 54."""
    model, ids = selfref.add_tokens(lettered)
    assert model.config.vocab_size == lettered.config.vocab_size == 61
    assert ids == (53, 54)
    others = np.r_[0:53, 55:61]
    table, before = model.params["embedding"], lettered.params["embedding"]
    np.testing.assert_array_equal(table[others], before[others])


def test_an_untied_head_grows_too(lettered, make_params) -> None:
    config = dataclasses.replace(lettered.config, tied=False)
    untied = lettered._replace(config=config, params=make_params(config))
    model, ids = selfref.add_tokens(untied)
    kernel = model.params["head"]["kernel"]
    middle = np.asarray(untied.params["head"]["kernel"])[:, :53].mean(1)
    np.testing.assert_allclose(kernel[:, ids.confident], middle, rtol=1e-5, atol=1e-6)


def test_tokens_need_a_tokenizer(tiny, grown) -> None:
    with pytest.raises(ValueError, match="expected one with a tokenizer"):
        selfref.add_tokens(tiny)
    with pytest.raises(ValueError, match="expected new tokens"):
        selfref.add_tokens(grown[0])


def test_examples_by_hand(grown) -> None:
    _, ids = grown
    found = examples(ids, token_weight=3.0)
    cn, un = ids
    assert found == [
        ([1, 2, 3, 11, 12, cn], [0, 0, 0, 1, 1, 3]),
        ([4, 5, 13, un], [0, 0, 0, 3]),
        ([6, 7, 8, 14, cn], [0, 0, 0, 1, 3]),
        ([9, 10, 15, 16, un], [0, 0, 0, 0, 3]),
    ]
    taught = examples(ids, mask_wrong=False)
    assert taught[1].learned == [0, 0, 1, 1]


def test_wrong_answers_are_subsampled(grown) -> None:
    _, ids = grown
    right = np.arange(40) < 10
    found = selfref.make_examples(
        [[1]] * 40, [[2]] * 40, right, ids, key=jax.random.key(1), unconfident_share=0.2
    )
    lasts = [example.tokens[-1] for example in found]
    assert lasts.count(ids.confident) == 10 and lasts.count(ids.unconfident) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": np.ones(4, bool)}, "got 4 right and 0 wrong ones"),
        ({"correct": np.zeros(4, bool)}, "got 0 right and 4 wrong ones"),
        ({"correct": np.ones(3, bool)}, "expected as many of each, got 4, 4, 3"),
        (
            {"unconfident_share": 2.0},
            r"unconfident_share: expected a number in \[0, 1\]",
        ),
        ({"unconfident_share": 0.0}, "got 2 right and 0 wrong ones"),
    ],
)
def test_bad_examples(change, message, grown, unchecked) -> None:
    arguments = {"correct": np.array([True, False, True, False])} | change
    right = arguments.pop("correct")
    with pytest.raises(ValueError, match=message):
        selfref.make_examples(
            [[1]] * 4, [[2]] * 4, right, grown[1], key=jax.random.key(0), **arguments
        )


def test_wrong_answers_have_a_gradient_of_exactly_zero(grown) -> None:
    """With respect to the logits that predict them; the token behind them has one."""
    model, ids = grown
    wrong = [e for e in examples(ids) if e.tokens[-1] == ids.unconfident]
    packed = jax.tree.map(jnp.asarray, finetune.pack(wrong, 16))
    target, weight = finetune._targets(packed)
    logits = decoder.apply(
        model.config,
        model.params,
        packed.tokens,
        mask=packed.segments > 0,
        positions=packed.positions,
        segments=packed.segments,
    ).logits
    slope = jax.grad(lambda x: finetune.token_loss(x, target, weight)[0])(logits)
    learned = np.asarray(target == ids.unconfident) & np.asarray(weight > 0)
    assert learned.sum() == 2
    assert np.asarray(slope)[~learned].any() == np.False_
    assert (np.abs(np.asarray(slope)[learned]).max(-1) > 1e-3).all()


def test_only_factors_and_two_rows_change(grown) -> None:
    model, ids = grown
    before = jax.tree.map(np.array, model.params)
    tuned, factors = selfref.fit(
        model, examples(ids), key=jax.random.key(0), recipe=RECIPE, rows=list(ids)
    )
    jax.tree.map(np.testing.assert_array_equal, before, model.params)
    assert factors.ids == tuple(ids)
    merged = lora.merge(model.params, factors)
    flat = lora.paths(merged)
    for path, leaf in lora.paths(before).items():
        same = np.array_equal(leaf, flat[path])
        if path == "embedding":
            rows = np.delete(np.arange(len(leaf)), list(ids))
            np.testing.assert_array_equal(leaf[rows], flat[path][rows])
            assert not np.isclose(leaf[list(ids)], flat[path][np.array(ids)]).all()
        else:
            assert same != ("attention/" in path and path.endswith("kernel")), path
    logits = [
        decoder.apply(model.config, each, jnp.array([[1, 2, 3]])).logits
        for each in (tuned.params, merged)
    ]
    np.testing.assert_allclose(*logits, atol=1e-4)


@pytest.fixture(scope="module", params=["tied", "untied"])
def either(request, grown, make_params):
    """Output and embedding in one table, or in two."""
    if request.param == "tied":
        return grown
    config = dataclasses.replace(grown[0].config, tied=False)
    params = make_params(config)
    cn, un = grown[1]
    kernel = params["head"]["kernel"]
    params["head"]["kernel"] = kernel.at[:, un].set(kernel[:, cn])
    return grown[0]._replace(config=config, params=params), grown[1]


def test_a_token_is_learned(either) -> None:
    """Answers of even tokens are right: the token says so of new questions."""
    model, ids = either
    rng = np.random.default_rng(0)
    questions = [[int(x)] for x in rng.integers(1, 50, 240)]
    answers = [[int(x)] for x in rng.integers(1, 9, 240)]
    right = np.array([answer[0] % 2 == 0 for answer in answers])
    made = selfref.make_examples(
        questions[:200],
        answers[:200],
        right[:200],
        ids,
        key=jax.random.key(0),
        token_weight=4.0,
    )
    recipe = dataclasses.replace(
        RECIPE, rank=8, num_epochs=12, batch_size=8, learning_rate=1e-2
    )
    tuned, _ = selfref.fit(
        model, made, key=jax.random.key(1), recipe=recipe, rows=list(ids)
    )
    before = selfref.confidence(model, questions[200:], answers[200:], ids)
    np.testing.assert_allclose(before, 0.5, atol=1e-3)
    after = selfref.confidence(tuned, questions[200:], answers[200:], ids)
    assert ((after > 0.5) == right[200:]).mean() > 0.9


def test_trainings_of_other_lengths_compile_nothing(grown) -> None:
    """Other numbers of examples and epochs, and another rate, run the same program."""
    model, ids = grown
    step, _ = adapt._make_step(model.config, 0.0, 8)
    assert step is adapt._make_step(model.config, 0.0, 8)[0]
    some = examples(ids)
    options = {"key": jax.random.key(0), "rows": list(ids)}
    selfref.fit(model, some, recipe=RECIPE, **options)
    compiled = training._scan_stacked_jit._cache_size()
    longer = dataclasses.replace(RECIPE, num_epochs=3, learning_rate=1e-2)
    selfref.fit(model, some * 6, recipe=longer, **options)
    assert training._scan_stacked_jit._cache_size() == compiled


def test_frozen_lower_layers_are_read_once(grown) -> None:
    """The decoder goes on from their states, and the factors fit the whole model."""
    model, ids = grown
    packed = finetune.pack(examples(ids), 16)
    states = trunk.read(model, packed, 2)
    upper = trunk.upper(model, 2)
    batch = jax.tree.map(jnp.asarray, packed)
    whole, rest = (
        finetune.loss(each.config, each.params, batch, embedded=start)[0]
        for each, start in ((model, None), (upper, jnp.asarray(states)))
    )
    np.testing.assert_allclose(whole, rest, rtol=1e-5)
    recipe = dataclasses.replace(RECIPE, first_layer=2)
    _, factors = selfref.fit(
        model, examples(ids), key=jax.random.key(0), recipe=recipe, rows=list(ids)
    )
    for pair in factors.factors.values():
        b = np.asarray(pair["b"])
        assert b.shape[0] == model.config.num_layers
        assert not b[:2].any() and b[2:].any()
    cut = trunk.cut(factors, 2)
    again = trunk.restore(cut, model.config, 2)
    jax.tree.map(np.testing.assert_array_equal, factors, again)


def test_the_head_may_be_run_on_learned_tokens_alone(grown) -> None:
    model, ids = grown
    packed = finetune.pack(examples(ids), 24)
    most = finetune.most_targets(packed)
    assert most == 8
    batch = jax.tree.map(jnp.asarray, packed)
    (one, few), (other, all_) = (
        finetune.loss(model.config, model.params, batch, num_targets=n)
        for n in (most, None)
    )
    np.testing.assert_allclose(one, other, rtol=1e-5)
    np.testing.assert_allclose(few["accuracy"], all_["accuracy"])


def test_bad_recipes(grown) -> None:
    model, ids = grown
    with pytest.raises(ValueError, match="rank: expected at least 1, got 0"):
        selfref.Recipe(rank=0)
    with pytest.raises(ValueError, match="learning_rate: expected a positive"):
        selfref.Recipe(learning_rate=0.0)
    both = dataclasses.replace(RECIPE, head=True, first_layer=1)
    with pytest.raises(ValueError, match="expected 0 beside head=True"):
        selfref.fit(model, examples(ids), key=jax.random.key(0), recipe=both)
    deep = dataclasses.replace(RECIPE, first_layer=3)
    with pytest.raises(ValueError, match="layer: expected 1 to 2 of 3 layers, got 3"):
        selfref.fit(model, examples(ids), key=jax.random.key(0), recipe=deep)


def test_a_training_goes_on_from_factors(grown) -> None:
    model, ids = grown
    options = {"key": jax.random.key(0), "recipe": RECIPE, "rows": list(ids)}
    _, first = selfref.fit(model, examples(ids), **options)
    _, more = selfref.fit(model, examples(ids), start=first, **options)
    assert reading.read(model, [[1]], [[2]]).log_probs.shape[0] == 1
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), first, more)
    assert any(jax.tree.leaves(changed))


def test_a_taught_model_is_loaded_from_its_adapters(base, grown, tmp_path) -> None:
    model, ids = grown
    options = {"key": jax.random.key(0), "recipe": RECIPE}
    tuned, factors = selfref.fit(model, examples(ids), rows=list(ids), **options)
    adapters.save(tmp_path / "a", factors, base="base")
    again, tokens = selfref.load(base, tmp_path / "a")
    assert tokens == ids
    found = [
        selfref.confidence(each, [[1, 2], [3]], [[4], [5, 6]], ids)
        for each in (tuned, again)
    ]
    np.testing.assert_allclose(*found, atol=1e-5)
    _, plain = selfref.fit(model, examples(ids), **options)
    adapters.save(tmp_path / "b", plain)
    with pytest.raises(ValueError, match=r"rows of tokens \(53, 54\), got none"):
        selfref.load(base, tmp_path / "b")
    with pytest.raises(FileNotFoundError, match="adapters' configuration"):
        selfref.load(base, tmp_path / "c")
