"""Measure one seed of a Self-REF run: answer, train, and compute every confidence."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs.selfref import Config
from jeff_llm import generate
from jeff_llm.confidence import probes, reading, selfref, uncertainty
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.tuning import finetune
from train_scripts.questions import answering, cities, city_questions
from train_scripts.questions.city_questions import Answers
from train_scripts.running import machines

__all__ = ["Found", "Say", "measure", "recipe"]

Say = Callable[[str], None]


class Found(NamedTuple):
    """Measurements of one seed.

    Attributes:
      correct: whether each test question is answered correctly, by answering model:
        "base", "plain" (fine-tuned on the right answers) or "selfref".
      confidence: confidence in the answers to the test questions, by
        ``(answering model, measure)``.
      answerable: whether the right option of a test question is among its options.
      rejection: confidence in the option that the base model chose, by measure.
      numbers: other numbers by name.
    """

    correct: dict[str, np.ndarray]
    confidence: dict[tuple[str, str], np.ndarray]
    answerable: np.ndarray
    rejection: dict[str, np.ndarray]
    numbers: dict[str, float]


class _Job(NamedTuple):
    """Inputs of one seed: settings, base model, tokens and questions."""

    config: Config
    base: LanguageModel
    tokens: selfref.ConfidenceTokens
    stop_ids: list[int]
    questions: city_questions.Questions
    key: jax.Array

    def answer(self, country: str) -> list[int]:
        """Token ids of an answer, as they follow a prompt."""
        tokenizer = answering.tokenizer_of(self.base)
        return tokenizer.encode(f" {country}", add_special_tokens=False)

    def prompts(self, part: Sequence[cities.City]) -> list[list[int]]:
        """Token ids of questions."""
        return [self.base.encode(cities.question(city)) for city in part]


def measure(
    config: Config, model: LanguageModel, seed: int, workdir: Path, say: Say
) -> Found:
    """Answer, train and measure.

    Args:
      config: settings of the run.
      model: the base model, without the two confidence tokens.
      seed: seed of the questions, initial factors and samples.
      workdir: folder for training checkpoints.
      say: called with a description of each stage.

    Returns:
      The measurements.

    Raises:
      ValueError: if there are too few cities, or all answers of the base are right, or
        all are wrong.
    """
    base, tokens = selfref.add_tokens(model)
    stops = [*answering.newlines(model), *tokens]
    questions = city_questions.draw(
        config.largest, config.train, config.test, config.shots, seed
    )
    job = _Job(config, base, tokens, stops, questions, jax.random.key(seed))
    say("the base answers")
    answers = {part: _ask(job, base, part) for part in ("train", "test")}
    readings = {p: _read(job, base, p, a) for p, a in answers.items()}
    correct = {"base": answers["test"].correct}
    confidence = _untuned(job, answers["test"], readings["test"], say)
    say("a probe learns")
    confidence["base", "trained probe"] = np.asarray(
        probes.trained_probe(
            jnp.asarray(readings["train"].hidden)[None],
            jnp.asarray(answers["train"].correct)[None],
            jnp.asarray(readings["test"].hidden)[None],
            key=job.key,
        )[0]
    )
    say("plain fine-tuning on the right answers")
    plain = _train(job, _gold(job), workdir / "plain", ())
    say("Self-REF on the base's own answers")
    examples = selfref.make_examples(
        job.prompts(questions.train),
        answers["train"].tokens,
        answers["train"].correct,
        tokens,
        key=job.key,
        unconfident_share=config.unconfident_share,
        mask_wrong=config.mask_wrong,
        token_weight=config.token_weight,
    )
    tuned = _train(job, examples, workdir / "selfref", tuple(tokens))
    say("the fine-tuned models answer, and judge the base's answers")
    for name, trained in (("plain", plain), ("selfref", tuned)):
        own = _ask(job, trained, "test")
        correct[name] = own.correct
        found = _read(job, trained, "test", own)
        judged = _read(job, trained, "test", answers["test"])
        for measured, values in answering.token_measures(found).items():
            confidence[name, measured] = values
        label = "fine-tuned" if name == "plain" else "Self-REF"
        judge = answering.token_measures(judged)
        confidence["base", f"{label} probability"] = judge["sequence probability"]
        if name == "selfref":
            confidence["selfref", "token"] = _token(found)
            confidence["base", "token"] = _token(judged)
    say("options without the right one")
    answerable, rejection = _reject(job, plain, tuned)
    numbers = {"train_accuracy": float(answers["train"].correct.mean())}
    return Found(correct, confidence, answerable, rejection, numbers)


def _ask(job: _Job, model: LanguageModel, part: str) -> Answers:
    asked = getattr(job.questions, part)
    prompts = job.prompts(asked)
    return city_questions.ask(model, asked, prompts, stop_ids=job.stop_ids)


def _read(job: _Job, model: LanguageModel, part: str, a: Answers) -> reading.Reading:
    prompts = job.prompts(getattr(job.questions, part))
    return reading.read(model, prompts, a.tokens, next_tokens=list(job.tokens))


def _token(found: reading.Reading) -> np.ndarray:
    return np.asarray(uncertainty.p_true(*jnp.asarray(found.next_logits).T))


def _untuned(
    job: _Job, answers: Answers, found: reading.Reading, say: Say
) -> dict[tuple[str, str], np.ndarray]:
    """Confidences in the base model's answers that need no training."""
    test, shots = job.questions.test, job.questions.shots
    measured = answering.token_measures(found)
    say("the base is asked how sure it is")
    spoken, _ = city_questions.prompted(job.base, test, shots, answers)
    measured |= spoken
    if job.config.samples:
        say(f"{job.config.samples} samples of every answer")
        measured |= city_questions.sampled(
            job.base,
            job.prompts(test),
            answers,
            count=job.config.samples,
            stop_ids=job.stop_ids,
            key=job.key,
        )
    measured["random"] = np.asarray(jax.random.uniform(job.key, (len(test),)))
    return {("base", name): values for name, values in measured.items()}


