"""`metrics/registry.metrics`: one `key=value` a line, replaced whole, so that a reader never sees half a file."""

from __future__ import annotations

import errno
import os
from datetime import datetime
from pathlib import Path

import msgspec

from universal_registry.kernel.errors import ReadOnlyStore, StorageFull
from universal_registry.propagation.lanes.lane import Counters

METRICS = {
    "health.db": "1 when both databases answer, else 0; 0 also after a clean stop.",
    "health.queue_depth": "Deliveries that are not finished: pending and retry, and changes not yet planned.",
    "health.webhooks_pending": "Deliveries to webhooks that were never tried.",
    "propagation.executed": "Deliveries that ended well, over all transports, since the store was made.",
    "webhook.delivered": "Webhooks accepted by their targets, since the store was made.",
    "webhook.retry": "Attempts that failed and are repeated, since the store was made.",
    "webhook.failed": "Webhooks given up (dead letters), since the store was made.",
    "stream.messages": "Messages that streams have carried, both ways, since the store was made.",
    "metrics.updated_at": "When this file was written (RFC 3339, UTC): shows its age.",
}
"""Every metric, in the order of the file, and its meaning."""


class Gauges(msgspec.Struct, frozen=True, kw_only=True):
    """What the file says. Counters are totals since the store was made, so that a restart does not reset them."""

    db: bool
    queue_depth: int = 0
    webhooks_pending: int = 0
    counters: Counters = Counters()

    def down(self) -> Gauges:
        """The same, with the database not answering."""
        return msgspec.structs.replace(self, db=False)


def render(gauges: Gauges, at: datetime) -> str:
    """The text of the file."""
    counters = gauges.counters
    values: dict[str, int | str] = {
        "health.db": int(gauges.db),
        "health.queue_depth": gauges.queue_depth,
        "health.webhooks_pending": gauges.webhooks_pending,
        "propagation.executed": counters.executed,
        "webhook.delivered": counters.delivered,
        "webhook.retry": counters.retried,
        "webhook.failed": counters.failed,
        "stream.messages": counters.messages,
        "metrics.updated_at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    return "".join(f"{key}={values[key]}\n" for key in METRICS)


def write(path: Path, gauges: Gauges, at: datetime) -> None:
    """Replace the file. Raises ReadOnlyStore, StorageFull; the old file then stays."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(render(gauges, at), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (StorageFull if full else ReadOnlyStore)(f"{path} cannot be written: {error.strerror}") from None
