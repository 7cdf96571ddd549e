"""An OpenAI-compatible endpoint as a chat model, through the `openai` client.

What is retried, after a random wait that doubles its bound each time (exponential
back-off with full jitter; Brooker, "Exponential Backoff and Jitter", AWS Architecture
Blog, 2015) and is no shorter than what ``Retry-After`` asks for:

* no connection, or no answer within the time-out;
* status 408, 409, 429 and 5xx;
* a body that is not JSON, such as the page of a gateway or a body cut on the way.

Everything else is final at once: another status, and JSON without the fields of a chat
completion, which asking again would not bring.

`tenacity` repeats and waits. The client's own retries are off, for they wait by fixed
numbers (at most 8 s, or two minutes where the endpoint asks for them), take a time-out
for each read, do not ask again after a broken body, and tell no number of attempts.
``Retry-After`` is read here: the client's reader is private to it.

Of the environment the client reads what concerns the network (proxies, certificates);
keys, organisation and project are parameters or nothing.
"""

import asyncio
import contextlib
import dataclasses
import email.utils
import json
import math
import re
import time
import urllib.parse
from collections.abc import AsyncIterator
from datetime import UTC
from typing import Any, NamedTuple

from jeff.extras import require
from jeff_llm.chat.messages import Answer, ChatError, Price, Request, before_stop

__all__ = ["OpenAICompatible"]

_SHOWN = 200  # characters of a body that an error repeats


class _Outcome(NamedTuple):
    """An answer; or why an attempt brought none, and whether another may."""

    answer: Answer | None
    cause: str = ""
    retry: bool = False
    retry_after: float = 0.0  # seconds


