from __future__ import annotations

import base64
import copy
import ipaddress
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from universal_registry.kernel.errors import (
    AddressRefused,
    Corrupt,
    Invalid,
    Malformed,
    RegistryError,
    TooLarge,
    Unauthenticated,
    VerifyError,
)
from universal_registry.kernel.loader import SAFE_INTEGER, Limits, load_json, load_ndjson, load_yaml
from universal_registry.security.addresses import Policy, check_address, check_url, classify
from universal_registry.security.cipher import Sealer, commitment_view, redact_secrets
from universal_registry.security.keyring import Keyring, parse_key
from universal_registry.security.signing import parse_secret, signed_headers, verify
from universal_registry.security.tokens import parse_bearer

ONE, TWO = (base64.urlsafe_b64encode(bytes([byte]) * 32) for byte in (1, 2))
SEALER = Sealer(Keyring.of(ONE, [TWO]), b"p" * 32)
SECRET = b"s" * 32

# Few different keys, and texts full of what misleads a scanner: quotes, colons, brackets, escapes.
tricky = st.text(alphabet='ab":\\{}[],\n\t\u00e9\u2028\U0001f600 0', max_size=8)
plain_text = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
texts = tricky | plain_text
numbers = st.integers(-SAFE_INTEGER, SAFE_INTEGER) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5), max_leaves=25
)


def reference(text: bytes) -> Any:
    """A slow and separate reading of the rules for JSON, without limits. Raises ValueError for what must be refused."""
    if text.startswith(b"\xef\xbb\xbf"):
        raise ValueError("byte order mark")
    value = json.loads(text.decode(), object_pairs_hook=_unique)
    if any(_is_bad(leaf) for leaf in _leaves(value)):
        raise ValueError("a value that must be refused")
    return value


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in items}) != len(items):
        raise ValueError("repeated key")
    return dict(items)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _is_bad(leaf: Any) -> bool:
    if isinstance(leaf, str):
        return "\0" in leaf or any("\ud800" <= char <= "\udfff" for char in leaf)
    if isinstance(leaf, float):
        return not math.isfinite(leaf)
    return isinstance(leaf, int) and abs(leaf) > SAFE_INTEGER


# --- the loader -----------------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.too_slow])  # by the clock, and the machine may be busy
@given(values, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_loader_reads_what_json_writes(value: Any, ascii_only: bool, indent: Any) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    for data in (text, text.encode()):
        assert repr(load_json(data)) == repr(value)
    # With a string limit below the size of the text the exact reading is taken from the start.
    wrapped = json.dumps(["x" * 200, value], ensure_ascii=ascii_only)
    assert repr(load_json(wrapped, limits=Limits(string=200))[1]) == repr(value)


ODD_PIECES = (
    *("1", "-0", "1e5", "1E400", "-1e400", "9007199254740992", "9007199254740993", "18446744073709551616", "0.1", "01"),
    *("NaN", "Infinity", "null", "true", "{}", "[]", "1.", "\u00a0", '"\\u00e9": ', '"x": 1'),
    *('""', '"\\":"', '"a\\\\"', '"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"'),
)


@st.composite
def nearly_json(draw: st.DrawFn) -> bytes:
    """JSON pieced together by hand: repeated keys, odd numbers, escapes, and sometimes a cut or a stray byte."""
    piece = st.sampled_from(ODD_PIECES)
    key = st.sampled_from(['"a"', '"b"', '"\\u0061"', '""', '"a\\":"', '"\\ud800"', "a"])

    def inside(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        item = st.tuples(key, inner).map(lambda pair: f"{pair[0]} : {pair[1]}")
        return st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]") | st.lists(item, max_size=4).map(
            lambda items: "{" + ", ".join(items) + "}"
        )

    text = draw(st.recursive(piece, inside, max_leaves=8)).encode()
    if draw(st.integers(0, 5)) == 0:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.binary(max_size=2)) + text[at + draw(st.integers(0, 1)) :]
    return text


@settings(max_examples=500)
@given(nearly_json() | st.binary(max_size=40))
@example(b'{"a":1,"\\u0061":2}')
@example(b'{"a\\":":1,"b":"\\":"}')
def test_loader_agrees_with_the_reference(data: bytes) -> None:
    try:
        expected = reference(data)
    except ValueError:
        with pytest.raises(RegistryError):
            load_json(data)
    else:
        assert repr(load_json(data)) == repr(expected)


