"""The receiver's side: one error for whatever is wrong, opened bodies, an inbox in the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from universal_registry.client.inbox import Inbox, Verdict
from universal_registry.client.receiver import Message, VerifyError, WebhookReceiver
from universal_registry.kernel.errors import Conflict, Invalid
from universal_registry.kernel.world import SystemWorld
from universal_registry.security.ed25519 import SigningKey, public_text
from universal_registry.security.signing import new_secret, parse_secret, signed_headers
from universal_registry.security.wire import SEALED_TYPE, new_wire_key, parse_wire_key, seal_for_wire

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Still(SystemWorld):
    def __init__(self) -> None:
        self.moment = NOW

    def now(self) -> datetime:
        return self.moment


WORLD = Still()
SECRET, SEAL_KEY, KEY = new_secret(WORLD), new_wire_key(WORLD), SigningKey(bytes(32))
EVENTS = "application/cloudevents+json; charset=utf-8"
DOOR = WebhookReceiver(secrets=[SECRET], seal_keys=[SEAL_KEY], world=WORLD)


def event(number: int = 7, verb: str = "updated", **changes: Any) -> bytes:
    made = {
        "specversion": "1.0",
        "id": f"r.{number}.0",
        "source": "/registries/r",
        "type": f"registry.alias.{verb}.v1",
        "subject": "alias/default/gs",
        "sequence": f"{number:016d}.000000",
        "data": {"revision": number},
    }
    return json.dumps(made | changes).encode()


def sent(body: bytes, content_type: str = EVENTS, msg_id: str = "dlv_1", age: int = 0) -> dict[str, str]:
    stamp = int(NOW.timestamp()) - age
    return {"Content-Type": content_type, **signed_headers([parse_secret(SECRET)], msg_id, stamp, body, KEY)}


def test_an_authentic_event_is_read() -> None:
    body = event()
    message = DOOR.open(sent(body), body)
    assert message == Message(
        id="dlv_1",
        timestamp=int(NOW.timestamp()),
        body=body,
        content_type=EVENTS,
        type="registry.alias.updated.v1",
        source="/registries/r",
        subject="alias/default/gs",
        sequence="0000000000000007.000000",
        data={"revision": 7},
    )
    assert message.is_state
    assert message.challenge is None


def test_a_sealed_body_is_opened_after_the_signature_was_checked() -> None:
    body = event()
    sealed = seal_for_wire(parse_wire_key(SEAL_KEY), body, EVENTS, WORLD)
    message = DOOR.open(sent(sealed, SEALED_TYPE), sealed)
    assert (message.body, message.content_type, message.data) == (body, EVENTS, {"revision": 7})
    without = WebhookReceiver(secrets=[SECRET], world=WORLD)
    with pytest.raises(VerifyError, match="sealed with key"):
        without.open(sent(sealed, SEALED_TYPE), sealed)


def test_a_public_key_alone_is_enough() -> None:
    body = event()
    assert WebhookReceiver(public_keys=[public_text(KEY.public)], world=WORLD).open(sent(body), body).id == "dlv_1"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", EVENTS),
        (b"[]", EVENTS),
        (b'{"a": 1}', EVENTS),
        (b'{"a": 1, "a": 2}', "application/json"),
        (b"\xff", "application/json"),
        (event(type=5), EVENTS),
        (event(subject="x" * 3000), EVENTS),
        (b"a.b.c", SEALED_TYPE),
        (event(), SEALED_TYPE),
    ],
)
def test_an_authentic_body_that_cannot_be_read_is_the_same_error(body: bytes, content_type: str) -> None:
    with pytest.raises(VerifyError):
        DOOR.open(sent(body, content_type), body)


NAMES = st.text(max_size=20) | st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"])


@given(st.dictionaries(NAMES, st.text()), st.binary())
def test_whatever_comes_there_is_one_error(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(VerifyError):
        DOOR.open(headers, body)


def test_it_may_be_so_old_and_no_older() -> None:
    body = event()
    for age in (300, -300):
        DOOR.open(sent(body, age=age), body)
    for age in (301, -301):
        with pytest.raises(VerifyError, match="301 s"):
            DOOR.open(sent(body, age=age), body)


def test_other_formats_are_data() -> None:
    assert DOOR.open(sent(b'{"text":"x"}', "application/json"), b'{"text":"x"}').data == {"text": "x"}
    assert DOOR.open(sent(b"plain", "text/plain"), b"plain").data is None


def test_a_challenge_is_found_only_where_it_is_one() -> None:
    asked = event(type="registry.target.challenge.v1", data={"challenge": "abc"})
    assert DOOR.open(sent(asked), asked).challenge == "abc"
    other = event(data={"challenge": "abc"})
    assert DOOR.open(sent(other), other).challenge is None


def test_a_door_without_keys_is_none() -> None:
    with pytest.raises(Invalid):
        WebhookReceiver(seal_keys=[SEAL_KEY])
    with pytest.raises(Invalid) as caught:
        WebhookReceiver(secrets=["hunter2"])
    assert "hunter2" not in str(caught.value)


# --- the inbox --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["default", "autocommit"])
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = sqlite3.connect(tmp_path / "mine.db", isolation_level="" if request.param == "default" else None)
    opened.execute("CREATE TABLE effects (revision INTEGER)")
    opened.commit()
    yield opened
    opened.close()


def message(number: int, msg_id: str = "", **changes: Any) -> Message:
    body = event(number, **changes)
    return DOOR.open(sent(body, msg_id=msg_id or f"dlv_{number}"), body)


def take(inbox: Inbox, connection: sqlite3.Connection, one: Message, fail: bool = False) -> Verdict:
    with inbox.handling(one) as verdict:
        if verdict is Verdict.NEW:
            connection.execute("INSERT INTO effects VALUES (?)", (one.data["revision"],))
        if fail:
            raise RuntimeError("the effect failed")
    return verdict


def effects(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT revision FROM effects ORDER BY rowid")]


def test_each_message_has_its_effect_once(connection: sqlite3.Connection) -> None:
    inbox = Inbox(connection, world=WORLD)
    assert [take(inbox, connection, message(1)) for _ in range(3)] == ["new", "repeated", "repeated"]
    assert effects(connection) == [1]


def test_effect_and_id_are_kept_or_lost_together(connection: sqlite3.Connection) -> None:
    inbox = Inbox(connection, world=WORLD)
    with pytest.raises(RuntimeError):
        take(inbox, connection, message(1), fail=True)
    assert effects(connection) == []
    assert take(inbox, connection, message(1)) is Verdict.NEW
    assert effects(connection) == [1]


def test_what_was_handled_is_known_after_a_restart(connection: sqlite3.Connection, tmp_path: Path) -> None:
    take(Inbox(connection, world=WORLD), connection, message(1))
    with sqlite3.connect(tmp_path / "mine.db") as again:
        assert take(Inbox(again, world=WORLD), again, message(1)) is Verdict.REPEATED
    again.close()


def test_older_state_of_the_same_record_is_discarded(connection: sqlite3.Connection) -> None:
    inbox = Inbox(connection, world=WORLD)
    assert take(inbox, connection, message(5)) is Verdict.NEW
    assert take(inbox, connection, message(4)) is Verdict.LATE
    assert take(inbox, connection, message(4, "dlv_other", subject="alias/default/other")) is Verdict.NEW
    assert take(inbox, connection, message(5, "replayed")) is Verdict.NEW  # a replay: the same state, a new id
    assert take(inbox, connection, message(6, verb="deleted")) is Verdict.NEW
    assert take(inbox, connection, message(1, "restored", source="/registries/other")) is Verdict.NEW
    assert effects(connection) == [5, 4, 5, 6, 1]


def test_an_event_of_its_own_is_never_replaced(connection: sqlite3.Connection) -> None:
    inbox = Inbox(connection, world=WORLD)
    assert [take(inbox, connection, message(number, verb="event")) for number in (5, 4)] == ["new", "new"]


def test_ids_are_forgotten_when_no_sender_repeats_them_any_more(connection: sqlite3.Connection) -> None:
    world = Still()
    inbox = Inbox(connection, kept=timedelta(days=1), world=world)
    take(inbox, connection, message(1))
    world.moment += timedelta(hours=23)
    assert take(inbox, connection, message(1)) is Verdict.REPEATED
    world.moment += timedelta(hours=2)
    take(inbox, connection, message(2))
    assert connection.execute("SELECT id FROM registry_inbox").fetchall() == [("dlv_2",)]


def test_it_does_not_share_a_transaction_that_is_open(connection: sqlite3.Connection) -> None:
    inbox = Inbox(connection, world=WORLD)
    connection.execute("BEGIN")
    with pytest.raises(Conflict), inbox.handling(message(1)):
        pass
    with pytest.raises(Conflict):
        Inbox(connection)
