"""Answers for shells, which read no JSON: cells that end with a tab, a line end or a NUL. Pure.

Whatever a handler answers as one JSON value, and every problem, is written so when the Accept header asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from universal_registry.api.http import JSON_TYPE, NUL_TYPE, PROBLEM_TYPE, TSV_TYPE, Request, Response
from universal_registry.kernel.errors import RegistryError
from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.kernel.visible import escaped

COLUMN = "column"
"""The query parameter that chooses the cells: a path, and `[]` behind it for the items of a list between line ends."""
Path = str | Callable[[Any], Any]


def _target(item: Any) -> str:
    """A target's name, as commands know it."""
    return str(item["target"] or "").removeprefix(f"{SYSTEM_NAMESPACE}/")


def _trouble(item: Any) -> Any:
    return item["reason"] or (item["lane"] or {}).get("last_error")


def _source(item: Any) -> Any:
    return item["source"] or item["route"]


def _progress(item: Any) -> list[str]:
    return [f"{_target(each)}:{each['state']}" for each in item["targets"]]


RECORD = ("name", "classification", "meta.generation", "meta.revision", "meta.updated_at", "spec")
DELIVERY = ("key", "revision", _target, "state", "attempts", "next_at", "reason", "delivery")
TABLES: Mapping[str, tuple[Path, ...]] = {
    "/v1/{namespace}/{plural}": RECORD,
    "/v1/{namespace}/{plural}/{name}": RECORD,
    "/v1/-/records": RECORD,
    "/v1/-/find": RECORD,
    "/v1/-/history": ("revision", "op", "generation", "at", "actor", "message", "changed"),
    "/v1/-/consumers": ("name", "cursor", "lag"),
    "/v1/-/kinds": ("name", "plural", "family", "records", "doc"),
    "/v1/-/classes": ("name", "kind", "parent", "doc"),
    "/v1/-/streams": ("stream", "protocol", "open", "in.messages", "out.messages", "in.bytes", "out.bytes"),
    "/v1/-/targets": (
        _target, "state", "lane.breaker", "lane.queued", "lane.dead", "drift.unread_lines", "lane.delivered", "url",
        _trouble,
    ),
    "/v1/-/routes": ("route", "source", "mode", "targets"),
    "/v1/-/sessions": ("session", "state", "mode", _source, _progress, "standing"),
    "/v1/-/where": (_target, "state", "arrived_revision", "wanted_revision", "reason"),
    "/v1/-/deliveries": DELIVERY,
    "/v1/-/deliveries/{id}/attempts": ("number", "at", "outcome", "status", "milliseconds", "reason"),
    "/v1/-/peers": ("peer", "node", "state", "scope", "behind", "reason"),
    "/v1/-/conflicts": ("kind", "namespace", "name"),
    "/v1/-/nexus/bindings": ("binding", "studio", "entry", "components", "direction", "protocol"),
    "/v1/-/nexus/history": ("entry", "component", "direction", "way", "revision", "status", "reason", "created_at"),
    "/v1/-/tokens": ("name", "scopes", "expires_at"),
    "/v1/-/audit": ("at", "actor", "action", "subject", "details"),
}  # fmt: skip
"""The columns of lists, and of a record in a line: those of targets, sessions and deliveries are the same that `ureg`
writes with `-o tsv`. A list that is not here has a single one: the item as JSON."""
_INNER = {"/v1/-/where": "targets"}
"""Lists of which each item holds the rows."""
_TYPES = (TSV_TYPE, NUL_TYPE)
# What JSON lets stand in its strings, and a line for people should not: written so that it stays JSON.
_ODD = re.compile("[\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def shell_type(request: Request) -> str:
    """The media type for shells that the request asks for; empty when it asks for none."""
    if "accept" not in request.headers:
        return ""
    return next((each for each in _TYPES if request.accepts(each)), "")


def for_shell(response: Response, request: Request, pattern: str) -> Response:
    """The answer in the form that the request asks for, if it asks and the answer is JSON. `pattern`: of the route that
    was read, empty for a write."""
    wanted = shell_type(request)
    if not wanted or not isinstance(response.body, bytes) or response.header("content-type") != JSON_TYPE:
        return response
    rows = _rows(orjson.loads(response.body), request.values(COLUMN), pattern, pairs=wanted == NUL_TYPE)
    return _answer(response, wanted, rows)


def problem_for_shell(response: Response, error: RegistryError, request: Request) -> Response:
    """The answer that tells of an error, in four cells: exit code, code, detail, hint. Whoever also accepts problem
    documents is given one."""
    wanted = shell_type(request)
    if not wanted or request.accepts(PROBLEM_TYPE):
        return response
    hint = "`ureg kinds` lists them" if (error.hint or "").startswith("GET /v1/-/kinds ") else error.hint or ""
    return _answer(response, wanted, [(str(error.exit_code), error.code, error.message, hint)])


def _answer(response: Response, wanted: str, rows: Iterable[Sequence[str]]) -> Response:
    if wanted == NUL_TYPE:
        text = "".join(cell.replace("\0", "") + "\0" for row in rows for cell in row)
    else:
        text = "".join("\t".join(map(escaped, row)) + "\n" for row in rows)
    others = tuple(pair for pair in response.headers if pair[0].lower() != "content-type")
    body = text.encode("utf-8", "replace")
    return Response(status=response.status, headers=(("content-type", f"{wanted}; charset=utf-8"), *others), body=body)


def _rows(value: Any, columns: list[str], pattern: str, *, pairs: bool) -> Iterator[Sequence[str]]:
    items = value.get("items") if isinstance(value, dict) else value
    if isinstance(items, list):
        paths = columns or TABLES.get(pattern, ("",))
        for item in _unfolded(items, _INNER.get(pattern, "")):
            yield [_cell(item, path) for path in paths]
    elif columns or (pattern in TABLES and not pairs):
        yield [_cell(value, path) for path in columns or TABLES[pattern]]
    else:
        yield from ((path, _text(leaf)) for path, leaf in _leaves(value, ""))


def _unfolded(items: list[Any], inner: str) -> Iterator[Any]:
    for item in items:
        if not inner:
            yield item
            continue
        for row in item[inner]:
            yield {**item, **row}


def _cell(item: Any, path: Path) -> str:
    """What stands at a path of names and numbers between dots; empty when there is nothing. A name may hold dots."""
    if callable(path):
        return _text(path(item))
    plain = path.removesuffix("[]")
    found = _at(item, plain)
    if plain != path and isinstance(found, list):
        return "\n".join(map(_text, found))
    return _text(found)


def _at(value: Any, path: str) -> Any:
    if not path:
        return value
    if isinstance(value, dict):
        if path in value:
            return value[path]
        head, dot, rest = path.partition(".")
        return _at(value[head], rest) if dot and head in value else None
    if isinstance(value, list):
        head, _, rest = path.partition(".")
        inside = head.isascii() and head.isdigit() and len(head) < 7 and int(head) < len(value)
        return _at(value[int(head)], rest) if inside else None
    return None


def _text(value: Any) -> str:
    """Strings as they are, nothing for null, everything else as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    text = orjson.dumps(value).decode()
    return text if text.isascii() and text.isprintable() else _ODD.sub(lambda odd: f"\\u{ord(odd[0]):04x}", text)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}" if path else name)
    else:
        yield path, value
