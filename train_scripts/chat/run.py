"""Chat with a language model: ``python -m train_scripts.chat``.

With ``--prompt`` the script answers once; without it, it holds a conversation. Answers
are streamed. ``/new`` starts a new conversation; ``/quit`` or end of file exits.
"""

import sys
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from configs.chat import Config
from jeff_llm import generate
from jeff_llm.models import adapters, weights
from jeff_llm.models.language_model import LanguageModel
from train_scripts.cli import MENDABLE
from train_scripts.running.caches import cache_of
from train_scripts.running.launch import use_compilation_cache

__all__ = ["answer", "begin", "main", "talk"]

Messages = list[dict[str, str]]

# Tokens that a conversation has room for at first.
_ROOM = 1024


def main() -> int:
    """Run the command line.

    Returns:
      Exit status: 0 on success, 1 on failure.
    """
    import tyro

    try:
        config = tyro.cli(Config, prog="python -m train_scripts.chat")
        use_compilation_cache()
        model = load(config)
        if config.prompt:
            session = begin(model, config)
            for piece in answer(session, _opening(config, config.prompt), config):
                print(piece, end="", flush=True)
            print()
            return 0
        talk(model, config, input)
    except MENDABLE as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
    return 0


def load(config: Config) -> LanguageModel:
    """Load the model and merge its adapters, if any.

    Args:
      config: names the model and the adapters.

    Returns:
      The model.

    Raises:
      ValueError: if the model has no chat template.
    """
    model = weights.load(
        config.model, dtype=jnp.dtype(config.dtype), packed=config.packed
    )
    if model.tokenizer is None or model.tokenizer.chat_template is None:
        raise ValueError(
            f"model: expected one with a chat template, {config.model} has none; take "
            "an instruction-tuned model"
        )
    if config.adapters:
        model = adapters.merged(model, config.adapters)
    return model


def begin(model: LanguageModel, config: Config, capacity: int = 0) -> generate.Session:
    """An empty conversation, with the cache that the configuration names.

    Args:
      model: the model.
      config: settings of the cache.
      capacity: tokens to make room for.

    Returns:
      The session.
    """
    return generate.Session(
        model, capacity=capacity, make_cache=cache_of(config.kv, model.config)
    )


def answer(
    session: generate.Session, messages: Messages, config: Config, turn: int = 0
) -> Iterator[str]:
    """Stream the answer to a conversation; only what a turn adds is read.

    Args:
      session: the model, and what it has read.
      messages: the conversation; the last message is the user's.
      config: settings of the sampling.
      turn: number of the answer, so that each answer is sampled with a different key.

    Yields:
      Pieces of text.
    """
    tokenizer = session.model.tokenizer
    assert tokenizer is not None  # a session has one
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    # The template has already added the special tokens. Greedy decoding needs no top_p.
    yield from session.stream(
        tokenizer.encode(text, add_special_tokens=False),
        max_new_tokens=config.max_tokens,
        sampling=generate.Sampling(
            config.temperature, top_p=config.top_p if config.temperature else None
        ),
        key=jax.random.fold_in(jax.random.key(config.seed), turn),
    )


def talk(model: LanguageModel, config: Config, read: Callable[[str], str]) -> None:
    """Hold a conversation until the user ends it.

    Args:
      model: the model.
      config: settings of the sampling.
      read: ``prompt -> line``, as `input`.
    """
    print(f"{model.name}. /new begins again, /quit ends.")
    messages, session = _opening(config), begin(model, config, _ROOM)
    turn = 0
    while True:
        try:
            line = read("> ").strip()
        except EOFError:
            print()
            return
        if line == "/quit":
            return
        if line == "/new":
            messages = _opening(config)
        if not line or line == "/new":
            continue
        messages.append({"role": "user", "content": line})
        said = []
        try:
            for piece in answer(session, messages, config, turn):
                print(piece, end="", flush=True)
                said.append(piece)
            print()
        except ValueError as error:  # the conversation no longer fits the context
            print(f"error: {error}\n/new begins again.", file=sys.stderr)
        messages.append({"role": "assistant", "content": "".join(said)})
        turn += 1


def _opening(config: Config, prompt: str = "") -> Messages:
    messages = [{"role": "system", "content": config.system}] if config.system else []
    return messages + ([{"role": "user", "content": prompt}] if prompt else [])
