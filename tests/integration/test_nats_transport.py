"""The NATS transport against a real nats-server: what a stream gets, and what becomes of each fault."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cloudevents.v1.http import from_http
from msgspec.structs import replace

from tests.natsserver import NatsServer, free_port
from universal_registry.kernel.world import SystemWorld
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Rejected
from universal_registry.propagation.messages.nats_message import headers_of, subject_of
from universal_registry.propagation.ports import Envelope
from universal_registry.security.addresses import Policy
from universal_registry.transports.nats import NatsTransport

USERS = """
accounts { A: { jetstream: enabled, users: [
  { user: u, password: "geheim-1" },
  { user: low, password: "geheim-2", permissions: { publish: { allow: ["other.>"] }, subscribe: { allow: [">"] } } }
] } }
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path)
    yield server
    server.thaw()
    server.kill()


@pytest.fixture
async def transport() -> AsyncIterator[NatsTransport]:
    transport = NatsTransport(SystemWorld())
    yield transport
    await transport.close()


def envelope(url: str, number: int = 1, body: bytes = b'{"n":1}', credential: str | None = None) -> Envelope:
    attributes = (
        ("specversion", "1.0"), ("id", f"1.{number}.0"), ("source", "/registries/1"),
        ("type", "registry.alias.created.v1"), ("subject", f"alias/default/n{number}"),
    )  # fmt: skip
    return Envelope(
        url=url,
        headers=(*headers_of(f"msg_{number}", attributes), ("content-type", "application/json")),
        body=body,
        network=Policy.LOOPBACK,
        timeout=20.0,
        subject=subject_of("ureg", f"alias/default/n{number}"),
        credential=credential,
    )


async def test_a_stream_gets_a_valid_cloudevent_once(server: NatsServer, transport: NatsTransport) -> None:
    await server.make_stream()
    first = await transport.send(envelope(server.url()))
    again = await transport.send(envelope(server.url()))
    assert isinstance(first, Accepted)
    assert isinstance(again, Accepted)
    assert first.answer == "stream UREG, sequence 1"
    assert again.answer == "stream UREG, sequence 1, which had it already"
    ((_, subject, headers, data),) = await server.messages()
    event = from_http({name.lower(): value for name, value in headers.items()}, data)
    assert subject == "ureg.alias.default.n1"
    assert (event["id"], event["type"], event["subject"]) == ("1.1.0", "registry.alias.created.v1", "alias/default/n1")
    assert json.loads(data) == event.get_data() == {"n": 1}


async def test_without_a_stream_the_command_that_makes_one_is_told(
    server: NatsServer, transport: NatsTransport
) -> None:
    outcome = await transport.send(envelope(server.url()))
    assert isinstance(outcome, Failed)
    assert outcome.status == 404
    assert "nats stream add ureg --subjects 'ureg.>'" in outcome.reason


async def test_a_full_stream_fails_and_takes_it_when_there_is_room(
    server: NatsServer, transport: NatsTransport
) -> None:
    await server.make_stream(max_msgs=1, discard="new")
    assert isinstance(await transport.send(envelope(server.url(), 1)), Accepted)
    full = await transport.send(envelope(server.url(), 2))
    assert isinstance(full, Failed)
    assert (full.status, "maximum messages exceeded" in full.reason) == (503, True)
    client = await server.client()
    await client.jetstream().purge_stream("UREG")
    await client.close()
    assert isinstance(await transport.send(envelope(server.url(), 2)), Accepted)


async def test_what_is_too_large_is_the_payloads_fault(server: NatsServer, transport: NatsTransport) -> None:
    await server.make_stream(max_msg_size=1000)
    for size in (2000, 2 << 20):
        outcome = await transport.send(envelope(server.url(), body=b"x" * size))
        assert isinstance(outcome, Rejected)
        assert outcome.status == 413


async def test_nobody_there(transport: NatsTransport) -> None:
    port = free_port()
    outcome = await transport.send(envelope(f"nats://127.0.0.1:{port}/ureg"))
    assert isinstance(outcome, Failed)
    assert outcome.reason == f"connection refused by 127.0.0.1:{port}"


