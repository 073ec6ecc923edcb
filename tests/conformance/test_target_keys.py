"""Rotation of the secrets and keys of targets, on each engine: overlap, the end of it, and two daemons that meet."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from universal_registry.kernel.errors import PreconditionFailed
from universal_registry.kernel.ids import Key
from universal_registry.log.change import Op
from universal_registry.propagation.verbs.target_keys import DROPPER, KeyField, drop_ended, rotate_key, show_key
from universal_registry.registry.service import RegistryService

sys.path.insert(0, str(Path(__file__).parent))
from test_registry_store import ENGINES, OPERATOR, Opener

MINE = Key("endpoint", "system", "mine")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture(params=ENGINES)
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RegistryService]:
    if request.param == "postgres":
        request.getfixturevalue("postgres")
    engine: Opener = ENGINES[request.param]
    async with engine(tmp_path) as opened:
        spec = {"url": "http://127.0.0.1:9/", "delivery": {"network": "loopback", "secret": SECRET}}
        await opened.put({"kind": "endpoint", "namespace": "system", "name": "mine", "spec": spec}, actor=OPERATOR)
        yield opened


async def rotate(service: RegistryService, field: KeyField, overlap: timedelta) -> dict[str, Any]:
    record = await service.get(MINE)
    return await rotate_key(service, record, field, overlap, actor=OPERATOR)


async def test_the_old_one_counts_until_its_time_is_over_and_is_then_gone(service: RegistryService) -> None:
    await rotate(service, KeyField.SECRET, timedelta(days=1))
    assert await drop_ended(service) == []
    new = await rotate(service, KeyField.SECRET, timedelta(microseconds=1))  # over as soon as it is written
    shown = show_key(service, await service.get(MINE), KeyField.SECRET, OPERATOR)
    assert shown["secret"] == new["secret"] != SECRET
    assert await drop_ended(service) == ["mine"]
    record = await service.get(MINE)
    assert set(service.reveal(record)["delivery"]) == {"network", "secret"}
    (newest, *_) = await service.history(MINE, limit=10)
    assert (newest.op, newest.actor) == (Op.PUT, DROPPER.name)
    assert await drop_ended(service) == []


async def test_of_two_who_rotate_at_once_one_looks_again(service: RegistryService) -> None:
    day = timedelta(days=1)
    record = await service.get(MINE)
    calls = [rotate_key(service, record, KeyField.SECRET, day, actor=OPERATOR) for _ in range(2)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(type(each).__name__ for each in answers) == [PreconditionFailed.__name__, dict.__name__]
    made = next(each for each in answers if isinstance(each, dict))
    shown = show_key(service, await service.get(MINE), KeyField.SECRET, OPERATOR)
    assert (shown["secret"], shown["previous_secret"]) == (made["secret"], SECRET)


async def test_two_daemons_drop_it_once(service: RegistryService) -> None:
    await rotate(service, KeyField.SEAL_KEY, timedelta(0))
    await rotate(service, KeyField.SEAL_KEY, timedelta(microseconds=1))
    before = (await service.log.head()).revision
    dropped = await asyncio.gather(drop_ended(service), drop_ended(service))
    assert sorted(map(len, dropped)) == [0, 1]
    assert (await service.log.head()).revision == before + 1
