"""Sealing on the wire: a standard envelope, a key of its own, and one error for whatever is wrong with it."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from universal_registry.kernel.errors import Invalid, VerifyError
from universal_registry.kernel.world import SystemWorld
from universal_registry.security.wire import (
    Opened,
    new_wire_key,
    open_from_wire,
    parse_wire_key,
    seal_for_wire,
    wire_jwk,
    wire_kid,
)

WORLD = SystemWorld()
TEXT = new_wire_key(WORLD)
KEY, OTHER = parse_wire_key(TEXT), parse_wire_key(new_wire_key(WORLD))
BODY, TYPE = '{"name":"é"}'.encode(), "application/cloudevents+json; charset=utf-8"


def sealed(body: bytes = BODY) -> bytes:
    return seal_for_wire(KEY, body, TYPE, WORLD)


def header_of(envelope: bytes) -> dict[str, Any]:
    part = envelope.split(b".")[0]
    found = json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
    assert isinstance(found, dict)
    return found


def with_header(**changes: Any) -> bytes:
    """A properly sealed body under another header."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    def encoded(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    header = {name: value for name, value in (header_of(sealed()) | changes).items() if value is not None}
    protected, iv = encoded(json.dumps(header).encode()), bytes(12)
    box = AESGCM(KEY).encrypt(iv, BODY, protected)
    return b".".join((protected, b"", encoded(iv), encoded(box[:-16]), encoded(box[-16:])))


def test_what_is_sealed_opens_with_the_key_that_the_header_names() -> None:
    envelope = sealed()
    assert header_of(envelope) == {"alg": "dir", "enc": "A256GCM", "kid": wire_kid(KEY), "cty": TYPE}
    assert open_from_wire([OTHER, KEY], envelope) == Opened(BODY, TYPE)
    assert BODY not in envelope
    assert sealed() != envelope, "each has an initialisation vector of its own"


@given(st.binary(max_size=300))
def test_any_body_comes_back(body: bytes) -> None:
    assert open_from_wire([KEY], sealed(body)).body == body


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(VerifyError):
        open_from_wire([KEY], data)


def test_each_changed_byte_is_noticed() -> None:
    envelope = sealed(b"x" * 40)
    for place in range(len(envelope)):
        changed = bytearray(envelope)
        changed[place] ^= 1
        with pytest.raises(VerifyError):
            open_from_wire([KEY], bytes(changed))


@pytest.mark.parametrize(
    "changes",
    [{"alg": "none"}, {"enc": "A128GCM"}, {"zip": "DEF"}, {"crit": ["x"]}, {"kid": 5}, {"kid": None}, {"cty": [1]}],
)
def test_a_header_that_says_something_else_is_refused(changes: dict[str, Any]) -> None:
    assert open_from_wire([KEY], with_header()).body == BODY, "the test itself seals properly"
    with pytest.raises(VerifyError):
        open_from_wire([KEY], with_header(**changes))


def test_a_missing_key_is_named_and_never_shown() -> None:
    with pytest.raises(VerifyError, match=wire_kid(KEY)) as caught:
        open_from_wire([OTHER], sealed())
    assert TEXT.removeprefix("sealkey_") not in str(caught.value)


NO_KEYS = ["", "x", "sealkey_", TEXT + "=", TEXT[:-2], "sealkey_" + "é" * 43, TEXT.upper()]


@pytest.mark.parametrize("text", NO_KEYS, ids=range(len(NO_KEYS)))
def test_what_is_no_key_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_wire_key(text)
    assert len(text) < 10 or text not in str(caught.value)


def test_a_key_as_others_take_it() -> None:
    jwk = wire_jwk(KEY)
    assert jwk == {"kty": "oct", "alg": "A256GCM", "use": "enc", "kid": wire_kid(KEY), "k": TEXT[len("sealkey_") :]}


NODE = """
const { createDecipheriv } = require('node:crypto')
const [key, envelope] = process.argv.slice(1)
const [header, , iv, ciphertext, tag] = envelope.split('.')
const bytes = (text) => Buffer.from(text, 'base64url')
const box = createDecipheriv('aes-256-gcm', bytes(key.slice('sealkey_'.length)), bytes(iv))
box.setAAD(Buffer.from(header)).setAuthTag(bytes(tag))
process.stdout.write(Buffer.concat([box.update(bytes(ciphertext)), box.final()]))
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")
def test_it_opens_in_another_language() -> None:
    command = ["node", "-e", NODE, TEXT, sealed().decode()]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, BODY, b"")