async def test_users_and_permissions(tmp_path: Path, transport: NatsTransport) -> None:
    server = NatsServer(tmp_path, USERS)
    try:
        client = await server.client(user="u", password="geheim-1")
        await client.jetstream().add_stream(name="UREG", subjects=["ureg.>"])
        await client.close()
        url = server.url()
        assert isinstance(await transport.send(envelope(url, credential="u:geheim-1")), Accepted)
        refusals = {None: 401, "u:falsch-99": 401, "falsch-99": 401, "low:geheim-2": 403}
        for credential, status in refusals.items():
            outcome = await transport.send(envelope(url, credential=credential))
            assert isinstance(outcome, Failed)
            assert (outcome.status, credential) == (status, credential)
            assert "geheim" not in outcome.reason
            assert "falsch" not in outcome.reason
    finally:
        server.kill()


async def test_a_frozen_server_ends_its_own_attempts_only(
    server: NatsServer, transport: NatsTransport, tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    other = NatsServer(tmp_path / "b")
    try:
        await server.make_stream()
        await other.make_stream()
        assert isinstance(await transport.send(envelope(server.url())), Accepted)
        server.freeze()
        hanging, well = await asyncio.gather(
            transport.send(replace(envelope(server.url(), 2), timeout=1.0)), transport.send(envelope(other.url(), 2))
        )
        assert isinstance(hanging, Failed)
        assert "no acknowledgement" in hanging.reason
        assert isinstance(well, Accepted)
        assert well.milliseconds < 1000
        server.thaw()
        assert isinstance(await transport.send(envelope(server.url(), 2)), Accepted)
        assert [each[2]["Nats-Msg-Id"] for each in await server.messages()] == ["msg_1", "msg_2"]
    finally:
        other.kill()


async def test_killed_and_restarted_in_mid_stream_nothing_is_lost_or_double(
    server: NatsServer, transport: NatsTransport
) -> None:
    await server.make_stream()
    acknowledged: set[int] = set()
    came = {50: asyncio.Event(), 150: asyncio.Event()}

    async def until_taken(number: int) -> None:
        outcome = None
        while not isinstance(outcome, Accepted):
            outcome = await transport.send(envelope(server.url(), number))
        acknowledged.add(number)
        if (event := came.get(len(acknowledged))) is not None:
            event.set()

    async def kill() -> None:
        for event in came.values():
            await event.wait()
            server.kill()
            await asyncio.to_thread(server.start)

    async def lane(first: int) -> None:
        for number in range(first, 300, 10):
            await until_taken(number)

    await asyncio.gather(kill(), *(lane(each) for each in range(10)))
    got = [headers["Nats-Msg-Id"] for _, _, headers, _ in await server.messages()]
    assert len(got) == len(set(got)) == 300
    assert set(got) == {f"msg_{number}" for number in range(300)}


async def test_a_repeat_after_the_duplicate_window_is_stored_again(
    server: NatsServer, transport: NatsTransport
) -> None:
    """As the documentation says; and what the window is when nobody sets one."""
    await server.make_stream()
    client = await server.client()
    default = (await client.jetstream().stream_info("UREG")).config.duplicate_window
    await client.close()
    assert default == 120
    await server.make_stream("SHORT", "ureg2.>", duplicate_window=0.1)  # the least there is
    again = replace(envelope(server.url("ureg2")), subject="ureg2.alias.default.n1")
    answers = set()
    async with asyncio.timeout(20):
        while "stream SHORT, sequence 2" not in answers:
            outcome = await transport.send(again)
            assert isinstance(outcome, Accepted)
            answers.add(outcome.answer)
    assert answers >= {"stream SHORT, sequence 1", "stream SHORT, sequence 1, which had it already"}
    ids = [headers["ce-id"] for _, _, headers, _ in await server.messages("SHORT")]
    assert ids == ["1.1.0", "1.1.0"]


@pytest.mark.parametrize(("sync", "always"), [("", False), ("sync_interval: always", True)])
async def test_when_the_server_syncs(tmp_path: Path, sync: str, always: bool) -> None:
    """What the documentation says of the server's default: two minutes."""
    server = NatsServer(tmp_path, sync=sync)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.monitor)
        writer.write(b"GET /jsz HTTP/1.0\r\n\r\n")
        config = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])["config"]
        writer.close()
        assert (config["sync_interval"], config.get("sync_always", False)) == (120 * 10**9, always)
    finally:
        server.kill()


async def test_tls_is_never_left_out(server: NatsServer, transport: NatsTransport) -> None:
    await server.make_stream()
    outcome = await transport.send(envelope(server.url().replace("nats://", "tls://")))
    assert isinstance(outcome, Failed)
    assert outcome.setup
    assert "does not ask for TLS" in outcome.reason
    assert not await server.messages()
    refused = await transport.send(replace(envelope(server.url()), network=Policy.PUBLIC))
    assert isinstance(refused, Failed)
    assert refused.setup
