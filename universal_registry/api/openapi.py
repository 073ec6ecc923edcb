"""OpenAPI 3.1 from the route table and the catalogue."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import msgspec
import orjson

from universal_registry import __version__
from universal_registry.api.auth import Scope
from universal_registry.api.forms import FORM_TYPE
from universal_registry.api.http import JSON_PATCH_TYPE
from universal_registry.api.params import Param
from universal_registry.api.route import Route
from universal_registry.api.routes import ROUTES
from universal_registry.registry.catalogue import Catalogue
from universal_registry.registry.jsonschema import json_schema
from universal_registry.registry.once import MOST_KEY
from universal_registry.registry.patch import MOST_STEPS, StepOp

_PATH_PARAM = re.compile(r"\{(\w+)\}")
_PARAM_DOCS = {
    "namespace": "the namespace",
    "plural": "the kind, as a rule its plural",
    "name": "the name, percent-encoded; `-` when the name is in the query",
    "kind": "the kind",
    "id": "the id",
    "verb": "what to do with it",
    "link": "the id that opening a link gave",
    "studio": "the name of the studio",
}
_MERGE = "application/merge-patch+json"
_FIELDS: dict[str, Any] = {"schema": {"type": "object", "additionalProperties": {"type": "string"}}}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": MOST_KEY},
    "description": "the same key with the same request within 24 hours gets the first answer again",
}


@lru_cache(maxsize=2)
def openapi_bytes(catalogue: Catalogue) -> bytes:
    """The document as JSON, made once per catalogue."""
    return orjson.dumps(openapi_document(catalogue))


def openapi_document(catalogue: Catalogue) -> dict[str, Any]:
    """The OpenAPI document."""
    models = [route.body for route in ROUTES if isinstance(route.body, type)]
    (_, bodies) = msgspec.json.schema_components(models, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.pattern, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Universal Registry",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {**_kind_schemas(catalogue), **_answers(), **bodies},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    path_params = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": _PARAM_DOCS[name]}
        for name in _PATH_PARAM.findall(route.pattern)
    ]
    query = [_query(param) for param in route.query]
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "description": (route.handler.__doc__ or "").strip(),
        "parameters": path_params + query + ([_KEY] if route.keyed else []),
        "responses": {**_success(route), "default": _problem()},
        "x-scope": route.scope.value,
    }
    if route.scope is Scope.OPEN:
        operation["security"] = []
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _request_content(route)}
    return operation


def _query(param: Param) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": param.type}
    if param.many:
        schema = {"type": "array", "items": schema}
    return {
        "name": param.name, "in": "query", "required": param.required, "schema": schema, "description": param.doc,
    }  # fmt: skip


def _request_content(route: Route) -> dict[str, Any]:
    if isinstance(route.body, type):
        body = {"schema": _ref(route.body.__name__)}
        return {"application/json": body, FORM_TYPE: body}
    if route.body == "record":
        # The path says kind, namespace and name, so the body is the rest of a document.
        schema = _ref("RecordContent")
        if route.method == "PATCH":
            steps = {"schema": _ref("JsonPatch")}
            return {_MERGE: {"schema": schema}, JSON_PATCH_TYPE: steps, FORM_TYPE: _FIELDS}
        return {"application/json": {"schema": schema}, FORM_TYPE: _FIELDS}
    text = {"schema": {"type": "string"}}
    many = {"schema": {"type": "array", "items": _ref("Record")}}
    return {"application/json": many, "application/yaml": text, "application/x-ndjson": text}


def _success(route: Route) -> dict[str, Any]:
    ndjson = {"application/x-ndjson": {"schema": {"type": "string"}}}
    tsv = {"text/tab-separated-values": {"schema": {"type": "string"}}}
    match route.answer:
        case "text":
            return {"200": {"description": "ok", "content": {"text/plain": {"schema": {"type": "string"}}}}}
        case "octets":
            sealed = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
            return {"200": {"description": "sealed", "content": sealed}}
        case "ndjson":
            return {"200": {"description": "one JSON value a line", "content": ndjson}}
        case "record":
            content = {"application/json": {"schema": _ref("Record")}, **tsv}
            return {"200": {"description": "the record", "content": content}, "304": {"description": "not changed"}}
        case "records":
            content = {"application/json": {"schema": _ref("Records")}, **tsv}
            return {"200": {"description": "records", "content": content}}
        case "written":
            content = {"application/json": {"schema": _ref("Written")}}
            answers = {"200": {"description": "done, or nothing to do", "content": content}}
            if route.method != "DELETE":
                answers["201"] = {"description": "created", "content": content}
            return answers
        case "batch":
            return {"200": {"description": "done", "content": {"application/json": {"schema": _ref("BatchWritten")}}}}
        case _:
            answers = {"200": {"description": "ok", "content": {"application/json": {"schema": {"type": "object"}}}}}
            if route.scope is Scope.OPEN:
                answers["503"] = {**answers["200"], "description": "not ok; `reason` says why"}
            return answers


def _problem() -> dict[str, Any]:
    return {"description": "an error (RFC 9457)", "content": {"application/problem+json": {"schema": _ref("Problem")}}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _kind_schemas(catalogue: Catalogue) -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    for name, kind in catalogue.kinds.items():
        schema = json_schema(kind)
        schema.pop("$schema", None)  # 3.1 speaks that dialect by default
        schemas[f"kind.{name}"] = schema
    schemas["Record"] = {"oneOf": [_ref(f"kind.{name}") for name in catalogue.kinds]}
    return schemas


def _answers() -> dict[str, Any]:
    string, integer = {"type": "string"}, {"type": "integer"}
    warnings = {"type": "array", "items": string}
    effect = {"enum": ["created", "updated", "unchanged", "deleted", "emitted"]}
    result = {
        "type": "object",
        "required": ["kind", "namespace", "name", "effect"],
        "properties": {
            "kind": string, "namespace": string, "name": string, "effect": effect,
            "revision": integer, "generation": integer,
        },
    }  # fmt: skip
    written = {"revision": integer, "cursor": string, "warnings": warnings}
    return {
        "RecordContent": {"type": "object", "description": "a record's document; kind, namespace, name as in the path"},
        "JsonPatch": {
            "type": "array",
            "maxItems": MOST_STEPS,
            "items": {
                "type": "object",
                "required": ["op", "path"],
                "properties": {"op": {"enum": list(StepOp)}, "path": string, "from": string, "value": {}},
            },
        },
        "Records": {
            "type": "object",
            "required": ["items", "next"],
            "properties": {
                "items": {"type": "array", "items": _ref("Record")},
                "next": {"type": ["string", "null"], "description": "`page` of the next page"},
                "revision": integer,
            },
        },
        "Written": {
            "type": "object",
            "required": ["effect", "revision", "cursor", "warnings"],
            "properties": {**written, "effect": effect, "record": _ref("Record")},
        },
        "BatchWritten": {
            "type": "object",
            "required": ["revision", "cursor", "results", "warnings"],
            "properties": {**written, "results": {"type": "array", "items": result}},
        },
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "detail", "code", "retryable", "trace_id"],
            "properties": {
                "type": string, "title": string, "status": integer, "detail": string, "code": string,
                "hint": string, "retryable": {"type": "boolean"}, "trace_id": string, "data": {"type": "object"},
            },
        },
    }  # fmt: skip
