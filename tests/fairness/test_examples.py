"""Test people at the door: arrays of any kind, codes, and weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jeff import fairness
from jeff.as_arrays import as_array
from jeff.fairness import evaluation, gaps, simplex, yodo
from jeff.fairness.examples import as_examples

PEOPLE = 40


def linear(params, x):
    return x @ params


LINE = fairness.Line(jnp.array([1.0, 0.0, 0.5]), jnp.array([0.0, 1.0, 0.0]))
ALPHAS = [0.0, 0.5, 1.0]
OPTIONS = {
    "key": jax.random.key(1),
    "optimizer": optax.sgd(0.1),
    "num_epochs": 1,
    "batch_size": 20,
}


def columns(seed=0, people=PEOPLE):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 2, people)
    x = rng.normal(size=(people, 3)) + group[:, None]
    label = (x[:, 0] + rng.normal(size=people) > 0.5).astype(int)
    return x, label, group, rng.integers(1, 4, people).astype(float)


def results(examples):
    """What every public function of the README says of the people."""
    trained = fairness.train(linear, LINE, examples, **OPTIONS)
    found = fairness.evaluate(linear, LINE, examples, ALPHAS)
    chosen = fairness.choose_alpha(
        linear, LINE, examples, ALPHAS, key=jax.random.key(0), at_most=1
    )
    prob = fairness.predict(linear, LINE, examples.inputs, ALPHAS)
    each = fairness.predict_each(
        linear, LINE, examples.inputs, np.linspace(0, 1, len(examples.label))
    )
    measured = fairness.measure(prob, examples.label, examples.group, ALPHAS)
    gap = fairness.equalized_odds_gap(each, examples.group, examples.label)
    return trained, found, chosen, prob, each, measured, gap


def kinds():
    pandas = pytest.importorskip("pandas", reason="pandas is an optional peer")
    x, label, group, _ = columns()
    odd = np.arange(PEOPLE)[::-1] * 7
    frame = pandas.DataFrame(x, index=odd, columns=list("abc"))

    def series(values, dtype):
        return pandas.Series(values, index=odd).astype(dtype)

    return {
        "numpy float64": (x, label, group),
        "bool": (x, label.astype(bool), group.astype(bool)),
        "small integers": (x, label.astype(np.int8), group.astype(np.uint8)),
        "floats": (x, label.astype(float), group.astype(np.float16)),
        "lists": (x.tolist(), label.tolist(), group.tolist()),
        "columns": (frame, series(label, "int64"), series(group, "bool")),
        "nullable": (
            frame.astype("Float64"),
            series(label, "Int64"),
            series(group, "boolean"),
        ),
        "objects": (frame.astype(object), series(label, object), group),
    }


@pytest.fixture(scope="module")
def expected():
    return results(fairness.Examples(*map(jnp.asarray, columns()[:3])))


@pytest.mark.parametrize(
    "name",
    [
        "numpy float64",
        "bool",
        "small integers",
        "floats",
        "lists",
        "columns",
        "nullable",
        "objects",
    ],
)
def test_arrays_of_any_kind_are_taken(name, expected):
    found = results(fairness.Examples(*kinds()[name]))
    for ours, theirs in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_pytree_of_columns(expected):
    x, label, group, _ = columns()
    people = fairness.Examples({"a": x[:, 0], "rest": x[:, 1:]}, label, group)

    def apply_fn(params, x):
        return x["a"] * params[0] + x["rest"] @ params[1:]

    found = fairness.evaluate(apply_fn, LINE, people, ALPHAS)
    np.testing.assert_allclose(found.accuracy, expected[1].accuracy)


def test_simplex_takes_them_too():
    x, label, group, _ = columns()
    points = simplex.stack(list(LINE))
    kinds = [(x, label, group), tuple(map(jnp.asarray, (x, label, group)))]
    values = [
        simplex.loss(
            linear,
            points,
            fairness.Examples(*each),
            [0.5, 0.5],
            strengths=[1.0],
            gaps=["demographic_parity"],
        )[0]
        for each in kinds
    ]
    assert values[0] == values[1]
    prob = simplex.predict(linear, points, x, [[0.5, 0.5]])
    np.testing.assert_allclose(prob[0], fairness.predict(linear, LINE, x, 0.5))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.array(["a", "b"]), "group: expected numbers without missing values, got"),
        ([0, None], "group: expected numbers without missing values, got object"),
        (np.array([0, "1"], object), "group: expected numbers"),
    ],
)
def test_what_is_no_number_is_refused(value, words):
    with pytest.raises(TypeError, match=words):
        gaps.demographic_parity_gap([0.5, 0.5], value)


def test_a_missing_value_of_a_nullable_column_is_refused():
    pandas = pytest.importorskip("pandas", reason="pandas is an optional peer")
    column = pandas.Series([True, None], dtype="boolean")
    with pytest.raises(TypeError, match="group: expected numbers without missing"):
        gaps.demographic_parity_gap([0.5, 0.5], column)


@pytest.mark.parametrize("value", [[2**40 + 1], [1e39], [-(2**31) - 1]])
def test_numbers_beyond_the_precision_are_refused(value):
    with pytest.raises(ValueError, match=r"x: expected numbers that .*32 holds, got"):
        as_array(np.array(value), "x")
    assert as_array(np.array([np.inf, 1e-50]), "x").tolist() == [np.inf, 0]


@pytest.mark.parametrize("field", ["label", "group"])
@pytest.mark.parametrize(
    ("codes", "shown"),
    [([1, 2], "1, 2"), ([-1, 1], "-1, 1"), ([0.0, 0.5], "0.5"), ([0, np.nan], "nan")],
)
def test_codes_that_are_not_0_and_1_are_refused(field, codes, shown):
    x, label, group, _ = columns()
    people = fairness.Examples(x, label, group)
    wrong = people._replace(**{field: np.resize(codes, PEOPLE)})
    words = rf"{field}: expected only 0 and 1, got values {shown}; recode it"
    for call in (
        lambda: fairness.train(linear, LINE, wrong, **OPTIONS),
        lambda: fairness.evaluate(linear, LINE, wrong, ALPHAS),
        lambda: fairness.choose_alpha(
            linear, LINE, wrong, ALPHAS, key=jax.random.key(0), at_most=1
        ),
        lambda: yodo.loss(linear, LINE, wrong, 0.5),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_lengths_that_differ_are_refused():
    x, label, group, weight = columns()
    for wrong, words in [
        (fairness.Examples(x[:-1], label, group), "label: expected as many people"),
        (fairness.Examples(x, label, group[1:]), "label: expected as many people"),
        (fairness.Examples(x, label, group, weight[1:]), r"weight: .*\(40,\), got"),
    ]:
        with pytest.raises(ValueError, match=words):
            as_examples(wrong)


def twice(seed):
    """People with weights of 0 to 3, and the same people in so many rows each."""
    x, label, group, weight = columns(seed)
    weight[::5] = 0
    rows = np.repeat(np.arange(PEOPLE), weight.astype(int))
    weighted = fairness.Examples(x, label, group, weight)
    return weighted, fairness.Examples(x[rows], label[rows], group[rows])


@pytest.mark.parametrize("gap", sorted(yodo.GAPS))
def test_a_weight_of_two_is_a_row_given_twice_in_the_loss(gap):
    both = [
        jax.value_and_grad(
            lambda line, people=people: yodo.loss(linear, line, people, 0.5, gap=gap)[0]
        )(LINE)
        for people in twice(0)
    ]
    for ours, theirs in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6)


def test_a_weight_of_two_is_a_row_given_twice_in_the_evaluation():
    weighted, repeated = (
        fairness.evaluate(linear, LINE, people, ALPHAS) for people in twice(1)
    )
    for name in evaluation.Evaluation._fields:
        np.testing.assert_allclose(
            getattr(weighted, name), getattr(repeated, name), atol=1e-5, err_msg=name
        )


def test_weights_in_the_choice_change_gap_and_accuracy_as_rows_do():
    chosen, rows = (
        fairness.choose_alpha(
            linear, LINE, people, [0.5], key=jax.random.key(0), at_most=1
        )
        for people in twice(2)
    )
    assert chosen.gap == pytest.approx(rows.gap, abs=1e-6)
    assert chosen.accuracy == pytest.approx(rows.accuracy, abs=1e-6)
    # More weight is not more people.
    assert chosen.gap_upper > rows.gap_upper


def test_training_follows_the_weights():
    x, label, group, weight = columns()
    even = fairness.Examples(x, label, group, np.ones(PEOPLE))
    plain = fairness.train(linear, LINE, even._replace(weight=None), **OPTIONS)
    same = fairness.train(linear, LINE, even, **OPTIONS)
    other = fairness.train(linear, LINE, even._replace(weight=weight), **OPTIONS)
    np.testing.assert_allclose(same.start, plain.start, atol=1e-6)
    assert not np.allclose(other.start, plain.start, atol=1e-4)


def test_weighted_gaps_are_those_of_fairlearn():
    peer = pytest.importorskip("fairlearn.metrics")
    x, label, group, weight = columns(3, 200)
    people = fairness.Examples(x, label, group, weight)
    found = fairness.evaluate(linear, LINE, people, ALPHAS)
    prob = fairness.predict(linear, LINE, x, ALPHAS)
    for place in range(len(ALPHAS)):
        arrays = {
            "y_true": label,
            "y_pred": np.asarray(prob[place] >= 0.5).astype(int),
            "sensitive_features": group,
            "sample_weight": weight,
        }
        for name in ("demographic_parity", "equal_opportunity"):
            theirs = getattr(peer, f"{name}_difference")(**arrays)
            assert getattr(found, name)[place] == pytest.approx(theirs, abs=1e-5)
        frame = peer.MetricFrame(
            metrics=peer.selection_rate,
            y_true=label,
            y_pred=arrays["y_pred"],
            sensitive_features=group,
            sample_params={"sample_weight": weight},
        )
        np.testing.assert_allclose(found.group_rates[place], frame.by_group, atol=1e-5)


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (-1.0, "weight: expected finite numbers of at least 0, got -1"),
        (np.nan, "weight: expected finite numbers of at least 0, got nan"),
        (np.inf, "weight: expected finite numbers of at least 0, got inf"),
        (None, "weight: expected some above 0, got only 0"),
    ],
)
def test_weights_out_of_range_are_refused(weight, words):
    x, label, group, weights = columns()
    weights = 0 * weights if weight is None else np.append(weights[1:], weight)
    people = fairness.Examples(x, label, group, weights)
    for call in (
        lambda: fairness.train(linear, LINE, people, **OPTIONS),
        lambda: fairness.evaluate(linear, LINE, people, ALPHAS),
        lambda: gaps.demographic_parity_gap(x[:, 0], group, weight=weights),
        lambda: gaps.abcc(x[:, 0], group, weight=weights),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_a_gap_of_your_own_takes_weights_or_is_refused():
    x, label, group, weight = columns()
    people = fairness.Examples(x, label, group, weight)

    def plain(prob, group, label):
        return gaps.demographic_parity_gap(prob, group)

    def weighed(prob, group, label, *, weight=None):
        return gaps.demographic_parity_gap(prob, group, weight=weight)

    with pytest.raises(ValueError, match="gap: expected a function with a parameter"):
        yodo.loss(linear, LINE, people, 0.5, gap=plain)
    own, named = (
        yodo.loss(linear, LINE, people, 0.5, gap=gap)[0]
        for gap in (weighed, "demographic_parity")
    )
    assert own == named
