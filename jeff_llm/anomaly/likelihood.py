"""Zero-shot scores from a decoder's likelihood of the text.

A model too small to answer a question about a text still prefers the text after words
that fit it. `log_likelihoods` reads each text after each description; the rest is
arithmetic on that table, so other descriptions of the same table cost nothing.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jeff_llm import generate
from jeff_llm.anomaly.categories import Categories, Scored, check_texts
from jeff_llm.models.language_model import LanguageModel

__all__ = ["NEUTRAL", "describe", "likelihood_ratio", "log_likelihoods", "ratio"]

NEUTRAL = "a text"  # stands for the anomalous kind where none is named
_TOKENS = 2048  # of a forward pass: bounds the logits, the largest array


def describe(description: str) -> str:
    """Write the prompt after which a text of this kind is expected.

    Args:
      description: a noun phrase, such as "a spam message".

    Returns:
      The prompt.
    """
    return f"Here is {description}:\n"


def log_likelihoods(
    model: LanguageModel,
    texts: Sequence[str],
    prompts: Sequence[str],
    *,
    max_tokens: int = 128,
) -> Float[np.ndarray, "prompts texts"]:
    """Compute each text's mean log-likelihood per token after each prompt.

    ``mean_t log p(x_t | prompt, x_1 ... x_(t-1))``.

    Args:
      model: a decoder.
      texts: the texts.
      prompts: what stands before each, such as `describe` writes.
      max_tokens: of a longer text only so many tokens are read.

    Returns:
      Nats per token; NaN for a text without a token.

    Raises:
      TypeError: if ``texts`` or ``prompts`` is a single text.
      ValueError: if there is no prompt, or the model has no tokenizer.
    """
    texts, prompts = check_texts(texts), check_texts(prompts)
    if not prompts:
        raise ValueError("prompts: expected at least one, got none")
    if max_tokens < 1:
        raise ValueError(f"max_tokens: expected at least 1, got {max_tokens}")
    if model.tokenizer is None:
        raise ValueError("model: expected one with a tokenizer, got one without")
    # Far more characters than these tokens can hold: a text of a megabyte is not
    # tokenised whole to read its beginning.
    cut = [text[: 64 * max_tokens] for text in texts]
    rows = [
        model.tokenizer.encode(text, add_special_tokens=False)[:max_tokens]
        for text in cut
    ]
    found = np.full((len(prompts), len(texts)), np.nan, np.float32)
    order = sorted((len(row), place) for place, row in enumerate(rows) if row)
    while order:
        # The longest first, together with others of nearly its length.
        width = max(16, 1 << (order[-1][0] - 1).bit_length())
        size = max(1, _TOKENS // width)
        chosen = [place for _, place in order[-size:]]
        del order[-size:]
        tails = [rows[place] for place in chosen]
        scores = generate.score(model, prompts, [tails] * len(prompts), batch_size=1)
        found[:, chosen] = [[each.mean for each in row] for row in scores]
    return found


def ratio(
    anomalous: Float[Array | np.ndarray, "kinds texts"],
    normal: Float[Array | np.ndarray, "categories texts"],
) -> Float[Array, " texts"]:
    """Compute the log-likelihood ratio of anomalous to normal kinds.

    ``log mean_a exp(l_a(x)) - log mean_k exp(l_k(x))``, with ``l`` the
    mean log-likelihood per token of `log_likelihoods`.

    Args:
      anomalous: log-likelihoods after each anomalous description.
      normal: the same after each normal one.

    Returns:
      Nats per token, higher for a more anomalous text.

    Raises:
      ValueError: if a side is empty.
    """
    if not len(anomalous) or not len(normal):
        raise ValueError(
            "anomalous, normal: expected at least one row each, got "
            f"{len(anomalous)} and {len(normal)}"
        )
    return _mean_exp(jnp.asarray(anomalous)) - _mean_exp(jnp.asarray(normal))


def likelihood_ratio(
    model: LanguageModel,
    texts: Sequence[str],
    categories: Categories,
    *,
    max_tokens: int = 128,
) -> Scored:
    """Score texts by how much likelier an anomalous description makes them.

    The score is the logistic function of `ratio`. Where no anomalous kind is named,
    `NEUTRAL` stands in its place: a text is anomalous if the normal descriptions do
    not help to predict it.

    Args:
      model: a decoder.
      texts: the texts.
      categories: kinds of texts.
      max_tokens: of a longer text only so many tokens are read.

    Returns:
      Scores; failed are texts without a token.

    Raises:
      TypeError: if ``texts`` is a single text.
      ValueError: if the model has no tokenizer, or both sides have the same
        descriptions, where every text would score .5.

    References:
      Ren et al., Likelihood ratios for out-of-distribution detection, 2019
      (arXiv 1906.02845), for the ratio; AD-LLM (arXiv 2412.11142) for the setting.
    """
    normal = list(categories.normal.values())
    anomalous = list(categories.anomalous.values()) or [NEUTRAL]
    if set(normal) == set(anomalous):
        raise ValueError(
            "categories: expected descriptions of normal texts that differ from those "
            f"of anomalous ones ({NEUTRAL!r} where none is given), got {normal} on "
            "both sides"
        )
    prompts = [describe(each) for each in anomalous + normal]
    table = log_likelihoods(model, texts, prompts, max_tokens=max_tokens)
    found = np.asarray(ratio(table[: len(anomalous)], table[len(anomalous) :]))
    failed = np.isnan(found)
    score = np.asarray(jax.nn.sigmoid(np.where(failed, 0.0, found)))
    return Scored(score, failed)


def _mean_exp(values: Float[Array, "kinds texts"]) -> Float[Array, " texts"]:
    return jax.nn.logsumexp(values, axis=0) - jnp.log(len(values))
