"""Whoever waits for a connection has it in turn, and no place among them is ever lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import asyncpg
import pytest

from universal_registry.kernel.settings import PostgresSettings
from universal_registry.storage.fair_pool import FairPool

SIZE = 2


@pytest.fixture
async def driver(database: PostgresSettings) -> AsyncIterator[Any]:
    """The driver's pool."""
    pool = await asyncpg.create_pool(
        host=database.host, port=database.port, user=database.user, password=database.password,
        database=database.name, min_size=0, max_size=SIZE,
    )  # fmt: skip
    yield pool
    pool.terminate()


@pytest.fixture
def pool(driver: Any) -> FairPool:
    return FairPool(driver, SIZE, 30.0)


async def taken(pool: FairPool) -> list[Any]:
    """All connections."""
    return [await pool.acquire() for _ in range(SIZE)]


async def all_places_are_there(pool: FairPool) -> None:
    """As many connections as ever can be had, and they work."""
    async with asyncio.timeout(20):
        connections = await taken(pool)
        assert [await each.fetchval("SELECT 7") for each in connections] == [7] * SIZE
        for each in connections:
            await pool.release(each)


async def waiting(number: int, work: Any) -> list[asyncio.Task[None]]:
    """So many tasks of that work, begun in order and waiting."""
    tasks = []
    for each in range(number):
        tasks.append(asyncio.get_running_loop().create_task(work(each)))
        await asyncio.sleep(0)
    return tasks


async def test_who_asked_first_is_served_first(pool: FairPool) -> None:
    held, asked, served = await taken(pool), count(), []

    async def use(group: asyncio.TaskGroup) -> None:
        number = next(asked)
        connection = await pool.acquire()
        served.append(number)
        await connection.fetchval("SELECT 1")
        if number < 200:
            group.create_task(use(group))  # comes just as the connection is given back
        await pool.release(connection)

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(use(group))
        await asyncio.sleep(0)
        for each in held:
            await pool.release(each)
    assert served[:200] == list(range(200))
    await all_places_are_there(pool)


async def test_one_who_goes_away_just_as_he_is_given_a_connection_passes_it_on(pool: FairPool) -> None:
    held, had = await taken(pool), []

    async def use(number: int) -> None:
        connection = await pool.acquire()
        had.append(number)
        await pool.release(connection)

    tasks = await waiting(3, use)
    await pool.release(held[0])  # it is the first one's now
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert tasks[0].cancelled()
    assert had == [1, 2]
    await pool.release(held[1])
    await all_places_are_there(pool)


async def test_one_who_gave_up_waiting_is_not_given_any(pool: FairPool) -> None:
    held = await taken(pool)

    async def use(_: int) -> None:
        await pool.acquire()

    (task,) = await waiting(1, use)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for each in held:
        await pool.release(each)
    await all_places_are_there(pool)


async def test_nobody_waits_for_ever(driver: Any) -> None:
    pool = FairPool(driver, SIZE, 0.05)
    held = await taken(pool)
    with pytest.raises(TimeoutError):
        await pool.acquire()
    for each in held:
        await pool.release(each)


async def test_a_connection_that_was_lost_is_not_handed_on(pool: FairPool) -> None:
    held, answers = await taken(pool), []

    async def use(_: int) -> None:
        connection = await pool.acquire()
        answers.append(await connection.fetchval("SELECT 7"))
        await pool.release(connection)

    tasks = await waiting(3, use)
    held[0].terminate()
    await pool.release(held[0])
    await asyncio.gather(*tasks)
    assert answers == [7, 7, 7]
    await pool.release(held[1])
    await all_places_are_there(pool)


async def test_a_server_that_cannot_be_reached_costs_no_place(driver: Any, pool: FairPool) -> None:
    driver.terminate()
    for _ in range(SIZE + 1):
        with pytest.raises(asyncpg.InterfaceError):
            await pool.acquire()
