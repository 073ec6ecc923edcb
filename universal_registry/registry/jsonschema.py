"""JSON Schema 2020-12 of the document of a record, from the catalogue."""

from __future__ import annotations

from typing import Any

from universal_registry.registry.catalogue import Classification, Field, FieldType, Kind

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
_SECRET = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {"$secret": {"const": "kept"}},
            "required": ["$secret"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"$sealed": {"type": "string"}, "$mac": {"type": "string", "pattern": "^[\\x00-\\x7f]*$"}},
            "required": ["$sealed", "$mac"],
            "additionalProperties": False,
        },
    ]
}


def json_schema(kind: Kind) -> dict[str, Any]:
    """The schema of a record of this kind, as `apply -f` reads it and `get -o json` prints it.

    Fields that are not declared are allowed, as they are in the registry, unless the kind is strict. `x-secret`,
    `x-ref` (a list of kinds) and `x-columns` carry what JSON Schema has no word for.
    """
    schema: dict[str, Any] = {
        "$schema": DIALECT,
        "title": kind.name,
        "description": kind.doc,
        "type": "object",
        "properties": {**_envelope(kind), "spec": _spec(kind)},
        "required": ["kind", "name"],
        "additionalProperties": False,
        "x-columns": list(kind.columns),
        "examples": [kind.example],
    }
    conditions = [condition for each in kind.classifications if (condition := _condition(each))]
    if conditions:
        schema["allOf"] = conditions
    return schema


def field_schema(field: Field) -> dict[str, Any]:
    """The schema of one value."""
    schema: dict[str, Any] = {"description": field.doc} if field.doc else {}
    if field.secret:
        return {**schema, **_SECRET, "x-secret": True}
    # `any` excludes null, as everywhere: an absent value is left out.
    schema |= {"not": {"type": "null"}} if field.type is FieldType.ANY else {"type": field.type.value}
    if field.enum:
        schema["enum"] = list(field.enum)
    schema |= _patterns(field)
    for word in ("default", "minimum", "maximum"):
        if (value := getattr(field, word)) is not None:
            schema[word] = value
    if field.ref:
        schema["x-ref"] = list(field.refs)
    if field.merge:
        schema["x-merge"] = field.merge
    if field.items is not None:
        schema["items"] = field_schema(field.items)
    if field.fields:
        schema |= _members(field.fields)
    return schema


def _patterns(field: Field) -> dict[str, Any]:
    found: dict[str, Any] = {"pattern": f"^(?:{field.pattern})$"} if field.pattern is not None else {}
    names = {"propertyNames": {"pattern": f"^(?:{field.names})$"}} if field.names is not None else {}
    return found | names


def _members(fields: tuple[Field, ...]) -> dict[str, Any]:
    required = [field.name for field in fields if field.required]
    members: dict[str, Any] = {"properties": {field.name: field_schema(field) for field in fields}}
    return members | ({"required": required} if required else {})


def _spec(kind: Kind) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", **_members(kind.fields)}
    if kind.strict:
        # Fields that a classification adds are admitted here, and bound to it by the conditions.
        schema["properties"] |= {field.name: True for field in kind.all_fields() if field.name not in kind.by_name}
        schema["additionalProperties"] = False
    return schema


def _condition(classification: Classification) -> dict[str, Any] | None:
    """What the classification adds, said as a condition on it."""
    if not classification.fields:
        return None
    return {
        "if": {"properties": {"classification": {"const": classification.name}}, "required": ["classification"]},
        "then": {"properties": {"spec": _members(classification.fields)}},
    }


def _envelope(kind: Kind) -> dict[str, Any]:
    return {
        "kind": {"enum": [kind.name, kind.plural]},
        "namespace": {"type": "string", "pattern": "^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$", "default": "default"},
        "name": {"type": "string", "minLength": 1, "maxLength": 253},
        "classification": {"enum": [each.name for each in kind.classifications]},
        "title": {"type": "string"},
        "description": {"type": "string"},
        "labels": _STRINGS,
        "annotations": _STRINGS,
        "lifecycle": {"enum": ["draft", "active", "deprecated", "retired"], "default": "active"},
        "health": {"type": "object"},
        "expires_at": {"type": "string", "format": "date-time"},
        "meta": {"type": "object", "description": "written by the registry; only `revision` is read, as If-Match"},
    }
