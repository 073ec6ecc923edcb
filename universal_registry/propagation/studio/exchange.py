"""Pull, push and acknowledge: what a studio that keeps a copy does with the records that are bound to its components.

A studio is a reader of the log with a cursor, as everything else: its place is that of a named consumer. What it is
told is the state of a record as it is now, so that telling it twice does no harm. What it pushes is merged by field.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from universal_registry.kernel.errors import Conflict, CursorGone, NotFound, PreconditionFailed, Refused, RegistryError
from universal_registry.kernel.ids import DEFAULT_NAMESPACE, Key
from universal_registry.kernel.world import World, utc_text
from universal_registry.log.change import Change, Op
from universal_registry.log.cursor import Cursor
from universal_registry.propagation.studio.binding import (
    BINDINGS,
    KIND,
    Binding,
    Direction,
    binding_document,
    check_studio,
    make_binding,
    parse_binding,
)
from universal_registry.propagation.studio.merge import three_way
from universal_registry.propagation.studio.ports import Exchanged, SyncLog, SyncStatus
from universal_registry.registry.consumers import Consumers
from universal_registry.registry.record import Record, decode_record, document
from universal_registry.registry.service import Actor, RegistryService
from universal_registry.registry.words import shown

_LINES = 2000
_TRIES = 4


class Pushed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a studio has of a component. `base`: the revision of the record that it has built on; None: it knew of none.
    `delete`: it has removed the component."""

    component: str
    spec: dict[str, Any] = {}
    base: int | None = None
    delete: bool = False


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a studio is told at once. `cursor`: having stored the changes, go on from there. `more`: there is more."""

    changes: Sequence[dict[str, Any]]
    cursor: Cursor
    more: bool


class StudioExchange:
    """The verbs of studios."""

    def __init__(self, service: RegistryService, consumers: Consumers, store: SyncLog, world: World) -> None:
        self._service = service
        self._consumers = consumers
        self._store = store
        self._world = world

    # --- bindings ----------------------------------------------------------------------------------------------------

    async def bind(
        self,
        entry: str,
        components: list[str],
        *,
        direction: Direction,
        studio: str,
        namespace: str | None,
        protocol: str,
        actor: Actor,
    ) -> dict[str, Any]:
        """Say which component a record is. `entry`: `[kind/]name`; one that is not there yet needs its kind. Raises
        NotFound, UsageError (ambiguous), Invalid, Conflict (the component is another record already)."""
        record = await self._service.find_one(entry, namespace)
        key = record.key if record else self._future(entry, namespace)
        binding = make_binding(studio, key, components, direction, protocol)
        await self._check_free(binding)
        written = await self._service.put(binding_document(binding), actor=actor)
        warning = () if record else (f"{binding.entry} does not exist yet; the studio is told once it does",)
        told = {**binding_view(binding), "effect": written.results[0].effect, "revision": written.revision}
        return {**told, "warnings": [*written.warnings, *warning]}

    async def _check_free(self, binding: Binding) -> None:
        """A component is one record: else nobody could say what a push of it changes. Raises Conflict."""
        for each in await self.bindings():
            taken = sorted(set(each.components) & set(binding.components))
            if taken and each.studio == binding.studio and each.name != binding.name:
                raise Conflict(
                    f"component {shown(taken[0])} of {each.studio} is {each.entry} already",
                    hint=f"ureg nexus unbind {each.name}",
                )

    def _future(self, entry: str, namespace: str | None) -> Key:
        kind, slash, name = entry.partition("/")
        if not slash or not name:
            raise NotFound(f"there is no record {shown(entry)}", hint="one that is to come is named as kind/name")
        return self._service.key(kind, namespace or DEFAULT_NAMESPACE, name)

    async def bindings(self, studio: str = "") -> list[Binding]:
        """All bindings; those of one studio, if it is named."""
        found = []
        async for page in self._service.pages(BINDINGS):
            found += [binding for each in page.records if (binding := parse_binding(each)) is not None]
        return [each for each in found if not studio or each.is_for(studio)]

    async def unbind(self, name: str, *, actor: Actor) -> None:
        """Forget a binding; the record and the component stay. Raises NotFound."""
        if name not in {each.name for each in await self.bindings()}:
            raise NotFound(f"there is no binding {shown(name)}", hint="`ureg nexus bindings` lists them")
        await self._service.delete(Key(KIND, "system", name), actor=actor)

    async def history(self, entry: str | None, studio: str | None, limit: int) -> Sequence[Exchanged]:
        """What was exchanged, newest first."""
        return await self._store.exchanged(entry, studio, limit)

    # --- the exchange ------------------------------------------------------------------------------------------------

    async def start(self, studio: str, cursor: Cursor | None, *, actor: Actor) -> Cursor | None:
        """Where the studio goes on: behind `cursor`, which acknowledges what is before it; else where it has
        acknowledged; None: it has never, so it is told everything. Raises CursorMismatch, Invalid."""
        name = f"studio.{check_studio(studio)}"
        known = next((each for each in await self._consumers.all() if each.name == name), None)
        if known is None:
            known = await self._consumers.keep(name, {}, None, actor=actor.name)
        if cursor is None:
            return known.place if known.acked_at else None
        await self._consumers.acknowledge(name, cursor)
        await self._store.acknowledged(studio, cursor.revision, self._now())
        return cursor

    async def pull(self, studio: str, after: Cursor | None, limit: int) -> Told:
        """What has changed for the studio after a cursor; None: all that is bound. Raises CursorMismatch."""
        bindings = await self.bindings(studio)
        if after is None:
            head = (await self._service.log.head()).cursor
            told = await self._told(studio, bindings, ())
            return await self._kept(studio, Told(changes=told, cursor=head, more=False))
        told, cursor, more = [], after, True
        while more and len(told) < limit:
            lines, cursor = await self._service.changes(cursor, _LINES)
            more = bool(lines)
            touched = {line.key for line in lines if line.op is not Op.EVENT}
            deleted = tuple(line for line in lines if line.op is Op.DELETE)
            fresh = [each for each in bindings if each.key in touched or _record_key(each) in touched]
            told += await self._told(studio, fresh, deleted)
        return await self._kept(studio, Told(changes=told, cursor=cursor, more=more))

    async def _told(self, studio: str, bindings: Iterable[Binding], deleted: Sequence[Change]) -> list[dict[str, Any]]:
        told = []
        for line in deleted:
            ended = None if line.body is None or line.kind != KIND else parse_binding(decode_record(line.body))
            if ended is not None and ended.is_for(studio):
                told += [_change("unbound", ended, each, line.revision) for each in ended.components]
        for binding in bindings:
            seen = await self._service.records.look(binding.key)
            if seen.record is not None:
                shown_record = document(self._service.shown(seen.record))
                for each in binding.components:
                    told.append({**_change("put", binding, each, seen.record.revision), "record": shown_record})
            elif gone := [line.revision for line in deleted if line.key == binding.key]:
                told += [_change("delete", binding, each, gone[-1]) for each in binding.components]
        return told

    async def _kept(self, studio: str, told: Told) -> Told:
        now = self._now()
        rows = [
            Exchanged(
                studio=studio, entry=each["entry"], component=each["component"], direction=each["direction"],
                way="pull", revision=each["revision"], status=SyncStatus.PENDING, reason=each["op"],
                created_at=now, updated_at=now,
            )
            for each in told.changes
        ]  # fmt: skip
        if rows:
            await self._store.add_exchanged(rows)
        return told

    async def push(self, studio: str, pushes: Sequence[Pushed], *, actor: Actor) -> list[dict[str, Any]]:
        """Take in what a studio has changed: an answer for each. One that is refused keeps the others from nothing."""
        if not pushes:
            return []
        known = {
            component: each for each in await self.bindings() if each.studio == studio for component in each.components
        }
        answers, rows = [], []
        for pushed in pushes:
            binding = known.get(pushed.component)
            try:
                answer = await self._push(studio, binding, pushed, actor)
                status, reason = SyncStatus.EXECUTED, answer["effect"]
            except RegistryError as error:
                if error.retryable:
                    raise  # the store, not the push
                answer = {"status": error.code, "detail": str(error), **error.data}
                status, reason = SyncStatus.FAILED, f"{error.code}: {error.message}"[:200]
            answers.append({"component": pushed.component, **answer})
            if binding is not None:
                rows.append(self._row(studio, binding, pushed, answer.get("revision", 0), status, reason))
        await self._store.add_exchanged(rows)
        return answers

    def _row(
        self, studio: str, binding: Binding, pushed: Pushed, revision: int, status: SyncStatus, reason: str
    ) -> Exchanged:
        now = self._now()
        return Exchanged(
            studio=studio, entry=binding.entry, component=pushed.component, direction=binding.direction, way="push",
            revision=revision, status=status, reason=reason, created_at=now, updated_at=now,
        )  # fmt: skip

    async def _push(self, studio: str, binding: Binding | None, pushed: Pushed, actor: Actor) -> dict[str, Any]:
        if binding is None:
            raise NotFound(
                f"component {shown(pushed.component)} of {studio} is bound to no record", hint="ureg nexus bind"
            )
        if binding.direction is not Direction.BIDIRECTIONAL:
            hint = "ureg nexus bind ENTRY COMPONENT bidirectional"
            raise Refused(f"{binding.entry} goes to {studio} only ({binding.direction})", hint=hint)
        for _ in range(_TRIES - 1):
            try:
                return await self._merged(binding, pushed, actor)
            except PreconditionFailed:
                continue  # somebody was quicker: look again
        return await self._merged(binding, pushed, actor)

    async def _merged(self, binding: Binding, pushed: Pushed, actor: Actor) -> dict[str, Any]:
        current = (await self._service.records.look(binding.key)).record
        base = await self._base(binding.key, pushed.base, current)
        message = f"studio {binding.studio}: {pushed.component}"[:1000]
        guard = current.revision if current else 0
        if pushed.delete:
            if current is not None and (base is None or base.revision != current.revision):
                raise self._conflict(binding, ("/",), current)
            written = await self._service.delete(
                binding.key, actor=actor, message=message, if_revision=guard or None, missing_ok=True
            )
            return {"status": "ok", "effect": str(written.results[0].effect), "revision": written.revision}
        if current is None and base is not None:
            raise self._conflict(binding, ("/",), None)
        merged = three_way(self._spec(base), pushed.spec, self._spec(current))
        if merged.conflicts:
            raise self._conflict(binding, merged.conflicts, current)
        content = {**binding.key._asdict(), "spec": merged.patch}
        written = await self._service.merge(content, actor=actor, message=message, if_revision=guard)
        result = written.results[0]
        revision = result.record.revision if result.record else written.revision
        return {"status": "ok", "effect": str(result.effect), "revision": revision}

    async def _base(self, key: Key, revision: int | None, current: Record | None) -> Record | None:
        if revision is None:
            return None
        if current is not None and current.revision == revision:
            return current
        try:
            return (await self._service.at(key, revision)).record
        except (
            NotFound,
            CursorGone,
        ):  # it has no record of that revision, or compaction has dropped it: then nothing was seen
            return None

    def _spec(self, record: Record | None) -> dict[str, Any]:
        return self._service.shown(record).spec if record else {}

    def _conflict(self, binding: Binding, fields: Sequence[str], current: Record | None) -> Conflict:
        what = "is there no more" if current is None else "has changed as well"
        record = None if current is None else document(self._service.shown(current))
        return Conflict(
            f"{binding.entry} {what}: {', '.join(fields)[:200]}",
            hint="take the record in, and push with its revision as base",
            fields=list(fields),
            record=record,
            revision=current.revision if current else 0,
        )

    def _now(self) -> str:
        return utc_text(self._world.now())


def binding_view(binding: Binding) -> dict[str, Any]:
    """A binding as it is told."""
    return {
        "binding": binding.name,
        "studio": binding.studio,
        "entry": binding.entry,
        "components": list(binding.components),
        "direction": str(binding.direction),
        "protocol": binding.protocol,
    }


def _record_key(binding: Binding) -> Key:
    return Key(KIND, "system", binding.name)


def _change(op: str, binding: Binding, component: str, revision: int) -> dict[str, Any]:
    said = {"op": op, "entry": binding.entry, "component": component, "direction": str(binding.direction)}
    return {**said, "revision": revision}
