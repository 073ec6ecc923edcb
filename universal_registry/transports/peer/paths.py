"""Where peers talk to a registry, and in which measures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from universal_registry.kernel.errors import Malformed

LINKS_PATH = "/v1/-/links"
JOIN_PATH = "/v1/-/links/join"
OCTETS = "application/octet-stream"
POLL_SECONDS = 25.0
"""How long a poll waits for something to say: then it is answered with nothing, which is the heartbeat."""
SILENT_SECONDS = 60.0
"""Without a poll of its peer for so long, a link is over."""
MESSAGE_BYTES = 2 << 20
"""Of all frames in one message, if it is more than one frame."""
_LENGTH = 4


def packed(frames: Iterable[bytes]) -> bytes:
    """Frames as one message."""
    return b"".join(len(frame).to_bytes(_LENGTH, "big") + frame for frame in frames)


def unpacked(message: bytes) -> Sequence[bytes]:
    """The frames of a message. Raises Malformed."""
    frames, at = [], 0
    while at < len(message):
        start = at + _LENGTH
        at = start + int.from_bytes(message[at:start], "big")
        if at > len(message):
            raise Malformed("a message of frames is cut off")
        frames.append(message[start:at])
    return frames
