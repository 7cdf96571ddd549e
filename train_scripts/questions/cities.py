"""City-to-country questions: real questions with a natural scale of difficulty.

The questions are about 34,006 cities of GeoNames, largest first. A small language model
knows the country of most large cities and of few small ones.
"""

from pathlib import Path
from typing import Any, NamedTuple

from jeff import assets, files

__all__ = ["City", "load", "question", "shots"]


class City(NamedTuple):
    """A city.

    Attributes:
      name: name of the city; no larger city has the same name.
      country: name of the country.
      population: number of inhabitants.
      continent: two-letter code such as "EU"; empty if the file of countries has none.
    """

    name: str
    country: str
    population: int
    continent: str = ""


def load(
    cities: str | Path | None = None, countries: str | Path | None = None
) -> list[City]:
    """Read the cities.

    Args:
      cities: file of the cities; the asset by default.
      countries: file of the countries; the asset by default.

    Returns:
      The cities, largest first. Of several cities with one name, only the largest.

    Raises:
      FileNotFoundError: if the files are missing; says how to get them.
      ValueError: if a file is not as expected.
    """
    path, other = cities or assets.find("cities"), countries or assets.find("countries")
    rows, lands = _read(path), _read(other)
    names = {
        code: _field(row, "name", str, f"{other}: {code}")
        for code, row in lands.items()
    }
    found: dict[str, City] = {}
    for code, row in rows.items():
        where = f"{path}: {code}"
        name, people = (
            _field(row, "name", str, where),
            _field(row, "population", int, where),
        )
        country = _field(row, "countrycode", str, where)
        if country not in names:
            raise ValueError(
                f"{where}: expected a countrycode of {other}, got {country!r}; "
                "bring both files from one release"
            )
        if name not in found or people > found[name].population:
            continent = lands[country].get("continentcode", "")
            found[name] = City(name, names[country], people, continent)
    return sorted(found.values(), key=lambda city: (-city.population, city.name))


def question(city: City) -> str:
    r"""The question, up to the space that begins the answer.

    Args:
      city: the city.

    Returns:
      The text, two lines.

    >>> question(City("Paris", "France", 2_138_551))
    'City: Paris\nCountry:'
    """
    return f"City: {city.name}\nCountry:"


def shots(examples: list[City]) -> str:
    """Few-shot examples: questions with their answers.

    Args:
      examples: the cities.

    Returns:
      The text.
    """
    return "".join(f"{question(city)} {city.country}\n\n" for city in examples)


def _read(path: str | Path) -> dict[str, Any]:
    rows = files.read_json(path)
    if not isinstance(rows, dict) or not rows:
        raise ValueError(f"{path}: expected an object of rows by code")
    return rows


def _field(row: Any, name: str, kind: type, where: str) -> Any:
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, kind):
        raise ValueError(f"{where}: {name}: expected {kind.__name__}, got {value!r}")
    return value
