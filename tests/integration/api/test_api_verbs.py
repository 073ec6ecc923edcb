"""JSON patch, idempotency keys, the past of a record, and the revision that every answer names."""

from __future__ import annotations

import asyncio
import gc
import os
from datetime import timedelta
from typing import Any

import apsw
import orjson
import pytest

from universal_registry.api.http import Peer, PeerKind, Response, request_from
from universal_registry.registry.once import KEPT_FOR
from universal_registry.registry.selector import parse_selector

GS = "/v1/default/aliases/gs"
PAY = "/v1/default/services/pay"
INPROC = Peer(kind=PeerKind.INPROC)
JSON_PATCH = {"content-type": "application/json-patch+json"}


def value(response: Response) -> Any:
    assert isinstance(response.body, bytes)
    return orjson.loads(response.body)


async def put(stack: Any, path: str = GS, command: str = "git status", **headers: str) -> Response:
    return await stack.call("PUT", path, json={"spec": {"command": command}}, headers=headers)


async def patch(stack: Any, path: str, *steps: dict[str, Any], **headers: str) -> Response:
    return await stack.call("PATCH", path, json=list(steps), headers={**JSON_PATCH, **headers})


def step(op: str, path: str, *given: Any, **more: Any) -> dict[str, Any]:
    return {"op": op, "path": path, **({"value": given[0]} if given else {}), **more}


# --- JSON patch -----------------------------------------------------------------------------------------------------


async def test_a_patch_changes_step_by_step(stack):
    await stack.call("PUT", PAY, json={"spec": {"port": 8080, "version": "1"}, "labels": {"a": "b"}, "title": "Pay"})
    answer = await patch(
        stack,
        PAY,
        step("test", "/spec/port", 8080),
        step("test", "/name", "pay"),
        step("replace", "/spec/port", 8443),
        step("add", "/labels/tier", "backend"),
        step("move", "/labels/c", **{"from": "/labels/a"}),
        step("remove", "/spec/version"),
        step("replace", "/classification", "app service"),
    )
    assert answer.status == 200, answer.body
    record = value(answer)["record"]
    assert record["spec"] == {"port": 8443}
    assert record["labels"] == {"tier": "backend", "c": "b"}
    assert (record["title"], record["classification"]) == ("Pay", "AppService")
    assert value(await patch(stack, PAY, step("replace", "/spec/port", 8443)))["effect"] == "unchanged"


async def test_a_patch_is_all_or_nothing(stack):
    await stack.call("PUT", PAY, json={"spec": {"port": 8080}})
    answer = await patch(stack, PAY, step("replace", "/spec/port", 1), step("test", "/spec/port", 2))
    assert answer.status == 422
    assert value(answer)["data"]["step"] == 1
    assert value(await stack.call("GET", PAY))["spec"] == {"port": 8080}
    assert (await stack.service.log.head()).revision == 1


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ([step("replace", "/name", "other")], 422),
        ([step("remove", "/kind")], 422),
        ([step("replace", "", {})], 422),
        ([step("add", "/meta/revision", 7)], 422),
        ([step("add", "/lables/tier", "x")], 422),
        ([step("replace", "/spec/port", "high")], 422),
        ([step("replace", "/spec", 5)], 422),
        ([step("replace", "/spec", None)], 422),
        ([step("add", "/labels/tier", 5)], 422),
        ([step("replace", "/classification", "Alias")], 422),
        ([step("replace", "/classification", 7)], 422),
        ([step("replace", "/lifecycle", "dead")], 422),
        ([step("add", "/spec/note", {"$sealed": "x", "$mac": "y"})], 422),
        ([step("add", "/spec/note", {"$secret": "kept"})], 422),
        ([step("copy", "/spec/a", **{"from": "/spec"})] * 100, 422),
        ({"op": "add"}, 422),
    ],
)
async def test_what_a_patch_may_not_do(stack, steps, status):
    await stack.call("PUT", PAY, json={"spec": {"port": 8080}})
    answer = await stack.call("PATCH", PAY, json=steps, headers=JSON_PATCH)
    assert answer.status == status, answer.body
    assert (await stack.service.log.head()).revision == 1


async def test_a_patch_of_what_is_not_there(stack):
    assert (await patch(stack, PAY, step("add", "/spec/port", 1))).status == 404
    await stack.call("PUT", PAY, json={"spec": {"port": 8080}})
    answer = await patch(stack, PAY, step("replace", "/spec/port", 1), **{"if-match": '"7"'})
    assert answer.status == 412
    assert (await patch(stack, PAY, step("replace", "/spec/port", 1), **{"if-match": '"1"'})).status == 200


