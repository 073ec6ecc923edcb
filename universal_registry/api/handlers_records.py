"""Records: one, many, in bulk, and the kinds they may be of."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from universal_registry.api.context import (
    BULK_LIMITS,
    Call,
    Context,
    body_as,
    json_body,
    json_object,
    load_off_loop,
    needed,
)
from universal_registry.api.documents import (
    class_document,
    etag,
    kind_document,
    kind_summary,
    records_response,
    shown_document,
    written_many,
    written_one,
)
from universal_registry.api.forms import FORM_TYPE, form_pairs, record_content
from universal_registry.api.http import JSON_PATCH_TYPE, NDJSON_TYPE, Request, Response, json_response
from universal_registry.kernel.errors import Invalid, NotFound, PreconditionFailed, TooLarge, UsageError
from universal_registry.kernel.ids import Key
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.kernel.limits import DEFAULT_LIMITS, Limits
from universal_registry.kernel.loader import load_ndjson, load_yaml
from universal_registry.registry.catalogue import Kind
from universal_registry.registry.drafts import Document
from universal_registry.registry.jsonschema import json_schema
from universal_registry.registry.once import Once
from universal_registry.registry.ports import Page
from universal_registry.registry.record import document
from universal_registry.registry.selector import Selector, parse_selector

PAGE = 100
MOST_IN_PAGE = 1000
MOST_DOCUMENTS = 10_000
_MOST_REVISION = 999_999_999
_LOOKS = 3
YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})
_ETAG = re.compile(r'"(0|[1-9][0-9]{0,18})"')


class BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    """Operations that become one revision. Each: `{"op": "put" | "merge" | "patch" | "delete", "kind", "name",
    ...}`; a patch has its steps (RFC 6902) under `patch`."""

    operations: list[dict[str, Any]]
    message: str = ""
    strict: bool = False


# --- one record -----------------------------------------------------------------------------------------------------


async def get_record(context: Context, call: Call) -> Response:
    """The record's document, now or as of `rev`; 304 when `If-None-Match` names its revision."""
    key = _key(context, call)
    wanted = call.request.integer("rev", 0, 1, _MOST_REVISION)
    found = await context.service.at(key, wanted) if wanted else await context.service.look(key)
    record = found.record
    tag = etag(record)
    headers = (tag, ("registry-revision", str(found.revision)))
    if unwanted := call.request.header("if-none-match"):
        known = [each.strip().removeprefix("W/") for each in unwanted.split(",")]
        if tag[1] in known or "*" in known:
            return Response(status=304, headers=headers)
    return json_response(shown_document(context, record), headers=headers)


async def put_record(context: Context, call: Call) -> Response:
    """Make the record exactly what the body says."""
    key = _key(context, call)
    content = await _content(context, call, key)
    written = await context.service.put(
        content,
        actor=call.who,
        message=call.request.value("message"),
        if_revision=await _guard(context, call, key),
        strict=call.request.flag("strict"),
        once=_once_one(context, call),
    )
    return written_one(context, written)


async def patch_record(context: Context, call: Call) -> Response:
    """Merge the body into the record (RFC 7386: null removes), or create it; or, as `application/json-patch+json`,
    change a record step by step (RFC 6902)."""
    if call.request.content_type() == JSON_PATCH_TYPE:
        return await _patch_steps(context, call)
    key = _key(context, call)
    content = await _content(context, call, key)
    written = await context.service.merge(
        content,
        actor=call.who,
        message=call.request.value("message"),
        if_revision=await _guard(context, call, key),
        strict=call.request.flag("strict"),
        once=_once_one(context, call),
    )
    return written_one(context, written)


async def _patch_steps(context: Context, call: Call) -> Response:
    key = _key(context, call)
    written = await context.service.patch(
        key,
        await json_body(call),
        actor=call.who,
        message=call.request.value("message"),
        if_revision=await _guard(context, call, key),
        strict=call.request.flag("strict"),
        once=_once_one(context, call),
    )
    return written_one(context, written)


def _once_one(context: Context, call: Call) -> Once | None:
    return call.once_as(lambda written: written_one(context, written))


async def delete_record(context: Context, call: Call) -> Response:
    """Remove the record; 404 when there is none, unless `missing_ok`."""
    key = _key(context, call)
    written = await context.service.delete(
        key,
        actor=call.who,
        message=call.request.value("message"),
        if_revision=await _guard(context, call, key),
        missing_ok=call.request.flag("missing_ok"),
        once=_once_one(context, call),
    )
    return written_one(context, written)


