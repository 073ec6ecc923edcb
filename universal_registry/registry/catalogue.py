"""The catalogue: what kinds of record there are, their fields and classifications. Frozen, and loaded once.

`catalogue.yaml` is the source; `catalogue.json`, compiled from it, is what is read at start-up, so that no YAML is
parsed then. In a checkout whose JSON is absent or was made from other YAML, it is compiled anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import force_setattr

from universal_registry.kernel.errors import Invalid
from universal_registry.registry.words import digest_of_source, near, shown, squash

SOURCE = Path(__file__).with_name("catalogue.yaml")
COMPILED = Path(__file__).with_name("catalogue.json")


class FieldType(StrEnum):
    """The JSON types that a field may have; `any` is each of them, null excepted."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    OBJECT = "object"
    ARRAY = "array"
    ANY = "any"


class Field(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """One field of a spec, or (with an empty name) the items of an array.

    `default` is documentation: it is never written into a record. `ref` names the kind, or `a|b` kinds, that the value
    names. `fields` are those of an object; an `open` object takes others without a warning; all names in it must match
    `names`. `by_name` indexes `fields`, `needed` are those of them that it must have.
    `merge`: how peers tell the items of an array apart, `set` or `list_by:<field>`; empty: they take it as one value.
    """

    name: str
    type: FieldType
    doc: str = ""
    required: bool = False
    enum: tuple[Any, ...] = ()
    ref: str | None = None
    secret: bool = False
    index: bool = False
    items: Field | None = None
    fields: tuple[Field, ...] = ()
    open: bool = False
    default: Any = None
    pattern: str | None = None
    names: str | None = None
    minimum: int | None = None
    maximum: int | None = None
    merge: str = ""
    by_name: dict[str, Field] = {}
    needed: tuple[Field, ...] = ()
    holds_secret: bool = False

    def __post_init__(self) -> None:
        if self.fields:
            force_setattr(self, "by_name", {field.name: field for field in self.fields})
            force_setattr(self, "needed", _required(self.fields))
        if self.secret or any(field.holds_secret for field in self.fields):
            force_setattr(self, "holds_secret", True)

    @property
    def refs(self) -> tuple[str, ...]:
        """The kinds that the value may name; empty when the field is no reference."""
        return tuple(self.ref.split("|")) if self.ref else ()


class Classification(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """A finer sort of one kind. `fields` are those that it and its parents add to the fields of the kind; `declared`
    are those of both, by name, and `required` those of them that a record must have."""

    name: str
    kind: str
    doc: str = ""
    parent: str | None = None
    fields: tuple[Field, ...] = ()
    by_name: dict[str, Field] = {}
    declared: dict[str, Field] = {}
    required: tuple[Field, ...] = ()

    def __post_init__(self) -> None:
        if self.fields:
            force_setattr(self, "by_name", {field.name: field for field in self.fields})


class Kind(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """A kind of record: `name` is singular, `plural` is also the name of its table.

    `secret_paths` lead from the spec to every secret, those of its classifications included.
    `columns` are what `ureg get` prints after the name. `example` is a whole record document.
    """

    name: str
    plural: str
    tier: str
    family: str
    doc: str
    fields: tuple[Field, ...] = ()
    classifications: tuple[Classification, ...] = ()
    columns: tuple[str, ...] = ()
    example: dict[str, Any] = {}
    strict: bool = False
    secret_paths: tuple[tuple[str, ...], ...] = ()
    by_name: dict[str, Field] = {}
    required: tuple[Field, ...] = ()
    classes_by_name: dict[str, Classification] = {}

    def __post_init__(self) -> None:
        force_setattr(self, "by_name", {field.name: field for field in self.fields})
        force_setattr(self, "required", _required(self.fields))
        force_setattr(self, "classes_by_name", {each.name: each for each in self.classifications})
        for each in self.classifications:
            force_setattr(each, "declared", {**self.by_name, **each.by_name})
            force_setattr(each, "required", _required(each.declared.values()))

    def all_fields(self) -> tuple[Field, ...]:
        """The fields of the kind, then those that its classifications add, each once."""
        added = {field.name: field for each in self.classifications for field in each.fields}
        return (*self.fields, *added.values())


class LegacyTable(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """Where the rows of a table of the older registry go: `becomes` records, relations, health, lifecycle, sessions or
    peers; `kind` and `classification` say as what, where that is a record."""

    name: str
    becomes: str = "records"
    kind: str | None = None
    classification: str | None = None


class Catalogue(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """All kinds by singular name, the older names that lead to them, and the look-ups over both."""

    kinds: dict[str, Kind]
    aliases: dict[str, str] = {}
    legacy_tables: dict[str, LegacyTable] = {}
    source: str = ""
    _kind_words: dict[str, Kind] = {}
    _class_words: dict[str, Classification] = {}
    _children: dict[str, frozenset[str]] = {}

    def __post_init__(self) -> None:
        classes = [each for kind in self.kinds.values() for each in kind.classifications]
        plurals = {kind.plural: kind for kind in self.kinds.values()}
        words = {squash(each.name): each for each in classes}
        by_name = {each.name: each for each in classes}
        for word, name in self.aliases.items():
            words.setdefault(word, by_name[name])
        force_setattr(self, "_kind_words", {**plurals, **self.kinds})
        force_setattr(self, "_class_words", {**words, **by_name})
        force_setattr(self, "_children", _descendants(by_name))

    def kind(self, word: str) -> Kind:
        """The kind with this singular or plural name, in any case, `-` or a space standing for `_`. Raises Invalid."""
        found = self._kind_words.get(word) or self._kind_words.get(word.casefold().replace("-", "_").replace(" ", "_"))
        if found is None:
            raise _unknown("kind", word, self._kind_guesses(word))
        return found

    def classification(self, word: str) -> Classification:
        """The classification of this name: exact, in any case or spacing, or an older name for it. Raises Invalid."""
        found = self._class_words.get(word) or self._class_words.get(squash(word))
        if found is None:
            names = {each.name: None for each in self._class_words.values()}
            raise _unknown("classification", word, near(word, tuple(names)))
        return found

    def children(self, name: str) -> frozenset[str]:
        """The names of the classification and of all below it. Raises Invalid for an unknown one."""
        return self._children[self.classification(name).name]

    def legacy_table(self, word: str) -> LegacyTable | None:
        """Where rows of this table of the older registry go; singular and plural both find it."""
        plain = word.casefold().replace("-", "_")
        tables = self.legacy_tables
        return tables.get(plain) or tables.get(f"{plain}s") or tables.get(f"{plain.removesuffix('y')}ies")

    def _kind_guesses(self, word: str) -> list[str]:
        legacy = self.legacy_table(word)
        if legacy is not None and legacy.kind is not None:
            return [legacy.kind]
        found = near(word, tuple(self._kind_words))
        return list(dict.fromkeys(self._kind_words[each].name for each in found))


def _required(fields: Iterable[Field]) -> tuple[Field, ...]:
    return tuple(field for field in fields if field.required)


def _unknown(what: str, word: str, guesses: list[str]) -> Invalid:
    listing = "kinds" if what == "kind" else "classes"
    hint = f"did you mean {guesses[0]!r}?" if guesses else f"`ureg {listing}` lists them"
    return Invalid(f"unknown {what} {shown(word)}", hint=hint, did_you_mean=guesses, unknown=what)


def _descendants(classes: dict[str, Classification]) -> dict[str, frozenset[str]]:
    below: dict[str, set[str]] = {name: {name} for name in classes}
    for name, each in classes.items():
        parent = each.parent
        while parent is not None:
            below[parent].add(name)
            parent = classes[parent].parent
    return {name: frozenset(names) for name, names in below.items()}


def decode_catalogue(compiled: bytes) -> Catalogue:
    """The catalogue from its compiled form."""
    return msgspec.json.decode(compiled, type=Catalogue)


@cache
def load_catalogue() -> Catalogue:
    """The built-in catalogue, read once in a process."""
    return read_catalogue(SOURCE, COMPILED)


def read_catalogue(source: Path, compiled: Path) -> Catalogue:
    """The catalogue in `compiled`, if it was made from `source` (or there is no source); else compiled from `source`,
    and written to `compiled` where the folder allows it."""
    text = source.read_bytes() if source.exists() else None
    if compiled.exists():
        catalogue = decode_catalogue(compiled.read_bytes())
        if text is None or catalogue.source == digest_of_source(text):
            return catalogue
    if text is None:
        raise Invalid(f"neither {source.name} nor {compiled.name} is in {source.parent}", hint="install it again")
    from universal_registry.registry.compile import compile_source, write_if_possible

    made = compile_source(text)
    write_if_possible(compiled, made)
    return decode_catalogue(made)
