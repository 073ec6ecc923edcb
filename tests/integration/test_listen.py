"""`ureg listen`'s receiver over real sockets: checking, repeats, counting, misbehaving on demand, stopping."""

from __future__ import annotations

import asyncio
import io
import json
import os
import select
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from universal_registry.cli.listen_exec import MOST_RUNNING, MOST_WAITING, Exec
from universal_registry.client import listen
from universal_registry.client.listen import (
    BODY_LIMIT,
    Behaviour,
    Handle,
    Heard,
    Receiver,
    State,
    flaky,
    line,
    listen_address,
    printer,
    refusing,
)
from universal_registry.kernel.errors import Conflict, Invalid, UsageError
from universal_registry.kernel.world import SystemWorld, World
from universal_registry.security.signing import new_secret, parse_secret, signed_headers

WORLD = SystemWorld()
SECRET = new_secret(WORLD)
LONG = 20.0


class Place:
    """A receiver that listens, and a client at its door."""

    def __init__(self, receiver: Receiver, heard: list[Heard], url: str, session: aiohttp.ClientSession) -> None:
        self.receiver, self.heard, self.url, self.session = receiver, heard, url, session

    async def post(self, body: bytes, headers: Mapping[str, str] | None = None) -> int:
        async with self.session.post(self.url, data=body, headers=headers) as answer:
            return answer.status

    async def event(self, number: int, msg_id: str = "", **signing: Any) -> int:
        body = event(number)
        msg_id = msg_id or f"dlv_{number}"
        return await self.post(body, signed(msg_id, body, **signing))


@asynccontextmanager
async def listening(
    secret: str | None = SECRET,
    behaviour: Behaviour | None = None,
    fail: Exception | None = None,
    *,
    handle: Handle | None = None,
    world: World = WORLD,
) -> AsyncIterator[Place]:
    heard = list[Heard]()

    def note(one: Heard) -> None:
        heard.append(one)
        if fail is not None and len(heard) == 1:
            raise fail

    secrets = [secret] if secret else []
    receiver = Receiver(world=world, secrets=secrets, on_event=note, behaviour=behaviour, handle=handle)
    host, port = await receiver.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession() as session:
            yield Place(receiver, heard, f"http://{host}:{port}/", session)
    finally:
        await receiver.stop()


def event(number: int, subject: str = "alias/default/gs") -> bytes:
    made = {"type": "registry.alias.updated.v1", "subject": subject, "sequence": f"{number:016d}.000000"}
    return json.dumps({"specversion": "1.0", **made, "data": {"revision": number}}).encode()


def signed(msg_id: str, body: bytes, *, secret: str = SECRET, age: int = 0) -> dict[str, str]:
    return signed_headers([parse_secret(secret)], msg_id, int(WORLD.now().timestamp()) - age, body)


# --- checking ---------------------------------------------------------------------------------------------------------


async def test_a_signed_event_is_received_and_verified() -> None:
    async with listening() as place:
        assert await place.event(7) == 204
        assert place.heard == [
            Heard(
                state=State.RECEIVED,
                id="dlv_7",
                type="registry.alias.updated.v1",
                subject="alias/default/gs",
                sequence="0000000000000007.000000",
                verified=True,
                data={"revision": 7},
            )
        ]
        assert place.receiver.counts() == {"received": 1, "repeated": 0, "verified": 1, "refused": 0, "failed": 0}
        assert place.receiver.latest() == {"alias/default/gs": "0000000000000007.000000"}


async def test_what_is_not_authentic_is_refused_and_counts_for_nothing() -> None:
    async with listening() as place:
        body = event(1)
        forged = signed("dlv_1", body, secret=new_secret(WORLD))
        for headers in (forged, {}, {"webhook-id": "dlv_1"}, signed("dlv_1", body, age=400)):
            assert await place.post(body, headers) == 401
        assert await place.post(body + b" ", signed("dlv_1", body)) == 401
        assert {one.state for one in place.heard} == {State.REFUSED}
        assert {one.verified for one in place.heard} == {False}
        assert place.receiver.counts()["refused"] == 5
        assert place.receiver.latest() == {}
        assert await place.event(1) == 204  # a forged id has not used up the true one
        assert place.receiver.counts()["received"] == 1


