from __future__ import annotations

import copy
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from universal_registry.kernel.errors import Invalid
from universal_registry.registry.catalogue import Field, FieldType, Kind, load_catalogue
from universal_registry.registry.jsonschema import json_schema
from universal_registry.registry.validate import validate_spec

CATALOGUE = load_catalogue()
KINDS = list(CATALOGUE.kinds.values())
SCHEMAS = {kind.name: jsonschema_rs.Draft202012Validator(json_schema(kind)) for kind in KINDS}

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
# Floats without a fraction are left out: JSON Schema calls 1.0 an integer, the registry asks for 1.
scalars = text | st.booleans() | st.integers(-(2**53), 2**53) | st.sampled_from([0.5, -1.25, 99.5]) | st.none()
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=6
)


def fitting(field: Field) -> st.SearchStrategy[Any]:
    """Values that the field takes."""
    if field.secret:
        sealed = st.fixed_dictionaries({"$sealed": text, "$mac": st.text("0123456789abcdef")})
        return text | st.just({"$secret": "kept"}) | sealed
    if field.enum:
        return st.sampled_from(field.enum)
    if field.pattern is not None:
        return st.from_regex(field.pattern, fullmatch=True)
    if field.items is not None:
        return st.lists(fitting(field.items), max_size=3)
    if field.fields:
        return objects(field.fields)
    whole = st.integers(field.minimum or 0, 2**53 if field.maximum is None else field.maximum)
    return {
        FieldType.STRING: text,
        FieldType.INTEGER: whole,
        FieldType.NUMBER: whole | st.just(0.5),
        FieldType.BOOLEAN: st.booleans(),
        FieldType.OBJECT: st.dictionaries(text, scalars, max_size=3),
        FieldType.ANY: anything.filter(lambda value: value is not None),
    }[field.type]


def objects(fields: tuple[Field, ...]) -> st.SearchStrategy[dict[str, Any]]:
    required = {field.name: fitting(field) for field in fields if field.required}
    return st.fixed_dictionaries(required, optional={f.name: fitting(f) for f in fields if not f.required})


@st.composite
def records(draw: st.DrawFn) -> tuple[Kind, dict[str, Any]]:
    kind = draw(st.sampled_from(KINDS))
    each = draw(st.sampled_from(kind.classifications))
    # A handful of fields at a time: a whole kind would make each example large and say no more.
    everything = (*kind.fields, *each.fields)
    some = draw(st.lists(st.sampled_from(everything), max_size=4, unique=True))
    needed = [field for field in everything if field.required and field not in some]
    spec = draw(objects((*some, *needed)))
    return kind, {"kind": kind.name, "name": "a", "classification": each.name, "spec": spec}


def accepted(kind: Kind, document: dict[str, Any]) -> bool:
    try:
        validate_spec(kind, document["classification"], document["spec"], strict=False)
    except Invalid:
        return False
    return True


@given(records())
@settings(max_examples=300)
def test_what_fits_is_accepted_without_a_warning_by_both(drawn: tuple[Kind, dict[str, Any]]) -> None:
    kind, document = drawn
    before = copy.deepcopy(document)
    assert validate_spec(kind, document["classification"], document["spec"], strict=True) == []
    assert document == before
    SCHEMAS[kind.name].validate(document)


@given(records(), anything, st.data())
@settings(max_examples=500)
def test_the_registry_and_the_schema_agree_on_any_value(drawn: Any, value: Any, data: st.DataObject) -> None:
    kind, document = drawn
    each = kind.classes_by_name[document["classification"]]
    field = data.draw(st.sampled_from((*kind.fields, *each.fields)))
    document["spec"][field.name] = value
    assert accepted(kind, document) == SCHEMAS[kind.name].is_valid(document)


@given(st.sampled_from(KINDS), anything, st.booleans())
@settings(max_examples=300)
def test_nothing_but_invalid_is_ever_raised(kind: Kind, spec: Any, strict: bool) -> None:
    try:
        said = validate_spec(kind, None, spec, strict=strict)
    except Invalid as error:
        said = [error.message]
    assert all(line and line.isprintable() for line in said)


@given(st.sampled_from([(kind, path) for kind in KINDS for path in kind.secret_paths]), st.data())
def test_a_misplaced_secret_is_never_in_a_message(place: tuple[Kind, tuple[str, ...]], data: st.DataObject) -> None:
    kind, path = place
    secret = "sesame-open-" + data.draw(st.text("abcdef", min_size=4, max_size=8))
    depth = data.draw(st.integers(1, len(path)))
    value: Any = data.draw(st.sampled_from([[secret], {"x": secret}, {"$secret": secret}, secret]))
    for name in reversed(path[:depth]):
        value = {name: value}
    for strict in (True, False):
        try:
            said = " ".join(validate_spec(kind, None, value, strict=strict))
        except Invalid as error:
            said = f"{error} {error.data!r}"
        assert secret not in said


@given(text)
def test_lookups_find_or_raise_invalid(word: str) -> None:
    for look_up in (CATALOGUE.kind, CATALOGUE.classification, CATALOGUE.children):
        try:
            look_up(word)
            said = "found"
        except Invalid as error:
            said = error.message
        assert len(said) < 200
        assert said.isprintable()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_schema_refuses_what_is_no_record(kind: Kind) -> None:
    schema = SCHEMAS[kind.name]
    good = {"kind": kind.name, "name": "a"}
    assert schema.is_valid(good)
    assert schema.is_valid({**good, "kind": kind.plural})
    for wrong in (
        {"name": "a"},
        {**good, "kind": "nothing"},
        {**good, "name": ""},
        {**good, "lables": {}},
        {**good, "labels": {"a": 1}},
        {**good, "classification": "Nothing"},
    ):
        assert not schema.is_valid(wrong)
