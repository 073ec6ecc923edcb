"""The record: what every kind has in common, and the document in which people write it."""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256
from operator import attrgetter
from typing import Any

import msgspec

from universal_registry.kernel.ids import Key
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.security.cipher import commitment_view


class Lifecycle(StrEnum):
    """How far along a record is."""

    DRAFT = "draft"
    ACTIVE = "active"
    DEPRECATED = "deprecated"
    RETIRED = "retired"


class Content(msgspec.Struct, frozen=True, kw_only=True, gc=False):  # plain data: nothing in it leads back to it
    """What a writer decides about a record. Secrets in `spec` are `{"$sealed", "$mac"}` or `{"$secret": "kept"}`."""

    classification: str
    title: str = ""
    description: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    spec: dict[str, Any] = {}
    lifecycle: str = Lifecycle.ACTIVE
    health: dict[str, Any] | None = None
    expires_at: str | None = None


class Record(Content, frozen=True, kw_only=True, gc=False):
    """A record as it is stored. `generation` counts its own changes from 1; `revision` is that of the latest."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    revision: int
    created_revision: int
    created_at: str
    updated_at: str
    created_by: str
    updated_by: str
    managers: dict[str, Any] = {}
    fingerprint: str

    @property
    def key(self) -> Key:
        return Key(self.kind, self.namespace, self.name)


CONTENT_FIELDS = Content.__struct_fields__
META_FIELDS = (
    "uid",
    "generation",
    "revision",
    "created_revision",
    "created_at",
    "updated_at",
    "created_by",
    "updated_by",
    "fingerprint",
)
_meta_values = attrgetter(*META_FIELDS)


def content_values(content: Content) -> tuple[Any, ...]:
    """The values of CONTENT_FIELDS, in order."""
    return (
        content.classification,
        content.title,
        content.description,
        content.labels,
        content.annotations,
        content.spec,
        content.lifecycle,
        content.health,
        content.expires_at,
    )


def content_of(record: Record) -> Content:
    """The part that a writer decides."""
    return Content(**dict(zip(CONTENT_FIELDS, content_values(record), strict=True)))


def fingerprint(content: Content) -> str:
    """SHA-256 (hex) over the content: equal content, equal fingerprint. The no-op test, the ETag and the commitment."""
    fields = {
        "classification": content.classification,
        "title": content.title,
        "description": content.description,
        "labels": content.labels,
        "annotations": content.annotations,
        "spec": content.spec,
        "lifecycle": content.lifecycle,
        "health": content.health,
        "expires_at": content.expires_at,
    }
    text = canonical(fields)
    if b"$" in text and b'$sealed"' in text:  # seldom, and then perhaps only in a text; one byte is found faster
        fields["spec"] = commitment_view(content.spec)
        text = canonical(fields)
    return sha256(text).hexdigest()


def document(record: Record, *, meta: bool = True) -> dict[str, Any]:
    """The record as people read and write it. Empty optional fields are left out; system fields stand under `meta`."""
    shown: dict[str, Any] = {
        "kind": record.kind,
        "namespace": record.namespace,
        "name": record.name,
        "classification": record.classification,
    }
    if record.title:
        shown["title"] = record.title
    if record.description:
        shown["description"] = record.description
    if record.labels:
        shown["labels"] = record.labels
    if record.annotations:
        shown["annotations"] = record.annotations
    shown["spec"] = record.spec
    if record.lifecycle != Lifecycle.ACTIVE:
        shown["lifecycle"] = record.lifecycle
    if record.health is not None:
        shown["health"] = record.health
    if record.expires_at is not None:
        shown["expires_at"] = record.expires_at
    if meta:
        shown["meta"] = dict(zip(META_FIELDS, _meta_values(record), strict=True))
    return shown


_decoder = msgspec.json.Decoder(Record)
_encoder = msgspec.json.Encoder(order="sorted")


def encode_record(record: Record) -> bytes:
    """The body of a log line: canonical JSON of all fields."""
    return _encoder.encode(record)


def decode_record(body: bytes) -> Record:
    """The record in a log line's body."""
    return _decoder.decode(body)
