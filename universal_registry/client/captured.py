"""A captured webhook request: read from files, and examined until it is clear what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from universal_registry.client.receiver import Message, read_message
from universal_registry.kernel.errors import Malformed, TooLarge, VerifyError
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.kernel.loader import load_json
from universal_registry.security.signing import TOLERANCE_SECONDS, Verified, verify

_REQUEST_LINE = re.compile(rb"(?:[A-Z]{3,10} \S+( HTTP/[0-9.]+)?|HTTP/[0-9.]+ .*)")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}):[ \t]*(.*?)[ \t]*", re.DOTALL)


class Captured(msgspec.Struct, frozen=True):
    """Header lines as they came, and the exact bytes of the body."""

    headers: tuple[tuple[str, str], ...]
    body: bytes

    def items(self) -> Iterator[tuple[str, str]]:
        """The headers, repeated ones too: `verify` has to see them."""
        return iter(self.headers)


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """What may be checked and opened with, as bytes."""

    secrets: Sequence[bytes] = ()
    public_keys: Sequence[bytes] = ()
    seal_keys: Sequence[bytes] = ()


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. `ok` None: a remark."""

    ok: bool | None
    text: str


def read_captured(head: bytes, body: bytes | None = None) -> Captured:
    """A request from one file (header lines, an empty line, the body) or from two. Raises Malformed, naming the line.

    A request line before the headers is passed over. In the head a line may end with CRLF; the body is taken as it is.
    """
    lines, rest = _head_and_body(head)
    if body is not None and rest:
        raise Malformed("the file of the headers holds a body too", hint="give one file, or two: not both")
    headers = []
    for number, line in enumerate(lines, 1):
        if number == 1 and _REQUEST_LINE.fullmatch(line):
            continue
        match = _HEADER.fullmatch(line.decode("latin-1"))
        if match is None:
            hint = "header lines such as `webhook-id: dlv_1`, an empty line, then the body"
            raise Malformed(f"line {number} is no header", hint=hint)
        headers.append((match[1], match[2]))
    return Captured(tuple(headers), rest if body is None else body)


def _head_and_body(data: bytes) -> tuple[list[bytes], bytes]:
    lines = []
    while data:
        line, _, data = data.partition(b"\n")
        line = line.removesuffix(b"\r")
        if not line:
            break
        lines.append(line)
    return lines, data


def examine(request: Captured, keys: Keys, now: datetime) -> tuple[list[Finding], Message | None]:
    """What is right and wrong, in the order in which a receiver looks; the message when it is authentic and opens."""
    findings: list[Finding] = []
    try:
        verified = _authentic(request, keys)
    except VerifyError as error:
        findings.append(Finding(ok=False, text=str(error)))
        findings += _reasons(request, keys)
        return findings, None
    findings.append(Finding(ok=True, text=f"signature: good, of message {verified.id}"))
    findings.append(_age(verified, now))
    try:
        message = read_message(request, request.body, keys.seal_keys, verified)
    except VerifyError as error:
        findings.append(Finding(ok=False, text=str(error)))
        return findings, None
    if message.body != request.body:
        findings.append(Finding(ok=True, text="sealed body: opens"))
    what = " ".join(each for each in (message.type, message.subject) if each)
    findings.append(Finding(ok=True, text=f"body: {what or message.content_type or 'no content type'}"))
    return findings, message


def _authentic(request: Captured, keys: Keys, body: bytes | None = None) -> Verified:
    """Raises VerifyError. The message is as old as it says: a capture is no longer fresh."""
    stamps = [value for name, value in request.headers if name.lower() == "webhook-timestamp"]
    at = int(stamps[0]) if stamps and re.fullmatch(r"[0-9]{1,11}", stamps[0]) else 0
    moment = datetime.fromtimestamp(at, UTC)
    body = request.body if body is None else body
    return verify(request, body, keys.secrets, moment, public_keys=keys.public_keys)


def _age(verified: Verified, now: datetime) -> Finding:
    age = now.timestamp() - verified.timestamp
    when = "ago" if age >= 0 else "in the future"
    text = f"signed {abs(age):.0f} s {when}"
    if abs(age) > TOLERANCE_SECONDS:
        text += f": a receiver takes it within {TOLERANCE_SECONDS} s only"
    return Finding(ok=None, text=text)


_CHANGES: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    ("a line break was added at its end", lambda body: body.removesuffix(b"\n").removesuffix(b"\r")),
    ("the line break at its end was cut off", lambda body: body + b"\n"),
    ("its line breaks were made CRLF", lambda body: body.replace(b"\r\n", b"\n")),
    ("its line breaks were made LF", lambda body: body.replace(b"\n", b"\r\n")),
    ("it was decoded and encoded as Latin-1", lambda body: body.decode(errors="replace").encode("latin-1", "replace")),
)


def _reasons(request: Captured, keys: Keys) -> list[Finding]:
    """Which common change of the body would explain a signature that does not match."""
    candidates = [(what, change(request.body)) for what, change in _CHANGES]
    with suppress(Malformed, TooLarge):  # it may be no JSON
        candidates.append(("its JSON was read and written anew", canonical(load_json(request.body))))
    for what, body in candidates:
        try:
            _authentic(request, keys, body)
        except VerifyError:
            continue
        return [Finding(ok=None, text=f"the body was changed: {what}; verify the bytes as they came")]
    return []
