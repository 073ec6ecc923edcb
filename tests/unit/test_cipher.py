from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from universal_registry.kernel.errors import Corrupt, Invalid
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.kernel.world import SystemWorld
from universal_registry.security.cipher import (
    Box,
    Sealer,
    commitment_view,
    is_sealed,
    new_fingerprint_key,
    open_fingerprint_key,
    redact_secrets,
    seal_fingerprint_key,
)
from universal_registry.security.keyring import Keyring, kid_of

ONE, TWO = (base64.urlsafe_b64encode(bytes([byte]) * 32) for byte in (1, 2))
PRINT_KEY = b"p" * 32
PATHS = (("delivery", "secret"), ("token",), ("users", "password"))
KEY = "endpoint/system/ops"


def sealer(primary: bytes = ONE, *older: bytes) -> Sealer:
    return Sealer(Keyring.of(primary, older), PRINT_KEY)


def spec() -> dict[str, Any]:
    return {
        "url": "https://example.com",
        "token": "hunter2",
        "delivery": {"secret": "whsec_x", "retries": [1, 2]},
        "users": [{"name": "a", "password": "pa"}, {"name": "b"}],
    }


def test_seal_is_a_fernet_token_beside_its_key_id() -> None:
    sealed = sealer().seal(b"payload", "a context")
    kid, _, token = sealed.partition(":")
    assert kid == kid_of(ONE)
    assert Fernet(ONE).decrypt(token).endswith(b"payload")
    assert sealer().open(sealed, "a context") == b"payload"
    assert sealer().seal(b"payload", "a context") != sealed


@pytest.mark.parametrize("other", ["", "a contex", "a context2", "A context", "a", "b context"])
def test_another_context_does_not_open(other: str) -> None:
    with pytest.raises(Corrupt, match="was moved"):
        sealer().open(sealer().seal(b"payload", "a context"), other)


def test_length_of_the_context_is_bound_too() -> None:
    with pytest.raises(Corrupt):
        sealer().open(sealer().seal(b"bc", "a"), "ab")
    with pytest.raises(Corrupt):
        sealer().open(sealer().seal(b"c", "ab"), "a")


def test_every_changed_character_is_noticed() -> None:
    sealed = sealer().seal(b"x", "c")  # 1 + 5 bytes: the base64 ends with padding and spare bits
    for position, char in enumerate(sealed):
        for other in "AQgw_-=!\n":
            if other != char:
                with pytest.raises(Corrupt):
                    sealer().open(sealed[:position] + other + sealed[position + 1 :], "c")
    for broken in (sealed + "=", sealed + "\n", " " + sealed, sealed[:-1], sealed.replace("=", ""), sealed + sealed):
        with pytest.raises(Corrupt):
            sealer().open(broken, "c")


@pytest.mark.parametrize(
    "sealed", ["", ":", "x", "no colon", "é:é", f"{kid_of(ONE)}:", f"{kid_of(ONE)}:é", "\ud800:\ud800"]
)
def test_what_was_never_sealed_is_corrupt(sealed: str) -> None:
    with pytest.raises(Corrupt):
        sealer().open(sealed, "c")


def test_rotation_opens_the_old_and_seals_with_the_new() -> None:
    old = sealer(ONE).seal(b"x", "c")
    both = sealer(TWO, ONE)
    assert both.open(old, "c") == b"x"
    assert both.seal(b"x", "c").startswith(kid_of(TWO))
    with pytest.raises(Corrupt, match="not there"):
        sealer(TWO).open(old, "c")
    # The id of another key beside the token does not open either.
    with pytest.raises(Corrupt, match="does not open"):
        both.open(kid_of(TWO) + old[8:], "c")


def test_mac_is_hmac_sha256_and_survives_rotation() -> None:
    expected = hmac.new(PRINT_KEY, b"v", hashlib.sha256).hexdigest()
    assert sealer(ONE).mac(b"v") == sealer(TWO).mac(b"v") == expected
    with pytest.raises(Invalid, match="32"):
        Sealer(Keyring.of(ONE), b"short")


def test_fingerprint_key_is_kept_sealed() -> None:
    key = new_fingerprint_key(SystemWorld())
    ring = Keyring.of(ONE)
    stored = seal_fingerprint_key(ring, key)
    assert open_fingerprint_key(Keyring.of(TWO, [ONE]), stored) == key
    with pytest.raises(Corrupt):
        Box(ring).open(stored, "another")


# --- secrets of records ---------------------------------------------------------------------------------------------


