"""What two paired registries say to one another: nobody else can say it, read it, change it or repeat it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from universal_registry.kernel.errors import Invalid, RegistryError, VerifyError
from universal_registry.kernel.world import SystemWorld
from universal_registry.propagation.routing.counterparts import Counterpart, is_within, overall, side_of
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.selector import parse_selector
from universal_registry.security.pairing import (
    Answered,
    Asked,
    Closed,
    Invitation,
    MachineKey,
    Opening,
    Sealed,
    answer_opening,
    fingerprint,
    open_closed,
    open_numbered,
    parse_invitation,
    seal_answer,
    seal_numbered,
    text_of,
)
from universal_registry.transports.peer.paths import packed, unpacked

WORLD = SystemWorld()
CATALOGUE = load_catalogue()
HERE, THERE, STRANGER = (MachineKey(bytes((each,)) * 32) for each in (1, 2, 3))
A, B = "aaaaaaaa", "bbbbbbbb"


def opened() -> tuple[Opening, Answered, Any]:
    opening = Opening(HERE, A, B, THERE.public, WORLD)
    answered, keys = answer_opening(THERE, opening.ask, HERE.public, "link", WORLD)
    return opening, answered, keys


def test_both_have_the_same_four_keys_and_others_each_time() -> None:
    opening, answered, keys = opened()
    assert opening.finish(answered) == keys
    assert len(set(keys)) == 4
    assert keys != opened()[2]


def test_nobody_else_can_open_a_link() -> None:
    """Neither with another key, nor as another node, nor to another, nor by changing what was said."""
    asked = Opening(STRANGER, A, B, THERE.public, WORLD).ask
    with pytest.raises(VerifyError):
        answer_opening(THERE, asked, HERE.public, "link", WORLD)
    good = Opening(HERE, A, B, THERE.public, WORLD).ask
    for bad in (
        Asked(B, good.to, good.key, good.proof),
        Asked(good.node, A, good.key, good.proof),
        Asked(good.node, good.to, text_of(STRANGER.public), good.proof),
        Asked(good.node, good.to, text_of(bytes(32)), good.proof),
        Asked(good.node, good.to, good.key, good.proof[:-2] + "AA"),
        Asked(good.node, good.to, good.key, "%"),
    ):
        with pytest.raises(VerifyError):
            answer_opening(THERE, bad, HERE.public, "link", WORLD)


def test_nobody_else_can_answer() -> None:
    opening = Opening(HERE, A, B, THERE.public, WORLD)
    good, _ = answer_opening(THERE, opening.ask, HERE.public, "link", WORLD)
    for bad in (
        Answered(good.key, good.proof, "other"),
        Answered(text_of(STRANGER.public), good.proof, "link"),
        Answered(good.key, good.proof[:-2] + "AA", "link"),
    ):
        with pytest.raises(VerifyError):
            opening.finish(bad)


def test_who_repeats_the_first_message_has_no_keys() -> None:
    opening, _, keys = opened()
    _, others = answer_opening(THERE, opening.ask, HERE.public, "link", WORLD)
    assert others != keys
    with pytest.raises(VerifyError):
        open_numbered(others.sent, seal_numbered(keys.sent, 0, b"x"))


@given(number=st.integers(0, 2**63), data=st.binary(max_size=200), at=st.integers(0, 1000), bit=st.integers(0, 7))
def test_a_message_opens_as_it_was_and_not_when_changed(number: int, data: bytes, at: int, bit: int) -> None:
    key = bytes(32)
    sealed = seal_numbered(key, number, data)
    assert open_numbered(key, sealed) == (number, data)
    assert len(data) < 8 or data not in sealed
    changed = bytearray(sealed)
    changed[at % len(sealed)] ^= 1 << bit
    for bad in (bytes(changed), sealed[: at % len(sealed)], sealed + b"x"):
        with pytest.raises(VerifyError):
            open_numbered(key, bad)


@given(data=st.binary(max_size=60))
def test_noise_is_never_more_than_one_error(data: bytes) -> None:
    for read in (lambda: open_numbered(bytes(32), data), lambda: unpacked(data)):
        with suppress(RegistryError):
            read()


@given(frames=st.lists(st.binary(max_size=50), max_size=8))
def test_frames_come_out_of_a_message_as_they_went_in(frames: list[bytes]) -> None:
    assert unpacked(packed(frames)) == frames


def test_a_question_is_for_one_alone_and_so_is_its_answer() -> None:
    closed = Closed(HERE.public, b"secret", WORLD)
    with pytest.raises(VerifyError):
        open_closed(STRANGER, closed.message)
    question, key = open_closed(HERE, closed.message)
    assert question == b"secret"
    assert closed.open(seal_answer(key, b"welcome")) == b"welcome"
    with pytest.raises(VerifyError):
        closed.open(seal_answer(bytes(32), b"welcome"))
    with pytest.raises(VerifyError):
        open_closed(HERE, Sealed(closed.message.key, closed.message.box[:-2] + "AA"))


def test_an_invitation_is_one_word_for_any_shell_and_reads_back() -> None:
    invitation = Invitation("https://h.example:8443", A, B, HERE.public, "s" * 22, 1_900_000_000)
    line = invitation.line
    assert parse_invitation(line) == parse_invitation(f"  {line}\n") == invitation
    assert not set(line) & set(" \t\"'`$&;|<>()[]{}*?!#~\\^")


@given(text=st.text(max_size=80) | st.text(max_size=80).map(lambda text: "ureg-peer:http://h/" + text))
def test_what_is_no_invitation_is_invalid_and_not_repeated(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_invitation(text)
    assert len(text) < 8 or text not in str(refused.value)


def test_a_fingerprint_is_short_and_of_one_key() -> None:
    assert fingerprint(HERE.public) != fingerprint(THERE.public)
    assert len(fingerprint(HERE.public)) == 19


# --- what a session says of its link ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inner", "outer", "within"),
    [
        ("kind=alias,name=gs", "", True),
        ("kind=alias,name=gs", "kind=alias", True),
        ("kind=alias,name=gs", "kind=alias,name=g*", True),
        ("kind=alias,name=gs", "kind=service", False),
        ("name=gs", "kind=alias", False),
        ("kind=alias", "kind=alias,name=g*", False),
        ("namespace=system,kind=endpoint", "", False),
        ("namespace=team", "namespace=team", True),
        ("kind=alias", "namespace=team", False),
    ],
)
def test_whether_a_link_carries_what_a_session_is_about(inner: str, outer: str, within: bool) -> None:
    assert is_within(parse_selector(inner, CATALOGUE), parse_selector(outer, CATALOGUE)) is within


@dataclass
class _Case:
    states: list[str]
    overall: str


@pytest.mark.parametrize(
    "case",
    [
        _Case(["in_sync", "in_sync"], "in_sync"),
        _Case(["in_sync", "syncing"], "syncing"),
        _Case(["conflicted", "syncing"], "conflicted"),
        _Case(["degraded", "partitioned"], "partitioned"),
        _Case(["planned", "planned"], "planned"),
        _Case(["planned", "in_sync"], "degraded"),
    ],
)
def test_a_session_is_as_good_as_its_worst_side(case: _Case) -> None:
    assert overall(case.states) == case.overall


def test_a_side_says_why() -> None:
    selector = parse_selector("kind=alias,name=gs", CATALOGUE)
    peer = Counterpart(name="b", state="in_sync", reason="", scope=parse_selector("kind=service", CATALOGUE))
    assert side_of("system/b", selector, {})["reason"] == "no peer is called b yet: ureg peer invite b"
    assert side_of("system/b", selector, {"b": peer})["state"] == "degraded"