@given(st.binary(max_size=200) | st.text(max_size=100) | nearly_json())
def test_loaders_raise_only_our_errors(data: bytes | str) -> None:
    for read in (load_json, lambda text: list(load_ndjson(text)), load_yaml):
        try:
            read(data)
        except (Malformed, TooLarge) as error:
            said = str(error)
        else:
            said = ""
        assert len(said) < 400


yaml_noise = st.text(alphabet="ab01.-+:?!&*|>%@`'\"#{}[],~<=\\xuU/ \n\t\r\u0085\u2028\ufeff\U0001f600", max_size=60)


@settings(max_examples=500)
@given(yaml_noise)
@example("%YAML 1.1.1\n---\n")
@example("%\n")
@example("--- |0\n")
@example('"\\U99999999"')
@example("? &")
@example("{? : }")
@example("- ---\n...\n%")
def test_yaml_raises_only_our_errors_and_yields_only_json(text: str) -> None:
    try:
        documents = load_yaml(text)
    except (Malformed, TooLarge):
        return
    assert repr(load_json(orjson.dumps(documents))) == repr(documents)


@given(values)
def test_yaml_reads_json(value: Any) -> None:
    assert load_yaml(json.dumps(value)) == [value]


@given(st.lists(values, max_size=6))
def test_ndjson_reads_each_line(items: list[Any]) -> None:
    data = b"\n".join(json.dumps(item).encode() for item in items)
    assert repr(list(load_ndjson(data))) == repr(items)


@given(st.integers(1, 200), st.lists(st.booleans(), min_size=1, max_size=200))
def test_depth_is_counted_exactly(limit: int, shape: list[bool]) -> None:
    text = b"".join(b'{"[":' if is_object else b"[" for is_object in shape) + b'"{[\\"["'
    text += b"".join(b"}" if is_object else b"]" for is_object in reversed(shape))
    if len(shape) <= limit:
        load_json(text, limits=Limits(depth=limit))
    else:
        with pytest.raises(TooLarge):
            load_json(text, limits=Limits(depth=limit))


# --- sealing --------------------------------------------------------------------------------------------------------

contexts = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)


@given(st.binary(max_size=200), contexts)
def test_seal_round_trip(plaintext: bytes, context: str) -> None:
    assert SEALER.open(SEALER.seal(plaintext, context), context) == plaintext


@given(st.binary(max_size=50), contexts, contexts)
def test_another_context_never_opens(plaintext: bytes, context: str, other: str) -> None:
    assume(context != other)
    with pytest.raises(Corrupt):
        SEALER.open(SEALER.seal(plaintext, context), other)


@given(st.binary(max_size=50), st.data())
def test_no_changed_seal_opens(plaintext: bytes, data: st.DataObject) -> None:
    sealed = SEALER.seal(plaintext, "c")
    at = data.draw(st.integers(0, len(sealed)))
    taken = data.draw(st.integers(0, 2))
    changed = sealed[:at] + data.draw(st.text(max_size=2)) + sealed[at + taken :]
    assume(changed != sealed)
    with pytest.raises(Corrupt):
        SEALER.open(changed, "c")


@given(st.text() | st.binary().map(lambda raw: f"{SEALER.keyring.primary}:{base64.urlsafe_b64encode(raw).decode()}"))
def test_open_raises_only_corrupt(sealed: str) -> None:
    with pytest.raises(Corrupt):
        SEALER.open(sealed, "c")


names = st.sampled_from(["a", "b", "c"])
clear_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | plain_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)
specs = st.dictionaries(names, clear_values, max_size=3)
# No path begins another: a secret has no secrets inside.
path_sets = st.sampled_from(
    [(), (("a",),), (("a", "b"),), (("a", "b"), ("a", "c"), ("b",)), (("c", "a", "b"), ("b", "a"))]
)


@given(specs, path_sets)
def test_secrets_round_trip_and_inputs_are_left_alone(spec: dict[str, Any], paths: Any) -> None:
    before = copy.deepcopy(spec)
    sealed = SEALER.seal_secrets(spec, paths, "k")
    again = copy.deepcopy(sealed)
    assert SEALER.reveal_secrets(sealed, paths, "k") == spec == before
    assert SEALER.seal_secrets(sealed, paths, "k") == sealed == again
    other = SEALER.seal_secrets(spec, paths, "k")
    assert commitment_view(sealed) == commitment_view(other)
    assert redact_secrets(spec, paths) == redact_secrets(sealed, paths)
    assert sealed == again
    assert redact_secrets(redact_secrets(spec, paths), paths) == redact_secrets(spec, paths)


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_parse_key_raises_only_invalid(text: bytes | str) -> None:
    with pytest.raises(Invalid):
        parse_key(text)


# --- signing and tokens ---------------------------------------------------------------------------------------------

