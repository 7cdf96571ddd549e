"""Text to token ids and back, on the `tokenizers` library.

One class for all sources: a directory as transformers writes it, or the fields of a
GGUF file. Tokenizers are immutable: `Tokenizer.with_tokens` returns another one.
"""

import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

from jeff_llm.models.chat_template import render_chat_template, render_unfinished
from jeff_llm.models.gguf_tokenizer import (
    build_backend,
    chat_templates,
    special_tokens,
)
from jeff_llm.models.token_stream import TokenStream
from jeff_llm.models.tokenizer_files import (
    TokenizerFiles,
    read_tokenizer_files,
    write_tokenizer_files,
)

__all__ = ["Tokenizer", "from_directory", "from_gguf"]

# Tokens that end a turn; a model's own end-of-sequence token may be another.
_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>")
# Options of transformers' method that concern what follows the text.
_TOKENIZING = (
    *("tokenize", "padding", "truncation", "max_length", "return_tensors"),
    *("return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"),
)


class Tokenizer:
    """A vocabulary with its encoding, and the model's chat template.

    Attributes:
      vocab_size: all ids lie below it.
      bos_id: token that begins a text, or None.
      eos_id: token that ends a text, or None.
      pad_id: token for padding, or None.
      stop_ids: tokens that end an answer: ``eos_id``, then those that end a turn.
      base_size: ids of the vocabulary without added tokens lie below it.
      chat_template: source of the template, or None.
      named_templates: sources of further templates by name; ``tool_use`` serves
        conversations with tools.
    """

    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    pad_id: int | None
    stop_ids: tuple[int, ...]
    base_size: int
    chat_template: str | None
    named_templates: dict[str, str]

    def __init__(
        self,
        backend: Any,
        special: Mapping[str, str],
        chat_template: str | None = None,
        named_templates: Mapping[str, str] | None = None,
    ):
        """Wrap a tokenizer; `from_directory` and `from_gguf` make them from files.

        Args:
          backend: a `tokenizers.Tokenizer`, which is not used elsewhere any more.
          special: tokens by role: ``bos_token``, ``eos_token``, ``pad_token`` and so
            on. Chat templates see them under these names.
          chat_template: source of the template.
          named_templates: further templates by name.

        Raises:
          ValueError: if a token of a role is not in the vocabulary.
        """
        # Files may ask for both; they would change texts and lengths in silence.
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._special = dict(special)
        self.chat_template = chat_template
        self.named_templates = dict(named_templates or {})
        # Ids may have gaps, so the highest one counts.
        self.vocab_size = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        own = backend.get_vocab(with_added_tokens=False)
        self.base_size = 1 + max(own.values(), default=-1)
        ids = {role: backend.token_to_id(token) for role, token in special.items()}
        if absent := [role for role, number in ids.items() if number is None]:
            raise ValueError(
                f"special: {absent[0]}: expected a token of the vocabulary, got "
                f"{special[absent[0]]!r}"
            )
        self.bos_id, self.eos_id = ids.get("bos_token"), ids.get("eos_token")
        self.pad_id = ids.get("pad_token")
        ends = [self.eos_id, *map(backend.token_to_id, _END_OF_TURN)]
        self.stop_ids = tuple(dict.fromkeys(end for end in ends if end is not None))

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size}, special={self._special})"

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Cut a text into tokens.

        Args:
          text: the text; special tokens in it become their ids.
          add_special_tokens: add the special tokens that the model expects. Not for the
            text of a chat template, which has them already.

        Returns:
          The ids.

        Raises:
          TypeError: if ``text`` is not a text, or one that UTF-8 cannot express.
        """
        return self.encode_all([text], add_special_tokens)[0]

    def encode_all(
        self, texts: Sequence[str], add_special_tokens: bool = True
    ) -> list[list[int]]:
        """Cut many texts into tokens, in parallel.

        Args:
          texts: the texts.
          add_special_tokens: as in `encode`.

        Returns:
          The ids of each.

        Raises:
          TypeError: as in `encode`.
        """
        try:
            found = self._backend.encode_batch_fast(
                list(texts), add_special_tokens=add_special_tokens
            )
        except TypeError as error:
            raise TypeError(
                "text: expected Unicode text without lone surrogates, got "
                f"{next((t for t in texts if not _is_text(t)), texts)!r:.100}"
            ) from error
        return [encoding.ids for encoding in found]

    def decode(
        self, ids: Iterable[SupportsIndex], skip_special_tokens: bool = True
    ) -> str:
        """The text of tokens.

        Args:
          ids: the tokens.
          skip_special_tokens: leave special tokens out.

        Returns:
          The text, with U+FFFD in place of bytes that are no UTF-8.

        Raises:
          ValueError: if an id lies outside the vocabulary.
        """
        return self._backend.decode(
            self._checked(ids), skip_special_tokens=skip_special_tokens
        )

    def tokens(self, ids: Iterable[SupportsIndex]) -> list[str]:
        """Tokens in the vocabulary's spelling, to show them one by one.

        Args:
          ids: the tokens.

        Returns:
          The spelling of each; of byte-level vocabularies in their alphabet of bytes.

        Raises:
          ValueError: as in `decode`.
        """
        return [self._backend.id_to_token(number) for number in self._checked(ids)]

    def _checked(self, ids: Iterable[SupportsIndex]) -> list[int]:
        checked = [operator.index(number) for number in ids]
        for number in checked:
            if not 0 <= number < self.vocab_size:
                raise ValueError(
                    f"ids: expected numbers from 0 to {self.vocab_size - 1}, got "
                    f"{number}; a model may have more outputs than there are tokens: "
                    "mask them"
                )
        return checked

    def token_id(self, token: str) -> int:
        """The id of a token.

        Args:
          token: as the vocabulary spells it.

        Returns:
          The id.

        Raises:
          ValueError: if there is no such token.
        """
        found = self._backend.token_to_id(token)
        if found is None:
            raise ValueError(
                f"token: expected one of the {self.vocab_size} tokens of the "
                f"vocabulary, got {token!r}; `encode` cuts it into several"
            )
        return found

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        *,
        chat_template: str | None = None,
        continue_final_message: bool = False,
        **variables: Any,
    ) -> str:
        """Write a conversation as the model expects it.

        Args:
          messages: mappings with ``role`` and ``content``.
          add_generation_prompt: end with the beginning of the model's answer.
          chat_template: another template than the model's own, or the name of one of
            its `named_templates`.
          continue_final_message: end within the last message, so that the model goes
            on with it; needs ``add_generation_prompt=False``.
          **variables: other variables of the template, such as ``tools``.

        Returns:
          The text, special tokens included; encode it without adding them again.

        Raises:
          ValueError: if there is no template, or it fails; names its line.
        """
        for name in _TOKENIZING:
            if variables.pop(name, None):
                raise ValueError(
                    f"{name}: expected no such option, since this gives text; encode "
                    "it with encode(text, add_special_tokens=False)"
                )
        template = self._template(chat_template, variables.get("tools"))
        seen = self._special | variables
        seen["add_generation_prompt"] = add_generation_prompt
        if not continue_final_message:
            return render_chat_template(template, messages, seen)
        if add_generation_prompt:
            raise ValueError(
                "continue_final_message: expected add_generation_prompt=False beside "
                "it: the text ends within the last message, or begins a new one"
            )
        return render_unfinished(template, messages, seen)

    def _template(self, given: str | None, tools: Any) -> str:
        """The template for a conversation, chosen as transformers does."""
        if given is not None:
            return self.named_templates.get(given, given)
        if tools is not None and "tool_use" in self.named_templates:
            return self.named_templates["tool_use"]
        if self.chat_template is not None:
            return self.chat_template
        if self.named_templates:
            raise ValueError(
                "chat_template: expected a name, for this tokenizer has several "
                f"templates and no default; pass one of {sorted(self.named_templates)}"
            )
        raise ValueError(
            "chat_template: expected one, for this tokenizer has none (a base "
            "model?); pass chat_template=, or encode plain text"
        )

    def with_tokens(self, names: Sequence[str]) -> "Tokenizer":
        """A tokenizer that has more special tokens.

        Args:
          names: the new tokens.

        Returns:
          A tokenizer in which they have the ids from ``vocab_size`` on, in this order;
          all other ids are as before.

        Raises:
          ValueError: if a name is empty, there twice, or in the vocabulary already.
        """
        from tokenizers import AddedToken
        from tokenizers import Tokenizer as Backend

        for place, name in enumerate(names):
            known = self._backend.token_to_id(name) is not None
            if not name or name in names[:place] or known:
                raise ValueError(
                    f"names: expected new tokens, each once, got {name!r}; choose "
                    "another name"
                )
        # A copy: the backend of this tokenizer must not change.
        backend = Backend.from_str(self._backend.to_str())
        backend.add_special_tokens(
            [AddedToken(name, special=True, normalized=False) for name in names]
        )
        return Tokenizer(
            backend, self._special, self.chat_template, self.named_templates
        )

    def save(self, directory: str | Path) -> None:
        """Write the files that transformers and `from_directory` read.

        Args:
          directory: gets ``tokenizer.json``, ``tokenizer_config.json`` and, where there
            are templates, ``chat_template.jinja`` and ``additional_chat_templates``;
            created if missing.
        """
        files = TokenizerFiles(
            self._backend, self._special, self.chat_template, self.named_templates
        )
        write_tokenizer_files(directory, files)

    def stream(self) -> TokenStream:
        """Begin to decode tokens one at a time; special tokens are left out.

        Returns:
          A stream without tokens.
        """
        return TokenStream(self.decode)


def from_directory(path: str | Path) -> Tokenizer:
    """Read a tokenizer that transformers, or `Tokenizer.save`, wrote.

    Args:
      path: a directory with ``tokenizer.json`` and optionally
        ``tokenizer_config.json``, ``special_tokens_map.json`` and
        ``chat_template.jinja``; or a ``tokenizer.json`` with these beside it.

    Returns:
      The tokenizer.

    Raises:
      FileNotFoundError: if there is no ``tokenizer.json``.
      ValueError: if a file cannot be read; names it.
    """
    found = read_tokenizer_files(path)
    try:
        return Tokenizer(*found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """Build the tokenizer of a GGUF file.

    Args:
      metadata: the file's key-value fields, as `jeff_llm.models.tensors.open_gguf`
        reads them.

    Returns:
      The tokenizer.

    Raises:
      ValueError: if the file has none, or one of a kind that cannot be built exactly.
    """
    return Tokenizer(
        build_backend(metadata), special_tokens(metadata), *chat_templates(metadata)
    )


def _is_text(value: Any) -> bool:
    try:
        value.encode()
    except (AttributeError, UnicodeEncodeError):
        return False
    return True
