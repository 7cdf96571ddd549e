"""Test the rankers that read a decoder, with a tiny one of letters."""

import string

import numpy as np
import pytest

from jeff_llm.generate import score
from jeff_llm.genes.options import (
    LABELS,
    OptionRanker,
    PointwiseRanker,
    option_prompt,
    pointwise_texts,
)
from jeff_llm.genes.profile_texts import ProfileTexts
from jeff_llm.genes.ranking import Phenotypes

A, B = Phenotypes(("HP:0000001",)), Phenotypes(("HP:0000002",))
GENES = ["gene", "G", "another"]
LETTERS = tuple(string.ascii_uppercase)


def patient(phenotypes):
    """Letters alone, since the tiny tokenizer has no others."""
    return "patient" + "".join(LETTERS[int(term[-1])] for term in phenotypes.observed)


def gene(symbol):
    return f"has{symbol}"


def listed(phenotypes, genes):
    return patient(phenotypes) + "".join(
        f"{x}{g}" for x, g in zip(LETTERS, genes, strict=False)
    )


def test_pointwise_by_hand(lettered):
    ranker = PointwiseRanker(lettered, patient, gene)
    found = ranker(A, GENES)
    tails = [[gene(each) for each in GENES]] * 2
    own, nobody = score(lettered, [patient(A), patient(Phenotypes(()))], tails)
    gain = np.array([a.total - b.total for a, b in zip(own, nobody, strict=True)])
    lengths = np.array([7, 4, 10])
    np.testing.assert_allclose(found.scores, gain / lengths, atol=1e-5)
    assert (found.calls, found.tokens) == (1, len(patient(A)) + lengths.sum())
    plain = PointwiseRanker(lettered, patient, gene, length_exponent=0.0)
    np.testing.assert_allclose(plain(A, GENES).scores, gain, atol=1e-4)
    # About nobody, no gene gains anything.
    np.testing.assert_allclose(ranker(Phenotypes(()), GENES).scores, 0, atol=1e-5)


def test_pointwise_depends_neither_on_the_order_nor_on_the_batch(lettered):
    ranker = PointwiseRanker(lettered, patient, gene, batch_size=2)
    alone = ranker(B, GENES).scores
    turned = [(A, GENES[:2]), (B, GENES[::-1]), (A, GENES)]
    found = ranker.many(turned)
    np.testing.assert_allclose(found[1].scores[::-1], alone, atol=1e-5)
    np.testing.assert_allclose(found[2].scores[:2], found[0].scores, atol=1e-5)
    assert ranker.many([]) == []


def test_options_by_hand(lettered):
    ranker = OptionRanker(lettered, listed, labels=LETTERS)
    found = ranker(A, GENES)
    (own,) = score(lettered, [listed(A, GENES)], [LETTERS[:3]])
    log_probs = np.array([each.total for each in own])
    wanted = log_probs - np.logaddexp.reduce(log_probs)
    np.testing.assert_allclose(found.scores, wanted, atol=1e-4)
    assert np.exp(found.scores).sum() == pytest.approx(1)
    assert (found.calls, found.tokens) == (1, len(listed(A, GENES)))
    # Lists of different lengths share a batch; a shorter one has fewer labels.
    first, second = ranker.many([(B, GENES[:2]), (A, GENES)])
    np.testing.assert_allclose(second.scores, found.scores, atol=1e-4)
    assert np.exp(first.scores).sum() == pytest.approx(1)
    assert ranker.many([]) == []


def test_contrast_removes_what_does_not_depend_on_the_patient(lettered):
    plain = OptionRanker(lettered, listed, labels=LETTERS)
    contrast = OptionRanker(lettered, listed, labels=LETTERS, contrast=True)
    found = contrast(A, GENES)
    nobody = plain(Phenotypes(()), GENES).scores
    np.testing.assert_allclose(found.scores, plain(A, GENES).scores - nobody, atol=1e-4)
    assert found.calls == 2
    np.testing.assert_allclose(contrast(Phenotypes(()), GENES).scores, 0, atol=1e-5)


def test_refuses(lettered):
    with pytest.raises(ValueError, match="length_exponent: expected"):
        PointwiseRanker(lettered, patient, gene, length_exponent=-1.0)
    option = OptionRanker(lettered, listed, labels=LETTERS[:2])
    with pytest.raises(ValueError, match="genes: expected at most 2, one for each"):
        option(A, GENES)
    pointwise = PointwiseRanker(lettered, patient, gene)
    for ranker in (option, pointwise):
        with pytest.raises(ValueError, match="genes: expected each gene once"):
            ranker(A, ["G", "G"])
        with pytest.raises(ValueError, match="genes: expected at least one"):
            ranker(A, [])


def test_prompts(ten, ids):
    texts = ProfileTexts(ten, num_diseases=0)
    who = Phenotypes((ids(3),))
    text = option_prompt(texts)(who, ["G2", "G1"])
    assert "term 3" in text and "\nA. G2\nB. G1\n" in text and text.endswith("Answer:")
    hidden = option_prompt(texts, describe=True)(who, ["G2"])
    assert "G2" not in hidden and f"A. {texts.gene('G2')}" in hidden
    start, follow = pointwise_texts(texts)
    assert texts.patient(who) in start(who)
    assert follow("G2") == f" {texts.gene('G2')}"
    assert "none known" in start(Phenotypes(()))


@pytest.mark.slow
def test_the_labels_are_tokens_of_the_real_model(smollm2, ten, ids):
    ranker = OptionRanker(smollm2, option_prompt(ProfileTexts(ten)))
    found = ranker(Phenotypes((ids(3),)), [f"G{n}" for n in range(len(LABELS))])
    assert np.isfinite(found.scores).all()