class OpenAICompatible:
    """A model behind ``POST <base_url>/chat/completions``.

    Safe to be asked from many event loops and threads at the same time. Connections are
    shared by the requests that are on the way together, and closed after the last.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout: int | float = 60.0,
        retries: int = 5,
        backoff: int | float = 1.0,
        max_backoff: int | float = 60.0,
        price: Price | None = None,
        send_schema: bool = False,
    ):
        """Describe the endpoint; nothing is sent yet.

        Args:
          base_url: such as ``http://127.0.0.1:8000/v1``.
          model: the model's name at the endpoint.
          api_key: the key; none for a server that asks for none.
          timeout: seconds an attempt may take in all.
          retries: how often a request is sent again, at most.
          backoff: bound of the first random wait, in seconds.
          max_backoff: longest wait, in seconds. An endpoint that asks for a longer one
            is not asked again.
          price: of its tokens; without one the cost is 0.
          send_schema: send a request's schema as ``response_format``, for an endpoint
            that can hold its answer to it.

        Raises:
          ValueError: if an argument is out of its range, or ``base_url`` is no URL or
            carries a password, which belongs into ``api_key``.
        """
        _check_url(base_url)
        # Anything else cannot be sent in a header, or would be escaped where it is
        # echoed, and then not be recognised and taken out.
        if api_key is not None and not re.fullmatch(r"[!#-\[\]-~]+", api_key):
            raise ValueError(
                "api_key: expected printable ASCII without spaces, quotes and "
                "backslashes; strip the line break of a key that is read from a file"
            )
        for name, value, holds in (
            ("timeout", timeout, timeout > 0),
            ("retries", retries, retries >= 0),
            ("backoff", backoff, backoff >= 0),
            ("max_backoff", max_backoff, max_backoff >= 0),
        ):
            if not holds:
                raise ValueError(f"{name}: expected a positive number, got {value}")
        self.name = model
        self._base_url, self._api_key = base_url, api_key
        self._timeout, self._retries = timeout, retries
        self._backoff, self._max_backoff = backoff, max_backoff
        self._price = price or Price(0.0, 0.0)
        self._send_schema = send_schema
        self._open: dict[asyncio.AbstractEventLoop, tuple[Any, int]] = {}

    def __repr__(self) -> str:
        return f"OpenAICompatible({self._base_url!r}, {self.name!r})"

    async def answer(self, request: Request) -> Answer:
        """Answer one request, asking again where that may help.

        Args:
          request: what is asked.

        Returns:
          The answer.

        Raises:
          ChatError: if no attempt brought one.
        """
        tenacity = require("tenacity", extra="llm")
        jitter = tenacity.wait_random_exponential(self._backoff, self._max_backoff)

        def last(state: Any) -> _Outcome:
            return state.outcome.result()

        retrying = tenacity.AsyncRetrying(
            sleep=asyncio.sleep,
            stop=tenacity.stop_after_attempt(self._retries + 1),
            wait=lambda state: max(jitter(state), last(state).retry_after),
            retry=tenacity.retry_if_result(lambda outcome: outcome.retry),
            retry_error_callback=last,
        )
        async with self._client() as client:
            outcome = await retrying(self._attempt, client, request)
        if outcome.answer is None:
            attempts = retrying.statistics["attempt_number"]
            raise ChatError(self.name, attempts, outcome.cause)
        return outcome.answer

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[Any]:
        """The client of this event loop, as long as anyone uses it."""
        loop = asyncio.get_running_loop()
        client, users = self._open.get(loop) or (self._connect(), 0)
        self._open[loop] = client, users + 1
        try:
            yield client
        finally:
            client, users = self._open.pop(loop)
            if users > 1:
                self._open[loop] = client, users - 1
            else:
                await client.close()

    def _connect(self) -> Any:
        openai = require("openai", extra="llm")
        client = openai.AsyncOpenAI(
            base_url=self._base_url,
            api_key=self._api_key or "none",
            max_retries=0,
            timeout=None,
        )
        # It has taken these from the environment, for whichever endpoint.
        client.organization = client.project = None
        return client

    async def _attempt(self, client: Any, request: Request) -> _Outcome:
        import openai

        create = client.chat.completions.with_raw_response.create
        try:
            async with asyncio.timeout(self._timeout):
                response = (await create(**self._fields(request))).http_response
        except TimeoutError:
            return _Outcome(None, f"no answer within {self._timeout} s", retry=True)
        except openai.APIStatusError as error:
            return self._refused(error.response)
        except openai.APIConnectionError as error:
            reason = self._start(repr(error.__cause__ or error))
            return _Outcome(
                None, f"no connection to {self._base_url}: {reason}", retry=True
            )
        try:
            body = json.loads(response.text)
        except (ValueError, RecursionError):
            kind = response.headers.get("content-type", "no content type")
            said = f"a body of {kind}: {self._start(response.text)}"
            return _Outcome(None, f"expected JSON, came {said}", retry=True)
        try:
            return _Outcome(self._read(body, request))
        except ValueError as error:
            return _Outcome(
                None, f"{error}, in {self._start(response.text)}", retry=False
            )

    def _fields(self, request: Request) -> dict[str, Any]:
        """The body of the request; only what was asked for, as servers differ."""
        # OpenAI's own endpoint has renamed the field, and its newer models insist.
        renamed = urllib.parse.urlsplit(self._base_url).hostname == "api.openai.com"
        fields: dict[str, Any] = {
            "model": self.name,
            "messages": [dataclasses.asdict(message) for message in request.messages],
            "max_completion_tokens" if renamed else "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "stop": list(request.stop) or None,
            "logprobs": request.logprobs or None,
        }
        if self._send_schema and request.schema is not None:
            inner = {"name": "answer", "schema": json.loads(request.schema)}
            wanted = inner | {"strict": True}
            fields["response_format"] = {"type": "json_schema", "json_schema": wanted}
        return {name: value for name, value in fields.items() if value is not None}

    def _refused(self, response: Any) -> _Outcome:
        status = response.status_code
        cause = f"status {status}: {self._start(response.text)}"
        if status not in (408, 409, 429) and status < 500:
            return _Outcome(None, cause, retry=False)
        wait = _retry_after(response.headers.get("retry-after", "0"))
        if wait > self._max_backoff:
            longer = f"more than max_backoff={self._max_backoff}"
            return _Outcome(
                None, f"{cause}; asks to wait {wait:g} s, {longer}", retry=False
            )
        return _Outcome(None, cause, retry=True, retry_after=wait)

    def _read(self, body: Any, request: Request) -> Answer:
        """The answer in a chat completion; a ValueError says what is missing."""
        from jeff_llm.chat.completion import read_completion

        came = read_completion(body, logprobs=request.logprobs)
        text = came.content or ""
        # Some servers leave in what they stopped at, or do not stop.
        shown = before_stop(text, request.stop)
        log_probs = tuple(token.logprob for token in came.tokens or ())
        return Answer(
            text=shown,
            finish_reason=came.finish_reason if shown == text else "stop",
            prompt_tokens=came.prompt_tokens,
            completion_tokens=came.completion_tokens,
            log_probs=log_probs if request.logprobs else None,
            cost=self._price.cost(came.prompt_tokens, came.completion_tokens),
            model=came.model or self.name,
        )

    def _start(self, text: str) -> str:
        """The first characters of what came, without the key."""
        if self._api_key is not None:
            text = text.replace(self._api_key, "***")
        return repr(" ".join(text[: 4 * _SHOWN].split())[:_SHOWN])


def _retry_after(header: str) -> float:
    """Seconds that ``Retry-After`` asks for: a number, or the time until a date."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(header)
        except ValueError:
            return 0.0
        zone = moment.tzinfo or UTC
        seconds = moment.replace(tzinfo=zone).timestamp() - time.time()
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0


def _check_url(url: str) -> None:
    if "@" in url or "?" in url:
        raise ValueError(
            "base_url: expected no user, password or query; pass the key as api_key"
        )
    try:
        parts = urllib.parse.urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, an address that is cut short
        valid = False
    if not valid:
        raise ValueError(
            f"base_url: expected a URL such as http://127.0.0.1:8000/v1, got {url!r}"
        )
