"""Read GA4GH phenopackets, versions 1 and 2.

What a ranker may see, and what gives the answer away, are kept apart: `Packet.observed`
and `Packet.excluded` come from ``phenotypicFeatures`` alone. Keys may be written as in
JSON (``phenotypicFeatures``) or as in the schema (``phenotypic_features``). The
protobuf package of GA4GH is not used: it stops at the first field it does not know.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["Packet", "disease_id", "messages", "parse_packet"]

_PMID = re.compile(r"(?:PMID|pubmed\.ncbi\.nlm\.nih\.gov)[\s:_/-]*(\d+)", re.IGNORECASE)


class Packet(NamedTuple):
    """One phenopacket.

    Attributes:
      observed: ids, or labels where the id is missing, of features that are present.
      excluded: the same of features that were looked for and not found.
      genes: symbols of the causative genes; for the answer only.
      diseases: ids of the diagnosis; for the answer only.
      references: ``"PMID:..."`` of the papers that describe the case.
      sex: ``"female"``, ``"male"``, or None.
      age: ISO 8601 duration at the last encounter, or None.
      version: major version of the schema, 1 or 2.
    """

    observed: tuple[str, ...]
    excluded: tuple[str, ...]
    genes: tuple[str, ...]
    diseases: tuple[str, ...]
    references: frozenset[str]
    sex: str | None
    age: str | None
    version: int


def messages(value: Any) -> list[dict[str, Any]]:
    """Phenopackets of a message.

    Args:
      value: a phenopacket; a family, whose proband counts; or a cohort, whose members
        count.

    Returns:
      The phenopackets.

    Raises:
      ValueError: if the message is none of these.
    """
    message = _object(value, "phenopacket")
    if "proband" in message:
        return [_object(message["proband"], "proband")]
    if "members" in message:
        members = enumerate(_items(message, "members", "members"))
        return [_object(one, f"members[{number}]") for number, one in members]
    return [message]


def parse_packet(value: Any, *, source: str = "") -> Packet:
    """Read one phenopacket.

    Args:
      value: a phenopacket, as parsed from JSON.
      source: path of the file; it may name the paper that describes the case.

    Returns:
      Its features and, apart from them, the answer.

    Raises:
      ValueError: if a field has another type than the schema gives it; names the place.
    """
    packet = _object(value, "phenopacket")
    metadata = _object(_get(packet, "metaData"), "metaData")
    observed, excluded = _features(packet)
    return Packet(
        observed,
        excluded,
        _genes(packet),
        _diseases(packet),
        _references(packet, metadata, source),
        _sex(packet),
        _age(packet),
        _version(packet, metadata),
    )


def disease_id(text: str) -> str:
    """Write the id of a disease as HPO's annotations do.

    Args:
      text: an id such as ``"Orphanet:53"``, ``"omim:301310"`` or ``"MIM:301310"``.

    Returns:
      The id with its prefix in capitals, ``ORPHA`` for Orphanet and ``OMIM`` for MIM.

    >>> disease_id("Orphanet:53")
    'ORPHA:53'
    """
    prefix, colon, number = text.strip().partition(":")
    prefix = {"ORPHANET": "ORPHA", "MIM": "OMIM"}.get(prefix.upper(), prefix.upper())
    return f"{prefix}{colon}{number.strip()}"


def _features(packet: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found: dict[bool, list[str]] = {False: [], True: []}
    features = _items(packet, "phenotypicFeatures", "phenotypicFeatures")
    for number, item in enumerate(features):
        place = f"phenotypicFeatures[{number}]"
        feature = _object(item, place)
        kind = _object(feature.get("type"), f"{place}.type")
        # Version 1 says negated where version 2 says excluded.
        absent = any(
            _truth(feature, key, f"{place}.{key}") for key in ("excluded", "negated")
        )
        term = _text(kind, "id", f"{place}.type.id")
        found[absent].append(term or _text(kind, "label", f"{place}.type.label") or "")
    return tuple(found[False]), tuple(found[True])


def _genes(packet: dict[str, Any]) -> tuple[str, ...]:
    symbols: dict[str, None] = {}
    for place, diagnosis in _diagnoses(packet):
        key = "genomicInterpretations"
        for number, item in enumerate(_items(diagnosis, key, f"{place}.{key}")):
            inner = f"{place}.{key}[{number}]"
            one = _object(item, inner)
            status = _text(one, "interpretationStatus", f"{inner}.interpretationStatus")
            if status == "CAUSATIVE" and (symbol := _symbol(one, inner)):
                symbols[symbol] = None
    # Version 1 has no statuses; its genes are those that explain the case.
    if not symbols and "interpretations" not in packet:
        for number, item in enumerate(_items(packet, "genes", "genes")):
            gene = _object(item, f"genes[{number}]")
            if symbol := _text(gene, "symbol", f"genes[{number}].symbol"):
                symbols[symbol] = None
    return tuple(symbols)


def _symbol(interpretation: dict[str, Any], place: str) -> str | None:
    value, inner = interpretation, place
    if _get(value, "variantInterpretation") is not None:
        for key in ("variantInterpretation", "variationDescriptor", "geneContext"):
            inner = f"{inner}.{key}"
            value = _object(_get(value, key), inner)
    else:
        inner = f"{place}.gene"
        value = _object(_get(value, "gene"), inner)
    return _text(value, "symbol", f"{inner}.symbol")


def _diseases(packet: dict[str, Any]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for place, diagnosis in _diagnoses(packet):
        disease = _object(diagnosis.get("disease"), f"{place}.disease")
        if name := _text(disease, "id", f"{place}.disease.id"):
            found[disease_id(name)] = None
    if found:
        return tuple(found)
    for number, item in enumerate(_items(packet, "diseases", "diseases")):
        place = f"diseases[{number}]"
        disease = _object(item, place)
        term = _object(disease.get("term"), f"{place}.term")
        name = _text(term, "id", f"{place}.term.id")
        if name and not _truth(disease, "excluded", f"{place}.excluded"):
            found[disease_id(name)] = None
    return tuple(found)


def _diagnoses(packet: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, item in enumerate(_items(packet, "interpretations", "interpretations")):
        place = f"interpretations[{number}]"
        one = _object(item, place)
        yield f"{place}.diagnosis", _object(one.get("diagnosis"), f"{place}.diagnosis")


def _references(
    packet: dict[str, Any], metadata: dict[str, Any], source: str
) -> frozenset[str]:
    texts = [source, _text(packet, "id", "id") or ""]
    key = "externalReferences"
    for number, item in enumerate(_items(metadata, key, f"metaData.{key}")):
        place = f"metaData.{key}[{number}]"
        reference = _object(item, place)
        texts += [
            _text(reference, k, f"{place}.{k}") or "" for k in ("id", "reference")
        ]
    features = _items(packet, "phenotypicFeatures", "phenotypicFeatures")
    for number, item in enumerate(features):
        place = f"phenotypicFeatures[{number}].evidence"
        for evidence in _items(_object(item, place), "evidence", place):
            reference = _object(_object(evidence, place).get("reference"), place)
            texts.append(_text(reference, "id", f"{place}.reference.id") or "")
    return frozenset(
        f"PMID:{number}" for text in texts for number in _PMID.findall(text)
    )


def _sex(packet: dict[str, Any]) -> str | None:
    subject = _object(packet.get("subject"), "subject")
    sex = (_text(subject, "sex", "subject.sex") or "").lower()
    return sex if sex in {"female", "male"} else None


def _age(packet: dict[str, Any]) -> str | None:
    value = _object(packet.get("subject"), "subject")
    place = "subject"
    for key in ("timeAtLastEncounter", "age"):
        place = f"{place}.{key}"
        value = _object(_get(value, key), place)
    return _text(value, "iso8601duration", f"{place}.iso8601duration")


def _version(packet: dict[str, Any], metadata: dict[str, Any]) -> int:
    key = "phenopacketSchemaVersion"
    stated = _text(metadata, key, f"metaData.{key}")
    if stated:
        return 1 if stated.startswith("1") else 2
    return 1 if {"genes", "variants"} & packet.keys() else 2


def _get(value: dict[str, Any], key: str) -> Any:
    if key in value:
        return value[key]
    return value.get(re.sub(r"[A-Z]", lambda match: f"_{match[0].lower()}", key))


def _object(value: Any, place: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{place}: expected an object, got {_kind(value)}")
    return value


def _items(value: dict[str, Any], key: str, place: str) -> list[Any]:
    items = _get(value, key)
    if items is None:
        return []
    if not isinstance(items, list):
        raise ValueError(f"{place}: expected a list, got {_kind(items)}")
    return items


def _text(value: dict[str, Any], key: str, place: str) -> str | None:
    text = _get(value, key)
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{place}: expected a text, got {_kind(text)}")
    return text.strip() if text else None


def _truth(value: dict[str, Any], key: str, place: str) -> bool:
    truth = _get(value, key)
    if truth is not None and not isinstance(truth, bool):
        raise ValueError(f"{place}: expected true or false, got {_kind(truth)}")
    return bool(truth)


def _kind(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
