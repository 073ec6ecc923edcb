"""Which records hold some words: in the name, the title, the description, the labels or the values of the spec."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any


def folded(text: str) -> str:
    """The text as it is compared: without capitals, accents composed."""
    return unicodedata.normalize("NFC", text.casefold())


def places_of(item: dict[str, Any], wanted: Sequence[str]) -> list[str]:
    """The fields of a record's document that hold the words, each once; none unless every word is somewhere.

    `wanted`: folded. A secret that was kept back is never looked into."""
    texts = [(path, folded(text)) for path, text in _texts(item)]
    places: dict[str, None] = {}
    for word in wanted:
        holding = [path for path, text in texts if word in text]
        if not holding:
            return []
        places |= dict.fromkeys(holding)
    return list(places)


def _texts(item: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Where text stands in a record, and the text."""
    for name in ("name", "title", "description"):
        if text := item.get(name):
            yield name, text
    for key, value in item.get("labels", {}).items():
        yield f"labels.{key}", f"{key}={value}"
    yield from _values("spec", item["spec"])


def _values(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """The texts and numbers within a value. A secret that was kept back (`$secret`, `$sealed`) has none."""
    if isinstance(value, dict):
        if not any(mark in value for mark in ("$secret", "$sealed")):
            for key, inner in value.items():
                yield from _values(f"{path}.{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(path, inner)
    elif value is not None and not isinstance(value, bool):
        yield path, str(value)
