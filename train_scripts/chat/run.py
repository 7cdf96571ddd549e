"""Talk to a language model: ``python -m train_scripts.chat``.

With ``--prompt`` it answers once, otherwise it is a conversation; the answer appears as
it is written. ``/new`` forgets what was said, ``/quit`` (or end of file) ends.
"""

import sys
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from configs.chat import Config
from jeff_llm import generate
from jeff_llm.models import adapters, weights
from jeff_llm.models.language_model import LanguageModel
from train_scripts.cli import MENDABLE, use_compilation_cache

__all__ = ["answer", "main", "talk"]

Messages = list[dict[str, str]]


def main() -> int:
    """Run the command line.

    Returns:
      Exit status: 0 done, 1 failed.
    """
    import tyro

    try:
        config = tyro.cli(Config, prog="python -m train_scripts.chat")
        use_compilation_cache()
        model = load(config)
        if config.prompt:
            for piece in answer(model, _opening(config, config.prompt), config):
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
    """Load the model, with its adapters merged in.

    Args:
      config: which one.

    Returns:
      The model.

    Raises:
      ValueError: if it has no chat template.
    """
    model = weights.load(config.model, dtype=jnp.dtype(config.dtype))
    if model.tokenizer is None or model.tokenizer.chat_template is None:
        raise ValueError(
            f"model: expected one with a chat template, {config.model} has none; take "
            "an instruction-tuned model"
        )
    if config.adapters:
        model = adapters.merged(model, config.adapters)
    return model


def answer(
    model: LanguageModel, messages: Messages, config: Config, turn: int = 0
) -> Iterator[str]:
    """Stream the answer to a conversation.

    Args:
      model: the model.
      messages: the conversation, the user's words last.
      config: how tokens are drawn.
      turn: number of the answer, so that each is drawn with a key of its own.

    Yields:
      Pieces of text.
    """
    if model.tokenizer is None:
        raise ValueError("model: expected one with a tokenizer, got none")
    text = model.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    yield from generate.stream(
        model,
        model.tokenizer.encode(text, add_special_tokens=False),
        max_new_tokens=config.max_tokens,
        sampling=generate.Sampling(
            config.temperature, top_p=config.top_p if config.temperature else None
        ),
        key=jax.random.fold_in(jax.random.key(config.seed), turn),
    )


def talk(model: LanguageModel, config: Config, read: Callable[[str], str]) -> None:
    """Converse until the user has enough.

    Args:
      model: the model.
      config: how tokens are drawn.
      read: ``prompt -> line``, as `input`.
    """
    print(f"{model.name}. /new begins again, /quit ends.")
    messages = _opening(config)
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
            for piece in answer(model, messages, config, turn):
                print(piece, end="", flush=True)
                said.append(piece)
            print()
        except ValueError as error:  # the conversation has outgrown the context
            print(f"error: {error}\n/new begins again.", file=sys.stderr)
        messages.append({"role": "assistant", "content": "".join(said)})
        turn += 1


def _opening(config: Config, prompt: str = "") -> Messages:
    messages = [{"role": "system", "content": config.system}] if config.system else []
    return messages + ([{"role": "user", "content": prompt}] if prompt else [])
