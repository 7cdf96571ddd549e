"""The user's own questions: dialogues to train on, mazes, and what a model shows."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.dialogue import Config
from jeff import files
from jeff_llm.clinic import choosing, dialogue, rules
from jeff_llm.clinic.dialogue import Dialogue
from jeff_llm.clinic.evaluation import evaluate
from jeff_llm.clinic.items import Item, Reject, make_items
from jeff_llm.clinic.making import make_mazes
from jeff_llm.clinic.maze import Maze, generator
from jeff_llm.clinic.questions import read_questions
from jeff_llm.models import encoder, weights
from train_scripts.dialogue import endpoint, own_report
from train_scripts.dialogue.own_report import Converted
from train_scripts.dialogue.own_scores import Contender, Tested
from train_scripts.running import machines
from train_scripts.running.results import Part
from train_scripts.running.seeds import seed_key
from train_scripts.running.stages import say

__all__ = ["analyse"]

_MAZES, _RULES, _ORDER = 40, 41, 42  # purposes of random keys


def analyse(config: Config, workdir: Path, *, progress: bool = True) -> Part:
    """Convert questions into dialogues and mazes, and test rules and models on them.

    Args:
      config: settings of the run.
      workdir: the run's folder; what an endpoint has answered is not asked for again.
      progress: say what is being done.

    Returns:
      Numbers and report. In the folder are ``dialogue.jsonl``,
      ``multiple_choice.jsonl``, ``monologue.jsonl``, ``mazes.jsonl`` and
      ``rejects.jsonl``; a file without a line is not written.

    Raises:
      FileNotFoundError: if the file or an asset is missing.
      ImportError: if a package is missing.
      OSError: if the endpoint fails; what was answered stays stored.
      ValueError: if the file is not as expected, or no question makes an item.
    """
    converted = _convert(config, workdir, progress)
    mazes, notes = _make_mazes(config, converted.items)
    rows = [_row(maze) for level in mazes.values() for maze in level]
    _write_rows(workdir / "mazes.jsonl", rows)
    tested = None
    # Neighbours and order are defined for two sentences and more.
    if any(len(maze.gold) > 1 for level in mazes.values() for maze in level):
        tested = _test(config, workdir, mazes, notes, progress)
    elif mazes:
        notes.append("No item has two sentences of evidence: nothing is tested.")
    table = own_report.table(config, workdir, converted, notes, tested)
    return Part(own_report.numbers(converted, tested), (), table)


def _convert(config: Config, workdir: Path, progress: bool) -> Converted:
    """Read the questions, and write the three forms of their items."""
    read = read_questions(config.data)
    say("dialogue", progress, f"read {len(read.questions)} questions")
    made = make_items(read.questions, language=config.language)
    if not made.items:
        first = made.rejects[0]
        raise ValueError(
            f"{config.data}: expected at least one question that makes an item, got "
            f"none of {len(read.questions)}; the first, {first.id}: {first.reason}"
        )
    with_options = [item for item in made.items if item.options]
    rejects = list(made.rejects)
    forms = {
        "multiple_choice": _forms(with_options, dialogue.to_multiple_choice, rejects),
        "monologue": _forms(made.items, dialogue.to_monologue, rejects),
    }
    if config.rewrite:
        found = endpoint.rewrite(config, workdir, made.items, progress=progress)
        forms["dialogue"] = found.dialogues
        rejects += found.rejects
    else:
        forms["dialogue"] = _forms(made.items, dialogue.to_dialogue, rejects)
    for name, dialogues in forms.items():
        if dialogues:
            dialogue.write_jsonl(workdir / f"{name}.jsonl", dialogues)
    _write_rows(workdir / "rejects.jsonl", [each._asdict() for each in rejects])
    return Converted(
        len(read.questions), made.items, forms, rejects, read.ignored_fields
    )


def _forms(
    items: Sequence[Item], make: Callable[[Item], Dialogue], rejects: list[Reject]
) -> list[Dialogue]:
    """Convert items; those that would lose or gain a fact are added to the rejects."""
    found = []
    for item in items:
        made = make(item)
        try:
            dialogue.check(item, made.messages)
        except ValueError as error:
            rejects.append(Reject(item.id, str(error).removeprefix(f"{item.id}: ")))
        else:
            found.append(made)
    return found


def _make_mazes(
    config: Config, items: Sequence[Item]
) -> tuple[dict[int, list[Maze]], list[str]]:
    """Mazes of the items that fit, at the levels for which there are enough."""
    fewest, most = config.evidence
    fitting = [item for item in items if fewest <= len(item.evidence) <= most]
    notes = [
        f"{len(fitting)} of {len(items)} items have {fewest} to {most} sentences of "
        "evidence (`--evidence`) and make mazes."
    ]
    levels = sorted(set(config.noise))
    while fitting and levels:
        try:
            key = seed_key(config.seeds[0], _MAZES)
            return make_mazes(fitting, noise=levels, key=key), notes
        except ValueError as error:
            left_out = levels.pop()
            notes.append(f"Too few items for noise {left_out}: {error}.")
    notes.append("There are too few items for mazes: nothing is tested.")
    return {}, notes


def _row(maze: Maze) -> dict[str, Any]:
    item = maze.item
    return {
        "id": item.id,
        "noise": maze.noise,
        "background": item.background,
        "question": item.question,
        "answer": item.answer,
        "listed": maze.listed,
        "gold": [place + 1 for place in maze.gold],
        "kinds": maze.kinds,
        "sources": maze.sources,
    }


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        # ASCII alone, as in `write_jsonl`.
        files.write_text(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def _test(
    config: Config,
    workdir: Path,
    mazes: Mapping[int, Sequence[Maze]],
    notes: list[str],
    progress: bool,
) -> Tested:
    """Test rules and models on a random part of the items."""
    items = [maze.item for maze in next(iter(mazes.values()))]
    order = generator(seed_key(config.seeds[0], _ORDER)).permutation(len(items))
    # An item without two sentences may be drawn, but not alone.
    order = sorted(order.tolist(), key=lambda place: len(items[place].evidence) < 2)
    places = order[: config.test_items or None]
    chosen = {noise: [level[p] for p in places] for noise, level in mazes.items()}
    say("dialogue", progress, f"rules without a model on {len(places)} items")
    encode = _encode(notes)
    key = seed_key(config.seeds[0], _RULES)
    by_rule = {
        noise: {
            name: evaluate(level, picks)
            for name, picks in rules.apply_rules(level, encode, key=key).items()
        }
        for noise, level in chosen.items()
    }
    contenders = []
    if config.chat:
        rows = list(range(len(places)))[: config.chat_items or None]
        part = {noise: [level[r] for r in rows] for noise, level in chosen.items()}
        answered = endpoint.ask(config, workdir, part, progress=progress)
        contenders.append(
            Contender("chat", config.chat_model, rows, answered.picks, answered.note)
        )
    if config.model:
        contenders += _local(config, workdir, chosen, notes, progress)
    return Tested(chosen, by_rule, contenders)


def _encode(notes: list[str]) -> rules.Encode | None:
    """MiniLM, which reads each text once for all levels of noise."""
    try:
        model = encoder.load("minilm", mesh=machines.mesh())
    except FileNotFoundError:
        notes.append(
            "The rules `embedding` and `usual_order` are left out, since MiniLM is "
            "missing; `python -m train_scripts assets` fetches it."
        )
        return None
    known: dict[str, np.ndarray] = {}

    def encode(texts: Sequence[str]) -> np.ndarray:
        new = [text for text in texts if text not in known]
        if new:
            known.update(zip(new, model.encode(new), strict=True))
        return np.stack([known[text] for text in texts])

    return encode


def _local(
    config: Config,
    workdir: Path,
    mazes: Mapping[int, Sequence[Maze]],
    notes: list[str],
    progress: bool,
) -> list[Contender]:
    """Let a model of the runtime choose; each finished setting is stored."""
    first = next(iter(mazes.values()))
    short = [r for r, maze in enumerate(first) if _words(maze) <= config.model_words]
    rows = short[: config.model_items]
    if not any(len(first[r].gold) > 1 for r in rows):
        notes.append(
            f"`{config.model}` is not tested: no item with two sentences of evidence "
            f"has at most {config.model_words} words (`--model-words`)."
        )
        return []
    model = None
    picks = {}
    for rounds in config.rounds:
        for noise, level in mazes.items():
            part = [level[r] for r in rows]
            path = workdir / "picks" / f"{rounds}-{noise}.json"
            digest = hashlib.sha256(json.dumps([*map(_row, part)]).encode()).hexdigest()
            stored = files.read_json(path) if path.is_file() else {}
            if stored.get("mazes") != digest:
                say("dialogue", progress, f"{config.model}: {rounds}, noise {noise}")
                model = model or weights.load(config.model, mesh=machines.mesh())
                found = choosing.choose_by_number(model, part, rounds=rounds).picks
                stored = {"mazes": digest, "picks": found}
                files.write_json(path, stored)
            picks[rounds, noise] = stored["picks"]
    note = (
        f"{config.model} chose in {len(rows)} mazes of each setting, the likeliest "
        "number at each step, so that no reply fails.\n"
    )
    return [Contender("model", config.model, rows, picks, note)]


def _words(maze: Maze) -> int:
    item = maze.item
    texts = (item.background, *item.evidence, item.question, item.answer)
    return sum(len(text.split()) for text in texts)
