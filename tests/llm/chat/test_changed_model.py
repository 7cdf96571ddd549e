"""Test that a cache keeps a model apart from what was made of it under its name."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jeff_llm.chat import Answer, Cached, Local, Request, ask, conversation
from jeff_llm.models.quantized import quantize_kernels

ASKED = Request(conversation("hello"))


class Named:
    """A model by name and digest, which says the digest."""

    def __init__(self, digest: str | None, name: str = "base"):
        self.name = name
        if digest is not None:
            self.digest = digest

    async def answer(self, request: Request) -> Answer:
        return Answer(str(getattr(self, "digest", None)), "stop", 5, 1)


@pytest.fixture
def changed(lettered, make_params):
    """The model, and what is another model under its name."""
    template = copy.copy(lettered.tokenizer)
    template.chat_template = "{{ messages[0].content }}"
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), lettered.params)
    other = dataclasses.replace(lettered.config, rope_theta=7.0)
    return {
        "plain": lettered,
        "trained": lettered._replace(params=make_params(lettered.config, 1)),
        "eight bits": lettered._replace(params=quantize_kernels(lettered.params)),
        "precision": lettered._replace(params=half),
        "setting": lettered._replace(config=other),
        "ends": lettered._replace(end_ids=(5,)),
        "template": lettered._replace(tokenizer=template),
    }


def test_every_change_has_its_digest(changed, lettered, tmp_path):
    digests = {name: model.digest() for name, model in changed.items()}
    assert len(set(digests.values())) == len(changed)
    same = lettered._replace(params=jax.tree.map(jnp.copy, lettered.params))
    assert same.digest() == Local(lettered).digest == digests["plain"]
    path = tmp_path / "answers.db"
    keys = {name: Cached(Local(each), path)._known_as for name, each in changed.items()}
    assert keys["plain"] == lettered.name and len(set(keys.values())) == len(changed)


def test_a_changed_model_shares_no_answers(tmp_path):
    path = tmp_path / "answers.db"
    # A file from before digests: its model had a name alone.
    ask(Cached(Named(None), path), ASKED)
    assert ask(Cached(Named("first"), path), ASKED).text == "None"
    assert ask(Cached(Named("second"), path), ASKED).text == "second"
    for digest, text in (("first", "None"), ("second", "second")):
        again = ask(Cached(Named(digest), path), ASKED)
        assert again.cached and again.text == text
    # An endpoint has no digest; another name is another model.
    assert ask(Cached(Named(None), path), ASKED).text == "None"
    assert ask(Cached(Named("first", "other"), path), ASKED).text == "first"
