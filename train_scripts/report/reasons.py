"""The report's reasons: why each gene of a ranking stands where it does.

A script that ranks with reasons writes ``reasons.json`` next to its result. The report
shows one foldable table per case and gene; the shares of a gene add up to its score.
"""

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, TypeAdapter, model_validator

from train_scripts.running import schema
from train_scripts.running.schema import Text

__all__ = ["FILE_NAME", "read"]

FILE_NAME = "reasons.json"
# Contributions are rounded in the file, so their sum may miss the score by as much.
_TOLERANCE = 0.01


class _Strict(BaseModel):
    model_config = schema.STRICT


class _Line(_Strict):
    term: Text
    met: str
    common: str
    information: float | None
    contribution: float


class _Item(_Strict):
    rank: int = Field(ge=1)
    name: Text
    because: str
    score: float
    notes: list[Text]
    lines: list[_Line]

    @model_validator(mode="after")
    def _check(self) -> Self:
        total = sum(line.contribution for line in self.lines)
        if abs(total - self.score) > _TOLERANCE * (1 + len(self.lines)):
            raise ValueError(
                f"expected contributions that add up to the score {self.score:.2f} of "
                f"{self.name}, got {total:.2f}"
            )
        return self


class _Case(_Strict):
    name: Text
    summary: str
    items: list[_Item] = Field(min_length=1)


class _Reasons(_Strict):
    title: Text
    note: Text
    unit: Text
    cases: list[_Case] = Field(min_length=1)


_REASONS = TypeAdapter(_Reasons)


def read(path: Path) -> dict[str, Any]:
    """Read and check a ``reasons.json``.

    Args:
      path: the file.

    Returns:
      Its contents.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it does not match the schema, or the contributions of an item do
        not add up to its score; the message names file and field.
    """
    return schema.read(_REASONS, path).model_dump()
