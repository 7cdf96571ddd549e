"""Choices of every method in the mazes of one data set and seed."""

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from configs.dialogue import Config
from jeff import files
from jeff_llm.clinic import heads, rules
from jeff_llm.clinic.choosing import Choices, choose_by_number
from jeff_llm.clinic.dialogue import to_dialogue
from jeff_llm.clinic.items import Item
from jeff_llm.clinic.maze import Maze
from jeff_llm.clinic.official import make_official
from jeff_llm.clinic.reading import choose_by_text
from jeff_llm.models import encoder
from jeff_llm.models.language_model import LanguageModel
from train_scripts.dialogue import arms, endpoint
from train_scripts.dialogue.data import Study
from train_scripts.running import machines
from train_scripts.running.seeds import seed_key
from train_scripts.running.stages import say

__all__ = ["HEADS", "Chosen", "measure", "model_choices"]

_RULES, _HEAD, _TRAIN, _OFFICIAL = 21, 22, 23, 2
# Forms that heads are trained on, beside the arms of the language model.
HEADS = ("multiple_choice", "monologue", "dialogue", "sentences")


class Chosen(NamedTuple):
    """Choices of one method at one level of noise.

    Attributes:
      part: "rules", "official", "heads", "number", "text" or "chat".
      method: rule or arm.
      rounds: "one" or "several".
      noise: number of distractors.
      mazes: the tasks.
      picks: of each; None where a reply could not be read.
      probability: of each pick; empty for rules and endpoints.
    """

    part: str
    method: str
    rounds: str
    noise: int
    mazes: list[Maze]
    picks: Sequence[Sequence[int] | None]
    probability: list[list[float]]


def measure(
    config: Config, study: Study, workdir: Path, *, progress: bool
) -> tuple[list[Chosen], str]:
    """Let every method choose; an endpoint is asked with the first seed alone.

    Args:
      config: settings of the run.
      study: items and mazes.
      workdir: the run's folder; what a language model chose in an interrupted run is
        not asked again.
      progress: say what is being done.

    Returns:
      The choices, and what the endpoint's cost, in Markdown; empty without one.

    Raises:
      OSError: if requests to the endpoint fail for good.
    """
    where = f"{study.name}, seed {study.seed}"
    found, note = [], ""
    if "rules" in config.parts:
        say(where, progress, "rules")
        found += list(_by_rules(config, study))
    if "heads" in config.parts:
        say(where, progress, "heads over MiniLM")
        found += list(_by_heads(config, study))
    if "arms" in config.parts:
        found += list(_by_arms(config, study, workdir, where, progress))
    if config.chat and study.seed == config.seeds[0]:
        tasks = study.subset(list(range(len(study.test)))[: config.chat_items or None])
        answered = endpoint.ask(config, workdir, tasks, progress=progress)
        found += [
            Chosen("chat", config.chat_model, rounds, noise, tasks[noise], picks, [])
            for (rounds, noise), picks in answered.picks.items()
        ]
        note = answered.note
    return found, note


@functools.cache
def _encoder() -> encoder.SentenceEncoder:
    return encoder.load("minilm", mesh=machines.mesh())


@functools.cache
def _known() -> dict[str, np.ndarray]:
    """Embeddings of a process: seeds share most of their texts."""
    return {}


def _encode(texts: Sequence[str]) -> np.ndarray:
    known = _known()
    new = [text for text in dict.fromkeys(texts) if text not in known]
    if new:
        known.update(zip(new, _encoder().encode(new), strict=True))
    return np.stack([known[text] for text in texts])


def _by_rules(config: Config, study: Study) -> Iterator[Chosen]:
    key = seed_key(study.seed, _RULES)
    official = make_official(
        study.test, noise=config.noise, key=seed_key(study.seed, _OFFICIAL)
    )
    for noise, mazes in study.mazes.items():
        picks = rules.apply_rules(mazes, _encode, key=key)
        for name, each in picks.items():
            yield Chosen("rules", name, "one", noise, mazes, list(each), [])
        old = official[noise]
        for name, rule in (("last", rules.last), ("identity", rules.identity)):
            yield Chosen(
                "official", name, "one", noise, old, [rule(maze) for maze in old], []
            )


