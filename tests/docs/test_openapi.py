"""The route table, the OpenAPI document and docs/reference/http.md say the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson

from universal_registry.api.openapi import openapi_bytes, openapi_document
from universal_registry.api.routes import ROUTES
from universal_registry.kernel.errors import RegistryError
from universal_registry.registry.catalogue import load_catalogue

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "http.md"
DOCUMENT = openapi_document(load_catalogue())


def refs(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [each for item in value.values() for each in refs(item)]
    return [each for item in value for each in refs(item)] if isinstance(value, list) else []


def test_each_route_is_an_operation():
    operations = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}
    assert operations == {(route.method, route.pattern) for route in ROUTES}
    ids = [operation["operationId"] for item in DOCUMENT["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids)) == len(ROUTES)


def test_every_reference_leads_somewhere():
    found = refs(DOCUMENT)
    assert found
    for ref in found:
        node: Any = DOCUMENT
        for step in ref.removeprefix("#/").split("/"):
            node = node[step]


def test_every_path_parameter_is_declared():
    for path, item in DOCUMENT["paths"].items():
        for operation in item.values():
            declared = [each["name"] for each in operation["parameters"] if each["in"] == "path"]
            assert declared == re.findall(r"\{(\w+)\}", path)
            assert operation["summary"]
            assert operation["description"]


def test_schemas_are_schemas_and_examples_fit():
    schemas = DOCUMENT["components"]["schemas"]
    for name, schema in schemas.items():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
        for example in schema.get("examples", ()):
            whole = {**schema, "components": DOCUMENT["components"]}
            assert jsonschema_rs.is_valid(whole, example), name


def test_it_is_json_and_cached():
    catalogue = load_catalogue()
    assert orjson.loads(openapi_bytes(catalogue)) == DOCUMENT
    assert openapi_bytes(catalogue) is openapi_bytes(catalogue)


def test_each_route_is_in_the_reference():
    written = set(re.findall(r"^\| `([A-Z]+) ([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert written == {(route.method, route.pattern) for route in ROUTES}


def test_scopes_and_query_parameters_are_in_the_reference():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for route in ROUTES:
        (line,) = [line for line in lines if line.startswith(f"| `{route.method} {route.pattern}` |")]
        assert f"| {route.scope.value} |" in line
        assert re.findall(r"`(\w+)`", line.split("|")[4]) == [param.name for param in route.query], route.pattern


def test_error_codes_and_bodies_are_in_the_reference():
    text = PAGE.read_text(encoding="utf-8")
    for each in _tree(RegistryError):
        assert each.status < 400 or re.search(rf"^\| {each.status} \|.*`{each.code}`", text, re.MULTILINE), each
    for route in ROUTES:
        if isinstance(route.body, type):
            line = f"| {route.body.__name__} | " + text.partition(f"| {route.body.__name__} | ")[2].partition("\n")[0]
            assert re.findall(r"`(\w+)`", line) == list(route.body.__struct_fields__)


def _tree(base: type[RegistryError]) -> list[type[RegistryError]]:
    return [base, *(each for below in base.__subclasses__() for each in _tree(below))]