async def test_without_a_secret_everything_is_taken_and_nothing_called_verified() -> None:
    async with listening(secret=None) as place:
        assert await place.event(1) == 204
        assert await place.post(b"no json at all \xff") == 204
        assert await place.post(b"[1,2]") == 204
        assert await place.post(b'{"type": 7, "subject": null}') == 204
        assert [one.verified for one in place.heard] == [None] * 4
        assert [one.type for one in place.heard] == ["registry.alias.updated.v1", "", "", ""]
        assert place.receiver.counts() == {"received": 4, "repeated": 0, "verified": 0, "refused": 0, "failed": 0}


async def test_a_secret_that_is_none_is_said_and_not_shown() -> None:
    with pytest.raises(Invalid) as caught:
        Receiver(world=WORLD, secrets=["my-password"])
    assert "my-password" not in str(caught.value)


# --- repeats and order ------------------------------------------------------------------------------------------------


async def test_a_repeat_is_answered_well_and_counted_apart() -> None:
    async with listening() as place:
        assert [await place.event(1) for _ in range(3)] == [204] * 3
        assert [one.state for one in place.heard] == [State.RECEIVED, State.REPEATED, State.REPEATED]
        assert place.receiver.counts() == {"received": 1, "repeated": 2, "verified": 3, "refused": 0, "failed": 0}


async def test_of_many_copies_at_once_one_is_received() -> None:
    async with listening() as place:
        await asyncio.gather(*(place.event(1) for _ in range(20)))
        assert place.receiver.counts()["received"] == 1
        assert place.receiver.counts()["repeated"] == 19


async def test_an_older_sequence_is_late_and_does_not_win() -> None:
    async with listening() as place:
        for number in (1, 3, 2):
            await place.event(number)
        assert [one.late for one in place.heard] == [False, False, True]
        assert place.receiver.latest() == {"alias/default/gs": "0000000000000003.000000"}
        other = event(1, "alias/default/other")
        await place.post(other, signed("dlv_other", other))
        assert not place.heard[-1].late


async def test_when_handling_fails_the_sender_is_told_and_its_repeat_is_new() -> None:
    async with listening(fail=ValueError("disk")) as place:
        assert await place.event(1) == 500
        with pytest.raises(ValueError, match="disk"):
            await place.receiver.wait()
        assert await place.event(1) == 204
        assert [one.state for one in place.heard] == [State.RECEIVED] * 2
        assert place.receiver.counts() == {"received": 1, "repeated": 0, "verified": 1, "refused": 0, "failed": 1}


# --- misbehaving on demand --------------------------------------------------------------------------------------------


async def test_a_refusing_receiver_takes_nothing_until_it_is_told_otherwise() -> None:
    async with listening(behaviour=refusing(503)) as place:
        assert [await place.event(1) for _ in range(2)] == [503, 503]
        assert place.receiver.counts()["failed"] == 2
        place.receiver.behaviour = None
        assert await place.event(1) == 204
        assert place.receiver.counts()["received"] == 1


async def test_a_flaky_receiver_takes_everything_in_the_end_and_always_in_the_same_way() -> None:
    async def run() -> list[int]:
        async with listening(behaviour=flaky(0.5)) as place:
            seen = list[int]()
            for number in range(20):
                while (status := await place.event(number)) != 204:
                    seen.append(status)
                seen.append(status)
            assert place.receiver.counts()["received"] == 20
            return seen

    first = await run()
    assert set(first) == {204, 500}
    assert first == await run()


def test_the_share_of_a_flaky_receiver_is_kept() -> None:
    for share in (0.0, 0.1, 0.5, 1.0):
        behave = flaky(share)
        turned_away = sum(behave(f"dlv_{number}", 1) is not None for number in range(2000))
        assert abs(turned_away / 2000 - share) < 0.03


# --- what is not an event ---------------------------------------------------------------------------------------------


async def test_only_posts() -> None:
    async with listening() as place:
        for method in ("GET", "PUT", "DELETE", "OPTIONS", "HEAD"):
            async with place.session.request(method, place.url) as answer:
                assert answer.status == 405
                assert answer.headers["allow"] == "POST"
        assert place.heard == []


async def test_a_body_may_be_so_long_and_no_longer() -> None:
    async with listening(secret=None) as place:
        assert await place.post(b" " * BODY_LIMIT) == 204
        assert await place.post(b" " * (BODY_LIMIT + 1)) == 413

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(64):
                yield b" " * (1 << 16)

        try:
            async with place.session.post(place.url, data=endless()) as answer:
                assert answer.status == 413
        except aiohttp.ClientError:
            assert len(place.heard) == 3  # it may hang up before the sender has read why
        assert [one.state for one in place.heard] == [State.RECEIVED, State.REFUSED, State.REFUSED]


