"""What goes over the wire, byte for byte, and what a target's record makes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from universal_registry.kernel.errors import Corrupt, Refused
from universal_registry.kernel.settings import RetrySettings, Settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.log.change import Change, Op
from universal_registry.propagation.messages.formats import write_event
from universal_registry.propagation.ports import Envelope
from universal_registry.propagation.routing.target import Target, parse_target
from universal_registry.propagation.sending.packer import Packer, event_of
from universal_registry.registry.record import Record, encode_record
from universal_registry.registry.words import shell_word
from universal_registry.security.addresses import Policy
from universal_registry.security.ed25519 import SigningKey
from universal_registry.security.signing import parse_secret, verify

NOW = datetime(2026, 3, 1, 12, 0, 30, 999000, tzinfo=UTC)
AT = "2026-03-01T12:00:00.000Z"
HERE = "0123456789ab"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SEALED = {"$sealed": "12345678:token", "$mac": "00"}


def record(kind: str = "alias", name: str = "gs", spec: dict[str, Any] | None = None, **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "classification": "ZshAlias",
        "namespace": "default",
        "uid": "u1",
        "generation": 1,
        "revision": 42,
        "created_revision": 42,
        "created_at": AT,
        "updated_at": AT,
        "created_by": "uid:0",
        "updated_by": "uid:0",
        "fingerprint": "f",
        **changes,
    }
    return Record(kind=kind, name=name, spec={"command": "git status"} if spec is None else spec, **fields)


def line(of: Record, op: Op = Op.PUT, **changes: Any) -> Change:
    fields: dict[str, Any] = {
        "revision": 42,
        "seq": 3,
        "generation": of.generation,
        "body": encode_record(of),
        "changed_fields": ("spec.command",),
        "message": "shorter",
        **changes,
    }
    return Change(
        op=op,
        kind=of.kind,
        namespace=of.namespace,
        name=of.name,
        uid=of.uid,
        commitment="c",
        actor="uid:0",
        txn_id="t",
        at=AT,
        **fields,
    )


def target(spec: dict[str, Any], **changes: Any) -> Target:
    of = record("endpoint", "mine", spec, **{"namespace": "system", "classification": "WebhookEndpoint", **changes})
    parsed = parse_target(of, spec)
    assert parsed is not None
    return parsed


def spec(url: str | None = "https://hooks.example/x", **delivery: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {"protocol": "webhook", "delivery": {"transport": "webhook", "secret": SECRET, **delivery}}
    return whole if url is None else {**whole, "url": url}


class Still(SystemWorld):
    """Time stands still."""

    def now(self) -> datetime:
        return NOW


WORLD = Still()
KEY = SigningKey(bytes(range(32)))


def packer(**settings: Any) -> Packer:
    return Packer(WORLD, lambda: KEY, Settings(home=Path(), **settings))


def sent(change: Change, **more: Any) -> Envelope:
    to, pack = more.pop("to", target(spec())), more.pop("by", packer())
    body = write_event(to.shape, event_of(change, HERE, **more), WORLD)
    return pack.pack("dlv_1", body, to)


def body(change: Change, **more: Any) -> dict[str, Any]:
    loaded = orjson.loads(sent(change, **more).body)
    assert isinstance(loaded, dict)
    return loaded


def test_a_put_as_a_cloud_event() -> None:
    found = body(line(record()))
    data = found.pop("data")
    assert found == {
        "specversion": "1.0",
        "id": f"{HERE}.42.3",
        "source": f"/registries/{HERE}",
        "type": "registry.alias.created.v1",
        "subject": "alias/default/gs",
        "time": AT,
        "sequence": "0000000000000042.000003",
        "datacontenttype": "application/json",
    }
    assert {name: data[name] for name in data if name != "record"} == {
        "changed": ["spec.command"],
        "revision": 42,
        "generation": 1,
        "actor": "uid:0",
        "message": "shorter",
    }
    assert data["record"]["spec"] == {"command": "git status"}
    assert (data["record"]["kind"], data["record"]["meta"]["revision"]) == ("alias", 42)


@pytest.mark.parametrize(
    ("op", "generation", "word"),
    [(Op.PUT, 1, "created"), (Op.PUT, 2, "updated"), (Op.DELETE, 3, "deleted"), (Op.EVENT, 0, "event")],
)
def test_types(op: Op, generation: int, word: str) -> None:
    assert body(line(record(), op, generation=generation), payload=1)["type"] == f"registry.alias.{word}.v1"


def test_the_sequence_sorts_as_text() -> None:
    places = [(9, 0), (9, 11), (10, 2), (10, 10), (123456789, 0)]
    sequences = [body(line(record(), revision=revision, seq=seq))["sequence"] for revision, seq in places]
    assert sequences == sorted(sequences)


@pytest.mark.parametrize("payload", [{"a": [1, None]}, "plain", 0, False, [], ""])
def test_an_event_carries_its_payload_as_it_is(payload: Any) -> None:
    assert body(line(record(), Op.EVENT), payload=payload)["data"] == payload


def test_secrets_stay_here_unless_they_are_passed_in_clear() -> None:
    secret = record(
        "secret", "db", {"value": SEALED, "deep": [{"x": SEALED}], "note": "n"}, classification="TokenSecret"
    )
    sealed = sent(line(secret))
    assert b"$sealed" not in sealed.body
    assert b"token" not in sealed.body.replace(b"TokenSecret", b"")
    kept = {"$secret": "kept"}
    assert body(line(secret))["data"]["record"]["spec"] == {"value": kept, "deep": [{"x": kept}], "note": "n"}
    clear = {"value": "swordfish", "deep": [], "note": "n"}
    assert body(line(secret), clear_spec=clear)["data"]["record"]["spec"] == clear


def test_the_bytes_are_the_same_on_every_attempt() -> None:
    assert sent(line(record())).body == sent(line(record()), record=record()).body


def test_headers_and_signature() -> None:
    envelope = sent(line(record()))
    headers = dict(envelope.headers)
    assert list(headers) == ["content-type", "user-agent", "webhook-id", "webhook-timestamp", "webhook-signature"]
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert headers["user-agent"].startswith("universal-registry/")
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("dlv_1", str(int(NOW.timestamp())))
    assert verify(headers, envelope.body, [parse_secret(SECRET)], NOW).id == "dlv_1"


def test_hostile_names_and_a_target_without_a_secret() -> None:
    odd = record(name="x; touch pwned\u202e🦄 [..]")
    envelope = sent(line(odd), to=target(spec(secret=None)))
    assert orjson.loads(envelope.body)["subject"] == f"alias/default/{odd.name}"
    assert "webhook-signature" not in dict(envelope.headers)
    assert all("\n" not in value and "\r" not in value for _, value in envelope.headers)


def test_the_targets_own_limits_win() -> None:
    slow = packer(retry=RetrySettings(timeout_seconds=7.0))
    assert sent(line(record()), by=slow).timeout == 7.0
    limited = target(spec(timeout=2, in_flight=4, network="private", paused=True))
    envelope = sent(line(record()), by=slow, to=limited)
    assert (envelope.timeout, envelope.network, envelope.url) == (2.0, Policy.PRIVATE, "https://hooks.example/x")
    assert (limited.in_flight, limited.paused, limited.held) == (4, True, "paused")


def test_nothing_is_prepared_for_a_target_that_cannot_be_sent_to() -> None:
    with pytest.raises(Refused, match="ureg target add mine URL"):
        sent(line(record()), to=target(spec(None)))
    with pytest.raises(Refused, match="network"):
        sent(line(record()), to=target(spec(network="anything")))


def test_a_line_without_a_body_says_so() -> None:
    with pytest.raises(Corrupt, match=r"42\.3"):
        sent(line(record(), body=None))


@pytest.mark.parametrize(
    "other",
    [
        record("endpoint", "mine", {"url": "https://hooks.example/x"}, namespace="system"),
        record("endpoint", "mine", spec(), namespace="default"),
        record("service", "mine", spec(), namespace="system"),
        record("endpoint", "mine", {"delivery": "webhook"}, namespace="system"),
    ],
)
def test_what_is_no_target(other: Record) -> None:
    assert parse_target(other, other.spec) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"network": "moon"}, "spec.delivery.network"),
        ({"network": ["public"]}, "spec.delivery.network"),
        ({"format": "smoke"}, "spec.delivery.format"),
        ({"format_version": 2}, "format_version"),
        ({"format": "template"}, "needs a template"),
        ({"format": "template", "template": "{{ x( }}"}, "line 1"),
        ({"format": "slack", "template": "x"}, "for format template"),
        ({"format": "template", "template": "x", "content_type": "a\r\nb: c"}, "content_type"),
        ({"signing": "rsa"}, "hmac or ed25519 or both"),
        ({"seal": "always"}, "ureg target key rotate mine"),
        ({"seal_key": "sealkey_short"}, "spec.delivery.seal_key"),
        ({"previous_secret": "x"}, "spec.delivery.previous_secret"),
        ({"previous_secret_until": "tomorrow"}, "a time with zone"),
        ({"transport": 5}, "spec.delivery.transport"),
        ({"in_flight": 0}, "spec.delivery.in_flight"),
        ({"in_flight": True}, "spec.delivery.in_flight"),
        ({"timeout": -1}, "spec.delivery.timeout"),
        ({"timeout": 1e9}, "spec.delivery.timeout"),
        ({"paused": "no"}, "spec.delivery.paused"),
        ({"secret": "whsec_short"}, "spec.delivery.secret"),
        ({"secret": SEALED}, "spec.delivery.secret"),
        ({"url": "http://hooks.example/x"}, "--insecure-http"),
        ({"url": "ftp://hooks.example/x"}, "spec.url"),
    ],
)
def test_a_bad_value_holds_this_target_and_says_which(changes: dict[str, Any], says: str) -> None:
    url = changes.pop("url", "https://hooks.example/x")
    found = target(spec(url, **changes))
    assert says in found.fault
    assert found.held == found.fault
    assert "short" not in found.fault


def test_cleartext_may_be_asked_for() -> None:
    assert target(spec("http://hooks.example/x", insecure_http=True)).held == ""
    assert target(spec("http://127.0.0.1:9000")).held == ""


def test_a_target_never_shows_its_secret() -> None:
    shown = repr(target(spec("https://hooks.example/services/T0/xyzzy")))
    assert SECRET not in shown
    assert "xyzzy" not in shown


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("mine", "mine"),
        ("remote.service", "remote.service"),
        ("@scope/pkg", "@scope/pkg"),
        ("x; touch pwned", "'x; touch pwned'"),
        ("it's", "'it'\"'\"'s'"),
        ("-rf", "'-rf'"),
        ("ünï", "'ünï'"),
    ],
)
def test_names_in_commands_are_quoted(text: str, word: str) -> None:
    assert shell_word(text) == word
