"""Targets as people change them: signing, sealing, rotation with overlap, formats, challenges; by the real verbs."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import orjson
import pytest

from tests.unit.test_propagation_control import ADMIN, GUEST, NOW, URL, Place, place
from universal_registry.kernel.errors import AddressRefused, Forbidden, Invalid, NotFound
from universal_registry.kernel.ids import Key
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Outcome
from universal_registry.propagation.ports import Envelope
from universal_registry.propagation.verbs.target_keys import KeyField, drop_ended, parse_overlap
from universal_registry.propagation.verbs.targets import TargetOptions
from universal_registry.security.ed25519 import parse_public_key
from universal_registry.security.signing import parse_secret, verify
from universal_registry.security.wire import SEALED_TYPE, open_from_wire, parse_wire_key

__all__ = ["place"]  # the fixture

DAY = timedelta(days=1)
SECRET, SEAL = KeyField.SECRET, KeyField.SEAL_KEY
CLEAR = "http://hooks.example/x"


async def request_of(place: Place, name: str = "mine") -> dict[str, Any]:
    shown = await place.control.test_target("system", name, show=True)
    request = shown["request"]
    return {"headers": dict(request["headers"]), "body": request["body"].encode()}


async def rotated(place: Place, field: KeyField, overlap: timedelta = DAY) -> str:
    answer = await place.control.rotate_target_key("system", "mine", field, overlap, actor=ADMIN)
    return str(answer[field.value])


def signs(request: dict[str, Any], secret: str) -> bool:
    return bool(verify(request["headers"], request["body"], [parse_secret(secret)], NOW, tolerance=10**9))


async def delivery(place: Place) -> dict[str, Any]:
    record = await place.service.get(Key("endpoint", "system", "mine"))
    found = place.service.reveal(record)["delivery"]
    assert isinstance(found, dict)
    return found


async def test_both_secrets_sign_until_the_overlap_ends_and_the_old_one_is_dropped(place: Place) -> None:
    old = (await place.control.add_target("mine", URL, actor=ADMIN))["secret"]
    new = await rotated(place, SECRET)
    request = await request_of(place)
    entries = request["headers"]["webhook-signature"]
    assert re.fullmatch(r"v1,[^ ]+ v1,[^ ]+", entries), "entries are separated by exactly one space"
    assert signs(request, old)
    assert signs(request, new)
    seen = await place.control.target_key("system", "mine", SECRET, actor=ADMIN)
    assert (seen["secret"], seen["previous_secret"]) == (new, old)
    assert (await place.control.target("system", "mine"))["secret_overlap_until"] == "2026-03-02T12:00:00.000Z"
    assert await drop_ended(place.service) == []

    place.world.moment += DAY
    request = await request_of(place)
    assert request["headers"]["webhook-signature"].count("v1,") == 1
    assert signs(request, new)
    assert old in (await delivery(place)).values()
    head = await place.head()
    assert await drop_ended(place.service) == ["mine"]
    assert old not in (await delivery(place)).values()
    assert await place.head() == head + 1, "history shows it"
    assert await drop_ended(place.service) == []
    assert await place.head() == head + 1


async def test_without_an_overlap_the_old_secret_counts_no_more(place: Place) -> None:
    await place.control.add_target("mine", URL, actor=ADMIN)
    new = await rotated(place, SECRET, timedelta(0))
    assert "previous_secret" not in await delivery(place)
    assert signs(await request_of(place), new)


async def test_a_second_rotation_within_the_overlap_says_what_it_cuts(place: Place) -> None:
    await place.control.add_target("mine", URL, actor=ADMIN)
    first = await rotated(place, SECRET)
    again = await place.control.rotate_target_key("system", "mine", SECRET, DAY, actor=ADMIN)
    assert "counts no more" in again["warnings"][0]
    assert (await delivery(place))["previous_secret"] == first


async def test_the_old_sealing_key_seals_until_the_overlap_ends(place: Place) -> None:
    await place.control.add_target("mine", URL, actor=ADMIN)
    old = (await place.control.set_target("system", "mine", TargetOptions(seal="always"), actor=ADMIN))["seal_key"]
    new = await rotated(place, SEAL)
    for key, later in ((old, timedelta(0)), (new, DAY)):
        place.world.moment += later
        request = await request_of(place)
        assert request["headers"]["content-type"] == SEALED_TYPE
        opened = open_from_wire([parse_wire_key(key)], request["body"])
        assert orjson.loads(opened.body)["type"] == "registry.target.test.v1"
        assert opened.content_type.startswith("application/cloudevents+json")
    assert await drop_ended(place.service) == ["mine"]


async def test_keys_are_the_administrators_to_see(place: Place) -> None:
    await place.control.add_target("mine", URL, actor=ADMIN)
    with pytest.raises(Forbidden):
        await place.control.target_key("system", "mine", SECRET, actor=GUEST)
    with pytest.raises(NotFound, match="seal key"):
        await place.control.target_key("system", "mine", SEAL, actor=ADMIN)
    with pytest.raises(NotFound, match="did you mean"):
        await place.control.target_key("system", "mina", SECRET, actor=ADMIN)
    shown = orjson.dumps(await place.control.targets()).decode()
    assert "whsec_" not in shown
    assert "sealkey_" not in shown


async def test_signing_with_the_key_of_the_registry(place: Place) -> None:
    secret = (await place.control.add_target("mine", URL, actor=ADMIN))["secret"]
    public = parse_public_key((await place.control.target_key("system", "mine", SECRET, actor=ADMIN))["public_key"])
    for signing, by_secret, by_key in (("both", True, True), ("ed25519", False, True), ("hmac", True, False)):
        await place.control.set_target("system", "mine", TargetOptions(signing=signing), actor=ADMIN)
        request = await request_of(place)
        versions = [entry[:3] for entry in request["headers"]["webhook-signature"].split(" ")]
        assert versions == ["v1,"] * by_secret + ["v1a"] * by_key
        assert not by_secret or signs(request, secret)
        assert not by_key or verify(request["headers"], request["body"], [], NOW, public_keys=[public])
    (key,) = place.control.public_keys()["keys"]
    assert (key["kty"], key["crv"], len(key["x"])) == ("OKP", "Ed25519", 43)


async def test_cleartext_beyond_this_machine_is_refused_and_sealed_when_allowed(place: Place) -> None:
    with pytest.raises(AddressRefused, match="--insecure-http"):
        await place.control.add_target("mine", CLEAR, actor=ADMIN)
    made = await place.control.add_target("mine", CLEAR, options=TargetOptions(insecure_http=True), actor=ADMIN)
    assert any("bodies are sealed" in each for each in made["notes"])
    request = await request_of(place)
    assert request["headers"]["content-type"] == SEALED_TYPE
    assert open_from_wire([parse_wire_key(made["seal_key"])], request["body"])
    await place.control.set_target("system", "mine", TargetOptions(seal="never"), actor=ADMIN)
    assert (await request_of(place))["headers"]["content-type"] != SEALED_TYPE


async def test_on_this_machine_and_over_tls_auto_leaves_bodies_readable(place: Place) -> None:
    for name, url in (("here", URL), ("far", "https://hooks.example/x")):
        made = await place.control.add_target(name, url, options=TargetOptions(seal="auto"), actor=ADMIN)
        assert "seal_key" not in made
        assert (await request_of(place, name))["headers"]["content-type"].startswith("application/cloudevents+json")


async def test_a_format_is_pinned_and_takes_no_template_of_another(place: Place) -> None:
    await place.control.add_target("mine", URL, actor=ADMIN)
    options = TargetOptions(format="template", template="{{ verb }}", content_type="text/plain")
    await place.control.set_target("system", "mine", options, actor=ADMIN)
    request = await request_of(place)
    assert (request["headers"]["content-type"], request["body"]) == ("text/plain", b"test")
    await place.control.set_target("system", "mine", TargetOptions(format="slack"), actor=ADMIN)
    set_ = await delivery(place)
    assert (set_["format"], set_["format_version"], "template" in set_) == ("slack", 1, False)
    assert b'"text"' in (await request_of(place))["body"]


async def test_what_is_refused_changes_nothing(place: Place) -> None:
    await place.control.add_target("mine", URL, actor=ADMIN)
    head = await place.head()
    for options in (
        TargetOptions(template="{{ x"),
        TargetOptions(format="template"),
        TargetOptions(signing="rsa"),
        TargetOptions(timeout=-1.0),
        TargetOptions(secret="whsec_x"),
        TargetOptions(format="template", template="x", content_type="x"),
    ):
        with pytest.raises(Invalid):
            await place.control.set_target("system", "mine", options, actor=ADMIN)
    with pytest.raises(NotFound, match="did you mean"):
        await place.control.set_target("system", "mina", TargetOptions(seal="never"), actor=ADMIN)
    assert await place.head() == head
    unchanged = await place.control.set_target("system", "mine", TargetOptions(), actor=ADMIN)
    assert (unchanged["result"], await place.head()) == ("unchanged", head)


class Echo:
    """Answers a challenge as it is told to."""

    def __init__(self, answers: bool) -> None:
        self._answers = answers

    async def send(self, envelope: Envelope) -> Outcome:
        answer = envelope.body.decode() if self._answers else ""
        return Accepted(status=200, milliseconds=1.0, answer=answer)


async def test_a_target_is_validated_by_the_answer_and_until_it_moves(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.control.add_target("mine", URL, actor=ADMIN)
    place.far.answer = Failed(reason="connection refused", status=None, milliseconds=0.4)
    failed = await place.control.validate_target("system", "mine", actor=ADMIN)
    assert (failed["validated"], failed["reason"]) == (False, "connection refused")
    monkeypatch.setattr(place.far, "send", Echo(answers=False).send)
    silent = await place.control.validate_target("system", "mine", actor=ADMIN)
    assert (silent["delivered"], silent["validated"]) == (True, False)
    assert "did not answer with it" in silent["reason"]
    assert (await place.control.target("system", "mine"))["validated_at"] is None
    monkeypatch.setattr(place.far, "send", Echo(answers=True).send)
    assert (await place.control.validate_target("system", "mine", actor=ADMIN))["validated"]
    assert (await place.control.target("system", "mine"))["validated_at"] == "2026-03-01T12:00:00.000Z"
    await place.control.add_target("mine", URL + "2", actor=ADMIN)
    assert (await place.control.target("system", "mine"))["validated_at"] is None


@pytest.mark.parametrize(
    ("text", "is_"), [("0s", timedelta(0)), ("90m", timedelta(minutes=90)), ("24h", DAY), ("90d", timedelta(days=90))]
)
def test_an_overlap_in_words(text: str, is_: timedelta) -> None:
    assert parse_overlap(text) == is_


@pytest.mark.parametrize("text", ["", "24", "h", "-1h", "1w", "91d", "99999999d", "1.5h", "1h 2m", "١h"])
def test_what_is_no_overlap(text: str) -> None:
    with pytest.raises(Invalid, match="at most 90d"):
        parse_overlap(text)