def _kind(context: Context, word: str) -> Kind:
    """The kind that a path names; an unknown one is a path that does not exist."""
    try:
        return context.service.catalogue.kind(word)
    except Invalid as error:
        kinds = context.service.catalogue.kinds
        guesses = [kinds[each].plural for each in error.data.get("did_you_mean", ()) if each in kinds]
        hint = f"did you mean {guesses[0]!r}?" if guesses else "GET /v1/-/kinds lists them"
        raise NotFound(error.message, hint=hint, did_you_mean=guesses) from None


def _key(context: Context, call: Call) -> Key:
    name = call.params["name"]
    if name == "-":
        name = needed(call, "name")
    if call.params["plural"] == "-":
        kind = context.service.catalogue.classification(needed(call, "class")).kind
    else:
        kind = _kind(context, call.params["plural"]).name
    return context.service.key(kind, call.params["namespace"], name)


async def _content(context: Context, call: Call, key: Key) -> dict[str, Any]:
    """The document in the body, with the key of the path. What it says of its own key must agree."""
    content = await _sent(context, call, key)
    named = {"kind": key.kind, "namespace": key.namespace, "name": key.name}
    for field, wanted in named.items():
        if field not in content:
            continue
        said = content[field]
        if field == "kind" and isinstance(said, str):
            said = context.service.catalogue.kind(said).name
        if field == "name" and isinstance(said, str):
            said = context.service.key(key.kind, key.namespace, said).name
        if said != wanted:
            raise Invalid(f"the body says {field} {said!r:.80}, the path {wanted!r:.80}", path=field)
    return {**content, **named}


async def _sent(context: Context, call: Call, key: Key) -> dict[str, Any]:
    if call.request.content_type() != FORM_TYPE:
        return await json_object(call)
    pairs = await load_off_loop(form_pairs, call.request.body, DEFAULT_LIMITS)
    kind = kind_document(context.service.catalogue.kind(key.kind))
    return record_content(pairs, kind)


async def _guard(context: Context, call: Call, key: Key) -> int | None:
    """The revision at which alone the write may happen (0: only if there is none yet), from If-Match, If-None-Match."""
    wanted, unwanted = call.request.header("if-match"), call.request.header("if-none-match")
    if unwanted:
        if unwanted.strip() != "*" or wanted:
            raise UsageError("a write takes If-Match, or If-None-Match: *", hint="If-None-Match: * creates only")
        return 0
    if not wanted:
        return None
    tags = [each.strip() for each in wanted.split(",")]
    if len(tags) == 1 and (match := _ETAG.fullmatch(tags[0])):
        return int(match[1])
    # Several, or any: the current one is looked up, and the writer checks that it has not changed since.
    seen = await context.service.records.look(key)
    record = seen.record
    if record is None or ("*" not in tags and etag(record)[1] not in tags):
        found = f"is at revision {record.revision}" if record else "does not exist"
        raise PreconditionFailed(
            f"{key} {found}, not at {wanted[:60]}",
            hint='If-Match takes "REVISION", as in the ETag',
            head=seen.revision,
        )
    return record.revision


# --- many -----------------------------------------------------------------------------------------------------------


async def list_records(context: Context, call: Call) -> Response:
    """The records of one kind in one namespace."""
    kind = _kind(context, call.params["plural"])
    namespace = context.service.key(kind.name, call.params["namespace"], "any").namespace
    selector = selector_of(context, call.request)
    for said, own in ((selector.kinds, kind.name), (selector.namespaces, namespace)):
        if said and own not in said:
            raise UsageError(f"the selector names {said[0]!r}, the path {own!r}", hint="use GET /v1/-/records")
    return await _page(context, call, msgspec.structs.replace(selector, kinds=(kind.name,), namespaces=(namespace,)))


async def all_records(context: Context, call: Call) -> Response:
    """Records over kinds and namespaces; those of `system` only when it is named."""
    return await _page(context, call, selector_of(context, call.request))


async def find_records(context: Context, call: Call) -> Response:
    """All records that `[kind/]name` may mean."""
    reference, namespace = needed(call, "name"), call.request.value("namespace") or None
    before = (await context.service.log.head()).revision
    for _ in range(_LOOKS):
        found = await context.service.find(reference, namespace)
        after = (await context.service.log.head()).revision
        if before == after:  # nothing was written meanwhile, so all of it is of one state
            return records_response(context, found, revision=after)
        before = after
    return records_response(context, await context.service.find(reference, namespace))


async def _page(context: Context, call: Call, selector: Selector) -> Response:
    limit = call.request.integer("limit", PAGE, 1, MOST_IN_PAGE)
    page = await context.service.list(selector, limit=limit, page=call.request.value("page") or None)
    return records_response(context, page.records, revision=page.revision, more=page.next)


