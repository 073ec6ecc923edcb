"""The sessions that the store shows: standing ones with the state of their lanes, one-shot ones as they are begun.

How far a one-shot session is, its deliveries say; nothing is kept of it here.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from msgspec.structs import replace

from universal_registry.log.change import Change
from universal_registry.propagation.engine.outbox import Outbox
from universal_registry.propagation.engine.window import LaneRun
from universal_registry.propagation.lanes.lane import Breaker, Session
from universal_registry.propagation.routing.modes import MODES
from universal_registry.propagation.routing.plan import event_of
from universal_registry.propagation.routing.route import Route
from universal_registry.propagation.routing.session_gate import Gate

_REMEMBERED = 1000
_NAMED = 5


class Progress:
    """Standing sessions by route, and the newest one-shot ones, so that each is stored once.

    `_tallies`: of each standing session, how many of its targets are in which state, so that a target that changes its
    state costs the same in a session of one and of ten thousand. `_asked`: sessions to be looked at next; `_told`: what
    people have just said to them.
    """

    def __init__(self, outbox: Outbox, gate: Gate) -> None:
        self.outbox = outbox
        self._gate = gate
        self._standing: dict[str, Session] = {}
        self._by_target: dict[str, set[str]] = {}
        self._states: dict[str, str] = {}
        self._tallies: dict[str, Counter[str]] = {}
        self._asked: set[str] = set()
        self._told: dict[str, str] = {}
        self._begun: OrderedDict[str, None] = OrderedDict()

    def load(self, sessions: Iterable[Session]) -> None:
        """Sessions as they are stored."""
        self._standing = {session.session_id: session for session in sessions if session.standing}

    def routes(self, routes: Iterable[Route], meant: Callable[[Route], tuple[str, ...]], now: datetime) -> None:
        """Standing sessions are those of the routes in force; the others are cancelled. `meant`: where a route goes."""
        present = {route.uid: route for route in routes}
        for session in list(self._standing.values()):
            if session.session_id not in present:
                if session.state != "cancelled":
                    reason = self._gate.ended.get(session.session_id, "its route is gone")
                    self.outbox.session(replace(session, state="cancelled", reason=reason, last_activity=now))
                del self._standing[session.session_id]
        self._by_target, self._tallies = {}, {}
        for route in present.values():
            targets = meant(route)
            if not route.peers:
                self._tallies[route.uid] = Counter(self._states.get(address, "syncing") for address in targets)
                for address in targets:
                    self._by_target.setdefault(address, set()).add(route.uid)
            old = self._standing.get(route.uid)
            if old is None or old.targets != targets or old.state == "cancelled":
                self._store(
                    Session(
                        session_id=route.uid,
                        mode=route.mode,
                        source=route.source or route.name,
                        targets=targets,
                        standing=True,
                        state="planned" if route.peers else "syncing",
                        revision=route.revision,
                        created_at=old.created_at if old else now,
                        last_activity=now,
                        reason=f"revision {route.revision}",
                    )
                )

        self._asked = set(self._tallies)

    def planned(self, line: Change, now: datetime) -> None:
        """A one-shot delivery was planned, or a replay begun."""
        event = event_of(line)
        session_id = event.session
        if session_id in self._begun:
            return
        self._begun[session_id] = None
        if len(self._begun) > _REMEMBERED:
            self._begun.popitem(last=False)
        self.outbox.session(
            Session(
                session_id=session_id,
                mode=event.mode or MODES[0],
                source=f"session {event.of}" if event.of else str(line.key),
                targets=event.audience,
                standing=False,
                state="paused" if (paused := self._gate.paused.get(session_id)) else "planned",
                revision=line.revision,
                created_at=now,
                last_activity=now,
                reason=paused or f"revision {line.revision}",
                deadline=datetime.fromisoformat(event.deadline) if event.deadline else None,
            )
        )

    def lanes_moved(self, moved: Iterable[str], runs: Mapping[str, LaneRun], now: datetime) -> None:
        """The standing sessions of these targets take the worst state of their lanes."""
        for address in moved:
            before, after = self._states.get(address, "syncing"), lane_state(runs.get(address))
            if after == before:
                continue
            self._states[address] = after
            for session_id in self._by_target.get(address, ()):
                self._tallies[session_id].update({before: -1, after: 1})
                self._asked.add(session_id)
        for session_id in self._asked:
            session = self._standing[session_id]
            state = self._state_of(session_id)
            if state != session.state:
                reason = self._gate.paused.get(session_id) or self._named(session, state)
                said = self._told.get(session_id)  # what is not stored yet is still the reason
                reason = "; ".join(each for each in (said, reason) if each) if said != reason else reason
                self._store(replace(session, state=state, reason=reason, last_activity=now))
        self._asked.clear()
        self._told.clear()

    def _state_of(self, session_id: str) -> str:
        if session_id in self._gate.paused:
            return "paused"
        tally = self._tallies[session_id]
        return next(each for each in ("degraded", "syncing", "in_sync") if tally[each] or each == "in_sync")

    def _named(self, session: Session, state: str) -> str:
        """The targets for which a session is in a state; nothing where all is well."""
        if state == "in_sync":
            return ""
        names = [each for each in session.targets if self._states.get(each, "syncing") == state]
        return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")

    def told(self, session_id: str, reason: str) -> None:
        """Somebody said something about the session: what is known of a standing one is asked for again."""
        if session_id in self._tallies:
            state = "paused" if session_id in self._gate.paused else "syncing"
            self._standing[session_id] = replace(self._standing[session_id], state=state, reason=reason)
            self._told[session_id] = reason
            self._asked.add(session_id)

    def _store(self, session: Session) -> None:
        self._standing[session.session_id] = session
        self.outbox.session(session)


def lane_state(run: LaneRun | None) -> str:
    """How a lane looks to a standing session."""
    if run is None:
        return "syncing"
    lane = run.lane
    if lane.paused or lane.held or run.target.held or lane.breaker is not Breaker.CLOSED or run.rows or lane.dead:
        return "degraded"
    return "syncing" if run.unfinished or run.scanned.backfill else "in_sync"
