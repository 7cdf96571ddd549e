"""Part "cities": many samples of a real model on questions with a short answer.

`draw` writes the samples as traces, in the form in which your own can be given, and
`analyse` analyses them like your own. A run that is killed loses one batch at most.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs.reasoning import Config
from jeff import files
from jeff_llm import generate
from jeff_llm.confidence.samples import normalise
from jeff_llm.models import weights
from jeff_llm.models.language_model import LanguageModel
from train_scripts.questions import answering, cities, city_questions
from train_scripts.reasoning import traces
from train_scripts.running import machines
from train_scripts.running.results import Part

__all__ = ["analyse", "draw"]

# The model knows the country of most of the largest cities and of few others; the
# largest thousand have votes of every kind, from unanimous to divided.
_LARGEST = 1000
_SHOTS = 4
# Longest answer: names of countries are short.
_TOKENS = 8
# Rows of a batch, some questions with all their samples.
_ROWS = 128


def analyse(config: Config, workdir: Path) -> Part:
    """Draw samples, and analyse them like your own traces.

    Args:
      config: settings of the run.
      workdir: the run's folder.

    Returns:
      Numbers, claims and table.
    """
    # The names of your own fields do not apply to the traces written here.
    names = ("question", "answer", "correct", "tokens", "text", "order", "samples")
    plain = {name: getattr(Config(), name) for name in names}
    path = draw(config, workdir)
    return traces.analyse(dataclasses.replace(config, data=str(path), **plain), workdir)


def draw(config: Config, workdir: Path) -> Path:
    """Sample answers to city questions and write them as JSON lines.

    Fields: ``question``, ``answer`` (null if empty), ``correct``, ``tokens`` with the
    end token, ``text``, and ``order``, the rank at which the sample would finish among
    those of its question if all were written side by side.

    Args:
      config: settings of the run.
      workdir: the run's folder; gets ``traces.jsonl``, and ``cities/`` with a file for
        each batch, from which a killed run resumes.

    Returns:
      The path of ``traces.jsonl``.

    Raises:
      FileNotFoundError: if the model or the cities are missing; says how to get them.
      ValueError: if the folder holds samples of other settings.
    """
    folder = workdir / "cities"
    _check_settings(config, folder / "settings.json")
    seed = config.seeds[0]
    asked = city_questions.draw(_LARGEST, 0, config.cities, _SHOTS, seed)
    size = max(_ROWS // config.votes, 1)
    # Not loaded where every batch is there already.
    model = functools.cache(lambda: weights.load(config.model, mesh=machines.mesh()))
    paths = []
    for begin in range(0, len(asked.test), size):
        paths.append(folder / f"{begin:06d}.jsonl")
        if paths[-1].is_file():
            continue
        some = range(begin, min(begin + size, len(asked.test)))
        found = _sample(model(), asked, some, config.votes, jax.random.key(seed))
        files.write_text(paths[-1], "".join(json.dumps(row) + "\n" for row in found))
    whole = "".join(files.read_text(path) for path in paths)
    return files.write_text(workdir / "traces.jsonl", whole)


def _check_settings(config: Config, path: Path) -> None:
    """Refuse batches that were drawn under other settings."""
    names = ("model", "cities", "votes", "seeds")
    # Through JSON, which turns tuples into lists.
    wanted = json.loads(json.dumps({name: getattr(config, name) for name in names}))
    if not path.is_file():
        files.write_json(path, wanted)
        return
    if (found := files.read_json(path)) != wanted:
        raise ValueError(
            f"{path}: expected samples of {wanted}, got {found}; choose another folder"
        )


def _sample(
    model: LanguageModel,
    asked: city_questions.Questions,
    places: Sequence[int],
    votes: int,
    key: jax.Array,
) -> Iterator[dict[str, Any]]:
    """Rows of some questions, each with all its samples."""
    shots = cities.shots(asked.shots)
    prompts = [shots + cities.question(asked.test[place]) for place in places]
    # From the question and the sample alone, so that batches do not matter.
    keys = jax.vmap(
        lambda place: jax.random.split(jax.random.fold_in(key, place), votes)
    )(np.array(places))
    found = generate.generate(
        model,
        [prompt for prompt in prompts for _ in range(votes)],
        max_new_tokens=_TOKENS,
        sampling=generate.Sampling(temperature=1.0),
        keys=keys.reshape(-1),
        stop_ids=answering.newlines(model),
        share_prefix=True,
    )
    texts = answering.texts_of(model, found)
    lengths = found.lengths.reshape(len(places), votes)
    for number, place in enumerate(places):
        city = asked.test[place]
        # Of samples that finish at the same step the first one counts as earlier.
        order = np.argsort(np.argsort(lengths[number], kind="stable"))
        for vote in range(votes):
            text = texts[number * votes + vote]
            yield {
                "question": city.name,
                "answer": text or None,
                "correct": normalise(text) == normalise(city.country),
                "tokens": int(lengths[number, vote]),
                "text": text,
                "order": int(order[vote]),
            }
