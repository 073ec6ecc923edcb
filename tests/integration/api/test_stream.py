"""Streams over real sockets, spoken to by a WebSocket client that is not ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from streaming import LONG, Streaming, streaming
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from universal_registry.api.stream import StreamLimits
from universal_registry.client.stream import StreamClient
from universal_registry.kernel.errors import CursorMismatch, Forbidden, NotFound, PreconditionFailed
from universal_registry.registry.service import Actor

Stack = Any
ALIAS = {"kind": "alias", "name": "gs", "spec": {"command": "git status"}}
ME = Actor("uid:1", admin=True)


@pytest.fixture
async def serving(stack: Stack) -> AsyncIterator[Streaming]:
    async with streaming(stack.api, stack.service, stack.folder, tcp=True) as served:
        yield served


def alias(name: str, command: str = "x") -> dict[str, Any]:
    return {"kind": "alias", "name": name, "spec": {"command": command}}


async def put(stack: Stack, name: str, command: str = "x") -> int:
    return (await stack.service.put({**alias(name, command), "namespace": "default"}, actor=ME)).revision


async def asked(stack: Stack, method: str, path: str, **more: Any) -> Any:
    response = await stack.call(method, path, **more)
    assert isinstance(response.body, bytes)
    return json.loads(response.body)


async def added(stack: Stack, name: str, scope: str) -> str:
    """A new token."""
    _, secret = await stack.tokens.add(name, (scope,), actor="me")
    return str(secret)


# --- both directions --------------------------------------------------------------------------------------------------


async def test_a_push_is_answered_after_it_is_stored_and_told_to_who_watches(serving: Streaming) -> None:
    async with serving.client() as client:
        await client.subscribed(id="a", start="now", select="kind=alias")
        await client.hear("synced")
        await client.say("put", id=7, record=ALIAS)
        heard = {message["type"]: message for message in (await client.hear(), await client.hear())}
    assert (heard["answer"]["id"], heard["answer"]["status"], heard["answer"]["revision"]) == (7, 201, 1)
    assert heard["answer"]["body"]["record"]["spec"] == {"command": "git status"}
    assert (heard["changes"]["id"], heard["changes"]["revision"]) == ("a", 1)
    assert heard["changes"]["events"][0]["record"]["spec"] == {"command": "git status"}


async def test_the_rules_of_http_hold_for_pushes(serving: Streaming) -> None:
    async with serving.client() as client:
        first = await client.asked("put", id=1, record=ALIAS, create=True)
        taken = await client.asked("put", id=2, record=ALIAS, create=True)
        stale = await client.asked("patch", id=3, record=alias("gs", "y"), if_match=99)
        right = await client.asked("patch", id=4, record=alias("gs", "y"), if_match=first["revision"])
        once = [await client.asked("put", id=5, record=alias("b"), idempotency_key="k") for _ in range(2)]
        bad = await client.asked("put", id=6, record={**ALIAS, "spec": {"command": 5}})
        batch = await client.asked("batch", id=7, operations=[{"op": "put", **alias("c")}, {"op": "put", **alias("d")}])
        gone = await client.asked("delete", id=8, kind="alias", name="c")
        lost = await client.asked("delete", id=9, kind="alias", name="c")
    assert [first["status"], taken["status"], stale["status"], right["status"]] == [201, 412, 412, 200]
    assert stale["problem"]["code"] == "precondition-failed"
    assert (once[0]["revision"], once[1]["revision"], once[1]["replayed"]) == (3, 3, True)
    assert (bad["status"], bad["problem"]["code"]) == (422, "invalid")
    assert len(batch["body"]["results"]) == 2
    assert (gone["status"], lost["status"]) == (200, 404)


async def test_pushes_about_one_record_keep_their_order(serving: Streaming) -> None:
    async with serving.client() as client:
        for number in range(200):
            await client.say("put", id=number, record=alias("same", f"{number}"))
        answers = [await client.hear("answer") for _ in range(200)]
    revisions = {answer["id"]: answer["revision"] for answer in answers}
    assert [revisions[number] for number in range(200)] == list(range(1, 201))


async def test_data_sent_into_a_stream_reaches_who_watches_it(serving: Streaming) -> None:
    async with serving.client() as client:
        lost = await client.asked("event", id=0, stream="room", data=1)
        record = {"kind": "endpoint", "name": "room", "classification": "WebSocketEndpoint"}
        await client.asked("put", id=1, record={**record, "spec": {"protocol": "websocket"}})
        await client.subscribed(id="r", start="now", select="kind=endpoint,name=room")
        await client.hear("synced")
        await client.say("event", id=2, stream="room", data={"x": [1, None, "ä"]})
        heard = {message["type"]: message for message in (await client.hear(), await client.hear())}
    assert (lost["status"], lost["problem"]["code"]) == (404, "not-found")
    assert heard["changes"]["events"][0]["payload"] == {"x": [1, None, "ä"]}
    assert heard["answer"]["body"]["stream"] == "room"


async def test_several_subscriptions_on_one_stream(stack: Stack, serving: Streaming) -> None:
    await put(stack, "old")
    async with serving.client() as client:
        await client.subscribed(id=1, start="list", select="kind=alias")
        assert (await client.hear("records"))["records"][0]["name"] == "old"
        await client.hear("synced")
        await client.subscribed(id="b", start="beginning", select="kind=alias,name=old")
        assert [each["name"] for each in (await client.hear("changes"))["events"]] == ["old"]
        await client.hear("synced")
        again = await client.asked("subscribe", id="b")
        assert (again["status"], again["problem"]["code"]) == (409, "conflict")
        await put(stack, "new")
        assert (await client.hear("changes"))["id"] == 1
        await client.say("unsubscribe", id=1)
        assert await client.hear() == {"id": 1, "type": "unsubscribed"}
        await put(stack, "newer")
        await put(stack, "old", "y")
        assert (await client.hear("changes"))["id"] == "b"
        await client.say("bookmark", id="b")
        assert (await client.hear("bookmark"))["cursor"].split(".")[1] == "4"
        missing = await client.asked("unsubscribe", id="c")
    assert missing["problem"]["code"] == "not-found"


async def test_who_only_listens_keeps_no_empty_queue(serving: Streaming) -> None:
    """An empty deque takes 760 bytes, of some 6,000 for a subscriber."""
    async with serving.client() as client:
        await client.subscribed(select="kind=alias")
        await client.hear("synced")
        (connection,) = serving.front.connections
        assert connection._queue is None
        (subscription,) = connection._subscriptions.values()
        assert subscription.watcher._behind == []


# --- resuming ---------------------------------------------------------------------------------------------------------


async def test_a_stream_goes_on_behind_its_cursor_with_no_gap_and_nothing_twice(
    stack: Stack, serving: Streaming
) -> None:
    seen: list[str] = []
    cursor = "beginning"
    for part in range(20):
        for number in range(10):
            await put(stack, f"n{part}-{number}")
        async with serving.client() as client:
            await client.say("subscribe", start=cursor, select="kind=alias")
            for _ in range(7):  # and never all of them
                heard = await client.hear()
                while heard["type"] != "changes":
                    heard = await client.hear()
                seen += [each["name"] for each in heard["events"]]
                cursor = heard["cursor"]
            client.socket.transport.abort()
    async with serving.client() as client:
        await client.say("subscribe", start=cursor)
        seen += await client.names(200 - len(seen))
    assert seen == [f"n{part}-{number}" for part in range(20) for number in range(10)]


async def test_a_cursor_of_another_history_is_a_problem_that_says_where_to_go_on(serving: Streaming) -> None:
    async with serving.client() as client:
        problem = await client.asked("subscribe", start="000000000000.5.00000000")
    assert (problem["status"], problem["problem"]["code"]) == (409, "cursor-mismatch")
    assert problem["problem"]["data"]["cursor"]


async def test_a_named_consumer_goes_on_where_it_acknowledged(stack: Stack, serving: Streaming) -> None:
    await asked(stack, "PUT", "/v1/-/consumers/c1", json={"select": ["kind=alias"], "start": "beginning"})
    for name in "abc":
        await put(stack, name)
    async with serving.client() as client:
        await client.subscribed(consumer="c1")
        cursors = {event["name"]: heard["cursor"] for heard in [await client.hear("changes") for _ in range(3)]
                   for event in heard["events"]}  # fmt: skip
        await client.hear("synced")
        answer = await client.asked("ack", id=1, consumer="c1", cursor=cursors["b"])
    async with serving.client() as client:
        await client.subscribed(consumer="c1")
        assert await client.names(1) == ["c"]
    assert answer["status"] == 200


async def test_a_server_that_stops_says_where_to_go_on(stack: Stack, serving: Streaming) -> None:
    async with serving.client() as client:
        await client.subscribed(id="s", start="now")
        heard = [await client.hear("synced")]
        await put(stack, "last")
        heard.append(await client.hear("changes"))
        stopping = asyncio.create_task(serving.server.stop(LONG))
        heard.append(await client.hear("end"))
        async with asyncio.timeout(LONG):
            await client.socket.wait_closed()
        await stopping
        assert client.socket.close_code == 1001
    assert heard[2]["cursor"] == heard[1]["cursor"]
    assert (heard[2]["id"], heard[2]["resync"]) == ("s", False)


# --- who may come in --------------------------------------------------------------------------------------------------


async def refused(serving: Streaming, **asked: Any) -> dict[str, Any]:
    with pytest.raises(InvalidStatus) as failed:
        async with serving.over_tcp(**asked):
            pass
    return json.loads(failed.value.response.body) | {"status": failed.value.response.status_code}


async def test_over_tcp_a_token_is_needed(stack: Stack, serving: Streaming) -> None:
    assert (await refused(serving))["status"] == 401
    assert (await refused(serving, token="ur_wrong"))["status"] == 401
    assert (await refused(serving, path=f"/v1/stream?token={stack.token}"))["status"] == 401
    async with serving.over_tcp(stack.token) as client:
        assert (await client.asked("put", record=ALIAS))["status"] == 201
    async with serving.over_tcp(subprotocols=["ureg.v1", f"ureg.token.{stack.token}"]) as client:
        assert client.socket.subprotocol == "ureg.v1"
        assert (await client.asked("delete", kind="alias", name="gs"))["status"] == 200


async def test_pages_of_other_sites_are_refused_unless_they_are_allowed(stack: Stack, serving: Streaming) -> None:
    evil = {"Origin": "https://evil.example"}
    told = await refused(serving, token=stack.token, headers=evil)
    assert (told["status"], told["code"]) == (403, "forbidden")
    own = {"Origin": f"http://{serving.addresses.tcp}"}
    async with serving.over_tcp(stack.token, headers=own) as client:
        assert (await client.asked("put", record=ALIAS))["status"] == 201
    serving.front.origins = frozenset({"https://evil.example"})
    async with serving.over_tcp(stack.token, headers=evil) as client:
        assert (await client.asked("put", record=ALIAS))["status"] == 200


async def test_another_host_name_is_refused(stack: Stack, serving: Streaming) -> None:
    assert serving.addresses.tcp is not None
    port = int(serving.addresses.tcp.rpartition(":")[2])
    with pytest.raises(InvalidStatus) as failed:
        async with connect(
            "ws://rebound.example/v1/stream",
            host="127.0.0.1",
            port=port,
            additional_headers={"Authorization": f"Bearer {stack.token}"},
        ):
            pass
    assert failed.value.response.status_code == 421


async def test_a_token_that_may_only_read_watches_and_writes_nothing(stack: Stack, serving: Streaming) -> None:
    token = await added(stack, "r", "read")
    async with serving.over_tcp(token) as client:
        await client.subscribed(start="now")
        await client.hear("synced")
        said = await client.asked("put", id=1, record=ALIAS)
        event = await client.asked("event", id=2, stream="s", data=1)
    assert (said["status"], said["problem"]["code"]) == (403, "forbidden")
    assert event["status"] == 403


async def test_a_token_that_is_revoked_ends_its_streams(stack: Stack, serving: Streaming) -> None:
    tokens = stack.tokens
    token = await added(stack, "w", "write")
    async with serving.over_tcp(token) as client:
        await client.subscribed(start="now")
        await client.hear("synced")
        await tokens.revoke("w", actor="me")
        serving.front._swept = 0.0
        serving.worker.alarm.ring()
        async with asyncio.timeout(LONG):
            await client.socket.wait_closed()
        assert client.socket.close_code == 1008


async def test_there_are_only_so_many_streams(stack: Stack) -> None:
    async with (
        streaming(stack.api, stack.service, stack.folder, tcp=True, max_streams=1) as serving,
        serving.over_tcp(stack.token),
    ):
        assert (await refused(serving, token=stack.token))["code"] == "too-many"


async def test_whoever_asks_in_another_way_is_told_so(stack: Stack, serving: Streaming) -> None:
    reader, writer = await asyncio.open_unix_connection(serving.addresses.socket)
    writer.write(b"GET /v1/stream HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    told = await asyncio.wait_for(reader.read(), LONG)
    assert told.startswith(b"HTTP/1.1 400 ")
    assert b"this is a WebSocket" in told
    writer.close()
    reader, writer = await asyncio.open_unix_connection(serving.addresses.socket)
    writer.write(b"GET /v1/str")
    await writer.drain()
    writer.write(b"ange/things HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    assert b" 404 " in (await asyncio.wait_for(reader.read(), LONG)).split(b"\r\n")[0]
    writer.close()
    reader, writer = await asyncio.open_unix_connection(serving.addresses.socket)
    writer.write(b"GET /v1/stream HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
    assert b"no WebSocket handshake" in await asyncio.wait_for(reader.read(), LONG)
    writer.close()


# --- limits and ends --------------------------------------------------------------------------------------------------


HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x82\x81\0\0\0\0x", 1003),
        (b"\x81\xff" + ((1 << 20) + 1).to_bytes(8, "big"), 1009),
        (b"\x81\x01x", 1002),
        (b"\xc1\x81\0\0\0\0x", 1002),
        (b"\x80\x81\0\0\0\0x", 1002),
        (b"\x81\x81\0\0\0\0\xff", 1007),
        (b"\x88\x82\0\0\0\0\x03\xe8", 1000),
        (b"\x88\x81\0\0\0\0x", 1002),
        (b"\x88\x82\0\0\0\0\x03\xed", 1002),
    ],
    ids=["binary", "long", "unmasked", "reserved", "continued", "not-utf8", "closed", "short-close", "wrong-close"],
)
async def test_what_ends_a_stream(serving: Streaming, sent: bytes, code: int) -> None:
    reader, writer = await asyncio.open_unix_connection(serving.addresses.socket)
    writer.write(HANDSHAKE + sent)
    heard = await asyncio.wait_for(reader.read(), LONG)
    frame = heard.partition(b"\r\n\r\n")[2]
    assert frame[0] == 0x88
    assert int.from_bytes(frame[2:4], "big") == code
    assert len(frame) == 2 + frame[1]  # and nothing behind it
    writer.close()


async def test_what_cannot_be_read_is_a_problem_and_the_stream_goes_on(serving: Streaming) -> None:
    async with serving.client() as client:
        for text in (
            "",
            "x",
            "[]",
            "{}",
            '{"type":1}',
            '{"type":"put"}',
            '{"type":"put","id":3,"record":{}}',
            '{"a":1,"a":2}',
        ):
            await client.socket.send(text)
            problem = await client.hear("problem")
            assert problem["status"] in (400, 422), text
        assert (await client.asked("put", id=1, record=ALIAS))["status"] == 201


async def test_a_client_that_does_not_answer_pings_is_closed(stack: Stack) -> None:
    limits = StreamLimits(ping=0.05, pong=0.05, closing=0.05)
    async with streaming(stack.api, stack.service, stack.folder, limits=limits) as serving:
        reader, writer = await asyncio.open_unix_connection(serving.addresses.socket)
        writer.write(HANDSHAKE)
        heard = await asyncio.wait_for(reader.read(), LONG)
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in heard
        assert b"\x89\x00\x88" in heard
        assert (4001).to_bytes(2, "big") + b"no answer to a ping" in heard
        writer.close()


async def test_a_stream_with_nothing_to_do_is_closed(stack: Stack) -> None:
    async with (
        streaming(stack.api, stack.service, stack.folder, limits=StreamLimits(idle=0.0)) as serving,
        serving.client() as client,
    ):
        async with asyncio.timeout(LONG):
            await client.socket.wait_closed()
        assert client.socket.close_code == 4000


# --- a reader that does not read --------------------------------------------------------------------------------------


async def test_a_reader_that_stops_costs_the_others_nothing_and_misses_nothing(
    stack: Stack, serving: Streaming
) -> None:
    big = "x" * 20_000
    reader, writer = await asyncio.open_unix_connection(serving.addresses.socket, limit=1 << 26)
    writer.write(HANDSHAKE)
    await reader.readuntil(b"\r\n\r\n")
    said = b'{"type":"subscribe","from":"now"}'
    writer.write(bytes((0x81, 0x80 | len(said))) + bytes(4) + said)
    await reader.readuntil(b'"synced"')
    reader._transport.pause_reading()  # type: ignore[attr-defined] # from here on it does not read
    count = 400
    async with serving.client() as quick:
        await quick.subscribed(start="now", select="kind=alias")
        await quick.hear("synced")
        for number in range(count):
            await put(stack, f"n{number}", big)
        assert await quick.names(count) == [f"n{number}" for number in range(count)]
    # What waits for the one that stopped is bounded, whatever it has missed.
    (slow,) = serving.front.connections
    waiting = slow._transport.get_write_buffer_size()
    assert waiting < 2 * serving.front.limits.waiting + 3 * len(big)
    reader._transport.resume_reading()  # type: ignore[attr-defined]
    async with asyncio.timeout(LONG):
        heard = b""
        while f'"name":"n{count - 1}"'.encode() not in heard:
            heard += await reader.read(1 << 20)
    places = [heard.index(f'"revision":{number + 1},"events"'.encode()) for number in range(count)]
    assert places == sorted(places)
    assert all(heard.count(f'"revision":{number + 1},"events"'.encode()) == 1 for number in range(count))
    writer.close()


# --- our client -------------------------------------------------------------------------------------------------------


async def test_our_client_streams_and_pushes(stack: Stack, serving: Streaming) -> None:
    async with StreamClient([serving.addresses.socket]) as client:
        answers = await client.push(*({"type": "put", "record": alias(f"n{number}")} for number in range(300)))
        seen = []
        async with asyncio.timeout(LONG), contextlib.aclosing(client.stream("kind=alias", start="list")) as changes:
            async for change in changes:
                if change.op == "synced":
                    await client.push({"type": "put", "record": alias("last")})
                seen.append(change.name)
                if change.name == "last":
                    break
        with pytest.raises(PreconditionFailed):
            await client.push({"type": "put", "record": alias("n1", "y"), "if_match": 999})
    assert len(answers) == 300
    assert len(set(seen) - {""}) == 301
    with pytest.raises(CursorMismatch):
        async with contextlib.aclosing(client.stream(start="000000000000.5.00000000")) as changes:
            await anext(changes)


async def test_our_client_tells_what_it_was_refused_with(stack: Stack, serving: Streaming) -> None:
    assert serving.addresses.tcp is not None
    token = await added(stack, "r", "read")
    async with StreamClient([f"ws://{serving.addresses.tcp}"], token=token) as client:
        with pytest.raises(Forbidden):
            await client.push({"type": "put", "record": ALIAS})
    with pytest.raises(NotFound, match="no stream"):
        async with StreamClient([serving.addresses.socket], name="nowhere") as client:
            await client.push({"type": "put", "record": ALIAS})


async def test_our_client_goes_on_at_another_daemon(stack: Stack, tmp_path: Path) -> None:
    """Each time it is cut off, it comes back at the other of the two, behind its cursor."""
    other = tmp_path / "other"
    other.mkdir()
    async with (
        streaming(stack.api, stack.service, stack.folder) as one,
        streaming(stack.api, stack.service, other) as two,
    ):
        client = StreamClient([one.addresses.socket, two.addresses.socket])
        seen: list[str] = []
        async with asyncio.timeout(LONG), contextlib.aclosing(client.stream("kind=alias")) as changes:
            assert (await anext(changes)).op == "synced"
            for number in range(30):
                await put(stack, f"n{number}")
                seen += [change.name async for change in _first(changes)]
                for connection in (*one.front.connections, *two.front.connections):
                    connection.drop()
        assert seen == [f"n{number}" for number in range(30)]


async def _first(changes: Any) -> AsyncIterator[Any]:
    while True:
        change = await anext(changes)
        if change.op == "put":
            yield change
            return


# --- counts -----------------------------------------------------------------------------------------------------------


async def test_what_streams_carry_is_counted_exactly(stack: Stack, serving: Streaming) -> None:
    record = {"kind": "endpoint", "name": "room", "classification": "WebSocketEndpoint", "spec": {"protocol": "ws"}}
    await stack.service.put({**record, "namespace": "default"}, actor=ME)
    sent, got = 0, 0
    async with serving.over_tcp(stack.token, path="/v1/stream?stream=room") as client:
        for number in range(25):
            message = json.dumps({"type": "event", "id": number, "stream": "room", "data": "é" * number})
            sent += len(message.encode())
            await client.socket.send(message)
            got += len(str(await client.socket.recv()).encode())
        one = await asked(stack, "GET", "/v1/-/streams/room")
        (listed,) = (await asked(stack, "GET", "/v1/-/streams"))["items"]
    assert (one["in"]["messages"], one["in"]["bytes"]) == (25, sent)
    assert (one["out"]["messages"], one["out"]["bytes"]) == (25, got)
    assert one["out"]["latency_ms"] > 0
    assert (one["open"], one["protocol"], listed) == (1, "ws", one)
    assert (await stack.api.context.observed.figures.gauges()).counters.messages == 50
    again = await asked(stack, "GET", "/v1/-/streams/room")
    assert (again["open"], again["in"]) == (0, one["in"])


async def test_a_stream_that_is_none_is_not_counted(stack: Stack, serving: Streaming) -> None:
    told = await refused(serving, token=stack.token, path="/v1/stream?stream=nowhere")
    assert (told["status"], told["code"]) == (404, "not-found")
    assert (await asked(stack, "GET", "/v1/-/streams"))["items"] == []


# --- many, and others' clients ----------------------------------------------------------------------------------------


class Listener(asyncio.Protocol):
    """Counts the changes that it is told of."""

    def __init__(self, wanted: int) -> None:
        self.heard = b""
        self.wanted = wanted
        self.synced = asyncio.get_running_loop().create_future()
        self.done = asyncio.get_running_loop().create_future()
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        said = b'{"type":"subscribe","from":"now","select":"kind=alias"}'
        self.transport = transport
        self.transport.write(HANDSHAKE + bytes((0x81, 0x80 | len(said))) + bytes(4) + said)

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if b'"synced"' in self.heard and not self.synced.done():
            self.synced.set_result(None)
        if self.heard.count(b'"type":"changes"') >= self.wanted and not self.done.done():
            self.done.set_result(None)


async def test_a_thousand_are_told_each_change_once(stack: Stack, serving: Streaming) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2500:
        pytest.skip(f"only {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2500), hard))
    loop = asyncio.get_running_loop()
    listeners: list[Listener] = []
    for _ in range(1000):
        _, made = await loop.create_unix_connection(lambda: Listener(20), serving.addresses.socket)
        listeners.append(made)
    async with asyncio.timeout(3 * LONG):
        await asyncio.gather(*(each.synced for each in listeners))
        for number in range(20):
            await put(stack, f"n{number}")
        await asyncio.gather(*(each.done for each in listeners))
    told = {each.heard.partition(b'"synced"')[2] for each in listeners}
    assert len(told) == 1, "all are told the same"
    assert next(iter(told)).count(b'"type":"changes"') == 20
    assert serving.front.hub.figures().watchers == 1000
    for each in listeners:
        each.transport.abort()


async def test_the_websocket_of_node_speaks_to_it(stack: Stack, serving: Streaming) -> None:
    import shutil

    node = shutil.which("node")
    script = """
const [url, token] = process.argv.slice(1)
const ws = new WebSocket(url, ["ureg.v1", "ureg.token." + token])
const record = {kind: "alias", name: "node", spec: {command: "x"}}
ws.onopen = () => ws.send(JSON.stringify({type: "put", id: 1, record}))
ws.onmessage = (event) => { console.log(JSON.parse(event.data).status); ws.close(1000) }
ws.onerror = (event) => { console.log(event.message); process.exit(1) }
"""
    if node is None:
        pytest.skip("there is no node here")
    version = await asyncio.create_subprocess_exec(node, "--version", stdout=asyncio.subprocess.PIPE)
    major = int((await version.communicate())[0].decode().lstrip("v").partition(".")[0])
    if major < 20:
        pytest.skip(f"node {major} has no WebSocket of its own: it takes 20")
    options = ["--experimental-websocket"] if major < 22 else []
    url = f"ws://{serving.addresses.tcp}/v1/stream"
    process = await asyncio.create_subprocess_exec(
        node, *options, "-e", script, url, stack.token, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(process.communicate(), LONG)
    assert (said.strip(), process.returncode) == (b"201", 0)
