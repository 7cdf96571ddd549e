"""Self-REF on your own questions: train adapters that judge a model's answers.

The model answers the questions, or the file already contains its marked answers. A
confidence token is trained on some of the answers. The others are held out: they
measure the token and give the threshold above which an answer may be kept.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs.selfref import Config
from jeff import hub_rows
from jeff_llm.confidence import reading, samples, selfref
from jeff_llm.models import adapters, lora, weights
from jeff_llm.models.language_model import LanguageModel
from train_scripts.questions import answering
from train_scripts.running import machines
from train_scripts.running.results import Part
from train_scripts.selfref import measure, own_report
from train_scripts.selfref.own_report import Verdict

__all__ = ["Question", "read_questions", "teach"]


class Question(NamedTuple):
    """A row of the file.

    Attributes:
      asked: the prompt as it stands in the file.
      prompt: its token ids.
      stops: whether the answer ends with its line, as for a prompt that is a text.
      accepted: accepted answers; empty if the row contains a marked answer.
      response: the model's answer, if the row contains it.
      correct: whether this answer is right.
    """

    asked: Any
    prompt: tuple[int, ...]
    stops: bool
    accepted: tuple[str, ...]
    response: str
    correct: bool


class _Answered(NamedTuple):
    """Questions with the base model's answers."""

    prompts: list[list[int]]
    tokens: list[list[int]]
    texts: list[str]
    correct: np.ndarray

    def part(self, places: np.ndarray) -> "_Answered":
        return _Answered(
            [self.prompts[place] for place in places],
            [self.tokens[place] for place in places],
            [self.texts[place] for place in places],
            self.correct[places],
        )


def read_questions(path: str | Path, model: LanguageModel) -> list[Question]:
    """Read questions.

    Args:
      path: file of JSON lines, or a Hugging Face data set with the same columns, as in
        `jeff.hub_rows`: ``{"prompt", "answer"}``, where the answer is a text or
        a list of accepted texts; or ``{"prompt", "response", "correct"}``, with the
        model's answer exactly as it followed the prompt, and a mark. A prompt that is a
        text is used unchanged; a list of messages goes through the chat template.
      model: the model, for its tokenizer.

    Returns:
      The questions, in order.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a row is not as expected; names the line and the field.
    """
    return [_question(where, row, model) for where, row in hub_rows.json_rows(path)]


def teach(config: Config, workdir: Path, say: measure.Say) -> Part:
    """Train the confidence token; write adapters, table, plots and thresholds.

    Args:
      config: settings of the run, with ``data``.
      workdir: the run's folder; an interrupted training in it is resumed.
      say: called with a description of each stage.

    Returns:
      Numbers and table for the held-out questions.

    Raises:
      FileNotFoundError: if the file or the model is missing.
      ValueError: if a row is not as expected, or the model's answers are all right or
        all wrong.
    """
    model = weights.load(
        config.model, dtype=jnp.dtype(config.dtype), mesh=machines.mesh()
    )
    base, tokens = selfref.add_tokens(model)
    if config.head and model.config.tied:
        raise ValueError(
            "head: expected False, since output and embedding of this model are one"
        )
    questions = read_questions(config.data, base)
    train, test = _split(config, questions)
    key = jax.random.key(config.seeds[0])
    say(f"the model answers {len(questions)} questions")
    answered = _answers(config, base, questions, [*model.stop_ids, *tokens])
    learned, held = answered.part(train), answered.part(test)
    _check(config, questions, answered, learned, held)
    examples = selfref.make_examples(
        *learned[:2],
        learned.correct,
        tokens,
        key=key,
        unconfident_share=config.unconfident_share,
        mask_wrong=config.mask_wrong,
        token_weight=config.token_weight,
    )
    say(f"learning from {len(examples)} answers")
    tuned, factors = selfref.fit(
        base,
        examples,
        key=key,
        recipe=measure.recipe(config, base),
        rows=tuple(tokens),
        workdir=workdir / "training",
    )
    say(f"judging {len(test)} answers")
    found = reading.read(base, *held[:2])
    confidence = {"token": selfref.confidence(tuned, *held[:2], tokens)}
    confidence |= answering.token_measures(found)
    adapters.save(workdir / "adapters", factors, base=config.model)
    if config.merged:
        whole = base._replace(params=lora.merge(base.params, factors))
        weights.save(whole, workdir / "model")
    asked = [questions[place].asked for place in test]
    verdict = Verdict(asked, held.texts, held.correct, confidence, learned.correct)
    return own_report.report(config, workdir, verdict)


