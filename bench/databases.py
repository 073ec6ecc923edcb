"""A PostgreSQL of the run, with all that makes it durable. The server is started as the tests start theirs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from bench.machine import ROOT, NotHere


@contextlib.contextmanager
def postgres() -> Iterator[Any]:
    """A PostgreSQL of the run that fsyncs. Raises NotHere."""
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        import pgserver  # type: ignore[import-untyped]
    finally:
        sys.path.pop(0)
    durable = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "autovacuum": "on",
               "max_wal_size": "1GB"}  # fmt: skip
    try:
        server = pgserver.Server(options=durable)
    except pgserver.NoServerHere as error:
        raise NotHere(str(error)) from None
    try:
        yield server
    finally:
        server.close()
