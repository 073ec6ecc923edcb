"""The registry as its fronts see it: documents in, committed results out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any, NamedTuple, Protocol

import msgspec
import orjson

from universal_registry.kernel.errors import Corrupt, Invalid, NotFound, TooLarge, UsageError
from universal_registry.kernel.ids import NAME_BYTES, Key, check_name
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.kernel.world import World
from universal_registry.log.change import Change, Op
from universal_registry.log.cursor import Cursor
from universal_registry.registry.catalogue import Catalogue
from universal_registry.registry.drafts import Document, Draft, DraftReader
from universal_registry.registry.operation import Committed, Delete, Emit, Merge, Operation, Put, Request, Result
from universal_registry.registry.ports import LogReader, Page, RecordReader, RecordWriter
from universal_registry.registry.record import Record
from universal_registry.registry.selector import Selector
from universal_registry.registry.validate import validate_spec
from universal_registry.registry.words import near, shown
from universal_registry.security.cipher import Sealer, redact_secrets

MOST_OPERATIONS = 10_000
_MOST_MESSAGE = 1000


class Actor(msgspec.Struct, frozen=True):
    """Who asks. `name` goes into the log, as `uid:0` or `token:admin`."""

    name: str
    admin: bool = False


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What a write came to: its revision, the cursor there, a result per operation, and warnings for people."""

    revision: int
    cursor: str
    results: tuple[Result, ...]
    warnings: tuple[str, ...] = ()


class EventBody(NamedTuple):
    """What an event line says: the session it belongs to, the targets it is for, and the payload in clear."""

    session: str
    audience: tuple[str, ...]
    payload: Any


class Committer(RecordWriter, Protocol):
    """The writer, which also wakes listeners."""

    def on_commit(self, listener: Callable[[], None]) -> None: ...


