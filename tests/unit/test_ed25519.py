"""Signatures that receivers can check and not make: v1a beside v1."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from datetime import UTC, datetime

import pytest

from universal_registry.kernel.errors import Invalid, VerifyError
from universal_registry.kernel.world import SystemWorld
from universal_registry.security.cipher import Sealer
from universal_registry.security.ed25519 import SigningKey, is_signature, parse_public_key, public_jwk, public_text
from universal_registry.security.keyring import Keyring, new_key
from universal_registry.security.signing import Verified, signed_headers, verify

STAMP = 1_614_265_330
NOW = datetime.fromtimestamp(STAMP, UTC)
ID, BODY = "msg_1", '{"test":"é"}'.encode()
SECRET = bytes(range(32))
KEY, OTHER = SigningKey(bytes(32)), SigningKey(bytes(31) + b"1")


def test_the_key_of_a_seed_is_that_of_the_standard() -> None:
    # RFC 8032, 7.1, test 2
    key = SigningKey(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert key.public.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert key.sign(b"\x72").hex().startswith("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da")


def test_both_signatures_stand_beside_each_other_and_either_verifies() -> None:
    sent = signed_headers([SECRET], ID, STAMP, BODY, KEY)
    assert [entry.partition(",")[0] for entry in sent["webhook-signature"].split(" ")] == ["v1", "v1a"]
    assert verify(sent, BODY, [SECRET], NOW) == Verified(ID, STAMP)
    assert verify(sent, BODY, [], NOW, public_keys=[OTHER.public, KEY.public]) == Verified(ID, STAMP)


def test_what_is_forged_or_of_another_kind_is_refused() -> None:
    sent = signed_headers([], ID, STAMP, BODY, KEY)
    for body, public in ((BODY + b" ", KEY.public), (BODY, OTHER.public), (BODY, bytes(32))):
        with pytest.raises(VerifyError, match="no signature matches"):
            verify(sent, body, [], NOW, public_keys=[public])
    with pytest.raises(VerifyError, match=r"bears v1a.*whpk_"):
        verify(sent, BODY, [SECRET], NOW)
    short = {**sent, "webhook-signature": "v1a,AAAA"}
    with pytest.raises(VerifyError, match="no signature matches"):
        verify(short, BODY, [], NOW, public_keys=[KEY.public])


def test_text_forms_of_the_public_key() -> None:
    assert parse_public_key(public_text(KEY.public)) == KEY.public
    for text in ("", "whpk_", "whpk_AAAA", "whsk_" + "A" * 43 + "=", "whpk_!" + "A" * 42 + "="):
        with pytest.raises(Invalid):
            parse_public_key(text)
    assert is_signature(KEY.public, KEY.sign(BODY), BODY)


def test_a_store_has_one_key_whatever_its_sealing_keys() -> None:
    world = SystemWorld()
    own, other = (Sealer(Keyring.of(new_key(world)), fingerprint) for fingerprint in (bytes(32), bytes(31) + b"1"))
    again = Sealer(Keyring.of(new_key(world)), bytes(32))
    assert own.derived_key("x") == again.derived_key("x") != other.derived_key("x")
    assert own.derived_key("x") != own.derived_key("y")
    assert own.derived_key("x").hex() not in {own.mac(b"x"), own.mac(b'"x"')}


NODE = """
const { createPublicKey, verify } = require('node:crypto')
const [jwk, signed, signature] = process.argv.slice(1)
const key = createPublicKey({ key: JSON.parse(jwk), format: 'jwk' })
process.stdout.write(String(verify(null, Buffer.from(signed, 'base64'), key, Buffer.from(signature, 'base64'))))
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")
def test_another_language_checks_it_with_the_key_set() -> None:
    signature = signed_headers([], ID, STAMP, BODY, KEY)["webhook-signature"].removeprefix("v1a,")
    content = base64.b64encode(f"{ID}.{STAMP}.".encode() + BODY).decode()
    for key, says in ((KEY, b"true"), (OTHER, b"false")):
        command = ["node", "-e", NODE, json.dumps(public_jwk(key.public)), content, signature]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert (done.stdout, done.stderr) == (says, b"")
