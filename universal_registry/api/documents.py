"""How records, results and kinds look on the wire."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from universal_registry.api.context import Context
from universal_registry.api.http import NDJSON_TYPE, Response, json_response
from universal_registry.log.change import Change, Op
from universal_registry.registry.catalogue import Classification, Field, Kind
from universal_registry.registry.operation import Effect, Result
from universal_registry.registry.record import Record, decode_record, document
from universal_registry.registry.service import Written


def etag(record: Record) -> tuple[str, str]:
    """The ETag header of a record: its revision."""
    return ("etag", f'"{record.revision}"')


def shown_document(context: Context, record: Record) -> dict[str, Any]:
    """The record as it leaves: its document, secrets kept back."""
    return document(context.service.shown(record))


def records_response(
    context: Context,
    records: Iterable[Record],
    *,
    revision: int | None = None,
    more: str | None = None,
) -> Response:
    """Some records as JSON (`{"items", "revision", "next"}`).

    The headers `registry-revision` and `registry-next` say the same to those who read no JSON.
    """
    headers: tuple[tuple[str, str], ...] = ()
    if revision is not None:
        headers += (("registry-revision", str(revision)),)
    if more is not None:
        headers += (("registry-next", more),)
    shown: dict[str, Any] = {"items": [shown_document(context, record) for record in records], "next": more}
    if revision is not None:
        shown["revision"] = revision
    return json_response(shown, headers=headers)


def written_one(context: Context, written: Written) -> Response:
    """The answer to a write of one record."""
    result = written.results[0]
    shown = {"effect": result.effect, "revision": written.revision, "cursor": written.cursor}
    headers: tuple[tuple[str, str], ...] = (("registry-revision", str(written.revision)),)
    if result.record is not None and result.effect is not Effect.DELETED:
        headers += (etag(result.record),)
        shown["record"] = shown_document(context, result.record)
    shown["warnings"] = list(written.warnings)
    return json_response(shown, status=201 if result.effect is Effect.CREATED else 200, headers=headers)


def written_many(written: Written) -> Response:
    """The answer to a batch: one result per operation, in their order."""
    shown = {
        "revision": written.revision,
        "cursor": written.cursor,
        "results": [_result(result) for result in written.results],
        "warnings": list(written.warnings),
    }
    return json_response(shown, headers=(("registry-revision", str(written.revision)),))


def _result(result: Result) -> dict[str, Any]:
    kind, namespace, name = result.key
    shown: dict[str, Any] = {"kind": kind, "namespace": namespace, "name": name, "effect": result.effect}
    if result.record is not None:
        shown["revision"] = result.record.revision
        shown["generation"] = result.record.generation
    return shown


def change_document(context: Context, change: Change) -> dict[str, Any]:
    """A line of the log as it leaves. Secrets of records are kept back; an event's payload is opened."""
    shown: dict[str, Any] = {
        "revision": change.revision,
        "seq": change.seq,
        "op": change.op,
        **change.key._asdict(),
        "uid": change.uid,
        "generation": change.generation,
        "at": change.at,
        "actor": change.actor,
        "changed": list(change.changed_fields),
    }
    if change.message:
        shown["message"] = change.message
    if change.body is None:
        shown["compacted"] = True
    elif change.op is Op.EVENT:
        event = context.service.open_event(change)
        shown |= {"session": event.session, "audience": list(event.audience), "payload": event.payload}
    else:
        shown["record"] = shown_document(context, decode_record(change.body))
    return shown


def ndjson(lines: Iterable[Any]) -> bytes:
    """One JSON value a line."""
    return b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)


def ndjson_response(body: bytes, *, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """An answer of NDJSON lines."""
    return Response(headers=(("content-type", NDJSON_TYPE), *headers), body=body)


# --- the catalogue --------------------------------------------------------------------------------------------------


def kind_summary(kind: Kind) -> dict[str, Any]:
    """A kind in a list of kinds."""
    return {
        "name": kind.name,
        "plural": kind.plural,
        "tier": kind.tier,
        "family": kind.family,
        "doc": kind.doc,
        "strict": kind.strict,
        "columns": list(kind.columns),
    }


def kind_document(kind: Kind) -> dict[str, Any]:
    """All that the catalogue says of a kind."""
    return {
        **kind_summary(kind),
        "fields": [field_document(field) for field in kind.fields],
        "classifications": [class_document(each) for each in kind.classifications],
        "example": kind.example,
    }


def class_document(each: Classification) -> dict[str, Any]:
    """A classification, with the fields that it adds."""
    shown: dict[str, Any] = {"name": each.name, "kind": each.kind, "parent": each.parent, "doc": each.doc}
    if each.fields:
        shown["fields"] = [field_document(field) for field in each.fields]
    return shown


def field_document(field: Field) -> dict[str, Any]:
    """A field; what is not set is left out."""
    shown: dict[str, Any] = {"name": field.name, "type": field.type, "doc": field.doc}
    for word in ("required", "secret", "index", "open"):
        if getattr(field, word):
            shown[word] = True
    for word in ("default", "pattern", "names", "minimum", "maximum"):
        if (value := getattr(field, word)) is not None:
            shown[word] = value
    if field.enum:
        shown["enum"] = list(field.enum)
    if field.refs:
        shown["ref"] = list(field.refs)
    if field.items is not None:
        shown["items"] = field_document(field.items)
    if field.fields:
        shown["fields"] = [field_document(each) for each in field.fields]
    return {name: value for name, value in shown.items() if value != ""}
