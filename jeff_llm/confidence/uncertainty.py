"""Measures of confidence in an answer, all in [0, 1]; higher is more confident.

Pure functions of a model's outputs: log-probabilities of its tokens, its next-token
distribution, its sampled answers. They work with any model. Functions of token arrays
take the tokens along the last axis and any batch axes before it.

Mind the sign: papers define uncertainties, and routing needs confidences.
``trace(m I - D) / m^2`` of a similarity graph, for example, is an uncertainty;
`degree_confidence` is one minus it.

References:
  Chuang et al., "Confident or Seek Stronger: Exploring Uncertainty-Based On-device LLM
  Routing From Benchmarking to Generalization", 2025.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jeff.checks import check_floating

__all__ = [
    "average_token_probability",
    "consistency",
    "degree_confidence",
    "entropy_confidence",
    "margin",
    "option_confidence",
    "p_true",
    "perplexity_confidence",
    "semantic_entropy_confidence",
]


def average_token_probability(
    log_probs: Float[Array, "... tokens"],
    *,
    where: Bool[Array, "... tokens"] | None = None,
) -> Float[Array, "..."]:
    """Mean probability of an answer's tokens, ``mean_t p(y_t)``.

    Args:
      log_probs: natural log-probability of each token given those before it.
      where: the tokens that are real; all by default.

    Returns:
      Confidence in [0, 1]; NaN for an answer without tokens.

    Raises:
      TypeError: if ``log_probs`` is not floating point.

    >>> average_token_probability(jnp.log(jnp.array([0.5, 1.0])))
    Array(0.75, dtype=float32)
    """
    check_floating(log_probs=log_probs)
    return jnp.mean(jnp.exp(log_probs), axis=-1, where=where)


def perplexity_confidence(
    log_probs: Float[Array, "... tokens"],
    *,
    where: Bool[Array, "... tokens"] | None = None,
) -> Float[Array, "..."]:
    """Geometric mean probability, ``exp(mean_t log p(y_t))``: one over perplexity.

    Args:
      log_probs: natural log-probability of each token given those before it.
      where: the tokens that are real; all by default.

    Returns:
      Confidence in [0, 1]; NaN for an answer without tokens.

    Raises:
      TypeError: if ``log_probs`` is not floating point.

    >>> perplexity_confidence(jnp.log(jnp.array([0.25, 1.0])))
    Array(0.5, dtype=float32)
    """
    check_floating(log_probs=log_probs)
    return jnp.exp(jnp.mean(log_probs, axis=-1, where=where))


def entropy_confidence(
    logits: Float[Array, "... options"],
    *,
    where: Bool[Array, "... options"] | None = None,
) -> Float[Array, "..."]:
    """One minus normalised entropy, ``1 - H(p) / log(options)``.

    Args:
      logits: of the next token, or of the options of a question; probabilities up to a
        factor, in natural logarithms.
      where: the options that exist; all by default.

    Returns:
      Confidence in [0, 1]: 0 for equal options, 1 for a single one.

    Raises:
      TypeError: if ``logits`` is not floating point.

    References:
      Malinin and Gales, "Uncertainty Estimation in Autoregressive Structured
      Prediction", ICLR 2021.

    >>> entropy_confidence(jnp.array([0.0, 0.0]))
    Array(0., dtype=float32)
    """
    check_floating(logits=logits)
    there = jnp.ones(logits.shape, bool) if where is None else where
    log_prob = jax.nn.log_softmax(jnp.where(there, logits, -jnp.inf), axis=-1)
    # 0 log 0 counts as 0; its product would be NaN.
    terms = jnp.where(there & (log_prob > -jnp.inf), jnp.exp(log_prob) * log_prob, 0.0)
    size = jnp.maximum(there.sum(-1), 2)
    # Rounding may put the entropy of equal options a bit above log(options).
    return jnp.clip(1 + terms.sum(-1) / jnp.log(size), 0, 1)


def margin(logits: Float[Array, "... options"]) -> Float[Array, "..."]:
    """Probability of the likeliest option minus that of the next, ``p_(1) - p_(2)``.

    Args:
      logits: of the next token, or of the options; at least two.

    Returns:
      Confidence in [0, 1].

    Raises:
      TypeError: if ``logits`` is not floating point.
      ValueError: if there is only one option.

    References:
      Scheffer et al., "Active Hidden Markov Models for Information Extraction", 2001.

    >>> margin(jnp.log(jnp.array([0.5, 0.25, 0.25])))
    Array(0.25, dtype=float32)
    """
    check_floating(logits=logits)
    if logits.shape[-1] < 2:
        raise ValueError(f"logits: expected at least 2 options, got {logits.shape[-1]}")
    prob = jax.nn.softmax(logits, axis=-1)
    # Two passes over a vocabulary are cheaper than sorting it.
    best = jnp.argmax(prob, axis=-1, keepdims=True)
    others = jnp.where(jnp.arange(prob.shape[-1]) == best, 0.0, prob)
    return prob.max(axis=-1) - others.max(axis=-1)


def option_confidence(
    logits: Float[Array, "... options"], choice: Int[Array, "..."]
) -> Float[Array, "..."]:
    """Probability of the chosen option among all options.

    Args:
      logits: of the options, such as the letters of a multiple choice.
      choice: the option that was answered.

    Returns:
      Confidence in [0, 1].

    Raises:
      TypeError: if ``logits`` is not floating point.

    >>> option_confidence(jnp.log(jnp.array([0.2, 0.6])), jnp.array(1)).round(4)
    Array(0.75, dtype=float32)
    """
    check_floating(logits=logits)
    prob = jax.nn.softmax(logits, axis=-1)
    return jnp.take_along_axis(prob, choice[..., None], axis=-1)[..., 0]


def p_true(
    true_logit: Float[Array, "..."], false_logit: Float[Array, "..."]
) -> Float[Array, "..."]:
    """The probability of one token against another, ``p(T) / (p(T) + p(F))``.

    Use it for "True" against "False" after the model was asked whether its own answer
    is true, for "yes" against "no", and for Self-REF's confident against its
    unconfident token.

    Args:
      true_logit: logit, or log-probability, of the affirmative token.
      false_logit: that of the other.

    Returns:
      Confidence in [0, 1].

    Raises:
      TypeError: if an argument is not floating point.

    References:
      Kadavath et al., "Language Models (Mostly) Know What They Know", 2022.

    >>> p_true(jnp.ones(1), jnp.ones(1))
    Array([0.5], dtype=float32)
    """
    check_floating(true_logit=true_logit, false_logit=false_logit)
    # A softmax of two: the normaliser over the vocabulary cancels.
    return jax.nn.sigmoid(true_logit - false_logit)


def degree_confidence(
    similarity: Float[Array, "... samples samples"],
) -> Float[Array, "..."]:
    """Mean similarity of sampled answers, ``sum_ij W_ij / m^2``.

    One minus the uncertainty ``trace(m I - D) / m^2`` with ``D_ii = sum_j W_ij``.

    Args:
      similarity: of each pair of samples, in [0, 1], ones on the diagonal;
        `jeff_llm.confidence.samples.jaccard` makes it of texts.

    Returns:
      Confidence in [1 / samples, 1].

    Raises:
      TypeError: if ``similarity`` is not floating point.

    References:
      Lin et al., "Generating with Confidence: Uncertainty Quantification for Black-box
      Large Language Models", TMLR 2024, eq. 6.

    >>> degree_confidence(jnp.eye(4))
    Array(0.25, dtype=float32)
    """
    check_floating(similarity=similarity)
    return similarity.mean(axis=(-2, -1))


def semantic_entropy_confidence(
    clusters: Int[Array, "... samples"],
    log_probs: Float[Array, "... samples"] | None = None,
) -> Float[Array, "..."]:
    """One minus normalised entropy over meanings, ``1 - H(p) / log(samples)``.

    ``p_k`` is the share of the samples in cluster k, or their share of the samples'
    probability where ``log_probs`` is given.

    Args:
      clusters: number of each sample's cluster, in ``[0, samples)``.
      log_probs: log-probability of each sample's whole text.

    Returns:
      Confidence in [0, 1]; 1 for a single sample.

    References:
      Kuhn et al., "Semantic Uncertainty: Linguistic Invariances for Uncertainty
      Estimation in Natural Language Generation", ICLR 2023, eq. 8.

    >>> semantic_entropy_confidence(jnp.array([0, 0, 0]))
    Array(1., dtype=float32)
    """
    size = clusters.shape[-1]
    if log_probs is None:
        log_probs = jnp.zeros(clusters.shape)
    weight = jax.nn.softmax(log_probs, axis=-1)
    member = jax.nn.one_hot(clusters, size)
    share = jnp.einsum("...s,...sk->...k", weight, member)
    # xlogy is 0 at 0, where an empty cluster would give NaN.
    negative = jnp.sum(jax.scipy.special.xlogy(share, share), axis=-1)
    return jnp.clip(1 + negative / jnp.log(max(size, 2)), 0, 1)


def consistency(
    clusters: Int[Array, "... samples"], answer: Int[Array, "..."]
) -> Float[Array, "..."]:
    """Share of the sampled answers with the same meaning as the given answer.

    Args:
      clusters: number of each sample's cluster.
      answer: number of the cluster of the answer that was given; one that no sample has
        gives 0.

    Returns:
      Confidence in [0, 1].

    References:
      Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language
      Models", ICLR 2023.

    >>> consistency(jnp.array([0, 0, 1, 2]), jnp.array(0))
    Array(0.5, dtype=float32)
    """
    return jnp.mean(clusters == answer[..., None], axis=-1)
