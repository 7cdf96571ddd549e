"""The server as an ASGI application: OpenAI's paths over a batcher.

Starlette routes and streams; what is asked is checked in `jeff_llm.serving.protocol`.
Every error has OpenAI's form. A fault inside the model is a 500 for the requests of its
batch, and the server goes on.
"""

import hashlib
import hmac
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from jeff.extras import require
from jeff.files import parse_json
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.serving.answering import Answers, ClientGoneError, unless_gone
from jeff_llm.serving.batcher import Batcher, BusyError
from jeff_llm.serving.bodies import Form, Head, error_body, fault_body, usage_of
from jeff_llm.serving.fields import RequestError
from jeff_llm.serving.protocol import (
    Asked,
    Limits,
    read_chat,
    read_completion,
)
from jeff_llm.serving.routed import Decision, Routing, check_routable
from jeff_llm.serving.rows import Piece
from jeff_llm.serving.streams import EventStream, events, finished, next_piece

__all__ = ["App"]

_LOG = logging.getLogger(__name__)
# A longer body is refused before it is read to the end.
_MOST_BYTES = 16 * 2**20
# Seconds after which a client that was refused may ask again.
_RETRY_AFTER = "1"
# What nginx logs for a client that left; nobody reads it.
_CLIENT_GONE = 499

Reader = Callable[[Any, LanguageModel, Limits], Asked]


