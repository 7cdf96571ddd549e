"""Similarity of two phenotype terms, and the step that all of them stand on.

All measures start from the common ancestor with the largest information content
(MICA) or from the numbers of common ancestors. `over_ancestors` finds the former for
all pairs at once: a term's best ancestor is itself or the best of its parents, so one
pass down the ontology suffices, whatever its depth.

Arrays have a row per term of the ontology or of a part of it that holds, with each
term, its ancestors; columns are whatever is compared with the terms.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

__all__ = [
    "information_coefficient",
    "jaccard",
    "jiang_conrath",
    "lin",
    "over_ancestors",
    "over_descendants",
    "phenodigm_pair",
    "relevance",
]

Values = Float[Array, "*#shape"]


@jax.jit
def over_ancestors(
    own: Float[Array, "terms columns"], parents: Int[Array, "terms width"]
) -> Float[Array, "terms columns"]:
    """Largest value among a term and its ancestors.

    ``m(t) = max(own(t), max over parents p of m(p))``, from the roots downwards. With
    ``own(a) = IC(a)`` where ``a`` is an ancestor of the term of the column, and 0
    elsewhere, ``m`` is the information content of the MICA (Resnik's similarity).

    Args:
      own: value of each term by itself; parents stand above their children.
      parents: rows of the parents of each term; a term with fewer parents than the
        width repeats its own row.

    Returns:
      The largest value on all paths from a root to the term.

    References:
      Resnik, "Using Information Content to Evaluate Semantic Similarity in a
      Taxonomy", IJCAI 1995, eq. 2.

    >>> over_ancestors(jnp.array([[0.0], [2.0], [1.0]]), jnp.array([[0], [0], [1]]))
    Array([[0.],
           [2.],
           [2.]], dtype=float32)
    """

    def step(row: Int[Array, ""], best: Array) -> Array:
        return best.at[row].max(jnp.max(best[parents[row]], axis=0))

    return lax.fori_loop(0, own.shape[0], step, own)


@jax.jit
def over_descendants(
    own: Float[Array, "terms columns"], parents: Int[Array, "terms width"]
) -> Float[Array, "terms columns"]:
    """Largest value among a term and its descendants, from the leaves upwards.

    With 1 for the terms of a set and 0 elsewhere this is the set's closure.

    Args:
      own: value of each term by itself; parents stand above their children.
      parents: rows of the parents of each term, as in `over_ancestors`.

    Returns:
      The largest value on all paths from the term to a leaf.

    >>> over_descendants(jnp.array([[0.0], [2.0], [1.0]]), jnp.array([[0], [0], [1]]))
    Array([[2.],
           [2.],
           [1.]], dtype=float32)
    """
    size = own.shape[0]

    def step(done: Int[Array, ""], best: Array) -> Array:
        row = size - 1 - done
        return best.at[parents[row]].max(best[row])

    return lax.fori_loop(0, size, step, own)


def lin(mica: Values, first: Values, second: Values) -> Float[Array, "*shape"]:
    """Lin's similarity, ``2 IC(MICA) / (IC(a) + IC(b))``; 0 if both are 0.

    Args:
      mica: information content of the MICA, in nats, at least 0.
      first: information content of one term.
      second: information content of the other.

    Returns:
      Similarity in [0, 1].

    References:
      Lin, "An Information-Theoretic Definition of Similarity", ICML 1998, section 4.
    """
    total = first + second
    return jnp.where(total > 0, 2 * mica / jnp.where(total > 0, total, 1), 0)


def jiang_conrath(
    mica: Values, first: Values, second: Values
) -> Float[Array, "*shape"]:
    """Jiang and Conrath's distance as a similarity, ``1 / (1 + distance)``.

    ``distance = IC(a) + IC(b) - 2 IC(MICA)``.

    Args:
      mica: information content of the MICA, in nats, at least 0.
      first: information content of one term.
      second: information content of the other.

    Returns:
      Similarity in (0, 1].

    References:
      Jiang and Conrath, "Semantic Similarity Based on Corpus Statistics and Lexical
      Taxonomy", ROCLING X 1997, eq. 15 (the distance).
    """
    return 1 / (1 + jnp.maximum(first + second - 2 * mica, 0))


def relevance(mica: Values, first: Values, second: Values) -> Float[Array, "*shape"]:
    """Relevance similarity: Lin's times ``1 - p(MICA)``, where ``p = exp(-IC)``.

    Args:
      mica: information content of the MICA, in nats, at least 0.
      first: information content of one term.
      second: information content of the other.

    Returns:
      Similarity in [0, 1).

    References:
      Schlicker et al., "A new measure for functional similarity of gene products based
      on Gene Ontology", BMC Bioinformatics 2006, eq. 5.
    """
    return lin(mica, first, second) * -jnp.expm1(-mica)


def information_coefficient(
    mica: Values, first: Values, second: Values
) -> Float[Array, "*shape"]:
    """Information coefficient: Lin's times ``1 - 1 / (1 + IC(MICA))``.

    Args:
      mica: information content of the MICA, in nats, at least 0.
      first: information content of one term.
      second: information content of the other.

    Returns:
      Similarity in [0, 1).

    References:
      Li et al., "Effectively integrating information content and structural
      relationship to improve the GO-based similarity measure between proteins",
      arXiv 1001.0958, 2010.
    """
    return lin(mica, first, second) * mica / (1 + mica)


def jaccard(common: Values, first: Values, second: Values) -> Float[Array, "*shape"]:
    """Jaccard index of the ancestors of two terms, each with the term itself.

    Args:
      common: number of common ancestors.
      first: number of ancestors of one term.
      second: number of ancestors of the other.

    Returns:
      ``common / (first + second - common)``, in [0, 1].
    """
    return common / jnp.maximum(first + second - common, 1)


def phenodigm_pair(mica: Values, index: Values) -> Float[Array, "*shape"]:
    """Score of a pair of terms in PhenoDigm: ``sqrt(IC(MICA) Jaccard)``.

    Args:
      mica: information content of the MICA, in nats, at least 0.
      index: Jaccard index of the ancestors.

    Returns:
      Score, at least 0.

    References:
      Smedley et al., "PhenoDigm: analyzing curated annotations to associate animal
      models with human diseases", Database 2013, section "Semantic similarity".
    """
    return jnp.sqrt(mica * index)
