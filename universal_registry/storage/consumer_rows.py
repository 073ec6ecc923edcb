"""Named consumers as rows of the registry store, and back; the same on every engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from universal_registry.registry.consumers import Consumer


def consumer_row(consumer: Consumer) -> tuple[Any, ...]:
    """The columns of the query keep."""
    place = consumer.place
    selector = orjson.dumps(consumer.selector, option=orjson.OPT_SORT_KEYS).decode()
    return (
        *(consumer.name, selector, consumer.cursor, place.incarnation, place.revision),
        *(consumer.created_at, consumer.created_by, consumer.acked_at),
    )


def consumer_from(row: Sequence[Any]) -> Consumer:
    """A row of the queries consumers and consumer."""
    name, selector, cursor, created_at, created_by, acked_at = row
    return Consumer(
        name=name,
        selector=orjson.loads(selector),
        cursor=cursor,
        created_at=created_at,
        created_by=created_by,
        acked_at=acked_at,
    )