def selector_of(context: Context, request: Request) -> Selector:
    """What the filters of a query select. Raises Invalid."""
    terms: list[str] = list(request.values("select"))
    for parameter, prefix in (
        ("kind", "kind="),
        ("namespace", "namespace="),
        ("name", "name="),
        ("class", "class="),
        ("field", "spec."),
    ):
        terms += [prefix + value.replace(",", "\\,") for value in request.values(parameter)]
    for value in request.values("label"):
        negated = "!" if value.startswith("!") else ""
        terms.append(f"{negated}labels.{value.removeprefix('!')}".replace(",", "\\,"))
    return parse_selector(terms, context.service.catalogue)


# --- in bulk --------------------------------------------------------------------------------------------------------


async def batch(context: Context, call: Call) -> Response:
    """Many operations, one revision, all or nothing."""
    body = await body_as(BatchBody, call, limits=BULK_LIMITS)
    written = await context.service.batch(
        body.operations,
        actor=call.who,
        message=body.message,
        strict=body.strict,
        once=call.once_as(written_many),
    )
    return written_many(written)


async def apply(context: Context, call: Call) -> Response:
    """Make all records what the documents say, in one revision. `mode=merge` keeps what they do not mention."""
    written = await context.service.batch(
        await documents_to_apply(call),
        actor=call.who,
        message=call.request.value("message"),
        strict=call.request.flag("strict"),
        once=call.once_as(written_many),
    )
    return written_many(written)


async def documents_to_apply(call: Call) -> list[Document]:
    """The documents of the body as operations, by `mode`. Raises UsageError, TooLarge, Invalid."""
    mode = call.request.value("mode", "put")
    if mode not in ("put", "merge"):
        raise UsageError(f"mode is {mode[:40]!r}", hint="put (each document is the whole record) or merge")
    documents = await _documents(call)
    if len(documents) > MOST_DOCUMENTS:
        raise TooLarge(f"{len(documents)} documents", hint=f"at most {MOST_DOCUMENTS} at once", limit=MOST_DOCUMENTS)
    for position, each in enumerate(documents):
        if not isinstance(each, dict) or "op" in each:
            raise Invalid(f"document {position} is not a record", hint='it begins like {"kind": ..., "name": ...}')
    return [{**each, "op": mode} for each in documents]


async def _documents(call: Call) -> list[Any]:
    content_type = call.request.content_type()
    if content_type in YAML_TYPES:
        # Slow to parse (pure Python): at most 1 MiB, and always in a thread beyond a few pages.
        loaded: list[Any] = await load_off_loop(load_yaml, call.request.body, DEFAULT_LIMITS)
        return loaded
    if content_type == NDJSON_TYPE:
        lines: list[Any] = await load_off_loop(_all_lines, call.request.body, BULK_LIMITS)
        return lines
    value = await json_body(call, limits=BULK_LIMITS)
    return value if isinstance(value, list) else [value]


def _all_lines(body: bytes, *, limits: Limits) -> list[Any]:
    return list(load_ndjson(body, limits=limits))


async def export(context: Context, call: Call) -> Response:
    """All selected records as NDJSON documents without `meta`, in order, of one revision; sealed secrets verbatim."""
    pages = context.service.pages(selector_of(context, call.request), size=MOST_IN_PAGE)
    first = await anext(pages)

    async def lines() -> AsyncGenerator[bytes, None]:
        async with aclosing(pages):
            yield _exported(first)
            async for page in pages:
                yield _exported(page)

    headers = (("content-type", NDJSON_TYPE), ("registry-revision", str(first.revision)))
    return Response(headers=headers, body=lines())


def _exported(page: Page) -> bytes:
    return b"".join(canonical(document(record, meta=False)) + b"\n" for record in page.records)


# --- the catalogue --------------------------------------------------------------------------------------------------


async def kinds(context: Context, _: Call) -> Response:
    """All kinds, with how many records there are of each."""
    counts = await context.service.records.counts()
    known = context.service.catalogue.kinds.values()
    return json_response({"items": [{**kind_summary(kind), "records": counts.get(kind.name, 0)} for kind in known]})


async def kind(context: Context, call: Call) -> Response:
    """One kind: fields, classifications, an example, and the JSON Schema of its documents."""
    found = _kind(context, call.params["kind"])
    return json_response({**kind_document(found), "schema": json_schema(found)})


async def classes(context: Context, _: Call) -> Response:
    """All classifications."""
    found = [each for kind in context.service.catalogue.kinds.values() for each in kind.classifications]
    return json_response({"items": [class_document(each) for each in found]})
