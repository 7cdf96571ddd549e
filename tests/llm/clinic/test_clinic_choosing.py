"""Test choice by number against scores of whole prompts."""

import json

import jax
import numpy as np
import pytest

from jeff_llm import generate
from jeff_llm.clinic import prompts
from jeff_llm.clinic.choosing import Choices, choose_by_number
from jeff_llm.clinic.items import Item
from jeff_llm.clinic.making import make_mazes

pytest.importorskip("tokenizers")

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Shows the last turn alone.
FORGETS = "{% set m = messages[-1] %}<|user|>{{ m.content }}<|end|><|assistant|>"


def tokenizer_with(template, folder):
    import tokenizers

    from jeff_llm.models.tokenizer import from_directory

    special = ["<|end|>", "<|user|>", "<|assistant|>"]
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    bpe.train_from_iterator(
        ["number of the sentence evidence answer clinician chosen nothing next"],
        tokenizers.trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=special,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    bpe.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<|end|>", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return from_directory(folder)


@pytest.fixture(scope="module")
def model(make_params, tmp_path_factory):
    """A random model of two layers that reads bytes."""
    from jeff_llm.models.config import DecoderConfig
    from jeff_llm.models.language_model import LanguageModel

    config = DecoderConfig(
        vocab_size=304,
        num_layers=2,
        width=32,
        mlp_width=48,
        num_heads=4,
        num_kv_heads=2,
        head_width=8,
        max_positions=2048,
        tied=True,
    )
    folder = tmp_path_factory.mktemp("chat")
    tokenizer = tokenizer_with(TEMPLATE, folder)
    return LanguageModel(config, make_params(config), tokenizer, "bytes")


def item(number, size):
    return Item(
        id=f"case {number}",
        background=f"P{number} comes.",
        evidence=tuple(f"S{number}{letter}." for letter in "abcdefgh"[:size]),
        question="Why?" if number else "",
        answer=f"A{number}",
        options=(),
        level="",
        kinds=("symptom",) * size,
        organs=frozenset(),
        age_group="unknown",
        sex="unknown",
        simulated=True,
    )


@pytest.fixture(scope="module")
def mazes():
    """Of 1, 2 and 3 sentences, and one of eleven, whose numbers have two digits."""
    cases = [item(n, size) for n, size in enumerate((1, 2, 3, 4))]
    made = make_mazes(cases, noise=(0, 6), key=jax.random.key(0))
    return [*made[0][:3], made[6][3], made[6][2]]


def by_hand(model, maze, rounds):
    """Choices by scores of every whole prompt."""
    several = rounds == "several"
    messages = (prompts.several_rounds if several else prompts.one_round)(maze)
    end = "\n" if several else ","
    end = end if len(maze.listed) > 9 else ""
    picks, shares, written = [], [], ""
    for _ in maze.gold:
        shown = model.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True
        )
        # Special tokens are none of the text, so the prompt is given as ids.
        ids = model.tokenizer.encode(shown, add_special_tokens=False)
        ids += model.tokenizer.encode(written, add_special_tokens=False)
        free = [place for place in range(len(maze.listed)) if place not in picks]
        [scores] = generate.score(model, [ids], [[f"{p + 1}{end}" for p in free]])
        totals = np.array([each.total for each in scores])
        best = int(totals.argmax())
        share = np.exp(totals - totals.max())
        picks.append(free[best])
        shares.append(share[best] / share.sum())
        if several:
            messages = [
                *messages,
                {"role": "assistant", "content": str(free[best] + 1)},
                prompts.next_turn(maze, picks),
            ]
        else:
            written += f"{free[best] + 1}, "
    return picks, shares


@pytest.mark.parametrize("rounds", prompts.ROUNDS)
def test_choices_are_those_of_whole_prompts(model, mazes, rounds):
    found = choose_by_number(model, mazes, rounds=rounds, batch_size=4)
    assert [len(each) for each in found.picks] == [1, 2, 3, 4, 3]
    for maze, picks, shares in zip(mazes, found.picks, found.probability, strict=True):
        expected, probability = by_hand(model, maze, rounds)
        assert picks == expected
        np.testing.assert_allclose(shares, probability, rtol=2e-3, atol=1e-5)
    lengths = [len(maze.listed) for maze in mazes]
    assert lengths == [1, 2, 3, 10, 9], "numbers of one digit and of two"


def test_the_batch_changes_nothing(model, mazes):
    together = choose_by_number(model, mazes[:4], rounds="several", batch_size=4)
    alone = choose_by_number(model, mazes[:4], rounds="several", batch_size=1)
    assert together.picks == alone.picks
    for one, two in zip(together.probability, alone.probability, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)


def test_no_maze(model):
    assert choose_by_number(model, []) == Choices([], [])


def test_what_is_refused(model, mazes, tmp_path):
    with pytest.raises(ValueError, match=r"rounds: expected one of .*, got 'two'"):
        choose_by_number(model, mazes, rounds="two")
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        choose_by_number(model, mazes, batch_size=0)
    with pytest.raises(ValueError, match="model: expected one with a tokenizer"):
        choose_by_number(model._replace(tokenizer=None), mazes)
    forgets = model._replace(tokenizer=tokenizer_with(FORGETS, tmp_path))
    with pytest.raises(ValueError, match="keeps earlier turns"):
        choose_by_number(forgets, mazes[1:2], rounds="several")
    long = [mazes[0]._replace(listed=("word " * 3000,))]
    with pytest.raises(ValueError, match=r"case 0.*expected .*2,?048"):
        choose_by_number(model, long)
