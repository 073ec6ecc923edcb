from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from multidict import CIMultiDict

from universal_registry.kernel.errors import Invalid, VerifyError
from universal_registry.kernel.world import SystemWorld
from universal_registry.security.signing import (
    ReplayGuard,
    Verified,
    new_secret,
    parse_secret,
    sign,
    signed_headers,
    verify,
)

SECRET_TEXT = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECRET = parse_secret(SECRET_TEXT)
ID, STAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
NOW = datetime.fromtimestamp(STAMP, UTC)
OTHER = b"o" * 32


def headers(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"webhook-id": ID, "webhook-timestamp": str(STAMP), "webhook-signature": SIGNATURE}
    return base | {f"webhook-{name}": value for name, value in changes.items()}


def refused(given: Any, body: bytes = BODY, secrets: list[bytes] | None = None, now: datetime = NOW) -> str:
    with pytest.raises(VerifyError) as caught:
        verify(given, body, [SECRET] if secrets is None else secrets, now)
    return str(caught.value)


def test_known_vector() -> None:
    assert sign(SECRET, ID, STAMP, BODY) == SIGNATURE
    assert verify(headers(), BODY, [SECRET], NOW) == Verified(ID, STAMP)


def test_header_names_have_no_case() -> None:
    given = {"Webhook-Id": ID, "WEBHOOK-TIMESTAMP": str(STAMP), "Webhook-Signature": SIGNATURE, "Other": "x"}
    assert verify(given, BODY, [SECRET], NOW).id == ID
    assert verify(CIMultiDict(given), BODY, [SECRET], NOW).id == ID


def test_rotation_signs_twice_and_either_secret_verifies() -> None:
    sent = signed_headers([OTHER, SECRET], ID, STAMP, BODY)
    assert sent["webhook-signature"].split(" ") == [sign(OTHER, ID, STAMP, BODY), SIGNATURE]
    for secrets in ([SECRET], [OTHER], [OTHER, SECRET], [b"z" * 24, SECRET]):
        assert verify(sent, BODY, secrets, NOW) == Verified(ID, STAMP)
    assert "no signature matches" in refused(sent, secrets=[b"z" * 24])
    assert "no signature matches" in refused(sent, secrets=[])


def test_other_versions_are_skipped() -> None:
    ed = "v1a," + base64.b64encode(b"e" * 64).decode()
    assert verify(headers(signature=f"{ed} {SIGNATURE}"), BODY, [SECRET], NOW).id == ID
    assert "no signature matches" in refused(headers(signature=ed))
    assert "no signature matches" in refused(headers(signature="v2" + SIGNATURE[2:]))


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_within_tolerance(seconds: int) -> None:
    assert verify(headers(), BODY, [SECRET], NOW + timedelta(seconds=seconds)).timestamp == STAMP


@pytest.mark.parametrize(("seconds", "said"), [(301, "301 s old"), (-301, "301 s in the future"), (10**8, "old")])
def test_out_of_tolerance(seconds: int, said: str) -> None:
    assert said in refused(headers(), now=NOW + timedelta(seconds=seconds))


def test_any_change_is_noticed() -> None:
    for position in range(len(BODY)):
        changed = BODY[:position] + bytes([BODY[position] ^ 1]) + BODY[position + 1 :]
        assert "no signature" in refused(headers(), body=changed)
    assert "no signature" in refused(headers(), body=BODY + b" ")
    assert "no signature" in refused(headers(), body=b"")
    assert "no signature" in refused(headers(id=ID + "x"))
    assert "no signature" in refused(headers(timestamp=str(STAMP + 1)))


def test_every_changed_character_of_the_signature_is_noticed() -> None:
    for position, char in enumerate(SIGNATURE):
        for other in "AFw9+=, \n":
            if other != char:
                refused(headers(signature=SIGNATURE[:position] + other + SIGNATURE[position + 1 :]))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"webhook-id": ID},
        {"webhook-id": ID, "webhook-timestamp": str(STAMP)},
        headers() | {"Webhook-Id": ID},
        CIMultiDict([*headers().items(), ("Webhook-Signature", SIGNATURE)]),
        CIMultiDict([*headers().items(), ("webhook-timestamp", str(STAMP))]),
        headers(id=""),
        headers(id="a.b"),
        headers(id="a b"),
        headers(id="é"),
        headers(id="a\nb"),
        headers(id="a\x00"),
        headers(id="x" * 257),
        headers(id="x" * 10_000_000),
        headers(id=b"bytes"),
        headers(id=None),
        headers(id=["x"]),
        headers(timestamp=""),
        headers(timestamp=STAMP),
        headers(timestamp=f"{STAMP}.0"),
        headers(timestamp=f" {STAMP}"),
        headers(timestamp=f"{STAMP}\n"),
        headers(timestamp=f"+{STAMP}"),
        headers(timestamp=f"-{STAMP}"),
        headers(timestamp=f"0{STAMP}"),
        headers(timestamp="1_614_265_330"),
        headers(timestamp="1e9"),
        headers(timestamp="\uff11\uff16"),
        headers(timestamp="\u0661\u0662"),
        headers(timestamp="nan"),
        headers(timestamp="9" * 4301),
        headers(timestamp="9" * 12),
        headers(signature=""),
        headers(signature=" "),
        headers(signature=SIGNATURE + " "),
        headers(signature=" " + SIGNATURE),
        headers(signature=f"{SIGNATURE}  {SIGNATURE}"),
        headers(signature=f"{SIGNATURE},{SIGNATURE}"),
        headers(signature=f"{SIGNATURE}\t{SIGNATURE}"),
        headers(signature=SIGNATURE + "\n"),
        headers(signature="v1,"),
        headers(signature="v1"),
        headers(signature=SIGNATURE.removeprefix("v1,")),
        headers(signature="v1,====" + SIGNATURE),
        headers(signature=SIGNATURE.replace("=", "")),
        headers(signature=SIGNATURE.replace("+", "-").replace("/", "_")),
        headers(signature=" ".join([SIGNATURE] * 17)),
        headers(signature="v1,é"),
        headers(signature="\ud800"),
        headers(signature=12),
        headers(signature="v1," + "A" * 1_000_000),
    ],
)
def test_every_malformed_input_is_one_error(given: Any) -> None:
    message = refused(given)
    assert len(message) < 200


