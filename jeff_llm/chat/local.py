"""Use a language model in this process as a chat model.

Requests that wait at the same time are answered in one batch, in a separate thread, so
the event loop is not blocked. An answer does not depend on the other rows of its batch
(log-probabilities up to rounding), since each row has its own seed. If a batch fails,
for example because one prompt is too long, each row is tried alone.
"""

import asyncio
import bisect
import dataclasses
import functools
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from jeff_llm.chat.messages import Answer, Request, before_stop

__all__ = ["Local"]

# How long to wait for a batch to fill: long enough for requests that pass through a
# cache, and short compared with the time for one token.
_GATHER_SECONDS = 0.005


class _Job(NamedTuple):
    request: Request
    prompt: list[int]
    future: Future[Answer]

    @property
    def kind(self) -> tuple[bool, bool]:
        """Settings that the rows of a batch must share: sampling, and use of ``top_p``.

        Rows without ``top_p`` are kept apart. To run them with ``top_p`` 1 would not be
        the same: rounding would drop their rarest tokens.
        """
        sampled = self.request.temperature > 0
        return sampled, sampled and self.request.top_p is not None


class Local:
    """A language model in this process; equal requests have equal answers.

    Many event loops and threads may use it at the same time; one batch runs at a time.
    A schema is not enforced. A prompt that is too long for the model fails only its own
    request.

    Attributes:
      name: name of the model.
    """

    name: str

    def __init__(self, model: Any, *, batch_size: int = 8):
        """Wrap a model.

        Args:
          model: a `jeff_llm.models.language_model.LanguageModel` whose tokenizer has a
            chat template.
          batch_size: maximum number of requests in a batch.

        Raises:
          ValueError: if ``batch_size`` is not positive.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        self.name = model.name
        self._model = model
        self._batch_size = batch_size
        self._waiting: list[_Job] = []
        self._changed = threading.Condition()
        self._working = False

    @functools.cached_property
    def digest(self) -> str:
        """What the model is beside its name; `Cached` keeps fine-tunes apart by it.

        Returns:
          A digest in hexadecimal, computed once.
        """
        return self._model.digest()

    def __repr__(self) -> str:
        return f"Local({self.name!r}, batch_size={self._batch_size})"

    async def answer(self, request: Request) -> Answer:
        """Answer one request.

        Args:
          request: the request.

        Returns:
          The answer; ``finish_reason`` is "stop" or "length".
        """
        tokenizer = self._model.tokenizer
        messages = [dataclasses.asdict(message) for message in request.messages]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        # The chat template has already added the special tokens.
        prompt = list(tokenizer.encode(text, add_special_tokens=False))
        job = _Job(request, prompt, Future())
        self._submit(job)
        return await asyncio.wrap_future(job.future)

    def _submit(self, job: _Job) -> None:
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()
            # Decided under the lock: exactly one thread works, and it ends when no
            # request waits, so that it never keeps the process alive.
            idle, self._working = not self._working, True
        if idle:
            threading.Thread(target=self._work, name=f"answers of {self.name}").start()

    def _work(self) -> None:
        while batch := self._take():
            self._finish([j for j in batch if j.future.set_running_or_notify_cancel()])

    def _take(self) -> list[_Job]:
        """Take the next batch: the longest-waiting requests of one kind."""
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._waiting) >= self._batch_size, _GATHER_SECONDS
            )
            alike = [j for j in self._waiting if j.kind == self._waiting[0].kind]
            batch = alike[: self._batch_size]
            self._waiting = [job for job in self._waiting if job not in batch]
            self._working = bool(batch)
        return batch

    def _finish(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        try:
            answers = self._generate(jobs)
        except ValueError as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            for job in jobs:
                self._finish([job])
        except Exception as error:
            for job in jobs:
                job.future.set_exception(error)
        else:
            for job, answer in zip(jobs, answers, strict=True):
                job.future.set_result(answer)

    def _generate(self, jobs: list[_Job]) -> list[Answer]:
        from jeff_llm import generate

        requests = [job.request for job in jobs]
        sampling, keys = _sampling(generate.Sampling, requests, *jobs[0].kind)
        generation = generate.generate(
            self._model,
            [job.prompt for job in jobs],
            max_new_tokens=max(request.max_tokens for request in requests),
            sampling=sampling,
            keys=keys,
        )
        rows = zip(
            jobs,
            np.asarray(generation.tokens),
            np.asarray(generation.log_probs),
            np.asarray(generation.lengths).tolist(),
            np.asarray(generation.finished).tolist(),
            strict=True,
        )
        return [self._read(*row) for row in rows]

    def _read(
        self,
        job: _Job,
        tokens: np.ndarray,
        log_probs: np.ndarray,
        length: int,
        finished: bool,
    ) -> Answer:
        """Build the answer of one row, cut to the limits of its own request."""
        request, decode = job.request, self._model.tokenizer.decode
        count = min(length, request.max_tokens)
        ended = finished and length <= request.max_tokens
        shown = tokens[: count - ended].tolist()
        text = decode(shown)
        if (cut := before_stop(text, request.stop)) != text:
            # Count only the tokens up to the stop text. Bisection finds them with few
            # calls of decode.
            count = bisect.bisect_left(
                range(len(shown)),
                True,
                key=lambda n: before_stop(t := decode(shown[:n]), request.stop) != t,
            )
            text, ended = cut, True
        return Answer(
            text=text,
            finish_reason="stop" if ended else "length",
            prompt_tokens=len(job.prompt),
            completion_tokens=count,
            log_probs=tuple(log_probs[:count].tolist()) if request.logprobs else None,
            model=self.name,
        )


def _sampling(
    sampling: Any, requests: Sequence[Request], sampled: bool, has_top_p: bool
) -> tuple[Any, Any]:
    """Sampling settings of a batch, and the random key of each row."""
    import jax
    import jax.numpy as jnp

    if not sampled:
        return sampling(temperature=0.0), None
    temperature = jnp.array([request.temperature for request in requests], jnp.float32)
    top_p = jnp.array([r.top_p for r in requests], jnp.float32) if has_top_p else None
    seeds = np.array([request.seed or 0 for request in requests], np.uint32)
    keys = jax.vmap(jax.random.key)(seeds)
    return sampling(temperature=temperature, top_p=top_p), keys
