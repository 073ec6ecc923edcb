"""How much goes into one commit: half of what is under way where there is much, so that deciding goes on beside it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from universal_registry.kernel.world import SystemWorld
from universal_registry.log.chain import GENESIS, verify
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.service import Actor, RegistryService
from universal_registry.security.cipher import Sealer
from universal_registry.security.keyring import Keyring, new_key
from universal_registry.storage.registry_sqlite import SqliteRegistry
from universal_registry.storage.writer import WORTH_AN_FSYNC, GroupWriter

ME = Actor("uid:1000", admin=True)
ROUNDS = 10


@pytest.mark.parametrize(
    ("writers", "least", "most"),
    [(4 * WORTH_AN_FSYNC, 2 * ROUNDS - 4, 4 * ROUNDS), (WORTH_AN_FSYNC // 2, ROUNDS, ROUNDS + 2)],
)
async def test_many_writers_share_two_commits_in_turns_and_few_share_one(
    tmp_path: Path, writers: int, least: int, most: int
) -> None:
    world, catalogue = SystemWorld(), load_catalogue()
    registry = SqliteRegistry.open(tmp_path / "r.db", catalogue, world)
    writer = GroupWriter(registry, catalogue)
    sealer = Sealer(Keyring.of(new_key(world)), bytes(32))
    service = RegistryService(
        catalogue=catalogue, sealer=sealer, writer=writer, records=registry, log=registry, world=world
    )
    commits = 0

    def count() -> None:
        nonlocal commits
        commits += 1

    writer.on_commit(count)

    async def put(number: int) -> None:
        for turn in range(ROUNDS):
            spec = {"command": str(turn)}
            written = await service.put({"kind": "alias", "name": f"a{number}", "spec": spec}, actor=ME)
            assert written.results[0].record is not None
            assert written.results[0].record.generation == turn + 1

    await asyncio.gather(*map(put, range(writers)))
    assert least <= commits <= most
    lines = [line for at in range(0, writers * ROUNDS, 500) for line in await registry.changes(at, 500)]
    assert verify(GENESIS, lines, 1) == (await registry.head()).hash
    assert len(lines) == writers * ROUNDS
    await writer.close()
    registry.database.close()