class App:
    """Answers requests of HTTP; an ASGI application.

    Attributes:
      pending: requests that are being answered.
    """

    pending: int

    def __init__(
        self,
        model: LanguageModel,
        batcher: Batcher,
        *,
        limits: Limits | None = None,
        api_key: str = "",
        routing: Routing | None = None,
    ):
        """Describe the server; nothing is opened yet.

        Args:
          model: the model.
          batcher: decodes for it.
          limits: what is taken; by default under the model's own name.
          api_key: the key that clients must send; none by default.
          routing: sends chats on of which the model is not sure.

        Raises:
          ValueError: if the model has no tokenizer.
          ImportError: if the extra ``serve`` is not installed.
        """
        applications = require("starlette.applications", extra="serve")
        routes = require("starlette.routing", extra="serve")
        if model.tokenizer is None:
            raise ValueError("model: expected one with a tokenizer, got none")
        self.pending = 0
        self._model, self._tokenizer, self._batcher = model, model.tokenizer, batcher
        self._routing = routing
        self._limits = limits or Limits(model.name, max_rows=batcher.max_waiting)
        # Digests have one length, so that comparing them tells nothing of the key.
        self._key = hashlib.sha256(api_key.encode()).digest() if api_key else None
        self._created = Head.new(chat=True, name=model.name).created
        route = routes.Route
        self._app = applications.Starlette(
            routes=[
                route("/health", self._health, methods=["GET"]),
                route("/v1/models", self._guarded(self._models), methods=["GET"]),
                route(
                    "/v1/chat/completions", self._guarded(self._chat), methods=["POST"]
                ),
                route(
                    "/v1/completions", self._guarded(self._completion), methods=["POST"]
                ),
            ],
            exception_handlers={404: _no_such_path, 405: _no_such_path},
        )

    def __repr__(self) -> str:
        return f"App({self._limits.name!r})"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one connection, as ASGI asks.

        Args:
          scope: what is asked.
          receive: the body, and whether the client left.
          send: takes the response.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self.pending += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.pending -= 1

    def close(self) -> None:
        """Refuse new requests; those that were taken are answered."""
        self._batcher.close()

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self.pending == 0

    async def _health(self, request: Any) -> Any:
        del request
        if self._batcher.closed:
            return _response({"status": "ending"}, 503)
        return _response({"status": "ok", "pending": self.pending - 1})

    async def _models(self, request: Any) -> Any:
        del request
        model = {
            "id": self._limits.name,
            "object": "model",
            "created": self._created,
            "owned_by": "jeff",
            "max_model_len": self._model.config.max_positions,
        }
        return _response({"object": "list", "data": [model]})

    async def _chat(self, request: Any) -> Any:
        return await self._answer(request, read_chat, chat=True)

    async def _completion(self, request: Any) -> Any:
        return await self._answer(request, read_completion, chat=False)

    async def _answer(self, request: Any, read: Reader, *, chat: bool) -> Any:
        asked = read(await _body(request), self._model, self._limits)
        if chat and self._routing is not None:
            return await self._routed(request, asked, self._routing)
        head = Head.new(chat=chat, name=self._limits.name)
        form = Form(head, self._tokenizer, asked.logprobs)
        answers = Answers(self._batcher, asked.jobs)
        try:
            if not asked.stream:
                pieces = await unless_gone(request.receive, answers.whole())
                drawn = sum(piece.completion_tokens for piece in pieces)
                return _response(
                    form.whole(pieces, usage_of(asked.prompt_tokens, drawn))
                )
            # Before the status is sent: a fault in reading the prompt is a 500.
            pieces = answers.pieces()
            first = await unless_gone(request.receive, next_piece(pieces))
        except BaseException:
            answers.cancel()
            raise
        return EventStream(events(form, asked, first, pieces, answers.cancel))

    async def _routed(self, request: Any, asked: Asked, routing: Routing) -> Any:
        """One whole answer, from the model that is to give it."""
        check_routable(asked)
        answers = Answers(self._batcher, asked.jobs)

        async def decided() -> tuple[Piece, Decision]:
            (small,) = await answers.whole()
            return small, await routing.decide(asked, small)

        try:
            piece, decision = await unless_gone(request.receive, decided())
        finally:
            answers.cancel()
        name = self._limits.name
        usage = usage_of(asked.prompt_tokens, piece.completion_tokens)
        if (large := decision.answer) is not None:
            name = large.model
            usage = usage_of(large.prompt_tokens, large.completion_tokens)
            piece = Piece(large.text, (), large.finish_reason, 0)
        head = Head.new(chat=True, name=name, jeff=decision.fields)
        form = Form(head, self._tokenizer, logprobs=False)
        if asked.stream:
            parts = finished(form, piece, usage if asked.usage else None)
            return EventStream(parts, decision.headers)
        return _response(form.whole([piece], usage), 200, decision.headers)

    def _guarded(
        self, handler: Callable[[Any], Coroutine[Any, Any, Any]]
    ) -> Callable[[Any], Coroutine[Any, Any, Any]]:
        """The handler behind the key, its errors in OpenAI's form."""

        async def guarded(request: Any) -> Any:
            try:
                self._check_key(request.headers.get("authorization", ""))
                return await handler(request)
            except RequestError as error:
                return _refused(error)
            except BusyError as error:
                body = error_body(str(error), kind="server_error", code="overloaded")
                return _response(body, 503, {"retry-after": _RETRY_AFTER})
            except ClientGoneError:
                return _response({}, _CLIENT_GONE)
            except Exception:
                _LOG.exception("a request failed")
                return _response(fault_body(), 500)

        return guarded

    def _check_key(self, sent: str) -> None:
        if self._key is None:
            return
        scheme, _, key = sent.partition(" ")
        digest = hashlib.sha256(key.strip().encode()).digest()
        if scheme.lower() != "bearer" or not hmac.compare_digest(digest, self._key):
            raise RequestError(
                "api key: expected the server's key as a bearer token, got another or "
                "none",
                code="invalid_api_key",
                status=401,
            )


async def _body(request: Any) -> Any:
    requests = require("starlette.requests", extra="serve")
    whole = bytearray()
    try:
        async for part in request.stream():
            whole += part
            if len(whole) > _MOST_BYTES:
                raise RequestError(
                    f"body: expected at most {_MOST_BYTES} bytes, got more",
                    code="request_too_large",
                    status=413,
                )
    except requests.ClientDisconnect as error:
        raise ClientGoneError("the client left before its request was whole") from error
    try:
        return parse_json(bytes(whole), "body")
    except ValueError as error:
        raise RequestError(str(error), code="invalid_json") from error


async def _no_such_path(request: Any, error: Any) -> Any:
    message = (
        f"{request.method} {request.url.path}: expected GET /v1/models, GET /health, "
        "POST /v1/chat/completions or POST /v1/completions"
    )
    return _refused(RequestError(message, code="not_found", status=error.status_code))


def _refused(error: RequestError) -> Any:
    kind = "invalid_request_error"
    body = error_body(str(error), kind=kind, code=error.code, param=error.param)
    return _response(body, error.status)


def _response(
    body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> Any:
    responses = require("starlette.responses", extra="serve")
    return responses.JSONResponse(body, status, headers)
