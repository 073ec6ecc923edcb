"""What a studio may ask of the registry: each tool with its arguments, and the requests of the HTTP API that it makes.

Nothing here knows the protocol by which studios ask (`server.py` does): arguments in, a JSON value out. Whatever writes
only says what it would do, unless `dry_run` is false.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from universal_registry.client.http import Caller, record_path
from universal_registry.kernel.errors import Invalid, NotFound
from universal_registry.kernel.ids import DEFAULT_NAMESPACE, check_namespace
from universal_registry.registry.finding import folded, places_of

_PAGE = 1000
_NEW_TARGET = "a target was made; ureg target secret show NAME tells its secret to an administrator"
Limit = Annotated[int, msgspec.Meta(ge=1, le=1000, description="At most this many.")]
Namespace = Annotated[str | None, msgspec.Meta(description="Where the record is; `default` if absent.")]
Named = Annotated[str, msgspec.Meta(description="The record, as NAME or KIND/NAME.")]
Kind = Annotated[str, msgspec.Meta(description="The kind, such as alias, service, tool or prompt.")]
Name = Annotated[str, msgspec.Meta(description="The name, exact.")]
Documents = Annotated[
    list[dict[str, Any]],
    msgspec.Meta(description='Records as {"kind", "name", "namespace"?, "classification"?, "spec", "labels"?}.'),
]
Message = Annotated[str | None, msgspec.Meta(description="Why, for the log.")]
DryRun = Annotated[bool, msgspec.Meta(description="Only say what it would do. False does it.")]


class Arguments(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a tool is called with; an argument that it does not know is refused."""


class GetArguments(Arguments):
    """A record by kind and name; all that a name may mean; or, without a name, records of a kind."""

    kind: Annotated[str | None, msgspec.Meta(description="The kind; absent: whatever has that name.")] = None
    name: Annotated[str | None, msgspec.Meta(description="The name; absent: list records of the kind.")] = None
    namespace: Namespace = None
    revision: Annotated[int | None, msgspec.Meta(description="As it was then, also if it is gone.")] = None
    limit: Limit = 100
    page: Annotated[str | None, msgspec.Meta(description="`next` of the page before.")] = None


class SearchArguments(Arguments):
    """All words must be in a record."""

    words: Annotated[list[str], msgspec.Meta(min_length=1, max_length=20, description="Words, or parts of words.")]
    kind: Annotated[str | None, msgspec.Meta(description="Only records of this kind.")] = None
    namespace: Annotated[str | None, msgspec.Meta(description="Only there; absent: all but `system`.")] = None
    limit: Limit = 100


class Reference(Arguments):
    """A record that is to be deleted."""

    kind: Kind
    name: Name
    namespace: Namespace = None


class DiffArguments(Arguments):
    """The same as of apply."""

    documents: Documents = []
    mode: Annotated[
        Literal["put", "merge"], msgspec.Meta(description="put: a document is the whole record; merge: part of it.")
    ] = "put"
    delete: Annotated[list[Reference], msgspec.Meta(description="Records to delete.")] = []
    strict: Annotated[bool, msgspec.Meta(description="Refuse fields that a kind does not declare.")] = False


class ApplyArguments(DiffArguments):
    """All of it in one revision, or nothing."""

    message: Message = None
    dry_run: DryRun = True


class HistoryArguments(Reference):
    """Newest first."""

    before: Annotated[int | None, msgspec.Meta(description="`next` of the page before.")] = None
    limit: Limit = 20


class PropagateArguments(Arguments):
    """Without data: the state and each later change. With data: that event, once."""

    source: Annotated[str, msgspec.Meta(description="KIND/NAME, NAME, or a selector such as kind=alias.")]
    mode: Annotated[
        Literal["unidirectional", "bidirectional", "multicast", "broadcast", "chain", "mesh", "fanout"],
        msgspec.Meta(description="Who gets it, and in which order."),
    ] = "unidirectional"
    targets: Annotated[list[str], msgspec.Meta(description="Names of targets or peers; none for broadcast.")] = []
    exclude: Annotated[list[str], msgspec.Meta(description="Of a broadcast: who is left out.")] = []
    data: Annotated[Any, msgspec.Meta(description="An event: any JSON value.")] = None
    once: Annotated[bool, msgspec.Meta(description="The state now, and no later change.")] = False
    dry_run: DryRun = True


