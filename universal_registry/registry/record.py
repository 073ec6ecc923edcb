"""The record: what every kind has in common, and the document in which people write it."""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256
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


class Content(msgspec.Struct, frozen=True, kw_only=True):
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


class Record(Content, frozen=True, kw_only=True):
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


def content_of(record: Record) -> Content:
    """The part that a writer decides."""
    return Content(**{field: getattr(record, field) for field in CONTENT_FIELDS})


def fingerprint(content: Content) -> str:
    """SHA-256 (hex) over the content: equal content, equal fingerprint. The no-op test, the ETag and the commitment."""
    fields = {field: getattr(content, field) for field in CONTENT_FIELDS}
    fields["spec"] = commitment_view(content.spec)
    return sha256(canonical(fields)).hexdigest()


def document(record: Record, *, meta: bool = True) -> dict[str, Any]:
    """The record as people read and write it. Empty optional fields are left out; system fields stand under `meta`."""
    shown: dict[str, Any] = {
        "kind": record.kind,
        "namespace": record.namespace,
        "name": record.name,
        "classification": record.classification,
    }
    for field in ("title", "description", "labels", "annotations"):
        if value := getattr(record, field):
            shown[field] = value
    shown["spec"] = record.spec
    if record.lifecycle != Lifecycle.ACTIVE:
        shown["lifecycle"] = record.lifecycle
    for field in ("health", "expires_at"):
        if (value := getattr(record, field)) is not None:
            shown[field] = value
    if meta:
        shown["meta"] = {field: getattr(record, field) for field in META_FIELDS}
    return shown


_decoder = msgspec.json.Decoder(Record)
_encoder = msgspec.json.Encoder(order="sorted")


def encode_record(record: Record) -> bytes:
    """The body of a log line: canonical JSON of all fields."""
    return _encoder.encode(record)


def decode_record(body: bytes) -> Record:
    """The record in a log line's body."""
    return _decoder.decode(body)
