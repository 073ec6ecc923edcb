"""Watches and named consumers over HTTP, on real sockets: lines, server-sent events, and the Python client."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson
import pytest

from universal_registry.api import reached
from universal_registry.client.watch import Change, WatchClient
from universal_registry.kernel.errors import CursorMismatch, Invalid, StorageUnavailable, Unauthenticated

PLACE = "/v1/default/aliases/"


async def put(stack: Any, name: str, command: str = "x", **more: Any) -> dict[str, Any]:
    answered = await stack.call("PUT", PLACE + name, json={"spec": {"command": command}, **more})
    assert answered.status in (200, 201), answered.body
    return dict(orjson.loads(answered.body))


async def json_of(stack: Any, method: str, path: str, *, status: int = 200, **more: Any) -> Any:
    answered = await stack.call(method, path, **more)
    assert answered.status == status, answered.body
    return orjson.loads(answered.body)


async def take(changes: AsyncGenerator[Change, None], count: int) -> list[Change]:
    async with asyncio.timeout(20):
        return [await anext(changes) for _ in range(count)]


def said(changes: list[Change]) -> list[tuple[str, str]]:
    return [(each.op, each.name) for each in changes]


async def test_what_is_there_and_then_what_happens(stack, serve):
    _, addresses = await serve()
    await put(stack, "a")
    client = WatchClient(lambda: [addresses.socket])
    async with aclosing(client.watch("kind=alias", start="list")) as changes:
        assert said(await take(changes, 2)) == [("record", "a"), ("synced", "")]
        await put(stack, "b")
        await put(stack, "b", "y")
        first, second = await take(changes, 2)
        assert said([first, second]) == [("put", "b"), ("put", "b")]
        assert second.previous is not None
        assert second.previous["spec"]["command"] == "x"
    async with aclosing(client.watch("kind=alias", start=first.cursor)) as changes:
        assert (await take(changes, 1))[0] == second


async def test_server_sent_events_go_on_behind_their_id(stack, serve):
    _, addresses = await serve()
    for at in range(3):
        await put(stack, f"n{at}")
    host, _, port = addresses.tcp.rpartition(":")

    async def events(count: int, *headers: str) -> list[dict[str, str]]:
        reader, writer = await asyncio.open_connection(host, int(port))
        head = [
            "GET /v1/-/watch?from=beginning HTTP/1.1", f"host: {addresses.tcp}", "accept: text/event-stream",
            f"authorization: Bearer {stack.token}", *headers,
        ]  # fmt: skip
        writer.write("\r\n".join((*head, "", "")).encode())
        found: list[dict[str, str]] = []
        async with asyncio.timeout(20):
            while len(found) < count:
                line = (await reader.readline()).decode().rstrip("\r\n")
                field, _, value = line.partition(": ")
                if field == "id":
                    found.append({"id": value})
                elif field in ("event", "data"):
                    found[-1][field] = value
                    if field == "data":
                        continue
            while "data" not in found[-1]:
                field, _, value = (await reader.readline()).decode().rstrip("\r\n").partition(": ")
                found[-1][field] = value
        writer.close()
        return found

    whole = await events(4)
    assert [each["event"] for each in whole] == ["changes", "changes", "changes", "synced"]
    rest = await events(2, f"last-event-id: {whole[1]['id']}")
    assert rest[0] == whole[2]


async def test_a_cursor_of_another_history_is_a_conflict_with_one_to_go_on_from(stack, serve):
    _, addresses = await serve()
    await put(stack, "a")
    client = WatchClient(lambda: [addresses.socket])
    with pytest.raises(CursorMismatch) as caught:
        await take(client.watch(start="000000000000.1.00000000"), 1)
    assert caught.value.data["cursor"].split(".")[1] == "1"
    with pytest.raises(Invalid):
        await take(client.watch("kind=nothing"), 1)


async def test_a_revoked_token_is_told_nothing_any_more(stack, serve):
    _, addresses = await serve()
    _, secret = await stack.tokens.add("reader", ["read"], actor="test")
    client = WatchClient(lambda: [addresses.tcp], token=secret)
    async with aclosing(client.watch(start="now")) as changes:
        await take(changes, 1)
        await stack.tokens.revoke("reader", actor="test")
        await put(stack, "secret-name")
        with pytest.raises(Unauthenticated):
            await take(changes, 1)


async def test_bad_questions_are_refused_before_the_stream(stack):
    for query, status in (
        ({"from": "yesterday"}, 400),
        ({"policy": "wait-for-me"}, 400),
        ({"heartbeat": "0"}, 400),
        ({"consumer": "nobody"}, 404),
        ({"consumer": ""}, 400),
        ({"from": ""}, 400),
        ({"select": "kind=nothing"}, 422),
        ({"selekt": "kind=alias"}, 400),
    ):
        problem = await json_of(stack, "GET", "/v1/-/watch", query=query, status=status)
        assert problem["hint"], problem


async def test_a_named_consumer_goes_on_behind_what_it_acknowledged(stack, serve):
    _, addresses = await serve()
    made = await json_of(stack, "PUT", "/v1/-/consumers/audit", json={"select": ["kind=alias"]})
    for at in range(3):
        await put(stack, f"n{at}")
    await json_of(stack, "PUT", "/v1/default/packages/p", json={"spec": {}}, status=201)
    client = WatchClient(lambda: [addresses.socket])

    async def read(count: int) -> list[Change]:
        async with aclosing(client.watch(consumer="audit")) as changes:
            return await take(changes, count)

    first = await read(4)
    assert said(first) == [("put", "n0"), ("put", "n1"), ("put", "n2"), ("synced", "")]
    assert said(await read(4)) == said(first)  # not acknowledged: again
    acked = await json_of(stack, "POST", "/v1/-/consumers/audit/ack", query={"cursor": first[1].cursor})
    assert (acked["cursor"], acked["lag"]) == (first[1].cursor, 2)
    older = await json_of(stack, "POST", "/v1/-/consumers/audit/ack", query={"cursor": made["cursor"]})
    assert older["cursor"] == first[1].cursor  # an acknowledgement that comes late takes nothing back
    assert said(await read(2)) == [("put", "n2"), ("synced", "")]
    listed = await json_of(stack, "GET", "/v1/-/consumers")
    assert [each["name"] for each in listed["items"]] == ["audit"]
    back = await json_of(stack, "PUT", "/v1/-/consumers/audit", json={"select": ["kind=alias"], "start": "beginning"})
    assert back["lag"] == 4
    await json_of(stack, "DELETE", "/v1/-/consumers/audit")
    await json_of(stack, "DELETE", "/v1/-/consumers/audit", status=404)
    rows = (await json_of(stack, "GET", "/v1/-/audit"))["items"]
    deeds = [each["action"] for each in rows if each["action"].startswith("consumer.")]
    assert deeds == ["consumer.remove", "consumer.change", "consumer.add"]


async def test_consumers_are_checked(stack):
    for name, body, status in (
        ("-x", {}, 422),
        ("ok", {"select": ["kind=nothing"]}, 422),
        ("ok", {"start": "000000000000.1.00000000"}, 409),
        ("ok", {"start": "list"}, 400),
        ("ok", {"selekt": []}, 422),
    ):
        await json_of(stack, "PUT", f"/v1/-/consumers/{name}", json=body, status=status)
    assert (await json_of(stack, "GET", "/v1/-/consumers"))["items"] == []


async def test_a_read_waits_for_the_revision_that_it_asks_for(stack, monkeypatch):
    written = await put(stack, "a")
    asked = {"min_revision": written["revision"] + 1}
    waits = stack.polls()
    reading = asyncio.ensure_future(stack.call("GET", PLACE + "a", query=asked))
    await waits.wait()
    assert not reading.done()
    await put(stack, "a", "newer")
    assert orjson.loads((await reading).body)["spec"]["command"] == "newer"
    monkeypatch.setattr(reached, "SECONDS", 0.0)
    problem = await json_of(stack, "GET", "/v1/-/records", query={"min_revision": 99}, status=504)
    assert (problem["code"], problem["retryable"]) == ("timed-out", True)


async def test_who_does_not_read_holds_up_nobody_and_misses_nothing(stack, serve):
    """Its connection fills, then it stays where it is: nothing is queued for it, and every put is answered."""
    _, addresses = await serve()
    reader, writer = await asyncio.open_unix_connection(addresses.socket, limit=1 << 12)
    writer.write(b"GET /v1/-/watch?from=now HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    for at in range(300):
        await put(stack, f"n{at}", "x" * 20_000)
    slowest = stack.api.hub.figures().slowest
    assert slowest is not None
    assert slowest < 200
    body = b""
    async with asyncio.timeout(20):
        while body.count(b'"type":"changes"') < 300:
            body += await reader.read(1 << 20)
    writer.close()
    names = [name.decode() for name in re.findall(rb'"name":"(n\d+)","uid"', body)]
    assert names == [f"n{at}" for at in range(300)]


async def test_who_waits_is_told_with_all_others_and_without_a_turn_of_its_own(stack, serve):
    """Lines, events and HTTP/1.0, some with a selection of their own: news are written as the log is read, in order and
    in the form that each asked for, and what a reader stands still for comes later, behind it."""
    _, addresses = await serve()
    lines, events = "", "accept: text/event-stream\r\n"
    asked = [("", "1.1", lines), ("", "1.1", lines), ("?kind=alias", "1.1", events), ("?name=n1", "1.0", lines)]
    readers = []
    for query, version, accept in asked:
        reader, writer = await asyncio.open_unix_connection(addresses.socket)
        writer.write(f"GET /v1/-/watch{query} HTTP/{version}\r\nhost: localhost\r\n{accept}\r\n".encode())
        await reader.readuntil(b'"synced"')
        readers.append((reader, writer))
    waiting = stack.api.lines.waiting
    revisions = []
    for at in range(1, 6):
        revisions.append((await put(stack, f"n{at}"))["revision"])
        await stack.api.hub.advance()
        assert (len(waiting), stack.api.hub.figures().slowest) == (len(asked), revisions[-1])
    stack.api.hub.close()
    bodies = [await reader.read() if version == "1.0" else await reader.readuntil(b"0\r\n\r\n")
              for (reader, _), (_, version, _) in zip(readers, asked, strict=True)]  # fmt: skip
    revision = re.compile(rb'"changes","cursor":"[^"]+","revision":(\d+)')
    told = [[int(found) for found in revision.findall(each)] for each in bodies]
    assert told == [revisions, revisions, revisions, revisions[:1]]
    assert [each.count(b'"type":"end"') for each in bodies] == [1] * len(asked)
    assert b"\r\n\r\n" not in bodies[3]
    assert bodies[2].count(b"event: changes\ndata: ") == 5
    for _, writer in readers:
        writer.close()


async def test_a_reader_of_http_1_0_is_told_too(stack, serve):
    _, addresses = await serve()
    await put(stack, "a")
    for query in ("/v1/-/watch?from=beginning", "/v1/-/export"):
        reader, writer = await asyncio.open_unix_connection(addresses.socket)
        writer.write(f"GET {query} HTTP/1.0\r\nhost: localhost\r\nconnection: keep-alive\r\n\r\n".encode())
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            line = orjson.loads(await reader.readline())
        writer.close()
        assert head.startswith(b"HTTP/1.0 200 OK")
        assert b"chunked" not in head
        assert b"keep-alive" not in head.lower()
        assert (line.get("name") or line["events"][0]["name"]) == "a"


async def test_a_list_that_breaks_off_is_told_anew_and_whole(stack, serve, monkeypatch):
    _, addresses = await serve()
    for at in range(201):
        await put(stack, f"n{at:03}")
    real, breaks = stack.service.pages, [1]

    async def breaking(*args: Any, **more: Any) -> AsyncGenerator[Any, None]:
        async with aclosing(real(*args, **more)) as pages:
            yield await anext(pages)
            if breaks:
                breaks.pop()
                raise StorageUnavailable("the disk is gone")
            async for page in pages:
                yield page

    monkeypatch.setattr(stack.service, "pages", breaking)
    client = WatchClient(lambda: [addresses.socket])
    async with aclosing(client.watch("kind=alias", start="list")) as changes:
        told = said(await take(changes, 200 + 1 + 201 + 1))
    assert told[200] == ("restart", "")
    assert told[201:] == [*(("record", f"n{at:03}") for at in range(201)), ("synced", "")]


async def test_the_end_of_server_sent_events_is_no_place_that_a_browser_goes_on_from(stack, serve):
    _, addresses = await serve()
    reader, writer = await asyncio.open_unix_connection(addresses.socket)
    writer.write(b"GET /v1/-/watch HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n")
    async with asyncio.timeout(20):
        await reader.readuntil(b"event: synced")
        stack.api.hub.close()
        rest = await reader.readuntil(b"0\r\n\r\n")
    writer.close()
    assert b"event: end" in rest
    assert b"id:" not in rest
