"""`ureg webhook verify`: what is wrong with a request that was captured."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from universal_registry.client.captured import Captured, Keys, examine, read_captured
from universal_registry.kernel.errors import Malformed
from universal_registry.kernel.world import SystemWorld
from universal_registry.security.signing import parse_secret, signed_headers
from universal_registry.security.wire import SEALED_TYPE, new_wire_key, parse_wire_key, seal_for_wire

SECRET = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
KEYS = Keys(secrets=[SECRET])
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STAMP = int(NOW.timestamp())
BODY = b'{"a":1,"type":"x"}'


def request(body: bytes = BODY, content_type: str = "application/json") -> bytes:
    lines = {"content-type": content_type, **signed_headers([SECRET], "dlv_1", STAMP, body)}
    return "\n".join(f"{name}: {value}" for name, value in lines.items()).encode() + b"\n\n" + body


def said(data: bytes, keys: Keys = KEYS, later: timedelta = timedelta(0), body: bytes | None = None) -> list[str]:
    findings, _ = examine(read_captured(data, body), keys, NOW + later)
    return [f"{each.ok} {each.text}" for each in findings]


def test_one_file_and_two_files_and_a_request_line() -> None:
    whole = request()
    head, _, body = whole.partition(b"\n\n")
    assert read_captured(whole) == read_captured(head + b"\n\n", body) == read_captured(b"POST /x HTTP/1.1\n" + whole)
    assert read_captured(head.replace(b"\n", b"\r\n") + b"\r\n\r\n" + body) == read_captured(whole)
    assert read_captured(whole).body == BODY


@pytest.mark.parametrize(
    "data", [b"no header\n\nx", b": x\n\n", b"a b: c\n\n", b"\xff\xfe: x\n\n", b"x: y\nPOST / HTTP/1.1\n\n"]
)
def test_what_is_no_header_is_said(data: bytes) -> None:
    with pytest.raises(Malformed, match="line"):
        read_captured(data)


def test_two_bodies_are_one_too_many() -> None:
    with pytest.raises(Malformed, match="not both"):
        read_captured(request(), b"x")


def test_a_good_request_and_its_age() -> None:
    assert said(request())[:2] == ["True signature: good, of message dlv_1", "None signed 0 s ago"]
    assert "within 300 s only" in said(request(), later=timedelta(hours=2))[1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda body: body + b"\n", "line break was added"),
        (lambda body: json.dumps(json.loads(body), indent=2).encode(), "written anew"),
        (lambda body: body.replace(b"1", b"2"), ""),
    ],
)
def test_a_change_of_the_body_is_recognised(change: object, says: str) -> None:
    head, _, body = request().partition(b"\n\n")
    found = said(head, body=change(body))  # type: ignore[operator]
    assert found[0].startswith("False no signature matches")
    assert (len(found) == 2 and says in found[1]) if says else len(found) == 1


def test_a_cut_line_break_is_recognised() -> None:
    head, _, _ = request(BODY + b"\n").partition(b"\n\n")
    assert "was cut off" in said(head, body=BODY)[1]


def test_what_is_missing_or_double_is_named() -> None:
    without = b"\n".join(line for line in request().split(b"\n") if not line.startswith(b"webhook-timestamp"))
    assert said(without)[0].startswith("False webhook-timestamp is missing")
    assert said(b"webhook-id: dlv_1\n" + request())[0] == "False webhook-id is there twice"
    assert said(request().replace(b"webhook-timestamp: ", b"webhook-timestamp: 0"))[0].startswith("False")
    findings, message = examine(Captured((), b""), KEYS, NOW)
    assert (findings[0].ok, message) == (False, None)


def test_a_sealed_body_opens_or_says_which_key_is_missing() -> None:
    key = parse_wire_key(new_wire_key(SystemWorld()))
    sealed = request(seal_for_wire(key, BODY, "application/json", SystemWorld()), SEALED_TYPE)
    assert "False sealed with key" in said(sealed)[2]
    opened = said(sealed, Keys(secrets=[SECRET], seal_keys=[key]))
    assert opened[2:] == ["True sealed body: opens", "True body: application/json"]
