"""Choice of evidence by the likelihood of the sentence itself.

A small model that cannot handle numbers of sentences may still know which sentence goes
on with a case. The score of a sentence is how much likelier the case makes it, per
token, than no case at all: a likelihood alone favours what is common in any case.
"""

from collections.abc import Sequence

import numpy as np

from jeff_llm import generate
from jeff_llm.clinic.choosing import Choices
from jeff_llm.clinic.maze import Maze
from jeff_llm.clinic.prompts import ROUNDS
from jeff_llm.models.language_model import LanguageModel

__all__ = ["choose_by_text"]

_NO_CASE = "A patient is seen."


def choose_by_text(
    model: LanguageModel,
    mazes: Sequence[Maze],
    *,
    rounds: str = "several",
    batch_size: int = 8,
) -> Choices:
    """Choose the sentences that the case makes likelier.

    ``score(s) = (log p(s | case) - log p(s | no case)) / tokens of s``, where the case
    is question, answer, background and, in several rounds, the picks so far. In one
    round the sentences are taken by falling score; in several the best is taken, and
    the others are scored anew.

    Args:
      model: the model, with a tokenizer.
      mazes: the tasks. Those of one item share what they have in common, so give its
        mazes of all noise levels in one call.
      rounds: "one" or "several".
      batch_size: contexts that are read at a time.

    Returns:
      The choices, in the order of the mazes; the probability of a pick is the softmax
      of the scores of all free sentences.

    Raises:
      ValueError: if ``rounds`` is unknown, or a case is longer than the context.
    """
    if rounds not in ROUNDS:
        raise ValueError(f"rounds: expected one of {ROUNDS}, got {rounds!r}")
    if not mazes:
        return Choices([], [])
    sentences = list(dict.fromkeys(each for maze in mazes for each in maze.listed))
    found = _Scores(model, sentences, batch_size)
    picks: list[list[int]] = [[] for _ in mazes]
    probability: list[list[float]] = [[] for _ in mazes]
    active = list(range(len(mazes)))
    while active:
        contexts = {
            place: _case(mazes[place], picks[place] if rounds == "several" else ())
            for place in active
        }
        found.add(
            [
                (contexts[place], mazes[place].listed[each])
                for place in active
                for each in _free(mazes[place], picks[place])
            ]
        )
        for place in active:
            free = _free(mazes[place], picks[place])
            listed = mazes[place].listed
            scores = np.array([found(contexts[place], listed[each]) for each in free])
            share = np.exp(scores - scores.max())
            best = int(np.argmax(scores))
            picks[place].append(free[best])
            probability[place].append(float(share[best] / share.sum()))
        active = [p for p in active if len(picks[p]) < len(mazes[p].gold)]
    return Choices(picks, probability)


class _Scores:
    """Scores of sentences in contexts, each computed once."""

    def __init__(self, model: LanguageModel, sentences: list[str], batch_size: int):
        self.model, self.batch_size = model, batch_size
        tails = [f" {each}" for each in sentences]
        # All at once would be one row with a tail for every sentence of every case.
        parts = [tails[begin : begin + 32] for begin in range(0, len(tails), 32)]
        base = generate.score(model, [_NO_CASE] * len(parts), parts, batch_size=1)
        means = (score.mean for part in base for score in part)
        self.base = dict(zip(sentences, means, strict=True))
        self.found: dict[tuple[str, str], float] = {}

    def add(self, pairs: list[tuple[str, str]]) -> None:
        new: dict[str, list[str]] = {}
        for context, sentence in dict.fromkeys(pairs):
            if (context, sentence) not in self.found:
                new.setdefault(context, []).append(sentence)
        if not new:
            return
        # Contexts of one length share a batch.
        order = sorted(new, key=len)
        scores = generate.score(
            self.model,
            order,
            [[f" {each}" for each in new[context]] for context in order],
            batch_size=self.batch_size,
        )
        for context, row in zip(order, scores, strict=True):
            for sentence, score in zip(new[context], row, strict=True):
                value = score.mean - self.base[sentence]
                self.found[context, sentence] = value

    def __call__(self, context: str, sentence: str) -> float:
        return self.found[context, sentence]


def _free(maze: Maze, picks: Sequence[int]) -> list[int]:
    return [place for place in range(len(maze.listed)) if place not in picks]


def _case(maze: Maze, picks: Sequence[int]) -> str:
    item = maze.item
    goal = f"Question: {item.question}\n" if item.question else ""
    told = " ".join([item.background, *(maze.listed[place] for place in picks)])
    return f"{goal}Answer: {item.answer}\nCase: {told}"