async def test_a_body_that_breaks_off_or_hangs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "BODY_SECONDS", 0.2)
    async with listening(secret=None) as place:
        _, _, port = place.url.rstrip("/").rpartition(":")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf")
        answer = await asyncio.wait_for(reader.read(), LONG)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"did not arrive within 0.2 s" in answer
        assert [one.state for one in place.heard] == [State.REFUSED]


async def test_an_id_of_any_bytes_is_heard_and_can_be_printed() -> None:
    out = io.StringIO()
    receiver = Receiver(world=WORLD, on_event=printer(out, "ndjson"))
    _, port = await receiver.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST / HTTP/1.1\r\nhost: x\r\nwebhook-id: \xff\xfe\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
    )
    answer = await asyncio.wait_for(reader.read(), LONG)
    writer.close()
    await receiver.stop()
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert json.loads(out.getvalue())["state"] == "received"


# --- starting and stopping --------------------------------------------------------------------------------------------


async def test_a_port_that_is_taken_is_one_clear_conflict() -> None:
    async with listening() as place:
        port = int(place.url.rstrip("/").rpartition(":")[2])
        with pytest.raises(Conflict, match=f"cannot listen on 127.0.0.1:{port}: the port is taken") as caught:
            await Receiver(world=WORLD).start("127.0.0.1", port)
        assert caught.value.exit_code == 5
        with pytest.raises(Conflict, match="listens already"):
            await place.receiver.start("127.0.0.1", 0)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "x" * 300, "192.0.2.77"])
async def test_a_place_where_nobody_can_listen(host: str) -> None:
    with pytest.raises((UsageError, Conflict), match="cannot listen on"):
        await Receiver(world=WORLD).start(host, 0)


async def test_stopping_leaves_no_task_and_no_connection_and_it_can_start_again() -> None:
    before = asyncio.all_tasks()
    receiver = Receiver(world=WORLD)
    for _ in range(2):
        _, port = await receiver.start("127.0.0.1", 0)
        idle = await asyncio.open_connection("127.0.0.1", port)
        half = await asyncio.open_connection("127.0.0.1", port)
        half[1].write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf")
        await half[1].drain()
        async with aiohttp.ClientSession() as session, session.post(f"http://127.0.0.1:{port}/", data=event(1)) as done:
            assert done.status == 204
        await receiver.stop(grace=0.1)
        await receiver.stop()  # a second time is no error
        for reader, writer in (idle, half):
            assert b"204" not in await asyncio.wait_for(_rest(reader), LONG)
            writer.close()
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert asyncio.all_tasks() == before


