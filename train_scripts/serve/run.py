"""Serve a language model as OpenAI does: ``python -m train_scripts.serve``.

With ``--router`` a small model answers what it is sure of, and the rest goes to a large
one. On SIGTERM or Ctrl-C the server refuses new requests with status 503, finishes its
answers and exits with status 0; a second signal ends it at once.
"""

import ipaddress
import os
import socket
import sys
import time
from typing import Any, NamedTuple

import jax.numpy as jnp

from configs.serve import Config
from jeff import files
from jeff.extras import require
from jeff_llm.chat import OpenAICompatible
from jeff_llm.confidence import Router, router_file, selfref
from jeff_llm.models import adapters, weights
from jeff_llm.models.language_model import LanguageModel
from jeff_llm.serving import Batcher
from train_scripts.cli import MENDABLE
from train_scripts.running.caches import cache_of
from train_scripts.running.launch import use_compilation_cache

__all__ = ["Served", "build", "main", "read_router"]

# Connections that wait to be accepted: more than any burst that is to be answered.
_BACKLOG = 2048


class Served(NamedTuple):
    """What a server is made of.

    Attributes:
      app: the ASGI application.
      batcher: decodes for it.
    """

    app: Any
    batcher: Batcher


def main() -> int:
    """Run the command line.

    Returns:
      Exit status: 0 after a signal, 1 on failure.
    """
    import tyro

    try:
        config = tyro.cli(Config, prog="python -m train_scripts.serve")
        require("uvicorn", extra="serve")
        use_compilation_cache()
        # First of all: loading a model for a port that is taken would be in vain.
        with _bind(config.host, config.port) as bound:
            served = build(config)
            if config.warm_up:
                _warm_up(served.batcher, config)
            _serve(served.app, bound)
    except MENDABLE as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def build(config: Config) -> Served:
    """Load the model and describe the server; nothing is opened yet.

    Args:
      config: settings of the server.

    Returns:
      Application and batcher.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if a file or a setting is not as expected.
    """
    from jeff_llm.serving.app import App
    from jeff_llm.serving.protocol import Limits

    router = read_router(config) if config.router else None
    key = _key(config)
    if not key and not _is_loopback(config.host):
        print(
            f"warning: {config.host} can be reached from other machines, and there is "
            "no --api-key-file: whoever reaches it may ask",
            file=sys.stderr,
        )
    model, tokens = _load(config)
    stop_ids = [*model.stop_ids, *(tokens or ())]
    batcher = Batcher(
        model,
        max_batch=config.max_batch,
        max_waiting=config.max_waiting,
        piece=config.piece,
        make_cache=cache_of(config.kv, model.config),
        stop_ids=stop_ids,
    )
    limits = Limits(
        config.name or config.model, config.max_tokens, max_rows=config.max_waiting
    )
    routing = None if router is None else _routing(config, router, model, tokens)
    app = App(model, batcher, limits=limits, api_key=key, routing=routing)
    return Served(app, batcher)


def read_router(config: Config) -> Router:
    """Read the chosen threshold.

    Args:
      config: names the file and the threshold.

    Returns:
      The router.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is none of routers, has none of this name, or its
        threshold is for another measure than the one chosen.
    """
    found = router_file.load(config.router)
    if config.policy not in found:
        raise ValueError(
            f"policy: expected one of {sorted(found)} in {config.router}, got "
            f"{config.policy!r}"
        )
    router = found[config.policy]
    if not router.measure:
        print(
            f"warning: {config.router} does not say what confidence its threshold is "
            f"for; taken to be {config.measure}",
            file=sys.stderr,
        )
    elif router.measure != config.measure:
        raise ValueError(
            f"measure: expected {router.measure!r}, which the threshold "
            f"{config.policy!r} of {config.router} was chosen with, got "
            f"{config.measure!r}; a guarantee for one is none for another"
        )
    return router


def _load(
    config: Config,
) -> tuple[LanguageModel, selfref.ConfidenceTokens | None]:
    model = weights.load(
        config.model, dtype=jnp.dtype(config.dtype), packed=config.packed
    )
    if config.measure == "selfref":
        return selfref.load(model, config.adapters)
    if config.adapters:
        model = adapters.merged(model, config.adapters)
    return model, None


def _routing(
    config: Config,
    router: Router,
    model: LanguageModel,
    tokens: selfref.ConfidenceTokens | None,
) -> Any:
    from jeff_llm.serving import measures
    from jeff_llm.serving.routed import Routing, TrafficLog

    if tokens is None:
        measure = measures.from_tokens(config.measure)
    else:
        measure = measures.with_confidence_tokens(model, tokens)
    large = OpenAICompatible(
        config.large,
        config.large_model,
        api_key=os.environ.get("OPENAI_API_KEY") or None,
        timeout=config.large_timeout,
        # A client waits: the small model's answer is better than a late one.
        retries=0,
    )
    log = TrafficLog(config.log, measure=config.measure) if config.log else None
    return Routing(router, measure, large, log=log)


def _key(config: Config) -> str:
    if not config.api_key_file:
        return config.api_key
    key = files.read_text(config.api_key_file, "a key").strip()
    if not key:
        raise ValueError(f"{config.api_key_file}: expected a key, got an empty file")
    return key


def _warm_up(batcher: Batcher, config: Config) -> None:
    began = time.perf_counter()
    print("compiling the programs of short prompts", flush=True)
    batcher.warm_up(max_tokens=config.max_tokens)
    print(f"compiled in {time.perf_counter() - began:.1f} s", flush=True)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Bound and not yet listening: until the model is there, clients are refused.
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise OSError(
            f"host, port: expected an address that is free, got {host}:{port} "
            f"({error.strerror or error}); choose another --port"
        ) from error
    return bound


def _serve(app: Any, bound: socket.socket) -> None:
    uvicorn = require("uvicorn", extra="serve")

    class Server(uvicorn.Server):
        """Finishes its answers before it ends; the second signal ends it at once."""

        signals = 0

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets=sockets)
            # Only now: whoever reads it may connect at once.
            host, port = bound.getsockname()[:2]
            print(f"listening at http://{_shown(host)}:{port}/v1", flush=True)

        def handle_exit(self, sig: int, frame: Any) -> None:
            # Not uvicorn's own: it would stop listening, and raise the signal again.
            self.signals += 1
            if self.signals > 1:
                self.force_exit = self.should_exit = True

        async def on_tick(self, counter: int) -> bool:
            if self.signals:
                app.close()
                self.should_exit = self.should_exit or app.idle
            return await super().on_tick(counter)

    config = uvicorn.Config(
        app, log_level="warning", lifespan="off", backlog=_BACKLOG, access_log=False
    )
    Server(config).run(sockets=[bound])


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may be any machine's
        return False


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
