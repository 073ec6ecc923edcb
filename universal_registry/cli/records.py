"""What the commands on records share: finding one, and how records look."""

from __future__ import annotations

from typing import Any

from universal_registry.cli.output import Column, Item, Shape
from universal_registry.cli.session import Session
from universal_registry.client.http import quote, record_path
from universal_registry.kernel.errors import Invalid, NotFound, UsageError
from universal_registry.kernel.ids import DEFAULT_NAMESPACE

_ENVELOPE = ("classification", "title", "description", "lifecycle", "expires_at", "health")
_TSV = (
    Column("NAME", "name"),
    Column("CLASSIFICATION", "classification"),
    Column("GENERATION", "meta.generation"),
    Column("REVISION", "meta.revision"),
    Column("UPDATED", "meta.updated_at"),
    Column("SPEC", "spec"),
)


def key_text(item: Item) -> str:
    """`kind/namespace/name`."""
    return f"{item['kind']}/{item['namespace']}/{item['name']}"


def record_shape(kind: Item, *, namespaces: bool) -> Shape:
    """How records of a kind look: the table with the columns of the catalogue, TSV with those of the API."""
    columns = [Column("NAME", "name", whole=True)]
    if namespaces:
        columns.append(Column("NAMESPACE", "namespace"))
    columns += [
        Column(name.upper(), name if name in _ENVELOPE else _spec_field(name)) for name in kind.get("columns", ())
    ]
    return Shape(str(kind.get("plural", "records")), columns, lambda item: f"{item['kind']}/{item['name']}", _TSV)


def _spec_field(name: str) -> Any:
    return lambda item: item["spec"].get(name)


def split_reference(kind: str, name: str | None) -> tuple[str, str | None]:
    """`KIND/NAME` in one word is understood too: no kind has a slash in its name."""
    if name is None and "/" in kind:
        kind, _, name = kind.partition("/")
    return kind, name


def kind_of(session: Session, kind: str) -> Item:
    """All that the catalogue says of a kind. Raises NotFound with "did you mean"."""
    found: Item = session.read(f"/v1/-/kinds/{quote(kind)}")
    return found


def fetch(session: Session, kind: str, name: str, namespace: str | None, rev: int | None = None) -> Item:
    """The record of that name: in the namespace given, else in `default`, else the only one that there is elsewhere.

    `rev`: as it was at that revision, in the namespace given or `default`. Raises NotFound, UsageError listing the
    candidates.
    """
    if rev is not None:
        then: Item = session.read(record_path(namespace or DEFAULT_NAMESPACE, kind, name), rev=rev)
        return then
    try:
        found: Item = session.read(record_path(namespace or DEFAULT_NAMESPACE, kind, name))
        return found
    except NotFound:
        elsewhere = [] if namespace else find_elsewhere(session, kind, name)
        if not elsewhere:
            raise
    if len(elsewhere) > 1:
        places = ", ".join(item["namespace"] for item in elsewhere[:10])
        raise UsageError(
            f"{kind} {name!r:.80} is in {len(elsewhere)} namespaces: {places}",
            hint=f"say which: -n {elsewhere[0]['namespace']}",
        )
    return elsewhere[0]


def find_elsewhere(session: Session, kind: str, name: str) -> list[Item]:
    """The records of that kind and exactly that name in all namespaces but `system`."""
    glob = "".join("\\" + char if char in "*?\\" else char for char in name)
    try:
        return list(session.items("/v1/-/records", {"kind": kind, "name": glob}))
    except (Invalid, NotFound):  # the kind is unknown: what was said of that first is the better message
        return []
