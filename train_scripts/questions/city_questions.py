"""Draw city-to-country questions, ask a language model, and mark its answers.

`train_scripts.selfref` and `train_scripts.routing` share these functions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff_llm import generate
from jeff_llm.confidence import samples, uncertainty
from jeff_llm.generate import batching
from jeff_llm.models.language_model import LanguageModel
from train_scripts.questions import answering, cities

__all__ = [
    "Answers",
    "Questions",
    "ask",
    "draw",
    "prompted",
    "sampled",
]

_STRATA = 20


class Questions(NamedTuple):
    """Cities of the questions and of the few-shot examples.

    Attributes:
      train: training questions.
      test: test questions.
      shots: examples for few-shot prompts, in neither of the two sets.
    """

    train: list[cities.City]
    test: list[cities.City]
    shots: list[cities.City]


class Answers(NamedTuple):
    """Answers of a model.

    Attributes:
      tokens: token ids of each answer, without its end token.
      texts: the answers as text.
      correct: whether each answer is the country, up to case and punctuation.
    """

    tokens: list[list[int]]
    texts: list[str]
    correct: np.ndarray

    def part(self, places: np.ndarray) -> "Answers":
        """Select some of the answers.

        Args:
          places: indices of the answers.

        Returns:
          The selected answers, in this order.
        """
        return Answers(
            [self.tokens[i] for i in places],
            [self.texts[i] for i in places],
            self.correct[places],
        )


def draw(largest: int, train: int, test: int, shots: int, seed: int) -> Questions:
    """Draw questions, the same number from each stratum of population.

    Args:
      largest: number of the largest cities to draw from.
      train: number of training questions.
      test: number of test questions.
      shots: number of few-shot examples, the same for every seed.
      seed: seed of the draw.

    Returns:
      The questions.

    Raises:
      ValueError: if there are fewer cities than requested.
    """
    pool = cities.load()[:largest]
    if train + test + shots > len(pool):
        raise ValueError(
            f"largest: expected at least {train + test + shots} cities, got {len(pool)}"
        )
    # Well-known cities of different countries show the form of an answer and do not
    # suggest one country.
    examples: list[cities.City] = []
    for city in pool:
        taken = {each.country for each in examples}
        if len(examples) < shots and city.country not in taken:
            examples.append(city)
    rest = [city for city in pool if city not in examples]
    rng = np.random.default_rng([seed, len(rest)])
    order = np.concatenate(
        [
            np.stack([np.full(len(part), number), rng.permutation(len(part)), part], 1)
            for number, part in enumerate(np.array_split(np.arange(len(rest)), _STRATA))
        ]
    )
    # Take one city of each stratum in turn, so that every prefix is stratified.
    order = order[np.lexsort((order[:, 0], order[:, 1]))][:, 2]
    chosen = [rest[place] for place in order[: train + test]]
    return Questions(chosen[test:], chosen[:test], examples)


def ask(
    model: LanguageModel,
    questions: Sequence[cities.City],
    prompts: Sequence[batching.Prompt],
    *,
    stop_ids: Sequence[int],
    max_new_tokens: int = 12,
) -> Answers:
    """Let a model answer greedily, and mark the answers.

    Args:
      model: the model.
      questions: the cities.
      prompts: one prompt per city.
      stop_ids: tokens that end an answer.
      max_new_tokens: maximum length of an answer, in tokens.

    Returns:
      The answers. An empty answer consists of its end token.
    """
    tokens, texts = answering.answer(
        model, prompts, stop_ids=stop_ids, max_new_tokens=max_new_tokens
    )
    wanted = [samples.normalise(city.country) for city in questions]
    right = [samples.normalise(text) for text in texts]
    return Answers(tokens, texts, np.array(right) == np.array(wanted))


def sampled(
    model: LanguageModel,
    prompts: Sequence[batching.Prompt],
    answers: Answers,
    *,
    count: int,
    stop_ids: Sequence[int],
    key: jax.Array,
    max_new_tokens: int = 8,
) -> dict[str, np.ndarray]:
    """Confidences from answers sampled at temperature 1.

    Args:
      model: the model.
      prompts: one prompt per question.
      answers: the model's greedy answers.
      count: number of samples per question.
      stop_ids: tokens that end an answer.
      key: random key.
      max_new_tokens: maximum length of a sample, in tokens.

    Returns:
      Confidence in [0, 1] by measure.
    """
    texts: list[list[str]] = [[] for _ in prompts]
    for each in jax.random.split(key, count):
        keys = jax.random.split(each, len(prompts))
        for begin in range(0, len(prompts), answering.CHUNK):
            some = slice(begin, begin + answering.CHUNK)
            found = generate.generate(
                model,
                prompts[some],
                max_new_tokens=max_new_tokens,
                sampling=generate.Sampling(temperature=1.0),
                keys=keys[some],
                stop_ids=stop_ids,
                share_prefix=True,
            )
            for place, text in enumerate(answering.texts_of(model, found), begin):
                texts[place].append(text)
    similarity = np.stack([samples.jaccard(each) for each in texts])
    pairs = zip(answers.texts, texts, strict=True)
    clusters = np.stack([samples.cluster_texts([own, *each]) for own, each in pairs])
    return {
        "degree": np.asarray(uncertainty.degree_confidence(jnp.asarray(similarity))),
        "semantic entropy": np.asarray(
            uncertainty.semantic_entropy_confidence(jnp.asarray(clusters[:, 1:]))
        ),
        "self-consistency": np.asarray(
            uncertainty.consistency(
                jnp.asarray(clusters[:, 1:]), jnp.asarray(clusters[:, 0])
            )
        ),
    }


def prompted(
    model: LanguageModel,
    questions: Sequence[cities.City],
    shots: Sequence[cities.City],
    answers: Answers,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Confidences that the model states when asked.

    Args:
      model: the model.
      questions: the cities.
      shots: cities of the examples; every second example is wrong or unsure.
      answers: the model's answers.

    Returns:
      Confidence in [0, 1] by measure, and the parse rates of the verbalised ones.
    """
    found = {}
    asked = [
        f"{cities.question(city)} {text}\n"
        for city, text in zip(questions, answers.texts, strict=True)
    ]
    # Country of the example, or of the next example if this one is meant to be wrong.
    said = [
        (city, shots[(place + place % 2) % len(shots)].country, place % 2 == 0)
        for place, city in enumerate(shots)
    ]
    for name, line, yes, no in (
        ("p(true)", "True or false:", " True", " False"),
        ("yes or no", "Sure of it, yes or no:", " yes", " no"),
    ):
        ahead = "".join(
            f"{cities.question(city)} {land}\n{line}{yes if right else no}\n\n"
            for city, land, right in said
        )
        told = [f"{ahead}{each}{line}" for each in asked]
        found[name] = np.asarray(uncertainty.p_true(*_either(model, told, yes, no)))
    percent = "Confidence in percent:"
    ahead = "".join(
        f"{cities.question(city)} {land}\n{percent} {95 if right else 20}\n\n"
        for city, land, right in said
    )
    two = _say(model, [f"{ahead}{each}{percent}" for each in asked], 6)
    form = "Country, and confidence in percent:"
    ahead = "".join(
        f"City: {city.name}\n{form} {land}, {95 if right else 20}\n\n"
        for city, land, right in said
    )
    one = _say(model, [f"{ahead}City: {city.name}\n{form}" for city in questions], 14)
    found["verbalised, one turn"] = one.confidence
    found["verbalised, two turns"] = two.confidence
    rates = {"one turn": one.parse_rate, "two turns": two.parse_rate}
    return found, rates


def _either(
    model: LanguageModel, prompts: list[str], yes: str, no: str
) -> tuple[jax.Array, jax.Array]:
    """Logits of two continuations, in one step if each is a single token."""
    if all(
        len(answering.tokenizer_of(model).encode(word, False)) == 1
        for word in (yes, no)
    ):
        logits = generate.option_logits(model, prompts, [yes, no], batch_size=64)
    else:
        scores = generate.score(model, prompts, [[yes, no]] * len(prompts))
        logits = np.array([[each.total for each in row] for row in scores], np.float32)
    return jnp.asarray(logits[:, 0]), jnp.asarray(logits[:, 1])


def _say(model: LanguageModel, prompts: list[str], count: int) -> samples.Verbalized:
    texts: list[str] = []
    for begin in range(0, len(prompts), answering.CHUNK):
        found = generate.generate(
            model,
            prompts[begin : begin + answering.CHUNK],
            max_new_tokens=count,
            stop_ids=answering.newlines(model),
            share_prefix=True,
        )
        texts += answering.texts_of(model, found)
    return samples.verbalized(texts)