def test_dots_cannot_shift_the_parts() -> None:
    """`a`, `1`, `2.x` and `a.1`, `2`, `x` would sign the same bytes: ids with a dot are neither signed nor taken."""
    with pytest.raises(Invalid):
        sign(SECRET, "a.1", 2, b"x")


@pytest.mark.parametrize(("msg_id", "stamp"), [("", 1), ("a b", 1), ("é", 1), ("x" * 257, 1), ("a", -1), ("a", 10**12)])
def test_sign_refuses_what_no_one_could_verify(msg_id: str, stamp: int) -> None:
    with pytest.raises(Invalid):
        sign(SECRET, msg_id, stamp, b"")


def test_secrets() -> None:
    secret = new_secret(SystemWorld())
    assert len(parse_secret(secret)) == 32
    assert secret != new_secret(SystemWorld())
    for size in (24, 32, 64):
        assert len(parse_secret("whsec_" + base64.b64encode(b"s" * size).decode())) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        "hunter2hunter2",
        SECRET_TEXT.removeprefix("whsec_"),
        "WHSEC_" + SECRET_TEXT[6:],
        SECRET_TEXT + "\n",
        SECRET_TEXT + "!",
        SECRET_TEXT[:-1],
        "whsec_" + base64.b64encode(b"s" * 23).decode(),
        "whsec_" + base64.b64encode(b"s" * 65).decode(),
        "whsec_é",
    ],
)
def test_bad_secrets_are_refused_and_not_shown(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_secret(text)
    body = text.strip().removeprefix("whsec_")
    assert not body or body not in str(caught.value)


def test_short_secrets_do_not_sign() -> None:
    with pytest.raises(Invalid):
        sign(b"short", ID, STAMP, BODY)
    with pytest.raises(Invalid):
        signed_headers([], ID, STAMP, BODY)


# --- replay ---------------------------------------------------------------------------------------------------------


def test_replay_guard_lets_each_id_in_once() -> None:
    guard = ReplayGuard(keep=600)
    assert guard.claim("a", NOW)
    assert not guard.claim("a", NOW)
    assert not guard.claim("a", NOW + timedelta(seconds=599))
    assert guard.claim("b", NOW + timedelta(seconds=599))
    assert guard.claim("a", NOW + timedelta(seconds=600))
    assert len(guard) == 2


def test_replay_guard_release_lets_the_retry_in() -> None:
    guard = ReplayGuard()
    assert guard.claim("a", NOW)
    guard.release("a")
    assert guard.claim("a", NOW)
    guard.release("never claimed")


def test_replay_guard_is_bounded() -> None:
    guard = ReplayGuard(capacity=100)
    for number in range(1000):
        assert guard.claim(str(number), NOW)
    assert len(guard) == 100
    assert guard.forgotten == 900
    assert not guard.claim("999", NOW)
    assert not guard.claim("900", NOW)


def test_replay_guard_when_the_clock_steps_back() -> None:
    guard = ReplayGuard(keep=600)
    assert guard.claim("late", NOW + timedelta(hours=1))
    assert guard.claim("early", NOW)
    assert not guard.claim("early", NOW + timedelta(seconds=1))
    assert guard.claim("early", NOW + timedelta(seconds=601))
    assert not guard.claim("late", NOW + timedelta(seconds=601))


def test_a_replay_within_tolerance_on_both_sides_meets_the_guard() -> None:
    """A message stamped 300 s ahead verifies for 600 s; the guard remembers it for all of them."""
    guard = ReplayGuard()
    early = NOW - timedelta(seconds=300)
    for seconds, new in ((0, True), (1, False), (599, False)):
        now = early + timedelta(seconds=seconds)
        assert verify(headers(), BODY, [SECRET], now).id == ID
        assert guard.claim(ID, now) is new
    assert "old" in refused(headers(), now=early + timedelta(seconds=601))


@pytest.mark.parametrize(("capacity", "keep"), [(0, 1), (-1, 1), (1, 0)])
def test_a_guard_without_room_is_refused(capacity: int, keep: float) -> None:
    with pytest.raises(Invalid):
        ReplayGuard(capacity, keep)
