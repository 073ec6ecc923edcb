"""Looking ahead (rehearsal) and going back (undo, rollback, undelete), on each engine."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from universal_registry.kernel.errors import Conflict, Forbidden, Invalid, NotFound, PreconditionFailed, UsageError
from universal_registry.kernel.ids import Key
from universal_registry.registry.check import check_registry
from universal_registry.registry.operation import Effect
from universal_registry.registry.rehearsal import rehearse
from universal_registry.registry.reverting import rollback, undelete, undo
from universal_registry.registry.service import Actor, RegistryService, Written

sys.path.insert(0, str(Path(__file__).parent))
from test_registry_store import ENGINES, OPERATOR, Opener, alias

GS, GL, GD = (Key("alias", "default", name) for name in ("gs", "gl", "gd"))
PAY = Key("env_var", "default", "PAY_KEY")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Opener:
    if request.param == "postgres":
        request.getfixturevalue("postgres")
    return ENGINES[request.param]


@pytest.fixture
async def service(engine: Opener, tmp_path: Path) -> AsyncIterator[RegistryService]:
    async with engine(tmp_path) as opened:
        yield opened
        await check_registry(opened.records, opened.log, opened.event_commitment)


def secret(text: str) -> dict[str, Any]:
    return {"kind": "env_var", "name": "PAY_KEY", "spec": {"secret_value": text}}


async def does(service: RegistryService, documents: list[dict[str, Any]]) -> Written:
    return await service.batch(documents, actor=OPERATOR)


async def spec(service: RegistryService, key: Key) -> Any:
    found = await service.records.get(key)
    return None if found is None else found.spec


# --- looking ahead --------------------------------------------------------------------------------------------------


async def test_a_rehearsal_says_what_would_change_and_changes_nothing(service: RegistryService) -> None:
    await service.put(alias("gs"), actor=OPERATOR)
    await service.put(alias("gl"), actor=OPERATOR)
    operations = [
        {"op": "merge", **alias("gs", "git status -sb")},
        {"op": "put", **alias("gd", "git diff")},
        {"op": "delete", "kind": "alias", "name": "gl"},
    ]
    before = await service.log.head()
    found = await rehearse(service, operations, actor=OPERATOR)
    assert [each.result.effect for each in found.each] == [Effect.UPDATED, Effect.CREATED, Effect.DELETED]
    assert found.each[0].changed == ("spec.command",)
    assert found.each[1].before is None
    assert found.each[2].after is None
    assert found.revision == 2
    assert await service.log.head() == before
    assert (await service.records.counts())["alias"] == 2
    written = await does(service, operations)  # and it is what then happens
    assert [each.effect for each in written.results] == [each.result.effect for each in found.each]


async def test_a_rehearsal_refuses_what_the_write_would_refuse(service: RegistryService) -> None:
    await service.put(alias("gs"), actor=OPERATOR)
    for refused, error in (
        ({"op": "delete", "kind": "alias", "name": "nothing"}, NotFound),
        ({"op": "put", **alias("gs", "x"), "meta": {"revision": 7}}, PreconditionFailed),
        ({"op": "delete", "kind": "alias", "name": "gs", "meta": {"revision": 7}}, PreconditionFailed),
        ({"op": "put", "kind": "alias", "name": "gs", "spec": {"command": 1}}, Invalid),
        ({"op": "delete", "kind": "endpoint", "namespace": "system", "name": "x"}, Forbidden),
    ):
        who = Actor(name="token:x", scopes=frozenset({"write"})) if error is Forbidden else OPERATOR
        with pytest.raises(error):
            await rehearse(service, [refused], actor=who)
        with pytest.raises(error):
            await service.batch([refused], actor=who)


# --- going back -----------------------------------------------------------------------------------------------------


async def test_undo_puts_a_whole_revision_back(service: RegistryService) -> None:
    await service.put(alias("gs", "one"), actor=OPERATOR)
    await service.put(alias("gl", "two"), actor=OPERATOR)
    before = await spec(service, GS), await spec(service, GL)
    done = await does(
        service,
        [
            {"op": "put", **alias("gs", "changed")},
            {"op": "delete", "kind": "alias", "name": "gl"},
            {"op": "put", **alias("gd", "new")},
        ],
    )
    undone = await does(service, await undo(service.records, service.log, done.revision))
    assert (await spec(service, GS), await spec(service, GL)) == before
    assert await service.records.get(GD) is None
    assert undone.revision == done.revision + 1
    again = await does(service, await undo(service.records, service.log, undone.revision))  # an undo can be undone
    assert again.revision == undone.revision + 1
    assert (await spec(service, GS))["command"] == "changed"
    assert await service.records.get(GL) is None


async def test_undo_is_refused_when_a_record_was_changed_since(service: RegistryService) -> None:
    await does(service, [{"op": "put", **alias("gs", "one")}, {"op": "put", **alias("gl", "one")}])
    await service.put(alias("gs", "two"), actor=OPERATOR)
    with pytest.raises(Conflict, match="alias/default/gs in revision 2"):
        await undo(service.records, service.log, 1)
    await service.delete(GS, actor=OPERATOR)
    await service.put(alias("gs", "three"), actor=OPERATOR)
    with pytest.raises(Conflict):
        await undo(service.records, service.log, 3)  # the deletion; there is a new one of that name
    for revision in (0, 99):
        with pytest.raises(NotFound):
            await undo(service.records, service.log, revision)
    await service.emit(GS, {"x": 1}, audience=["system/a"], session="s", actor=OPERATOR)
    with pytest.raises(UsageError, match="no record"):
        await undo(service.records, service.log, 5)


async def test_a_change_between_looking_and_undoing_is_not_lost(service: RegistryService) -> None:
    await service.put(alias("gs", "one"), actor=OPERATOR)
    for revision in (1, 2):
        made = await undo(service.records, service.log, revision)
        await service.put(alias("gs", f"meanwhile {revision}"), actor=OPERATOR)
        with pytest.raises(PreconditionFailed):
            await does(service, made)


async def test_rollback_brings_secrets_back_too(service: RegistryService) -> None:
    first = await service.put(secret("one"), actor=OPERATOR)
    await service.put(secret("two"), actor=OPERATOR)
    await does(service, await rollback(service.records, service.log, PAY, first.revision))
    found = await service.get(PAY)
    assert service.reveal(found)["secret_value"] == "one"
    await service.delete(PAY, actor=OPERATOR)
    with pytest.raises(NotFound):
        await rollback(service.records, service.log, PAY, 4)
    await does(service, await rollback(service.records, service.log, PAY, 2))
    assert service.reveal(await service.get(PAY))["secret_value"] == "two"


async def test_undelete_brings_back_what_was_last_there(service: RegistryService) -> None:
    with pytest.raises(NotFound, match="never was"):
        await undelete(service.records, service.log, GS)
    await service.put(alias("gs", "one"), actor=OPERATOR)
    await service.put(alias("gs", "two"), actor=OPERATOR)
    with pytest.raises(Conflict, match="is there"):
        await undelete(service.records, service.log, GS)
    await service.delete(GS, actor=OPERATOR)
    await does(service, await undelete(service.records, service.log, GS))
    assert (await spec(service, GS))["command"] == "two"
