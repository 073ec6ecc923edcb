"""Is a recorded history of concurrent clients strictly serialisable? Every answer names the revision at which it ran,
so that it can be proved in O(n log n): order by revision, replay against a model, compare; and time must agree.

`violations` says in words what does not hold; empty is what everybody wants. Pure: `recording.py` records.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

MOST_SHOWN = 5


class Entry(NamedTuple):
    """A record, as the model has it."""

    command: str
    revision: int
    generation: int


State = dict[str, Entry]


@dataclass(frozen=True, slots=True)
class Call:
    """One request and its answer. Times are of one monotonic clock.

    `verb`: put, merge, patch, delete, batch (each of which has `id`, which the log repeats as its message), get, list.
    `commands`: what it wants to write, by name (None: delete). `only_at`: the revision that alone it may replace.
    `expects`: what a patch tests for. `revision`: None when no answer came. `effects`: per name, of a write.
    `seen`: what came back, by name; names that are asked for and not in it were not there. `refused`: an error's code.
    """

    client: int
    verb: str
    names: tuple[str, ...]
    began: float
    ended: float | None = None
    id: str = ""
    commands: Mapping[str, str | None] = field(default_factory=dict)
    only_at: int | None = None
    expects: str | None = None
    revision: int | None = None
    effects: Mapping[str, str] = field(default_factory=dict)
    seen: Mapping[str, Entry] = field(default_factory=dict)
    refused: str = ""

    @property
    def changed(self) -> bool:
        """Whether the answer says that it made its revision."""
        return any(effect in ("created", "updated", "deleted") for effect in self.effects.values())

    def __str__(self) -> str:
        return f"{self.verb} {','.join(self.names)} by {self.client} at {self.revision} ({self.id or 'read'})"


def violations(calls: Sequence[Call], log: Mapping[int, str]) -> list[str]:
    """`log`: revision -> the id that its lines bear, of all revisions from 1.

    It decides only what became of writes that got no answer; for all others it must say the same as their answers.
    """
    found: list[str] = []
    found += _told("writes have no revision, or another one than their answer", list(_log_and_answers(calls, log)))
    writes = _by_revision(calls, log, found)
    newest = max(log, default=0)
    gaps = [str(revision) for revision in range(1, newest + 1) if revision not in writes]
    found += _told("revisions were made by no known write", gaps)
    found += _told("answers do not fit their place in the order", list(_replayed(calls, writes, newest)))
    found += _told("answers ran before what had ended before they began", list(_time_travels(calls, log)))
    return found


def _log_and_answers(calls: Sequence[Call], log: Mapping[int, str]) -> Iterator[str]:
    places: dict[str, list[int]] = defaultdict(list)
    for revision, name in log.items():
        places[name].append(revision)
    for call in calls:
        there = places.get(call.id, []) if call.id else []
        wanted = [call.revision] if call.changed else []
        if len(there) > 1 or (call.ended is not None and call.id and there != wanted):
            yield f"{call}: it is in {there}"


def _by_revision(calls: Sequence[Call], log: Mapping[int, str], found: list[str]) -> dict[int, Call]:
    """The write that made each revision: by its answer, or by the log where none came."""
    writes: dict[int, Call] = {}
    of_id = {call.id: call for call in calls if call.id}
    twice = []
    for call in calls:
        if call.changed and call.revision is not None:
            if call.revision in writes:
                twice.append(f"{call} and {writes[call.revision]}")
            writes[call.revision] = call
    found += _told("revisions were given to two writes", twice)
    for revision, name in log.items():
        if revision not in writes and name in of_id:
            writes[revision] = of_id[name]
    return writes


def _replayed(calls: Sequence[Call], writes: Mapping[int, Call], newest: int) -> Iterator[str]:
    asking: dict[int, list[Call]] = defaultdict(list)
    for call in calls:
        if call.revision is not None and not call.changed:
            asking[call.revision].append(call)
    yield from (f"{call}: there is no such revision" for at in asking if at > newest for call in asking[at])
    state: State = {}
    for revision in range(newest + 1):
        if revision in writes:
            yield from _written(writes[revision], state, revision)
        for call in asking.get(revision, ()):
            yield from _asked(call, state)


def _written(call: Call, state: State, revision: int) -> Iterator[str]:
    """What a write must have been answered, and the state after it."""
    answered = call.ended is not None
    if (refusal := _refusal(call, state)) is not None:
        yield f"{call}: should have been refused: {refusal}"
    for name, command in call.commands.items():
        old = state.get(name)
        if command is None:
            state.pop(name, None)
            wanted, now = ("deleted" if old else "unchanged"), None
        elif old is not None and old.command == command:
            wanted, now = "unchanged", old
        else:
            now = Entry(command, revision, old.generation + 1 if old else 1)
            wanted = "updated" if old else "created"
            state[name] = now
        if answered and call.effects.get(name) != wanted:
            yield f"{call}: {name} was {call.effects.get(name)}, should be {wanted}"
        if answered and now is not None and name in call.seen and call.seen[name] != now:
            yield f"{call}: answered {call.seen[name]}, should be {now}"


def _asked(call: Call, state: State) -> Iterator[str]:
    """What a read, a refused write or one that changed nothing must have been answered."""
    if call.id:
        wanted = _refusal(call, state)
        if wanted is None and any(
            (state[name].command if name in state else None) != command for name, command in call.commands.items()
        ):
            yield f"{call}: nothing was done ({call.refused or dict(call.effects)}), but there was something to do"
        elif wanted is not None and call.refused != wanted:
            yield f"{call}: should have been refused: {wanted}, was {call.refused or dict(call.effects)}"
        elif wanted is None and call.refused:
            yield f"{call}: should not have been refused: {call.refused}"
        return
    for name in call.names:
        if call.seen.get(name) != state.get(name):
            yield f"{call}: saw {name} as {call.seen.get(name)}, it was {state.get(name)}"


def _refusal(call: Call, state: State) -> str | None:
    """The code of the error that the write must get in that state."""
    for name in call.names:
        old = state.get(name)
        if call.only_at is not None and call.only_at != (old.revision if old else 0):
            return "precondition-failed"
        if old is None and call.verb in ("delete", "patch"):
            return "not-found"
        if old is not None and call.verb == "patch" and call.expects != old.command:
            return "invalid"
    return None


def _time_travels(calls: Sequence[Call], log: Mapping[int, str]) -> Iterator[str]:
    """What began after an answer had come must run at its revision or a later one; what makes one, at a later one."""
    made = {name: revision for revision, name in log.items()}
    ended = sorted((call for call in calls if call.ended is not None), key=lambda call: call.ended or 0.0)
    newest, at = None, 0
    for call in sorted(calls, key=lambda call: call.began):
        while at < len(ended) and (ended[at].ended or 0.0) < call.began:
            if newest is None or (ended[at].revision or 0) > (newest.revision or 0):
                newest = ended[at]
            at += 1
        revision = call.revision if call.ended is not None else made.get(call.id)
        if newest is None or newest.revision is None or revision is None:
            continue
        makes = call.changed or call.ended is None
        if revision < newest.revision or (makes and revision == newest.revision):
            yield f"{call} at {revision}, after the answer to {newest}"


def _told(what: str, cases: list[str]) -> list[str]:
    return [f"{len(cases)} {what}: {cases[:MOST_SHOWN]}"] if cases else []
