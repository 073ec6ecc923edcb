from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest

from universal_registry.kernel.errors import Invalid
from universal_registry.registry.catalogue import Kind, decode_catalogue, load_catalogue
from universal_registry.registry.compile import compile_source
from universal_registry.registry.jsonschema import json_schema
from universal_registry.registry.validate import validate_spec

CATALOGUE = load_catalogue()
SERVICE = CATALOGUE.kind("service")
SECRET = "hunter2-do-not-print"

REQUIRING = decode_catalogue(
    compile_source(
        b"""
kinds:
  thing:
    plural: things
    tier: core
    family: f
    doc: d
    fields:
      size: {type: integer, required: true, doc: how large}
      ratio: number
      box: {type: object, fields: {lid: string, id: {type: string, required: true}}}
    classifications: {Plain: p, Deep: {doc: d, add: {depth: {type: integer, required: true}}}}
    example: {name: a}
aliases: {}
legacy_tables: {}
"""
    )
).kind("thing")


def refusal(kind: Kind, spec: Any, classification: str | None = None, *, strict: bool = False) -> Invalid:
    with pytest.raises(Invalid) as caught:
        validate_spec(kind, classification, spec, strict=strict)
    return caught.value


def test_the_documented_registration_works_with_one_warning() -> None:
    warnings = validate_spec(SERVICE, "AppService", {"type": "service", "version": "1.0"}, strict=False)
    assert warnings == ["spec.type is not a field of service; it is kept as it is"]


def test_a_near_miss_is_pointed_out() -> None:
    (warning,) = validate_spec(SERVICE, "AppService", {"prot": 1}, strict=False)
    assert "did you mean 'port'?" in warning
    error = refusal(SERVICE, {"prot": 1}, strict=True)
    assert error.hint == "did you mean 'port'?"
    assert error.data["did_you_mean"][0] == "port"


def test_an_undeclared_field_is_refused_by_strict_and_by_a_strict_kind() -> None:
    assert "spec.zzz is not a field of service" in refusal(SERVICE, {"zzz": 1}, strict=True).message
    assert "spec.vaule is not a field of secret" in refusal(CATALOGUE.kind("secret"), {"vaule": SECRET}).message


def test_the_value_of_an_undeclared_field_is_never_shown() -> None:
    (warning,) = validate_spec(SERVICE, None, {"password": SECRET}, strict=False)
    assert SECRET not in warning


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"port": "eighty"}, "spec.port must be an integer, not the string 'eighty'"),
        ({"port": True}, "spec.port must be an integer, not the boolean True"),
        ({"port": 80.0}, "spec.port must be an integer, not the number 80.0"),
        ({"port": {"a": 1}}, "spec.port must be an integer, not an object"),
        ({"port": None}, "spec.port is null"),
        ({"port": 65536}, "spec.port is 65536; it must be at least 0 and at most 65535"),
        ({"port": -1}, "spec.port is -1; it must be at least 0 and at most 65535"),
        ({"replicas": -1}, "spec.replicas is -1; it must be at least 0"),
        ({"version": 1.0}, "spec.version must be a string, not the number 1.0"),
        ({"listens": "x:1"}, "spec.listens must be an array, not the string 'x:1'"),
        ({"listens": ["x:1", 2]}, "spec.listens[1] must be a string, not the integer 2"),
        ({"listens": ["x:1", None]}, "spec.listens[1] is null"),
        ([], "spec must be an object, not an array"),
        (None, "spec must be an object, not null"),
        ("{}", "spec must be an object, not a string"),
    ],
)
def test_a_mistyped_value_is_named_with_its_path(spec: Any, message: str) -> None:
    assert refusal(SERVICE, spec).message == message


def test_the_refusal_carries_path_and_expected_type() -> None:
    error = refusal(SERVICE, {"listens": [1]})
    assert (error.data["path"], error.data["expected"]) == ("spec.listens[0]", "string")
    assert refusal(SERVICE, {"port": None}).hint == "leave the field out instead"


def test_a_word_outside_the_enum() -> None:
    error = refusal(CATALOGUE.kind("endpoint"), {"protocol": "webhok"})
    assert error.message == "spec.protocol is 'webhok'"
    assert "did you mean 'webhook'?" in str(error)


def test_true_is_no_number_in_an_enum_or_a_range() -> None:
    assert "must be a number" in refusal(CATALOGUE.kind("animation"), {"fps": True}).message


def test_a_pattern_must_match_the_whole_value() -> None:
    command = CATALOGUE.kind("command")
    assert validate_spec(command, None, {"mode": "0755"}, strict=True) == []
    for wrong in ("0755\n", "rwxr-xr-x", "07", "x0755"):
        assert "does not match" in refusal(command, {"mode": wrong}).message


