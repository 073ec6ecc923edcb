"""Who may come in with which token, what is written down of those who may not, and the figures for a scraper."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from universal_registry.api.auth import Scope
from universal_registry.api.http import Peer, PeerKind, Response
from universal_registry.api.routes import ROUTES
from universal_registry.observe.health import WorkerState
from universal_registry.registry.service import Actor

OTHER = Peer(kind=PeerKind.UNIX, uid=54321)
ALIAS = {"spec": {"command": "x"}}


def said(response: Response) -> Any:
    assert isinstance(response.body, bytes)
    return orjson.loads(response.body)


class Holder:
    """Somebody with a token."""

    def __init__(self, stack: Any, token: str) -> None:
        self._stack = stack
        self.token = token

    async def __call__(self, method: str, path: str, **asked: Any) -> Response:
        return await self._stack.call(
            method, path, peer=OTHER, headers={"authorization": f"Bearer {self.token}"}, **asked
        )


async def holder(stack: Any, *scopes: str, name: str = "it") -> Holder:
    _, token = await stack.tokens.add(name, scopes, actor="uid:0")
    return Holder(stack, token)


@pytest.mark.parametrize(
    ("scopes", "may"),
    [
        (("read",), {"read"}),
        (("write",), {"read", "write"}),
        (("propagate",), {"read", "propagate"}),
        (("write", "propagate"), {"read", "write", "propagate"}),
        (("admin",), {"read", "write", "propagate", "admin"}),
    ],
)
async def test_a_token_may_do_what_its_scopes_say_on_every_route(
    stack: Any, scopes: tuple[str, ...], may: set[str]
) -> None:
    ask = await holder(stack, *scopes)
    for route in ROUTES:
        path = route.pattern.replace("{", "").replace("}", "")
        # A watch that is allowed has no end, so one is asked for that is refused for another reason.
        query = {"from": "nowhere"} if path == "/v1/-/watch" else {}
        answered = await ask(route.method, path, query=query)
        allowed = route.scope is Scope.OPEN or route.scope.value in may
        assert (answered.status != 403) == allowed, (route.method, route.pattern)
        assert answered.status != 401


async def test_who_may_write_but_not_propagate_makes_no_target_by_hand(stack: Any) -> None:
    ask = await holder(stack, "write")
    assert (await ask("PUT", "/v1/default/aliases/gs", json=ALIAS)).status == 201
    endpoint = {"classification": "WebhookEndpoint", "spec": {"url": "http://127.0.0.1:9"}}
    operation = {"op": "put", "kind": "endpoint", "namespace": "system", "name": "evil", **endpoint}
    for method, path, body in (
        ("PUT", "/v1/system/endpoints/evil", endpoint),
        ("PATCH", "/v1/system/endpoints/evil", endpoint),
        ("DELETE", "/v1/system/endpoints/evil", None),
        ("POST", "/v1/batch", {"operations": [operation]}),
        ("POST", "/v1/-/apply", [{k: v for k, v in operation.items() if k != "op"}]),
    ):
        answered = await ask(method, path, json=body)
        assert answered.status == 403, (method, path, answered.body)
        assert said(answered)["hint"] == "it needs the scope 'propagate'"
    assert (await stack.call("GET", "/v1/system/endpoints/evil")).status == 404
    more = await holder(stack, "write", "propagate", name="more")
    assert (await more("PUT", "/v1/system/endpoints/good", json=endpoint)).status == 201


async def test_a_revoked_token_opens_nothing_from_then_on(stack: Any) -> None:
    ask = await holder(stack, "read")
    assert (await ask("GET", "/v1/-/kinds")).status == 200
    assert (await stack.call("DELETE", "/v1/-/tokens/it")).status == 200
    assert (await ask("GET", "/v1/-/kinds")).status == 401
    assert (await stack.call("DELETE", "/v1/-/tokens/it")).status == 404


async def test_a_token_is_shown_once(stack: Any) -> None:
    made = await stack.call("POST", "/v1/-/tokens", json={"name": "ci", "scopes": ["write"], "expires": "12h"})
    token = said(made)["token"]
    assert (await Holder(stack, token)("GET", "/v1/-/kinds")).status == 200
    listed = await stack.call("GET", "/v1/-/tokens")
    (item,) = said(listed)["items"]
    assert (item["name"], item["scopes"], item["state"]) == ("ci", ["write"], "valid")
    assert token.encode() not in listed.body
    assert b"hash" not in listed.body
    for body in ({"name": "x", "scopes": ["read"], "expires": "soon"}, {"name": "x", "scopes": []}, {"name": "x"}):
        assert (await stack.call("POST", "/v1/-/tokens", json=body)).status == 422


async def test_an_expired_token_opens_nothing(stack: Any) -> None:
    _, token = await stack.tokens.add("old", ["read"], actor="uid:0", expires=timedelta(seconds=-1))
    assert (await Holder(stack, token)("GET", "/v1/-/kinds")).status == 401


# --- the audit ------------------------------------------------------------------------------------------------------


async def test_denials_are_counted_and_told(stack: Any) -> None:
    ask = await holder(stack, "read")
    for _ in range(20):
        await ask("PUT", "/v1/default/aliases/gs", json=ALIAS)
    for _ in range(3):
        await stack.call("GET", "/v1/-/status", peer=OTHER)
        await Holder(stack, "ur_" + "x" * 42 + "A")("GET", "/v1/-/kinds")
    found = said(await stack.call("GET", "/v1/-/audit", query={"action": "denied"}))["items"]
    assert {(item["actor"], item["subject"], item["details"]["times"]) for item in found} == {
        ("token:it", "forbidden: it needs the scope 'write'", 20),
        ("unknown", "unauthenticated: a token is needed", 3),
        ("unknown", "unauthenticated: the token is not valid here", 3),
    }
    assert found[0]["details"]["routes"]
    assert stack.denials.total == 26


async def test_the_audit_tells_who_did_what(stack: Any) -> None:
    ask = await holder(stack, "write")
    await ask("PUT", "/v1/default/aliases/gs", json=ALIAS, query={"message": "why not"})
    items = said(await stack.call("GET", "/v1/-/audit", query={"actor": "token:it"}))["items"]
    assert [(item["action"], item["subject"], item["details"]) for item in items] == [
        ("record.put", "alias default/gs", {"message": "why not"})
    ]
    assert said(await stack.call("GET", "/v1/-/audit", query={"since": "1h", "limit": 1}))["items"] == items
    assert said(await stack.call("GET", "/v1/-/audit", query={"since": "2999-01-01"}))["items"] == []
    for query in ({"since": "yesterday"}, {"limit": "0"}, {"who": "x"}):
        assert (await stack.call("GET", "/v1/-/audit", query=query)).status == 400


async def test_an_anchor_is_one_line(stack: Any) -> None:
    await stack.call("PUT", "/v1/default/aliases/gs", json=ALIAS)
    found = said(await stack.call("GET", "/v1/-/audit/anchor"))
    assert found["revision"] == 1
    assert found["anchor"].startswith("ureg-anchor:")
    assert " " not in found["anchor"]


# --- the figures ----------------------------------------------------------------------------------------------------


async def test_a_scraper_with_a_reading_token_gets_the_figures(stack: Any) -> None:
    stack.workers = (WorkerState(name="webhook", running=True, stuck=False, deaths=2, silent=0.1, last_error=""),)
    target = {"name": "t", "url": "http://127.0.0.1:9", "select": "kind=alias"}
    assert (await stack.call("POST", "/v1/-/targets", json=target)).status == 200
    ask = await holder(stack, "read")
    answered = await ask("GET", "/metrics")
    assert answered.header("content-type").startswith("text/plain")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in parse(answered.body.decode())
        for sample in family.samples
    }
    assert found["ureg_revision",] == 1
    assert found["ureg_health_db",] == 1
    assert found["ureg_target_held", "system/t"] == 0
    assert found["ureg_worker_deaths_total", "webhook"] == 2
    assert (await stack.call("GET", "/metrics", peer=OTHER)).status == 401
    open_metrics = await stack.call("GET", "/metrics", headers={"accept": "application/openmetrics-text"})
    assert open_metrics.body.endswith(b"# EOF\n")


async def test_figures_and_health_are_told_while_the_database_is_gone(stack: Any) -> None:
    (stack.folder / "registry.db").rename(stack.folder / "away.db")
    text = (await stack.call("GET", "/metrics")).body.decode()
    assert "ureg_health_db 0.0" in text
    gone = await stack.call("GET", "/health")
    assert (gone.status, said(gone)["reason"][:36]) == (503, "registry.db cannot be found any more")
    (stack.folder / "away.db").rename(stack.folder / "registry.db")
    assert "ureg_health_db 1.0" in (await stack.call("GET", "/metrics")).body.decode()
    assert (await stack.call("GET", "/health")).status == 200


async def test_health_says_in_words_how_each_worker_does_and_asks_for_no_token(stack: Any) -> None:
    stack.unready = "the webhook worker died and is being started again: oh"
    stack.workers = (WorkerState(name="webhook", running=False, stuck=False, deaths=1, silent=2.0, last_error="oh"),)
    answered = await stack.call("GET", "/health", peer=OTHER)
    assert (answered.status, said(answered)["reason"]) == (503, stack.unready)
    assert said(answered)["workers"] == {"webhook": {"state": "restarting", "deaths": 1, "silent_seconds": 2.0}}
    stack.workers = (WorkerState(name="webhook", running=True, stuck=True, deaths=0, silent=200.0, last_error=""),)
    answered = await stack.call("GET", "/health/live", peer=OTHER)
    assert (answered.status, said(answered)["reason"]) == (503, "the webhook worker has not moved for 200 s")


async def test_a_target_that_keeps_the_history_is_said_by_status_and_without_its_name_by_health(stack: Any) -> None:
    document = {
        "kind": "endpoint",
        "namespace": "system",
        "name": "one",
        "spec": {"delivery": {"transport": "webhook"}},
    }
    await stack.service.put(document, actor=Actor("uid:0", admin=True))
    stack.compaction.kept = {"target system/one": 7, "target system/gone": 3}
    found = said(await stack.call("GET", "/v1/-/status"))["warnings"]
    kept = "history: target one keeps 7 revisions beyond their time (it has no address): ureg target add one URL"
    assert [each for each in found if each.startswith("history: ")] == [kept]
    answered = await stack.call("GET", "/health", peer=OTHER)
    general = "history: a target keeps it beyond its time; ureg status says which"
    assert (answered.status, said(answered)["warnings"]) == (200, [general])


async def test_a_revoked_token_opens_nothing_on_a_connection_that_was_open_before(stack: Any, serve: Any) -> None:
    _, token = await stack.tokens.add("it", ["read"], actor="uid:0")
    _, addresses = await serve()
    reader, writer = await asyncio.open_connection(*addresses.tcp.split(":"))
    request = (
        f"GET /v1/-/kinds/alias HTTP/1.1\r\nHost: {addresses.tcp}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    )

    async def ask() -> int:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
        return int(head.split()[1])

    assert [await ask() for _ in range(3)] == [200, 200, 200]
    await stack.tokens.revoke("it", actor="uid:0")
    assert await ask() == 401
    writer.close()


async def test_a_token_revoked_during_a_long_poll_is_told_nothing(stack: Any) -> None:
    ask = await holder(stack, "read")
    begun = stack.polls()
    poll = asyncio.ensure_future(ask("GET", "/v1/changes", query={"wait": 30}))
    await begun.wait()
    await stack.tokens.revoke("it", actor="uid:0")
    await stack.call("PUT", "/v1/default/aliases/gs", json=ALIAS)
    assert (await poll).status == 401
