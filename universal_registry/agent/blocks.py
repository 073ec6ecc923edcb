"""A block of ours in a file with lines of others, between two marks. Pure."""

from __future__ import annotations

from typing import NamedTuple

from universal_registry.kernel.errors import Refused


class Split(NamedTuple):
    """A file around a block. `body` None: the block is not in it."""

    before: bytes
    body: bytes | None
    after: bytes


def split(data: bytes, comment: str, name: str) -> Split:
    """The file, taken apart. Raises Refused when its marks are not one pair in order."""
    begin, end = _marks(comment, name)
    lines = data.splitlines(keepends=True)
    plain = [line.rstrip(b"\r\n") for line in lines]
    if begin not in plain and end not in plain:
        return Split(data, None, b"")
    if (plain.count(begin), plain.count(end)) != (1, 1) or plain.index(begin) > plain.index(end):
        raise Refused(f"the marks of block {name} are not one pair", hint=f"leave one pair, or none: {begin.decode()}")
    first, last = plain.index(begin), plain.index(end)
    return Split(b"".join(lines[:first]), b"".join(lines[first + 1 : last]), b"".join(lines[last + 1 :]))


def joined(around: Split, body: bytes | None, comment: str, name: str) -> bytes:
    """The file with that body in the place of its block, at the end when it has none; None: without it. Raises Refused
    when the body holds a mark."""
    if body is None:
        return around.before + around.after
    begin, end = _marks(comment, name)
    if {begin, end} & {line.rstrip(b"\r\n") for line in body.splitlines()}:
        raise Refused("the text holds a mark of its own block")
    before = around.before
    if before and not before.endswith(b"\n"):
        before += b"\n"
    return before + begin + b"\n" + body + end + b"\n" + around.after


def _marks(comment: str, name: str) -> tuple[bytes, bytes]:
    return (
        f"{comment} >>> universal-registry {name} >>>".encode(),
        f"{comment} <<< universal-registry {name} <<<".encode(),
    )
