"""Rows of records as they were last committed, so that a writer need not read what it has just written."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from universal_registry.kernel.ids import Key
from universal_registry.registry.words import ENVELOPE

Row = tuple[Any, ...]
MOST_ROWS = 2048
MOST_TEXT = 4096
_SPEC = ENVELOPE.index("spec")


class KnownRows:
    """The rows written last: at most MOST_ROWS, none with a spec beyond MOST_TEXT characters.

    Rows, not records: what a caller still holds of a record cannot change them. They are true for one version of the
    store, which their owner asks for in each transaction: another one's commit makes all of them forgotten. On SQLite
    that is the file's; on PostgreSQL the head of the log, which moves whenever a record changes, but not when seals are
    made anew: so no row with a seal is given to be kept there.
    """

    def __init__(self) -> None:
        self._rows: dict[Key, Row] = {}
        self._version: object = None

    def of_version(self, version: object) -> None:
        """The store is of this version now. If others have written it since, nothing is known."""
        if version != self._version:
            self.forget()
            self._version = version

    def get(self, key: Key) -> Row | None:
        """The record's row. None: not known, which says nothing about whether there is one."""
        return self._rows.get(key)

    def keep(self, rows: Mapping[Key, Row | None], version: object = None) -> None:
        """These have been committed. None: the record was removed. The oldest are forgotten. `version`: what the store
        has become by them, where that changes it."""
        self._version = self._version if version is None else version
        for key, row in rows.items():
            self._rows.pop(key, None)
            if row is not None and len(row[_SPEC]) <= MOST_TEXT:
                self._rows[key] = row
        for key in list(islice(self._rows, max(0, len(self._rows) - MOST_ROWS))):
            del self._rows[key]

    def forget(self) -> None:
        """Nothing is known any more."""
        self._rows.clear()
