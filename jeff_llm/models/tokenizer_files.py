"""The files of a tokenizer, as transformers writes and reads them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jeff import files

__all__ = ["TokenizerFiles", "read_tokenizer_files", "write_tokenizer_files"]

_ROLES = tuple(
    f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
)
_TOKENIZER, _CONFIG = "tokenizer.json", "tokenizer_config.json"
# A text that no vocabulary of words holds whole.
_SAMPLE = " A word, 12 \u00e9\n"
_SPECIAL, _TEMPLATE = "special_tokens_map.json", "chat_template.jinja"
_MORE_TEMPLATES = "additional_chat_templates"


class TokenizerFiles(NamedTuple):
    """Content of a tokenizer's files.

    Attributes:
      backend: a `tokenizers.Tokenizer`.
      special: tokens by role, such as ``eos_token``.
      chat_template: source of the template, or None.
      named_templates: sources of further templates by name.
    """

    backend: Any
    special: dict[str, str]
    chat_template: str | None
    named_templates: dict[str, str]


def read_tokenizer_files(path: str | Path) -> TokenizerFiles:
    """Read a tokenizer's files.

    Args:
      path: a directory with ``tokenizer.json`` and perhaps ``tokenizer_config.json``,
        ``special_tokens_map.json``, ``chat_template.jinja`` and
        ``additional_chat_templates``; or a ``tokenizer.json``, in whose directory the
        others are looked for.

    Returns:
      Their content.

    Raises:
      FileNotFoundError: if there is no ``tokenizer.json``.
      ValueError: if a file cannot be read; names it.
    """
    path = Path(path)
    file = path / _TOKENIZER if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: expected a tokenizer in the format of the tokenizers library, "
            "found none; older formats (vocab.txt, tokenizer.model) are converted by "
            "transformers' save_pretrained"
        )
    config = _read_json(file.parent / _CONFIG)
    special = _read_json(file.parent / _SPECIAL) | config
    tokens = {role: _content(file, role, special.get(role)) for role in _ROLES}
    return TokenizerFiles(
        _read_backend(file),
        {role: token for role, token in tokens.items() if token is not None},
        *_read_templates(file.parent, config),
    )


def write_tokenizer_files(directory: str | Path, content: TokenizerFiles) -> None:
    """Write a tokenizer; each file appears when it is complete.

    Args:
      directory: where to write; created if missing.
      content: what to write. Older templates are removed.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    # The one class of transformers that takes tokenizer.json unchanged.
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **content.special}
    files.write_text(directory / _TOKENIZER, content.backend.to_str(pretty=True))
    files.write_text(directory / _CONFIG, json.dumps(config, indent=2) + "\n")
    if content.chat_template is None:
        (directory / _TEMPLATE).unlink(missing_ok=True)
    else:
        files.write_text(directory / _TEMPLATE, content.chat_template)
    folder = directory / _MORE_TEMPLATES
    for old in folder.glob("*.jinja"):
        old.unlink()
    for name, template in content.named_templates.items():
        folder.mkdir(exist_ok=True)
        files.write_text(folder / f"{name}.jinja", template)


def _read_backend(file: Path) -> Any:
    from tokenizers import Tokenizer

    source = files.read_text(file, "a tokenizer of the tokenizers library")
    # Strict first: the library itself takes the last of two values of a key.
    files.parse_json(source, str(file))
    advice = "the file is damaged, or written by a newer release: update tokenizers"
    with files.reading(file, "a tokenizer", advice=advice):
        try:
            # The library raises Exception itself, or panics.
            backend = Tokenizer.from_str(source)
            _try(backend)
        except Exception as error:
            raise ValueError(
                f"{file}: expected a tokenizer of the tokenizers library, but {error}; "
                f"{advice}"
            ) from error
    return backend


def _try(backend: Any) -> None:
    """Use each part once: some faults show only when a text is cut into tokens."""
    ids = backend.encode_batch_fast([_SAMPLE], add_special_tokens=True)[0].ids
    if not isinstance(backend.decode(ids), str) or not backend.get_vocab():
        raise ValueError("it has no tokens")


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    content = files.parse_json(files.read_bytes(file), str(file))
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected an object, got {content!r:.100}")
    return content


def _content(file: Path, role: str, token: Any) -> str | None:
    """A token, which may be described by a dictionary."""
    content = token.get("content") if isinstance(token, Mapping) else token
    if not isinstance(content, str | None):
        raise ValueError(
            f"{file.parent}: {role} in {_CONFIG} or {_SPECIAL}: expected a text, got "
            f"{content!r:.100}"
        )
    return content


def _read_templates(
    folder: Path, config: dict[str, Any]
) -> tuple[str | None, dict[str, str]]:
    """The default template and the named ones; files count before the configuration."""
    named = {
        file.stem: files.read_text(file, "a chat template in UTF-8")
        for file in sorted((folder / _MORE_TEMPLATES).glob("*.jinja"))
    }
    if (folder / _TEMPLATE).is_file():
        named["default"] = files.read_text(folder / _TEMPLATE, "a template in UTF-8")
    named = named or _listed(folder / _CONFIG, config.get("chat_template"))
    return named.pop("default", None), named


def _listed(file: Path, given: Any) -> dict[str, str]:
    """Templates of a configuration: one text, or a list of named ones."""
    if isinstance(given, str | None):
        return {} if given is None else {"default": given}
    named: dict[str, str] = {}
    for entry in given if isinstance(given, list) else [None]:
        pair = entry if isinstance(entry, dict) else {}
        name, template = str(pair.get("name", "")), pair.get("template")
        # The name becomes the name of a file when the tokenizer is saved.
        sound = name.replace("_", "").replace("-", "").isalnum()
        if not sound or not isinstance(template, str) or name in named:
            raise ValueError(
                f"{file}: chat_template: expected a text, or a list of templates with "
                f"name and template, each name once, got {given!r:.100}"
            )
        named[name] = template
    return named
