"""One place after the other: looked at, checked, replaced as a whole, reloaded, found healthy; or put back as it was.

The state says first what is under way (`Pending`), so that whatever ends the agent leaves the old or the new, and the
next start goes on from there (`resume`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from universal_registry.agent.commands import Commands
from universal_registry.agent.disk import Look, Target, digest_of, look, put_back, whole_of, write
from universal_registry.agent.places import Places
from universal_registry.agent.plan import Entry, Form, words_for
from universal_registry.agent.result import Result, Standing
from universal_registry.agent.state import Kept, Pending, State, StateFile, draft_of
from universal_registry.agent.wanted import Wanted
from universal_registry.kernel.errors import Refused
from universal_registry.kernel.world import World

REMOVED = "removed"
"""In the place of a mark: that nothing stands there."""


class Placer:
    """Puts things in their places. `reached` is told of each step when it is done: tests end the process there."""

    def __init__(
        self,
        places: Places,
        commands: Commands,
        file: StateFile,
        state: State,
        world: World,
        *,
        reached: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._places = places
        self._commands = commands
        self._file = file
        self._state = state
        self._world = world
        self._reverts: set[Path] = set()
        self._reached = reached

    def revert(self, paths: Collection[Path]) -> None:
        """What stands at these paths is to be put as the registry has it, whatever it is; until `all_done`."""
        self._reverts.update(paths)

    def all_done(self) -> None:
        """Every place has been looked at: what people said of some does not hold for what is changed later."""
        self._reverts.clear()

    def settle(self, wanted: Wanted, *, again: bool = False) -> Result:
        """Make a place what it should be, unless that was tried (and `again` is not said) or is not ours to do."""
        kept = self._state.places.get(wanted.key)
        target = _target(wanted.path, wanted.entry, kept, wanted.sources)
        try:
            self._places.check(wanted.path)
            found = look(target)
            if found.mark == wanted.mark and _has_failed(kept, wanted):
                return self._asked_again(target, wanted, found, kept, again=again)
            if found.mark == wanted.mark:
                self._state.places[wanted.key] = _kept(target, wanted.mark, wanted.sources)
                return _result(target, Standing.RUNNING, wanted.sources)
            if why := self._foreign(target, found, kept):
                return self._not_done(target, Standing.HELD, why, wanted.sources, kept)
            if kept is not None and _has_failed(kept, wanted) and not again:
                return self._not_done(target, Standing.RECEIVED, kept.why, wanted.sources, kept)
            whole = self._begin(target, wanted.key, found, wanted)
            self._make_folders(wanted.path)
            return self._replace(target, wanted, found, whole)
        except Refused as error:
            self._abandon()
            return self._not_done(
                target, Standing.HELD, error.message, wanted.sources, self._state.places.get(wanted.key)
            )

    def _asked_again(self, target: Target, wanted: Wanted, found: Look, kept: Kept | None, *, again: bool) -> Result:
        """It stands there, and did not do when it was tried: it could not be put back, or somebody has put it there."""
        if not again:
            return self._not_done(target, Standing.RECEIVED, "" if kept is None else kept.why, wanted.sources, None)
        self._begin(target, wanted.key, found, wanted)
        pending = self._state.pending
        assert pending is not None
        return self._finish(target, pending)

    def remove(self, key: str, entry: Entry, *, again: bool = False) -> Result:
        """Take away what was put there for records that are gone, unless it was changed since."""
        kept = self._state.places[key]
        target = _target(Path(kept.path), entry, kept)
        try:
            self._places.check(target.path)
            found = look(target)
            if not found.mark or not kept.mark:
                del self._state.places[key]
                return _result(target, Standing.REMOVED, {})
            if why := self._foreign(target, found, kept):
                return _result(target, Standing.HELD, kept.sources, f"its records are gone, but {why}")
            if kept.failed == REMOVED and not again:
                return _result(target, Standing.RECEIVED, kept.sources, kept.why)
            whole = self._begin(target, key, found, None)
            return self._replace(target, None, found, whole)
        except Refused as error:
            self._abandon()
            return _result(target, Standing.HELD, kept.sources, error.message)

    def foresee(self, wanted: Wanted) -> Result:
        """What `settle` would do, or say; nothing is changed."""
        kept = self._state.places.get(wanted.key)
        target = _target(wanted.path, wanted.entry, kept, wanted.sources)
        try:
            self._places.check(wanted.path)
            found = look(target)
            if found.mark == wanted.mark and kept is not None and _has_failed(kept, wanted):
                return _result(target, Standing.HELD, wanted.sources, kept.why)
            if found.mark == wanted.mark:
                return _result(target, Standing.RUNNING, wanted.sources)
            if found.mark != _mark(kept) and wanted.path not in self._reverts:
                return _result(target, Standing.HELD, wanted.sources, _why_foreign(found, kept))
            after = whole_of(target, found.before, wanted.content)
            return _result(target, Standing.RECEIVED, wanted.sources, before=found.before.data, after=after)
        except Refused as error:
            return _result(target, Standing.HELD, wanted.sources, error.message)

    def foresee_removal(self, key: str, entry: Entry) -> Result:
        """What `remove` would do, or say."""
        kept = self._state.places[key]
        target = _target(Path(kept.path), entry, kept)
        try:
            self._places.check(target.path)
            found = look(target)
            if found.mark not in ("", kept.mark) and target.path not in self._reverts:
                return _result(target, Standing.HELD, kept.sources, _why_foreign(found, kept))
            after = whole_of(target, found.before, None) or b""
            return _result(target, Standing.REMOVED, kept.sources, before=found.before.data, after=after)
        except Refused as error:
            return _result(target, Standing.HELD, kept.sources, error.message)

    def resume(self, entries: Mapping[str, Entry]) -> Result | None:
        """Bring to its end what the last run was in the middle of. None: it was not."""
        pending = self._state.pending
        if pending is None:
            return None
        entry, kept = entries.get(pending.entry), self._state.places.get(pending.key)
        fits = entry is not None and entry.form == pending.form
        target = _target(Path(pending.path), entry, kept, pending.sources) if entry is not None and fits else None
        try:
            self._places.check(Path(pending.path))
            draft_of(Path(pending.path), pending.unique).unlink(missing_ok=True)
            found = look(target) if target is not None else None
        except (Refused, OSError):
            found = None  # the place is not what it was: it is looked at as any other
        if target is None or found is None or found.mark != pending.mark:
            # The old, or what somebody has made of it since: it is looked at as any other place.
            if target is not None and found is not None and pending.undoing and found.before == pending.before:
                return self._undone(target, pending)
            self._done(pending.key, kept)
            return None
        return self._finish(target, pending)

    # --- the steps ---------------------------------------------------------------------------------------------------

    def _begin(self, target: Target, key: str, found: Look, wanted: Wanted | None) -> bytes | None:
        """Say what is going to be done. What the place will have, as a whole. Raises Refused, StorageUnavailable."""
        whole = whole_of(target, found.before, None if wanted is None else wanted.content)
        self._state.pending = Pending(
            key=key,
            path=str(target.path),
            form=target.entry.form,
            entry=target.entry.name,
            before=found.before,
            mark="" if wanted is None else wanted.mark,
            sources={} if wanted is None else wanted.sources,
            whole=digest_of(whole),
            unique=self._world.new_id(),
        )
        self._file.save(self._state)
        self._reached("begun")
        return whole

    def _replace(self, target: Target, wanted: Wanted | None, found: Look, whole: bytes | None) -> Result:
        pending = self._state.pending
        assert pending is not None

        def good(draft: Path) -> None:
            """Raises _CheckFailed, and Refused when the place was changed meanwhile."""
            self._reached("drafted")
            if target.entry.check and wanted is not None:
                why = self._commands.run(words_for(target.entry.check, str(draft)))
                if why:
                    raise _CheckFailed(why)
            self._reached("checked")
            self._places.check(target.path)
            if look(target).before != found.before:
                raise Refused("it was changed on this machine at the same moment")

        try:
            mode = None if wanted is None else wanted.mode
            write(target, found.before, whole, mode, pending.unique, good)
        except _CheckFailed as error:
            return self._failed(target, pending, f"check failed: {error}")
        except OSError as error:
            return self._failed(target, pending, f"it cannot be written: {(error.strerror or str(error)).lower()}")
        self._reached("replaced")
        return self._finish(target, pending)

    def _finish(self, target: Target, pending: Pending) -> Result:
        """From the new being in its place, or on its way back, to the end."""
        if not pending.undoing:
            why = self._commands.run(target.entry.reload) if target.entry.reload else ""
            why = f"reload failed: {why}" if why else ""
            self._reached("reloaded")
            if not why and target.entry.health:
                why = self._commands.becomes_well(target.entry.health, target.entry.health_within)
                why = f"health failed: {why}" if why else ""
            if not why:
                new = _kept(target, pending.mark, pending.sources) if pending.mark else None
                self._done(pending.key, new)
                return _result(target, Standing.RUNNING if new else Standing.REMOVED, pending.sources, changed=True)
            pending.undoing = why
            self._file.save(self._state)
            self._reached("undoing")
        try:
            self._places.check(target.path)
            put_back(target, pending)
        except (OSError, Refused) as error:
            why = error.message if isinstance(error, Refused) else str(error.strerror or error).lower()
            return self._failed(target, pending, f"{pending.undoing}; what was there cannot be put back: {why}")
        self._reached("restored")
        return self._undone(target, pending)

    def _undone(self, target: Target, pending: Pending) -> Result:
        again = self._commands.run(target.entry.reload) if target.entry.reload else ""
        but = f", but then reload failed: {again}" if again else ""
        return self._failed(target, pending, f"{pending.undoing}; rolled back{but}")

    def _failed(self, target: Target, pending: Pending, why: str) -> Result:
        kept = self._state.places.get(pending.key) or _kept(target, "", {})
        kept.failed, kept.why = pending.mark or REMOVED, why
        self._done(pending.key, kept)
        return self._not_done(target, Standing.RECEIVED, why, pending.sources or kept.sources, kept, changed=True)

    def _done(self, key: str, kept: Kept | None) -> None:
        """Nothing is under way any more."""
        self._state.pending = None
        if kept is None:
            self._state.places.pop(key, None)
        else:
            self._state.places[key] = kept
        self._file.save(self._state)
        self._reached("kept")

    # --- whose it is -------------------------------------------------------------------------------------------------

    def _foreign(self, target: Target, found: Look, kept: Kept | None) -> str:
        """Why what is there is not ours to replace; empty: it is. What people said to replace is kept aside first."""
        if found.mark == _mark(kept):
            return ""
        if target.path not in self._reverts:
            return _why_foreign(found, kept)
        if found.before.what != "nothing":
            self._file.set_aside(target.path, found.before)
        return ""

    def _abandon(self) -> None:
        """What was begun is not done."""
        if self._state.pending is not None:
            key = self._state.pending.key
            self._done(key, self._state.places.get(key))

    def _make_folders(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"{path.parent} cannot be made: {(error.strerror or str(error)).lower()}") from None

    def _not_done(
        self,
        target: Target,
        standing: Standing,
        why: str,
        sources: Mapping[str, int],
        kept: Kept | None,
        *,
        changed: bool = False,
    ) -> Result:
        running = dict(kept.sources) if kept is not None and kept.mark and standing is Standing.RECEIVED else {}
        return _result(target, standing, sources, why, running=running, changed=changed)


class _CheckFailed(Exception):
    """The check of a draft said no."""


def _target(path: Path, entry: Entry, kept: Kept | None, sources: Mapping[str, int] | None = None) -> Target:
    """The place. Members of ours have the names of their records, of those that are there and those that are to be."""
    if entry.form is not Form.MEMBERS:
        return Target(path, entry)
    records = {*(kept.sources if kept is not None else ()), *(sources or ())}
    return Target(path, entry, frozenset(record.split("/", 2)[2] for record in records))


def _kept(target: Target, mark: str, sources: Mapping[str, int]) -> Kept:
    """What the state is to say of a place."""
    entry = target.entry
    return Kept(path=str(target.path), form=entry.form, entry=entry.name, mark=mark, sources=dict(sources))


def _has_failed(kept: Kept | None, wanted: Wanted) -> bool:
    """Whether what is wanted there was tried, and did not do."""
    return kept is not None and kept.failed == wanted.mark


def _mark(kept: Kept | None) -> str:
    return "" if kept is None else kept.mark


def _why_foreign(found: Look, kept: Kept | None) -> str:
    if not _mark(kept):
        return "there is something already that the agent has not put there"
    return "it was changed on this machine" if found.mark else "it was removed on this machine"


def _result(target: Target, standing: Standing, sources: Mapping[str, int], why: str = "", **more: Any) -> Result:
    return Result(
        path=str(target.path), entry=target.entry.name, standing=standing, sources=dict(sources), why=why, **more
    )
