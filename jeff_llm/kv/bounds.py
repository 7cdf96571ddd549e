"""Errors of quantised keys and values: a model of them, and four bounds.

The bounds follow an error through one head of attention, from keys to logits, from
logits to attention weights, and with the error of the values to the output:

  ``S = Q K'``, ``A = softmax(S / sqrt(d))``, ``O = A V``,

where d is the width of a head. Of quantised keys and values the same formulas make
``S^``, ``A^`` and ``O^``; an error is the exact array minus the quantised one. The norm
``||M||_F`` is Frobenius's, ``||M||_2`` the largest singular value. All arithmetic is in
float32 at least. One head at a time: batches and heads are mapped with `jax.vmap`.

References:
  Hariri et al., "Quantize What Counts: More for Keys, Less for Values", 2025.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jeff.checks import check_floating, check_same_length

__all__ = [
    "attention_error_bound",
    "logits_error_bound",
    "output_error_bound",
    "quantization_error",
    "score_error_bound",
]


def quantization_error(
    squared_norm: Float[Array, "*shape"],
    bits: Shaped[Array, "*#shape"] | float | int,
    constant: float | int = 1.0,
) -> Float[Array, "*shape"]:
    """Expected squared error of a quantised matrix.

    ``||M - M^||_F^2 = C ||M||_F^2 4^(-b)``: a bit more halves the step. This is a
    model, not a bound. A step is a share ``1 / (2^b - 1)`` of the range, so below 4
    bits each bit gains a little more than the model predicts.

    Args:
      squared_norm: ``||M||_F^2``, not negative.
      bits: width of a code, b.
      constant: C, which depends on the distribution and on the size of a group: about
        1 for values uniform around zero, 2 for normal ones in groups of 64.

    Returns:
      The expected ``||M - M^||_F^2``, of the shape of ``squared_norm``.

    Raises:
      TypeError: if ``squared_norm`` is not floating point.

    References:
      Hariri et al., "Quantize What Counts", 2025.

    >>> quantization_error(jnp.array([32.0, 16.0]), jnp.array([2, 4]))
    Array([2.    , 0.0625], dtype=float32)
    """
    check_floating(squared_norm=squared_norm)
    return constant * _wide(squared_norm) * 4.0**-bits


def score_error_bound(
    query: Float[Array, " width"], key_error: Float[Array, " width"]
) -> Float[Array, ""]:
    """Bound of the error of one unscaled logit, ``|q . k - q . k^|``.

    ``||q|| ||k - k^||`` (Cauchy and Schwarz); attained where the error of the key
    points along the query.

    Args:
      query: q, a query.
      key_error: ``k - k^``, the error of a key.

    Returns:
      The bound, a scalar.

    Raises:
      ValueError: if an argument is not a vector, or lengths differ.
      TypeError: if an argument is not floating point.

    References:
      Hariri et al., "Quantize What Counts", 2025.

    >>> score_error_bound(jnp.array([3.0, 4.0]), jnp.array([0.0, -2.0]))
    Array(10., dtype=float32)
    """
    check_same_length(query=query, key_error=key_error)
    check_floating(query=query, key_error=key_error)
    return jnp.linalg.norm(_wide(query)) * jnp.linalg.norm(_wide(key_error))


def logits_error_bound(
    queries: Float[Array, "tokens width"], key_error: Float[Array, "slots width"]
) -> Float[Array, ""]:
    """Bound of the error of all unscaled logits, ``||Q K' - Q K^'||_F``.

    ``||Q||_2 ||K - K^||_F``; attained where the errors of the keys point along the
    first right singular vector of the queries.

    Args:
      queries: Q, a query a row.
      key_error: ``K - K^``, the error of a key per row.

    Returns:
      The bound, a scalar.

    Raises:
      ValueError: if an argument is not a matrix, or widths differ.
      TypeError: if an argument is not floating point.

    References:
      Hariri et al., "Quantize What Counts", 2025.

    >>> logits_error_bound(jnp.diag(jnp.array([3.0, 1.0])), jnp.array([[2.0, 0.0]]))
    Array(6., dtype=float32)
    """
    _check_matrices(queries=queries, key_error=key_error)
    if queries.shape[1] != key_error.shape[1]:
        raise ValueError(
            f"key_error: expected width {queries.shape[1]} as in queries, got "
            f"{key_error.shape[1]}"
        )
    return jnp.linalg.norm(_wide(queries), 2) * jnp.linalg.norm(_wide(key_error))


def attention_error_bound(
    logits_error: Float[Array, ""], head_width: int
) -> Float[Array, ""]:
    """Bound of the error of the attention weights, ``||A - A^||_F``.

    ``||S - S^||_F / (2 sqrt(d))``. The Jacobian of a softmax with result a is ``diag(a)
    - a a'``; its absolute row sums are ``2 a_i (1 - a_i) <= 1/2``, and with them its
    largest singular value. So a row of A moves by at most half of what its scaled
    logits move. That is attained to first order where a row attends to two slots alone,
    to each by half. A mask changes nothing.

    Args:
      logits_error: ``||S - S^||_F`` of the unscaled logits, or a bound of it as by
        `logits_error_bound`.
      head_width: d.

    Returns:
      The bound, a scalar; of ``||A - A^||_2`` as well, which is never larger.

    Raises:
      ValueError: if ``head_width`` is not positive.
      TypeError: if ``logits_error`` is not floating point.

    >>> attention_error_bound(jnp.array(8.0), 64)
    Array(0.5, dtype=float32)
    """
    check_floating(logits_error=logits_error)
    if head_width < 1:
        raise ValueError(f"head_width: expected at least 1, got {head_width}")
    # The softmax is taken of logits over sqrt(d), hence the root.
    return _wide(logits_error) / (2 * head_width**0.5)


def output_error_bound(
    attention: Float[Array, "tokens slots"],
    values: Float[Array, "slots width"],
    value_error: Float[Array, "slots width"],
    attention_error: Float[Array, ""],
) -> Float[Array, ""]:
    """Bound of the error of a head's output, ``||A V - A^ V^||_F``.

    ``||A||_2 ||V - V^||_F + ||A - A^||_2 ||V^||_F``, from ``A V - A^ V^ = A (V - V^) +
    (A - A^) V^``. Either the weights or the values must be the quantised ones: ``A^``
    with V is as good, from ``A^ (V - V^) + (A - A^) V``. With both exact it would be no
    bound, as the product of the two errors would be missing.

    Args:
      attention: A, the exact weights, each row of which sums to 1; or ``A^``.
      values: ``V^``, the quantised values; or the exact V, if ``attention`` is ``A^``.
      value_error: ``V - V^``.
      attention_error: ``||A - A^||_2``, or a bound of it as by `attention_error_bound`.

    Returns:
      The bound, a scalar.

    Raises:
      ValueError: if an argument is not a matrix, or shapes do not fit.
      TypeError: if an argument is not floating point.

    References:
      Hariri et al., "Quantize What Counts", 2025.

    >>> exact, quantised = jnp.array([[2.0], [1.0]]), jnp.array([[0.0], [1.0]])
    >>> output_error_bound(
    ...     jnp.array([[1.0, 0.0]]), quantised, exact - quantised, jnp.array(0.5)
    ... )
    Array(2.5, dtype=float32)
    """
    _check_matrices(attention=attention, values=values, value_error=value_error)
    check_floating(attention_error=attention_error)
    if values.shape != value_error.shape or attention.shape[1] != values.shape[0]:
        raise ValueError(
            "value_error: expected shapes [tokens, slots], [slots, width] and [slots, "
            f"width] of attention, values and value_error, got {attention.shape}, "
            f"{values.shape} and {value_error.shape}"
        )
    # The spectral norm of the weights gives a tighter product than Frobenius's.
    from_values = jnp.linalg.norm(_wide(attention), 2) * jnp.linalg.norm(
        _wide(value_error)
    )
    return from_values + _wide(attention_error) * jnp.linalg.norm(_wide(values))


def _check_matrices(**matrices: Array) -> None:
    check_floating(**matrices)
    for name, matrix in matrices.items():
        if matrix.ndim != 2:
            raise ValueError(
                f"{name}: expected a matrix, got shape {matrix.shape}; jax.vmap it"
            )


def _wide(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """In float32 at least: sums of squares overflow in float16."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
