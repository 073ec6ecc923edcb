"""When SQLite's WAL goes into its file: beside the writer, so that a commit waits for little of it."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import apsw

PAGES = 4000
"""16 MiB of WAL: a page that is written often then goes into the file less often, and so do the two fsyncs of it."""


class Checkpoints:
    """Of one file. The pages of a large store are many different ones: moving them takes longer than their commits did
    (measured at a million records: an eighth of the time of a write). So a thread moves them, on a connection of its
    own, while commits go on. What these add meanwhile is little, and is moved behind the next COMMIT, in its thread:
    only when the writer rests can all of it be moved, and the WAL begins anew.

    What cannot be moved stays in the WAL, which holds it as safely, and is tried again with the next pages. That a disk
    fails or is full shows in the commits.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"checkpoint{path.suffixes[0]}")
        self._connection: apsw.Connection | None = None
        self._pass: Future[None] | None = None
        self._written = 0
        """Pages that the writer had written when the WAL last began anew."""

    def after_commit(self, writer: apsw.Connection) -> None:
        """The writer has committed. In the thread that did it."""
        written = writer.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0]
        if written - self._written < PAGES:
            return
        if self._pass is None:
            self._pass = self._thread.submit(self._move)
        elif self._pass.done():
            self._pass, self._written = None, written
            _move(writer)

    def _move(self) -> None:
        if self._connection is None:
            self._connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
            self._connection.execute("PRAGMA synchronous=FULL")
        _move(self._connection)

    def close(self) -> None:
        """Wait for what is under way, and end. The writer must be at rest."""
        self._thread.shutdown()
        if self._connection is not None:
            self._connection.close()


def _move(connection: apsw.Connection) -> None:
    with suppress(apsw.Error):  # see above
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