class RegistryService:
    """All verbs on records. It validates and seals, asks the writer, and reads; it holds no state of its own."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        sealer: Sealer,
        writer: Committer,
        records: RecordReader,
        log: LogReader,
        world: World,
    ) -> None:
        self.catalogue = catalogue
        self.world = world
        self.records = records
        self.log = log
        self._sealer = sealer
        self._writer = writer
        self._drafts = DraftReader(catalogue, sealer)

    # --- writes --------------------------------------------------------------------------------------------------

    async def put(
        self,
        document: Document,
        *,
        actor: Actor,
        message: str = "",
        if_revision: int | None = None,
        strict: bool = False,
    ) -> Written:
        """Make the record exactly this. Raises Invalid, PreconditionFailed, StorageUnavailable."""
        operation, warnings = self._put(document, if_revision, strict)
        return _written(await self._submit([operation], actor, message), warnings)

    async def merge(
        self,
        document: Document,
        *,
        actor: Actor,
        message: str = "",
        if_revision: int | None = None,
        strict: bool = False,
    ) -> Written:
        """Create the record, or merge into it (null removes). Raises as `put`."""
        committed = await self._submit([self._merge(document, if_revision, strict)], actor, message)
        return _written(committed, self._warnings(committed.results))

    async def delete(
        self, key: Key, *, actor: Actor, message: str = "", if_revision: int | None = None, missing_ok: bool = False
    ) -> Written:
        """Remove the record. Raises NotFound, PreconditionFailed."""
        operation = Delete(key=key, if_revision=if_revision, missing_ok=missing_ok)
        return _written(await self._submit([operation], actor, message), ())

    async def batch(
        self, operations: Sequence[Document], *, actor: Actor, message: str = "", strict: bool = False
    ) -> Written:
        """Many operations, one revision, all or nothing. Each is `{"op": "put" | "merge" | "delete", ...document}`.

        An Invalid of one names its place in `data["index"]`.
        """
        if len(operations) > MOST_OPERATIONS:
            raise TooLarge(f"{len(operations)} operations", hint=f"at most {MOST_OPERATIONS} in one batch")
        made: list[Operation] = []
        warnings: list[str] = []
        for index, document in enumerate(operations):
            try:
                operation, more = self._operation(document, strict)
            except Invalid as error:
                raise Invalid(
                    f"operation {index}: {error.message}", hint=error.hint, **{**error.data, "index": index}
                ) from None
            made.append(operation)
            warnings.extend(more)
        committed = await self._submit(made, actor, message)
        merged = {operation.key for operation in made if isinstance(operation, Merge)}
        late = self._warnings([result for result in committed.results if result.key in merged])
        return _written(committed, (*warnings, *late))

    async def emit(
        self, key: Key, payload: Any, *, audience: Sequence[str], session: str, actor: Actor, message: str = ""
    ) -> Written:
        """Write an event line from `key` to the targets of `audience` ("namespace/name"); the payload is sealed."""
        event_uid = self.world.new_id()
        data = canonical(payload)
        sealed = self._sealer.seal(data, _event_context(event_uid))
        body = canonical({"session": session, "audience": list(audience), "payload": sealed})
        commitment = self._sealer.mac(data)
        operation = Emit(key=key, event_uid=event_uid, body=body, commitment=commitment)
        return _written(await self._submit([operation], actor, message), ())

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each commit that made a revision."""
        self._writer.on_commit(listener)

    async def _submit(self, operations: Sequence[Operation], actor: Actor, message: str) -> Committed:
        if len(message) > _MOST_MESSAGE:
            raise Invalid(f"the message is {len(message)} characters long", hint=f"at most {_MOST_MESSAGE}")
        at = self.world.now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        txn_id = self.world.new_id()
        return await self._writer.submit(
            Request(operations=tuple(operations), actor=actor.name, txn_id=txn_id, at=at, message=message)
        )

    def _operation(self, document: Any, strict: bool) -> tuple[Operation, Sequence[str]]:
        if type(document) is not dict:
            raise Invalid(f"an operation is an object, not {shown(document)}")
        fields = {name: value for name, value in document.items() if name != "op"}
        match document.get("op", "put"):
            case "put":
                return self._put(fields, None, strict)
            case "merge":
                return self._merge(fields, None, strict), ()
            case "delete":
                key = self.key(*(fields.get(name, "default") for name in ("kind", "namespace", "name")))
                return Delete(key=key), ()
            case other:
                raise Invalid(f"unknown op {shown(other)}", hint="put, merge or delete", path="op")

    def _put(self, document: Document, if_revision: int | None, strict: bool) -> tuple[Put, Sequence[str]]:
        draft = self._drafts.read(document, strict=strict)
        operation = Put(
            key=draft.key,
            content=draft.content(),
            fresh_uid=self.world.new_id(),
            if_revision=_first(if_revision, draft),
        )
        return operation, draft.warnings

    def _merge(self, document: Document, if_revision: int | None, strict: bool) -> Merge:
        draft = self._drafts.read(document, strict=strict, partial=True)
        return Merge(
            key=draft.key,
            fields=draft.fields,
            default_classification=draft.default_classification,
            fresh_uid=self.world.new_id(),
            strict=strict,
            if_revision=_first(if_revision, draft),
        )

    def _warnings(self, results: Sequence[Result]) -> tuple[str, ...]:
        found: list[str] = []
        for result in results:
            if result.record is not None:
                kind = self.catalogue.kinds[result.key.kind]
                found.extend(validate_spec(kind, result.record.classification, result.record.spec, strict=False))
        return tuple(found)

    # --- reads ---------------------------------------------------------------------------------------------------

    def key(self, kind: str, namespace: str, name: str) -> Key:
        """The checked key. Raises Invalid."""
        return self._drafts.key(kind, namespace, name)

    async def get(self, key: Key) -> Record:
        """The record. Raises NotFound, with the names it may have been meant for."""
        record = await self.records.get(key)
        if record is not None:
            return record
        page = await self.records.select(Selector(kinds=(key.kind,), namespaces=(key.namespace,)), limit=500)
        guesses = near(key.name, tuple(each.name for each in page.records))
        raise NotFound(
            f"there is no {key.kind} {key.name!r} in namespace {key.namespace}",
            hint=f"did you mean {guesses[0]!r}?" if guesses else f"see: ureg get {key.kind}",
            did_you_mean=guesses,
        )

    async def find(self, reference: str, namespace: str | None = None) -> Sequence[Record]:
        """All records that `[kind/]name` may mean. A name may hold slashes: the kind counts only if there is one."""
        head, slash, rest = reference.partition("/")
        found: list[Record] = []
        if not slash or len(reference.encode(errors="replace")) <= NAME_BYTES:
            found += await self.records.find(check_name(reference), namespace)
        if slash and rest:
            try:
                kind = self.catalogue.kind(head).name
            except Invalid:
                check_name(reference)
                return found
            found += [record for record in await self.records.find(check_name(rest), namespace) if record.kind == kind]
        return found

    async def find_one(self, reference: str, namespace: str | None = None) -> Record | None:
        """The one record that is meant; None when there is none. Several: UsageError listing the candidates."""
        found = await self.find(reference, namespace)
        if len(found) > 1:
            names = [f"{record.kind}/{record.name} ({record.namespace})" for record in found]
            raise UsageError(
                f"{shown(reference)} may mean {len(found)} records: {', '.join(names[:10])}",
                hint="write kind/name, and the namespace if need be",
                candidates=names,
            )
        return found[0] if found else None

    async def list(self, selector: Selector, *, limit: int, page: str | None = None) -> Page:
        """Selected records in order of (kind, namespace, name)."""
        return await self.records.select(selector, limit=limit, page=page)

    async def changes(self, after: Cursor | None, limit: int) -> tuple[Sequence[Change], Cursor]:
        """Whole revisions after the cursor (None: from the beginning), and the cursor behind them.

        Raises CursorMismatch with `data["cursor"]`.
        """
        if after is not None:
            await self.log.check_cursor(after)
        lines = await self.log.changes(after.revision if after else 0, limit)
        if not lines:
            return lines, after or Cursor((await self.log.head()).incarnation, 0, bytes(4).hex())
        last = lines[-1]
        return lines, Cursor((await self.log.head()).incarnation, last.revision, last.hash[:4].hex())

    # --- secrets -------------------------------------------------------------------------------------------------

    def shown(self, record: Record) -> Record:
        """The record as it may leave: each secret as `{"$secret": "kept"}`."""
        paths = self.catalogue.kinds[record.kind].secret_paths
        return msgspec.structs.replace(record, spec=redact_secrets(record.spec, paths)) if paths else record

    def reveal(self, record: Record) -> dict[str, Any]:
        """The spec with its secrets in clear, for signing and for routes that may include them. Raises Corrupt."""
        paths = self.catalogue.kinds[record.kind].secret_paths
        return self._sealer.reveal_secrets(record.spec, paths, str(record.key))

    def open_event(self, change: Change) -> EventBody:
        """What an event line says. Raises Corrupt when its seal does not open."""
        assert change.op is Op.EVENT
        if change.body is None:
            raise Corrupt(f"the payload of event {change.revision}.{change.seq} is gone")
        body = orjson.loads(change.body)
        payload = orjson.loads(self._sealer.open(body["payload"], _event_context(change.uid)))
        return EventBody(body["session"], tuple(body["audience"]), payload)


def _event_context(event_uid: str) -> str:
    # Not the revision: the payload is sealed before the writer gives it one. The line's uid is as unique.
    return f"changes\n{event_uid}\npayload"


def _first(if_revision: int | None, draft: Draft) -> int | None:
    return draft.if_revision if if_revision is None else if_revision


def _written(committed: Committed, warnings: Sequence[str]) -> Written:
    return Written(
        revision=committed.revision,
        cursor=str(committed.cursor),
        results=committed.results,
        warnings=tuple(dict.fromkeys(warnings)),
    )
