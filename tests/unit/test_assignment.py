"""`field=value`: where it goes, and which type it gets."""

from __future__ import annotations

from typing import Any

import pytest

from universal_registry.kernel.errors import Invalid, Malformed, RegistryError, UsageError
from universal_registry.registry.assignment import build, parse_assignment

KIND: dict[str, Any] = {
    "fields": [
        {"name": "version", "type": "string"},
        {"name": "port", "type": "integer"},
        {"name": "ratio", "type": "number"},
        {"name": "enabled", "type": "boolean"},
        {"name": "tags", "type": "array", "items": {"type": "string"}},
        {"name": "ports", "type": "array", "items": {"type": "integer"}},
        {"name": "value", "type": "any"},
        {"name": "options", "type": "object"},
        {"name": "secret_value", "type": "string", "secret": True},
        {"name": "delivery", "type": "object", "fields": [{"name": "in_flight", "type": "integer"}]},
    ],
    "classifications": [{"name": "Gateway", "fields": [{"name": "hops", "type": "integer"}]}],
}


def made(*words: str) -> Any:
    return build(map(parse_assignment, words), KIND, lambda word: word).document


@pytest.mark.parametrize(
    ("word", "spec"),
    [
        ("port=8443", {"port": 8443}),
        ("port=-1", {"port": -1}),
        ("version=1.0", {"version": "1.0"}),
        ("version=", {"version": ""}),
        ("version=a=b", {"version": "a=b"}),
        ("ratio=0.5", {"ratio": 0.5}),
        ("ratio=2", {"ratio": 2}),
        ("enabled=true", {"enabled": True}),
        ("tags=a, b", {"tags": ["a", "b"]}),
        ('tags=["a,b"]', {"tags": ["a,b"]}),
        ("tags=", {"tags": []}),
        ("ports=80,443", {"ports": [80, 443]}),
        ("value=8", {"value": 8}),
        ("value=word", {"value": "word"}),
        ('options={"a":1}', {"options": {"a": 1}}),
        ("hops=3", {"hops": 3}),
        ("delivery.in_flight=2", {"delivery": {"in_flight": 2}}),
        ("spec.port=1", {"port": 1}),
        ("undeclared=8", {"undeclared": "8"}),
        ("port:=null", {"port": None}),
        ('version:="@x"', {"version": "@x"}),
    ],
)
def test_values_are_typed_by_the_catalogue(word: str, spec: dict[str, Any]) -> None:
    assert made(word) == {"spec": spec}


def test_what_belongs_to_every_record_stands_beside_the_spec() -> None:
    found = made(
        "class=Gateway", "title=T", "labels.tier=backend", "labels.a.b=c", "annotations.x=y", "lifecycle=draft"
    )
    assert found == {
        "classification": "Gateway",
        "title": "T",
        "labels": {"tier": "backend", "a.b": "c"},
        "annotations": {"x": "y"},
        "lifecycle": "draft",
    }


@pytest.mark.parametrize(
    "word", ["port=x", "port=1_0", "port=1.5", "port=", "port=٣", "enabled=yes", "ratio=nan", "ratio=inf", "ports=1,x"]
)
def test_a_value_of_another_type_names_its_field(word: str) -> None:
    with pytest.raises(Invalid, match=word.partition("=")[0]):
        made(word)


@pytest.mark.parametrize("word", ["port:={", "options=x", 'version:={"a":1,"a":2}', "tags=[1"])
def test_broken_json_names_its_field(word: str) -> None:
    with pytest.raises(Malformed, match=word.partition("=")[0].rstrip(":")):
        made(word)


@pytest.mark.parametrize("word", ["", "port", "=x", ":=1", "labels.=x", ".=x", "a..b=x"])
def test_what_is_no_assignment_is_refused(word: str) -> None:
    with pytest.raises(UsageError):
        made(word)


def test_contradictions_are_refused() -> None:
    for words in (
        ("port=1", "port=2"),
        ("delivery.x=1", "delivery={}"),
        ("delivery:=1", "delivery.x=1"),
        ("a=-", "b=-"),
    ):
        with pytest.raises(RegistryError):
            made(*words)


def test_a_secret_in_the_command_line_is_noticed_and_an_end_of_line_is_no_part_of_it() -> None:
    def read(word: str) -> str:
        return "hush\n" if word in ("-", "@file") else word

    assert build([parse_assignment("secret_value=hush")], KIND, read).exposed == ["secret_value"]
    assert build([parse_assignment('secret_value:="hush"')], KIND, read).exposed == ["secret_value"]
    for word in ("secret_value=-", "secret_value=@file"):
        built = build([parse_assignment(word)], KIND, read)
        assert (built.exposed, built.document) == ([], {"spec": {"secret_value": "hush"}})


def test_json_may_stand_in_a_file() -> None:
    def read(word: str) -> str:
        return {"@file": '{"a": [1, null]}\n', "-": '"hush"'}.get(word, word)

    built = build([parse_assignment("options:=@file"), parse_assignment("secret_value:=-")], KIND, read)
    assert (built.exposed, built.document["spec"]) == ([], {"options": {"a": [1, None]}, "secret_value": "hush"})
    with pytest.raises(UsageError, match="both ask for standard input"):
        build([parse_assignment("options:=-"), parse_assignment("version=-")], KIND, read)
    assert build([parse_assignment('version:="@file"')], KIND, read).document == {"spec": {"version": "@file"}}


def test_the_first_equals_sign_divides() -> None:
    assert parse_assignment("command=FOO=1 bar") == ("command", "FOO=1 bar", False)
    assert parse_assignment("a:=[1]") == ("a", "[1]", True)
