"""Zero-shot scores from a decoder's probabilities of labelled options."""

import string
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jeff_llm import generate
from jeff_llm.anomaly.categories import Categories, Scored, check_texts
from jeff_llm.models.language_model import LanguageModel

__all__ = [
    "CONTENT_FREE",
    "OptionLogits",
    "anomaly_share",
    "calibrated",
    "option_logits",
]

CONTENT_FREE = ("N/A", "", "[MASK]")  # of Zhao et al.
_LABELS = string.ascii_uppercase
_OPEN = "something else"  # the option where no anomalous kind is named


def calibrated(
    logits: Float[Array | np.ndarray, "texts options"],
    content_free: Float[Array | np.ndarray, "prompts options"],
) -> Float[Array, "texts options"]:
    """Divide the probabilities of options by those without a text.

    ``q_o(x)`` is proportional to ``p_o(x) / m_o``, where ``m`` is the mean of p over
    content-free prompts. It takes away the model's liking for a label or a place in
    the list.

    Args:
      logits: of the options after each text.
      content_free: of the options after texts without content.

    Returns:
      Log-probabilities, normalised over the options.

    Raises:
      ValueError: if the numbers of options differ.

    References:
      Zhao et al., Calibrate before use, ICML 2021 (arXiv 2102.09690), section 5.
    """
    logits, content_free = jnp.asarray(logits), jnp.asarray(content_free)
    if logits.shape[-1] != content_free.shape[-1]:
        raise ValueError(
            f"content_free: expected {logits.shape[-1]} options as in logits, got "
            f"{content_free.shape[-1]}"
        )
    log_prob = jax.nn.log_softmax(content_free, axis=-1)
    prior = jax.nn.logsumexp(log_prob, axis=0) - jnp.log(len(content_free))
    return jax.nn.log_softmax(jax.nn.log_softmax(logits, axis=-1) - prior, axis=-1)


def anomaly_share(
    log_probs: Float[Array, "texts options"], num_normal: int
) -> Float[Array, " texts"]:
    """Compute the share of probability that the anomalous options have.

    Args:
      log_probs: of the options, the normal ones first.
      num_normal: how many options are normal.

    Returns:
      ``sum P(anomalous) / (sum P(anomalous) + sum P(normal))``.

    Raises:
      ValueError: if there is no normal or no anomalous option.
    """
    if not 0 < num_normal < log_probs.shape[-1]:
        raise ValueError(
            f"num_normal: expected 1 to {log_probs.shape[-1] - 1}, got {num_normal}"
        )
    normal = jax.nn.logsumexp(log_probs[:, :num_normal], axis=-1)
    return jax.nn.sigmoid(jax.nn.logsumexp(log_probs[:, num_normal:], axis=-1) - normal)


class OptionLogits(NamedTuple):
    """What the model thinks of the labelled kinds, the normal ones first.

    Attributes:
      texts: logits of the labels after each text.
      content_free: the same after each of `CONTENT_FREE`.
      num_normal: how many kinds are normal.
    """

    texts: Float[np.ndarray, "texts options"]
    content_free: Float[np.ndarray, "prompts options"]
    num_normal: int

    def scores(self, *, calibrate: bool = True) -> Scored:
        """Score the texts.

        Args:
          calibrate: divide by what content-free texts give (`calibrated`).

        Returns:
          Scores; no text fails.
        """
        free = self.content_free if calibrate else np.zeros_like(self.content_free)
        log_probs = calibrated(self.texts, free)
        score = np.asarray(anomaly_share(log_probs, self.num_normal))
        return Scored(score, np.zeros(len(self.texts), bool))


def option_logits(
    model: LanguageModel,
    texts: Sequence[str],
    categories: Categories,
    *,
    max_tokens: int = 128,
    batch_size: int = 8,
) -> OptionLogits:
    """Read, after each text, what the model thinks of each kind.

    The kinds are listed with letters, and the logits of the letters are read after the
    text: one pass over the text, whatever the number of kinds.

    Args:
      model: a decoder with its tokenizer.
      texts: the texts.
      categories: at most 26 kinds; without an anomalous one the last option is
        "something else".
      max_tokens: of a longer text only so many tokens are read.
      batch_size: texts at a time.

    Returns:
      The logits, which `OptionLogits.scores` turns into scores, calibrated or not.

    Raises:
      TypeError: if ``texts`` is a single text.
      ValueError: if there are too many kinds, or the model has no tokenizer.
    """
    texts = check_texts(texts)
    normal = list(categories.normal.values())
    kinds = normal + (list(categories.anomalous.values()) or [_OPEN])
    if len(kinds) > len(_LABELS):
        raise ValueError(
            f"categories: expected at most {len(_LABELS)} kinds, got {len(kinds)}"
        )
    if max_tokens < 1:
        raise ValueError(f"max_tokens: expected at least 1, got {max_tokens}")
    if model.tokenizer is None:
        raise ValueError("model: expected one with a tokenizer, got one without")
    if not texts:
        nothing = np.zeros((0, len(kinds)), np.float32)
        return OptionLogits(nothing, np.zeros((1, len(kinds)), np.float32), len(normal))
    labels = [f" {letter}" for letter in _LABELS[: len(kinds)]]
    listed = "\n".join(
        f"{label.strip()}. {kind}" for label, kind in zip(labels, kinds, strict=True)
    )
    head = f"Kinds of texts:\n{listed}\n\nText: "
    shown = [_first_tokens(model, text, max_tokens) for text in texts]
    prompts = [f"{head}{each}\nKind:" for each in (*CONTENT_FREE, *shown)]
    found = generate.option_logits(model, prompts, labels, batch_size=batch_size)
    free, read = np.split(found, [len(CONTENT_FREE)])
    return OptionLogits(read, free, len(normal))


def _first_tokens(model: LanguageModel, text: str, max_tokens: int) -> str:
    assert model.tokenizer is not None
    # A megabyte is not tokenised whole to read its beginning.
    cut = text[: 64 * max_tokens]
    ids = model.tokenizer.encode(cut, add_special_tokens=False)
    return cut if len(ids) <= max_tokens else model.tokenizer.decode(ids[:max_tokens])
