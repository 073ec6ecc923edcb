"""What becomes of sessions as time goes on: words on them are done to their deliveries, hops of chains are let go in
their turn, and sessions that have ended are said to have ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from msgspec.structs import replace

from universal_registry.kernel.world import World
from universal_registry.propagation.engine.session_recall import Recall
from universal_registry.propagation.engine.session_states import Progress
from universal_registry.propagation.engine.window import LaneRun
from universal_registry.propagation.lanes.lane import (
    ENDED,
    Control,
    Keep,
    Position,
    Session,
    Settlements,
    Verb,
    ending,
)
from universal_registry.propagation.ports import LaneQueries, SessionStore
from universal_registry.propagation.routing.session_gate import EXPIRED, Gate

_BEGINNING = Position(0, -1)
_AT_ONCE = 500
_NAMED = 5
_SWEEP_SECONDS = 1.0
_REST = 4  # times what a look at hops or sessions took: so much of the time is left to everything else
_BRIEF = timedelta(seconds=1)


class Store(SessionStore, LaneQueries, Protocol):
    """The part of the propagation store that this needs."""


class Conduct:
    """One daemon's. `moved`: lanes were stored since the hops of chains were looked at."""

    def __init__(self, world: World, store: Store, gate: Gate, progress: Progress) -> None:
        self.moved = True
        self._world = world
        self._store = store
        self._gate = gate
        self._progress = progress
        self._recall = Recall(store, gate, progress)
        self._place = _BEGINNING
        self._look_at = self._sweep_at = float("-inf")
        self._after = ""

    def start(self, sessions: Sequence[Session], now: datetime) -> None:
        """Take up what the daemon before left. Its lanes are gained (see `gained`), so the words that were heard until
        now need not be done one by one."""
        self._gate.news.clear()
        for session in sessions:
            if _has_expired(session):
                self._gate.expire(session.session_id, now)
            if (found := _reconciled(session, self._gate, now)) is not session:
                self._progress.outbox.session(found)

    def gained(self, lane_id: str) -> None:
        """The lane is at work here from now on."""
        self._recall.gained(lane_id)

    async def turn(self, runs: Mapping[str, LaneRun], now: datetime) -> bool:
        """What is due; True: there is more at once. Raises StorageUnavailable: then the next turn begins where this one
        was."""
        if self._gate.news:
            if await self._recall.session(self._gate.news[0].session_id, runs):
                await self._done(self._gate.news[0], now)
                self._gate.news.popleft()
        else:
            await self._recall.lanes(runs)
        if self._gate.chained:
            await self._let_go(runs, now)
        if self._world.monotonic() >= self._sweep_at:
            await self._sweep(now)
        return bool(self._gate.news) or self._recall.busy

    def stored(self, settlements: Settlements) -> None:
        """What was committed: hops that wait may be among it, or have come to their turn."""
        self._recall.stored(settlements)
        self.moved = self.moved or bool(settlements.lanes)
        if any(row.keep is Keep.AFTER for row in settlements.upserts):
            self._gate.chained = True

    @property
    def busy(self) -> bool:
        """Whether there is something to do before time passes."""
        return bool(self._gate.news) or self._recall.busy or (self._gate.chained and self.moved)

    # --- words -------------------------------------------------------------------------------------------------------

    async def _done(self, control: Control, now: datetime) -> None:
        self._gate.chained = True  # what goes on may wait for earlier hops again
        if control.place is None:
            return
        for session in await self._store.sessions(control.session_id):
            self._progress.outbox.session(_told(session, control, now))
        self._progress.told(control.session_id, control.reason)

    # --- chains ------------------------------------------------------------------------------------------------------

    async def _let_go(self, runs: Mapping[str, LaneRun], now: datetime) -> None:
        began = self._world.monotonic()
        if began < self._look_at:
            return
        self.moved = False
        looked = await self._store.release(self._place, _AT_ONCE, now)
        for each in looked:
            if each.released and each.lane_id in runs:
                runs[each.lane_id].rows_changed = True
        if len(looked) == _AT_ONCE:
            self._place = looked[-1].position
        else:
            self._gate.chained = bool(looked) or self._place != _BEGINNING
            self._place = _BEGINNING
        ended = self._world.monotonic()
        self._look_at = ended + _REST * (ended - began)

    # --- the end -----------------------------------------------------------------------------------------------------

    async def _sweep(self, now: datetime) -> None:
        """Look at some of the sessions that have not ended."""
        began = self._world.monotonic()
        found = await self._store.open_sessions(self._after, _AT_ONCE)
        for session, statuses in found:
            heard = _reconciled(session, self._gate, now)
            after = concluded(heard, statuses, now)
            if after is not session:
                self._progress.outbox.session(after)
            if _has_expired(after) and session.session_id not in self._gate.ended:
                self._gate.news.append(self._gate.expire(session.session_id, now))
        full = len(found) == _AT_ONCE
        self._after = found[-1][0].session_id if full else ""
        ended = self._world.monotonic()
        self._sweep_at = ended + (_REST * (ended - began) if full else _SWEEP_SECONDS)


