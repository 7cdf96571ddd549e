"""Routing: the small model answers, and what it is not sure of goes to a large one.

The small model's whole answer is needed before its confidence is known, so a routed
answer streams once that is decided. A large model that does not answer in time costs no
answer: the small model's is given, marked as a fallback.
"""

import asyncio
import datetime
import json
import logging
import math
import random
import threading
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from jeff_llm.chat.answers import append_line, drop_torn_line, make_private
from jeff_llm.chat.messages import Answer, ChatError, ChatModel, Request
from jeff_llm.confidence.router import Router
from jeff_llm.serving.fields import RequestError
from jeff_llm.serving.measures import Measure
from jeff_llm.serving.protocol import Asked
from jeff_llm.serving.rows import Piece

__all__ = ["Decision", "Routing", "TrafficLog", "check_routable"]

_LOG = logging.getLogger(__name__)


class Decision(NamedTuple):
    """Who answers, and how sure the small model was.

    Attributes:
      confidence: in the small model's answer, in [0, 1].
      threshold: below it the large model is asked.
      answer: of the large model; None where the small one's is given.
      fallback: whether the large model was asked in vain.
    """

    confidence: float
    threshold: float
    answer: Answer | None
    fallback: bool

    @property
    def answered_by(self) -> str:
        """Which model's answer is given: "small" or "large"."""
        return "small" if self.answer is None else "large"

    @property
    def fields(self) -> dict[str, Any]:
        """What the response says of it."""
        # JSON has no infinity, the threshold that sends everything on.
        finite = math.isfinite(self.threshold)
        return {
            "answered_by": self.answered_by,
            "confidence": self.confidence,
            "threshold": self.threshold if finite else str(self.threshold),
            "fallback": self.fallback,
        }

    @property
    def headers(self) -> dict[str, str]:
        """The same as headers of the response."""
        return {
            "x-jeff-answered-by": self.answered_by,
            "x-jeff-confidence": f"{self.confidence:.6g}",
        }


class TrafficLog:
    """Routed requests as JSON lines, a file that only its owner can read.

    Each line has ``confidence`` and what measured it, as
    `jeff_llm.confidence.from_jsonl` reads them, the conversation and the answers.
    Marked with ``small_correct`` and ``large_correct``, the file is a log of
    `train_scripts.routing`.
    """

    def __init__(self, path: str | Path, *, measure: str = ""):
        """Open a log, or create it.

        Args:
          path: the file. Lines are appended; an incomplete last one is removed.
          measure: name of the confidence; empty leaves it out.

        Raises:
          OSError: if the file cannot be written.
        """
        self.path = Path(path)
        self._measure = {"confidence_measure": measure} if measure else {}
        self._lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        make_private(self.path)
        drop_torn_line(self.path)

    def write(self, asked: Asked, small: Piece, decision: Decision) -> None:
        """Append a request.

        Args:
          asked: what was asked.
          small: the small model's answer.
          decision: who answers.

        Raises:
          OSError: if the line could not be written; the file is as before.
        """
        large = decision.answer
        row = (
            {
                "time": datetime.datetime.now(datetime.UTC).isoformat(),
                "messages": [
                    {"role": turn.role, "content": turn.content}
                    for turn in asked.messages
                ],
                "small_answer": small.text,
                "large_answer": None if large is None else large.text,
            }
            | decision.fields
            | self._measure
        )
        with self._lock:
            append_line(self.path, json.dumps(row, allow_nan=False).encode() + b"\n")


class Routing:
    """Decides which model answers.

    Attributes:
      router: the rule.
    """

    router: Router

    def __init__(
        self,
        router: Router,
        measure: Measure,
        large: ChatModel,
        *,
        log: TrafficLog | None = None,
    ):
        """Describe the rule; nothing is asked yet.

        Args:
          router: the rule, chosen from a log with the same measure.
          measure: confidence in an answer.
          large: the large model; a `jeff_llm.chat.OpenAICompatible` bounds its time.
          log: takes a line per request.
        """
        self.router = router
        self._measure, self._large, self._log = measure, large, log

    def __repr__(self) -> str:
        return f"Routing({self.router}, {self._large!r})"

    async def decide(self, asked: Asked, small: Piece) -> Decision:
        """Ask the large model where the small one is not sure enough.

        Args:
          asked: what was asked, as `check_routable` lets it pass.
          small: the small model's whole answer.

        Returns:
          The decision.
        """
        prompt = asked.jobs[0].prompt
        # In a thread: it may compute for longer than other clients should wait.
        sure, sent = await asyncio.to_thread(self._rule, prompt, small)
        answer, fallback = None, False
        if sent:
            answer = await self._ask(asked)
            fallback = answer is None
        decision = Decision(sure, self.router.threshold, answer, fallback)
        if self._log is not None:
            try:
                self._log.write(asked, small, decision)
            except OSError as error:  # a full disk costs no answer
                _LOG.error("%s: a request was not logged: %s", self._log.path, error)
        return decision

    def _rule(self, prompt: tuple[int, ...], small: Piece) -> tuple[float, bool]:
        sure = self._measure(prompt, small.tokens)
        # NaN of a broken model shows no confidence, and JSON has none.
        sure = sure if math.isfinite(sure) else 0.0
        uniform = jnp.asarray(random.random(), jnp.float32)
        # In the router's own precision, in which its threshold was chosen.
        return sure, bool(self.router(jnp.asarray(sure), uniform=uniform))

    async def _ask(self, asked: Asked) -> Answer | None:
        job = asked.jobs[0]
        request = Request(
            asked.messages,
            max_tokens=job.max_tokens,
            temperature=job.temperature,
            top_p=job.top_p,
            seed=job.seed,
            stop=job.stop,
        )
        try:
            return await self._large.answer(request)
        except (ChatError, OSError) as error:
            _LOG.warning("the small model's answer is given: %s", error)
            return None


def check_routable(asked: Asked) -> None:
    """Refuse what only one of the two models could do.

    Args:
      asked: what was asked.

    Raises:
      RequestError: naming the field.
    """
    job = asked.jobs[0]
    for name, value in (
        ("n", len(asked.jobs) if len(asked.jobs) > 1 else None),
        ("logprobs", asked.logprobs or None),
        ("top_k", job.top_k),
        ("min_p", job.min_p),
    ):
        if value is not None:
            raise RequestError(
                f"{name}: expected none on a server that routes, since the large "
                f"model's endpoint may not know it, got {value!r}",
                param=name,
            )
