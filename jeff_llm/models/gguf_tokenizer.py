"""A tokenizer from the key-value fields of a GGUF file.

Two kinds can be built exactly; others are refused. Byte-level BPE (``gpt2``) is split
by the rules that ``tokenizer.ggml.pre`` names (`jeff_llm.models.gguf_splits`).
SentencePiece BPE (``llama``) has scores instead of merges: every split of a piece into
two pieces is a merge, in the order of the scores.

GGUF does not specify how SentencePiece treats leading spaces. As in llama.cpp and in
SentencePiece itself, a space is put before every stretch of text between special
tokens, even if there is one already. transformers 5 does so once, and only if there is
none.
"""

import math
from collections.abc import Mapping
from typing import Any

from jeff_llm.models.fields import shown
from jeff_llm.models.gguf_splits import SPLITS, Split, add_split
from jeff_llm.models.known_fields import Known, check_known

__all__ = ["build_backend", "chat_templates", "end_tokens", "special_tokens"]

# Token types of llama.cpp.
_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_ROLES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
_PREFIX = "tokenizer.ggml."
_KNOWN = Known(
    applied=(
        *("model", "pre", "tokens", "token_type", "scores", "merges", "add_bos_token"),
        *("add_eos_token", "add_space_prefix", *_ROLES.values(), *_ENDS),
    ),
    neutral={
        **dict.fromkeys(("add_sep_token", "remove_extra_whitespaces"), (False,)),
        "precompiled_charsmap": ([], ""),
    },
    harmless={
        "roles that these models have no use for": (
            *("seperator_token_id", "mask_token_id", "cls_token_id"),
            *("fim_pre_token_id", "fim_suf_token_id", "fim_mid_token_id"),
            *("fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id"),
            *("prefix_token_id", "suffix_token_id", "middle_token_id"),
        ),
        "BERT's kinds of text": ("token_type_count",),
    },
)


def build_backend(metadata: Mapping[str, Any]) -> Any:
    """Build the `tokenizers.Tokenizer` of a GGUF file.

    Args:
      metadata: key-value fields, as `jeff_llm.models.tensors.open_gguf` reads them.

    Returns:
      The tokenizer; ids are the places in ``tokenizer.ggml.tokens``.

    Raises:
      ValueError: if the file has no tokenizer, one of a kind that cannot be built
        exactly, or one that contradicts itself.
    """
    own = {
        k.removeprefix(_PREFIX): v for k, v in metadata.items() if k.startswith(_PREFIX)
    }
    check_known(own, _KNOWN, prefix=_PREFIX)
    fields = _Fields(metadata)
    kind = fields.get("model")
    if kind == "gpt2":
        backend = _byte_level(fields)
    elif kind == "llama":
        backend = _sentencepiece(fields)
    else:
        raise ValueError(
            "tokenizer.ggml.model: expected 'gpt2' (byte-level BPE) or 'llama' "
            f"(SentencePiece), got {kind!r}; load the model from a directory with "
            "tokenizer.json instead"
        )
    _add_special(backend, fields)
    _add_template(backend, fields)
    return backend


