"""What the registry needs of a store. Both engines satisfy these by shape."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

import msgspec

from universal_registry.kernel.ids import Key
from universal_registry.log.change import Change
from universal_registry.log.cursor import Cursor, Head
from universal_registry.log.horizon import Horizon
from universal_registry.registry.once import Kept
from universal_registry.registry.operation import Committed, Request
from universal_registry.registry.record import Record
from universal_registry.registry.selector import Selector
from universal_registry.registry.watch import Passage


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Some records in order of (kind, namespace, name), the revision they were read at, and where to go on."""

    records: tuple[Record, ...]
    revision: int
    next: str | None = None


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A record, or that there is none, and the revision at which that was so."""

    record: Record | None
    revision: int


class RecordWriter(Protocol):
    """The one writer of a store."""

    async def submit(self, request: Request) -> Committed:
        """Decide and commit. Returns after the fsync. Raises what `decide` refused with, or StorageUnavailable."""
        ...


class RecordReader(Protocol):
    """Reads. Each sees one committed state; none waits for the writer."""

    @property
    def state(self) -> int | None:
        """A number: what was read while it was this one is so as long as it stays. None: that cannot be told now."""
        ...

    async def get(self, key: Key) -> Record | None: ...

    async def look(self, key: Key) -> Seen:
        """The record and the head's revision, from one state."""
        ...

    async def find(self, name: str, namespace: str | None = None) -> Sequence[Record]:
        """All records of that exact name over all kinds, in the namespace, or in all but `system`."""
        ...

    async def select(self, selector: Selector, *, limit: int, page: str | None = None) -> Page: ...

    def pages(self, selector: Selector | None, *, size: int) -> AsyncGenerator[Page, None]:
        """All selected records (None: of every namespace, `system` too), page after page, from ONE state, which is let
        go when the generator ends or is closed. At least one page."""
        ...

    async def kept(self, actor: str, key: str) -> Kept | None:
        """What was answered to the actor's request that bore this idempotency key. It may be out of date."""
        ...

    async def counts(self) -> dict[str, int]:
        """Records per kind (kinds with none left out)."""
        ...


class LogReader(Protocol):
    """Reads of the change log. Behind its horizon lines may be missing, and bodies."""

    async def horizon(self) -> Horizon:
        """How far back the log is whole."""
        ...

    async def changes(self, after: int, limit: int, *, upto: int | None = None) -> Sequence[Change]:
        """Whole revisions after `after`, in order, about `limit` lines; at least one revision when there is one."""
        ...

    async def passages(
        self, after: int, limit: int, *, upto: int | None = None, aside: bool = False
    ) -> Sequence[Passage]:
        """As `changes`, each line with the value before it; fewer than `limit` only if that is all there is. `aside`:
        off the loop, for those who are far behind."""
        ...

    async def history(
        self, key: Key, limit: int, *, before: int | None = None, events: bool = True
    ) -> Sequence[Change]:
        """The newest lines about one record, newest first; `before`: only those of revisions below it; without
        `events`: only those that changed the record."""
        ...

    async def head(self) -> Head: ...

    async def check_cursor(self, cursor: Cursor) -> None:
        """Raises CursorMismatch (with `data["cursor"]` to resync at) unless the log has that line; CursorGone, which is
        one, when it lies before the lines that are kept."""
        ...

    async def lines_of_kind(self, kind: str, namespace: str) -> Sequence[Change]:
        """All lines about the records of one kind in one namespace, oldest first: the history of routes and targets."""
        ...

    async def line(self, revision: int, seq: int) -> Change | None: ...

    async def newest_places(self, revision: int, seq: int, limit: int) -> Sequence[tuple[int, int]]:
        """(revision, seq) of the lines behind a place, newest first: at most `limit`."""
        ...