def test_secrets_round_trip_and_nothing_else_changes() -> None:
    clear = spec()
    before = copy.deepcopy(clear)
    sealed = sealer().seal_secrets(clear, PATHS, KEY)
    assert clear == before
    for value in (sealed["token"], sealed["delivery"]["secret"], sealed["users"][0]["password"]):
        assert is_sealed(value)
    assert "hunter2" not in repr(sealed)
    assert "whsec_x" not in repr(sealed)
    assert sealed["users"][1] == {"name": "b"}
    assert list(sealed) == list(clear)
    kept = copy.deepcopy(sealed)
    assert sealer().reveal_secrets(sealed, PATHS, KEY) == clear
    assert sealed == kept


def test_a_sealed_secret_belongs_to_its_record_and_field() -> None:
    sealed = sealer().seal_secrets(spec(), PATHS, KEY)
    with pytest.raises(Corrupt):
        sealer().reveal_secrets(sealed, PATHS, "endpoint/system/other")
    moved = {**sealed, "token": sealed["delivery"]["secret"]}
    with pytest.raises(Corrupt):
        sealer().reveal_secrets(moved, PATHS, KEY)
    with pytest.raises(Invalid, match="token does not open here"):
        sealer().seal_secrets(moved, PATHS, KEY)
    with pytest.raises(Invalid):
        sealer().seal_secrets(sealed, PATHS, "endpoint/system/other")


def test_what_comes_sealed_or_kept_stays_as_it_is() -> None:
    sealed = sealer().seal_secrets(spec(), PATHS, KEY)
    assert sealer().seal_secrets(sealed, PATHS, KEY) == sealed
    anew = sealer(TWO, ONE).seal_secrets(sealed, PATHS, KEY)  # exported before a rotation, imported after it
    assert kid_of(ONE) not in str(anew)
    assert commitment_view(anew) == commitment_view(sealed)
    assert sealer(TWO).reveal_secrets(anew, PATHS, KEY) == sealer(ONE).reveal_secrets(sealed, PATHS, KEY)
    kept = {"token": {"$secret": "kept"}, "delivery": {"secret": {"$secret": "kept"}}}
    assert sealer().seal_secrets(kept, PATHS, KEY) == kept
    assert sealer().reveal_secrets(kept, PATHS, KEY) == kept


@pytest.mark.parametrize(
    "value",
    [
        {"$secret": "other"},
        {"$secret": "kept", "x": 1},
        {"$sealed": "00000000:x"},
        {"$sealed": "00000000:x", "$mac": "00"},
        {"$sealed": 1, "$mac": "00"},
        {"$sealed": "x", "$mac": None},
        {"$mac": "00"},
        {"$sealed": "x:y", "$mac": "é"},
    ],
)
def test_half_sealed_values_are_invalid(value: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="token"):
        sealer().seal_secrets({"token": value}, PATHS, KEY)


def test_a_forged_mac_is_invalid() -> None:
    sealed = sealer().seal_secrets({"token": "a"}, PATHS, KEY)
    sealed["token"]["$mac"] = sealer().mac(b'"b"')
    with pytest.raises(Invalid, match=r"\$mac of token"):
        sealer().seal_secrets(sealed, PATHS, KEY)


@pytest.mark.parametrize("value", ["", "é\U0001f600", 7, 1.5, True, ["a", {"b": None}], {"user": "u", "password": "p"}])
def test_any_json_value_can_be_a_secret(value: Any) -> None:
    sealed = sealer().seal_secrets({"token": value}, PATHS, KEY)
    assert is_sealed(sealed["token"])
    assert sealer().reveal_secrets(sealed, PATHS, KEY) == {"token": value}


def test_redaction_hides_sealed_and_clear_alike() -> None:
    kept = {"$secret": "kept"}
    for source in (spec(), sealer().seal_secrets(spec(), PATHS, KEY)):
        before = copy.deepcopy(source)
        shown = redact_secrets(source, PATHS)
        assert shown["token"] == shown["delivery"]["secret"] == shown["users"][0]["password"] == kept
        assert shown["url"] == "https://example.com"
        assert source == before
    first, second = redact_secrets({"token": "a"}, PATHS), redact_secrets({"token": "b"}, PATHS)
    first["token"]["$secret"] = "changed"
    assert second["token"] == kept  # no shared dict


def test_commitments_are_equal_for_equal_secrets_only() -> None:
    def view(secret: str, *keys: bytes) -> dict[str, Any]:
        return commitment_view(sealer(*keys).seal_secrets({"token": secret, "n": 1}, PATHS, KEY))

    assert view("a", ONE) == view("a", ONE) == view("a", TWO, ONE) == {"token": {"$mac": sealer().mac(b'"a"')}, "n": 1}
    assert view("a", ONE) != view("b", ONE)


