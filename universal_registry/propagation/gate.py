"""What people said about sessions: which may go on, and what is to be sent again. Read from lines of the log, so that
every daemon knows the same at the same place, and after a restart too. Pure."""

from __future__ import annotations

from collections import deque
from datetime import datetime

import msgspec
from msgspec.structs import replace

from universal_registry.log.change import Change, Op
from universal_registry.propagation.lane import LIVE_STATES, Control, Delivery, DeliveryState, Keep, Position, Verb
from universal_registry.propagation.plan import CONTROL, REPLAY, Event, event_of


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

    `replays`: by the id of their session. `chained`: deliveries may wait for earlier hops of a chain.
    """

    def __init__(self) -> None:
        self.paused: dict[str, str] = {}
        self.ended: dict[str, str] = {}
        self.replays: dict[str, Replay] = {}
        self.news: deque[Control] = deque()
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
        match verb:
            case Verb.PAUSE:
                self.paused[session_id] = reason
            case Verb.RESUME:
                self.paused.pop(session_id, None)
            case Verb.CANCEL:
                self.paused.pop(session_id, None)
                self.ended[session_id] = reason

    def _replay(self, change: Change, event: Event) -> None:
        self.replays[event.session] = Replay(
            session_id=event.session,
            of=event.of,
            targets=event.audience,
            since=int(event.since),
            until=int(event.until),
            select=event.select,
            begins=Position(change.revision, change.seq),
        )

    def forget_done(self, done: int) -> None:
        """Words up to a place (packed) have been done to their deliveries already."""
        self.news = deque(each for each in self.news if each.place is not None and each.place.packed > done)

    def judged(self, row: Delivery) -> Delivery:
        """The delivery, kept back or cancelled where its session is paused or has ended; the same one where it is not.
        Only for one that nobody has under way."""
        if not (self.paused or self.ended) or row.state not in LIVE_STATES:
            return row
        if reason := self.ended.get(row.session_id):
            return replace(row, state=DeliveryState.CANCELLED, keep=Keep.NONE, next_at=None, reason=reason)
        if (reason := self.paused.get(row.session_id)) and row.keep is not Keep.PAUSED:
            return replace(row, keep=Keep.PAUSED, reason=reason)
        return row


EXPIRED = "its deadline has passed"
_DONE = {Verb.PAUSE: "paused", Verb.RESUME: "resumed", Verb.CANCEL: "cancelled"}