class NamedArguments(Arguments):
    """Every record of that name, or the one of a kind and namespace."""

    name: Named
    namespace: Annotated[str | None, msgspec.Meta(description="Only the record there.")] = None


class WaitArguments(Arguments):
    """Without a cursor the answer comes at once, and holds the cursor to begin at."""

    cursor: Annotated[str | None, msgspec.Meta(description="`cursor` of the answer before.")] = None
    timeout: Annotated[float, msgspec.Meta(ge=0, le=60, description="Seconds to wait, at most.")] = 20.0
    select: Annotated[list[str], msgspec.Meta(description="Selectors, such as kind=alias; all must hold.")] = []
    limit: Limit = 100


class Tool(NamedTuple):
    """`ask` makes the requests; None: the tool waits (`waiting.py`). `reads`: it changes nothing. `destroys`: it may
    overwrite or delete. `reaches_out`: what it does is felt outside of the registry."""

    name: str
    title: str
    description: str
    arguments: type[Arguments]
    ask: Callable[[Caller, Any], dict[str, Any]] | None
    reads: bool = True
    destroys: bool = False
    reaches_out: bool = False

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of its arguments."""
        _, found = msgspec.json.schema_components((self.arguments,), ref_template="#/$defs/{name}")
        schema: dict[str, Any] = found.pop(self.arguments.__name__)
        return {**schema, "$defs": found} if found else schema

    def read(self, arguments: dict[str, Any] | None) -> Arguments:
        """The arguments. Raises Invalid."""
        try:
            return msgspec.convert(arguments or {}, self.arguments)
        except msgspec.ValidationError as error:
            raise Invalid(
                f"the arguments of {self.name} do not fit: {error}", hint="tools/list has the schema"
            ) from None


def tool(name: str, tools: tuple[Tool, ...]) -> Tool:
    """The one of that name. Raises NotFound."""
    by_name = {each.name: each for each in tools}
    if name not in by_name:
        near = get_close_matches(name[:60], by_name, 1)
        hint = f"did you mean {near[0]!r}?" if near else "there are " + ", ".join(by_name)
        raise NotFound(f"there is no tool {name!r:.60}", hint=hint)
    return by_name[name]


# --- records --------------------------------------------------------------------------------------------------------


def record(caller: Caller, kind: str, name: str, namespace: str | None, revision: int | None = None) -> dict[str, Any]:
    """One record's document, secrets kept back. Raises NotFound, Invalid."""
    if not kind.strip() or kind == "-":
        raise Invalid(f"{kind!r} is no kind", hint="such as alias or service")
    path = record_path(check_namespace(namespace or DEFAULT_NAMESPACE), kind, name)
    found: dict[str, Any] = caller.request("GET", path, query={"rev": revision}).json()
    return found


def _get(caller: Caller, asked: GetArguments) -> dict[str, Any]:
    if asked.name is None:
        if asked.kind is None:
            raise Invalid("neither a kind nor a name is given", hint="give one of them, or both")
        query = {"kind": asked.kind, "namespace": asked.namespace, "limit": asked.limit, "page": asked.page}
        return _read(caller, "/v1/-/records", query)
    if asked.kind is None:
        return _read(caller, "/v1/-/find", {"name": asked.name, "namespace": asked.namespace})
    return record(caller, asked.kind, asked.name, asked.namespace, asked.revision)


def _search(caller: Caller, asked: SearchArguments) -> dict[str, Any]:
    wanted = [folded(word) for word in asked.words]
    if not all(word.strip() for word in wanted):
        raise Invalid("a word to search for is empty")
    found: list[dict[str, Any]] = []
    page: str | None = None
    while True:
        query = {"kind": asked.kind, "namespace": asked.namespace, "limit": _PAGE, "page": page}
        answer = _read(caller, "/v1/-/records", query)
        hits = ({"found_in": places, "record": item} for item in answer["items"] if (places := places_of(item, wanted)))
        found += list(hits)
        page = answer.get("next")
        if page is None or len(found) > asked.limit:
            return {"items": found[: asked.limit], "more": len(found) > asked.limit}