def special_tokens(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The tokens that have a role, under transformers' names of the roles.

    Args:
      metadata: as in `build_backend`.

    Returns:
      Some of ``bos_token``, ``eos_token``, ``unk_token`` and ``pad_token``.

    Raises:
      ValueError: if an id lies outside the vocabulary.

    >>> fields = {"tokens": ["<s>", "a"], "bos_token_id": 0}
    >>> special_tokens({f"tokenizer.ggml.{k}": v for k, v in fields.items()})
    {'bos_token': '<s>'}
    """
    fields = _Fields(metadata)
    return {
        role: fields.token(key)
        for role, key in _ROLES.items()
        if fields.get(key) is not None
    }


def end_tokens(metadata: Mapping[str, Any]) -> tuple[int, ...]:
    """Tokens that end an answer or a turn.

    Args:
      metadata: as in `build_backend`.

    Returns:
      Their ids, each once.

    Raises:
      ValueError: as in `special_tokens`.
    """
    fields = _Fields(metadata)
    named = [fields.token(key) for key in _ENDS if fields.get(key) is not None]
    return tuple(dict.fromkeys(fields.vocab[token] for token in named))


def chat_templates(metadata: Mapping[str, Any]) -> tuple[str | None, dict[str, str]]:
    """The chat template, and further ones by name.

    Args:
      metadata: as in `build_backend`.

    Returns:
      ``(default or None, the others)``.

    Raises:
      ValueError: if one is no text.
    """
    stem, found = "tokenizer.chat_template", {}
    for key, value in metadata.items():
        if key == stem or key.startswith(f"{stem}."):
            if not isinstance(value, str):
                raise ValueError(f"{key}: expected a text, got {shown(value)}")
            found[key.removeprefix(stem).removeprefix(".")] = value
    default = found.pop("", found.pop("default", None))
    return default, found


class _Fields:
    """The fields below ``tokenizer.ggml``, checked."""

    def __init__(self, metadata: Mapping[str, Any]):
        self._metadata = metadata
        self.tokens: list[str] = self.texts("tokens")
        self.types: list[int] = self.get("token_type") or [1] * len(self.tokens)
        self.vocab = {token: number for number, token in enumerate(self.tokens)}
        if not isinstance(self.types, list):
            raise self.error("token_type", "a list of numbers", self.types)
        if len(self.types) != len(self.tokens):
            raise self.error("token_type", f"{len(self.tokens)} types", len(self.types))
        if len(self.vocab) != len(self.tokens):
            raise self.error("tokens", "no token twice", f"{len(self.vocab)} different")

    def error(self, key: str, expected: str, got: Any) -> ValueError:
        return ValueError(
            f"tokenizer.ggml.{key}: expected {expected}, got {got!r:.100}; load the "
            "model from a directory with tokenizer.json, or get the file again"
        )

    def get(self, key: str, default: Any = None) -> Any:
        return self._metadata.get(f"tokenizer.ggml.{key}", default)

    def texts(self, key: str) -> list[str]:
        found = self.get(key)
        if not isinstance(found, list) or not all(isinstance(x, str) for x in found):
            raise self.error(key, "a list of texts", found)
        return found

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "true or false", value)
        return value

    def token(self, key: str) -> str:
        number = self.get(key)
        if type(number) is not int or not 0 <= number < len(self.tokens):
            raise self.error(key, f"a number below {len(self.tokens)}", number)
        return self.tokens[number]

    def of_type(self, *types: int) -> list[str]:
        pairs = zip(self.tokens, self.types, strict=True)
        return [token for token, kind in pairs if kind in types]


def _byte_level(fields: _Fields) -> Any:
    from tokenizers import Tokenizer, decoders, models

    split = _split(fields)
    if fields.flag("add_space_prefix", False):
        raise fields.error("add_space_prefix", "false for byte-level BPE", True)
    merges = []
    for merge in fields.texts("merges"):
        left, space, right = merge.partition(" ")
        if not (left and space and right) or " " in right:
            raise fields.error("merges", "two tokens and a space between them", merge)
        merges.append((left, right))
    try:
        model = models.BPE(fields.vocab, merges, ignore_merges=split.whole)
    except Exception as error:
        raise fields.error("merges", "merges of tokens", str(error)) from error
    backend = Tokenizer(model)
    backend.decoder = decoders.ByteLevel()
    add_split(backend, split)
    return backend


def _split(fields: _Fields) -> Split:
    # A file without the field is older than it; llama.cpp has one rule for them.
    pre = fields.get("pre", "default")
    if not isinstance(pre, str) or pre not in SPLITS:
        raise fields.error("pre", f"one of {', '.join(sorted(SPLITS))}", pre)
    return SPLITS[pre]


def _sentencepiece(fields: _Fields) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers

    model = models.BPE(
        fields.vocab,
        _scored_merges(fields),
        unk_token=fields.token("unknown_token_id"),
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = Tokenizer(model)
    escape = normalizers.Replace(" ", _SPACE)
    undo = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if fields.flag("add_space_prefix", True):
        escape = normalizers.Sequence([normalizers.Prepend(_SPACE), escape])
        # The space that was put before the text is taken off again.
        undo.append(decoders.Strip(" ", 1, 0))
    backend.normalizer = escape
    backend.decoder = decoders.Sequence(undo)
    return backend


def _scored_merges(fields: _Fields) -> list[tuple[str, str]]:
    """The merges that make each piece, best piece first, longest left part first."""
    scores = fields.get("scores")
    if (
        not isinstance(scores, list)
        or len(scores) != len(fields.tokens)
        or not all(isinstance(s, int | float) and not math.isnan(s) for s in scores)
    ):
        raise fields.error("scores", f"{len(fields.tokens)} numbers", scores)
    excluded = set(fields.of_type(_UNKNOWN, _CONTROL, _BYTE))
    pieces = {t: s for t, s in zip(fields.tokens, scores, strict=True)}
    pieces = {t: s for t, s in pieces.items() if t not in excluded}
    if spaced := [piece for piece in pieces if " " in piece]:
        # Gemma's vocabulary; its scores are not in the order of its merges either.
        raise fields.error("tokens", f"{_SPACE} for a space in each piece", spaced[0])
    return [
        (piece[:cut], piece[cut:])
        for piece in sorted(pieces, key=lambda piece: -pieces[piece])
        for cut in range(len(piece) - 1, 0, -1)
        if piece[:cut] in pieces and piece[cut:] in pieces
    ]


def _add_special(backend: Any, fields: _Fields) -> None:
    from tokenizers import AddedToken

    for kinds, special in (((_CONTROL, _UNKNOWN), True), ((_USER_DEFINED,), False)):
        tokens = [
            AddedToken(token, special=special, normalized=False)
            for token in fields.of_type(*kinds)
        ]
        (backend.add_special_tokens if special else backend.add_tokens)(tokens)


def _add_template(backend: Any, fields: _Fields) -> None:
    """Add the special tokens before and after a text."""
    from tokenizers.processors import TemplateProcessing

    # llama.cpp's defaults where the file has no field.
    default = fields.get("model") == "llama" or _split(fields).begins
    before, behind = [], []
    if fields.flag("add_bos_token", default):
        before = [fields.token("bos_token_id")]
    if fields.flag("add_eos_token", False):
        behind = [fields.token("eos_token_id")]
    if before or behind:
        backend.post_processor = TemplateProcessing(
            single=[*before, "$A", *behind],
            pair=[*before, "$A", *behind, *before, "$B", *behind],
            special_tokens=[(token, fields.vocab[token]) for token in before + behind],
        )
