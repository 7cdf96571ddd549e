"""How a real model thinks: its markers, and where its chains may be probed.

A model with ``<think>`` tokens thinks between them. Any other instruct model thinks in
its answer; the end of its text ends the thought, and a line "The answer is" closes it
where a control needs an answer at once.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from jeff_llm.models.language_model import LanguageModel
from jeff_llm.reasoning.thinking import Markers
from train_scripts.questions.answering import tokenizer_of

__all__ = ["Setup", "set_up"]

_THINK, _END_THINK = "<think>", "</think>"
_CLOSING = "\nThe answer is"
_STEP = re.compile(r".*\n|\s*[.!?]+\s*|\W*(wait|alternatively)\W*", re.I | re.S)


class Setup(NamedTuple):
    """How a model thinks.

    Attributes:
      model: the model.
      markers: tokens that mark the parts of a chain.
      thinks: whether it has tokens of its own that open and close a thought.
      closing: text of the closing markers that belongs to the answer.
      answer_stops: tokens that end an answer behind a closed thought.
      answer_tokens: longest answer behind a closed thought.
      max_tokens: longest thought.
    """

    model: LanguageModel
    markers: Markers
    thinks: bool
    closing: str
    answer_stops: list[int]
    answer_tokens: int
    max_tokens: int

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of user turns.

        Args:
          texts: the turns.

        Returns:
          Prompts of the model's chat template; plain prompts for a model without one.
        """
        tokenizer = tokenizer_of(self.model)
        if tokenizer.chat_template is None:
            return tokenizer.encode_all([f"{text}\n\n" for text in texts])
        turns = [
            tokenizer.apply_chat_template([{"role": "user", "content": text}])
            for text in texts
        ]
        # The template has already added the special tokens.
        return tokenizer.encode_all(turns, add_special_tokens=False)


def set_up(model: LanguageModel, max_tokens: int) -> Setup:
    """Find out how a model thinks.

    Args:
      model: the model, with a tokenizer.
      max_tokens: longest thought.

    Returns:
      The setup.
    """
    tokenizer = tokenizer_of(model)
    texts = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
    transitions = tuple(n for n, text in enumerate(texts) if _STEP.fullmatch(text))
    wait = tuple(tokenizer.encode(" Wait", add_special_tokens=False))
    try:
        begin, end = tokenizer.token_id(_THINK), tokenizer.token_id(_END_THINK)
    except ValueError:
        close = tuple(tokenizer.encode(_CLOSING, add_special_tokens=False))
        lines = [n for n, text in enumerate(texts) if "\n" in text]
        ends = model.stop_ids
        markers = Markers((), close, wait=wait, transitions=transitions, ends=ends)
        stops = [*lines, *model.stop_ids]
        return Setup(model, markers, False, _CLOSING, stops, 16, max_tokens)
    markers = Markers((begin,), (end,), wait=wait, transitions=transitions)
    return Setup(model, markers, True, "", list(model.stop_ids), max_tokens, max_tokens)
