"""The drill: a backup is restored into a temporary place, and everything is compared, opened and sealed anew there.

What is not tried is not known. Nothing of it touches the registry itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import msgspec

from universal_registry.care.backup import check_backup, make_backup
from universal_registry.care.restore import restore
from universal_registry.kernel.errors import Corrupt
from universal_registry.kernel.settings import EncryptionSettings, Settings
from universal_registry.kernel.world import World
from universal_registry.registry.check import check_registry
from universal_registry.registry.key_check import SealedFacts, Seals, check_seals
from universal_registry.registry.key_control import KeyControl
from universal_registry.registry.ports import RecordReader
from universal_registry.registry.record import Record
from universal_registry.registry.service import RegistryService
from universal_registry.security.cipher import Sealer, commitment_view
from universal_registry.security.keyring import Keyring

_RECORDS = 500
_ACTOR = "drill"


class _Stores(Protocol):
    @property
    def keys(self) -> SealedFacts: ...


class Opened(Protocol):
    """An opened registry, as far as a drill needs it."""

    service: RegistryService
    sealer: Sealer
    keys: KeyControl

    @property
    def stores(self) -> _Stores:
        """Whose `keys` knows what is sealed beside records and log."""
        ...

    async def close(self) -> None: ...


class Step(msgspec.Struct, frozen=True):
    """Something that the drill has shown."""

    name: str
    shown: str


Open = Callable[[Settings], Awaitable[Opened]]


async def drill(
    settings: Settings, world: World, ring: Keyring, scratch: Path, opener: Open, *, backup: Path | None = None
) -> AsyncIterator[Step]:
    """Each step as it is done; the first that fails raises, and says what is wrong.

    `ring`: the keys to open the backup with. `scratch`: an empty folder, with room for the backup and the registry.
    `backup`: one that is there; else one is made now. `opener`: opens a home, as its owner or for reading.
    """
    if backup is None:
        made = await make_backup(settings, ring, world, scratch)
        backup = made.path
        yield Step("backup", f"{made.rows} rows at revision {made.header.point.revision}, {made.bytes} bytes")
    header, tables = check_backup(backup, ring)
    rows = sum(table.rows for table in tables.values())
    yield Step("read", f"{rows} rows in {len(tables)} tables, each as its digest says; key {header.fingerprint}")
    home = scratch / "home"
    there = Settings(home=home, listen="", encryption=EncryptionSettings())
    await restore(backup, there, world, keys=ring)
    yield Step("restore", f"{rows} rows read back, all the same")
    async with _opened(opener, there) as restored:
        found = await check_registry(restored.service.records, restored.service.log, restored.service.event_commitment)
        yield Step("chain", f"{found.lines} lines of the log and {found.records} records agree")
        yield Step("compare", await _compared(settings, opener, restored, header.point.revision))
        yield Step("open", _said(await _seals(restored)))
        before = restored.sealer.keyring.primary
        answer = await restored.keys.rotate(_ACTOR)
        while answer["rotation"] is not None:
            answer = await restored.keys.rotate(_ACTOR, resume=True)
        seals = await _seals(restored)
        if before in seals.opened:
            raise Corrupt(f"after a rotation {seals.opened[before]} values are still sealed with key {before}")
        yield Step("rotate", f"key {before} replaced; {_said(seals)}")


@asynccontextmanager
async def _opened(opener: Open, settings: Settings) -> AsyncIterator[Opened]:
    found = await opener(settings)
    try:
        yield found
    finally:
        await found.close()


async def _seals(restored: Opened) -> Seals:
    found = await check_seals(restored.service, restored.sealer, restored.stores.keys)
    if found.wrong:
        raise Corrupt(f"{found.wrong} sealed values do not open: {found.named[0]}", hint="ureg key verify")
    return found


def _said(found: Seals) -> str:
    return f"{sum(found.opened.values())} sealed values open"


async def _compared(settings: Settings, opener: Open, restored: Opened, revision: int) -> str:
    """Each record of the registry that has not changed since, with the one that was restored. Raises Corrupt."""
    same = later = 0
    async with _opened(opener, replace(settings, lock_wait=0.0)) as living:
        async for page in living.service.records.pages(None, size=_RECORDS):
            for record in page.records:
                if record.revision > revision:
                    later += 1
                    continue
                await _check_same(record, restored.service.records)
                same += 1
    return f"{same} records equal to those of the registry" + (f"; {later} changed since" if later else "")


async def _check_same(record: Record, records: RecordReader) -> None:
    found = await records.get(record.key)
    if found is None or _plain(found) != _plain(record):
        what = "is missing from" if found is None else "is another one in"
        raise Corrupt(f"record {record.key} {what} the backup", key=str(record.key))


def _plain(record: Record) -> Record:
    """Without ciphertext: a rotation seals the same value anew."""
    return msgspec.structs.replace(record, spec=commitment_view(record.spec))
