"""The registry as its fronts see it: documents in, committed results out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

import msgspec
import orjson

from universal_registry.kernel.errors import Corrupt, Invalid, NotFound, TooLarge, UsageError
from universal_registry.kernel.ids import NAME_BYTES, Key, check_name, check_namespace
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.kernel.world import World, utc_text
from universal_registry.log.change import Change, Op
from universal_registry.log.cursor import Cursor
from universal_registry.registry.answers import AnswerKeeper
from universal_registry.registry.catalogue import Catalogue
from universal_registry.registry.drafts import Document, DraftReader
from universal_registry.registry.history import record_at
from universal_registry.registry.newest import Newest
from universal_registry.registry.once import Once, Replayed, check_same, is_current
from universal_registry.registry.operation import Committed, Delete, Emit, Merge, Operation, Patch, Request, Result
from universal_registry.registry.operation_reader import OperationReader
from universal_registry.registry.ports import LogReader, Page, RecordReader, RecordWriter
from universal_registry.registry.record import Record
from universal_registry.registry.selector import Selector
from universal_registry.registry.tokens import check_may_write
from universal_registry.registry.validate import validate_spec
from universal_registry.registry.words import near, shown
from universal_registry.security.cipher import Sealer, redact_secrets
from universal_registry.security.ed25519 import SigningKey

MOST_OPERATIONS = 10_000
_MOST_MESSAGE = 1000


class Actor(msgspec.Struct, frozen=True):
    """Who asks. `name` goes into the log, as `uid:0` or `token:admin`. `scopes`: of a token; an admin needs none."""

    name: str
    admin: bool = False
    scopes: frozenset[str] = frozenset()

    def may(self, scope: str) -> bool:
        """Whether that scope is his. An administrator has all."""
        return self.admin or scope in self.scopes


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


class Found(NamedTuple):
    """A record, and the revision at which it was so."""

    record: Record
    revision: int


class Committer(RecordWriter, Protocol):
    """The writer, which also wakes listeners. `newest`: what it writes."""

    newest: Newest

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
        self.newest = writer.newest
        self._drafts = DraftReader(catalogue, sealer)
        self.operations = OperationReader(self._drafts, world)
        self._answers = AnswerKeeper(sealer)

    # --- writes --------------------------------------------------------------------------------------------------

    async def put(
        self,
        document: Document,
        *,
        actor: Actor,
        message: str = "",
        if_revision: int | None = None,
        strict: bool = False,
        once: Once | None = None,
    ) -> Written:
        """Make the record exactly this. Raises Invalid, PreconditionFailed, StorageUnavailable.

        With `once`, as on all writes: Replayed when a request of the actor with its key was done within a day.
        """
        operation, warnings = self.operations.put(document, if_revision, strict)
        return await self._submit([operation], actor, message, lambda done: _written(done, warnings), once)

    async def merge(
        self,
        document: Document,
        *,
        actor: Actor,
        message: str = "",
        if_revision: int | None = None,
        strict: bool = False,
        once: Once | None = None,
    ) -> Written:
        """Create the record, or merge into it (null removes). Raises as `put`."""
        operation = self.operations.merge(document, if_revision, strict)
        return await self._submit([operation], actor, message, self._validated, once)

    async def patch(
        self,
        key: Key,
        patch: Any,
        *,
        actor: Actor,
        message: str = "",
        if_revision: int | None = None,
        strict: bool = False,
        once: Once | None = None,
    ) -> Written:
        """Change the record by the steps of a JSON patch (RFC 6902), all or none. Raises NotFound, and as `put`."""
        steps = self._drafts.steps(key, patch)
        operation = Patch(key=key, steps=steps, strict=strict, if_revision=if_revision)
        return await self._submit([operation], actor, message, self._validated, once)

    async def delete(
        self,
        key: Key,
        *,
        actor: Actor,
        message: str = "",
        if_revision: int | None = None,
        missing_ok: bool = False,
        once: Once | None = None,
    ) -> Written:
        """Remove the record. Raises NotFound, PreconditionFailed."""
        operation = Delete(key=key, if_revision=if_revision, missing_ok=missing_ok)
        return await self._submit([operation], actor, message, _written, once)

    async def batch(
        self,
        operations: Sequence[Document],
        *,
        actor: Actor,
        message: str = "",
        strict: bool = False,
        once: Once | None = None,
    ) -> Written:
        """Many operations, one revision, all or nothing. Each: `{"op": "put", ...document}`, or merge, patch, delete.

        An Invalid of one names its place in `data["index"]`.
        """
        if len(operations) > MOST_OPERATIONS:
            raise TooLarge(f"{len(operations)} operations", hint=f"at most {MOST_OPERATIONS} in one batch")
        made, warnings = self.operations.read_all(operations, strict)
        merged = {operation.key for operation in made if isinstance(operation, Merge | Patch)}

        def written(done: Committed) -> Written:
            late = self.warnings_of([result for result in done.results if result.key in merged])
            return _written(done, (*warnings, *late))

        return await self._submit(made, actor, message, written, once)

    async def emit(
        self,
        key: Key,
        payload: Any,
        *,
        audience: Sequence[str],
        session: str,
        options: Mapping[str, str] | None = None,
        actor: Actor,
        message: str = "",
        once: Once | None = None,
    ) -> Written:
        """Write an event line from `key` to the targets of `audience` ("namespace/name"); the payload is sealed.

        `options`: how it is to be sent, in clear beside the audience; what they mean is propagation's.
        """
        event_uid = self.world.new_id()
        data = canonical(payload)
        sealed = self._sealer.seal(data, _event_context(event_uid))
        body = canonical({**(options or {}), "session": session, "audience": list(audience), "payload": sealed})
        operation = Emit(key=key, event_uid=event_uid, body=body, commitment=self._sealer.mac(data))
        return await self._submit([operation], actor, message, _written, once)

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each commit that made a revision."""
        self._writer.on_commit(listener)

    async def _submit(
        self,
        operations: Sequence[Operation],
        actor: Actor,
        message: str,
        written: Callable[[Committed], Written],
        once: Once | None,
    ) -> Written:
        if len(message) > _MOST_MESSAGE:
            raise Invalid(f"the message is {len(message)} characters long", hint=f"at most {_MOST_MESSAGE}")
        check_may_write(actor, operations)
        request = Request(
            operations=tuple(operations),
            actor=actor.name,
            txn_id=self.world.new_id(),
            at=utc_text(self.world.now()),
            message=message,
            once=None if once is None else self._answers.asked(actor.name, once, written),
        )
        committed = await self._writer.submit(request)
        if committed.kept is not None:
            raise Replayed(self._answers.open(committed.kept))
        return written(committed)

    async def replay(self, actor: Actor, key: str, fingerprint: str) -> None:
        """Raises Replayed when the actor's request with this key was done within a day, Invalid when it was another.

        For what a verb looks at before it writes: the writer asks again.
        """
        kept = await self.records.kept(actor.name, key)
        if kept is not None and is_current(kept, utc_text(self.world.now())):
            check_same(kept, fingerprint)
            raise Replayed(self._answers.open(kept))

    def _validated(self, committed: Committed) -> Written:
        return _written(committed, self.warnings_of(committed.results))

    def warnings_of(self, results: Sequence[Result]) -> tuple[str, ...]:
        """What people should know of the records that came of merging."""
        kinds, records = self.catalogue.kinds, [each.record for each in results if each.record is not None]
        found = [validate_spec(kinds[each.kind], each.classification, each.spec, strict=False) for each in records]
        return tuple(chain.from_iterable(found))

    # --- reads ---------------------------------------------------------------------------------------------------

    def key(self, kind: str, namespace: str, name: str) -> Key:
        """The checked key. Raises Invalid."""
        return self._drafts.key(kind, namespace, name)

    async def get(self, key: Key) -> Record:
        """The record. Raises NotFound, with the names it may have been meant for."""
        return (await self.look(key)).record

    async def look(self, key: Key) -> Found:
        """The record, and the revision at which it was so. Raises as `get`, with `data["head"]`."""
        seen = await self.records.look(key)
        if seen.record is not None:
            return Found(seen.record, seen.revision)
        page = await self.records.select(Selector(kinds=(key.kind,), namespaces=(key.namespace,)), limit=500)
        guesses = near(key.name, tuple(each.name for each in page.records))
        raise NotFound(
            f"there is no {key.kind} {key.name!r} in namespace {key.namespace}",
            hint=f"did you mean {guesses[0]!r}?" if guesses else f"see: ureg get {key.kind}",
            did_you_mean=guesses,
            head=seen.revision,
        )

    async def at(self, key: Key, revision: int) -> Found:
        """The record as it was at that revision, also when it has been deleted since. Raises NotFound."""
        return Found(await record_at(self.log, key, revision), revision)

    async def history(self, key: Key, *, limit: int, before: int | None = None) -> Sequence[Change]:
        """What was done to the record, newest first, whether it is there now or not; `before`: below that revision."""
        return await self.log.history(key, limit, before=before)

    async def find(self, reference: str, namespace: str | None = None) -> Sequence[Record]:
        """All records that `[kind/]name` may mean. A name may hold slashes: the kind counts only if there is one."""
        head, slash, rest = reference.partition("/")
        if namespace is not None:
            check_namespace(namespace)
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

    def pages(self, selector: Selector, *, size: int = 1000) -> AsyncGenerator[Page, None]:
        """All selected records, page after page, from one state. Whoever does not read it to its end closes it."""
        return self.records.pages(selector, size=size)

    async def changes(self, after: Cursor | None, limit: int) -> tuple[Sequence[Change], Cursor]:
        """Whole revisions after the cursor (None: from the beginning), and the cursor behind them.

        Raises CursorMismatch with `data["cursor"]`; CursorGone, which is one, when lines after it are kept no more.
        """
        after = after or Cursor((await self.log.head()).incarnation, 0, bytes(4).hex())
        lines = await self.log.changes(after.revision, limit)
        await self.log.check_cursor(after)  # now: what has gone while it was read is noticed
        if not lines:
            return lines, after
        last = lines[-1]
        return lines, Cursor(after.incarnation, last.revision, last.hash[:4].hex())

    # --- secrets -------------------------------------------------------------------------------------------------

    def shown(self, record: Record) -> Record:
        """The record as it may leave: each secret as `{"$secret": "kept"}`."""
        paths = self.catalogue.kinds[record.kind].secret_paths
        held = any(path[0] in record.spec for path in paths)
        return msgspec.structs.replace(record, spec=redact_secrets(record.spec, paths)) if held else record

    def reveal(self, record: Record) -> dict[str, Any]:
        """The spec with its secrets in clear, for signing and for routes that may include them. Raises Corrupt."""
        paths = self.catalogue.kinds[record.kind].secret_paths
        return self._sealer.reveal_secrets(record.spec, paths, str(record.key))

    @property
    def signing_key(self) -> SigningKey:
        """The Ed25519 key that this registry signs with."""
        return self._sealer.signing_key

    def event_commitment(self, change: Change) -> str:
        """What the line of this event must be committed to. Raises Corrupt when its seal does not open."""
        return self._sealer.mac(canonical(self.open_event(change).payload))

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


def _written(committed: Committed, warnings: Sequence[str] = ()) -> Written:
    return Written(
        revision=committed.revision,
        cursor=str(committed.cursor),
        results=committed.results,
        warnings=tuple(dict.fromkeys(warnings)) if warnings else (),
    )
