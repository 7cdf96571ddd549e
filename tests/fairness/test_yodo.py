"""Test YODO: loss, gradients, levels and complete trainings."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from jeff import line as lines
from jeff import training
from jeff.fairness import gaps, nets, yodo


@pytest.fixture(scope="module")
def people():
    x, side = jax.random.split(jax.random.key(0))
    group = jax.random.bernoulli(side, 0.4, (256,))
    inputs = jax.random.normal(x, (256, 6)).at[:, 0].add(1.5 * group)
    label = inputs[:, 0] + inputs[:, 1] > 0.5
    return yodo.Examples(inputs, label.astype(jnp.int32), group.astype(jnp.int32))


@pytest.fixture(scope="module")
def network():
    return nets.mlp_line(6, key=jax.random.key(1), hidden=(16, 16, 16))


def linear(params, x):
    return x @ params["w"] + params["b"]


LINEAR = yodo.Line(
    {"w": jnp.array([1.0, 0, 0, 0, 0, 0]), "b": jnp.array(0.0)},
    {"w": jnp.array([0.0, 1, 0, 0, 0, 0]), "b": jnp.array(0.5)},
)


def test_loss_by_hand():
    batch = yodo.Examples(
        jnp.array([[0.0], [0.0], [2.0]]), jnp.array([1, 0, 1]), jnp.array([0, 0, 1])
    )
    line = yodo.Line(jnp.array([[0.0]]), jnp.array([[2.0]]))
    value, parts = yodo.loss(
        lambda w, x: (x @ w)[:, 0], line, batch, 0.25, strength=3.0, ramp=2.0
    )
    high = 1 / (1 + np.exp(-1.0))  # theta = 0.5, so the third logit is 1
    error = (2 * np.log(2) - np.log(high)) / 3
    gap = high - 0.5
    assert parts["error"] == pytest.approx(error, rel=1e-6)
    assert parts["gap"] == pytest.approx(gap, rel=1e-6)
    assert value == pytest.approx(error + 0.25**2 * 3 * gap, rel=1e-6)


def test_gradients_of_the_ends_carry_their_weights(people):
    def value(line, alpha):
        return yodo.loss(linear, line, people, alpha, cosine_weight=0.0)[0]

    start, end = jax.grad(value)(LINEAR, 0.3)
    chex.assert_trees_all_close(
        jax.tree.map(lambda g: g / 0.7, start),
        jax.tree.map(lambda g: g / 0.3, end),
        rtol=1e-5,
    )
    assert jnp.abs(end["w"]).max() > 1e-3


def test_one_forward_pass_a_step(people):
    calls = []

    def counted(params, x, key=None):
        calls.append(1)
        return linear(params, x)

    step = yodo.train_step(counted, optax.sgd(0.1))
    state = training.init_state(LINEAR, optax.sgd(0.1), key=jax.random.key(0))
    jax.eval_shape(step, state, people)
    assert len(calls) == 1


def test_batch_without_a_group_has_no_gap_and_no_nan(people):
    alone = people._replace(group=jnp.zeros_like(people.group))
    (_, parts), gradient = jax.value_and_grad(
        lambda line: yodo.loss(linear, line, alone, 0.5), has_aux=True
    )(LINEAR)
    assert parts["gap"] == 0
    chex.assert_tree_all_finite(gradient)


@pytest.mark.parametrize("end_mass", [0.0, 0.5, 1.0])
def test_levels_are_drawn_as_told(end_mass):
    keys = jax.random.split(jax.random.key(0), 4000)
    draw = functools.partial(yodo.sample_alpha, end_mass=end_mass)
    alphas = jax.vmap(lambda key: draw(key=key))(keys)
    assert alphas.min() >= 0
    assert alphas.max() <= 1
    for end in (0, 1):
        # Five standard deviations of a share of 4,000 draws.
        assert abs(jnp.mean(alphas == end) - end_mass / 2) < 0.04
    inside = alphas[(alphas > 0) & (alphas < 1)]
    if end_mass < 1:
        assert abs(inside.mean() - 0.5) < 0.03
        assert abs(inside.std() - 12**-0.5) < 0.02


def test_predict_many_levels_equals_a_loop(people, network):
    apply_fn, line = network
    alphas = jnp.linspace(0, 1, 7)
    together = yodo.predict(apply_fn, line, people.inputs, alphas)
    side_by_side = yodo.predict(apply_fn, line, people.inputs, alphas, alphas_at_once=3)
    for place, alpha in enumerate(alphas):
        params = lines.interpolate(line.start, line.end, alpha)
        alone = jax.nn.sigmoid(apply_fn(params, people.inputs))
        np.testing.assert_allclose(together[place], alone, atol=1e-6)
        np.testing.assert_allclose(side_by_side[place], alone, atol=1e-6)
        np.testing.assert_allclose(
            yodo.predict(apply_fn, line, people.inputs, alpha), alone, atol=1e-6
        )


def test_predict_each_equals_one_person_at_a_time(people, network):
    apply_fn, line = network
    alphas = jax.random.uniform(jax.random.key(3), (256,))
    each = yodo.predict_each(apply_fn, line, people.inputs, alphas, people_at_once=48)
    for place in (0, 100, 255):
        params = lines.interpolate(line.start, line.end, alphas[place])
        alone = jax.nn.sigmoid(apply_fn(params, people.inputs))[place]
        np.testing.assert_allclose(each[place], alone, atol=1e-6)
    np.testing.assert_allclose(
        yodo.predict_each(apply_fn, line, people.inputs, jnp.full(256, 0.5)),
        yodo.predict(apply_fn, line, people.inputs, 0.5),
        atol=1e-6,
    )


def test_any_pytree_of_inputs(people):
    halves = {"left": people.inputs[:, :3], "right": people.inputs[:, 3:]}

    def apply_fn(params, x):
        return linear(params, jnp.concatenate([x["left"], x["right"]], axis=1))

    np.testing.assert_allclose(
        yodo.predict(apply_fn, LINEAR, halves, 0.2),
        yodo.predict(linear, LINEAR, people.inputs, 0.2),
        atol=1e-7,
    )
    alphas = jnp.linspace(0, 1, 256)
    np.testing.assert_allclose(
        yodo.predict_each(apply_fn, LINEAR, halves, alphas),
        yodo.predict_each(linear, LINEAR, people.inputs, alphas),
        atol=1e-7,
    )


def linen_model(key):
    module = linen.Dense(1)
    ends = (module.init(k, jnp.ones((1, 6))) for k in jax.random.split(key))
    return (lambda params, x: module.apply(params, x)[:, 0]), yodo.Line(*ends)


def nnx_model(key):
    def make(seed):
        return nnx.split(nnx.Linear(6, 1, rngs=nnx.Rngs(seed)), nnx.Param)

    (graphdef, start), (_, end) = make(0), make(1)
    return lambda params, x: nnx.merge(graphdef, params)(x)[:, 0], yodo.Line(start, end)


def plain_model(key):
    draws = jax.random.normal(key, (2, 6))
    ends = ([draw, jnp.zeros(())] for draw in draws)
    return (lambda params, x: x @ params[0] + params[1]), yodo.Line(*ends)


@pytest.mark.parametrize("model", [linen_model, nnx_model, plain_model])
def test_models_of_every_kind(people, key, model):
    apply_fn, line = model(key)
    trained = yodo.train(
        apply_fn,
        line,
        people,
        key=key,
        optimizer=optax.adam(0.05),
        num_epochs=40,
        batch_size=64,
    )
    assert jax.tree.structure(trained.start) == jax.tree.structure(line.start)
    prob = yodo.predict(apply_fn, trained, people.inputs, 0.0)
    assert jnp.mean((prob > 0.5) == people.label) > 0.9


def test_only_a_network_that_takes_a_key_gets_one(people, key):
    seen = []

    def noisy(params, x, *, key=None):
        seen.append(key is not None)
        return linear(params, x)

    for given in (key, None):
        yodo.loss(noisy, LINEAR, people, 0.5, key=given)
    yodo.loss(linear, LINEAR, people, 0.5, key=key)
    assert seen == [True, False]


@pytest.fixture(scope="module")
def train(network):
    apply_fn, _ = network

    @jax.jit
    def run(line, examples, key, strength):
        return yodo.train(
            apply_fn,
            line,
            examples,
            key=key,
            optimizer=optax.adam(1e-2),
            num_epochs=30,
            batch_size=64,
            strength=strength,
        )

    return run


def test_same_key_same_line_another_key_another(people, network, train):
    _, line = network
    first, again, other = (
        train(line, people, jax.random.key(seed), 1.0) for seed in (0, 0, 1)
    )
    chex.assert_trees_all_equal(first, again)
    assert not jnp.allclose(jax.tree.leaves(first)[1], jax.tree.leaves(other)[1])


def test_training_makes_a_trade_off(people, network, train):
    apply_fn, line = network
    trained = train(line, people, jax.random.key(0), 3.0)
    prob = yodo.predict(apply_fn, trained, people.inputs, jnp.array([0.0, 1.0]))
    gap = jax.vmap(gaps.demographic_parity_gap, in_axes=(0, None))(prob, people.group)
    accurate = jnp.mean((prob > 0.5) == people.label, axis=1)
    assert gap[0] > 0.3
    assert gap[1] < 0.08
    assert accurate[0] > 0.95
    assert accurate[0] > accurate[1] > 0.6


def test_many_seeds_and_strengths_in_one_vmapped_call(people, network, train):
    _, line = network
    keys = jax.random.split(jax.random.key(5), 2)
    strengths = jnp.array([0.0, 2.0])
    together = jax.vmap(train, in_axes=(None, None, 0, 0))(
        line, people, keys, strengths
    )
    for place in range(2):
        alone = train(line, people, keys[place], strengths[place])
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, place=place: leaf[place], together),
            alone,
            atol=2e-4,
        )


def test_fit_and_train_agree(people, network, train):
    apply_fn, line = network
    order, steps = jax.random.split(jax.random.key(0))
    optimizer = optax.adam(1e-2)
    fit = training.fit(
        yodo.train_step(apply_fn, optimizer),
        training.init_state(line, optimizer, key=steps),
        training.Shuffled(people, 64, order),
        num_steps=30 * 4,
        progress=False,
    )
    trained = train(line, people, jax.random.key(0), 1.0)
    chex.assert_trees_all_close(fit.state.params, trained, atol=2e-4)


@chex.assert_max_traces(n=1)
def _traced(line, examples, alpha):
    return yodo.loss(linear, line, examples, alpha)[0]


def test_another_level_does_not_retrace(people):
    chex.clear_trace_counter()
    compiled = jax.jit(_traced)
    values = [compiled(LINEAR, people, alpha) for alpha in (0.0, 0.5, 1.0)]
    assert len(set(map(float, values))) == 3


def test_loss_and_gradients_equal_pytorch(people):
    torch = pytest.importorskip("torch", reason="PyTorch is an optional peer")
    x, y, s = (torch.tensor(np.array(part)) for part in people[:3])
    ends = [
        {
            name: torch.tensor(np.array(leaf), requires_grad=True)
            for name, leaf in e.items()
        }
        for e in LINEAR
    ]
    theta = {name: 0.6 * ends[0][name] + 0.4 * ends[1][name] for name in ends[0]}
    logit = x @ theta["w"] + theta["b"]
    prob = torch.sigmoid(logit)
    gap = (prob[s == 0].mean() - prob[s == 1].mean()).abs()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, y.float())
    total = loss + 0.4 * 2.0 * gap
    total.backward()
    value, gradient = jax.value_and_grad(
        lambda line: yodo.loss(linear, line, people, 0.4, strength=2.0, ramp=1.0)[0]
    )(LINEAR)
    assert value == pytest.approx(total.item(), rel=1e-5)
    for ours, theirs in zip(gradient, ends, strict=True):
        np.testing.assert_allclose(ours["w"], theirs["w"].grad.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: yodo.sample_alpha(key=jax.random.key(0), end_mass=1.5), "end_mass"),
        (lambda p: yodo.loss(linear, LINEAR, p, 0.5, ramp=-1.0), "ramp: expected"),
        (
            lambda p: yodo.loss(linear, LINEAR, p, 0.5, gap="parity"),
            "gap: expected one",
        ),
        (
            lambda p: yodo.loss(lambda w, x: x[:, :1], LINEAR, p, 0.5),
            r"one logit a person.*\(256,\).*\(256, 1\)",
        ),
        (
            lambda p: yodo.loss(
                linear, LINEAR._replace(end={"w": jnp.ones(6)}), p, 0.5
            ),
            "one structure",
        ),
        (lambda p: yodo.predict(linear, LINEAR, p.inputs, jnp.ones((2, 2))), "alphas"),
        (
            lambda p: yodo.predict_each(linear, LINEAR, p.inputs, jnp.ones(3)),
            "one level",
        ),
    ],
)
def test_bad_arguments(people, call, words):
    with pytest.raises(ValueError, match=words):
        call(people)