def _check(
    config: Config,
    questions: Sequence[Question],
    answered: _Answered,
    *parts: _Answered,
) -> None:
    """Check that both parts have right and wrong answers; an error shows an example."""
    if all(part.correct.any() and not part.correct.all() for part in parts):
        return
    place = int(answered.correct.argmin())
    example, accepted = "", list(questions[place].accepted)
    if accepted and not answered.correct[place]:
        example = (
            f"; for example {answered.texts[place][:80]!r} where {accepted} would be "
            "right (case and marks of writing aside)"
        )
    raise ValueError(
        f"{config.data}: expected right and wrong answers both to learn from and held "
        f"out, got {int(answered.correct.sum())} right ones of {len(questions)}"
        f"{example}; give more questions, or marks of your own as 'response' and "
        "'correct'"
    )


def _question(where: str, row: dict[str, Any], model: LanguageModel) -> Question:
    tokenizer = answering.tokenizer_of(model)
    prompt = row.get("prompt")
    if isinstance(prompt, str) and prompt.strip():
        ids = model.encode(prompt)
    elif isinstance(prompt, list) and prompt:
        try:
            text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True)
        except Exception as error:
            raise ValueError(f"{where}: prompt: {error}") from error
        ids = tokenizer.encode(text, add_special_tokens=False)
    else:
        raise ValueError(
            f"{where}: prompt: expected a text or a list of messages, got {prompt!r}"
        )
    mark, response, answer = (row.get(n) for n in ("correct", "response", "answer"))
    if response is not None or mark is not None:
        if not isinstance(response, str) or not response.strip():
            raise ValueError(
                f"{where}: response: expected the model's answer, got {response!r}"
            )
        if not isinstance(mark, bool):
            raise ValueError(f"{where}: correct: expected true or false, got {mark!r}")
        return Question(prompt, tuple(ids), isinstance(prompt, str), (), response, mark)
    accepted = [answer] if isinstance(answer, str) else answer
    fits = isinstance(accepted, list) and all(
        isinstance(each, str) and samples.normalise(each) for each in accepted
    )
    if not accepted or not fits:
        raise ValueError(
            f"{where}: expected 'answer', a text or a list of accepted ones, or "
            f"'response' and 'correct', got {answer!r} among {sorted(row)}"
        )
    return Question(
        prompt, tuple(ids), isinstance(prompt, str), tuple(accepted), "", False
    )


def _split(
    config: Config, questions: Sequence[Question]
) -> tuple[np.ndarray, np.ndarray]:
    """Indices for training and held-out indices; equal prompts stay in one part."""
    _, which = np.unique(
        [str(question.prompt) for question in questions], return_inverse=True
    )
    count = int(which.max(initial=-1)) + 1
    test = round(count * config.holdout)
    if min(test, count - test) < 2:
        raise ValueError(
            f"{config.data}: expected at least 2 different prompts to learn from and 2 "
            f"held out, got {count} in all; give more questions"
        )
    order = np.random.default_rng(config.seeds[0]).permutation(count)
    held = np.isin(which, order[:test])
    return np.flatnonzero(~held), np.flatnonzero(held)


def _answers(
    config: Config,
    model: LanguageModel,
    questions: Sequence[Question],
    ends: Sequence[int],
) -> _Answered:
    """Collect the answers in the file, and generate the missing ones."""
    prompts = [list(question.prompt) for question in questions]
    encode = answering.tokenizer_of(model).encode
    tokens = [encode(question.response, False) for question in questions]
    texts = [question.response for question in questions]
    # After a plain text prompt a model goes on writing, so its answer ends with the
    # line; after a chat template it ends with a token.
    lines = sorted({*answering.newlines(model), *ends})
    for stops, stop_ids in ((True, lines), (False, list(ends))):
        places = [
            place
            for place, question in enumerate(questions)
            if question.accepted and question.stops == stops
        ]
        given = answering.answer(
            model,
            [prompts[place] for place in places],
            stop_ids=stop_ids,
            max_new_tokens=config.max_new_tokens,
        )
        for place, ids, text in zip(places, *given, strict=True):
            tokens[place], texts[place] = ids, text
    # A mark in the file takes precedence: only answers generated here are compared.
    correct = [
        samples.normalise(text) in map(samples.normalise, question.accepted)
        if question.accepted
        else question.correct
        for question, text in zip(questions, texts, strict=True)
    ]
    return _Answered(prompts, tokens, texts, np.array(correct))