def concluded(session: Session, statuses: Sequence[str], now: datetime) -> Session:
    """A one-shot session as its targets are now (pending, retry, executed, failed, cancelled); the same one where there
    is nothing to say. Once its deadline has passed it drains: what is under way ends, the rest is cancelled. That it
    runs is a step of its own only where it takes a while."""
    waiting = sum(status in ("pending", "retry") for status in statuses)
    if not waiting:
        return _moved(session, *_ending(session, statuses), now)
    if session.state == "draining":
        return session
    if session.deadline is not None and session.deadline <= now:
        return _moved(session, "draining", EXPIRED, now)
    if session.state == "planned" and not timedelta(0) <= now - session.created_at < _BRIEF:
        return _moved(session, "running", f"{waiting} of {len(statuses)} targets are to get it", now)
    return session


def _has_expired(session: Session) -> bool:
    """Whether what is left of it is to be cancelled by every daemon, each in its own lanes."""
    return session.state == "draining" and session.reason == EXPIRED


def _ending(session: Session, statuses: Sequence[str]) -> tuple[str, str]:
    counts = ", ".join(f"{statuses.count(each)} {each}" for each in dict.fromkeys(statuses))
    state = ending(len(statuses), statuses.count("executed"), statuses.count("failed"))
    if session.state == "draining" and state != "succeeded":
        return "expired" if session.reason == EXPIRED else "cancelled", f"{session.reason}: {counts}"
    if session.gone:
        counts += f"; removed: {', '.join(session.gone[:_NAMED])}"
    return state, counts


def _told(session: Session, control: Control, now: datetime) -> Session:
    """The session after a word. A standing one that goes on finds its state by itself."""
    if session.state in ENDED:
        return session
    match control.verb:
        case Verb.PAUSE:
            return _moved(session, "paused", control.reason, now)
        case Verb.RESUME:
            return _moved(session, "syncing" if session.standing else "running", control.reason, now)
        case Verb.CANCEL:
            return _moved(session, "cancelled" if session.standing else "draining", control.reason, now)


def _reconciled(session: Session, gate: Gate, now: datetime) -> Session:
    """A stored session that has not heard of the last word on it, because a daemon ended in between."""
    if session.state in ENDED:
        return session
    if (reason := gate.ended.get(session.session_id)) is not None:
        ended = "cancelled" if session.standing else "draining"
        return session if session.state == ended else _moved(session, ended, reason, now)
    if (reason := gate.paused.get(session.session_id)) is not None:
        return session if session.state == "paused" else _moved(session, "paused", reason, now)
    if session.state == "paused":
        return _moved(session, "syncing" if session.standing else "running", "resumed", now)
    return session


def _moved(session: Session, state: str, reason: str, now: datetime) -> Session:
    return replace(session, state=state, reason=reason, last_activity=now)
