"""Whatever bytes come after the handshake: no fault of ours, no hang, at most one close, and nothing behind it."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streaming import streaming

from universal_registry.api.stream import StreamLimits

HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
CODES = {1000, 1001, 1002, 1003, 1007, 1009}
LONG = 20.0


def masked(first: int, payload: bytes, mask: bytes, *, has_mask: bool, lie: int) -> bytes:
    """A frame, perhaps with a length that is not its own."""
    size = max(0, len(payload) + lie)
    bit = 0x80 if has_mask else 0
    head = bytes((first, bit | size)) if size < 126 else bytes((first, bit | 126)) + size.to_bytes(2, "big")
    body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)) if has_mask else payload
    return head + (mask if has_mask else b"") + body


words = st.sampled_from(
    [
        {"type": "subscribe", "from": "now"},
        {"type": "subscribe", "id": "a", "from": "beginning", "select": "kind=alias"},
        {"type": "subscribe", "id": [], "from": 3},
        {"type": "unsubscribe", "id": "a"},
        {"type": "bookmark"},
        {"type": "put", "id": 1, "record": {"kind": "alias", "name": "gs", "spec": {"command": "x"}}},
        {"type": "put", "record": {"kind": "alias", "name": "\u0000"}},
        {"type": "delete", "kind": "alias", "name": ".."},
        {"type": "event", "stream": "../x", "data": None},
        {"type": "ack", "consumer": "/", "cursor": "x"},
        {"type": "batch", "operations": [{}]},
    ]
)
payloads = st.one_of(
    words.map(lambda word: json.dumps(word).encode()),
    st.binary(max_size=200),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
    .map(lambda value: json.dumps(value).encode())
    .filter(lambda data: len(data) < 5000),
)
frames = st.builds(
    masked,
    st.one_of(st.sampled_from([0x81, 0x81, 0x81, 0x01, 0x80, 0x88, 0x89, 0x8A]), st.integers(0, 255)),
    payloads,
    st.binary(min_size=4, max_size=4),
    has_mask=st.integers(0, 9).map(lambda number: number > 0),
    lie=st.one_of(st.just(0), st.just(0), st.just(0), st.integers(-3, 3)),
)


def told(data: bytes) -> list[tuple[int, bytes]]:
    """The server's frames, none cut off."""
    found = []
    while data:
        size, at = data[1] & 127, 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(data[2:10], "big"), 10
        assert not data[1] & 0x80
        assert len(data) >= at + size
        found.append((data[0], data[at : at + size]))
        data = data[at + size :]
    return found


def exchange(path: str, pieces: list[bytes]) -> bytes:
    """All that the server says to these pieces, until it closes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(LONG)
        client.connect(path)
        client.sendall(HANDSHAKE)
        try:
            for piece in pieces:
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has closed already
        heard = b""
        while piece := client.recv(1 << 16):
            heard += piece
    return heard.partition(b"\r\n\r\n")[2]


async def test_whatever_a_client_sends(stack: Any) -> None:
    async with streaming(stack.api, stack.service, stack.folder, limits=StreamLimits(closing=1.0)) as served:

        @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(frames, max_size=6), st.integers(1, 50))
        def check(sent: list[bytes], cut: int) -> None:
            data = b"".join(sent)
            pieces = [data[at : at + cut * 7] for at in range(0, len(data), cut * 7)]
            heard = told(exchange(served.addresses.socket, pieces))
            closes = [payload for first, payload in heard if first == 0x88]
            assert len(closes) <= 1
            assert not closes or heard[-1][0] == 0x88
            assert all(not each or int.from_bytes(each[:2], "big") in CODES | set(range(3000, 5000)) for each in closes)
            for first, payload in heard:
                assert first in (0x81, 0x88, 0x8A)
                if first == 0x81:
                    problem = json.loads(payload).get("problem")
                    assert problem is None or problem["status"] < 500

        await asyncio.to_thread(check)