async def test_secrets_in_patches(stack):
    path = "/v1/default/datastores/db"
    await stack.call("PUT", path, json={"spec": {"engine": "postgresql", "password": "canary-1"}})
    for refused in (
        step("replace", "/spec/password/$sealed", "x"),
        step("test", "/spec/password/$secret", "kept"),
        step("test", "/spec/password", "canary-1"),
        step("copy", "/spec/note", **{"from": "/spec/password"}),
        step("move", "/labels/x", **{"from": "/spec/password"}),
        step("copy", "/spec/other", **{"from": "/spec"}),
        step("copy", "/spec/password", **{"from": "/labels/plain"}),
        step("copy", "/spec", **{"from": "/annotations"}),
        step("replace", "/spec/password", 5),
        step("replace", "/spec", {"engine": "postgresql", "password": ["x"]}),
    ):
        answer = await patch(stack, path, step("add", "/labels/plain", "text"), refused)
        assert answer.status == 422, refused
        assert b"canary" not in answer.body
    assert (await stack.service.log.head()).revision == 1
    answer = await patch(stack, path, step("replace", "/spec/password", "canary-2"))
    assert value(answer)["record"]["spec"]["password"] == {"$secret": "kept"}
    answer = await patch(
        stack,
        path,
        step("test", "/spec/password", {"$secret": "kept"}),
        step("replace", "/spec", {"engine": "mysql", "password": {"$secret": "kept"}}),
    )
    assert answer.status == 200, answer.body
    key = stack.service.key("datastore", "default", "db")
    assert stack.service.reveal(await stack.service.get(key)) == {"engine": "mysql", "password": "canary-2"}
    await patch(stack, path, step("replace", "/spec", {"engine": "mysql", "password": "canary-3"}))
    assert stack.service.reveal(await stack.service.get(key))["password"] == "canary-3"
    stored = b"".join(file.read_bytes() for file in stack.folder.glob("registry.db*"))
    assert b"canary" not in stored
    await patch(stack, path, step("remove", "/spec/password"))
    assert (await stack.service.get(key)).spec == {"engine": "mysql"}


# --- idempotency keys -----------------------------------------------------------------------------------------------


def same_answer(first: Response, again: Response) -> bool:
    replayed = ("idempotency-replayed", "true")
    rest = tuple(each for each in again.headers if each != replayed)
    return (first.status, first.headers, first.body) == (again.status, rest, again.body) and replayed in again.headers


async def test_a_repeat_gets_the_first_answer(stack):
    first = await put(stack, **{"idempotency-key": "k1"})
    await put(stack, command="changed since")
    again = await put(stack, **{"idempotency-key": "k1"})
    assert first.status == 201
    assert same_answer(first, again)
    assert value(await stack.call("GET", GS))["spec"] == {"command": "changed since"}
    assert (await stack.service.log.head()).revision == 2


WRITES = [
    ("PATCH", GS, {"spec": {"command": "x"}}, {}),
    ("PATCH", GS, [step("replace", "/spec/command", "x")], JSON_PATCH),
    ("DELETE", GS, None, {}),
    ("PUT", GS, {"spec": {"command": "x"}}, {"if-match": '"1"'}),
    ("POST", "/v1/batch", {"operations": [{"op": "delete", "kind": "alias", "name": "gs"}]}, {}),
    (
        "POST",
        "/v1/batch",
        {"operations": [{"op": "merge", "kind": "alias", "name": "b", "spec": {"command": "x", "odd": 1}}]},
        {},
    ),
    ("POST", "/v1/-/apply", [{"kind": "alias", "name": "gs", "spec": {"command": "z"}}], {}),
    ("POST", "/v1/-/targets", {"name": "mine", "url": "http://127.0.0.1:9/x", "select": "kind=alias"}, {}),
    ("POST", "/v1/-/propagate", {"source": "gs", "target": "http://127.0.0.1:9/y"}, {}),
    ("POST", "/v1/-/propagate", {"source": "gs", "target": "there", "data": {"a": 1}}, {}),
    ("POST", "/v1/-/propagate", {"source": "gs", "target": "there", "once": True}, {}),
]


