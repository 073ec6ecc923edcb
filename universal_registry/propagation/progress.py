"""The sessions that the store shows: standing ones with the state of their lanes, one-shot ones as they are begun.

How far a one-shot session is, its deliveries say; nothing is kept of it here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import datetime

from msgspec.structs import replace

from universal_registry.propagation.lane import Breaker, Session
from universal_registry.propagation.outbox import Outbox
from universal_registry.propagation.route import Route
from universal_registry.propagation.window import LaneRun

_REMEMBERED = 1000


class Progress:
    """Standing sessions by route, and the newest one-shot ones, so that each is stored once."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self._standing: dict[str, Session] = {}
        self._by_target: dict[str, set[str]] = {}
        self._begun: OrderedDict[str, None] = OrderedDict()

    def load(self, sessions: Iterable[Session]) -> None:
        """Sessions as they are stored."""
        self._standing = {session.session_id: session for session in sessions if session.standing}

    def routes(self, routes: Iterable[Route], now: datetime) -> None:
        """Standing sessions are those of the routes in force; the others are cancelled."""
        present = {route.uid: route for route in routes}
        for session in list(self._standing.values()):
            if session.session_id not in present:
                if session.state != "cancelled":
                    self.outbox.session(replace(session, state="cancelled", last_activity=now))
                del self._standing[session.session_id]
        self._by_target = {}
        for route in present.values():
            for address in route.targets:
                self._by_target.setdefault(address, set()).add(route.uid)
            old = self._standing.get(route.uid)
            if old is None or old.targets != route.targets or old.state == "cancelled":
                self._store(
                    Session(
                        session_id=route.uid,
                        mode=route.mode,
                        source=route.source or route.name,
                        targets=route.targets,
                        standing=True,
                        state="syncing",
                        revision=route.revision,
                        created_at=old.created_at if old else now,
                        last_activity=now,
                    )
                )

    def begun(self, session_id: str, source: str, audience: tuple[str, ...], revision: int, now: datetime) -> None:
        """A one-shot delivery was planned."""
        if session_id in self._begun:
            return
        self._begun[session_id] = None
        if len(self._begun) > _REMEMBERED:
            self._begun.popitem(last=False)
        self.outbox.session(
            Session(
                session_id=session_id,
                mode="unidirectional" if len(audience) == 1 else "multicast",
                source=source,
                targets=audience,
                standing=False,
                state="running",
                revision=revision,
                created_at=now,
                last_activity=now,
            )
        )

    def lanes_moved(self, moved: Iterable[str], runs: Mapping[str, LaneRun], now: datetime) -> None:
        """The standing sessions of these targets take the worst state of their lanes."""
        for session_id in {each for address in moved for each in self._by_target.get(address, ())}:
            session = self._standing[session_id]
            states = [lane_state(runs.get(address)) for address in session.targets]
            state = next(each for each in ("degraded", "syncing", "in_sync") if each in (*states, "in_sync"))
            if state != session.state:
                self._store(replace(session, state=state, last_activity=now))

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
