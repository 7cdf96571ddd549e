"""Test rankers by embeddings, with encoders made by hand and with MiniLM."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from jeff import assets
from jeff_llm.genes.embedding import TermMatchRanker, embed
from jeff_llm.genes.profiles import Profiles
from jeff_llm.genes.ranking import Phenotypes, rank_many


class Words:
    """Counts of the words "0" to "9" in a text; keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked.append(list(texts))
        clean = [text.replace(",", " ").replace(".", " ").split() for text in texts]
        return [[words.count(str(n)) for n in range(10)] for words in clean]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path, request):
    if "minilm" not in request.fixturenames:
        monkeypatch.setenv("JEFF_CACHE", str(tmp_path))


def test_embed_keeps_what_it_has(tmp_path):
    encode = Words()
    texts = ["3 3 4", "none"]
    found = embed(encode, texts, name="words")
    np.testing.assert_allclose(found[0, 3:5], np.array([2, 1]) / 5**0.5)
    assert not found[1].any()
    np.testing.assert_array_equal(embed(encode, texts, name="words"), found)
    assert len(encode.asked) == 1
    # Another encoder, other texts, or no name: computed again.
    embed(encode, texts, name="others")
    embed(encode, texts[:1], name="words")
    embed(encode, texts)
    assert len(encode.asked) == 4
    files = sorted((tmp_path / "genes").iterdir())
    assert len(files) == 3
    for file in files:
        file.write_bytes(b"broken")
    np.testing.assert_array_equal(embed(encode, texts, name="words"), found)
    assert len(encode.asked) == 5


def test_embed_refuses():
    with pytest.raises(ValueError, match="texts: expected at least one"):
        embed(Words(), [])
    for wrong in ([1.0, 2.0], [[np.nan]], [[1.0]] * 3):
        with pytest.raises(ValueError, match="encode: expected finite numbers"):
            embed(lambda _, wrong=wrong: wrong, ["a"] if len(wrong) != 3 else ["a"] * 2)


def test_matches_of_terms_by_hand(ten, ids):
    ranker = TermMatchRanker(Words(), ten, sharpness=2.0, smoothing=1.0)
    patient = Phenotypes((ids(3), ids(9)))
    scores = ranker.scores([patient])[0]
    information = ranker.information[[3, 9]]
    weights = information / information.sum()

    def soft(cosines):
        return np.log(np.exp(2 * np.array(cosines)).sum() / (len(cosines) + 1)) / 2

    # OMIM:1 has 3 and 7, OMIM:3 has 5; all names are orthogonal.
    first = weights @ [soft([1, 0]), soft([0, 0])]
    assert scores[0] == pytest.approx(first, rel=1e-5)
    assert scores[2] == pytest.approx(soft([0]), rel=1e-5)
    assert np.isneginf(scores[4:]).all()
    found = ranker(patient, ["G9", "G2", "G1", "G3"])
    assert found.order.tolist() == [3, 2, 1, 0]
    # A gene has the best of its diseases: G2 has OMIM:2 and OMIM:3.
    assert found.scores[1] == pytest.approx(max(scores[1], scores[2]))
    assert np.isneginf(found.scores[0])


def test_rankings_do_not_depend_on_the_batch(ten, ids, monkeypatch):
    ranker = TermMatchRanker(Words(), ten)
    genes = ["G1", "G2", "G3"]
    requests = [(Phenotypes((ids(a), ids(b))), genes) for a in (3, 4) for b in (8, 9)]
    together = rank_many(ranker, requests)
    monkeypatch.setattr("jeff_llm.genes.embedding._CHUNK", 1)
    for request, found in zip(requests, together, strict=True):
        np.testing.assert_allclose(ranker(*request).scores, found.scores, rtol=1e-5)
    apart = rank_many(ranker, requests)
    assert [a.order.tolist() for a in apart] == [b.order.tolist() for b in together]


@pytest.mark.usefixtures("unchecked")
def test_refuses(ten, ids):
    cases: list[tuple[dict[str, Any], str]] = [
        ({"sharpness": 0.0}, "sharpness: expected"),
        ({"smoothing": -1.0}, "smoothing: expected"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            TermMatchRanker(Words(), ten, **options)
    none = np.zeros(0, np.int32)
    few = Profiles(np.zeros(2, np.int32), none, none.astype(np.float32))
    with pytest.raises(ValueError, match=r"profiles: expected \d+ diseases, got 1"):
        TermMatchRanker(Words(), ten, profiles=few)
    ranker = TermMatchRanker(Words(), ten)
    with pytest.raises(ValueError, match=r"patients\[1\]: expected at least one"):
        ranker.scores([Phenotypes((ids(1),)), Phenotypes(())])


@pytest.fixture(scope="module")
def minilm():
    if any(assets.status(name) is None for name in ("minilm", "minilm_tokenizer")):
        pytest.skip("MiniLM is not on this machine")
    from jeff_llm.models import encoder

    return encoder.load("minilm")


def test_minilm_knows_synonyms(minilm, make_hpo, ids):
    """Words of one meaning are nearer than others; the ontology is flat."""
    hpo = make_hpo(
        [[], [0], [0], [0]],
        [("OMIM:1", 1, "", "PMID:1"), ("OMIM:2", 2, "", "PMID:2")],
        {"G1": ["OMIM:1"], "G2": ["OMIM:2"]},
    )
    names = ("Phenotypic abnormality", "Seizure", "Short stature", "Epilepsy")
    named = dataclasses.replace(hpo.ontology, names=names)
    ranker = TermMatchRanker(minilm.encode, dataclasses.replace(hpo, ontology=named))
    found = ranker(Phenotypes((ids(3),)), ["G2", "G1"])
    assert found.order.tolist() == [1, 0]
