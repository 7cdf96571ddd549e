"""An OpenAI-compatible endpoint as a chat model, through the `openai` client.

These failures are retried:

* no connection, or no answer within the time-out;
* status 408, 409, 429 and 5xx;
* a body that is not JSON, such as the error page of a gateway or a truncated body.

The wait before a retry is random, and its upper bound doubles each time (exponential
back-off with full jitter; Brooker, "Exponential Backoff and Jitter", AWS Architecture
Blog, 2015). It is never shorter than ``Retry-After``.

Every other failure is final: any other status, JSON without the fields of a chat
completion, and a body longer than ``max_bytes``, since a retry would not change it. No
redirect is followed: it would carry the prompt to another address.

`tenacity` handles retries and waits. The client's own retries are switched off: their
waits are fixed (at most 8 s, or two minutes if the endpoint asks for it), their
time-out applies to each read, they do not retry a broken body, and they do not report
the number of attempts. ``Retry-After`` is parsed here because the client's parser is
private.

The client reads only network settings (proxies, certificates) from the environment.
Keys come from parameters; organisation and project are never sent.
"""

import asyncio
import contextlib
import dataclasses
import json
import re
import urllib.parse
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from jeff.extras import require
from jeff_llm.chat import responses
from jeff_llm.chat.budget import Budget, most_cost
from jeff_llm.chat.messages import Answer, ChatError, Price, Request, before_stop

__all__ = ["OpenAICompatible"]

_SHOWN = 200  # characters of a body that an error message quotes
# A shorter key is a placeholder, such as "none" or "EMPTY", that an answer may contain.
_SECRET = 8

# What servers of models that reason first refuse.
_OF_REASONING = re.compile(r"max_completion_tokens|\b(?:temperature|top_p)\b")


class _Outcome(NamedTuple):
    """The answer of an attempt; or the cause of its failure and whether to retry."""

    answer: Answer | None
    cause: str = ""
    retry: bool = False
    retry_after: float = 0.0  # seconds
    cost: float | None = None  # None if the attempt may have been billed, or not


