"""What a newcomer does wrong is refused in words, and never passed over."""

import jax
import numpy as np
import pytest

from configs.anomaly import Config
from jeff_llm import anomaly
from jeff_llm.anomaly.covariance import mahalanobis

NORMAL = [
    f"See you at {hour} for {what}?"
    for hour in range(1, 11)
    for what in ("tea", "lunch", "class")
]
KEY = jax.random.key(0)


def lengths(texts):
    return np.array(
        [[len(text), text.count("e"), sum(map(ord, text)) % 7] for text in texts],
        np.float32,
    ).reshape(-1, 3)


def fit(encode, **settings):
    return anomaly.fit(NORMAL, {"mine": encode}, views=("mine",), key=KEY, **settings)


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda texts: lengths(texts)[:-1], "vector for each of 21 texts from 'mine'"),
        (lambda texts: lengths(texts)[:, 0], "vector for each of 21 texts from 'mine'"),
        (lambda texts: lengths(texts) * np.nan, "finite numbers .* 'mine'.*'See you"),
        (lambda texts: lengths(texts) * np.float64(1e300), "finite numbers .* 'mine'"),
        (lambda texts: lengths(texts) * 1e30, "finite distances in 'mine'"),
        (lambda texts: np.ones((len(texts), 2)), "texts that differ in 'mine'"),
    ],
)
def test_fault_of_an_encoder_names_it(encode, message):
    with pytest.raises(ValueError, match=message):
        fit(encode)


@pytest.mark.parametrize("encoders", [lengths, {"mine": 3}])
def test_encoders_that_are_none(encoders):
    with pytest.raises(TypeError, match="encoders"):
        anomaly.fit(NORMAL, encoders, key=KEY)


def test_strings_are_no_vectors():
    with pytest.raises(TypeError, match="vectors of numbers from 'mine', got <U"):
        fit(lambda texts: [[text] for text in texts])


def test_views_are_names():
    with pytest.raises(TypeError, match="views: expected a sequence of names"):
        anomaly.fit(NORMAL, {"mine": lengths}, views="mine", key=KEY)


def test_rows_missing_at_scoring():
    detector = fit(lengths)
    with pytest.raises(ValueError, match="each of 2 texts from 'mine'"):
        anomaly.score(detector, ["a", "b"], {"mine": lambda texts: lengths(texts)[:1]})


@pytest.mark.parametrize("holdout", [0.1, 0.3, 0.5, 0.9])
def test_stated_number_of_texts_is_the_fewest(holdout):
    with pytest.raises(ValueError, match="expected at least") as caught:
        anomaly.fit(["a"], {"mine": lengths}, holdout=holdout, key=KEY)
    fewest = int(str(caught.value).split("at least ")[1].split()[0])
    texts = [f"{number} and {number**2}" for number in range(fewest)]
    anomaly.fit(texts, {}, holdout=holdout, key=KEY)
    with pytest.raises(ValueError, match=f"at least {fewest} "):
        anomaly.fit(texts[:-1], {}, holdout=holdout, key=KEY)


def test_lists_of_scores():
    with pytest.raises(TypeError, match="p_values"):
        anomaly.benjamini_hochberg([0.01, 0.5], 0.1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="calibration_scores"):
        anomaly.threshold([1.0, 2.0, 3.0], 0.5)  # pyright: ignore[reportArgumentType]


def test_covariance_of_many_columns_is_refused():
    with pytest.raises(ValueError, match="at most 4096 columns, got 4097"):
        mahalanobis(np.ones((3, 4097), np.float32))
    with pytest.raises(ValueError, match="add --views minilm"):
        Config(method="mahalanobis")
    assert Config(method="mahalanobis", views=("minilm",)).views == ("minilm",)


@pytest.mark.parametrize("anomalous", [{}, {"odd": "a text"}])
def test_the_same_descriptions_on_both_sides(lettered, anomalous):
    kinds = anomaly.Categories({"normal": "a text"}, anomalous)
    with pytest.raises(ValueError, match="categories: expected descriptions"):
        anomaly.likelihood_ratio(lettered, ["abc"], kinds)