async def test_waiting_ends_when_it_is_stopped() -> None:
    receiver = Receiver(world=WORLD)
    await receiver.start("127.0.0.1", 0)
    waiting = asyncio.create_task(receiver.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    await receiver.stop()
    await asyncio.wait_for(waiting, LONG)


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (":9000", ("127.0.0.1", 9000)),
        ("9000", ("127.0.0.1", 9000)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:9000", ("::1", 9000)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_addresses(text: str, place: tuple[str, int]) -> None:
    assert listen_address(text) == place


@pytest.mark.parametrize("text", ["", ":", "x", ":x", ":70000", "host", "::", "9000:", "-1", ":9000:"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError):
        listen_address(text)


# --- what is printed --------------------------------------------------------------------------------------------------


async def test_one_line_for_each_event() -> None:
    out = io.StringIO()
    receiver = Receiver(world=WORLD, secrets=[SECRET], on_event=printer(out))
    _, port = await receiver.start("127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:
        for headers in (signed("dlv_1", event(1)), signed("dlv_1", event(1)), {}):
            await session.post(f"http://127.0.0.1:{port}/", data=event(1), headers=headers)
    await receiver.stop()
    what = "registry.alias.updated.v1  alias/default/gs  0000000000000001.000000"
    assert out.getvalue().splitlines() == [
        f"received  {what}  verified",
        f"repeated  {what}  verified",
        "refused  -  -  -  not verified  webhook-id is missing",
    ]


def test_a_line_moves_no_cursor_and_is_one_line() -> None:
    heard = Heard(state=State.RECEIVED, type="a\x1b[2J\nb", subject="\u202eevil\u2028", late=True)
    assert line(heard) == "received, late  a\\u001b[2J\\u000ab  \\u202eevil\\u2028  -  not checked"


def test_ndjson_has_every_field() -> None:
    out = io.StringIO()
    heard = Heard(state=State.REPEATED, id="dlv_1", type="t", subject="s", sequence="1", verified=True, data={"a": [1]})
    printer(out, "ndjson")(heard)
    assert out.getvalue().count("\n") == 1
    assert json.loads(out.getvalue()) == {
        "state": "repeated",
        "id": "dlv_1",
        "type": "t",
        "subject": "s",
        "sequence": "1",
        "verified": True,
        "late": False,
        "reason": "",
        "data": {"a": [1]},
    }
    with pytest.raises(UsageError):
        printer(out, "xml")


# --- handling ---------------------------------------------------------------------------------------------------------


class Counting(SystemWorld):
    """Is asked for the time once by each request, just before it is looked at."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._left = most
        self.all_asked = asyncio.Event()

    def now(self) -> datetime:
        self._left -= 1
        if not self._left:
            self.all_asked.set()
        return super().now()


async def test_a_repeat_that_comes_while_an_event_is_handled_is_told_what_becomes_of_it() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    answers = ["it does not fit", ""]
    handled = list[str]()

    async def handle(one: Heard) -> str:
        handled.append(one.id)
        begun.set()
        await go_on.wait()
        return answers.pop(0)

    world = Counting(4)
    async with listening(handle=handle, world=world) as place:
        first = asyncio.create_task(place.event(1))
        await asyncio.wait_for(begun.wait(), LONG)
        repeats = [asyncio.create_task(place.event(1)) for _ in range(3)]
        await asyncio.wait_for(world.all_asked.wait(), LONG)
        go_on.set()
        assert [await task for task in (first, *repeats)] == [500] * 4
        assert handled == ["dlv_1"]
        assert {(one.state, one.reason) for one in place.heard} == {(State.FAILED, "it does not fit")}
        assert [await place.event(1), await place.event(1)] == [204, 204]
        assert handled == ["dlv_1", "dlv_1"], "what failed comes again, what was done does not"
        assert place.receiver.counts()["received"] == place.receiver.counts()["repeated"] == 1


async def test_so_many_commands_run_at_once_and_no_more(tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    for pipe in (started, gate):
        os.mkfifo(pipe)
    begun, go_on = (os.open(pipe, os.O_RDWR) for pipe in (started, gate))
    script = f"echo x > {started}; read word < {gate}"
    run = Exec(("/bin/sh", "-c", script), os.environ, LONG)
    loop = asyncio.get_running_loop()

    def more(seconds: float) -> bytes:
        return os.read(begun, 2) if select.select([begun], [], [], seconds)[0] else b""

    try:
        running = [asyncio.create_task(run(Heard(state=State.RECEIVED, id=str(number)))) for number in range(6)]
        came = [await loop.run_in_executor(None, more, LONG) for _ in range(MOST_RUNNING)]
        assert came == [b"x\n"] * MOST_RUNNING
        assert await loop.run_in_executor(None, more, 0.3) == b""
        os.write(go_on, b"go\n" * 6)
        assert await asyncio.gather(*running) == [""] * 6
    finally:
        await run.close()
        os.close(begun)
        os.close(go_on)


async def test_commands_beyond_those_that_may_wait_are_sent_away(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    go_on = os.open(gate, os.O_RDWR)
    run = Exec(("/bin/sh", "-c", f"read word < {gate}"), os.environ, LONG)
    heard = Heard(state=State.RECEIVED, id="x")
    try:
        tasks = [asyncio.create_task(run(heard)) for _ in range(MOST_RUNNING + MOST_WAITING)]
        await asyncio.sleep(0)  # each is at its place: running, or in the line
        assert await run(heard) == f"{MOST_WAITING} events wait for --exec already"
        for task in tasks[MOST_RUNNING:]:
            task.cancel()
        os.write(go_on, b"go\n" * MOST_RUNNING)
        assert await asyncio.gather(*tasks[:MOST_RUNNING]) == [""] * MOST_RUNNING
    finally:
        await run.close()
        os.close(go_on)
