"""Check the JSON files of a run with pydantic; errors name file, field and value."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError

from jeff import files

__all__ = ["STRICT", "Text", "check", "read"]

# Reject extra fields, type conversion and NaN. An instance is validated again, so that
# writing is as strict as reading.
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
      kind: the expected type.
      value: the object.
      path: the file that it will be written to, for errors.

    Returns:
      The object.

    Raises:
      ValueError: if fields are wrong; gives the expected and actual value of each.
    """
    try:
        return kind.validate_python(value, strict=True)
    except ValidationError as error:
        raise _fault(error, path) from None


def read(kind: TypeAdapter[Kind], path: Path) -> Kind:
    """Read and check a JSON file.

    Args:
      kind: the expected type.
      path: the file.

    Returns:
      Its contents.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: as in `check`, or if the file is not valid JSON.
    """
    # read_json rejects duplicate keys, which pydantic's own JSON parser would accept.
    document = files.read_json(path)
    try:
        return kind.validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        raise _fault(error, path) from None


def _fault(error: ValidationError, path: Path) -> ValueError:
    """Build an error with position, expected and actual value of each wrong field."""
    found = []
    for each in error.errors(include_url=False):
        parts = each["loc"]
        if parts and parts[-1] == "[key]":
            parts = parts[:-2]  # the value shows the key, so name only its object
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
