"""From the catalogue as people write it (plain data from YAML) to its compiled form, with every rule checked.

Standard library only, so that a build can run it before anything else is installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from universal_registry.kernel.errors import Invalid
from universal_registry.registry.words import ENVELOPE, squash

TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "any": (str, int, float, bool, dict, list),
}
BECOMES = frozenset({"records", "relations", "health", "lifecycle", "sessions", "peers"})
ENVELOPE_NAMES = frozenset({"kind", *ENVELOPE})
# What SQLite takes for the row's number: a column of that name would hide it.
_ROW_NUMBER = frozenset({"rowid", "oid", "_rowid_"})
# Tables and views of the store that are not kinds.
OTHER_TABLES = frozenset(
    {
        "records",
        "user_records",
        "changes",
        "relations",
        "labels",
        "kinds",
        "classifications",
        "namespaces",
        "apply_sets",
        "tokens",
        "audit",
        "meta",
        "write_guard",
        "sync_identity",
        "sync_peers",
        "sync_records",
    }
)
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,47}")
_MERGE = re.compile(r"set|list_by:[a-z][a-z0-9_]*")
_CLASS_NAME = re.compile(r"[A-Z][A-Za-z0-9]{1,47}")
_FIELD_KEYS = frozenset(
    {
        "type",
        "doc",
        "required",
        "enum",
        "ref",
        "secret",
        "index",
        "items",
        "fields",
        "open",
        "default",
        "pattern",
        "names",
        "minimum",
        "maximum",
        "merge",
    }
)
_KIND_KEYS = frozenset({"plural", "tier", "family", "doc", "strict", "fields", "classifications", "columns", "example"})
_CLASS_KEYS = frozenset({"doc", "parent", "add"})


def normalise(written: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The compiled catalogue as plain data. Raises Invalid naming the place of the first rule that is broken."""
    kinds = {name: _kind(name, body) for name, body in _mapping(written.get("kinds"), "kinds").items()}
    _check_names(kinds)
    classes = _check_classifications(kinds)
    for name, kind in kinds.items():
        for path, field in _walk(kind["fields"] + [f for c in kind["classifications"] for f in c["fields"]], name):
            _check_ref(field, kinds, path)
        kind["secret_paths"] = _secret_paths(kind)
        _check_columns(name, kind)
    return {
        "source": source,
        "kinds": kinds,
        "aliases": _aliases(_mapping(written.get("aliases"), "aliases"), classes),
        "legacy_tables": _legacy_tables(_mapping(written.get("legacy_tables"), "legacy_tables"), kinds, classes),
    }


def _bad(where: str, why: str) -> Invalid:
    return Invalid(f"catalogue: {where}: {why}", path=where)


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _bad(where, "must be a mapping")
    return value


