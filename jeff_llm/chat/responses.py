"""Receive what an endpoint sends: a limit on its size, no redirects, no keys in texts.

The `openai` client reads a body whole, also that of an error, decompresses it at any
ratio, and follows redirects. `bounded_client` is its own HTTP client with three
changes: no redirect is followed, only gzip and deflate are decompressed, and the bytes
are counted while they are.
"""

import email.utils
import functools
import math
import re
import time
import urllib.parse
import zlib
from collections.abc import AsyncIterable
from datetime import UTC
from typing import Any

__all__ = [
    "ResponseRefusedError",
    "bounded_client",
    "redirect_target",
    "retry_after",
    "secret_pattern",
]

_SKIPPED = ("content-encoding", "content-length", "transfer-encoding")
_AUTOMATIC = 47  # wbits of zlib for a header of gzip or of zlib


class ResponseRefusedError(Exception):
    """Raised when a body is too long, is damaged, or is compressed in another way.

    Attributes:
      retry: whether the next attempt may bring another body.
    """

    retry: bool

    def __init__(self, cause: str, *, retry: bool = False):
        """Create the error.

        Args:
          cause: what was expected and what came.
          retry: whether the next attempt may bring another body.
        """
        super().__init__(cause)
        self.retry = retry


def bounded_client(base: Any, max_bytes: int) -> Any:
    """Create an HTTP client that follows no redirect and reads bodies up to a limit.

    Args:
      base: the client's class, ``openai.DefaultAsyncHttpxClient``.
      max_bytes: most bytes of a body, both as sent and decompressed.

    Returns:
      The client. Reading raises a `ResponseRefusedError`.
    """
    return _client_class(base)(max_bytes)


@functools.cache
def _client_class(base: Any) -> Any:
    class Bounded(base):
        def __init__(self, max_bytes: int):
            super().__init__(follow_redirects=False, timeout=None)
            self.max_bytes = max_bytes

        async def send(self, request: Any, **options: Any) -> Any:
            request.headers["accept-encoding"] = "gzip"
            options |= {"stream": True, "follow_redirects": False}
            response = await super().send(request, **options)
            try:
                coding = response.headers.get("content-encoding", "identity")
                body = await _read(response.aiter_raw(), coding, self.max_bytes)
            finally:
                await response.aclose()
            headers = [
                (name, value)
                for name, value in response.headers.raw
                if name.decode("latin-1").lower() not in _SKIPPED
            ]
            whole = type(response)(
                response.status_code,
                headers=headers,
                content=body,
                request=request,
                extensions=response.extensions,
            )
            # Not what the header says: it may name any codec of Python, also one that
            # decompresses. JSON is in UTF-8.
            whole.encoding = "utf-8"
            return whole

    return Bounded


async def _read(chunks: AsyncIterable[bytes], coding: str, max_bytes: int) -> bytes:
    """Read a body, decompressed, and stop before it is longer than the limit."""
    coding = coding.strip().lower()
    if coding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise ResponseRefusedError(
            f"expected a body of gzip, deflate or no compression, came {coding!r:.40}"
        )
    unpack = None
    if coding not in ("", "identity"):
        unpack = zlib.decompressobj(_AUTOMATIC)
    parts, sent, size = [], 0, 0
    async for chunk in chunks:
        sent += len(chunk)
        # One byte more than may come, so that a longer body is noticed.
        room = max_bytes - size + 1
        part = chunk if unpack is None else _unpacked(unpack, chunk, room)
        size += len(part)
        if max(size, sent) > max_bytes:
            raise ResponseRefusedError(
                f"expected a body of at most max_bytes={max_bytes:,} bytes, came more; "
                "raise max_bytes if answers of this endpoint are so long"
            )
        parts.append(part)
    return b"".join(parts)


def _unpacked(unpack: Any, chunk: bytes, most: int) -> bytes:
    try:
        return unpack.decompress(chunk, most)
    except zlib.error as error:
        raise ResponseRefusedError(
            f"expected a compressed body, came a damaged one ({error})", retry=True
        ) from None


def redirect_target(location: str) -> str:
    """Name the host of a redirect, without path, query and password.

    Args:
      location: the header of the response.

    Returns:
      Scheme, host and port; or words if the header names no host.

    >>> redirect_target("https://me:secret@other.example/v1?key=secret")
    'https://other.example'
    """
    try:
        parts = urllib.parse.urlsplit(location)
        if not parts.hostname:
            return "another address of the same host"
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return "an address that is none"
    return f"{parts.scheme or 'http'}://{parts.hostname}{port}"


def retry_after(header: str) -> float:
    """Read a ``Retry-After`` header, which holds a number or a date.

    Args:
      header: the header of the response.

    Returns:
      Seconds to wait; 0 if it says nothing.

    >>> retry_after("1.5"), retry_after("soon")
    (1.5, 0.0)
    """
    try:
        seconds = float(header)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(header)
            zone = moment.tzinfo or UTC
            seconds = moment.replace(tzinfo=zone).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0


def secret_pattern(secret: str) -> re.Pattern[str]:
    r"""Compile a pattern that finds a secret, also with its characters escaped.

    Servers echo a key as it is, or inside JSON, a URL or HTML, and in a host's name
    without its capitals.

    Args:
      secret: the key.

    Returns:
      The pattern.

    >>> secret_pattern("a/b+").sub("***", r"a/b+ a\/b\u002B a%2Fb%2b a&#47;b&#x2B;")
    '*** *** *** ***'
    """
    return re.compile("".join(map(_written, secret)), re.IGNORECASE)


def _written(character: str) -> str:
    number = ord(character)
    code = f"{number:02x}"
    return (
        rf"(?:\\{{0,4}}{re.escape(character)}|\\{{1,4}}u00{code}|%(?:25)?{code}"
        rf"|&#(?:0{{0,6}}{number}|x0{{0,6}}{code});)"
    )
