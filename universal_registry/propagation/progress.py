"""The states of sessions, from what their lanes do. Pure, apart from remembering what is under way."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec.structs import replace

from universal_registry.propagation.lane import Breaker, Session
from universal_registry.propagation.outbox import Outbox
from universal_registry.propagation.route import Route
from universal_registry.propagation.window import LaneRun

ONE_SHOT_END = {(True, False): "succeeded", (True, True): "partial", (False, True): "failed"}


class Progress:
    """Sessions under way: standing ones by route, one-shot ones until their last target has answered."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self._sessions: dict[str, Session] = {}
        self._remaining: dict[str, set[str]] = {}
        self._failed: dict[str, set[str]] = {}

    def load(self, sessions: Iterable[Session]) -> None:
        """Sessions as they are stored."""
        self._sessions = {session.session_id: session for session in sessions}

    def routes(self, routes: Iterable[Route], now: datetime) -> None:
        """Standing sessions are those of the routes in force; the others are cancelled."""
        present = {route.uid: route for route in routes}
        for session in list(self._sessions.values()):
            if session.standing and session.session_id not in present and session.state != "cancelled":
                self._store(replace(session, state="cancelled", last_activity=now))
        for route in present.values():
            old = self._sessions.get(route.uid)
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

    def event(
        self, session_id: str, source: str, audience: tuple[str, ...], revision: int, lane_id: str, now: datetime
    ) -> None:
        """A one-shot delivery was planned for a lane."""
        if session_id not in self._sessions:
            self._store(
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
            self._remaining[session_id] = set()
        self._remaining.setdefault(session_id, set()).add(lane_id)

    def ended(self, session_id: str, lane_id: str, *, dead: bool, now: datetime) -> None:
        """A one-shot delivery of the lane ended."""
        session = self._sessions.get(session_id)
        if session is None or session.standing:
            return
        remaining = self._remaining.setdefault(session_id, set())
        remaining.discard(lane_id)
        failed = self._failed.setdefault(session_id, set())
        if dead:
            failed.add(lane_id)
        if not remaining:
            some_arrived = len(failed) < len(session.targets)
            self._store(replace(session, state=ONE_SHOT_END[some_arrived, bool(failed)], last_activity=now))
            del self._remaining[session_id], self._failed[session_id]

    def lanes_moved(self, runs: dict[str, LaneRun], now: datetime) -> None:
        """Standing sessions take the worst state of their targets' lanes."""
        for session in list(self._sessions.values()):
            if not session.standing or session.state == "cancelled":
                continue
            states = [lane_state(runs.get(address)) for address in session.targets]
            state = next(each for each in ("degraded", "syncing", "in_sync") if each in (*states, "in_sync"))
            if state != session.state:
                self._store(replace(session, state=state, last_activity=now))

    def _store(self, session: Session) -> None:
        self._sessions[session.session_id] = session
        self.outbox.session(session)


def lane_state(run: LaneRun | None) -> str:
    """How a lane looks to a standing session."""
    if run is None:
        return "syncing"
    lane = run.lane
    if lane.paused or lane.held or run.target.held or lane.breaker is not Breaker.CLOSED or run.rows:
        return "degraded"
    return "syncing" if run.unfinished or run.scanned.backfill else "in_sync"