def _gold(job: _Job) -> list[finetune.Example]:
    examples = []
    for city in job.questions.train:
        head = job.base.encode(cities.question(city))
        tail = [*job.answer(city.country), job.stop_ids[0]]
        # Only the answer counts in the loss; the prompt is given.
        weights = [0.0] * len(head) + [1.0] * len(tail)
        examples.append(finetune.Example(head + tail, weights))
    return examples


def recipe(config: Config, model: LanguageModel) -> selfref.Recipe:
    """Training settings of a run.

    Args:
      config: settings of the run.
      model: the model to train; its number of layers sets the default of first_layer.

    Returns:
      The recipe.
    """
    first = config.first_layer
    return selfref.Recipe(
        rank=config.rank,
        num_epochs=config.num_epochs,
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        where=config.where,
        head=config.head,
        first_layer=model.config.num_layers * 2 // 3 if first < 0 else first,
    )


def _train(
    job: _Job, examples: list[finetune.Example], workdir: Path, rows: tuple[int, ...]
) -> LanguageModel:
    return selfref.fit(
        job.base,
        examples,
        key=job.key,
        recipe=recipe(job.config, job.base),
        rows=rows,
        workdir=machines.kept(workdir),
    )[0]


def _reject(
    job: _Job, plain: LanguageModel, tuned: LanguageModel
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Ask each question with four options; half of the questions lack the right one.

    The base model chooses the likeliest option, and each confidence judges this choice.
    """
    test = job.questions.test
    rng = np.random.default_rng([job.config.seeds[0], len(test)])
    answerable = rng.permutation(np.arange(len(test)) % 2 == 0)
    options = _options(job, rng)
    # Use four options in both cases: with fewer, each would have a larger share of the
    # probability, and the number of options would give the case away.
    kept = [
        each[:4] if left else each[1:]
        for each, left in zip(options, answerable, strict=True)
    ]
    prompts = job.prompts(test)
    scores = generate.score(
        job.base, prompts, [[f" {land}" for land in each] for each in kept]
    )
    totals = [np.array([each.total for each in row]) for row in scores]
    picked = [int(row.argmax()) for row in totals]
    chosen = [job.answer(each[place]) for each, place in zip(kept, picked, strict=True)]
    share = [
        np.exp(r - np.logaddexp.reduce(r))[p]
        for r, p in zip(totals, picked, strict=True)
    ]
    found = {"option logits": np.array(share)}
    for name, model in (("base", job.base), ("fine-tuned", plain), ("Self-REF", tuned)):
        judged = reading.read(model, prompts, chosen, next_tokens=list(job.tokens))
        measured = answering.token_measures(judged)
        found[f"{name} probability"] = measured["sequence probability"]
        if name == "Self-REF":
            found["token"] = _token(judged)
    return answerable, found


def _options(job: _Job, rng: np.random.Generator) -> list[list[str]]:
    """The right country and four others, drawn by frequency, first of its continent."""
    lands: dict[str, list[str]] = {}
    for city in [*job.questions.train, *job.questions.test]:
        lands.setdefault(city.continent, []).append(city.country)
    anywhere = [land for each in lands.values() for land in each]
    found = []
    for city in job.questions.test:
        near = [land for land in lands[city.continent] if land != city.country]
        far = [land for land in anywhere if land != city.country]
        others = list(dict.fromkeys([*rng.permutation(near), *rng.permutation(far)]))
        found.append([city.country, *map(str, others[:4])])
    return found