def _known_keys(body: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    for key in body:
        if key not in known:
            raise _bad(where, f"{key!r} is none of {', '.join(sorted(known))}")


def _kind(name: str, written: Any) -> dict[str, Any]:
    body = _mapping(written, name)
    _known_keys(body, _KIND_KEYS, name)
    if not _IDENTIFIER.fullmatch(name) or not _IDENTIFIER.fullmatch(str(body.get("plural"))):
        raise _bad(name, "a kind and its plural are small letters, digits and _")
    if body.get("tier") not in ("core", "extended") or not body.get("family") or not body.get("doc"):
        raise _bad(name, "needs a tier (core or extended), a family and a doc")
    fields = [_field(each, value, f"{name}.{each}") for each, value in _mapping(body.get("fields"), name).items()]
    classes = _mapping(body.get("classifications"), f"{name}.classifications")
    return {
        "name": name,
        "plural": body["plural"],
        "tier": body["tier"],
        "family": body["family"],
        "doc": body["doc"],
        "strict": body.get("strict", False),
        "fields": fields,
        "classifications": [_classification(name, each, value) for each, value in classes.items()],
        "columns": list(body.get("columns", ())),
        "example": {"kind": name, **_mapping(body.get("example"), f"{name}.example")},
    }


def _field(name: str, written: Any, where: str, *, top: bool = True) -> dict[str, Any]:
    body: dict[str, Any] = {"type": written} if isinstance(written, str) else dict(_mapping(written, where))
    _known_keys(body, _FIELD_KEYS, where)
    if top and (name in ENVELOPE_NAMES or name in _ROW_NUMBER):
        raise _bad(where, "bears the name of a column of the envelope")
    if name and not _IDENTIFIER.fullmatch(name):
        raise _bad(where, "a field name is small letters, digits and _")
    if body.get("type") not in TYPES:
        raise _bad(where, f"its type is none of {', '.join(TYPES)}")
    if "items" in body:
        body["items"] = _field("", body["items"], f"{where}[]", top=False)
    if "fields" in body:
        inner = _mapping(body["fields"], where)
        body["fields"] = [_field(each, value, f"{where}.{each}", top=False) for each, value in inner.items()]
    _check_field(body, where)
    if "merge" in body and not (body["type"] == "array" and _MERGE.fullmatch(str(body["merge"]))):
        raise _bad(where, "only an array merges, as `set` or `list_by:<field>`")
    return {"name": name, **body}


def _check_field(body: Mapping[str, Any], where: str) -> None:
    kind = body["type"]
    if body.get("secret") and (kind != "string" or body.get("index") or "default" in body or "enum" in body):
        raise _bad(where, "a secret is a string with no index, default or enum")
    if ("items" in body) != (kind == "array"):
        raise _bad(where, "an array, and nothing else, says what its items are")
    if body.keys() & {"fields", "open", "names"} and kind != "object":
        raise _bad(where, "only an object has fields, and names of them")
    if "pattern" in body and kind != "string":
        raise _bad(where, "only a string has a pattern")
    if ("minimum" in body or "maximum" in body) and kind not in ("integer", "number"):
        raise _bad(where, "only a number has a minimum or maximum")
    if body.get("index") and kind in ("object", "array", "any"):
        raise _bad(where, "only a scalar has an index")
    examples = [*body.get("enum", ()), *([body["default"]] if "default" in body else [])]
    if any(type(each) not in TYPES[kind] for each in examples):
        raise _bad(where, f"a word of its enum, or its default, is not of the type {kind}")
    if "enum" in body and "default" in body and body["default"] not in body["enum"]:
        raise _bad(where, "its default is not in its enum")
    if "items" in body and any(field.get("secret") for _, field in _walk([body["items"]], where)):
        raise _bad(where, "no secret inside an array: sealing needs a fixed path")


def _classification(kind: str, name: str, written: Any) -> dict[str, Any]:
    where = f"{kind}.classifications.{name}"
    if not _CLASS_NAME.fullmatch(name):
        raise _bad(where, "a classification is in CamelCase")
    body = {"doc": written} if isinstance(written, str) else dict(_mapping(written, where))
    _known_keys(body, _CLASS_KEYS, where)
    added = _mapping(body.get("add", {}), where)
    return {
        "name": name,
        "kind": kind,
        "doc": body.get("doc", ""),
        "parent": body.get("parent"),
        "fields": [_field(each, value, f"{where}.{each}") for each, value in added.items()],
    }


def _check_names(kinds: Mapping[str, Any]) -> None:
    seen: dict[str, str] = {}
    for name, kind in kinds.items():
        if kind["plural"] in OTHER_TABLES:
            raise _bad(name, f"the store has another table {kind['plural']!r}")
        for word in {name, kind["plural"]}:
            if word in seen:
                raise _bad(name, f"{word!r} also names the kind {seen[word]!r}")
            seen[word] = name


def _check_classifications(kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Unique over all kinds; parents are of the same kind and in no circle; what parents add is inherited."""
    classes: dict[str, Any] = {}
    words: dict[str, str] = {}
    for kind in kinds.values():
        for each in kind["classifications"]:
            other = words.setdefault(squash(each["name"]), each["name"])
            if other in classes:
                raise _bad(f"{kind['name']}.{each['name']}", f"{classes[other]['kind']} has that classification")
            classes[each["name"]] = each
    own = {name: each["fields"] for name, each in classes.items()}
    for name, each in classes.items():
        each["fields"] = [field for ancestor in _ancestry(name, classes) for field in own[ancestor]]
    for kind in kinds.values():
        _check_added(kind, own)
    return classes


def _ancestry(name: str, classes: Mapping[str, Any]) -> list[str]:
    line = [name]
    while (parent := classes[line[0]]["parent"]) is not None:
        if parent not in classes or classes[parent]["kind"] != classes[name]["kind"] or parent in line:
            raise _bad(name, f"its parent {parent!r} is of another kind, unknown, or below it")
        line.insert(0, parent)
    return line


def _check_added(kind: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    taken = {field["name"]: kind["name"] for field in kind["fields"]}
    for each in kind["classifications"]:
        for field in own[each["name"]]:
            if field["name"] in taken:
                raise _bad(each["name"], f"{taken[field['name']]} declares {field['name']!r} already")
            taken[field["name"]] = each["name"]


def _walk(fields: list[Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for field in fields:
        path = f"{where}.{field['name']}" if field["name"] else f"{where}[]"
        yield path, field
        yield from _walk([*field.get("fields", ()), *([field["items"]] if "items" in field else ())], path)


def _check_ref(field: Mapping[str, Any], kinds: Mapping[str, Any], path: str) -> None:
    if "ref" not in field:
        return
    if field["type"] != "string":
        raise _bad(path, "a reference is a string (in an array, its items are)")
    for word in field["ref"].split("|"):
        if word not in kinds:
            raise _bad(path, f"refers to the unknown kind {word!r}")


def _secret_paths(kind: Mapping[str, Any]) -> list[list[str]]:
    def below(fields: Any, path: list[str]) -> Iterator[list[str]]:
        for field in fields:
            here = [*path, field["name"]]
            if field.get("secret"):
                yield here
            yield from below(field.get("fields", ()), here)

    added = {field["name"]: field for each in kind["classifications"] for field in each["fields"]}
    return list(below([*kind["fields"], *added.values()], []))


def _check_columns(name: str, kind: Mapping[str, Any]) -> None:
    secret = {path[0] for path in kind["secret_paths"]}
    known = {field["name"] for field in kind["fields"]} | ENVELOPE_NAMES
    for column in kind["columns"]:
        if column not in known or column in secret:
            raise _bad(name, f"the column {column!r} is no field, or holds a secret")


def _aliases(written: Mapping[str, Any], classes: Mapping[str, Any]) -> dict[str, str]:
    aliases: dict[str, str] = {}
    own = {squash(name): name for name in classes}
    for word, name in written.items():
        if name not in classes:
            raise _bad(f"aliases.{word}", f"unknown classification {name!r}")
        leads_to = aliases.get(squash(word)) or own.get(squash(word), name)
        if leads_to != name:
            raise _bad(f"aliases.{word}", f"that word leads to {leads_to} already")
        aliases[squash(word)] = name
    return aliases


def _legacy_tables(written: Mapping[str, Any], kinds: Any, classes: Mapping[str, Any]) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for table, value in written.items():
        where = f"legacy_tables.{table}"
        body = _mapping(value, where)
        _known_keys(body, frozenset({"becomes", "kind", "classification"}), where)
        kind, name, becomes = body.get("kind"), body.get("classification"), body.get("becomes", "records")
        if becomes not in BECOMES or (becomes == "records" and kind is None):
            raise _bad(where, f"needs a kind, or becomes one of {', '.join(sorted(BECOMES))}")
        if kind is not None and kind not in kinds:
            raise _bad(where, f"unknown kind {kind!r}")
        if name is not None and (name not in classes or classes[name]["kind"] != kind):
            raise _bad(where, f"{name!r} is not a classification of {kind}")
        tables[table] = {"name": table, "becomes": becomes, "kind": kind, "classification": name}
    return tables
