"""Propagation through the API, without an engine: what is stored, shown and refused."""

from __future__ import annotations

from typing import Any

import orjson


def loads(answer: Any) -> Any:
    return orjson.loads(answer.body)


async def add(stack: Any, **body: Any) -> Any:
    return await stack.call("POST", "/v1/-/targets", json={"url": "http://127.0.0.1:9", "network": "loopback", **body})


async def test_a_target_is_added_once_and_its_secret_shown_once(stack):
    first = loads(await add(stack, name="mine"))
    assert first["secret"].startswith("whsec_")
    again = loads(await add(stack, name="mine"))
    assert "secret" not in again
    for path in (
        "/v1/-/targets",
        "/v1/-/targets/system/mine",
        "/v1/system/endpoints/mine",
        "/v1/-/status",
        "/v1/changes",
    ):
        answer = await stack.call("GET", path)
        assert answer.status == 200
        assert first["secret"].encode() not in answer.body
    assert len(loads(await stack.call("GET", "/v1/-/targets"))["items"]) == 1


async def test_bodies_are_checked(stack):
    for path, body in [
        ("/v1/-/targets", {}),
        ("/v1/-/targets", {"name": "a"}),
        ("/v1/-/targets", {"name": 1, "url": "http://127.0.0.1:9"}),
        ("/v1/-/targets", {"name": "a", "url": "http://127.0.0.1:9", "netwrok": "loopback"}),
        ("/v1/-/targets", {"name": "a", "url": "http://127.0.0.1:9", "network": "everything"}),
        ("/v1/-/routes", {"name": "r", "select": "kind=alias", "targets": "mine"}),
        ("/v1/-/routes", {"name": "r", "select": "kind=alias", "targets": ["a"], "secrets": "all"}),
        ("/v1/-/propagate", {"source": "a", "targets": "mine"}),
        ("/v1/-/propagate", {"source": "a", "target": "mine", "on_failure": "wait"}),
        ("/v1/-/propagate", {"source": "a", "target": "mine", "data": 1, "deadline": -1}),
        ("/v1/-/propagate", []),
    ]:
        answer = await stack.call("POST", path, json=body)
        assert (path, body, answer.status) == (path, body, 422)
        assert loads(answer)["code"] == "invalid"


async def test_routes(stack):
    await add(stack, name="mine")
    made = await stack.call("POST", "/v1/-/routes", json={"name": "r", "select": "kind=alias", "targets": ["mine"]})
    assert made.status == 200
    (route,) = loads(await stack.call("GET", "/v1/-/routes"))["items"]
    assert route["targets"] == ["system/mine"]
    unknown = await stack.call("POST", "/v1/-/routes", json={"name": "r2", "select": "kind=alias", "targets": ["mien"]})
    assert unknown.status == 404
    assert "mine" in loads(unknown)["hint"]


async def test_propagate_and_its_sessions(stack):
    await stack.call("PUT", "/v1/default/aliases/gs", json={"spec": {"command": "x"}})
    await add(stack, name="mine")
    body = {"source": "gs", "target": "mine"}
    first = loads(await stack.call("POST", "/v1/-/propagate", json=body))
    again = loads(await stack.call("POST", "/v1/-/propagate", json=body))
    assert first["session"] == again["session"]
    one_shot = loads(await stack.call("POST", "/v1/-/propagate", json={**body, "data": {"n": 1}}))
    assert one_shot["session"] != first["session"]
    (one,) = [
        each
        for each in loads(await stack.call("GET", "/v1/-/sessions"))["items"]
        if each["session"] == first["session"]
    ]
    assert loads(await stack.call("GET", f"/v1/-/sessions/{one['session']}"))["session"] == first["session"]
    assert (await stack.call("GET", "/v1/-/sessions/none")).status == 404
    unknown = await stack.call("POST", "/v1/-/propagate", json={**body, "mode": "telepathy"})
    assert 400 <= unknown.status < 500
    strict = await stack.call("POST", "/v1/-/propagate", json={"source": "gs", "target": "nowhere", "strict": True})
    assert strict.status == 404


async def test_where_deliveries_and_status(stack):
    await stack.call("PUT", "/v1/default/aliases/gs", json={"spec": {"command": "x"}})
    await add(stack, name="mine", select="kind=alias")
    (found,) = loads(await stack.call("GET", "/v1/-/where?name=gs"))["items"]
    assert (found["kind"], found["name"], found["revision"]) == ("alias", "gs", 1)
    assert [each["target"] for each in found["targets"]] == ["system/mine"]
    assert (await stack.call("GET", "/v1/-/where?name=none")).status == 404
    assert (await stack.call("GET", "/v1/-/where")).status == 400
    for query in ("", "?name=gs", "?target=mine", "?state=waiting&state=dead", "?name=alias/deleted-one"):
        answer = await stack.call("GET", f"/v1/-/deliveries{query}")
        assert (query, answer.status, loads(answer)["items"]) == (query, 200, [])
    for query in ("?since=1h", "?since=2026-01-31", "?since=2026-01-31T12:00:00Z&state=dead"):
        assert (query, (await stack.call("GET", f"/v1/-/deliveries{query}")).status) == (query, 200)
    bad = ("?state=asleep", "?limit=0", "?since=soon", "?since=999999w", "?since=0001-01-01T00:00:00%2B14:00")
    for query, status in (
        *((each, 400) for each in bad),
        ("?name=none", 404),
        ("?target=none", 404),
        ("?session=x", 404),
    ):
        assert (query, (await stack.call("GET", f"/v1/-/deliveries{query}")).status) == (query, status)
    unknown = await stack.call("GET", "/v1/-/deliveries/dlv_none/attempts")
    assert (unknown.status, loads(unknown)["code"]) == (404, "not-found")
    assert (await stack.call("GET", "/v1/-/deliveries/dlv_none")).status == 404
    status = loads(await stack.call("GET", "/v1/-/status"))
    assert status["revision"] == 2


async def test_a_target_that_is_not_there(stack):
    assert (await stack.call("GET", "/v1/-/targets/system/none")).status == 404
    assert (await stack.call("POST", "/v1/-/targets/system/none/test")).status == 404
