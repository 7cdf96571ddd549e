"""YODO: one training, every trade-off between accuracy and fairness.

A line in weight space runs from an accurate end (alpha = 0) to a fair end (alpha = 1).
Each step draws one alpha for its batch, so one training costs one model, and at
inference the user picks alpha: for everybody, or person by person.

Deliberately different from the official code:

* Evaluation runs without dropout; the official code never leaves training mode, which
  costs up to 0.6 points of accuracy.
* A batch without one of the groups has no gap instead of NaN.
* People may have weights, in loss and gap.
* The accurate end is protected. Half of the steps draw an end (``end_mass``; 0 is
  the paper's uniform draw, which visits an end with probability zero), and the weight
  of the gap may grow as ``alpha^ramp`` (1 is the paper's). With a large strength the
  paper's choices drag the accurate end down: ``docs/yodo.md`` has the measurement.

As in the paper, and worth knowing:

* The cosine term has no effect: independently drawn ends are orthogonal already.
* ``|gap|`` has a kink at zero: past the alpha where the signed gap vanishes, the gap
  may grow again. `evaluate` reports gaps unchanged; `jeff.fairness.monotone_levels`
  returns the level to serve instead.
* Training for demographic parity can raise the equal-opportunity gap; `evaluate` always
  reports both.

References:
  Han et al., "You Only Debias Once: Towards Flexible Accuracy-Fairness Trade-offs at
  Inference Time", 2025.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from jeff import line as lines
from jeff.batches import Shuffled
from jeff.fairness.evaluation import choose_alpha, evaluate
from jeff.fairness.examples import as_examples
from jeff.fairness.model import (
    GAPS,
    ApplyFn,
    Examples,
    GapFn,
    Line,
    error_and_gap,
    predict,
    predict_each,
)
from jeff.frozen import Frozen
from jeff.steps import Metrics, Step, init_state, make_step, run_epochs

__all__ = [
    "GAPS",
    "Examples",
    "Line",
    "choose_alpha",
    "evaluate",
    "loss",
    "predict",
    "predict_each",
    "sample_alpha",
    "train",
    "train_step",
]


def sample_alpha(*, key: PRNGKeyArray, end_mass: float = 0.5) -> Float[Array, ""]:
    """Draw the level of one training step.

    With probability ``end_mass`` one of the two ends, else uniform between them.

    Args:
      key: random key.
      end_mass: probability of an end, in [0, 1]; 0 is the paper's uniform draw.

    Returns:
      A scalar in [0, 1].

    Raises:
      ValueError: if ``end_mass`` lies outside [0, 1].
    """
    if not 0 <= end_mass <= 1:
        raise ValueError(f"end_mass: expected a probability in [0, 1], got {end_mass}")
    which, where, side = jax.random.split(key, 3)
    end = jax.random.bernoulli(side).astype(jnp.float32)
    at_end = jax.random.bernoulli(which, end_mass)
    return jnp.where(at_end, end, jax.random.uniform(where))


def loss(
    apply_fn: ApplyFn,
    line: Line,
    batch: Examples,
    alpha: Float[Array, ""] | float,
    *,
    strength: Float[Array, ""] | float = 1.0,
    ramp: float = 1.0,
    gap: str | GapFn = "demographic_parity",
    cosine_weight: float = 1.0,
    key: PRNGKeyArray | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """Loss of the line at one level.

    ``BCE(theta) + alpha^ramp strength gap(theta) + cosine_weight cos^2(start, end)``,
    ``theta = (1 - alpha) start + alpha end``. One forward pass; the gradients of the
    two ends are ``1 - alpha`` and ``alpha`` times that of theta, plus the cosine's.

    Args:
      apply_fn: ``apply_fn(params, inputs) -> logits [people]``. If it has a parameter
        named ``key`` and a key is given, it is passed on, for dropout; to one named
        ``rngs``, as of Linen's ``module.apply``, as ``{"dropout": key}``.
      line: the two ends.
      batch: the people of this step.
      alpha: level in [0, 1].
      strength: weight of the gap at alpha = 1; may be traced.
      ramp: exponent of alpha in the weight of the gap, at least 0. 1 is the
        paper's; 2 keeps the accurate end accurate at a large strength.
      gap: a name in `GAPS`, or a function of (prob, group, label).
      cosine_weight: weight of the term that keeps the ends apart.
      key: random key of this step, or None to run without dropout.

    Returns:
      ``(loss, {"error", "gap", "cosine"})``, scalars.

    Raises:
      ValueError: if the ends differ in structure, the logits are not [people], or the
        gap's name is unknown.

    References:
      Han et al., "You Only Debias Once", 2025, eq. 4 and algorithm 1.
    """
    if ramp < 0:
        raise ValueError(f"ramp: expected an exponent of at least 0, got {ramp}")
    params = lines.interpolate(line.start, line.end, alpha)
    error, gap_value = error_and_gap(apply_fn, params, batch, gap=gap, key=key)
    # Kept as in the paper, though independently drawn ends are orthogonal already.
    cosine = lines.cosine_squared(line.start, line.end)
    total = error + alpha**ramp * strength * gap_value + cosine_weight * cosine
    return total, {"error": error, "gap": gap_value, "cosine": cosine}


def train_step(
    apply_fn: ApplyFn,
    optimizer: optax.GradientTransformation,
    *,
    strength: Float[Array, ""] | float = 1.0,
    ramp: float = 1.0,
    gap: str | GapFn = "demographic_parity",
    cosine_weight: float = 1.0,
    end_mass: float = 0.5,
    frozen: Frozen | None = None,
) -> Step:
    """The pure training step of a line, for `jeff.training.fit` or your own loop.

    Args:
      apply_fn: as in `loss`.
      optimizer: any optax transformation.
      strength: as in `loss`.
      ramp: as in `loss`.
      gap: as in `loss`.
      cosine_weight: as in `loss`.
      end_mass: as in `sample_alpha`.
      frozen: parameters of the ends that are not trained, as in
        `jeff.frozen.is_frozen`: ``"batch_stats"`` for Linen.

    Returns:
      ``step(state, batch) -> (state, metrics)``, where the state comes from
      ``jeff.training.init_state(line, optimizer, key=key)`` and the batch is an
      `Examples`.
    """

    def step_loss(line: Line, batch: Examples, key: PRNGKeyArray):
        # One level for the whole batch, as in the paper: a gap needs a batch of one
        # model.
        draw, noise = jax.random.split(key)
        alpha = sample_alpha(key=draw, end_mass=end_mass)
        return loss(
            apply_fn,
            line,
            batch,
            alpha,
            strength=strength,
            ramp=ramp,
            gap=gap,
            cosine_weight=cosine_weight,
            key=noise,
        )

    return make_step(step_loss, optimizer, frozen=frozen)


def train(
    apply_fn: ApplyFn,
    line: Line,
    examples: Examples,
    *,
    key: PRNGKeyArray,
    optimizer: optax.GradientTransformation,
    num_epochs: int = 8,
    batch_size: int = 512,
    strength: Float[Array, ""] | float = 1.0,
    ramp: float = 1.0,
    gap: str | GapFn = "demographic_parity",
    end_mass: float = 0.5,
    frozen: Frozen | None = None,
) -> Line:
    """Train a line: a whole run as one pure function.

    Jit it, or vmap it over keys, lines or strengths to train many at once.

    Args:
      apply_fn: as in `loss`.
      line: initial ends, drawn independently.
      examples: the training people; arrays of any kind.
      key: random key of order, levels and dropout.
      optimizer: any optax transformation.
      num_epochs: passes over the people.
      batch_size: people per step.
      strength: as in `loss`.
      ramp: as in `loss`.
      gap: as in `loss`.
      end_mass: as in `sample_alpha`.
      frozen: as in `train_step`.

    Returns:
      The trained line.

    Raises:
      ValueError: if an argument is out of range, the shapes do not fit, a label or
        group is neither 0 nor 1, or a weight is negative or NaN.
    """
    examples = as_examples(examples)
    # Separate keys: another order of people must not change the levels drawn.
    order, steps = jax.random.split(key)
    step_fn = train_step(
        apply_fn,
        optimizer,
        strength=strength,
        ramp=ramp,
        gap=gap,
        end_mass=end_mass,
        frozen=frozen,
    )
    state, _ = run_epochs(
        step_fn,
        init_state(line, optimizer, key=steps),
        Shuffled(examples, batch_size, order),
        num_epochs=num_epochs,
    )
    return state.params
