"""JSON files of a run, checked by pydantic; errors name file, field and value."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError

from jeff import files

__all__ = ["STRICT", "Text", "check", "read"]

# No field too many, nothing converted, no NaN; an object is checked like a document.
STRICT = ConfigDict(
    extra="forbid", strict=True, allow_inf_nan=False, revalidate_instances="always"
)

Kind = TypeVar("Kind")


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("expected a text that is not empty")
    return text


Text = Annotated[str, AfterValidator(_not_blank)]


def check(kind: TypeAdapter[Kind], value: Any, path: Path) -> Kind:
    """Check an object before it is written.

    Args:
      kind: what it must be.
      value: the object.
      path: where it will go, for errors.

    Returns:
      The object.

    Raises:
      ValueError: naming each field that is wrong, what was expected and what came.
    """
    try:
        return kind.validate_python(value, strict=True)
    except ValidationError as error:
        raise _fault(error, path) from None


def read(kind: TypeAdapter[Kind], path: Path) -> Kind:
    """Read a JSON file of a kind.

    Args:
      kind: what it must hold.
      path: the file.

    Returns:
      Its contents.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: as `check`, or if it is not valid JSON.
    """
    document = files.read_json(path)
    try:
        return kind.validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        raise _fault(error, path) from None


def _fault(error: ValidationError, path: Path) -> ValueError:
    """Every field that is wrong: where it is, what was expected and what came."""
    found = []
    for each in error.errors(include_url=False):
        parts = each["loc"]
        if parts and parts[-1] == "[key]":
            parts = parts[:-2]  # the key came; its object is where
        place = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts
        ).lstrip(".")
        text = re.sub(r"^\w+ should (be |have |match )?", "expected ", each["msg"])
        text = text.replace("Field required", "expected this field, without it")
        text = re.sub(r"^(Unexpected keyword.*|Extra inputs.*)", "unknown field", text)
        text = text.removeprefix("Value error, ")
        came = repr(each["input"])
        came = came if len(came) <= 60 else came[:57] + "..."
        found.append(f"{place}: {text}, came {came}" if place else f"{text}, {came}")
    return ValueError(f"{path}: " + "; ".join(found[:5]))