@pytest.mark.parametrize(("method", "path", "body", "headers"), WRITES)
async def test_every_write_takes_a_key(stack, method, path, body, headers):
    await put(stack)
    key = {**headers, "idempotency-key": "once only"}
    first = await stack.call(method, path, json=body, headers=key)
    assert first.status < 300, first.body
    head = await stack.service.log.head()
    again = await stack.call(method, path, json=body, headers=key)
    assert same_answer(first, again), (first, again)
    assert await stack.service.log.head() == head
    stored = b"".join(file.read_bytes() for file in stack.folder.glob("registry.db*"))
    assert b"whsec_" not in stored


async def test_a_route_takes_a_key(stack):
    await stack.call("POST", "/v1/-/targets", json={"name": "mine", "url": "http://127.0.0.1:9/x"})
    body = {"name": "r", "select": "kind=alias", "targets": ["mine"]}
    first = await stack.call("POST", "/v1/-/routes", json=body, headers={"idempotency-key": "r"})
    again = await stack.call("POST", "/v1/-/routes", json=body, headers={"idempotency-key": "r"})
    assert same_answer(first, again)


async def test_what_was_there_already_is_remembered_too(stack):
    """A no-op is an answer: its repeat must not undo what others did since."""
    await put(stack)
    first = await put(stack, **{"idempotency-key": "k"})
    assert value(first)["effect"] == "unchanged"
    await put(stack, command="of somebody else")
    assert same_answer(first, await put(stack, **{"idempotency-key": "k"}))
    assert value(await stack.call("GET", GS))["spec"] == {"command": "of somebody else"}
    target = {"name": "mine", "url": "http://127.0.0.1:9/x"}
    await stack.call("POST", "/v1/-/targets", json=target)
    first = await stack.call("POST", "/v1/-/targets", json=target, headers={"idempotency-key": "t"})
    assert value(first)["result"] == "unchanged"
    await stack.call("POST", "/v1/-/targets", json={**target, "url": "http://127.0.0.1:9/moved"})
    again = await stack.call("POST", "/v1/-/targets", json=target, headers={"idempotency-key": "t"})
    assert same_answer(first, again)
    source = {"source": "gs", "target": "mine"}
    await stack.call("POST", "/v1/-/propagate", json=source)
    first = await stack.call("POST", "/v1/-/propagate", json=source, headers={"idempotency-key": "p"})
    assert value(first)["changed"] is False
    again = await stack.call("POST", "/v1/-/propagate", json=source, headers={"idempotency-key": "p"})
    assert same_answer(first, again)


async def test_a_key_is_for_one_request(stack):
    await put(stack, **{"idempotency-key": "k"})
    for other in (
        put(stack, command="other", **{"idempotency-key": "k"}),
        put(stack, path="/v1/default/aliases/other", **{"idempotency-key": "k"}),
        put(stack, **{"idempotency-key": "k", "if-match": '"1"'}),
        stack.call("DELETE", GS, headers={"idempotency-key": "k"}),
        stack.call(
            "PUT", GS, query={"message": "x"}, json={"spec": {"command": "x"}}, headers={"idempotency-key": "k"}
        ),
    ):
        answer = await other
        assert (answer.status, value(answer)["code"]) == (422, "invalid")
        assert "another request" in value(answer)["detail"]


async def test_refusals_are_decided_anew(stack):
    key = {"idempotency-key": "k"}
    assert (await stack.call("DELETE", GS, headers=key)).status == 404
    await put(stack)
    assert (await stack.call("DELETE", GS, headers=key)).status == 200
    assert (await stack.call("DELETE", GS, headers=key)).header("idempotency-replayed") == "true"


async def test_repeats_that_meet_are_done_once(stack):
    answers = await asyncio.gather(
        *(stack.call("PATCH", GS, json={"spec": {"command": "x"}}, headers={"idempotency-key": "k"}) for _ in range(20))
    )
    assert len({answer.body for answer in answers}) == 1
    assert [answer.header("idempotency-replayed") for answer in answers].count("") == 1
    assert (await stack.service.log.head()).revision == 1
    answers = await asyncio.gather(
        *(put(stack, command=str(number), **{"idempotency-key": "one of them"}) for number in range(5))
    )
    assert sorted(answer.status for answer in answers) == [200, 422, 422, 422, 422]


