"""What a subscription of a stream is told: frames of its watcher, as they are sent, once for all who hear the same."""

from __future__ import annotations

import orjson

from universal_registry.api.stream_messages import Push, Subscribe
from universal_registry.api.watcher import Policy, Watcher
from universal_registry.registry.watch import Frame


def framed(payload: bytes) -> bytes:
    """A text frame as a server sends it."""
    size = len(payload)
    if size < 126:
        return b"\x81%c%b" % (size, payload)
    if size < 65536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), payload)


class Subscription:
    """A watcher, and the id under which its frames are sent."""

    __slots__ = ("catching_up", "id", "lag", "marked", "policy", "prefix", "watcher", "wire")

    def __init__(self, said: Subscribe, watcher: Watcher, policy: Policy, most_lag: int, now: float) -> None:
        self.id = said.id
        self.watcher = watcher
        self.policy = policy
        self.lag = most_lag
        self.wire = f"ws{said.id!r}"
        self.prefix = b"" if said.id == "" else b'{"id":%b,' % orjson.dumps(said.id)
        self.catching_up = False
        self.marked = now
        """When it was last told anything."""

    def message(self, frame: Frame) -> bytes:
        """The frame as a message."""
        return self.prefix + frame.data[1:] if self.prefix else frame.data

    def wired(self, frame: Frame) -> bytes:
        """The frame as it is sent, made once for all subscriptions of that id."""
        made = frame.wires.get(self.wire)
        if made is None:
            made = frame.wires[self.wire] = framed(self.message(frame))
        return made


def takes_time(said: Push) -> bool:
    """Whether something is looked up before it is handed to the writer, so that those behind it must wait."""
    return bool(getattr(said, "idempotency_key", "")) or isinstance(getattr(said, "if_match", None), str)


def is_utf8(data: bytes) -> bool:
    """Whether it is text."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
