"""An inbox that handles each message once: its id is stored in the same SQLite transaction as the effect.

A message that was handled is recognised when it comes again, after a crash too; one whose handling failed is not there,
and its next attempt is handled. State that is older than what was handled for the same record is discarded.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum

from universal_registry.client.receiver import Message
from universal_registry.kernel.errors import Conflict
from universal_registry.kernel.world import SystemWorld, World

# A sender goes on for about 75 hours; a repeat is recognised for longer than that.
KEPT = timedelta(days=7)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS registry_inbox (id TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS registry_inbox_at ON registry_inbox (at);
CREATE TABLE IF NOT EXISTS registry_inbox_latest (
    source TEXT, subject TEXT, sequence TEXT NOT NULL, PRIMARY KEY (source, subject)
) WITHOUT ROWID;
"""
_SEEN = "SELECT 1 FROM registry_inbox WHERE id = ?"
_SEE = "INSERT INTO registry_inbox (id, at) VALUES (?, ?)"
_FORGET = "DELETE FROM registry_inbox WHERE at < ?"
_LATEST = "SELECT sequence FROM registry_inbox_latest WHERE source = ? AND subject = ?"
_ADVANCE = "INSERT OR REPLACE INTO registry_inbox_latest (source, subject, sequence) VALUES (?, ?, ?)"


class Verdict(StrEnum):
    """NEW: handle it. REPEATED: it was handled. LATE: a newer state of the same record was. Answer 2xx to all three."""

    NEW = "new"
    REPEATED = "repeated"
    LATE = "late"


class Inbox:
    """`connection`: yours, on the database where your effects are stored; the inbox makes its two tables there.

    `kept`: how long ids are remembered. Raises Conflict when a transaction is open.
    """

    def __init__(self, connection: sqlite3.Connection, *, kept: timedelta = KEPT, world: World | None = None) -> None:
        self._connection = connection
        self._kept = int(kept.total_seconds())
        self._world = world or SystemWorld()
        if connection.in_transaction:
            raise Conflict("a transaction is open on this connection", hint="make the inbox before it begins")
        connection.executescript(_SCHEMA)

    @contextmanager
    def handling(self, message: Message) -> Iterator[Verdict]:
        """Handle the message inside: one transaction holds its id and whatever you write on the connection.

        It is committed at the end, and rolled back when the block raises, which then goes on to the caller: answer 500,
        and the sender repeats. Raises Conflict when a transaction is open already.
        """
        if self._connection.in_transaction:
            raise Conflict("a transaction is open on this connection", hint="commit it, or use another connection")
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._take(message)
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _take(self, message: Message) -> Verdict:
        execute = self._connection.execute
        if execute(_SEEN, (message.id,)).fetchone():
            return Verdict.REPEATED
        now = int(self._world.now().timestamp())
        execute(_FORGET, (now - self._kept,))
        execute(_SEE, (message.id, now))
        if not (message.is_state and message.sequence and message.subject):
            return Verdict.NEW  # an event of its own: no other replaces it
        place = (message.source, message.subject)
        latest = execute(_LATEST, place).fetchone()
        if latest and message.sequence < latest[0]:
            return Verdict.LATE
        execute(_ADVANCE, (*place, message.sequence))
        return Verdict.NEW
