"""Logs of a small and a large model: one query per row, read and checked.

The file is JSON lines, a row such as ::

    {"confidence": 0.83, "small_correct": true, "large_correct": true, "cost": 0.002}

``token_logprobs``, the natural log-probabilities of the answer's tokens, can replace
``confidence``, which is then computed from them. Correctness is true or false, or a
score in [0, 1]. ``cost`` is the cost of the large model for this query, ``dataset``
names its data set, ``confidence_measure`` what the confidence is: "perplexity",
"average", "selfref" or a name of your own. Other fields are ignored.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jeff import hub_rows

__all__ = ["Logs", "from_jsonl"]

# Sums over a log stay within float32; a larger cost would print as NaN.
_MOST_COST = 1e30


class Logs(NamedTuple):
    """Queries, one per row.

    Attributes:
      confidence: of the small model, in [0, 1].
      small_correct: whether its answer is right, bool; or float, how right, in [0, 1],
        where the file has other numbers than 0 and 1.
      large_correct: likewise of the large model.
      cost: of the large model for each query; ones where the file has none.
      dataset: name of each query's data set; empty where the file has none.
      priced: whether the file has costs.
      measure: what the confidence is, where every row says so; else empty.
    """

    confidence: Float[Array, " queries"]
    small_correct: Shaped[Array, " queries"]
    large_correct: Shaped[Array, " queries"]
    cost: Float[Array, " queries"]
    dataset: list[str]
    priced: bool
    measure: str = ""


def from_jsonl(
    path: str | Path,
    *,
    confidence: str = "confidence",
    token_logprobs: str = "token_logprobs",
    small_correct: str = "small_correct",
    large_correct: str = "large_correct",
    cost: str = "cost",
    dataset: str = "dataset",
    measure: Literal["perplexity", "average"] = "perplexity",
) -> Logs:
    """Read the logs of a small and a large model.

    Args:
      path: JSON lines, a query a row; empty lines are skipped. Or a Hugging Face data
        set with the same columns, as in `jeff.hub_rows`.
      confidence: name of the field with the confidence, in [0, 1].
      token_logprobs: name of the field with the answer's log-probabilities, used where
        the confidence is missing.
      small_correct: name of the field with the small model's correctness.
      large_correct: likewise of the large model.
      cost: name of the field with the large model's cost; all rows have it or none.
      dataset: name of the field with the data set; null, like none, is no name.
      measure: confidence from log-probabilities: "perplexity", ``exp(mean log p)``, or
        "average", ``mean p``.

    Returns:
      The queries.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: naming file, line and field, the expected and the actual value; or if
        there are fewer than two queries, rows with different measures of confidence,
        or the small model is always right or always wrong, so that there is nothing to
        route by.
    """
    path = Path(path)
    if measure not in ("perplexity", "average"):
        raise ValueError(
            f"measure: expected 'perplexity' or 'average', got {measure!r}"
        )
    names = (confidence, token_logprobs, small_correct, large_correct, cost, dataset)
    found = [
        _query(where, row, names, measure)
        for where, row in hub_rows.json_rows(path, finite=False)
    ]
    if len(found) < 2:
        raise ValueError(f"{path}: expected at least 2 queries, got {len(found)}")
    columns = list(zip(*found, strict=True))
    prices = [value is not None for value in columns[3]]
    # A missing cost must not count as free.
    if any(prices) and not all(prices):
        raise ValueError(
            f"{path}: expected {cost!r} in every row or in none, got it in "
            f"{sum(prices)} of {len(prices)}; row {prices.index(False) + 1} is the "
            "first without"
        )
    small = columns[1]
    # With one outcome alone every threshold looks as good as any other.
    if set(small) in ({0.0}, {1.0}):
        raise ValueError(
            f"{path}: expected right and wrong answers of the small model, but "
            f"{small_correct!r} is {small[0]:g} in all {len(small)} rows: no "
            "confidence can tell them apart; log more queries, or check how answers "
            "are marked"
        )
    costs = [1.0 if value is None else value for value in columns[3]]
    return Logs(
        jnp.asarray(columns[0], jnp.float32),
        _marks(columns[1]),
        _marks(columns[2]),
        jnp.asarray(costs, jnp.float32),
        list(columns[4]),
        all(prices),
        _measure(path, columns[5]),
    )


def _measure(path: Path, found: Sequence[str]) -> str:
    """The one measure of all rows; empty where a row does not say."""
    names = sorted(set(found))
    named = [name for name in names if name]
    if len(named) > 1:
        raise ValueError(
            f"{path}: expected one measure of confidence, got {named}: a threshold on "
            "one says nothing about another; split the file"
        )
    return names[0]


def _marks(values: Sequence[float]) -> Array:
    marks = jnp.asarray(values, jnp.float32)
    # Booleans where they suffice: sorting them carries one byte a query.
    return marks > 0 if set(values) <= {0.0, 1.0} else marks


def _query(
    where: str, row: dict[str, Any], names: tuple[str, ...], measure: str
) -> tuple[float, float, float, float | None, str, str]:
    confidence, logprobs, small, large, cost, dataset = names
    for name in (small, large):
        if name not in row:
            raise ValueError(
                f"{where}: expected a field {name!r}, got {sorted(row)}; name yours"
            )
    if row.get(confidence) is not None:
        sure = _number(where, confidence, row[confidence], 1.0)
        measure = _name(where, "confidence_measure", row)
    elif row.get(logprobs) is not None:
        sure = _from_logprobs(where, logprobs, row[logprobs], measure)
    else:
        empty = [name for name in (confidence, logprobs) if name in row]
        got = ", ".join(f"{name}: null" for name in empty) or str(sorted(row))
        way = "leave out rows without one" if empty else "name yours"
        raise ValueError(
            f"{where}: expected {confidence!r} or {logprobs!r}, got {got}; {way}"
        )
    price = None
    if row.get(cost) is not None:
        price = _number(where, cost, row[cost], _MOST_COST)
    return (
        sure,
        _number(where, small, row[small], 1.0, flag=True),
        _number(where, large, row[large], 1.0, flag=True),
        price,
        _name(where, dataset, row),
        measure,
    )


def _name(where: str, field: str, row: dict[str, Any]) -> str:
    """A name in a row; null is none, as in a table whose rows lack it."""
    value = row.get(field)
    # A bool is an int in Python, and no name.
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, str | int)
    ):
        raise ValueError(f"{where}: {field}: expected a name, got {value!r:.60}")
    return "" if value is None else str(value)


def _number(
    where: str, name: str, value: Any, most: float, *, flag: bool = False
) -> float:
    kind = "true, false or a number" if flag else "a number"
    limit = f"in [0, {most:g}]"
    # A bool is an int in Python, and no confidence.
    fits = isinstance(value, int | float) and (flag or not isinstance(value, bool))
    if not fits or not 0 <= value <= most:
        raise ValueError(f"{where}: {name}: expected {kind} {limit}, got {value!r}")
    return float(value)


def _from_logprobs(where: str, name: str, value: Any, measure: str) -> float:
    numbers = value if isinstance(value, list) else []
    fits = all(
        isinstance(x, int | float) and not isinstance(x, bool) and x <= 0
        for x in numbers
    )
    if not numbers or not fits:
        raise ValueError(
            f"{where}: {name}: expected a list of log-probabilities, numbers of at "
            f"most 0, got {str(value)[:60]}"
        )
    if measure == "average":
        return sum(map(math.exp, numbers)) / len(numbers)
    return math.exp(sum(numbers) / len(numbers))