async def test_events_that_meet_are_sent_once(stack):
    await put(stack)
    body = {"source": "gs", "target": "there", "data": {"n": 1}}
    answers = await asyncio.gather(
        *(stack.call("POST", "/v1/-/propagate", json=body, headers={"idempotency-key": "k"}) for _ in range(5))
    )
    assert len({value(answer)["session"] for answer in answers}) == 1
    lines = await stack.service.log.changes(0, 100)
    assert [line.op for line in lines].count("event") == 1


@pytest.mark.parametrize("key", ["", "é", "a\tb", "x" * 256])
async def test_keys_that_are_none(stack, key):
    assert (await put(stack, **{"idempotency-key": key})).status == 400
    assert (await stack.service.log.head()).revision == 0


async def test_reads_and_tests_take_no_key(stack):
    await put(stack)
    for _ in range(2):
        answer = await stack.call("GET", GS, headers={"idempotency-key": "k"})
        assert answer.header("idempotency-replayed") == ""


async def test_answers_are_forgotten_after_a_day(stack, monkeypatch):
    world, begun = stack.service.world, stack.service.world.now()
    late = [timedelta()]
    monkeypatch.setattr(type(world), "now", lambda _: begun + late[0])
    for number in range(10):
        await put(stack, **{"idempotency-key": f"k{number}"}, path=f"/v1/default/aliases/a{number}")
    late[0] = KEPT_FOR - timedelta(seconds=1)
    again = await put(stack, **{"idempotency-key": "k0"}, path="/v1/default/aliases/a0")
    assert again.header("idempotency-replayed") == "true"
    late[0] = KEPT_FOR + timedelta(seconds=1)
    again = await put(stack, **{"idempotency-key": "k0"}, path="/v1/default/aliases/a0")
    assert again.header("idempotency-replayed") == ""
    assert value(again)["effect"] == "unchanged"
    for number in range(5):
        await put(stack, **{"idempotency-key": f"new{number}"})
    found = [await stack.service.records.kept(f"uid:{os.getuid()}", f"k{n}") for n in range(10)]
    assert [kept is not None for kept in found] == [True] + [False] * 9


async def test_a_large_answer_is_kept_small(stack):
    operations = [{"kind": "alias", "name": f"n{number}", "spec": {"command": "x"}} for number in range(10_000)]
    body = {"operations": operations}
    first = await stack.call("POST", "/v1/batch", json=body, headers={"idempotency-key": "big"})
    again = await stack.call("POST", "/v1/batch", json=body, headers={"idempotency-key": "big"})
    assert same_answer(first, again)
    (actor,) = {line.actor for line in await stack.service.log.changes(0, 1)}
    kept = await stack.service.records.kept(actor, "big")
    assert len(kept.answer) < 200_000


# --- the past -------------------------------------------------------------------------------------------------------


async def lived(stack: Any) -> None:
    await stack.call("PUT", GS, query={"message": "first"}, json={"spec": {"command": "one"}})
    await stack.call("PATCH", GS, json={"spec": {"command": "two"}, "labels": {"a": "b"}})
    await put(stack, path="/v1/default/aliases/other")
    await stack.call("DELETE", GS, query={"message": "not needed"})
    await stack.call("PUT", GS, json={"spec": {"command": "three"}})


async def history(stack: Any, **query: Any) -> Any:
    return value(await stack.call("GET", "/v1/-/history", query={"kind": "alias", "name": "gs", **query}))


async def test_history_tells_what_was_done(stack):
    await lived(stack)
    found = await history(stack)
    assert [(each["revision"], each["op"], each["message"]) for each in found["items"]] == [
        (5, "put", ""),
        (4, "delete", "not needed"),
        (2, "put", ""),
        (1, "put", "first"),
    ]
    assert found["items"][2]["changed"] == ["labels.a", "spec.command"]
    assert found["items"][0]["actor"].startswith("uid:")
    assert found["items"][0]["uid"] != found["items"][1]["uid"]
    assert (found["next"], found["revision"]) == (None, 5)


async def test_history_in_pages(stack):
    await lived(stack)
    first = await history(stack, limit=3)
    assert [each["revision"] for each in first["items"]] == [5, 4, 2]
    second = await history(stack, limit=3, before=first["next"])
    assert [each["revision"] for each in second["items"]] == [1]
    assert second["next"] is None


async def test_history_of_what_never_was(stack):
    await lived(stack)
    answer = await stack.call("GET", "/v1/-/history", query={"kind": "alias", "name": "sg"})
    assert answer.status == 404
    await stack.call("DELETE", GS)
    assert len((await history(stack))["items"]) == 5
    assert (await stack.call("GET", "/v1/-/history", query={"kind": "alias"})).status == 400
    assert (await stack.call("GET", "/v1/-/history", query={"kind": "alais", "name": "gs"})).status == 422