def _by_heads(config: Config, study: Study) -> Iterator[Chosen]:
    told = {
        form: [turns for item in study.train if (turns := _turns(form, item))]
        for form in HEADS
    }
    texts = [text for each in told.values() for turns in each for text in turns]
    for mazes in study.mazes.values():
        texts += [t for maze in mazes for t in (maze.item.background, *maze.listed)]
    texts = list(dict.fromkeys(texts))
    vectors = dict(zip(texts, _encode(texts), strict=True))
    width = len(vectors[texts[0]])
    untrained = heads.init(width, key=seed_key(study.seed, _HEAD))
    train = jax.jit(heads.train, static_argnames=("num_steps", "learning_rate"))
    for form in ("untuned", *HEADS):
        head = untrained
        if form != "untuned":
            head, _ = train(
                untrained,
                heads.next_turns(told[form], vectors),
                num_steps=config.head_steps,
                learning_rate=config.head_learning_rate,
                key=seed_key(study.seed, _TRAIN),
            )
        for rounds in config.rounds:
            for noise, mazes in study.mazes.items():
                choices = heads.choose(head, mazes, vectors, rounds=rounds)
                yield Chosen("heads", form, rounds, noise, mazes, *choices)


def _turns(form: str, item: Item) -> list[str]:
    """What is said in a form of an item, turn by turn."""
    if form == "sentences":  # the dialogue without its doctor
        return [m["content"] for m in to_dialogue(item).messages if m["role"] == "user"]
    if form == "multiple_choice" and not item.options:
        return []
    return [message["content"] for message in arms.FORMS[form](item).messages]


def _by_arms(
    config: Config, study: Study, workdir: Path, where: str, progress: bool
) -> Iterator[Chosen]:
    examples = None
    for arm in config.arms:
        folder = workdir / "arms" / f"{study.name}_{study.seed}_{arm}"
        done, digest = folder / "choices.json", _digest(config, study)
        stored = files.read_json(done) if done.is_file() else {}
        if stored.get("mazes") != digest:
            model = arms.base(config.model)
            if arm != "untuned":
                examples = examples or arms.examples(config, study.train)
                say(where, progress, f"tune on {arm}")
                model, tuned = arms.tune(
                    config, arm, examples[arm], study.seed, folder, progress=progress
                )
                files.write_json(folder / "tuned.json", tuned._asdict())
            say(where, progress, f"{arm} chooses")
            found = model_choices(config, model, study)
            records = [each._asdict() | {"mazes": None} for each in found]
            stored = {
                "mazes": digest,
                "choices": [record | {"method": arm} for record in records],
            }
            files.write_json(done, stored)
        for record in stored["choices"]:
            places = _places(config, study, record["part"])
            mazes = study.subset(places)[record["noise"]]
            yield Chosen(**(record | {"mazes": mazes}))


def _digest(config: Config, study: Study) -> str:
    """Of the tasks that a language model reads: stored choices are for them alone."""
    told = [
        (noise, maze.listed, maze.gold)
        for part in ("number", "text")
        for noise, mazes in study.subset(_places(config, study, part)).items()
        for maze in mazes
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def model_choices(config: Config, model: LanguageModel, study: Study) -> list[Chosen]:
    """Let a language model choose, by number and by the sentences' likelihood.

    Args:
      config: settings of the run.
      model: the model.
      study: the mazes.

    Returns:
      The choices; ``method`` is empty.
    """
    found = []
    # All noise levels in one call, so that few programs are compiled.
    chosen = study.subset(_places(config, study, "number"))
    mazes = [maze for each in chosen.values() for maze in each]
    for rounds in config.rounds:
        choices = choose_by_number(model, mazes, rounds=rounds)
        found += _apart("number", rounds, chosen, choices)
    chosen = study.subset(_places(config, study, "text"))
    mazes = [maze for each in chosen.values() for maze in each]
    found += _apart("text", "one", chosen, choose_by_text(model, mazes, rounds="one"))
    return found


def _apart(
    part: str, rounds: str, chosen: Mapping[int, list[Maze]], choices: Choices
) -> Iterator[Chosen]:
    begin = 0
    for noise, mazes in chosen.items():
        own = slice(begin, begin + len(mazes))
        yield Chosen(
            part,
            "",
            rounds,
            noise,
            mazes,
            list(choices.picks[own]),
            choices.probability[own],
        )
        begin += len(mazes)


def _places(config: Config, study: Study, part: str) -> list[int]:
    """Test items that a language model reads: the first that are short enough."""
    most = config.model_items if part == "number" else config.text_items
    short = [
        place
        for place, item in enumerate(study.test)
        if len(" ".join([item.background, *item.evidence]).split())
        <= config.model_words
    ]
    if not short:
        raise ValueError(
            f"model_words: expected a test item of at most {config.model_words} words, "
            "got none"
        )
    return short[:most]
