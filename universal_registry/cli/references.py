"""Which records name which others: by the fields that the catalogue declares as references."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from universal_registry.cli.output import Item
from universal_registry.cli.records import kind_of
from universal_registry.cli.session import Session
from universal_registry.kernel.ids import DEFAULT_NAMESPACE, Key


class Reference(NamedTuple):
    """`field` of the record `source` names `target`. `there`: that there is such a record; if not, `target` is what
    would be looked for first."""

    source: Key
    field: str
    target: Key
    there: bool

    def document(self) -> Item:
        """As JSON says it."""
        return {"from": self.source._asdict(), "field": self.field, "to": self.target._asdict(), "there": self.there}


def key_of(item: Item) -> Key:
    """The key of a record's document."""
    return Key(item["kind"], item["namespace"], item["name"])


def all_references(asked: Session) -> list[Reference]:
    """Those of all records outside `system`, by the fields of the registry's own catalogue."""
    kinds = {
        each["name"]: kind_of(asked, each["name"]) for each in asked.read("/v1/-/kinds")["items"] if each["records"]
    }
    keys: set[Key] = set()
    named: list[tuple[Key, str, tuple[str, ...], str]] = []
    for item in asked.items("/v1/-/records", {}):
        key = key_of(item)
        keys.add(key)
        named += [(key, *each) for each in names_in(item, kinds.get(key.kind, {}))]
    return sorted(resolved(named, keys))


def names_in(item: Item, kind: Item) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """The field, the kinds it may be of, and the name, for each name that a record's references hold."""
    added = (field for each in kind.get("classifications", ()) for field in each.get("fields", ()))
    fields = {field["name"]: field for field in (*added, *kind.get("fields", ()))}
    for name, field in fields.items():
        yield from _named(name, field, item["spec"].get(name))


def _named(path: str, field: Item, value: Any) -> Iterator[tuple[str, tuple[str, ...], str]]:
    if isinstance(value, str):
        if value and "ref" in field:
            yield path, tuple(field["ref"]), value
    elif isinstance(value, list):
        for inner in value:
            yield from _named(path, field.get("items", {}), inner)
    elif isinstance(value, dict):
        for inner in field.get("fields", ()):
            yield from _named(f"{path}.{inner['name']}", inner, value.get(inner["name"]))


def resolved(named: Iterable[tuple[Key, str, tuple[str, ...], str]], keys: set[Key]) -> Iterator[Reference]:
    """Each name as the record that it means: one of the first kind that has it, beside the record that names it, else
    in `default`."""
    for source, field, kinds, name in named:
        places = dict.fromkeys((source.namespace, DEFAULT_NAMESPACE))
        stored = unicodedata.normalize("NFC", name)  # as names of records are
        meant = [Key(kind, place, stored) for place in places for kind in kinds]
        target = next((key for key in meant if key in keys), None)
        yield Reference(source, field, target or meant[0], target is not None)
