"""What people say to sessions: pause, resume, cancel, send again. Each is a line of the log, heard by every daemon in
the same place; nothing else is written, but that a standing session which is cancelled loses its route."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from universal_registry.kernel.errors import Conflict, Invalid, NotFound, Refused, UsageError
from universal_registry.kernel.ids import SYSTEM_NAMESPACE, Key
from universal_registry.log.cursor import parse_cursor
from universal_registry.propagation.lanes.lane import Position, Verb
from universal_registry.propagation.routing.modes import SHAPES
from universal_registry.propagation.routing.plan import CONTROL, REPLAY
from universal_registry.propagation.routing.replay import Repeater
from universal_registry.propagation.routing.route import KIND as ROUTE_KIND
from universal_registry.propagation.routing.session_gate import Replay
from universal_registry.propagation.views.inventory import Inventory
from universal_registry.propagation.views.sessions import Store, control_key, one_session
from universal_registry.registry.history import newest_before
from universal_registry.registry.once import Once
from universal_registry.registry.selector import parse_selector
from universal_registry.registry.service import Actor, RegistryService, Written
from universal_registry.registry.words import shown

_PAGE = 500
_OVER = ("succeeded", "partial", "failed", "cancelled", "expired")


async def tell_session(
    service: RegistryService,
    store: Store,
    inventory: Inventory,
    session_id: str,
    verb: Verb,
    *,
    actor: Actor,
    once: Once | None = None,
) -> dict[str, Any]:
    """Pause, resume or cancel: `session`, `verb`, `changed`, `delivered` (targets that have it already) and `undone`
    (target -> deliveries that have not arrived). What is under way ends as it will. Raises NotFound, Conflict."""
    found = await one_session(service, store, inventory, session_id)
    if found["standing"] and SHAPES[found["mode"]].two_way and verb is not Verb.CANCEL:
        raise Refused(f"a {found['mode']} session goes on as the link does", hint=f"ureg peer {verb.value} NAME")
    is_over = not found["standing"] and found["state"] in _OVER
    if is_over or (found["standing"] and found["route"] is None):
        if verb is Verb.CANCEL and found["state"] == "cancelled":
            return _told(found, verb, changed=False)
        again = f"begin it again: ureg {found['mode']}" if found["standing"] else "ureg session replay sends it again"
        raise Conflict(f"session {session_id} has ended: {found['state']}", hint=again)
    unchanged = (found["state"] == "paused") is (verb is Verb.PAUSE)
    if unchanged and verb is not Verb.CANCEL:
        return _told(found, verb, changed=False)

    def answer(_: Written) -> dict[str, Any]:
        return _told(found, verb, changed=True)

    await service.emit(
        control_key(session_id),
        {"session": session_id, "verb": verb.value},
        audience=[],
        session=service.world.new_id(),
        options={"mode": CONTROL, "of": session_id, "verb": verb.value},
        actor=actor,
        message=f"session {verb.value} {session_id}",
        once=once and once.of(answer),
    )
    if verb is Verb.CANCEL and found["standing"]:
        key = Key(ROUTE_KIND, SYSTEM_NAMESPACE, str(found["route"]))
        await service.delete(key, actor=actor, message=f"session cancel {session_id}", missing_ok=True)
    return _told(found, verb, changed=True)


def _told(found: dict[str, Any], verb: Verb, *, changed: bool) -> dict[str, Any]:
    undone = {each["target"]: each["queued"] for each in found["targets"] if _lacks(each, standing=found["standing"])}
    return {
        "session": found["session"],
        "verb": verb.value,
        "changed": changed,
        "delivered": [each["target"] for each in found["targets"] if each["target"] not in undone],
        "undone": undone,
    }


def _lacks(target: dict[str, Any], *, standing: bool) -> bool:
    """Whether a target has not all of a session that it is to have."""
    if target["queued"] or target["failed"] or target["cancelled"]:
        return True
    return target["state"] not in ("delivered", "in_sync") and not (standing and target["state"] == "held")


# --- sending again --------------------------------------------------------------------------------------------------


class ReplayAsk(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be sent again of a session. `since`, `until`: a revision, a cursor, or a time (RFC 3339); lines after
    the one and up to the other. `targets`: only to these. `select`: only records that it matches."""

    session: str
    since: str = ""
    until: str = ""
    targets: tuple[str, ...] = ()
    select: str = ""