ids = st.text(alphabet="abcXYZ019_-", min_size=1, max_size=40)


@given(ids, st.integers(0, 10**10), st.binary(max_size=100), st.integers(-300, 300))
def test_what_is_signed_verifies(msg_id: str, stamp: int, body: bytes, skew: int) -> None:
    headers = signed_headers([b"n" * 24, SECRET], msg_id, stamp, body)
    assume(stamp + skew >= 0)
    found = verify(headers, body, [SECRET], datetime.fromtimestamp(stamp + skew, UTC))
    assert (found.id, found.timestamp) == (msg_id, stamp)


@given(ids, st.binary(max_size=60), st.data())
def test_no_changed_message_verifies(msg_id: str, body: bytes, data: st.DataObject) -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    sent = signed_headers([SECRET], msg_id, int(now.timestamp()), body)
    name = data.draw(st.sampled_from([*sent, "body"]))
    whole: Any = body if name == "body" else sent[name]
    at = data.draw(st.integers(0, len(whole)))
    new: Any = data.draw(st.binary(max_size=2) if name == "body" else st.text(max_size=2))
    changed = whole[:at] + new + whole[at + data.draw(st.integers(0, 2)) :]
    assume(changed != whole)
    headers, received = (sent, changed) if name == "body" else (sent | {name: changed}, body)
    with pytest.raises(VerifyError):
        verify(headers, received, [SECRET], now)


@given(st.dictionaries(st.sampled_from(["webhook-id", "Webhook-Timestamp", "webhook-signature", "x"]), st.text()))
def test_verify_raises_only_verify_error(headers: dict[str, str]) -> None:
    with pytest.raises(VerifyError):
        verify(headers, b"", [SECRET], datetime(2030, 1, 1, tzinfo=UTC))


@given(st.text())
def test_secret_and_bearer_readers_raise_only_their_error(text: str) -> None:
    with pytest.raises(Invalid):
        parse_secret("whsec_!" + text)
    with pytest.raises(Unauthenticated):
        parse_bearer(text)


# --- addresses ------------------------------------------------------------------------------------------------------

v4 = st.integers(0, (1 << 32) - 1).map(ipaddress.IPv4Address) | st.sampled_from(
    [
        ipaddress.IPv4Address(text)
        for text in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "8.8.8.8", "0.0.0.0", "224.0.0.1")
    ]
)


@given(v4)
def test_every_way_to_carry_an_ipv4_address_is_seen_through(inner: ipaddress.IPv4Address) -> None:
    number = int(inner)
    carried = {
        "mapped": 0xFFFF << 32 | number,
        "translated": 0xFFFF << 48 | number,
        "compatible": number,
        "nat64": 0x64FF9B << 96 | number,
        "6to4": 0x2002 << 112 | number << 80 | 1,
        "teredo client": 0x20010000 << 96 | 0x08080808 << 64 | ~number & 0xFFFFFFFF,
        "teredo relay": 0x20010000 << 96 | number << 64 | ~0x08080808 & 0xFFFFFFFF,
    }
    if number < 2:
        del carried["compatible"]  # :: and ::1 themselves
    for form, value in carried.items():
        assert classify(ipaddress.IPv6Address(value)).reach == classify(inner).reach, form
    if classify(inner).reach is not Policy.PUBLIC and number:
        local = classify(ipaddress.IPv6Address(0x64FF9B0001 << 80 | number)).reach
        assert local == classify(inner).reach


@given(st.integers(0, (1 << 128) - 1).map(ipaddress.IPv6Address) | v4)
def test_policies_are_nested(address: Any) -> None:
    allowed = []
    for policy in (Policy.PUBLIC, Policy.PRIVATE, Policy.LOOPBACK):
        try:
            check_address(address, policy)
        except AddressRefused:
            allowed.append(False)
        else:
            allowed.append(True)
    assert allowed == sorted(allowed)
    if isinstance(address, ipaddress.IPv6Address) and not address.is_global:
        assert not allowed[0] or address.ipv4_mapped or address in ipaddress.ip_network("::/96")


@given(st.text(max_size=40) | st.text(alphabet="ahtps:/.@[]%#?0189\\ \t\u00e9\u3002\uff0e", max_size=40))
def test_urls_raise_only_our_errors_and_keep_their_meaning(text: str) -> None:
    for candidate in (text, "https://" + text, "http://" + text):
        try:
            url = check_url(candidate)
        except (Invalid, AddressRefused):
            continue
        assert check_url(str(url)) == url
        assert str(url).isascii()
        assert "@" not in url.authority