def test_absent_and_odd_places_are_left_alone() -> None:
    for odd in ({}, {"delivery": "text"}, {"delivery": None}, {"users": [1, None]}, {"token": None}):
        assert sealer().seal_secrets(odd, PATHS, KEY) == odd
        assert redact_secrets(odd, PATHS) == odd
        assert commitment_view(odd) == odd
    same = {"a": 1}
    assert redact_secrets(same, PATHS) is not same


def test_cryptography_is_not_imported_before_it_is_used() -> None:
    code = (
        "import sys, universal_registry.security.cipher, universal_registry.security.signing,"
        " universal_registry.security.tokens, universal_registry.security.addresses,"
        " universal_registry.storage.keyfile, universal_registry.kernel.loader\n"
        "universal_registry.kernel.loader.load_json(b'{}')\n"
        "print([name for name in ('cryptography', 'ruamel', 'idna', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# --- sealing anew ---------------------------------------------------------------------------------------------------


def text_of(value: Any) -> str:
    return canonical(value).decode()


def test_a_value_sealed_anew_is_the_same_in_its_own_place_only() -> None:
    old = sealer(ONE).seal(b"payload", "a context")
    both = sealer(TWO, ONE)
    new = both.sealed_anew(old)
    assert new.startswith(kid_of(TWO))
    assert sealer(TWO).open(new, "a context") == b"payload"
    with pytest.raises(Corrupt, match="was moved"):
        sealer(TWO).open(new, "b context")
    assert both.sealed_anew(new) == new, "what bears the key already stays"
    with pytest.raises(Corrupt, match="which is not there"):
        sealer(TWO).sealed_anew(old)


def test_in_a_document_only_the_seals_change() -> None:
    sealed = sealer(ONE).seal_secrets(spec(), PATHS, KEY)
    text = text_of({"name": "\u00e4 \u2028", "spec": sealed, "labels": {"n": "1"}})
    anew = sealer(TWO, ONE).document_anew(text)
    assert kid_of(ONE) not in anew
    assert commitment_view(json.loads(anew)) == commitment_view(json.loads(text))
    assert sealer(TWO).reveal_secrets(json.loads(anew)["spec"], PATHS, KEY) == spec()
    assert re.sub(r"[0-9a-f]{8}:gAAAA[^\"]+", "", anew) == re.sub(r"[0-9a-f]{8}:gAAAA[^\"]+", "", text)


def test_text_that_looks_like_a_seal_is_no_seal() -> None:
    token = sealer(ONE).seal(b"x", "c")
    for value in (
        {"description": f'"$sealed":"{token}"'},
        {"description": f'{{"$sealed":"{token}"}}'},
        {"note": token, "payload": token},
        {"$sealed": [token]},
        {"$sealed": f"{kid_of(ONE)}:not base64!"},
    ):
        text = text_of(value)
        assert sealer(TWO, ONE).document_anew(text) == text
    text = text_of({"audience": [f'"payload":"{token}"', token], "session": f'","payload":"{token}'})
    assert sealer(TWO, ONE).document_anew(text, event=True) == text


def test_of_an_event_the_payload_changes() -> None:
    token = sealer(ONE).seal(b"x", "c")
    text = text_of({"audience": ["system/t"], "payload": token, "session": "s"})
    anew = json.loads(sealer(TWO, ONE).document_anew(text, event=True))
    assert sealer(TWO).open(anew["payload"], "c") == b"x"


def test_a_seal_that_does_not_open_stays_as_it_is() -> None:
    token = sealer(ONE).seal(b"x", "c")
    for broken in (token[:-4], token[:9] + "A" * 100, "00000000" + token[8:]):
        text = text_of({"spec": {"token": {"$mac": "m", "$sealed": broken}}})
        assert sealer(TWO, ONE).document_anew(text) == text


def test_a_box_takes_new_keys_over() -> None:
    box = sealer(ONE)
    token = Box(Keyring.of(TWO)).seal(b"later", "c")
    with pytest.raises(Corrupt, match="which is not there"):
        box.open(token, "c")
    box.reread = lambda: Keyring.of(ONE, [TWO])
    assert box.open(token, "c") == b"later"
    assert box.seal(b"x", "c").startswith(kid_of(ONE))
    box.use(Keyring.of(TWO))
    assert box.seal(b"x", "c").startswith(kid_of(TWO))
    box.reread = None
    with pytest.raises(Corrupt):
        box.open(sealer(ONE).seal(b"x", "c"), "c")