class Resending:
    """One `session replay`: counted beforehand, or stored, which the lanes then come to."""

    def __init__(self, service: RegistryService, store: Store, inventory: Inventory, ask: ReplayAsk) -> None:
        self._service = service
        self._store = store
        self._inventory = inventory
        self._ask = ask

    async def foresee(self) -> dict[str, Any]:
        """How many deliveries it would make for each target: `deliveries`, `total`. Walks the log, stores nothing."""
        replay = await self._replay("")
        route = self._inventory.table.by_uid.get(replay.of)
        head = await self._service.log.head()
        repeater = Repeater(self._service, replay, route, head.incarnation)
        targets = {each: self._inventory.targets[each] for each in replay.targets if each in self._inventory.targets}
        counts = dict.fromkeys(targets, 0)
        after = replay.since
        while after < replay.until - 1:
            lines = await self._service.log.changes(after, _PAGE, upto=replay.until - 1)
            if not lines:
                break
            for line in lines:
                for planned in await repeater.planned(line, targets):
                    counts[planned.target] += 1
            after = lines[-1].revision
        return {**_range(replay), "deliveries": counts, "total": sum(counts.values())}

    async def run(self, *, actor: Actor, once: Once | None = None) -> dict[str, Any]:
        """Store it. `session`: the new one, which is as far as its deliveries are."""
        replay = await self._replay(self._service.world.new_id())

        def answer(written: Written) -> dict[str, Any]:
            return {**_range(replay), "session": replay.session_id, "revision": written.revision}

        options = {"since": str(replay.since), "until": str(replay.until), "select": replay.select}
        written = await self._service.emit(
            control_key(replay.session_id),
            {"session": replay.of, "verb": REPLAY, **options},
            audience=replay.targets,
            session=replay.session_id,
            options={"mode": REPLAY, "of": replay.of, **options},
            actor=actor,
            message=f"session replay {replay.of}",
            once=once and once.of(answer),
        )
        return answer(written)

    async def _replay(self, session_id: str) -> Replay:
        ask = self._ask
        found = await one_session(self._service, self._store, self._inventory, ask.session)
        if found["replay_of"]:
            raise UsageError(f"session {ask.session} is a replay", hint=f"ureg session replay {found['replay_of']}")
        if found["standing"] and found["route"] is None:
            raise NotFound(f"session {ask.session} has no route any more", hint=f"begin it again: ureg {found['mode']}")
        if ask.select:
            parse_selector(ask.select, self._service.catalogue)
        head = await self._service.log.head()
        since = await self._place(ask.since, 0) if ask.since or found["standing"] else int(found["revision"]) - 1
        until = await self._place(ask.until, head.revision)
        if until <= since:
            raise UsageError(f"there is nothing after {shown(ask.since)} and up to {shown(ask.until or 'now')}")
        return Replay(
            session_id=session_id,
            of=ask.session,
            targets=self._targets([str(each["target"]) for each in found["targets"]]),
            since=since,
            until=until + 1,
            select=ask.select,
            begins=Position(head.revision, 0),
        )

    def _targets(self, of_session: Sequence[str]) -> tuple[str, ...]:
        if not self._ask.targets:
            return tuple(of_session)
        wanted = list(dict.fromkeys(self._inventory.require(each) for each in self._ask.targets))
        for each in wanted:
            if each not in of_session:
                raise Invalid(f"{each} is no target of session {self._ask.session}", hint=", ".join(of_session))
        return tuple(wanted)

    async def _place(self, text: str, default: int) -> int:
        """The revision that a word means: itself, that of a cursor, or the last one before a time."""
        if not text:
            return default
        if text.isascii() and text.isdigit() and len(text) < 19:
            return int(text)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            cursor = parse_cursor(text)
            await self._service.log.check_cursor(cursor)
            return cursor.revision
        if moment.tzinfo is None:
            raise UsageError(f"{shown(text)} has no time zone", hint=f"such as {text}Z")
        return await newest_before(self._service.log, moment)


def _range(replay: Replay) -> dict[str, Any]:
    return {
        "replay_of": replay.of,
        "since": replay.since,
        "until": replay.until - 1,
        "targets": list(replay.targets),
        "select": replay.select,
    }
