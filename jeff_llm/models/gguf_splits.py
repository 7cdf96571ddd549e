"""How byte-level tokenizers of GGUF files cut a text, by ``tokenizer.ggml.pre``.

The rules are those of the published ``tokenizer.json`` files. Names are llama.cpp's,
which has several for one rule; a name that is not here is refused, since other rules
would give other tokens without a word.
"""

from typing import Any, NamedTuple

__all__ = ["SPLITS", "Split", "add_split"]

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Split(NamedTuple):
    """How a byte-level tokenizer cuts a text before it merges.

    Attributes:
      patterns: applied one after the other; what they match stands alone.
      composed: the text is normalised to NFC before.
      whole: a word that is a token is kept whole, whatever its merges are.
      begins: texts begin with the BOS token, unless the file says otherwise.
    """

    patterns: tuple[str, ...]
    composed: bool = False
    whole: bool = False
    begins: bool = False


_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_QWEN2 = _WORDS.replace("DIGITS", "")
_LLAMA3 = _WORDS.replace("DIGITS", "{1,3}")
# Mistral's tekken: a word begins with a capital, or is all of them.
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DEFAULT = Split((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))
_DEEPSEEK_CODER = Split(
    (
        *(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+"),
        *("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", r"\p{N}"),
    )
)
_LLAMA3_WHOLE = Split((_LLAMA3,), whole=True, begins=True)
_DIGITS = Split((r"\p{N}", _GPT2))
# Names that llama.cpp's converter gives the rules of the published tokenizers.
SPLITS = {
    "default": _DEFAULT,
    "gpt-2": Split((_GPT2,)),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3"), _LLAMA3_WHOLE),
    **dict.fromkeys(("pixtral", "midm-2.0"), _LLAMA3_WHOLE),
    "smaug-bpe": Split((_LLAMA3,)),
    **dict.fromkeys(
        ("qwen2", "deepseek-r1-qwen", "megrez"), Split((_QWEN2,), composed=True)
    ),
    **dict.fromkeys(("smollm", "minerva-7b"), _DIGITS),
    "tekken": Split((_TEKKEN,), whole=True, begins=True),
    "deepseek-coder": _DEEPSEEK_CODER,
}


def add_split(backend: Any, split: Split) -> None:
    """Give a tokenizer the rules.

    Args:
      backend: a `tokenizers.Tokenizer`; it is changed.
      split: the rules.
    """
    from tokenizers import Regex, normalizers
    from tokenizers.pre_tokenizers import ByteLevel, Sequence
    from tokenizers.pre_tokenizers import Split as Cut

    if split.composed:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = Sequence(
        [
            *(Cut(Regex(pattern), "isolated") for pattern in split.patterns),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
