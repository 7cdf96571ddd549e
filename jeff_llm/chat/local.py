"""A language model of this process as a chat model.

Requests that wait at the same time are answered in one batch, in a thread of their own,
so that the event loop stays free. An answer does not depend on what shares its batch
(log-probabilities to rounding): each row draws by its own seed. Where a batch cannot be
answered, as with a prompt in it that is too long, each row is tried alone.
"""

import asyncio
import bisect
import dataclasses
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from jeff_llm.chat.messages import Answer, Request, before_stop

__all__ = ["Local"]

# Long enough for requests that come through a cache, short beside one token.
_GATHER_SECONDS = 0.005


class _Job(NamedTuple):
    request: Request
    prompt: list[int]
    future: Future[Answer]

    @property
    def kind(self) -> tuple[bool, bool]:
        """What must agree within a batch: whether tokens are drawn, and out of which.

        A row without ``top_p`` may not take part in its cut, even at 1: rounding would
        drop its rarest tokens.
        """
        sampled = self.request.temperature > 0
        return sampled, sampled and self.request.top_p is not None


class Local:
    """A language model of this process; equal requests have equal answers.

    Safe to be asked from many event loops and threads at the same time: one batch runs
    at a time. A schema is not enforced. A prompt that is too long for the model is an
    error of its own request alone.
    """

    def __init__(self, model: Any, *, batch_size: int = 8):
        """Wrap a model.

        Args:
          model: a `jeff_llm.models.language_model.LanguageModel` with a tokenizer that
            has a chat template.
          batch_size: most requests that are answered together.

        Raises:
          ValueError: if ``batch_size`` is not positive.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        self.name: str = model.name
        self._model = model
        self._batch_size = batch_size
        self._waiting: list[_Job] = []
        self._changed = threading.Condition()
        self._working = False

    def __repr__(self) -> str:
        return f"Local({self.name!r}, batch_size={self._batch_size})"

    async def answer(self, request: Request) -> Answer:
        """Answer one request.

        Args:
          request: what is asked.

        Returns:
          The answer; ``finish_reason`` is "stop" or "length".
        """
        tokenizer = self._model.tokenizer
        messages = [dataclasses.asdict(message) for message in request.messages]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        # The template has put the special tokens in already.
        prompt = list(tokenizer.encode(text, add_special_tokens=False))
        job = _Job(request, prompt, Future())
        self._submit(job)
        return await asyncio.wrap_future(job.future)

    def _submit(self, job: _Job) -> None:
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()
            idle, self._working = not self._working, True
        if idle:
            threading.Thread(target=self._work, name=f"answers of {self.name}").start()

    def _work(self) -> None:
        while batch := self._take():
            self._finish([j for j in batch if j.future.set_running_or_notify_cancel()])

    def _take(self) -> list[_Job]:
        """The next batch: those that have waited longest, of one kind."""
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
        """The answer of one row, cut to what its own request allows."""
        request, decode = job.request, self._model.tokenizer.decode
        count = min(length, request.max_tokens)
        ended = finished and length <= request.max_tokens
        shown = tokens[: count - ended].tolist()
        text = decode(shown)
        if (cut := before_stop(text, request.stop)) != text:
            # The first tokens whose text holds a stop are all that had to be written.
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
    """How the rows of a batch are drawn, and their keys."""
    import jax
    import jax.numpy as jnp

    if not sampled:
        return sampling(temperature=0.0), None
    temperature = jnp.array([request.temperature for request in requests], jnp.float32)
    top_p = jnp.array([r.top_p for r in requests], jnp.float32) if has_top_p else None
    seeds = np.array([request.seed or 0 for request in requests], np.uint32)
    keys = jax.vmap(jax.random.key)(seeds)
    return sampling(temperature=temperature, top_p=top_p), keys
