"""What a daemon knows of the records it wrote last, on a database that others write too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from universal_registry.kernel.ids import Key
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.kernel.settings import PostgresSettings
from universal_registry.registry.operation import Effect
from universal_registry.registry.service import Actor
from universal_registry.security.cipher import Sealer, secret_context
from universal_registry.storage import postgres

ME = Actor("uid:0", admin=True)
KEY = Key("setting", "default", "limit")


def limit(**spec: Any) -> dict[str, Any]:
    return {"kind": "setting", "name": "limit", "spec": spec}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that ask for records to decide by."""
    seen: list[str] = []
    fetch = postgres._Connection.fetch

    async def noted(self: Any, sql: str, *args: Any, **more: Any) -> Any:
        if "LATERAL" in sql:
            seen.append(sql)
        return await fetch(self, sql, *args, **more)

    monkeypatch.setattr(postgres._Connection, "fetch", noted)
    return seen


async def test_a_record_that_was_just_written_is_not_asked_for_again(
    opened: Callable[..., Any], database: PostgresSettings, asked: list[str]
) -> None:
    async with opened(database) as one:
        await one.service.put(limit(value=1), actor=ME)
        assert len(asked) == 1
        written = await one.service.put(limit(value=2), actor=ME)
        assert len(asked) == 1
        assert written.results[0].record.generation == 2


async def test_what_another_daemon_wrote_meanwhile_is_decided_by(
    opened: Callable[..., Any], database: PostgresSettings
) -> None:
    async with opened(database) as one, opened(database) as other:
        await one.service.put(limit(value=1), actor=ME)
        await other.service.merge(limit(description="of the other"), actor=ME)
        merged = (await one.service.merge(limit(value=2), actor=ME)).results[0].record
        assert (merged.spec, merged.generation) == ({"value": 2, "description": "of the other"}, 3)
        await other.service.delete(KEY, actor=ME)
        again = (await one.service.merge(limit(value=3), actor=ME)).results[0]
        assert again.effect is Effect.CREATED
        assert (again.record.spec, again.record.generation) == ({"value": 3}, 1)


async def test_what_two_daemons_count_at_the_same_time_is_never_lost(
    opened: Callable[..., Any], database: PostgresSettings
) -> None:
    """Each adds fields of its own to the same few records, many at a time: groups are decided ahead, and the other's
    come between."""
    async with opened(database) as one, opened(database) as other:
        count = 40

        async def add(daemon: Any, mark: str, number: int) -> None:
            document = {"kind": "setting", "name": f"n{number % 3}", "spec": {f"{mark}{number}": number}}
            await daemon.service.merge(document, actor=ME)

        both = [add(daemon, mark, number) for number in range(count) for daemon, mark in ((one, "a"), (other, "b"))]
        await asyncio.gather(*both)
        for at in range(3):
            record = await one.service.get(Key("setting", "default", f"n{at}"))
            expected = {f"{mark}{number}": number for mark in "ab" for number in range(at, count, 3)}
            assert record.spec == expected
            assert record.generation == len(expected)


async def test_a_secret_that_another_daemon_sealed_anew_is_kept_as_it_is_now(
    opened: Callable[..., Any], database: PostgresSettings
) -> None:
    async with opened(database) as one:
        put = await one.service.put(limit(value=1, secret_value="s"), actor=ME)
        before = put.results[0].record.spec["secret_value"]["$sealed"]
        sealer: Sealer = one.service._sealer
        anew = sealer.seal(canonical("s"), secret_context(str(KEY), ("secret_value",)))
        assert anew != before
        async with one.store.database.transaction() as connection:  # as a rotation does it: the log's head stays
            await connection.execute("SELECT set_config('ureg.write', 'on', true)")
            await connection.execute("UPDATE registry.settings SET spec = replace(spec, $1, $2)", before, anew)
        kept = limit(value=2, secret_value={"$secret": "kept"})
        after = (await one.service.put(kept, actor=ME)).results[0].record
        assert after.spec["secret_value"]["$sealed"] == anew


async def test_nothing_is_known_after_a_batch_that_failed(
    opened: Callable[..., Any], database: PostgresSettings, asked: list[str]
) -> None:
    async with opened(database) as one:
        await one.service.put(limit(value=1), actor=ME)

        async def fails(batch: Any) -> None:
            raise RuntimeError("of this test")

        with pytest.raises(RuntimeError, match="of this test"):
            await one.writer.within(fails)
        asked.clear()
        await one.service.put(limit(value=2), actor=ME)
        assert len(asked) == 1
