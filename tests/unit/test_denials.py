from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.kernel.world import SystemWorld
from universal_registry.log.audit import Deed
from universal_registry.observe.denials import MOST_ROUTES, MOST_SORTS, Denials


class Clock(SystemWorld):
    at = 0.0

    def monotonic(self) -> float:
        return self.at

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.at)


class Book:
    def __init__(self) -> None:
        self.deeds: list[Deed] = []
        self.commits = 0
        self.is_gone = False

    async def record(self, deeds: Sequence[Deed]) -> None:
        if self.is_gone:
            raise StorageUnavailable("gone")
        self.commits += 1
        self.deeds += deeds


def made() -> tuple[Clock, Book, Denials]:
    clock, book = Clock(), Book()
    return clock, book, Denials(clock, book.record)


def test_a_flood_of_one_sort_is_one_row_a_minute() -> None:
    async def main() -> None:
        clock, book, denials = made()
        for second in range(600):
            clock.at = second
            for _ in range(100):
                denials.note("unknown", "unauthenticated: a token is needed", "GET /metrics")
            await denials.flush()
        assert denials.total == 60_000
        assert book.commits == 9
        assert {deed.subject for deed in book.deeds} == {"unauthenticated: a token is needed"}
        await denials.flush(now=True)
        assert sum(deed.details["times"] for deed in book.deeds) == 60_000

    asyncio.run(main())


def test_nobody_can_fill_the_disk_with_names() -> None:
    async def main() -> None:
        _, book, denials = made()
        for number in range(10_000):
            denials.note(f"token:{number}", "forbidden: x", f"GET /{number}")
        await denials.flush(now=True)
        assert len(book.deeds) == MOST_SORTS + 1
        assert sum(deed.details["times"] for deed in book.deeds) == 10_000
        others = book.deeds[-1]
        assert (others.actor, others.subject, len(others.details["routes"])) == ("others", "various", MOST_ROUTES)

    asyncio.run(main())


def test_nothing_denied_costs_no_commit() -> None:
    async def main() -> None:
        _, book, denials = made()
        await denials.flush(now=True)
        assert book.commits == 0

    asyncio.run(main())


def test_what_could_not_be_written_is_written_later_and_stays_bounded() -> None:
    async def main() -> None:
        clock, book, denials = made()
        book.is_gone = True
        for minute in range(5):
            for number in range(MOST_SORTS):
                denials.note(f"token:{minute}.{number}", "forbidden: x", "GET /a")
            clock.at += 61
            with pytest.raises(StorageUnavailable):
                await denials.flush()
        book.is_gone = False
        await denials.flush()
        assert sum(deed.details["times"] for deed in book.deeds) == 5 * MOST_SORTS
        assert len(book.deeds) <= MOST_SORTS + 1

    asyncio.run(main())