def _history(caller: Caller, asked: HistoryArguments) -> dict[str, Any]:
    query = {"kind": asked.kind, "name": asked.name, "namespace": asked.namespace}
    return _read(caller, "/v1/-/history", {**query, "before": asked.before, "limit": asked.limit})


def _diff(caller: Caller, asked: DiffArguments) -> dict[str, Any]:
    body = {"operations": _operations(asked), "strict": asked.strict}
    return {"dry_run": True, **_write(caller, "/v1/-/rehearse", body)}


def _apply(caller: Caller, asked: ApplyArguments) -> dict[str, Any]:
    if asked.dry_run:
        return _diff(caller, asked)
    body: dict[str, Any] = {"operations": _operations(asked), "strict": asked.strict}
    if asked.message is not None:
        body["message"] = asked.message
    return {"dry_run": False, **_write(caller, "/v1/batch", body)}


def _operations(asked: DiffArguments) -> list[dict[str, Any]]:
    if not asked.documents and not asked.delete:
        raise Invalid("neither documents nor records to delete are given")
    deleted = [
        {"op": "delete", "kind": each.kind, "name": each.name, "namespace": each.namespace or DEFAULT_NAMESPACE}
        for each in asked.delete
    ]
    return [*({**document, "op": asked.mode} for document in asked.documents), *deleted]


# --- propagation ----------------------------------------------------------------------------------------------------


def _propagate(caller: Caller, asked: PropagateArguments) -> dict[str, Any]:
    said = {"mode": asked.mode, "source": asked.source, "exclude": asked.exclude, "once": asked.once}
    if asked.dry_run:
        query = {**said, "target": asked.targets, "event": asked.data is not None}
        if asked.mode != "broadcast":
            del query["exclude"]
        return {"dry_run": True, **_read(caller, "/v1/-/propagate", query)}
    answer = _write(caller, "/v1/-/propagate", {**said, "targets": asked.targets, "data": asked.data})
    if "secret" in answer or "secrets" in answer:
        answer["notes"] = [*answer.get("notes", ()), _NEW_TARGET]
    answer.pop("secret", None)
    answer.pop("secrets", None)
    return {"dry_run": False, **answer}


def _explain_route(caller: Caller, asked: NamedArguments) -> dict[str, Any]:
    return _read(caller, "/v1/-/explain", {"name": asked.name, "namespace": asked.namespace})


def _where(caller: Caller, asked: NamedArguments) -> dict[str, Any]:
    return _read(caller, "/v1/-/where", {"name": asked.name, "namespace": asked.namespace})


def _read(caller: Caller, path: str, query: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = caller.request("GET", path, query=query).json()
    return found


def _write(caller: Caller, path: str, body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = caller.request("POST", path, json=body).json()
    return found


TOOLS = (
    Tool("get", "Get records", "A record, all records of a name, or a list of a kind. Secrets stay hidden.",
         GetArguments, _get),
    Tool("search", "Search records", "Records that hold some words, and where. Secrets are never looked into.",
         SearchArguments, _search),
    Tool("diff", "Foretell a write", "What apply would change, field by field. Stores nothing.",
         DiffArguments, _diff),
    Tool("apply", "Write records", "Create, replace, merge and delete records, all in one revision or none. Foretells "
         "only, unless dry_run is false; each change is then propagated, and can be undone.",
         ApplyArguments, _apply, reads=False, destroys=True, reaches_out=True),
    Tool("history", "History of a record", "Who did what to a record, when and why, also after it was deleted.",
         HistoryArguments, _history),
    Tool("propagate", "Propagate records", "Send a record and its later changes, or one event, to targets: durable, "
         "retried. Foretells only, unless dry_run is false.",
         PropagateArguments, _propagate, reads=False, reaches_out=True),
    Tool("explain_route", "Who gets a record",
         "Which targets would get a record, by which route, and why the others not.",
         NamedArguments, _explain_route),
    Tool("where", "Where a record has arrived",
         "Which targets have its newest revision, and what keeps it from others.",
         NamedArguments, _where),
    Tool("wait_for_changes", "Wait for changes", "Changes after a cursor, as soon as there are any; call it again with "
         "the new cursor. Nothing is left out between two calls.",
         WaitArguments, None),
)  # fmt: skip