class OpenAICompatible:
    """A model behind ``POST <base_url>/chat/completions``.

    Many event loops and threads may use it at the same time. The requests in flight in
    one event loop share connections, which are closed after the last one.
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
        budget: Budget | None = None,
        send_schema: bool = False,
        reasons: bool = False,
        max_bytes: int = 32 * 2**20,
    ):
        """Describe the endpoint; nothing is sent yet.

        Args:
          base_url: such as ``http://127.0.0.1:8000/v1``.
          model: the model's name at the endpoint.
          api_key: the key; None if the server needs none.
          timeout: maximum duration of one attempt, in seconds.
          retries: maximum number of retries of one request.
          backoff: upper bound of the first random wait, in seconds.
          max_backoff: longest wait, in seconds. If the endpoint asks for a longer wait,
            the request fails.
          price: price of the tokens; without it the cost is 0. Where the endpoint does
            not report the tokens of an answer, its cost is None.
          budget: limit on the cost, which the endpoint may share with others; a request
            that could pass it is not sent. Needs a price, and an endpoint that reports
            tokens.
          send_schema: send a request's schema as ``response_format``, for an endpoint
            that can enforce it.
          reasons: whether the model reasons before it answers, and its server therefore
            takes ``max_completion_tokens`` (thoughts included) and no settings of
            sampling: a request's temperature and ``top_p`` are then not sent.
          max_bytes: most bytes of a response, as sent and after decompression.

        Raises:
          ValueError: if an argument is out of its range, ``base_url`` is not a URL, it
            contains a password (pass the key as ``api_key``), or there is a budget
            without a price.
        """
        _check_url(base_url)
        # Other characters cannot be sent in a header, or a server escapes them when it
        # echoes the key, and then the key is not found and removed from error messages.
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
            ("max_bytes", max_bytes, max_bytes > 0),
        ):
            if not holds:
                raise ValueError(f"{name}: expected a positive number, got {value}")
        self.name = model
        self._base_url, self._api_key = base_url, api_key
        self._timeout, self._retries = timeout, retries
        self._backoff, self._max_backoff = backoff, max_backoff
        self._price = price or Price(0.0, 0.0)
        if budget is not None and not self._price.cost(1, 1):
            raise ValueError(
                f"price: expected one above 0 beside a budget, got {price}; without it "
                "no cost is known"
            )
        self._budget = budget
        self._send_schema, self._max_bytes = send_schema, max_bytes
        self._reasons = reasons
        secret = api_key is not None and len(api_key) >= _SECRET
        self._echo = responses.secret_pattern(api_key) if api_key else None
        # Digits alone may also be part of a number, and then the body would be broken.
        self._in_answers = secret and not (api_key or "").isdigit()
        self._open: dict[asyncio.AbstractEventLoop, tuple[Any, int]] = {}

    def __repr__(self) -> str:
        return f"OpenAICompatible({self._base_url!r}, {self.name!r})"

    async def answer(self, request: Request) -> Answer:
        """Answer one request, with retries.

        Args:
          request: the request.

        Returns:
          The answer.

        Raises:
          ChatError: if every attempt failed.
          OSError: if the next attempt could pass the limit of the budget; a
            `CostLimitError`.
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
            outcome = await retrying(self._paid_attempt, client, request)
        if outcome.answer is None:
            attempts = retrying.statistics["attempt_number"]
            raise ChatError(self.name, attempts, self._without_key(outcome.cause))
        return outcome.answer

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[Any]:
        """Open the client of this event loop, shared by its requests in flight."""
        # An HTTP connection belongs to the loop that opened it, so each loop needs its
        # own client; a count of users decides when to close it.
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
            http_client=responses.bounded_client(
                openai.DefaultAsyncHttpxClient, self._max_bytes
            ),
        )
        # The client reads these from the environment; they belong to OpenAI's own
        # endpoint and must not be sent to another one.
        client.organization = client.project = None
        return client

    async def _paid_attempt(self, client: Any, request: Request) -> _Outcome:
        """Make an attempt within the budget."""
        if self._budget is None:
            return await self._attempt(client, request)
        async with self._budget.reserve(most_cost(request, self._price)) as cost:
            outcome = await self._attempt(client, request)
            if outcome.cost is not None:
                cost.append(outcome.cost)
        return outcome

    async def _attempt(self, client: Any, request: Request) -> _Outcome:
        import openai

        create = client.chat.completions.with_raw_response.create
        try:
            async with asyncio.timeout(self._timeout):
                response = (await create(**self._fields(request))).http_response
        except TimeoutError:
            return _Outcome(None, f"no answer within {self._timeout} s", retry=True)
        except responses.ResponseRefusedError as error:
            return _Outcome(None, str(error), retry=error.retry)
        except openai.APIStatusError as error:
            return self._refused(error.response)
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            if isinstance(cause, responses.ResponseRefusedError):
                return _Outcome(None, str(cause), retry=cause.retry)
            return _Outcome(
                None,
                f"no connection to {self._base_url}: {self._start(repr(cause))}",
                retry=True,
                # The names are those of httpx and of httpx2: nothing was sent.
                cost=0.0 if type(cause).__name__.startswith("Connect") else None,
            )
        return self._parsed(response, request)

    def _parsed(self, response: Any, request: Request) -> _Outcome:
        text = response.text
        try:
            # From the bytes: JSON is in UTF-8, whatever a header says.
            text = response.content.decode("utf-8-sig")
            if self._in_answers:
                # Before parsing: what is stored and shown later comes from it alone.
                text = self._without_key(text)
            body = json.loads(text)
        except (ValueError, RecursionError):
            kind = self._start(response.headers.get("content-type", "no content type"))
            said = f"a body of {kind[1:-1]}: {self._start(text)}"
            return _Outcome(None, f"expected JSON, came {said}", retry=True)
        try:
            answer = self._read(body, request)
        except (ValueError, RecursionError, OverflowError) as error:
            return _Outcome(None, f"{error}, in {self._start(text)}", retry=False)
        return _Outcome(answer, cost=answer.cost)

    def _fields(self, request: Request) -> dict[str, Any]:
        """Body of the request. Unset fields are left out: some servers reject them."""
        # OpenAI renamed this field, and its newer models reject the old name; other
        # servers know only the old name.
        host = urllib.parse.urlsplit(self._base_url).hostname
        renamed = self._reasons or host == "api.openai.com"
        fields: dict[str, Any] = {
            "model": self.name,
            "messages": [dataclasses.asdict(message) for message in request.messages],
            "max_completion_tokens" if renamed else "max_tokens": request.max_tokens,
            "temperature": None if self._reasons else request.temperature,
            "top_p": None if self._reasons else request.top_p,
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
        if 300 <= status < 400 and "location" in response.headers:
            # Without the key first: parsing may cut or change it.
            address = self._without_key(response.headers["location"])
            target = responses.redirect_target(address)
            cause = (
                f"status {status}: a redirect to {self._start(target)}, which is not "
                "followed; if the prompts may go there, pass its address as base_url"
            )
        if status in (400, 422):
            cause += self._advice(response.text)
        if status not in (408, 409, 429) and status < 500:
            return _Outcome(None, cause, retry=False, cost=0.0)
        wait = responses.retry_after(response.headers.get("retry-after", "0"))
        if wait > self._max_backoff:
            longer = f"more than max_backoff={self._max_backoff}"
            return _Outcome(
                None, f"{cause}; asks to wait {wait:g} s, {longer}", cost=0.0
            )
        return _Outcome(None, cause, retry=True, retry_after=wait, cost=0.0)

    def _advice(self, text: str) -> str:
        """What to change after a request that a server refused."""
        if self._reasons and "max_completion_tokens" in text:
            return "; if this server knows max_tokens only, leave out reasons=True"
        if not self._reasons and _OF_REASONING.search(text):
            return "; if this model reasons before it answers, pass reasons=True"
        if "logprobs" in text:
            return "; if it gives no log-probabilities, ask without logprobs"
        return ""

    def _read(self, body: Any, request: Request) -> Answer:
        """Read the answer from a completion; a ValueError names a missing field."""
        from jeff_llm.chat.completion import read_completion

        came = read_completion(body, logprobs=request.logprobs)
        text = came.content or ""
        # Some servers leave the stop text in the answer, or ignore it.
        shown = before_stop(text, request.stop)
        read, written = came.prompt_tokens, came.completion_tokens
        if self._budget is not None and (read is None or written is None):
            raise ValueError(
                "usage: expected the tokens read and written, since a budget cannot be "
                f"kept without them, came {came.usage}; leave out the budget"
            )
        log_probs = tuple(token.logprob for token in came.tokens or ())
        return Answer(
            text=shown,
            finish_reason=came.finish_reason if shown == text else "stop",
            prompt_tokens=read,
            completion_tokens=written,
            log_probs=log_probs if request.logprobs else None,
            cost=self._price.reported_cost(read, written),
            model=came.model or self.name,
        )

    def _start(self, text: str) -> str:
        """The first characters of a text that came, with the key removed."""
        text = self._without_key(text)
        return repr(" ".join(text[: 4 * _SHOWN].split())[:_SHOWN])

    def _without_key(self, text: str) -> str:
        return text if self._echo is None else self._echo.sub("***", text)


def _check_url(url: str) -> None:
    if "@" in url or "?" in url:
        raise ValueError(
            "base_url: expected no user, password or query; pass the key as api_key"
        )
    try:
        parts = urllib.parse.urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # the port is not a number, or the address is incomplete
        valid = False
    if not valid:
        raise ValueError(
            f"base_url: expected a URL such as http://127.0.0.1:8000/v1, got {url!r}"
        )