def test_the_names_of_an_object_s_members_must_match() -> None:
    environment = CATALOGUE.kind("environment")
    assert validate_spec(environment, None, {"variables": {"LOG_LEVEL": "info", "a.b": 1}}, strict=True) == []
    for wrong in ("", "a=b", "="):
        error = refusal(environment, {"variables": {"OK": 1, wrong: "canary"}})
        assert error.message == f"spec.variables holds the name {wrong!r}, which does not match [^=]+"
    assert "must be an object" in refusal(environment, {"variables": ["a=b"]}).message


def test_long_values_are_shortened() -> None:
    assert len(refusal(SERVICE, {"port": "x" * 100_000}).message) < 150
    (warning,) = validate_spec(SERVICE, None, {"k" * 100_000: 1}, strict=False)
    assert len(warning) < 150


@pytest.mark.parametrize("name", ["", "a\nb", "x\x1b[31m", "g++", "a.b", "'"])
def test_a_hostile_field_name_makes_one_printable_line(name: str) -> None:
    (warning,) = validate_spec(SERVICE, None, {name: 1}, strict=False)
    assert warning.isprintable()


@pytest.mark.parametrize("value", ["s3cret", "", {"$secret": "kept"}, {"$sealed": "ab:cd", "$mac": "00"}])
def test_the_forms_of_a_secret(value: Any) -> None:
    endpoint = CATALOGUE.kind("endpoint")
    assert validate_spec(endpoint, None, {"delivery": {"secret": value}}, strict=True) == []


@pytest.mark.parametrize(
    "value",
    [
        {"$secret": SECRET},
        {"$secret": "kept", "x": SECRET},
        {"$sealed": SECRET},
        {"$sealed": SECRET, "$mac": 1},
        {"plain": SECRET},
        [SECRET],
        len(SECRET) * 31_337,
        True,
        None,
    ],
)
def test_other_forms_are_refused_and_not_shown(value: Any) -> None:
    for kind, spec in (
        (CATALOGUE.kind("endpoint"), {"delivery": {"secret": value}}),
        (CATALOGUE.kind("secret"), {"value": value}),
    ):
        error = refusal(kind, spec)
        assert SECRET not in str(error) + repr(error.data)
        assert str(len(SECRET) * 31_337) not in str(error) + repr(error.data)
        schema = jsonschema_rs.Draft202012Validator(json_schema(kind))
        assert not schema.is_valid({"kind": kind.name, "name": "a", "spec": spec})


def test_what_stands_where_secrets_are_expected_is_not_shown() -> None:
    error = refusal(CATALOGUE.kind("endpoint"), {"delivery": SECRET})
    assert error.message == "spec.delivery must be an object, not a string"


def test_an_open_object_takes_other_fields_a_closed_one_warns() -> None:
    assert validate_spec(CATALOGUE.kind("endpoint"), None, {"delivery": {"x": 1}}, strict=True) == []
    host = CATALOGUE.kind("host")
    (warning,) = validate_spec(host, None, {"interfaces": [{"name": "eth0", "macc": "02:"}]}, strict=False)
    assert warning.startswith("spec.interfaces[0].macc is not a field of host")
    assert "'mac'" in warning


def test_any_takes_all_but_null() -> None:
    setting = CATALOGUE.kind("setting")
    for value in ("x", 1, 1.5, True, {"a": None}, [None]):
        assert validate_spec(setting, None, {"value": value}, strict=True) == []
    assert refusal(setting, {"value": None}).message == "spec.value is null"


def test_fields_that_a_classification_adds_belong_to_it_alone() -> None:
    network = CATALOGUE.kind("network")
    zone = CATALOGUE.classification("DnsZone")
    assert validate_spec(network, zone, {"zone": "example"}, strict=True) == []
    assert "spec.zone" in refusal(network, {"zone": "example"}, "SubnetNetwork", strict=True).message
    assert "must be a string" in refusal(network, {"zone": 1}, "DnsZone").message


def test_a_classification_of_another_kind_is_refused() -> None:
    error = refusal(SERVICE, {}, "AppServic")
    assert error.hint == "did you mean 'AppService'?"
    assert "'WebApp' is not a classification of service" in refusal(SERVICE, {}, "WebApp").message


def test_required_fields_of_kind_classification_and_object() -> None:
    error = refusal(REQUIRING, {})
    assert str(error) == "spec.size is missing: thing needs it (how large)"
    assert "spec.depth is missing" in refusal(REQUIRING, {"size": 1}, "Deep").message
    assert "spec.box.id is missing" in refusal(REQUIRING, {"size": 1, "box": {}}).message
    assert validate_spec(REQUIRING, "Deep", {"size": 1, "depth": 2, "box": {"id": "x"}}, strict=True) == []


def test_an_integer_is_a_number_and_the_spec_is_left_alone() -> None:
    spec = {"size": 1, "ratio": 2, "more": [1]}
    validate_spec(REQUIRING, None, spec, strict=False)
    assert spec == {"size": 1, "ratio": 2, "more": [1]}