@pytest.mark.parametrize(
    ("revision", "wanted"),
    [(1, "one"), (2, "two"), (3, "two"), (4, "it was deleted in revision 4"), (5, "three")],
)
async def test_a_record_as_it_was(stack, revision, wanted):
    await lived(stack)
    await stack.call("DELETE", GS)
    answer = await stack.call("GET", GS, query={"rev": revision})
    if answer.status == 200:
        assert value(answer)["spec"] == {"command": wanted}
        assert answer.header("registry-revision") == str(revision)
    else:
        assert (answer.status, value(answer)["hint"]) == (404, wanted)


async def test_revisions_that_are_none(stack):
    await put(stack, path="/v1/default/aliases/first")
    await put(stack)
    answer = await stack.call("GET", GS, query={"rev": 1})
    assert (answer.status, value(answer)["hint"]) == (404, "it did not exist then")
    assert (await stack.call("GET", GS, query={"rev": 3})).status == 404
    assert (await stack.call("GET", GS, query={"rev": "x"})).status == 400
    assert (await stack.call("GET", GS, query={"rev": 0})).status == 400


async def test_an_old_secret_is_not_told(stack):
    path = "/v1/default/secrets/s"
    await stack.call("PUT", path, json={"spec": {"value": "canary"}})
    await stack.call("PUT", path, json={"spec": {"value": "other"}})
    assert value(await stack.call("GET", path, query={"rev": 1}))["spec"] == {"value": {"$secret": "kept"}}


# --- the revision of every answer -----------------------------------------------------------------------------------


async def test_every_answer_names_its_revision(stack):
    await put(stack)
    await put(stack, path="/v1/default/aliases/other")
    for method, path, headers, status in (
        ("GET", GS, {}, 200),
        ("GET", GS, {"if-none-match": '"1"'}, 304),
        ("GET", GS, {"accept": "text/tab-separated-values"}, 200),
        ("GET", "/v1/default/aliases/no", {}, 404),
        ("GET", "/v1/default/aliases", {}, 200),
        ("GET", "/v1/-/records", {}, 200),
        ("GET", "/v1/-/export", {}, 200),
        ("GET", "/v1/-/find?name=gs", {}, 200),
        ("GET", "/v1/-/history?kind=alias&name=gs", {}, 200),
        ("DELETE", "/v1/default/aliases/no", {}, 404),
        ("DELETE", GS, {"if-match": '"7"'}, 412),
    ):
        answer = await stack.call(method, path, headers=headers)
        assert answer.status == status
        assert answer.header("registry-revision") == "2", (method, path)


async def test_an_export_is_of_one_revision(stack):
    await stack.call("POST", "/v1/-/apply", json=[
        {"kind": "alias", "name": f"n{number:04}", "spec": {"command": "old"}} for number in range(2500)
    ])  # fmt: skip
    pages = stack.service.pages(parse_selector("", stack.service.catalogue), size=1000)
    first = await anext(pages)
    await stack.call("POST", "/v1/-/apply", json=[
        {"kind": "alias", "name": f"n{number:04}", "spec": {"command": "new"}} for number in range(2500)
    ])  # fmt: skip
    rest = [page async for page in pages]
    seen = [record for page in (first, *rest) for record in page.records]
    assert {page.revision for page in (first, *rest)} == {1}
    assert len(seen) == 2500
    assert {record.spec["command"] for record in seen} == {"old"}


async def test_an_export_that_nobody_reads_lets_go_of_its_state(stack):
    documents = [{"kind": "alias", "name": f"n{number:04}", "spec": {"command": "x"}} for number in range(2500)]
    await stack.call("POST", "/v1/-/apply", json=documents)
    await stack.store.counts()
    open_before = len(apsw.connections())
    for method in ("GET", "HEAD"):
        answer = await stack.api.dispatch(request_from(method, "/v1/-/export", [], b"", INPROC))
        assert len(apsw.connections()) == open_before + 1
        if method == "GET":
            assert await anext(answer.body)
        del answer
        gc.collect()
        for _ in range(5):  # round trips through the one thread that has such connections: closing needs two or three
            await stack.store.counts()
        assert len(apsw.connections()) == open_before
