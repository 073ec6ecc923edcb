"""What people said about sessions: which may go on, and what is to be sent again. Read from lines of the log, so that
every daemon knows the same at the same place, and after a restart too. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec
from msgspec.structs import replace

from universal_registry.log.change import Change, Op
from universal_registry.propagation.lanes.lane import (
    LIVE_STATES,
    Control,
    Delivery,
    DeliveryState,
    Keep,
    Position,
    Verb,
)
from universal_registry.propagation.routing.plan import CONTROL, REPLAY, Event, event_of


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """A session that sends again what another one, `of`, sent to `targets` in the lines after revision `since` and
    before `until`, of those that `select` (a selector, empty: any) matches. It is itself the session `session_id`."""

    session_id: str
    of: str
    targets: tuple[str, ...]
    since: int
    until: int
    select: str
    begins: Position


class Gate:
    """Sessions that are paused, or have been ended, each with why. `news`: words whose deliveries are still to be done.
    `heard`: there was one at all.

    `replays`: by the id of their session. `chained`: deliveries may wait for earlier hops of a chain.
    """

    def __init__(self) -> None:
        self.paused: dict[str, str] = {}
        self.ended: dict[str, str] = {}
        self.replays: dict[str, Replay] = {}
        self._begun: dict[Position, list[Replay]] = {}
        self.news: deque[Control] = deque()
        self.heard = False
        self.chained = True

    def follow(self, change: Change) -> None:
        """Take an event line about policies in `system` into account. Others are nothing to it."""
        if change.op is not Op.EVENT or change.body is None:
            return
        event = event_of(change)
        if event.mode == CONTROL:
            self._hear(change, event)
        elif event.mode == REPLAY:
            self._replay(change, event)

    def _hear(self, change: Change, event: Event) -> None:
        verb = Verb(event.verb)
        reason = f"{_DONE[verb]} by {change.actor}"
        self._set(verb, event.of, reason)
        place = Position(change.revision, change.seq)
        at = datetime.fromisoformat(change.at)
        self.news.append(Control(session_id=event.of, verb=verb, place=place, reason=reason, at=at))

    def expire(self, session_id: str, now: datetime) -> Control:
        """The session's deadline has passed: what is to be done about it."""
        self._set(Verb.CANCEL, session_id, EXPIRED)
        return Control(session_id=session_id, verb=Verb.CANCEL, place=None, reason=EXPIRED, at=now)

    def _set(self, verb: Verb, session_id: str, reason: str) -> None:
        self.heard = True
        match verb:
            case Verb.PAUSE:
                self.paused[session_id] = reason
            case Verb.RESUME:
                self.paused.pop(session_id, None)
            case Verb.CANCEL:
                self.paused.pop(session_id, None)
                self.ended[session_id] = reason

    def _replay(self, change: Change, event: Event) -> None:
        replay = Replay(
            session_id=event.session,
            of=event.of,
            targets=event.audience,
            since=int(event.since),
            until=int(event.until),
            select=event.select,
            begins=Position(change.revision, change.seq),
        )
        self.replays[event.session] = replay
        self._begun.setdefault(replay.begins, []).append(replay)

    def replays_at(self, place: Position) -> Sequence[Replay]:
        """The replays that begin with the line at a place."""
        return self._begun.get(place, ())

    def forget_before(self, revision: int, under_way: Collection[str]) -> None:
        """Drop the replays that began before a revision which every lane has passed; `under_way`: those that some lane
        is sending."""
        for place in [each for each in self._begun if each.revision < revision]:
            kept = [each for each in self._begun.pop(place) if each.session_id in under_way]
            if kept:
                self._begun[place] = kept
        self.replays = {each.session_id: each for replays in self._begun.values() for each in replays}

    def judged(self, row: Delivery) -> Delivery:
        """The delivery, kept back or cancelled where its session is paused or has ended, let go where it goes on; the
        same one where nothing changes. Only for one that nobody has under way."""
        kept = row.keep is Keep.PAUSED
        if not (kept or self.paused or self.ended) or row.state not in LIVE_STATES:
            return row
        if reason := self.ended.get(row.session_id):
            return replace(row, state=DeliveryState.CANCELLED, keep=Keep.NONE, next_at=None, reason=reason)
        reason = self.paused.get(row.session_id)
        if kept and not reason:
            return replace(row, keep=Keep.NONE if row.waits_for is None else Keep.AFTER, reason=_GOES_ON)
        if reason and not kept:
            return replace(row, keep=Keep.PAUSED, reason=reason)
        return row


EXPIRED = "its deadline has passed"
_GOES_ON = "its session was resumed"
_DONE = {Verb.PAUSE: "paused", Verb.RESUME: "resumed", Verb.CANCEL: "cancelled"}
