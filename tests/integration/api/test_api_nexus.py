"""Studios over the API: waiting, limits, who may, forms, and what a stream message stands for."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from universal_registry.api.http import Peer, PeerKind
from universal_registry.api.stream_messages import pushed, read_message
from universal_registry.client.http import record_path

TCP = Peer(kind=PeerKind.TCP, hosts=frozenset({"localhost"}))


async def call(stack, method, path, **asked):
    answer = await stack.call(method, path, **asked)
    return answer.status, orjson.loads(answer.body)


async def alias(stack, name, command):
    await stack.call("PUT", record_path("default", "alias", name), json={"spec": {"command": command}})


async def bound(stack, **more):
    await alias(stack, "gs", "1")
    status, told = await call(stack, "POST", "/v1/-/nexus/bindings", json={"entry": "gs", "component": "c", **more})
    assert status == 200, told
    return told


async def test_an_answer_waits_for_a_change_and_for_nothing_else(stack):
    await bound(stack)
    _, first = await call(stack, "POST", "/v1/-/nexus/nexus/sync", json={"wait": 60})
    assert len(first["changes"]) == 1
    looking = stack.polls(1)
    waiting = asyncio.create_task(
        call(stack, "POST", "/v1/-/nexus/nexus/sync", json={"cursor": first["cursor"], "wait": 60})
    )
    await looking.wait()
    await alias(stack, "other", "not bound")
    await alias(stack, "gs", "2")
    _, second = await waiting
    assert [each["record"]["spec"] for each in second["changes"]] == [{"command": "2"}]
    body = {"cursor": second["cursor"], "wait": 60, "push": [{"component": "c", "spec": {"command": "2"}, "base": 1}]}
    _, third = await call(stack, "POST", "/v1/-/nexus/nexus/sync", json=body)
    assert third["pushed"][0]["effect"] == "unchanged", "a push is answered at once"


async def test_waiting_ends_when_the_server_stops(stack):
    await bound(stack)
    _, first = await call(stack, "POST", "/v1/-/nexus/nexus/sync", json={})
    looking = stack.polls(1)
    body = {"cursor": first["cursor"], "wait": 60}
    waiting = asyncio.create_task(call(stack, "POST", "/v1/-/nexus/nexus/sync", json=body))
    await looking.wait()
    stack.api.close()
    status, told = await waiting
    assert (status, told["changes"]) == (200, [])


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"wait": 61}, 422, "wait is 61"),
        ({"limit": 0}, 422, "limit is 0"),
        ({"push": [{"component": "c"}] * 501}, 422, "501 components"),
        ({"cursor": "nonsense"}, 400, "cursor"),
        ({"cursor": "7e88ca7d2cea.12.6518a70c"}, 409, "cursor"),
        ({"push": [{"spec": {}}]}, 422, "component"),
        ({"pull": True}, 422, "pull"),
    ],
)
async def test_what_is_wrong_is_said(stack, body, status, said):
    found, told = await call(stack, "POST", "/v1/-/nexus/nexus/sync", json=body)
    assert (found, said in told["detail"]) == (status, True), told


async def test_bindings_that_cannot_be(stack):
    await alias(stack, "gs", "1")
    for body, status in (
        ({"entry": "gs"}, 400),
        ({"entry": "gs", "components": ["a", "b"]}, 400),
        ({"entry": "gs", "component": "c", "direction": "sideways"}, 400),
        ({"entry": "nobody", "component": "c"}, 404),
        ({"entry": "gs", "component": "c", "studio": "A B"}, 422),
    ):
        found, told = await call(stack, "POST", "/v1/-/nexus/bindings", json=body)
        assert found == status, told
    assert (await call(stack, "DELETE", "/v1/-/nexus/bindings/none"))[0] == 404
    assert (await call(stack, "GET", "/v1/-/nexus/history", query={"entry": "nobody"}))[0] == 404
    assert (await call(stack, "GET", "/v1/-/nexus/history", query={"entry": "alias/nobody"})) == (200, {"items": []})


async def test_who_may(stack):
    await bound(stack)
    for scope, status in (("read", 403), ("write", 200)):
        _, made = await call(stack, "POST", "/v1/-/tokens", json={"name": scope, "scopes": [scope]})
        headers = {"host": "localhost", "authorization": f"Bearer {made['token']}"}
        found = await stack.call("POST", "/v1/-/nexus/nexus/sync", json={}, headers=headers, peer=TCP)
        assert found.status == status
        found = await stack.call("GET", "/v1/-/nexus/bindings", headers=headers, peer=TCP)
        assert found.status == 200
        body = {"entry": "gs", "component": "d"}
        found = await stack.call("POST", "/v1/-/nexus/bindings", json=body, headers=headers, peer=TCP)
        assert found.status == 403


async def test_lists_for_shells(stack):
    told = await bound(stack)
    await call(stack, "POST", "/v1/-/nexus/nexus/sync", json={})
    tsv = {"accept": "text/tab-separated-values"}
    found = await stack.call("GET", "/v1/-/nexus/bindings", headers=tsv)
    assert found.body.decode() == f'{told["binding"]}\tnexus\talias/default/gs\t["c"]\tbidirectional\t\n'
    found = await stack.call("GET", "/v1/-/nexus/history", query={"entry": "gs"}, headers=tsv)
    assert found.body.decode().split("\t")[:7] == [
        "alias/default/gs", "c", "bidirectional", "pull", str(told["revision"] - 1), "pending", "put",
    ]  # fmt: skip


async def test_a_binding_is_a_record_and_comes_as_a_form_too(stack):
    form = {"content-type": "application/x-www-form-urlencoded"}
    await alias(stack, "gs", "1")
    body = b"entry=gs&components=a b&components=c&direction=multicast"
    status, told = await call(stack, "POST", "/v1/-/nexus/bindings", body=body, headers=form)
    assert (status, told["components"]) == (200, ["a b", "c"]), told
    _, record = await call(stack, "GET", record_path("system", "policy", told["binding"]))
    assert record["classification"] == "StudioBinding"
    await stack.call("PATCH", record_path("system", "policy", told["binding"]), json={"spec": {"enabled": False}})
    assert await call(stack, "GET", "/v1/-/nexus/bindings") == (200, {"items": []}), "switched off, it binds nothing"


def test_a_message_stands_for_the_same_request():
    said = read_message(b'{"type":"sync","id":1,"studio":"a/b","cursor":"x","wait":5,"push":[{"component":"c"}]}')
    request = pushed(said, _Opened())  # type: ignore[arg-type]
    assert (request.method, request.path) == ("POST", "/v1/-/nexus/a%2Fb/sync")
    assert orjson.loads(request.body) == {
        "cursor": "x", "wait": 5, "limit": 500, "full": False, "push": [{"component": "c"}],
    }  # fmt: skip


class _Opened:
    headers: dict[str, str] = {}  # noqa: RUF012
    peer = TCP
