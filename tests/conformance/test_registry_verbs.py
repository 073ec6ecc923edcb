"""JSON patch, idempotency keys, the past of records and long reads: what they need of a store, on each engine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from universal_registry.kernel.errors import Corrupt, Invalid, NotFound, PreconditionFailed
from universal_registry.kernel.ids import Key
from universal_registry.log.change import Op
from universal_registry.registry.check import check_registry
from universal_registry.registry.once import KEPT_FOR, Once, Replayed
from universal_registry.registry.operation import Effect
from universal_registry.registry.selector import parse_selector
from universal_registry.registry.service import Actor, RegistryService

sys.path.insert(0, str(Path(__file__).parent))
from test_registry_store import CATALOGUE, ENGINES, OPERATOR, Opener, alias, all_bytes

GS = Key("alias", "default", "gs")
NOTHING_HERE = Key("alias", "default", "nothing")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Opener:
    if request.param == "postgres":
        request.getfixturevalue("postgres")
    return ENGINES[request.param]


@pytest.fixture
async def service(engine: Opener, tmp_path: Path) -> AsyncIterator[RegistryService]:
    async with engine(tmp_path) as opened:
        yield opened


def once(key: str, fingerprint: str = "f") -> Once:
    return Once(key=key, fingerprint=fingerprint, render=lambda written: f"{written.revision} canary-answer".encode())


# --- looking, and the past ------------------------------------------------------------------------------------------


async def test_look_names_the_revision_of_what_it_saw(service: RegistryService) -> None:
    seen = await service.records.look(GS)
    assert (seen.record, seen.revision) == (None, 0)
    await service.put(alias("gs"), actor=OPERATOR)
    await service.put(alias("other"), actor=OPERATOR)
    seen = await service.records.look(GS)
    assert seen.record == await service.records.get(GS)
    assert seen.record is not None
    assert (seen.record.revision, seen.revision) == (1, 2)
    seen = await service.records.look(NOTHING_HERE)
    assert (seen.record, seen.revision) == (None, 2)
    with pytest.raises(NotFound) as caught:
        await service.get(NOTHING_HERE)
    assert caught.value.data["head"] == 2


async def test_a_refused_write_names_the_revision_that_refused_it(service: RegistryService) -> None:
    await service.put(alias("gs"), actor=OPERATOR)
    await service.put(alias("other"), actor=OPERATOR)
    for refused in (
        service.put(alias("gs", "x"), actor=OPERATOR, if_revision=7),
        service.delete(NOTHING_HERE, actor=OPERATOR),
    ):
        with pytest.raises((PreconditionFailed, NotFound)) as caught:
            await refused
        assert caught.value.data["head"] == 2


async def test_history_in_parts_with_and_without_events(service: RegistryService) -> None:
    for turn in range(3):
        await service.put(alias("gs", str(turn)), actor=OPERATOR, message=f"turn {turn}")
        await service.emit(GS, {"turn": turn}, audience=["system/a"], session="s", actor=OPERATOR)
    await service.delete(GS, actor=OPERATOR)
    lines = await service.log.history(GS, 100)
    assert [line.revision for line in lines] == [7, 6, 5, 4, 3, 2, 1]
    assert [line.message for line in lines[2::2]] == ["turn 2", "turn 1", "turn 0"]
    assert [line.revision for line in await service.log.history(GS, 2, before=6)] == [5, 4]
    states = await service.log.history(GS, 100, events=False)
    assert [(line.revision, line.op) for line in states] == [(7, Op.DELETE), (5, Op.PUT), (3, Op.PUT), (1, Op.PUT)]
    assert [line.revision for line in await service.log.history(GS, 1, before=5, events=False)] == [3]
    assert list(await service.log.history(NOTHING_HERE, 5)) == []


async def test_a_record_as_of_a_revision(service: RegistryService) -> None:
    await service.put(alias("other"), actor=OPERATOR)
    for turn in range(2):
        await service.put(alias("gs", str(turn)), actor=OPERATOR)
        await service.emit(GS, {"turn": turn}, audience=["system/a"], session="s", actor=OPERATOR)
    await service.delete(GS, actor=OPERATOR)
    await service.put(alias("gs", "again"), actor=OPERATOR)
    commands = {}
    for revision in range(1, 8):
        try:
            commands[revision] = (await service.at(GS, revision)).record.spec["command"]
        except NotFound as error:
            commands[revision] = error.hint
    assert commands == {
        1: "it did not exist then",
        2: "0",
        3: "0",
        4: "1",
        5: "1",
        6: "it was deleted in revision 6",
        7: "again",
    }
    with pytest.raises(NotFound) as to_come:
        await service.at(GS, 8)
    assert to_come.value.hint == "the newest is 7"


async def test_pages_are_of_one_state_and_of_all_namespaces(service: RegistryService) -> None:
    for namespace in ("default", "prod", "system"):
        operations = [alias(f"n{number}", "old", namespace=namespace) for number in range(10)]
        await service.batch(operations, actor=OPERATOR)
    everything = service.records.pages(None, size=7)
    outside = service.pages(parse_selector("", CATALOGUE), size=7)
    first = [await anext(everything), await anext(outside)]
    await service.batch([alias(f"n{number}", "new") for number in range(10)], actor=OPERATOR)
    await service.delete(Key("alias", "prod", "n3"), actor=OPERATOR)
    await service.put(alias("later"), actor=OPERATOR)
    for begun, pages, count in zip(first, (everything, outside), (30, 20), strict=True):
        seen = [begun, *[page async for page in pages]]
        records = [record for page in seen for record in page.records]
        assert {page.revision for page in seen} == {3}
        assert [record.key for record in records] == sorted(record.key for record in records)
        assert len({record.key for record in records}) == count
        assert {record.spec["command"] for record in records} == {"old"}
    nothing = [page async for page in service.pages(parse_selector("kind=service", CATALOGUE))]
    assert [(page.records, page.revision) for page in nothing] == [((), 6)]


async def test_a_long_read_that_is_left_early_lets_go(service: RegistryService) -> None:
    await service.batch([alias(f"n{number}") for number in range(10)], actor=OPERATOR)
    for _ in range(30):
        pages = service.records.pages(None, size=3)
        await anext(pages)
        await pages.aclose()
    assert (await service.put(alias("gs"), actor=OPERATOR)).revision == 2


# --- idempotency keys -----------------------------------------------------------------------------------------------


async def again(service: RegistryService, document: dict[str, Any], given: Once, actor: Actor = OPERATOR) -> bytes:
    with pytest.raises(Replayed) as caught:
        await service.put(document, actor=actor, once=given)
    return caught.value.answer


async def test_the_first_answer_is_given_again(engine: Opener, tmp_path: Path) -> None:
    async with engine(tmp_path) as service:
        await service.put(alias("gs"), actor=OPERATOR, once=once("k"))
        await service.put(alias("gs", "since then"), actor=OPERATOR)
        assert await again(service, alias("gs"), once("k")) == b"1 canary-answer"
        assert b"canary-answer" not in all_bytes(tmp_path)
    async with engine(tmp_path) as service:
        assert await again(service, alias("gs"), once("k")) == b"1 canary-answer"
        with pytest.raises(Replayed):
            await service.replay(OPERATOR, "k", "f")
        assert (await service.log.head()).revision == 2


async def test_a_key_is_of_one_actor_and_one_request(service: RegistryService) -> None:
    await service.put(alias("gs"), actor=OPERATOR, once=once("k"))
    with pytest.raises(Invalid, match="another request"):
        await service.put(alias("gs"), actor=OPERATOR, once=once("k", "other"))
    with pytest.raises(Invalid, match="another request"):
        await service.replay(OPERATOR, "k", "other")
    written = await service.put(alias("gs", "x"), actor=Actor("somebody else"), once=once("k", "other"))
    assert written.results[0].effect is Effect.UPDATED
    await service.replay(Actor("a third"), "k", "f")


async def test_what_changed_nothing_is_kept_and_what_was_refused_is_not(service: RegistryService) -> None:
    await service.put(alias("gs"), actor=OPERATOR)
    written = await service.put(alias("gs"), actor=OPERATOR, once=once("k"))
    assert written.results[0].effect is Effect.UNCHANGED
    await service.put(alias("gs", "since then"), actor=OPERATOR)
    assert await again(service, alias("gs"), once("k")) == b"1 canary-answer"
    assert (await service.get(GS)).spec == {"command": "since then"}
    with pytest.raises(NotFound):
        await service.delete(NOTHING_HERE, actor=OPERATOR, once=once("d"))
    await service.put(alias("nothing"), actor=OPERATOR)
    assert (await service.delete(NOTHING_HERE, actor=OPERATOR, once=once("d"))).revision == 4
    empty = await service.batch([], actor=OPERATOR, once=once("e"))
    assert (empty.revision, empty.results) == (4, ())
    with pytest.raises(Replayed):
        await service.batch([], actor=OPERATOR, once=once("e"))


async def test_requests_of_one_key_that_meet_are_done_once(service: RegistryService) -> None:
    answers = await asyncio.gather(
        *(service.merge(alias("gs", "x"), actor=OPERATOR, once=once("k")) for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(answer, Replayed) for answer in answers) == 19
    sent = await asyncio.gather(
        *(
            service.emit(GS, {"n": 1}, audience=["system/a"], session="s", actor=OPERATOR, once=once("event"))
            for _ in range(5)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, Replayed) for answer in sent) == 4
    assert (await service.log.head()).revision == 2


async def test_neighbours_of_a_keyed_request_go_their_way(service: RegistryService) -> None:
    def write(number: int) -> Any:
        given = once(f"k{number % 10}", str(number % 20)) if number % 2 else None
        return service.put(alias(f"n{number}"), actor=OPERATOR, once=given)

    answers = await asyncio.gather(*map(write, range(40)), return_exceptions=True)
    for number, answer in enumerate(answers):
        if number % 2 == 0 or number < 10:
            assert not isinstance(answer, BaseException), number
        else:
            # k1 is first used by 1, for "1"; 11 asks for "11" with it, 21 for "1" again.
            assert isinstance(answer, Invalid if number % 20 >= 10 else Replayed), number
    assert (await service.log.head()).revision == 25


async def test_answers_are_forgotten_and_make_room(service: RegistryService, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, passed = service.world.now(), [timedelta()]
    monkeypatch.setattr(type(service.world), "now", lambda _: begun + passed[0])
    for number in range(20):
        await service.put(alias(f"n{number}"), actor=OPERATOR, once=once(f"k{number}"))
    passed[0] = KEPT_FOR - timedelta(minutes=1)
    await again(service, alias("n0"), once("k0"))
    passed[0] = KEPT_FOR + timedelta(minutes=1)
    await service.replay(OPERATOR, "k0", "f")
    written = await service.put(alias("n0"), actor=OPERATOR, once=once("k0", "for another request now"))
    assert written.results[0].effect is Effect.UNCHANGED
    for number in range(10):
        await service.put(alias(f"new{number}"), actor=OPERATOR, once=once(f"new{number}"))
    kept = [await service.records.kept(OPERATOR.name, f"k{number}") is not None for number in range(20)]
    assert kept == [True] + [False] * 19


# --- JSON patch -----------------------------------------------------------------------------------------------------


async def test_a_patch_is_decided_where_it_is_written(service: RegistryService) -> None:
    """Twenty count up by one, each testing what it read: of those that meet one wins, and no count is lost."""
    await service.put({"kind": "service", "name": "c", "spec": {"port": 0}}, actor=OPERATOR)
    key = Key("service", "default", "c")

    async def count() -> None:
        while True:
            now = (await service.get(key)).spec["port"]
            steps = [
                {"op": "test", "path": "/spec/port", "value": now},
                {"op": "replace", "path": "/spec/port", "value": now + 1},
            ]
            try:
                await service.patch(key, steps, actor=OPERATOR)
            except Invalid:
                continue
            return

    await asyncio.gather(*(count() for _ in range(20)))
    record = await service.get(key)
    assert (record.spec, record.generation) == ({"port": 20}, 21)


# --- the check ------------------------------------------------------------------------------------------------------


async def check(service: RegistryService) -> Any:
    return await check_registry(service.records, service.log, service.event_commitment)


async def test_a_sound_store_is_found_sound(service: RegistryService) -> None:
    assert (await check(service)).lines == 0
    await service.put({"kind": "secret", "name": "db", "spec": {"value": "hunter2"}}, actor=OPERATOR)
    await service.put(alias("gs", namespace="system"), actor=OPERATOR)
    await service.emit(GS, {"a": [1, 2.5, None]}, audience=["system/a"], session="s", actor=OPERATOR)
    await service.batch([alias(f"n{number}") for number in range(1500)], actor=OPERATOR)
    await service.delete(Key("alias", "default", "n7"), actor=OPERATOR)
    await service.put(alias("n7"), actor=OPERATOR)
    found = await check(service)
    assert (found.revision, found.lines, found.records) == (6, 1505, 1502)


async def test_a_check_beside_writers(service: RegistryService) -> None:
    await service.batch([alias(f"n{number}") for number in range(600)], actor=OPERATOR)
    checking = asyncio.gather(*(check(service) for _ in range(3)))
    for turn in range(40):
        await service.put(alias(f"n{turn}", "new"), actor=OPERATOR)
        await service.delete(Key("alias", "default", f"n{turn + 100}"), actor=OPERATOR)
    assert all(found.records >= 500 for found in await checking)


async def test_an_event_that_does_not_open_is_named(service: RegistryService) -> None:
    await service.emit(GS, {"a": 1}, audience=["system/a"], session="s", actor=OPERATOR)
    with pytest.raises(Corrupt, match=r"line 1\.0 .*altered"):
        await check_registry(service.records, service.log, lambda _: "another")
